//! What the queue knows of a worker.

use serde::{Deserialize, Serialize};

use super::{LossReason, Moment, TaskId, Wall};

/// What the queue knows of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Whom the name belongs to.
    pub uid: u32,
    /// When it was first used.
    pub joined: Moment,
    /// When anything about it changed last.
    pub changed: Moment,
    /// Whether it may claim nothing more.
    #[serde(default)]
    pub draining: bool,
    /// What it holds, oldest claim first.
    #[serde(default)]
    pub claims: Vec<TaskId>,
    /// How many tasks it completed.
    #[serde(default)]
    pub completed: u64,
    /// How many tasks it gave up.
    #[serde(default)]
    pub failed: u64,
    /// When its last claim ended, if one has.
    #[serde(default)]
    pub last_claim_ended: Option<Wall>,
    /// The last claim that it lost, but did not give back.
    #[serde(default)]
    pub lost: Option<Lost>,
    /// Whether the last claim that it held was ended by another hand. A new claim clears it.
    #[serde(default)]
    pub ousted: bool,
}

/// A claim as whoever lost it remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The task.
    pub task: TaskId,
    /// When it was lost.
    pub at: Wall,
    /// Why.
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
