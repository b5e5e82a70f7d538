//! The history of changes: what each worker changed in the tree, for which task, and what was there before.
//!
//! May assume: the state directory is for its owner alone.
//! Must never: know the kernel, a mount or the queue's engine. The recorder ([`crate::fs::recorder`]) writes it, and the commands read it.
//!
//! A **version** is one state of a path: its kind, its rights and its content. A **step** is a span of one worker's changes, under one
//! claim or under none: for each path that it changed, the version before and the version after. [`Repository`] keeps the steps as commits
//! of a bare git repository.

mod blame;
mod commit;
mod commit_text;
mod error;
mod mending;
mod merge;
mod objects;
mod packing;
mod pruning;
mod reach;
mod record;
mod repository;
mod steps;
mod task_branch;
mod task_index;
mod trees;
pub mod undo;
mod unified_diff;

use std::path::PathBuf;

pub use self::blame::LineOrigin;
pub use self::error::HistoryError;
pub use self::merge::merge;
pub use self::packing::{GoOn, Needed};
pub use self::repository::Repository;
pub use self::steps::{StepFilter, Steps};
use crate::queue::{Seq, TaskId, Wall, WorkerName};

/// The name of the repository in the state directory.
pub const REPOSITORY: &str = "history.git";

/// Identifies content: the id of a git blob (SHA-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId(pub [u8; 20]);

/// The kind of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionKind {
    /// A regular file.
    File,
    /// A symbolic link. Its content is its target.
    Symlink,
    /// An empty directory. Its content is not kept, and has no bytes.
    Directory,
}

/// The content of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptContent {
    /// It is in the history.
    Kept(ContentId),
    /// It is larger than what the history keeps of one file, or it could not be read.
    NotKept {
        /// Its length in bytes.
        bytes: u64,
    },
}

/// One state of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// What it is.
    pub kind: VersionKind,
    /// The permission bits, `0o7777` at most.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Its content.
    pub content: KeptContent,
}

/// What a step did to a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathChange {
    /// The path from the root of the project.
    pub path: PathBuf,
    /// The version before; `None` if there was nothing at the path.
    pub before: Option<Version>,
    /// The version after; `None` if there is nothing at the path any more.
    pub after: Option<Version>,
}

/// The claim under which a step was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskClaim {
    /// The task.
    pub task: TaskId,
    /// The claim's epoch.
    pub epoch: Seq,
    /// The task's title.
    pub title: String,
}

/// The end of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimEnd {
    /// How it ended, in one word: `completed`, `failed`, `released`, `expired` and so on.
    pub how: String,
    /// The result, or the reason.
    pub text: String,
}

/// A span of one worker's changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The worker; `None` for changes from outside the mount.
    pub worker: Option<WorkerName>,
    /// The claim; `None` if the worker had none.
    pub claim: Option<TaskClaim>,
    /// The program that made the changes, where it is one that replaces whole trees: `git`.
    pub program: Option<String>,
    /// When the step ended.
    pub at: Wall,
    /// The end of the claim, if this is its last step.
    pub end: Option<ClaimEnd>,
    /// The changed paths, each once, in the order of [`PathBuf`].
    pub changes: Vec<PathChange>,
}

/// A directory for a test: in memory where that is possible, because the tests make thousands of files.
#[cfg(test)]
fn in_memory() -> std::io::Result<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}
