//! The last events, for people that watch the queue.
//!
//! Must never: keep long texts. The log has them.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::limits::EVENTS_SHOWN;
use crate::queue::{Content, Record};

/// The last events, oldest first.
#[derive(Default)]
pub(super) struct EventTail(Mutex<VecDeque<Record>>);

impl EventTail {
    /// Adds records that are on disk.
    pub(super) fn add(&self, records: &[Record]) {
        let new = &records[records.len().saturating_sub(EVENTS_SHOWN)..];
        let mut kept = self.0.lock();
        let excess = (kept.len() + new.len()).saturating_sub(EVENTS_SHOWN);
        kept.drain(..excess);
        kept.extend(new.iter().map(brief));
    }

    /// All records that are kept.
    pub(super) fn all(&self) -> Vec<Record> {
        self.0.lock().iter().cloned().collect()
    }
}

fn brief(record: &Record) -> Record {
    let event = match record.event.text() {
        Some(text) => record.event.with_text(Content::new(text.digest().head.as_str())),
        None => record.event.clone(),
    };
    Record { event, ..*record }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RESULT_HEAD_BYTES;
    use crate::queue::{Event, TaskId, Wall};

    #[test]
    fn the_last_ones_are_kept_and_long_texts_are_not() {
        let task = TaskId::parse("a").unwrap();
        let record = |seq| Record {
            seq,
            at: Wall(0),
            event: Event::Reported { task: task.clone(), text: Content::new(vec![b'x'; 5_000]) },
        };
        let recent = EventTail::default();
        let many = EVENTS_SHOWN as u64 * 2;
        recent.add(&(1..=many).map(record).collect::<Vec<_>>());
        recent.add(&[record(many + 1)]);
        let all = recent.all();
        assert_eq!((all.len(), all[EVENTS_SHOWN - 1].seq), (EVENTS_SHOWN, many + 1));
        assert_eq!(all[0].seq, many + 2 - EVENTS_SHOWN as u64);
        let Event::Reported { text, .. } = &all[0].event else { panic!("{all:?}") };
        assert_eq!(text.whole().unwrap().len(), RESULT_HEAD_BYTES);
    }
}
