//! The record of a worker in the queue.

use serde::{Deserialize, Serialize};

use super::{LossReason, Moment, TaskId, Wall};

/// The record of a worker in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// The user that the name belongs to.
    pub uid: u32,
    /// When the name was first used.
    pub joined: Moment,
    /// When the worker last changed.
    pub changed: Moment,
    /// Whether the worker may claim nothing more.
    #[serde(default)]
    pub draining: bool,
    /// The tasks that the worker holds, oldest claim first.
    #[serde(default)]
    pub claims: Vec<TaskId>,
    /// How many tasks the worker completed.
    #[serde(default)]
    pub completed: u64,
    /// How many tasks the worker gave up.
    #[serde(default)]
    pub failed: u64,
    /// When the last claim ended, if any claim ended.
    #[serde(default)]
    pub last_claim_ended: Option<Wall>,
    /// The last claim that the worker lost without giving it back.
    #[serde(default)]
    pub lost: Option<Lost>,
    /// Whether an operator, the lease or the end of a process ended the worker's last claim. A new claim clears it.
    #[serde(default)]
    pub ousted: bool,
}

/// A lost claim, as kept for the worker that lost it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The task.
    pub task: TaskId,
    /// When the claim was lost.
    pub at: Wall,
    /// Why the claim was lost.
    pub reason: LossReason,
}

impl Worker {
    pub(super) fn new(uid: u32, draining: bool, moment: Moment) -> Worker {
        Worker {
            uid,
            joined: moment,
            changed: moment,
            draining,
            claims: Vec::new(),
            completed: 0,
            failed: 0,
            last_claim_ended: None,
            lost: None,
            ousted: false,
        }
    }
}
