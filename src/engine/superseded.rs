//! Texts that nothing shows any more: results, reasons and notes that were overwritten, or whose task or claim is gone.
//!
//! May assume: the caller is the writer, and what it tells of is on disk.
//! Must never: have the log let go of a text that the state shows; do more in one go than the limits say.
//!
//! Which texts are left behind follows from the state before a commit and after it. What a crash keeps from being dropped is found
//! by one sweep over the texts of the log after the next start.

use std::collections::{BTreeSet, HashSet, VecDeque};

use crate::limits::{TEXT_BYTES_SUPERSEDED, TEXTS_DROPPED, TEXTS_SWEPT};
use crate::log::{Log, LogError};
use crate::queue::{Record, Seq, State, TaskId};

/// What the log may let go of.
pub(super) struct Superseded {
    /// Each with the length of its text, oldest first.
    texts: VecDeque<(Seq, u64)>,
    bytes: u64,
    /// What is left of the sweep: from where, up to where, and what was shown when it began.
    sweep: Option<(Seq, Seq, HashSet<Seq>)>,
}

impl Superseded {
    /// The log begins with this state.
    pub(super) fn since(state: &State) -> Superseded {
        let shown = state.tasks().flat_map(|(_, task)| task.texts()).map(|(seq, _)| seq).collect();
        Superseded { texts: VecDeque::new(), bytes: 0, sweep: Some((0, state.tail(), shown)) }
    }

    /// These events made one state of the other.
    pub(super) fn note(&mut self, before: &State, records: &[Record], after: &State) {
        let of = |state: &State, task: &TaskId| {
            state.task(task.as_str()).into_iter().flat_map(|task| task.texts()).collect::<Vec<_>>()
        };
        let changed: BTreeSet<&TaskId> = records.iter().filter_map(|record| record.event.task()).collect();
        let shown: BTreeSet<Seq> =
            changed.iter().flat_map(|task| of(after, task)).map(|(seq, _)| seq).collect();
        let were = changed.iter().flat_map(|task| of(before, task));
        let written =
            records.iter().filter_map(|record| Some((record.seq, record.event.text()?.digest().bytes)));
        for (seq, bytes) in were.chain(written).filter(|(seq, _)| !shown.contains(seq)) {
            self.texts.push_back((seq, bytes));
            self.bytes += bytes;
        }
    }

    /// Whether it is worth to let go of some at once, and not when it is time.
    pub(super) fn presses(&self) -> bool {
        self.bytes >= TEXT_BYTES_SUPERSEDED
    }

    /// Have the log let go of some, and look at some more.
    pub(super) fn step(&mut self, log: &mut dyn Log) -> Result<(), LogError> {
        self.sweep(log)?;
        let some = self.texts.len().min(TEXTS_DROPPED);
        if some > 0 {
            let of: Vec<Seq> = self.texts.range(..some).map(|(seq, _)| *seq).collect();
            log.drop_texts(&of)?;
            self.bytes -= self.texts.drain(..some).map(|(_, bytes)| bytes).sum::<u64>();
        }
        Ok(())
    }

    fn sweep(&mut self, log: &mut dyn Log) -> Result<(), LogError> {
        let Some((at, until, shown)) = &mut self.sweep else { return Ok(()) };
        let found = log.texts(*at, TEXTS_SWEPT)?;
        let done = found.len() < TEXTS_SWEPT || found.last().is_some_and(|last| last >= until);
        let old = found.iter().filter(|seq| *seq <= until && !shown.contains(seq));
        self.texts.extend(old.map(|seq| (*seq, 0)));
        match found.last() {
            Some(last) if !done => *at = *last,
            _ => self.sweep = None,
        }
        Ok(())
    }
}
