//! Counters of what happened since the start, for metrics.
//!
//! Must never: decide anything, or make a counting thread wait for a reading one.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::queue::{Event, LossReason, Record, Refusal};

/// A type whose values are counted by name.
pub trait Counted {
    /// All names, in the order in which metrics show them.
    const NAMES: &'static [&'static str];

    /// The name of this value; `None` if the value is not counted.
    fn counted_as(&self) -> Option<&'static str>;
}

impl Counted for Event {
    const NAMES: &'static [&'static str] = &Event::NAMES;

    fn counted_as(&self) -> Option<&'static str> {
        Some(self.name())
    }
}

impl Counted for LossReason {
    const NAMES: &'static [&'static str] = &LossReason::NAMES;

    fn counted_as(&self) -> Option<&'static str> {
        Some(self.name())
    }
}

impl Counted for Refusal {
    const NAMES: &'static [&'static str] = &Refusal::NAMES;

    fn counted_as(&self) -> Option<&'static str> {
        Some(self.name())
    }
}

/// How often the values of a type were counted, by name.
#[derive(Debug)]
pub struct Tally<T> {
    counts: Box<[AtomicU64]>,
    value_type: PhantomData<fn(&T)>,
}

impl<T: Counted> Default for Tally<T> {
    fn default() -> Tally<T> {
        Tally { counts: T::NAMES.iter().map(|_| AtomicU64::new(0)).collect(), value_type: PhantomData }
    }
}

impl<T: Counted> Tally<T> {
    /// Counts a value.
    pub fn count(&self, one: &T) {
        let name = one.counted_as();
        if let Some(index) = T::NAMES.iter().position(|known| name == Some(*known)) {
            self.counts[index].fetch_add(1, Relaxed);
        }
    }

    /// Every name with its count.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        T::NAMES.iter().zip(&self.counts).map(|(name, count)| (*name, count.load(Relaxed)))
    }
}

/// A histogram of numbers.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// For each bound, how many numbers were at most this bound and more than the previous one. The last count is for numbers above all
    /// bounds.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// An empty histogram. `bounds` must ascend.
    pub fn new(bounds: &'static [u64]) -> Histogram {
        Histogram {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// Adds a number.
    pub fn observe(&self, value: u64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Each bound with how many numbers were at most this bound; then the count and the sum of all numbers.
    pub fn read(&self) -> (Vec<(u64, u64)>, u64, u64) {
        let mut total = 0;
        let mut cumulative = |count: &AtomicU64| {
            total += count.load(Relaxed);
            total
        };
        let buckets = self.bounds.iter().zip(&self.counts).map(|(bound, count)| (*bound, cumulative(count)));
        let buckets = buckets.collect();
        let all = cumulative(&self.counts[self.bounds.len()]);
        (buckets, all, self.sum.load(Relaxed))
    }
}

/// Bounds for the duration of a claim, in microseconds.
const CLAIM_MICROS: [u64; 13] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000];
/// Bounds for the number of events per commit.
const COMMIT_EVENTS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// The counters of the engine, and of the refusals that the filesystem makes by the rules of the queue.
#[derive(Debug)]
pub struct Counters {
    /// Events on disk, by kind.
    pub events: Tally<Event>,
    /// Claims that ended although the task was not finished, by reason.
    pub lost_claims: Tally<LossReason>,
    /// Refused commands, by reason.
    pub refusals: Tally<Refusal>,
    /// How long claims took, in microseconds, from the command until the claim was on disk.
    pub claim_micros: Histogram,
    /// How many events each commit had.
    pub commit_events: Histogram,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            events: Tally::default(),
            lost_claims: Tally::default(),
            refusals: Tally::default(),
            claim_micros: Histogram::new(&CLAIM_MICROS),
            commit_events: Histogram::new(&COMMIT_EVENTS),
        }
    }
}

impl Counters {
    /// Counts the records of one commit.
    pub(super) fn count_commit(&self, records: &[Record]) {
        self.commit_events.observe(records.len() as u64);
        for record in records {
            self.events.count(&record.event);
            if let Event::Returned { reason, .. } = &record.event {
                self.lost_claims.count(reason);
            }
        }
    }

    /// Counts a claim that is on disk, `after` the command.
    pub(super) fn count_claim(&self, after: Duration) {
        self.claim_micros.observe(after.as_micros().try_into().unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Counted for char {
        const NAMES: &'static [&'static str] = &["a", "b"];

        fn counted_as(&self) -> Option<&'static str> {
            [("a", 'a'), ("b", 'b')].into_iter().find_map(|(name, c)| (c == *self).then_some(name))
        }
    }

    #[test]
    fn only_what_has_a_name_is_counted() {
        let tally = Tally::default();
        ['b', 'c', 'b'].iter().for_each(|c| tally.count(c));
        assert_eq!(tally.all().collect::<Vec<_>>(), [("a", 0), ("b", 2)]);
    }

    #[test]
    fn a_bound_holds_what_is_at_most_that() {
        let histogram = Histogram::new(&[1, 10]);
        [0, 1, 2, 10, 11, 100].into_iter().for_each(|value| histogram.observe(value));
        assert_eq!(histogram.read(), (vec![(1, 2), (10, 4)], 6, 124));
    }
}
