//! Positions and times as arguments. The caller passes the time; the queue never reads a clock.
//!
//! There are two kinds of time. [`Wall`] is for people. It can be set, so nothing expires by it. [`Instant`] is monotonic: it only counts
//! forward while the machine runs. Leases are measured in it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The position of an event in the log. The first event is 1; 0 is the position before it.
pub type Seq = u64;

/// Wall time: milliseconds since 1970-01-01T00:00:00Z. Written in JSON as RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub i64);

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl Serialize for Wall {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wall {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        Wall::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not an RFC 3339 time")))
    }
}

impl Wall {
    /// Parses an RFC 3339 time, to the millisecond.
    pub fn parse(text: &str) -> Option<Wall> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Wall(t.as_millisecond()))
    }

    /// This time plus `span`; at most the last time that can be shown.
    pub fn after(self, span: Span) -> Wall {
        Wall(self.0.saturating_add_unsigned(span.0).min(jiff::Timestamp::MAX.as_second() * 1_000))
    }

    /// Whether RFC 3339 can write this time: its year has four digits.
    pub fn is_shown(self) -> bool {
        jiff::Timestamp::from_millisecond(self.0).is_ok_and(|time| !time.to_string().starts_with('-'))
    }
}

/// A reading of the monotonic clock, in milliseconds since some moment of this boot. It does not jump. It stands still while the machine
/// sleeps, and cannot be compared with a reading of another boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The span since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// This moment plus `span`.
    pub fn after(self, span: Span) -> Instant {
        Instant(self.0.saturating_add(span.0))
    }
}

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// For people and for the log.
    pub wall: Wall,
    /// For leases and idle times.
    pub instant: Instant,
}

/// A length of time in milliseconds. Its text is like `90s`, `30m`, `2h`, `1d`, `1h30m` or `250ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(pub u64);

impl Span {
    const UNITS: [(&'static str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

    /// Parses a span: one or more numbers, each with its unit (`d h m s ms`), largest unit first.
    pub fn parse(text: &str) -> Option<Span> {
        let mut rest = text.trim();
        let mut total: u64 = 0;
        let mut smallest = u64::MAX;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let (number, tail) = rest.split_at(digits);
            let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let &(_, factor) = Self::UNITS.iter().find(|(name, _)| *name == unit)?;
            if factor >= smallest {
                return None;
            }
            smallest = factor;
            total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
            rest = tail;
        }
        (smallest != u64::MAX).then_some(Span(total))
    }

    /// The span as a [`std::time::Duration`].
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, factor) in Self::UNITS {
            if rest >= factor {
                write!(f, "{}{name}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_write_them() {
        for (text, ms) in
            [("90s", 90_000), ("30m", 1_800_000), ("1h30m", 5_400_000), ("250ms", 250), ("0s", 0)]
        {
            assert_eq!(Span::parse(text), Some(Span(ms)), "{text}");
        }
        for bad in ["", "10", "m", "1x", "1m1h", "1.5h", "-1s", "99999999999999999999s", "1h 30m"] {
            assert_eq!(Span::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Span(5_400_250).to_string(), "1h30m250ms");
    }

    #[test]
    fn walls_are_rfc_3339() {
        let wall = Wall(1_767_225_600_007);
        assert_eq!(wall.to_string(), "2026-01-01T00:00:00.007Z");
        assert_eq!(serde_json::from_str::<Wall>("\"2026-01-01T00:00:00.007Z\"").unwrap(), wall);
        assert_eq!(Wall::parse("2026-01-01T01:00:00+01:00"), Some(Wall(1_767_225_600_000)));
        assert_eq!(Wall::parse("tomorrow"), None);
    }

    #[test]
    fn what_is_too_far_away_is_the_last_time_that_can_be_shown() {
        for far in
            [Wall(0).after(Span(u64::MAX)), Wall(i64::MAX).after(Span(1)), Wall(0).after(Span(1 << 60))]
        {
            assert!(far.is_shown() && far.to_string().starts_with("9999-12-30T"), "{far}");
        }
        assert_eq!(Wall(5).after(Span(7)), Wall(12));
        assert!(!Wall(i64::MAX).is_shown() && !Wall::parse("-000001-01-01T00:00:00Z").unwrap().is_shown());
        assert!(Wall(0).is_shown() && Wall(-1).is_shown());
    }
}
