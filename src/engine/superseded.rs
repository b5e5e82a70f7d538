//! Texts that the state no longer shows: results, reasons and notes that were overwritten, or whose task or claim is gone.
//!
//! May assume: the caller is the writer, and the events that it passes are on disk.
//! Must never: drop a text that the state shows; do more in one step than the limits allow.
//!
//! The states before and after a commit show which texts it supersedes. After the next start, a sweep over the texts of the log finds those
//! that a crash kept from being dropped.

use std::collections::{BTreeSet, HashSet, VecDeque};

use crate::limits::{TEXT_BYTES_SUPERSEDED, TEXTS_DROPPED, TEXTS_SWEPT};
use crate::log::{Log, LogError};
use crate::queue::{Record, Seq, State, TaskId};

/// The texts that the log may drop.
pub(super) struct Superseded {
    /// The events of the texts, each with the length of the text, oldest first.
    texts: VecDeque<(Seq, u64)>,
    bytes: u64,
    /// The rest of the sweep: the position after which it continues, the last position, and the texts that were shown when it began.
    sweep: Option<(Seq, Seq, HashSet<Seq>)>,
}

impl Superseded {
    /// Begins with the state of the log.
    pub(super) fn since(state: &State) -> Superseded {
        let shown = state.tasks().flat_map(|(_, task)| task.texts()).map(|(seq, _)| seq).collect();
        Superseded { texts: VecDeque::new(), bytes: 0, sweep: Some((0, state.tail(), shown)) }
    }

    /// Notes the texts that these events superseded. They turned `before` into `after`.
    pub(super) fn note(&mut self, before: &State, records: &[Record], after: &State) {
        let texts_of = |state: &State, task: &TaskId| {
            state.task(task.as_str()).into_iter().flat_map(|task| task.texts()).collect::<Vec<_>>()
        };
        let changed: BTreeSet<&TaskId> = records.iter().filter_map(|record| record.event.task()).collect();
        let shown: BTreeSet<Seq> =
            changed.iter().flat_map(|task| texts_of(after, task)).map(|(seq, _)| seq).collect();
        let shown_before = changed.iter().flat_map(|task| texts_of(before, task));
        let written =
            records.iter().filter_map(|record| Some((record.seq, record.event.text()?.digest().bytes)));
        for (seq, bytes) in shown_before.chain(written).filter(|(seq, _)| !shown.contains(seq)) {
            self.texts.push_back((seq, bytes));
            self.bytes += bytes;
        }
    }

    /// Whether so much can be dropped that it should be dropped at once, not at the next tick.
    pub(super) fn is_over_limit(&self) -> bool {
        self.bytes >= TEXT_BYTES_SUPERSEDED
    }

    /// Drops some texts from the log, and continues the sweep.
    pub(super) fn step(&mut self, log: &mut dyn Log) -> Result<(), LogError> {
        self.sweep(log)?;
        let count = self.texts.len().min(TEXTS_DROPPED);
        if count > 0 {
            let events: Vec<Seq> = self.texts.range(..count).map(|(seq, _)| *seq).collect();
            log.drop_texts(&events)?;
            self.bytes -= self.texts.drain(..count).map(|(_, bytes)| bytes).sum::<u64>();
        }
        Ok(())
    }

    fn sweep(&mut self, log: &mut dyn Log) -> Result<(), LogError> {
        let Some((after, until, shown)) = &mut self.sweep else { return Ok(()) };
        let found = log.texts(*after, TEXTS_SWEPT)?;
        let done = found.len() < TEXTS_SWEPT || found.last().is_some_and(|last| last >= until);
        let old = found.iter().filter(|seq| *seq <= until && !shown.contains(seq));
        self.texts.extend(old.map(|seq| (*seq, 0)));
        match found.last() {
            Some(last) if !done => *after = *last,
            _ => self.sweep = None,
        }
        Ok(())
    }
}
