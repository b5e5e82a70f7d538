//! Reasons as facts: why a task does not move, and what became of a claim.
//!
//! Must never: hold a sentence or a path. The filesystem turns each reason into words.

use std::sync::Arc;

use super::{LossReason, Problem, TaskId, TaskState, Wall, WorkerName};

/// Why a task does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It is blocked, by each of these.
    Blocked(Vec<Obstacle>),
    /// The queue is paused since then.
    Paused(Wall),
    /// No worker has all these capabilities.
    NoWorkerHas(Vec<String>),
    /// The worker that asks is draining.
    Draining(String),
    /// The worker that asks lacks capabilities.
    Incapable {
        /// The worker that asks.
        worker: String,
        /// The words that the task requires and the worker lacks.
        missing: Vec<String>,
        /// Workers that have all that the task requires; not more than a sentence names.
        others: Vec<WorkerName>,
    },
    /// The worker that asks holds as many tasks as it may.
    HoldsEnough {
        /// The worker that asks.
        worker: String,
        /// How many tasks it holds.
        held: usize,
        /// How many it may hold.
        limit: usize,
    },
    /// A worker works on it.
    Claimed {
        /// The holder.
        worker: WorkerName,
        /// Since when.
        since: Wall,
        /// When its instructions were withdrawn, if they were.
        withdrawn: Option<Wall>,
    },
    /// Its file is not a task.
    Rejected(Arc<Problem>),
    /// It failed, and this is the first line of the reason.
    Failed(String),
    /// It failed, and the worker gave no reason.
    FailedSilently(WorkerName),
}

/// What an open task waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// Its file is open for writing.
    FileOpen,
    /// Its file is gone, and may come back.
    FileMissing,
    /// Tasks that are not completed.
    Needs {
        /// Some of them; not more than a sentence names.
        unmet: Vec<UnmetNeed>,
        /// How many more there are.
        more: usize,
    },
    /// The time before which it must not begin.
    NotBefore(Wall),
    /// A task that owns some of the same files and goes first.
    SharedFiles {
        /// That task.
        other: TaskId,
        /// Its holder, and since when; `None` while it only waits.
        claim: Option<(WorkerName, Wall)>,
    },
}

/// A need that is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnmetNeed {
    /// There is no such task.
    Absent(TaskId),
    /// The task failed; why, if the caller may see that.
    Failed(TaskId, Option<Box<Why>>),
    /// The task is rejected; why, if the caller may see that.
    Rejected(TaskId, Option<Box<Why>>),
    /// The task is in this state, and may still be completed.
    Unfinished(TaskId, TaskState),
}

/// Where a task stands, for a worker that lost it or never had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A worker holds it since then.
    Held(WorkerName, Wall),
    /// A worker or an operator brought it to this end.
    Finished(WorkerName, TaskState),
    /// It is in this state.
    Is(TaskState),
    /// The same worker has claimed it again, through another connection.
    ClaimedElsewhere,
    /// It was withdrawn.
    Withdrawn,
}

/// What became of a worker's claim of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimFate {
    /// When the claim ended and why, if the worker had one.
    pub ended: Option<(Wall, LossReason)>,
    /// Where the task stands now.
    pub now: Standing,
}
