//! Every reason for which the guard refuses a change, with its message and the name under which metrics count it.
//!
//! Must never: name an errno.

use thiserror::Error;

use crate::engine::Counted;
use crate::limits::LOCKED_FILES_OF_A_USER;
use crate::queue::{TaskId, Wall, WorkerName};

/// Why the guard refuses a change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GuardRefusal {
    /// Another worker has the file open for writing.
    #[error("{path} is held by {holder} since {since}; try again when it is done")]
    Held {
        /// The file.
        path: String,
        /// The other worker.
        holder: WorkerName,
        /// Since when.
        since: Wall,
    },
    /// Another worker has the file open for writing, and the caller has not read the last change.
    #[error(
        "{path} is held by {holder} since {since}, and changed by {by} at {at}; wait until it is done, then read it again"
    )]
    HeldAndChanged {
        /// The file.
        path: String,
        /// The worker that holds it.
        holder: WorkerName,
        /// Since when.
        since: Wall,
        /// The worker that changed it.
        by: WorkerName,
        /// When.
        at: Wall,
    },
    /// The caller has not read the last change of the file.
    #[error("{path} was changed by {by} at {at}; read it again before you change it")]
    Changed {
        /// The file.
        path: String,
        /// The worker that changed it.
        by: WorkerName,
        /// When.
        at: Wall,
    },
    /// The caller may have read a write that was then refused.
    #[error(
        "{path} showed for a moment what another worker was not allowed to write; read it again before you change it"
    )]
    ShowedRefused {
        /// The file.
        path: String,
    },
    /// Another worker removed or replaced the file that the caller has open.
    #[error("{path} was removed or replaced by {by} at {at}; open it again before you change it")]
    Gone {
        /// The file.
        path: String,
        /// The other worker.
        by: WorkerName,
        /// When.
        at: Wall,
    },
    /// The file belongs to a task that another worker has claimed.
    #[error("{path} belongs to {task}, which {worker} works on since {since}; wait until that is finished")]
    Owned {
        /// The file.
        path: String,
        /// The task.
        task: TaskId,
        /// The other worker.
        worker: WorkerName,
        /// Since when.
        since: Wall,
    },
    /// A younger connection of the same worker has changed the file.
    #[error("{path} was changed through a younger connection of {worker}; open it again")]
    Superseded {
        /// The file.
        path: String,
        /// The worker.
        worker: WorkerName,
    },
    /// The user has as many files open for writing as the guard records for one user.
    #[error(
        "the processes of uid {uid} have {most} files open for writing, and crewfs guards no more of one user; close some",
        most = LOCKED_FILES_OF_A_USER
    )]
    LocksFull {
        /// The user.
        uid: u32,
    },
    /// The extended attribute belongs to crewfs.
    #[error("attributes like {like} belong to crewfs and are for reading")]
    OwnAttribute {
        /// An attribute of this kind.
        like: &'static str,
    },
}

impl Counted for GuardRefusal {
    const NAMES: &[&str] = &["locked", "stale", "owned", "superseded"];

    fn counted_as(&self) -> Option<&'static str> {
        match self {
            GuardRefusal::Held { .. } => Some("locked"),
            GuardRefusal::HeldAndChanged { .. }
            | GuardRefusal::Changed { .. }
            | GuardRefusal::ShowedRefused { .. }
            | GuardRefusal::Gone { .. } => Some("stale"),
            GuardRefusal::Owned { .. } => Some("owned"),
            GuardRefusal::Superseded { .. } => Some("superseded"),
            GuardRefusal::LocksFull { .. } | GuardRefusal::OwnAttribute { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_count_each_kind_under_one_name() {
        let path = || "a".to_string();
        let worker = || WorkerName::parse("w1").unwrap();
        let (at, since) = (Wall(0), Wall(0));
        let counted = [
            GuardRefusal::Held { path: path(), holder: worker(), since },
            GuardRefusal::Changed { path: path(), by: worker(), at },
            GuardRefusal::Owned { path: path(), task: TaskId::parse("t").unwrap(), worker: worker(), since },
            GuardRefusal::Superseded { path: path(), worker: worker() },
        ];
        let names: Vec<&str> = counted.iter().filter_map(Counted::counted_as).collect();
        assert_eq!(names, GuardRefusal::NAMES);
        let gone = GuardRefusal::Gone { path: path(), by: worker(), at };
        assert_eq!(gone.counted_as(), Some("stale"));
        assert_eq!(GuardRefusal::LocksFull { uid: 1 }.counted_as(), None);
        let full = GuardRefusal::LocksFull { uid: 7 }.to_string();
        let expected = format!("the processes of uid 7 have {LOCKED_FILES_OF_A_USER} files open for writing");
        assert!(full.starts_with(&expected), "{full}");
    }
}
