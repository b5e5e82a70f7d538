//! Reads the steps of the history, newest first.
//!
//! May assume: the history is one line of commits. Where `shallow` names a commit, the line is cut there: the commit is what was before
//! the oldest step that is kept.

use std::collections::BTreeSet;
use std::path::PathBuf;

use git2::Oid;

use super::commit::Commit;
use super::commit_text::CommitText;
use super::repository::{Repository, parse_id};
use super::{HistoryError, Step, record, trees};
use crate::queue::{TaskId, Wall, WorkerName};

/// Git's file that says where the line of commits is cut.
pub(super) const SHALLOW: &str = "shallow";

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

    /// The step of a commit.
    pub(super) fn step_of(&self, id: Oid) -> Result<Step, HistoryError> {
        let commit = Commit::read(&self.objects, id)?;
        let parent = commit.parent.map(|parent| Commit::read(&self.objects, parent)).transpose()?;
        let text = text_of(id, &commit)?;
        step(self, text, parent.map(|parent| parent.tree), commit.tree)
    }

    /// The commits whose parents are no longer there.
    pub(super) fn cut(&self) -> Result<BTreeSet<Oid>, HistoryError> {
        let text = self.text(SHALLOW)?.unwrap_or_default();
        Ok(text.lines().filter_map(parse_id).collect())
    }
}

impl Iterator for Steps<'_> {
    type Item = Result<Step, HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut step = match self.next_whole() {
                Ok(step) => step?,
                Err(error) => return Some(Err(error)),
            };
            let Some(path) = &self.filter.path else { return Some(Ok(step)) };
            step.changes.retain(|change| change.path.starts_with(path));
            if !step.changes.is_empty() {
                return Some(Ok(step));
            }
        }
    }
}

impl Steps<'_> {
    /// From here on, look for steps that changed another path.
    pub(super) fn follow(&mut self, path: PathBuf) {
        self.filter.path = Some(path);
    }

    /// The next step with all its changes.
    pub(super) fn next_whole(&mut self) -> Result<Option<Step>, HistoryError> {
        while let Some((id, commit)) = self.next.take() {
            if self.cut.contains(&id) {
                return Ok(None);
            }
            match self.step(id, &commit) {
                Ok(None) => {}
                // The daemon may have removed the rest meanwhile.
                Err(_) if self.repository.cut()? != self.cut => self.next = None,
                found => return found,
            }
        }
        Ok(None)
    }

    /// A commit as a step, if it is wanted. Its parent is the next one.
    fn step(&mut self, id: Oid, commit: &Commit) -> Result<Option<Step>, HistoryError> {
        let objects = &self.repository.objects;
        let parent = commit.parent.map(|id| Ok((id, Commit::read(objects, id)?))).transpose()?;
        let before = parent.as_ref().map(|(_, parent)| parent.tree);
        self.next = parent;
        let text = text_of(id, commit)?;
        match self.is_wanted(&text, before, commit.tree)? {
            true => step(self.repository, text, before, commit.tree).map(Some),
            false => Ok(None),
        }
    }

    fn is_wanted(&self, text: &CommitText, before: Option<Oid>, after: Oid) -> Result<bool, HistoryError> {
        let StepFilter { task, worker, path, since } = &self.filter;
        let of_task = |task: &TaskId| text.claim.as_ref().is_some_and(|claim| claim.task == *task);
        let told = task.as_ref().is_none_or(of_task)
            && (worker.is_none() || text.worker == *worker)
            && since.is_none_or(|since| since <= text.at);
        let Some(path) = path.as_ref().filter(|_| told) else { return Ok(told) };
        let is_remarked = text.remarks.iter().any(|remark| remark.path.starts_with(path));
        Ok(is_remarked || !trees::same_at(&self.repository.objects, before, Some(after), path)?)
    }
}

fn text_of(id: Oid, commit: &Commit) -> Result<CommitText, HistoryError> {
    let text = CommitText::parse(&commit.text);
    text.ok_or_else(|| HistoryError::reading(format_args!("the text of the commit {id} is damaged")))
}

/// A step, from the text of its commit and the trees before and after it.
fn step(
    repository: &Repository,
    text: CommitText,
    before: Option<Oid>,
    after: Oid,
) -> Result<Step, HistoryError> {
    let changes = record::changes(repository, before, after, &text)?;
    let CommitText { worker, claim, program, at, end, .. } = text;
    Ok(Step { worker, claim, program, at, end, changes })
}
