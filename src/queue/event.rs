//! What happened: the vocabulary of the log.
//!
//! May assume: that a command was judged before an event came to be.
//! Must never: change the meaning or the spelling of an event that has been written anywhere. Add a new one instead.

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
        /// The file as understood.
        manifest: Manifest,
        /// Which content that was.
        stamp: FileStamp,
        /// The cycle of needs that it closes, starting with this task.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cycle: Vec<TaskId>,
    },
    /// A cycle that this task was rejected for is gone.
    CycleBroken {
        /// The task.
        task: TaskId,
    },
    /// The instruction file is open for writing: what it says is not complete until the task is published again.
    FileOpened {
        /// The task.
        task: TaskId,
    },
    /// The instruction file is gone. The task stays: its file may be on its way back.
    FileMissing {
        /// The task.
        task: TaskId,
    },
    /// The task is gone, because its instruction file did not come back.
    Withdrawn {
        /// The task.
        task: TaskId,
    },
    /// An operator removed the record of a finished task that has no file any more.
    Forgotten {
        /// The task.
        task: TaskId,
        /// The operator.
        by: WorkerName,
    },
    /// A worker got the task. This event's position is the claim's epoch.
    Claimed {
        /// The task.
        task: TaskId,
        /// The holder.
        worker: WorkerName,
    },
    /// The holder left a progress note.
    Noted {
        /// The task.
        task: TaskId,
        /// What it wrote.
        text: Content,
    },
    /// The task is done.
    Completed {
        /// The task.
        task: TaskId,
        /// The holder, if it finished the task itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        worker: Option<WorkerName>,
        /// The operator, if one finished the task instead.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<WorkerName>,
        /// The result, where it came with the step.
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
        /// The operator, if one gave it up instead. Neither is named when too many claims were lost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<WorkerName>,
        /// The reason, where it came with the step.
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
        /// Who held it.
        worker: WorkerName,
        /// Why.
        reason: LossReason,
    },
    /// A finished task is to be done again.
    Retried {
        /// The task.
        task: TaskId,
        /// Who wants it.
        by: WorkerName,
    },
    /// A worker used its name for the first time.
    Joined {
        /// Its name.
        worker: WorkerName,
        /// Whom the name belongs to from now on.
        uid: u32,
    },
    /// A worker was told to finish what it holds and claim nothing more, or the opposite.
    Drained {
        /// Its name.
        worker: WorkerName,
        /// Whether it drains from now on.
        draining: bool,
    },
    /// A worker has these capabilities now, and no others.
    Capable {
        /// Its name.
        worker: WorkerName,
        /// The words, in order, each once.
        words: Vec<String>,
    },
    /// Nothing but the time: it is so late that something changes by itself.
    TimePassed,
    /// All claiming was stopped, or goes on.
    Paused {
        /// Whether claiming is stopped from now on.
        paused: bool,
        /// Who wants it.
        by: WorkerName,
    },
}

impl Event {
    /// The name of each kind, as it stands in the log.
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

    /// What kind it is, as it stands in the log.
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

    /// The text that it carries.
    pub fn text(&self) -> Option<&Content> {
        match self {
            Event::Noted { text, .. } | Event::Reported { text, .. } => Some(text),
            Event::Completed { text, .. } | Event::Failed { text, .. } => text.as_ref(),
            _ => None,
        }
    }

    /// The same with another text, if it carries one.
    pub fn with_text(&self, new: Content) -> Event {
        let mut event = self.clone();
        match &mut event {
            Event::Noted { text, .. } | Event::Reported { text, .. } => *text = new,
            Event::Completed { text: Some(text), .. } | Event::Failed { text: Some(text), .. } => *text = new,
            _ => {}
        }
        event
    }

    /// The task that it is about.
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

/// An event in its place in the log. One line of `events.jsonl` is one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its position; positions have no gaps.
    pub seq: Seq,
    /// When. Never before the record that precedes it.
    pub at: Wall,
    /// What.
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
