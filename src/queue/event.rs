//! Events: the vocabulary of the log.
//!
//! May assume: a command was judged before its events were made.
//! Must never: change the meaning or the spelling of an event that was ever written. Add a new event instead.

use serde::{Deserialize, Serialize};

use super::{Content, FileStamp, LossReason, Manifest, Seq, TaskId, Wall, WorkerName};

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An instruction file appeared, or its content changed.
    Published {
        /// The task.
        task: TaskId,
        /// The parsed file.
        manifest: Manifest,
        /// The stamp of the content that was parsed.
        stamp: FileStamp,
        /// The cycle of needs that the task closes, starting with this task.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cycle: Vec<TaskId>,
    },
    /// The cycle for which this task was rejected no longer exists.
    CycleBroken {
        /// The task.
        task: TaskId,
    },
    /// The instruction file is open for writing. Its content is not complete until the task is published again.
    FileOpened {
        /// The task.
        task: TaskId,
    },
    /// The instruction file is gone. The task stays, because the file may come back.
    FileMissing {
        /// The task.
        task: TaskId,
    },
    /// The task was removed, because its instruction file was gone for too long.
    Withdrawn {
        /// The task.
        task: TaskId,
    },
    /// An operator removed the record of a finished task whose file is gone.
    Forgotten {
        /// The task.
        task: TaskId,
        /// The operator.
        by: WorkerName,
    },
    /// A worker claimed the task. The position of this event is the epoch of the claim.
    Claimed {
        /// The task.
        task: TaskId,
        /// The holder.
        worker: WorkerName,
    },
    /// The holder wrote a progress note.
    Noted {
        /// The task.
        task: TaskId,
        /// The note.
        text: Content,
    },
    /// The task is done.
    Completed {
        /// The task.
        task: TaskId,
        /// The holder, if it finished the task itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<WorkerName>,
        /// The operator, if an operator finished the task instead.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<WorkerName>,
        /// The result, if it was already known. It may follow in an [`Event::Reported`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<Content>,
    },
    /// The task is given up.
    Failed {
        /// The task.
        task: TaskId,
        /// The holder, if it gave up the task itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<WorkerName>,
        /// The operator, if an operator gave the task up instead. Both names are `None` if too many claims were lost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<WorkerName>,
        /// The reason, if it was already known. It may follow in an [`Event::Reported`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<Content>,
    },
    /// The result or reason of a finished task was written.
    Reported {
        /// The task.
        task: TaskId,
        /// The whole text.
        text: Content,
    },
    /// A claim ended, and the task is open again.
    Returned {
        /// The task.
        task: TaskId,
        /// The holder.
        worker: WorkerName,
        /// Why the claim ended.
        reason: LossReason,
    },
    /// A finished task is open again.
    Retried {
        /// The task.
        task: TaskId,
        /// The caller.
        by: WorkerName,
    },
    /// A worker used its name for the first time.
    Joined {
        /// Its name.
        worker: WorkerName,
        /// The user that the name belongs to from now on.
        uid: u32,
    },
    /// A worker may claim nothing more, or may claim again.
    Drained {
        /// Its name.
        worker: WorkerName,
        /// Whether the worker drains from now on.
        draining: bool,
    },
    /// A worker has exactly these capabilities now.
    Capable {
        /// Its name.
        worker: WorkerName,
        /// The capabilities, sorted, each once.
        words: Vec<String>,
    },
    /// Only time passed. At this time some task changes without a command.
    TimePassed,
    /// An operator stopped all claiming, or let it go on.
    Paused {
        /// Whether claiming is stopped from now on.
        paused: bool,
        /// The caller.
        by: WorkerName,
    },
}

impl Event {
    /// The name of each kind of event, as written in the log.
    pub const NAMES: [&str; 18] = [
        "published",
        "cycle_broken",
        "file_opened",
        "file_missing",
        "withdrawn",
        "forgotten",
        "claimed",
        "noted",
        "completed",
        "failed",
        "reported",
        "returned",
        "retried",
        "joined",
        "drained",
        "capable",
        "time_passed",
        "paused",
    ];

    /// The name of this kind of event, as written in the log.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Published { .. } => "published",
            Event::CycleBroken { .. } => "cycle_broken",
            Event::FileOpened { .. } => "file_opened",
            Event::FileMissing { .. } => "file_missing",
            Event::Withdrawn { .. } => "withdrawn",
            Event::Forgotten { .. } => "forgotten",
            Event::Claimed { .. } => "claimed",
            Event::Noted { .. } => "noted",
            Event::Completed { .. } => "completed",
            Event::Failed { .. } => "failed",
            Event::Reported { .. } => "reported",
            Event::Returned { .. } => "returned",
            Event::Retried { .. } => "retried",
            Event::Joined { .. } => "joined",
            Event::Drained { .. } => "drained",
            Event::Capable { .. } => "capable",
            Event::TimePassed => "time_passed",
            Event::Paused { .. } => "paused",
        }
    }

    /// The text that the event carries.
    pub fn text(&self) -> Option<&Content> {
        match self {
            Event::Noted { text, .. } | Event::Reported { text, .. } => Some(text),
            Event::Completed { text, .. } | Event::Failed { text, .. } => text.as_ref(),
            _ => None,
        }
    }

    /// The same event with another text, if it carries one.
    pub fn with_text(&self, new: Content) -> Event {
        let mut event = self.clone();
        match &mut event {
            Event::Noted { text, .. } | Event::Reported { text, .. } => *text = new,
            Event::Completed { text: Some(text), .. } | Event::Failed { text: Some(text), .. } => *text = new,
            _ => {}
        }
        event
    }

    /// The task that the event is about.
    pub fn task(&self) -> Option<&TaskId> {
        match self {
            Event::Published { task, .. }
            | Event::CycleBroken { task }
            | Event::FileOpened { task }
            | Event::FileMissing { task }
            | Event::Withdrawn { task }
            | Event::Forgotten { task, .. }
            | Event::Claimed { task, .. }
            | Event::Noted { task, .. }
            | Event::Completed { task, .. }
            | Event::Failed { task, .. }
            | Event::Reported { task, .. }
            | Event::Returned { task, .. }
            | Event::Retried { task, .. } => Some(task),
            Event::Joined { .. }
            | Event::Drained { .. }
            | Event::Capable { .. }
            | Event::TimePassed
            | Event::Paused { .. } => None,
        }
    }
}

/// An event with its position in the log. One line of `events.jsonl` is one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The position. Positions have no gaps.
    pub seq: Seq,
    /// The time of the event. It is never before that of the previous record.
    pub at: Wall,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_flat_line() {
        let record = Record {
            seq: 7,
            at: Wall(0),
            event: Event::Claimed {
                task: TaskId::parse("a").unwrap(),
                worker: WorkerName::parse("w1").unwrap(),
            },
        };
        let line = serde_json::to_string(&record).unwrap();
        assert_eq!(
            line,
            r#"{"seq":7,"at":"1970-01-01T00:00:00.000Z","event":"claimed","task":"a","worker":"w1"}"#
        );
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }

    #[test]
    fn time_needs_no_words() {
        let line = r#"{"seq":1,"at":"1970-01-01T00:00:00.000Z","event":"time_passed"}"#;
        let record = Record { seq: 1, at: Wall(0), event: Event::TimePassed };
        assert_eq!(serde_json::to_string(&record).unwrap(), line);
        assert_eq!(serde_json::from_str::<Record>(line).unwrap(), record);
    }
}
