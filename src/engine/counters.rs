//! What has happened since the start, in numbers: for metrics.
//!
//! Must never: be looked at to decide anything, or make whoever counts wait for whoever reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::queue::{Event, LossReason, Record, Refusal};

/// How often each of a few things happened, by name.
#[derive(Debug)]
pub struct Tally {
    names: &'static [&'static str],
    counts: Box<[AtomicU64]>,
}

impl Tally {
    /// Nothing of this has happened yet.
    pub fn new(names: &'static [&'static str]) -> Tally {
        Tally { names, counts: names.iter().map(|_| AtomicU64::new(0)).collect() }
    }

    /// This happened once more. What is not among the names is not counted.
    pub fn count(&self, name: &str) {
        if let Some(at) = self.names.iter().position(|known| *known == name) {
            self.counts[at].fetch_add(1, Relaxed);
        }
    }

    /// Every name, with how often it happened.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.names.iter().zip(&self.counts).map(|(name, count)| (*name, count.load(Relaxed)))
    }
}

/// How numbers are spread.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// How many were at most each bound and more than the one before; the last are beyond all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Nothing was measured yet. `bounds` grow.
    pub fn new(bounds: &'static [u64]) -> Histogram {
        Histogram {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// One more number.
    pub fn observe(&self, value: u64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    /// Each bound with how many numbers were at most that; then how many there were, and their sum.
    pub fn read(&self) -> (Vec<(u64, u64)>, u64, u64) {
        let mut so_far = 0;
        let mut upto = |count: &AtomicU64| {
            so_far += count.load(Relaxed);
            so_far
        };
        let buckets = self.bounds.iter().zip(&self.counts).map(|(bound, count)| (*bound, upto(count)));
        let buckets = buckets.collect();
        let all = upto(&self.counts[self.bounds.len()]);
        (buckets, all, self.sum.load(Relaxed))
    }
}

/// Bounds for how long a claim takes, in microseconds.
const CLAIM_MICROS: [u64; 13] =
    [250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000];
/// Bounds for how many events share a commit.
const COMMIT_EVENTS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];

/// What the engine counts, and what those above it refuse by the queue's rules.
#[derive(Debug)]
pub struct Counters {
    /// Events, by kind, when they are on disk.
    pub events: Tally,
    /// Claims that ended without the task being finished, by reason.
    pub lost_claims: Tally,
    /// Wishes refused, by reason.
    pub refusals: Tally,
    /// How long claims took, in microseconds, from the command to its being on disk.
    pub claim_micros: Histogram,
    /// How many events each commit took along.
    pub commit_events: Histogram,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            events: Tally::new(&Event::NAMES),
            lost_claims: Tally::new(&LossReason::NAMES),
            refusals: Tally::new(&Refusal::NAMES),
            claim_micros: Histogram::new(&CLAIM_MICROS),
            commit_events: Histogram::new(&COMMIT_EVENTS),
        }
    }
}

impl Counters {
    /// These are on disk, together.
    pub(super) fn committed(&self, records: &[Record]) {
        self.commit_events.observe(records.len() as u64);
        for record in records {
            self.events.count(record.event.name());
            if let Event::Returned { reason, .. } = &record.event {
                self.lost_claims.count(reason.name());
            }
        }
    }

    /// A claim is on disk, so long after it was asked for.
    pub(super) fn claimed(&self, after: Duration) {
        self.claim_micros.observe(after.as_micros().try_into().unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_a_name_is_counted() {
        let tally = Tally::new(&["a", "b"]);
        ["b", "c", "b"].into_iter().for_each(|name| tally.count(name));
        assert_eq!(tally.all().collect::<Vec<_>>(), [("a", 0), ("b", 2)]);
    }

    #[test]
    fn a_bound_holds_what_is_at_most_that() {
        let histogram = Histogram::new(&[1, 10]);
        [0, 1, 2, 10, 11, 100].into_iter().for_each(|value| histogram.observe(value));
        assert_eq!(histogram.read(), (vec![(1, 2), (10, 4)], 6, 124));
    }
}
