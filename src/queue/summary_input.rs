//! The input of the summary, besides the state of the queue.
//!
//! Must never: be computed here. The caller passes all of it.

use super::{Eyes, Instant, Now, Span, Wall, WorkerName};

pub(super) const MINUTE_MS: u64 = 60_000;

/// The input of the summary, besides the state.
pub struct SummaryInput<'a> {
    /// The time.
    pub now: Now,
    /// The lease of a task that names none.
    pub default_lease: Span,
    /// Every known worker, sorted by name, with the time when it was last active.
    pub workers: &'a [(WorkerName, Instant)],
    /// The user for whom the summary is made.
    pub eyes: &'a Eyes,
    /// Files that are not tasks because of their names.
    pub misnamed: &'a [Misname],
    /// Whether the disk has no space left for new work.
    pub disk_full: bool,
    /// The error of the log, if it does not work.
    pub broken_log: Option<String>,
}

/// A file that is not a task because of its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misname {
    /// The name of the file.
    pub name: String,
    /// Why a task cannot have this name.
    pub why: String,
    /// A name that a task could have.
    pub better: String,
    /// When the file appeared.
    pub since: Wall,
}
