//! Appends steps to the history.
//!
//! May assume: the content of every kept version was stored before.
//! Must never: attribute to a worker what another change did. If the tree is not as the step found it, a commit from outside comes first.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use git2::Oid;

use super::commit::Commit;
use super::commit_text::{CommitText, OUTSIDE, Remark, RemarkSubject};
use super::repository::Repository;
use super::trees::{self, Edits, TreeEntry};
use super::{HistoryError, KeptContent, PathChange, Step, Version, VersionKind};
use crate::queue::WorkerName;

impl Repository {
    /// Append a step. Changes that change nothing are left out.
    ///
    /// # Errors
    /// Why it cannot be written. A step that would make a path a file and a directory at once is refused.
    pub fn record(&self, step: &Step) -> Result<(), HistoryError> {
        let mut step = step.clone();
        step.changes.retain(|change| change.before != change.after);
        step.changes.sort_by(|one, other| one.path.cmp(&other.path));
        check(&step.changes)?;
        let _one = self.recording.lock();
        let parent = self.main()?;
        let tree =
            parent.map(|parent| Commit::read(&self.objects, parent)).transpose()?.map(|commit| commit.tree);
        let outside = self.outside(tree, &step)?;
        if !outside.changes.is_empty() {
            let tree = self.changed_tree(tree, &outside)?;
            let parent = self.append(&commit(&outside, tree, parent))?;
            let tree = self.changed_tree(Some(tree), &step)?;
            self.append(&commit(&step, tree, Some(parent)))?;
        } else {
            let tree = self.changed_tree(tree, &step)?;
            self.append(&commit(&step, tree, parent))?;
        }
        Ok(())
    }

    fn changed_tree(&self, tree: Option<Oid>, step: &Step) -> Result<Oid, HistoryError> {
        let edits: Edits =
            step.changes.iter().map(|change| (change.path.clone(), entry(change.after.as_ref()))).collect();
        match trees::edit(&self.objects, tree, &edits)? {
            Some(tree) => Ok(tree),
            None => trees::empty(&self.objects),
        }
    }

    /// What changed outside of the known steps until this step began, as a step of its own.
    fn outside(&self, tree: Option<Oid>, step: &Step) -> Result<Step, HistoryError> {
        let of_step: BTreeMap<&Path, &PathChange> =
            step.changes.iter().map(|change| (change.path.as_path(), change)).collect();
        let usual = usual_owner(step);
        let mut changes: BTreeMap<PathBuf, PathChange> = BTreeMap::new();
        let mut change = |path: &Path, found: Option<TreeEntry>, after: Option<Version>| {
            let like = after.or_else(|| of_step.get(path).and_then(|change| change.after.or(change.before)));
            let owner = like.map_or(usual, |version| (version.uid, version.gid));
            let before = found.map(|found| version(found, owner));
            changes.insert(path.to_path_buf(), PathChange { path: path.to_path_buf(), before, after });
        };
        for PathChange { path, before, after } in &step.changes {
            let found = trees::file_at(&self.objects, tree, path)?;
            if found != entry(before.as_ref()) {
                change(path, found, *before);
            }
            if before.is_none() && after.is_none() {
                continue;
            }
            // What cannot be there together with this file.
            let parents = path.ancestors().skip(1).take_while(|parent| *parent != Path::new(""));
            for other in
                parents.map(Path::to_path_buf).chain(trees::files_beneath(&self.objects, tree, path)?)
            {
                let found = trees::file_at(&self.objects, tree, &other)?;
                if found.is_some() && !of_step.contains_key(other.as_path()) {
                    change(&other, found, None);
                }
            }
        }
        let changes = changes.into_values().collect();
        Ok(Step { worker: None, claim: None, program: None, at: step.at, end: None, changes })
    }
}

/// Check that git's trees can hold both sides of a step.
fn check(changes: &[PathChange]) -> Result<(), HistoryError> {
    let refuse =
        |path: &Path, why: &str| Err(HistoryError::writing(format_args!("{} {why}", path.display())));
    for change in changes {
        let plain = change.path.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || change.path.as_os_str().is_empty() {
            return refuse(&change.path, "is no path within the project");
        }
    }
    if let Some(twice) = changes.windows(2).find(|pair| pair[0].path == pair[1].path) {
        return refuse(&twice[0].path, "is changed twice in one step");
    }
    for side in [|change: &PathChange| change.before, |change: &PathChange| change.after] {
        let mut there = changes.iter().filter(|change| entry(side(change).as_ref()).is_some()).peekable();
        while let Some(change) = there.next() {
            if there.peek().is_some_and(|next| next.path.starts_with(&change.path)) {
                return refuse(&change.path, "is a file and a directory in one step");
            }
        }
    }
    Ok(())
}

/// What a tree holds for a version: nothing for a directory, and for a file without content.
pub(super) fn entry(version: Option<&Version>) -> Option<TreeEntry> {
    let version = version?;
    let KeptContent::Kept(id) = version.content else { return None };
    let mode = match version.kind {
        VersionKind::File if version.mode & 0o100 == 0 => trees::FILE,
        VersionKind::File => trees::EXECUTABLE,
        VersionKind::Symlink => trees::LINK,
        VersionKind::Directory => return None,
    };
    Some(TreeEntry { mode, id: id.into() })
}

/// The version that a tree's entry stands for if nothing else is known but its owner.
fn version(entry: TreeEntry, (uid, gid): (u32, u32)) -> Version {
    let (kind, mode) = match entry.mode {
        trees::LINK => (VersionKind::Symlink, 0o777),
        trees::EXECUTABLE => (VersionKind::File, 0o755),
        _ => (VersionKind::File, 0o644),
    };
    Version { kind, mode, uid, gid, content: KeptContent::Kept(entry.id.into()) }
}

fn commit(step: &Step, tree: Oid, parent: Option<Oid>) -> Commit {
    let author = step.worker.as_ref().map_or(OUTSIDE, WorkerName::as_str).to_string();
    Commit { tree, parent, author, at: step.at, text: text(step).format() }
}

/// The owner and group that most versions of a step have.
fn usual_owner(step: &Step) -> (u32, u32) {
    let mut owners: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for version in step.changes.iter().flat_map(|change| [change.before, change.after]).flatten() {
        *owners.entry((version.uid, version.gid)).or_default() += 1;
    }
    owners.into_iter().max_by_key(|(_, count)| *count).map_or((0, 0), |(owner, _)| owner)
}

/// The text of a step's commit.
fn text(step: &Step) -> CommitText {
    let owner = usual_owner(step);
    let mut remarks = Vec::new();
    for change in &step.changes {
        for (before, side) in [(true, change.before), (false, change.after)] {
            remarks.extend(side.and_then(|version| remark(&change.path, before, version, owner)));
        }
    }
    let Step { worker, claim, program, at, end, .. } = step.clone();
    CommitText { worker, claim, program, at, end, owner, remarks }
}

/// What git's tree does not say about a version.
pub(super) fn remark(path: &Path, before: bool, of: Version, owner: (u32, u32)) -> Option<Remark> {
    let subject = match (entry(Some(&of)), of.kind, of.content) {
        (Some(entry), ..) if version(entry, owner) == of => return None,
        (Some(_), ..) => RemarkSubject::InTree,
        (None, VersionKind::File, KeptContent::NotKept { bytes }) => RemarkSubject::FileNotKept(bytes),
        (None, VersionKind::Symlink, KeptContent::NotKept { bytes }) => RemarkSubject::LinkNotKept(bytes),
        (None, ..) => RemarkSubject::Directory,
    };
    Some(Remark { before, subject, mode: of.mode, uid: of.uid, gid: of.gid, path: path.to_path_buf() })
}

/// The changes of a step, from its commit and the trees before and after it.
pub(super) fn changes(
    repository: &Repository,
    before: Option<Oid>,
    after: Oid,
    text: &CommitText,
) -> Result<Vec<PathChange>, HistoryError> {
    let objects = &repository.objects;
    let known = |entry: Option<TreeEntry>| entry.map(|entry| version(entry, text.owner));
    let differing = trees::differences(objects, before, Some(after))?;
    let mut found: BTreeMap<PathBuf, PathChange> = differing
        .into_iter()
        .map(|(path, (before, after))| {
            (path.clone(), PathChange { path, before: known(before), after: known(after) })
        })
        .collect();
    for remark in &text.remarks {
        if !found.contains_key(&remark.path) {
            let same = known(trees::file_at(objects, before, &remark.path)?);
            let change = PathChange { path: remark.path.clone(), before: same, after: same };
            found.insert(remark.path.clone(), change);
        }
        if let Some(change) = found.get_mut(&remark.path) {
            apply(remark, if remark.before { &mut change.before } else { &mut change.after });
        }
    }
    Ok(found.into_values().collect())
}

fn apply(remark: &Remark, side: &mut Option<Version>) {
    let Remark { mode, uid, gid, .. } = *remark;
    let (kind, content) = match (remark.subject, &side) {
        (RemarkSubject::InTree, Some(version)) => (version.kind, version.content),
        (RemarkSubject::InTree, None) => return,
        (RemarkSubject::FileNotKept(bytes), _) => (VersionKind::File, KeptContent::NotKept { bytes }),
        (RemarkSubject::LinkNotKept(bytes), _) => (VersionKind::Symlink, KeptContent::NotKept { bytes }),
        (RemarkSubject::Directory, _) => (VersionKind::Directory, KeptContent::NotKept { bytes: 0 }),
    };
    *side = Some(Version { kind, mode, uid, gid, content });
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use proptest::prelude::*;

    use super::*;
    use crate::history::{ClaimEnd, StepFilter, TaskClaim};
    use crate::queue::{TaskId, Wall};

    fn repository() -> (tempfile::TempDir, Repository) {
        let place = crate::history::in_memory().unwrap();
        let directory = OwnedFd::from(File::open(place.path()).unwrap());
        (place, Repository::open(directory, true).unwrap())
    }

    fn file(repository: &Repository, content: &str) -> Version {
        let content = KeptContent::Kept(repository.store(content.as_bytes()).unwrap());
        Version { kind: VersionKind::File, mode: 0o644, uid: 1000, gid: 1000, content }
    }

    fn step(worker: &str, at: i64, changes: Vec<PathChange>) -> Step {
        Step {
            worker: WorkerName::parse(worker),
            claim: None,
            program: None,
            at: Wall(at),
            end: None,
            changes,
        }
    }

    fn change(path: &str, before: Option<Version>, after: Option<Version>) -> PathChange {
        PathChange { path: path.into(), before, after }
    }

    fn all(repository: &Repository) -> Vec<Step> {
        repository.steps(StepFilter::default()).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn what_came_from_outside_is_a_step_of_its_own() {
        let (_place, repository) = repository();
        let [one, two, three] = ["1", "2", "3"].map(|content| file(&repository, content));
        let first = step("w", 1, vec![change("f", None, Some(one))]);
        let second = step("v", 2, vec![change("f", Some(two), Some(three))]);
        repository.record(&first).unwrap();
        repository.record(&second).unwrap();
        let outside = Step { worker: None, ..step("v", 2, vec![change("f", Some(one), Some(two))]) };
        assert_eq!(all(&repository), [second, outside, first]);
    }

    #[test]
    fn a_file_that_became_a_directory_unseen_is_removed_from_outside() {
        let (_place, repository) = repository();
        let one = file(&repository, "1");
        let first = step("w", 1, vec![change("a", None, Some(one)), change("d/x", None, Some(one))]);
        let second = step("v", 2, vec![change("a/b", None, Some(one)), change("d", None, Some(one))]);
        repository.record(&first).unwrap();
        repository.record(&second).unwrap();
        let outside = vec![change("a", Some(one), None), change("d/x", Some(one), None)];
        let found = all(&repository);
        assert_eq!((&found[0], &found[1].changes, &found[2]), (&second, &outside, &first));
    }

    #[test]
    fn a_step_whose_recording_was_cut_short_is_recorded_once() {
        let (place, repository) = repository();
        let main = place.path().join("refs/heads/main");
        let [one, two, three] = ["1", "2", "3"].map(|content| file(&repository, content));
        repository.record(&step("w", 1, vec![change("f", None, Some(one))])).unwrap();
        let before = std::fs::read(&main).unwrap();
        let second = step("v", 2, vec![change("f", Some(two), Some(three))]);
        repository.record(&second).unwrap();
        let (steps, after) = (all(&repository), std::fs::read(&main).unwrap());
        let last = repository.main().unwrap().unwrap();
        let outside = Commit::read(&repository.objects, last).unwrap().parent.unwrap();
        for killed_at in [before, format!("{outside}\n").into_bytes()] {
            std::fs::write(&main, killed_at).unwrap();
            repository.record(&second).unwrap();
            assert_eq!((all(&repository), std::fs::read(&main).unwrap()), (steps.clone(), after.clone()));
        }
    }

    #[test]
    fn impossible_steps_are_refused() {
        let (_place, repository) = repository();
        let one = Some(file(&repository, "1"));
        for changes in [
            vec![change("a", None, one), change("a/b", None, one)],
            vec![change("../a", None, one)],
            vec![change("/a", None, one)],
            vec![change("", None, one)],
            vec![change("a", None, one), change("a", one, None)],
        ] {
            assert!(repository.record(&step("w", 1, changes.clone())).is_err(), "{changes:?}");
        }
        assert_eq!(all(&repository), []);
    }

    #[test]
    fn a_filter_narrows() {
        let (_place, repository) = repository();
        let [one, two] = ["1", "2"].map(|content| file(&repository, content));
        let claim = TaskClaim { task: TaskId::parse("t").unwrap(), epoch: 4, title: "T".into() };
        let end = ClaimEnd { how: "completed".into(), text: "ok".into() };
        let changes = vec![change("d/e/f", None, Some(one)), change("d/g", None, Some(one))];
        let first = Step { claim: Some(claim), end: Some(end), ..step("w", 1_000, changes) };
        let second = step("v", 2_000, vec![change("d/g", Some(one), Some(two))]);
        repository.record(&first).unwrap();
        repository.record(&second).unwrap();
        let found = |filter| {
            let steps = repository.steps(filter).unwrap();
            steps.map(|step| step.unwrap().changes.len()).collect::<Vec<_>>()
        };
        let path = |path: &str| StepFilter { path: Some(path.into()), ..StepFilter::default() };
        assert_eq!(found(path("d")), [1, 2]);
        assert_eq!(found(path("d/g")), [1, 1]);
        assert_eq!(found(path("d/e")), [1]);
        assert_eq!(found(path("d/ee")), [0; 0]);
        assert_eq!(found(StepFilter { task: TaskId::parse("t"), ..StepFilter::default() }), [2]);
        assert_eq!(found(StepFilter { worker: WorkerName::parse("v"), ..StepFilter::default() }), [1]);
        assert_eq!(found(StepFilter { since: Some(Wall(1_001)), ..StepFilter::default() }), [1]);
    }

    /// A version of few kinds: what, which mode, which owner.
    fn made(repository: &Repository, (what, mode, owner): (u8, u32, u32)) -> Option<Version> {
        let (kind, content) = match what {
            0..4 => (VersionKind::File, KeptContent::Kept(repository.store(&[what]).unwrap())),
            4 => (VersionKind::Symlink, KeptContent::Kept(repository.store(b"target").unwrap())),
            5 => (VersionKind::File, KeptContent::NotKept { bytes: 9 }),
            6 => (VersionKind::Symlink, KeptContent::NotKept { bytes: 8 }),
            7 => (VersionKind::Directory, KeptContent::NotKept { bytes: 0 }),
            _ => return None,
        };
        let mode = [0o644, 0o755, 0o600, 0o4711][mode as usize];
        Some(Version { kind, mode, uid: owner, gid: 0, content })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn steps_read_back_as_they_were_recorded(steps in proptest::collection::vec(
            proptest::collection::btree_map(
                prop_oneof![Just("a"), Just("a/b"), Just("a/b/c"), Just("a-"), Just("d/e"), Just(".git/x"), Just("q\n\" ")],
                [(0u8..12, 0u32..4, 0u32..2), (0u8..12, 0u32..4, 0u32..2)],
                0..5,
            ),
            1..8,
        )) {
            let (_place, repository) = repository();
            let mut recorded = Vec::new();
            for (at, changes) in steps.iter().enumerate() {
                let changes = changes.iter().map(|(path, [before, after])| {
                    change(path, made(&repository, *before), made(&repository, *after))
                });
                let mut changes: Vec<_> = changes.filter(|change| change.before != change.after).collect();
                changes.sort_by(|one, other| one.path.cmp(&other.path));
                let step = step("w", at as i64, changes);
                if check(&step.changes).is_ok() {
                    repository.record(&step).unwrap();
                    recorded.insert(0, step);
                }
            }
            let found = all(&repository);
            let by_worker: Vec<Step> = found.iter().filter(|step| step.worker.is_some()).cloned().collect();
            prop_assert_eq!(by_worker, recorded);
            // Each step begins with what the steps before it left.
            let mut there: BTreeMap<&Path, TreeEntry> = BTreeMap::new();
            for step in found.iter().rev() {
                for change in &step.changes {
                    prop_assert_eq!(there.get(change.path.as_path()).copied(), entry(change.before.as_ref()));
                }
                for change in &step.changes {
                    there.remove(change.path.as_path());
                    there.extend(entry(change.after.as_ref()).map(|entry| (change.path.as_path(), entry)));
                }
            }
        }
    }
}
