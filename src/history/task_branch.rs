//! A task's net work: what all its steps changed together, as changes and as a commit of its own.
//!
//! May assume: the steps of a task that are in the history were made one after the other. Other steps happened between them, in the same
//! files too.
//! Must never: take in what other steps did.
//!
//! The commit has a parent without a parent of its own, with the base versions of the touched files and nothing else. So a fetch brings
//! two commits, and `git cherry-pick` merges the work into what the caller has.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::commit::Commit;
use super::commit_text::{CommitText, OUTSIDE, Remark, RemarkSubject};
use super::merge::merge;
use super::record::{self, entry};
use super::repository::{Repository, TASKS};
use super::trees::{self, Edits};
use super::{ClaimEnd, HistoryError, KeptContent, PathChange, Step, TaskClaim, Version, VersionKind};
use crate::queue::{TaskId, WorkerName};

/// The reference of a task's work. Git forbids `..`, a last `.` and a last `.lock`; the first point of these is written as `%2E`, which
/// no id contains.
pub(super) fn task_reference(task: &TaskId) -> String {
    let id = task.as_str();
    let mut name = String::from(TASKS);
    for (at, c) in id.char_indices() {
        let rest = &id[at + c.len_utf8()..];
        match c {
            '.' if rest.is_empty() || rest.starts_with('.') || rest == "lock" => name.push_str("%2E"),
            c => name.push(c),
        }
    }
    name
}

/// Says that the work lacks the content of a file.
fn not_kept(change: &PathChange) -> Option<Remark> {
    let remark = record::remark(&change.path, false, change.after?, (0, 0))?;
    matches!(remark.subject, RemarkSubject::FileNotKept(_) | RemarkSubject::LinkNotKept(_)).then_some(remark)
}

impl Repository {
    /// Write `refs/tasks/<id>`: one commit with the net work of all claims of a task. A task without steps gets none.
    ///
    /// # Errors
    /// Why the history cannot be read or written.
    pub fn end_task(
        &self,
        claim: &TaskClaim,
        end: &ClaimEnd,
        worker: &WorkerName,
    ) -> Result<(), HistoryError> {
        let _one = self.recording.lock();
        let steps = self.task_steps(&claim.task)?;
        let Some(last) = steps.last() else { return Ok(()) };
        let changes = self.net(&steps)?;
        let tree = |side: fn(&PathChange) -> Option<&Version>| {
            let edits: Edits =
                changes.iter().map(|change| (change.path.clone(), entry(side(change)))).collect();
            match trees::edit(&self.objects, None, &edits)? {
                Some(tree) => Ok(tree),
                None => trees::empty(&self.objects),
            }
        };
        let base = Commit {
            tree: tree(|change| change.before.as_ref())?,
            parent: None,
            author: OUTSIDE.to_string(),
            at: steps[0].at,
            text: format!("The files that {} changed, as they were before\n", claim.task),
        };
        let text = CommitText {
            worker: Some(worker.clone()),
            claim: Some(claim.clone()),
            at: last.at,
            end: Some(end.clone()),
            remarks: changes.iter().filter_map(not_kept).collect(),
            ..CommitText::default()
        };
        let work = Commit {
            tree: tree(|change| change.after.as_ref())?,
            parent: Some(base.write(&self.objects)?),
            author: worker.to_string(),
            at: last.at,
            text: text.format(),
        };
        self.set_reference(&task_reference(&claim.task), work.write(&self.objects)?)
    }

    /// What a task changed in all, its open changes included: those of its claim that are no step yet.
    ///
    /// # Errors
    /// Why the history cannot be read.
    pub fn task_changes(&self, task: &TaskId, open: Option<&Step>) -> Result<Vec<PathChange>, HistoryError> {
        let mut steps = self.task_steps(task)?;
        steps.extend(open.cloned());
        self.net(&steps)
    }

    /// The steps of a task, oldest first.
    fn task_steps(&self, task: &TaskId) -> Result<Vec<Step>, HistoryError> {
        let commits = self.tasks.commits(&self.objects, self.main()?, self.cut()?, task)?;
        commits.into_iter().map(|id| self.step_of(id)).collect()
    }

    /// What steps changed in all, without what happened between them.
    ///
    /// # Errors
    /// Why a content cannot be read.
    pub fn net(&self, steps: &[Step]) -> Result<Vec<PathChange>, HistoryError> {
        let mut net: BTreeMap<PathBuf, PathChange> = BTreeMap::new();
        for change in steps.iter().flat_map(|step| &step.changes) {
            match net.get_mut(&change.path) {
                Some(before) => before.after = self.composed(before.after, change)?,
                None => drop(net.insert(change.path.clone(), change.clone())),
            }
        }
        let mut net: Vec<PathChange> = net.into_values().collect();
        net.retain(|change| change.before != change.after);
        Ok(net)
    }

    /// What a change makes of a version that other steps did not touch. Where it cannot be told, what the change made.
    fn composed(&self, ours: Option<Version>, change: &PathChange) -> Result<Option<Version>, HistoryError> {
        let (Some(ours), Some(base), Some(theirs)) = (ours, change.before, change.after) else {
            return Ok(change.after);
        };
        if ours == base || [ours, base, theirs].iter().any(|version| version.kind != VersionKind::File) {
            return Ok(change.after);
        }
        let (KeptContent::Kept(ours_id), KeptContent::Kept(base_id), KeptContent::Kept(theirs_id)) =
            (ours.content, base.content, theirs.content)
        else {
            return Ok(change.after);
        };
        let content = if base_id == theirs_id {
            ours_id
        } else if ours_id == base_id {
            theirs_id
        } else {
            match merge(&self.read(base_id)?, &self.read(ours_id)?, &self.read(theirs_id)?) {
                Some(merged) => self.store(&merged)?,
                None => theirs_id,
            }
        };
        let pick = |base: u32, ours: u32, theirs: u32| if base == theirs { ours } else { theirs };
        Ok(Some(Version {
            kind: VersionKind::File,
            mode: pick(base.mode, ours.mode, theirs.mode),
            uid: pick(base.uid, ours.uid, theirs.uid),
            gid: pick(base.gid, ours.gid, theirs.gid),
            content: KeptContent::Kept(content),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::queue::Wall;

    #[test]
    fn references_are_valid_and_differ() {
        let ids = ["a", "a.b", "a..b", "a...b", "a.", "a..", "a.lock", "a.lock.", "a.lockb", "a.x.lock"];
        let names: BTreeSet<String> =
            ids.iter().map(|id| task_reference(&TaskId::parse(id).unwrap())).collect();
        assert_eq!(names.len(), ids.len());
        for name in &names {
            assert!(git2::Reference::is_valid_name(name), "{name}");
        }
        assert!(names.contains("refs/tasks/a.b") && names.contains("refs/tasks/a%2Elock"), "{names:?}");
    }

    #[test]
    fn steps_that_come_and_go_are_noticed() {
        let place = crate::history::in_memory().unwrap();
        let open =
            |create| Repository::open(OwnedFd::from(File::open(place.path()).unwrap()), create).unwrap();
        let (repository, reader) = (open(true), open(false));
        let task = TaskId::parse("t").unwrap();
        let record = |at: i64, task: &TaskId| {
            let claim = TaskClaim { task: task.clone(), epoch: 1, title: String::new() };
            let step = Step {
                worker: WorkerName::parse("w"),
                claim: Some(claim),
                program: None,
                at: Wall(at),
                end: None,
                changes: Vec::new(),
            };
            repository.record(&step).unwrap();
        };
        let times = |repository: &Repository| -> Vec<i64> {
            repository.task_steps(&task).unwrap().iter().map(|step| step.at.0).collect()
        };
        assert_eq!(times(&reader), [0; 0]);
        for at in 1..6 {
            record(at * 1_000, &task);
            record(at * 1_000, &TaskId::parse("other").unwrap());
            assert_eq!(times(&repository).len() as i64, at);
        }
        assert_eq!(times(&reader), [1_000, 2_000, 3_000, 4_000, 5_000]);
        repository.prune(Wall(3_000), u64::MAX, &std::collections::BTreeSet::new, &mut || true).unwrap();
        assert_eq!(times(&reader), [3_000, 4_000, 5_000]);
        record(6_000, &task);
        assert_eq!((times(&reader), times(&repository)), (vec![3_000, 4_000, 5_000, 6_000], times(&reader)));
    }

    #[test]
    fn work_in_the_same_file_is_told_apart() {
        let place = crate::history::in_memory().unwrap();
        let repository = Repository::open(OwnedFd::from(File::open(place.path()).unwrap()), true).unwrap();
        let version = |content: &str| {
            let content = KeptContent::Kept(repository.store(content.as_bytes()).unwrap());
            Version { kind: VersionKind::File, mode: 0o644, uid: 0, gid: 0, content }
        };
        let lines = |edits: &[usize]| {
            (1..20)
                .map(|n| format!("{n}{}\n", if edits.contains(&n) { " new" } else { "" }))
                .collect::<String>()
        };
        let states: Vec<Version> =
            [&[][..], &[2], &[2, 18], &[2, 10, 18]].iter().map(|edits| version(&lines(edits))).collect();
        let mine = version(&lines(&[2, 10]));
        let (one, other) = ("one", "other");
        for (at, task) in [one, other, one].into_iter().enumerate() {
            let claim = TaskClaim { task: TaskId::parse(task).unwrap(), epoch: 1, title: String::new() };
            let path = "f".into();
            let change = PathChange { path, before: Some(states[at]), after: Some(states[at + 1]) };
            let step = Step {
                worker: WorkerName::parse("w"),
                claim: Some(claim),
                program: None,
                at: Wall(at as i64),
                end: None,
                changes: vec![change],
            };
            repository.record(&step).unwrap();
        }
        let changes = |task: &str| repository.task_changes(&TaskId::parse(task).unwrap(), None).unwrap();
        let change =
            |before, after| [PathChange { path: "f".into(), before: Some(before), after: Some(after) }];
        assert_eq!(changes(one), change(states[0], mine));
        assert_eq!(changes(other), change(states[1], states[2]));
    }
}
