//! What somebody wants to happen: the questions that [`decide`](super::decide()) answers.
//!
//! Must never: hold anything that only a filesystem understands.

use super::{Content, Event, Eyes, FileStamp, LossReason, Manifest, Seq, Span, TaskId, WorkerName};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The caller's worker name.
    pub worker: WorkerName,
    /// The caller's uid. A name belongs to the uid that used it first.
    pub uid: u32,
    /// Whether the caller may do what only an operator may: act on claims of others.
    pub operator: bool,
}

impl Actor {
    /// Whether the caller may say what a worker does or can do: its own, and for operators everybody's.
    pub fn may_speak_for(&self, worker: &WorkerName) -> bool {
        self.worker == *worker || self.operator
    }
}

/// One wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// An instruction file is complete and says this.
    Publish {
        /// The task.
        task: TaskId,
        /// The file as understood.
        manifest: Manifest,
        /// Which content that is.
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
    /// An instruction file was found to be gone; it is too late to refuse that.
    FileGone {
        /// The task.
        task: TaskId,
    },
    /// An instruction file did not come back in time.
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
    /// A worker wants this task.
    Claim {
        /// The task.
        task: TaskId,
        /// Who.
        by: Actor,
        /// How it asks.
        form: ClaimForm,
        /// What it may read: a task whose file it cannot read is not for it.
        eyes: Eyes,
    },
    /// A worker wants the best task there is for it.
    ClaimNext {
        /// Who.
        by: Actor,
        /// How it asks.
        form: ClaimForm,
        /// What it may read.
        eyes: Eyes,
    },
    /// The holder leaves a progress note.
    Note {
        /// The task.
        task: TaskId,
        /// The claim under which the writer opened the file.
        epoch: Seq,
        /// Who.
        by: Actor,
        /// What.
        text: String,
    },
    /// The holder is done with the task, one way or the other.
    Finish {
        /// The task.
        task: TaskId,
        /// Who.
        by: Actor,
        /// How it ended.
        ending: Ending,
        /// The result or the reason, where it comes with the step.
        text: Option<Content>,
        /// Whether having done so already is a refusal.
        exclusive: bool,
    },
    /// The result or reason of a finished task is complete.
    Report {
        /// The task.
        task: TaskId,
        /// The position of the finish under which the writer opened the file.
        finish: Seq,
        /// Who.
        by: Actor,
        /// The whole text.
        text: Content,
    },
    /// A claim is given back by its holder, or taken away by an operator.
    Release {
        /// The task.
        task: TaskId,
        /// Who.
        by: Actor,
    },
    /// A finished task is to be done again.
    Retry {
        /// The task.
        task: TaskId,
        /// Who.
        by: Actor,
    },
    /// A lease ran out.
    Expire {
        /// The task.
        task: TaskId,
        /// The claim that is over. A younger one stays.
        epoch: Seq,
        /// How long the holder was silent.
        silent: Span,
    },
    /// A worker is gone.
    Depart {
        /// The worker.
        worker: WorkerName,
        /// Its last claim that is over with it. Younger ones stay.
        epoch: Seq,
        /// How that is known.
        reason: LossReason,
    },
    /// A worker shall claim nothing more, or may again.
    Drain {
        /// The worker.
        worker: WorkerName,
        /// Who wants it.
        by: Actor,
        /// Which of the two.
        draining: bool,
    },
    /// It is said what a worker can do, instead of what was said before.
    Equip {
        /// The worker.
        worker: WorkerName,
        /// Who says so.
        by: Actor,
        /// Its capabilities.
        words: Vec<String>,
    },
    /// Nobody shall claim anything, or everybody may again.
    Pause {
        /// Who wants it.
        by: Actor,
        /// Which of the two.
        paused: bool,
    },
}

impl Command {
    /// Who asks; nobody when crewfs itself does.
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

/// How a worker asks for a claim. The three differ in what they mean for a worker that has held the task already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimForm {
    /// The worker wants the claim, whether it makes it now or has it already.
    Any,
    /// The worker wants to be the one that makes it: to have it already is a refusal.
    Exclusive,
    /// The worker opens the claim to write a text into it, a progress note. That claims a task like [`ClaimForm::Any`], but
    /// not for a worker whose own claim was ended by another hand: what it writes was meant for the claim that is over.
    Text,
}

/// The two ways in which a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Done.
    Completed,
    /// Given up.
    Failed,
}

/// A wish granted: what will have happened, and what the caller wants to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The facts, in order. Empty when nothing changes: the caller has already what it asked for.
    pub events: Vec<Event>,
    /// The answer.
    pub outcome: Outcome,
}

/// The answer to a wish that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The caller holds this claim.
    Claimed {
        /// The task.
        task: TaskId,
        /// The claim's epoch.
        epoch: Seq,
    },
    /// The task ended by this finish.
    Finished {
        /// The position of the finish.
        finish: Seq,
    },
    /// It is so.
    Done,
}
