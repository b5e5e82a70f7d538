//! The rank of a task among all that wait to be claimed: lower ranks are claimed first (C13).
//!
//! Must never: know how ranks are worked out or kept. That is [`super::ready_index`].

use std::sync::Arc;

use super::{Access, Seq, Wall};

/// A list of words or globs that many tasks may share.
pub(super) type Words = Arc<[String]>;

/// What a task asks of a worker: the words that it requires, and the right to read its file where not every user has it.
pub(super) type Demand = (Words, Option<Arc<Access>>);

/// The place of a task in the line. No two tasks have the same rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    /// The priority, less one for each span of ageing that the task has waited; 0 when it is ripe.
    pub(super) level: u8,
    /// The deadline; the end of time for a task that has none, and for a ripe one.
    pub(super) deadline: Wall,
    /// The position of the event that published the task.
    pub(super) age: Seq,
}

impl Rank {
    /// Whether the task has waited so long that only its age counts.
    pub(super) fn is_ripe(self) -> bool {
        self.level == 0
    }
}

/// What the present time means for a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReadyPlace {
    /// Its rank, if it waits to be claimed.
    pub(super) rank: Option<Rank>,
    /// When its rank, its state or its being overdue next changes without an event.
    pub(super) due: Option<Wall>,
}
