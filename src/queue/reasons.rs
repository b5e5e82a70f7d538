//! Reasons as facts: why a task waits, and how a claim ended.
//!
//! Must never: hold a sentence or a path. The filesystem turns each reason into words.

use std::sync::Arc;

use super::{LossReason, Problem, TaskId, TaskState, Wall, WorkerName};

/// Why a task waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The task is blocked by each of these.
    Blocked(Vec<Obstacle>),
    /// The queue is paused since this time.
    Paused(Wall),
    /// No worker has all these capabilities.
    NoWorkerHas(Vec<String>),
    /// The caller is draining.
    Draining(String),
    /// The caller lacks capabilities.
    Incapable {
        /// The caller.
        worker: String,
        /// The capabilities that the task requires and the caller lacks.
        missing: Vec<String>,
        /// Workers that have all required capabilities; not more than a sentence names.
        others: Vec<WorkerName>,
    },
    /// The caller holds as many tasks as it may.
    HoldsEnough {
        /// The caller.
        worker: String,
        /// How many tasks it holds.
        held: usize,
        /// How many it may hold.
        limit: usize,
    },
    /// A worker holds the task.
    Claimed {
        /// The holder.
        worker: WorkerName,
        /// When the claim began.
        since: Wall,
        /// When the instructions were withdrawn, if they were.
        withdrawn: Option<Wall>,
    },
    /// The file is not a valid task.
    Rejected(Arc<Problem>),
    /// The task failed. This is the first line of the reason.
    Failed(String),
    /// The task failed, and this worker gave no reason.
    FailedSilently(WorkerName),
}

/// What an open task waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The file is open for writing.
    FileOpen,
    /// The file is gone and may come back.
    FileMissing,
    /// The task needs tasks that are not completed.
    Needs {
        /// Some of them; not more than a sentence names.
        unmet: Vec<UnmetNeed>,
        /// How many more there are.
        more: usize,
    },
    /// The task cannot be claimed before this time.
    NotBefore(Wall),
    /// Another task owns some of the same files and goes first.
    SharedFiles {
        /// The other task.
        other: TaskId,
        /// The holder of the other task and when its claim began; `None` if the other task is not claimed.
        claim: Option<(WorkerName, Wall)>,
    },
}

/// A need that is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnmetNeed {
    /// The task does not exist.
    Absent(TaskId),
    /// The task failed; with the reason, if the caller may see it.
    Failed(TaskId, Option<Box<Why>>),
    /// The task is rejected; with the reason, if the caller may see it.
    Rejected(TaskId, Option<Box<Why>>),
    /// The task is in this state and can still be completed.
    Unfinished(TaskId, TaskState),
}

/// The current situation of a task, for a worker that does not hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// This worker holds the task since this time.
    Held(WorkerName, Wall),
    /// This worker or operator finished the task, which is in this state.
    Finished(WorkerName, TaskState),
    /// The task is in this state.
    Is(TaskState),
    /// The same worker has claimed the task again, through another connection.
    ClaimedElsewhere,
    /// The task was withdrawn.
    Withdrawn,
}

/// How a worker's claim of a task ended, and the current situation of the task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimFate {
    /// When and why the claim ended, if the worker had a claim.
    pub ended: Option<(Wall, LossReason)>,
    /// The current situation of the task.
    pub now: Standing,
}
