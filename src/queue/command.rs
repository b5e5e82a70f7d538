//! Requests to the queue. [`decide`](super::decide()) judges each of them.
//!
//! Must never: hold anything that only a filesystem understands.

use super::{Content, Event, Eyes, FileStamp, LossReason, Manifest, Seq, Span, TaskId, WorkerName};

/// The caller of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The caller's worker name.
    pub worker: WorkerName,
    /// The caller's uid. A name belongs to the uid that used it first.
    pub uid: u32,
    /// Whether the caller may do what only an operator may, such as acting on the claims of other workers.
    pub operator: bool,
}

impl Actor {
    /// Whether the caller may set the draining state and the capabilities of a worker. Every caller may set its own; an operator may set
    /// those of every worker.
    pub fn may_speak_for(&self, worker: &WorkerName) -> bool {
        self.worker == *worker || self.operator
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// An instruction file is complete.
    Publish {
        /// The task.
        task: TaskId,
        /// The parsed file.
        manifest: Manifest,
        /// The stamp of the content that was parsed.
        stamp: FileStamp,
    },
    /// An instruction file is open for writing.
    OpenFile {
        /// The task.
        task: TaskId,
    },
    /// A caller removes an instruction file, or moves it away.
    RemoveFile {
        /// The task.
        task: TaskId,
        /// The caller.
        by: Actor,
    },
    /// The daemon found that an instruction file is gone. It is too late to refuse the removal.
    FileGone {
        /// The task.
        task: TaskId,
    },
    /// An instruction file was gone for too long.
    Withdraw {
        /// The task.
        task: TaskId,
    },
    /// An operator removes the record of a finished task whose file is gone.
    Forget {
        /// The task.
        task: TaskId,
        /// The operator.
        by: Actor,
    },
    /// A worker claims this task.
    Claim {
        /// The task.
        task: TaskId,
        /// The caller.
        by: Actor,
        /// How the caller opens the claim.
        form: ClaimForm,
        /// The files that the worker may read. A worker cannot claim a task whose file it cannot read.
        eyes: Eyes,
    },
    /// A worker claims the first ready task that it can do.
    ClaimNext {
        /// The caller.
        by: Actor,
        /// How the caller opens the claim.
        form: ClaimForm,
        /// The files that the worker may read.
        eyes: Eyes,
    },
    /// The holder writes a progress note.
    Note {
        /// The task.
        task: TaskId,
        /// The epoch of the claim under which the worker opened the file.
        epoch: Seq,
        /// The caller.
        by: Actor,
        /// The note.
        text: String,
    },
    /// The holder completes the task or gives it up.
    Finish {
        /// The task.
        task: TaskId,
        /// The caller.
        by: Actor,
        /// Whether the task is completed or failed.
        ending: Ending,
        /// The result or the reason, if it is already known. It may follow in a [`Command::Report`].
        text: Option<Content>,
        /// Whether the command is refused if the caller has already finished the task in this way.
        exclusive: bool,
    },
    /// The result or reason of a finished task is complete.
    Report {
        /// The task.
        task: TaskId,
        /// The position of the finish under which the worker opened the file.
        finish: Seq,
        /// The caller.
        by: Actor,
        /// The whole text.
        text: Content,
    },
    /// The holder gives its claim back, or an operator takes the claim away.
    Release {
        /// The task.
        task: TaskId,
        /// The caller.
        by: Actor,
    },
    /// The caller wants a finished task to be done again.
    Retry {
        /// The task.
        task: TaskId,
        /// The caller.
        by: Actor,
    },
    /// The lease of a claim ran out.
    Expire {
        /// The task.
        task: TaskId,
        /// The epoch of the claim that ends. A younger claim stays.
        epoch: Seq,
        /// How long the holder had no activity.
        silent: Span,
    },
    /// A worker ended.
    Depart {
        /// The worker.
        worker: WorkerName,
        /// The epoch of the last claim that ends. Younger claims stay.
        epoch: Seq,
        /// How the daemon knows that the worker ended.
        reason: LossReason,
    },
    /// A worker may claim nothing more, or may claim again.
    Drain {
        /// The worker.
        worker: WorkerName,
        /// The caller.
        by: Actor,
        /// Whether claiming stops or goes on.
        draining: bool,
    },
    /// A caller sets the capabilities of a worker. The new ones replace the old ones.
    Equip {
        /// The worker.
        worker: WorkerName,
        /// The caller.
        by: Actor,
        /// Its capabilities.
        words: Vec<String>,
    },
    /// No worker may claim anything, or every worker may claim again.
    Pause {
        /// The caller.
        by: Actor,
        /// Whether claiming stops or goes on.
        paused: bool,
    },
}

impl Command {
    /// The caller; `None` if the daemon itself makes the request.
    pub fn actor(&self) -> Option<&Actor> {
        match self {
            Command::Publish { .. }
            | Command::OpenFile { .. }
            | Command::FileGone { .. }
            | Command::Withdraw { .. }
            | Command::Expire { .. }
            | Command::Depart { .. } => None,
            Command::RemoveFile { by, .. }
            | Command::Forget { by, .. }
            | Command::Claim { by, .. }
            | Command::ClaimNext { by, .. }
            | Command::Note { by, .. }
            | Command::Finish { by, .. }
            | Command::Report { by, .. }
            | Command::Release { by, .. }
            | Command::Retry { by, .. }
            | Command::Drain { by, .. }
            | Command::Equip { by, .. }
            | Command::Pause { by, .. } => Some(by),
        }
    }
}

/// How a worker opens a claim. The forms differ for a worker that holds or held the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimForm {
    /// The worker gets the claim, or keeps the claim that it already has.
    Any,
    /// The worker must make the claim. If it already holds the task, the command is refused.
    Exclusive,
    /// The worker opens the claim to write a progress note. This claims a task like [`ClaimForm::Any`]. But it is refused if the lease, an
    /// operator or the end of a process ended the worker's last claim: the note was meant for that claim.
    Text,
}

/// The two ways in which a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The task is done.
    Completed,
    /// The task is given up.
    Failed,
}

/// A command that is allowed: its events, and the answer to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The events, in order. Empty if nothing changes, because the caller already has what it asked for.
    pub events: Vec<Event>,
    /// The answer to the caller.
    pub outcome: Outcome,
}

/// The answer to a command that is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The caller holds this claim.
    Claimed {
        /// The task.
        task: TaskId,
        /// The claim's epoch.
        epoch: Seq,
    },
    /// The task is finished.
    Finished {
        /// The position of the finish.
        finish: Seq,
    },
    /// The command is done and has no result.
    Done,
}
