//! What the summary is made from, besides the state of the queue.
//!
//! Must never: be computed here. The caller passes all of it.

use super::{Eyes, Instant, Now, Span, Wall, WorkerName};

pub(super) const MINUTE_MS: u64 = 60_000;

/// What the summary is made from, besides the state.
pub struct SummaryInput<'a> {
    /// The time.
    pub now: Now,
    /// The lease of a task that names none.
    pub default_lease: Span,
    /// Every known worker, by name, and when each was last heard of.
    pub workers: &'a [(WorkerName, Instant)],
    /// The eyes that it is made for.
    pub eyes: &'a Eyes,
    /// Files that look like tasks and are not.
    pub misnamed: &'a [Misname],
    /// Whether the disk has no space left for new work.
    pub disk_full: bool,
    /// The error of the log, while it does not work.
    pub broken_log: Option<String>,
}

/// A file that is not a task because of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misname {
    /// Its name.
    pub name: String,
    /// Why a task cannot have that name.
    pub why: String,
    /// A name that a task could have.
    pub better: String,
    /// When it appeared.
    pub since: Wall,
}
