//! Reads the steps of the history, newest first.
//!
//! May assume: the history is one line of commits. Where `shallow` names a commit, the line is cut there: the commit is what was before
//! the oldest step that is kept.

use std::collections::BTreeSet;
use std::path::PathBuf;

use git2::Oid;

use super::commit::Commit;
use super::commit_text::CommitText;
use super::repository::Repository;
use super::{HistoryError, Step, record, trees};
use crate::queue::{TaskId, Wall, WorkerName};

/// Which steps are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepFilter {
    /// Those of this task.
    pub task: Option<TaskId>,
    /// Those of this worker.
    pub worker: Option<WorkerName>,
    /// Those that changed this file, or a file in this directory. Their other changes are left out.
    pub path: Option<PathBuf>,
    /// Those that ended at this time or later.
    pub since: Option<Wall>,
}

/// Steps, newest first.
pub struct Steps<'a> {
    repository: &'a Repository,
    filter: StepFilter,
    cut: BTreeSet<Oid>,
    next: Option<(Oid, Commit)>,
}

impl Repository {
    /// The steps that a filter lets through, newest first, each as it was recorded. Changes from outside that were found when a step was
    /// recorded are steps too.
    ///
    /// # Errors
    /// Why the history cannot be read.
    pub fn steps(&self, filter: StepFilter) -> Result<Steps<'_>, HistoryError> {
        let newest = self.main()?;
        let next = newest.map(|id| Ok((id, Commit::read(&self.objects, id)?))).transpose()?;
        Ok(Steps { repository: self, filter, cut: self.cut()?, next })
    }

    /// The commits whose parents are no longer there.
    pub(super) fn cut(&self) -> Result<BTreeSet<Oid>, HistoryError> {
        let text = self.text("shallow")?.unwrap_or_default();
        Ok(text.lines().filter_map(|line| Oid::from_str(line).ok()).collect())
    }
}

impl Iterator for Steps<'_> {
    type Item = Result<Step, HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_commit().map(|found| found.map(|(_, step)| step)).transpose()
    }
}

impl Steps<'_> {
    /// The next step, and its commit.
    pub(super) fn next_commit(&mut self) -> Result<Option<(Oid, Step)>, HistoryError> {
        while let Some((id, commit)) = self.next.take() {
            if self.cut.contains(&id) {
                return Ok(None);
            }
            let objects = &self.repository.objects;
            let parent = commit.parent.map(|id| Ok((id, Commit::read(objects, id)?))).transpose()?;
            let before = parent.as_ref().map(|(_, parent)| parent.tree);
            self.next = parent;
            let text = CommitText::parse(&commit.text).ok_or_else(|| {
                HistoryError::reading(format_args!("the text of the commit {id} is damaged"))
            })?;
            if let Some(step) = self.step(text, before, commit.tree)? {
                return Ok(Some((id, step)));
            }
        }
        Ok(None)
    }

    fn step(&self, text: CommitText, before: Option<Oid>, after: Oid) -> Result<Option<Step>, HistoryError> {
        let StepFilter { task, worker, path, since } = &self.filter;
        let of_task =
            task.as_ref().is_none_or(|task| text.claim.as_ref().is_some_and(|claim| claim.task == *task));
        let of_worker = worker.is_none() || text.worker == *worker;
        if !of_task || !of_worker || since.is_some_and(|since| text.at < since) {
            return Ok(None);
        }
        if let Some(path) = path {
            let remarked = text.remarks.iter().any(|remark| remark.path.starts_with(path));
            if !remarked && trees::same_at(&self.repository.objects, before, Some(after), path)? {
                return Ok(None);
            }
        }
        let mut changes = record::changes(self.repository, before, after, &text)?;
        if let Some(path) = path {
            changes.retain(|change| change.path.starts_with(path));
            if changes.is_empty() {
                return Ok(None);
            }
        }
        let CommitText { worker, claim, program, at, end, .. } = text;
        Ok(Some(Step { worker, claim, program, at, end, changes }))
    }
}
