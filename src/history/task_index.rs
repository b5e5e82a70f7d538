//! Which commits are steps of which task, in memory.
//!
//! May assume: commits are only added at the newer end, and only cut off at the older one.
//!
//! The history is read once. Later questions read only what was added since.

use std::collections::{BTreeSet, HashMap};

use git2::Oid;
use parking_lot::Mutex;

use super::HistoryError;
use super::commit::Commit;
use super::commit_text::CommitText;
use super::objects::Objects;
use crate::queue::TaskId;

/// The commits of each task, as far as they are known.
#[derive(Default)]
pub(super) struct TaskIndex(Mutex<IndexedTask>);

#[derive(Default)]
struct IndexedTask {
    newest: Option<Oid>,
    cut: BTreeSet<Oid>,
    /// Oldest first.
    commits: HashMap<TaskId, Vec<Oid>>,
}

impl TaskIndex {
    /// The commits of a task, oldest first, in the history that ends with the commit `newest` and begins after the `cut`.
    pub(super) fn commits(
        &self,
        objects: &Objects,
        newest: Option<Oid>,
        cut: BTreeSet<Oid>,
        task: &TaskId,
    ) -> Result<Vec<Oid>, HistoryError> {
        let mut known = self.0.lock();
        if known.cut != cut {
            *known = IndexedTask { cut, ..IndexedTask::default() };
        }
        let mut added = Vec::new();
        let mut next = newest;
        while let Some(id) = next.filter(|id| known.newest != Some(*id) && !known.cut.contains(id)) {
            let commit = Commit::read(objects, id)?;
            let text = CommitText::parse(&commit.text);
            added.extend(text.and_then(|text| text.claim).map(|claim| (claim.task, id)));
            next = commit.parent;
        }
        // If the last known commit was not met, the history is another one: it was mended.
        if next != known.newest {
            known.commits.clear();
        }
        for (task, id) in added.into_iter().rev() {
            known.commits.entry(task).or_default().push(id);
        }
        known.newest = newest;
        Ok(known.commits.get(task).cloned().unwrap_or_default())
    }
}
