//! The planner on a project in memory: single cases, and random histories.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::history::{PathChange, TaskClaim};
use crate::queue::{TaskId, Wall, WorkerName};

/// A project in memory, with its history.
#[derive(Clone, Default)]
struct Project {
    tree: BTreeMap<PathBuf, Version>,
    blobs: HashMap<ContentId, Vec<u8>>,
    steps: Vec<Step>,
    lost: Vec<ContentId>,
}

impl VersionSource for Project {
    fn present(&mut self, path: &Path, _: bool) -> Result<Option<Version>, String> {
        Ok(self.tree.get(path).copied())
    }

    fn directory(&mut self, path: &Path, besides: &HashSet<&Path>) -> DirectoryUse {
        let inner = || self.tree.keys().filter(|it| it.starts_with(path) && *it != path);
        match inner().count() {
            0 => DirectoryUse::Missing,
            _ if inner().all(|it| besides.contains(&**it)) => DirectoryUse::Free,
            _ => DirectoryUse::InUse,
        }
    }

    fn content(&mut self, id: ContentId) -> Result<Vec<u8>, String> {
        let found = self.blobs.get(&id).filter(|_| !self.lost.contains(&id));
        found.cloned().ok_or_else(|| "its content was pruned".to_string())
    }

    fn keeps_owners(&self) -> bool {
        true
    }
}

impl Project {
    fn put(&mut self, path: &str, content: impl AsRef<[u8]>) {
        let content = content.as_ref();
        let mode = self.tree.get(Path::new(path)).map_or(0o644, |version| version.mode);
        self.blobs.insert(content_id(content), content.to_vec());
        let content = KeptContent::Kept(content_id(content));
        let version = Version { kind: VersionKind::File, mode, uid: 1, gid: 1, content };
        self.tree.insert(path.into(), version);
    }

    fn link(&mut self, path: &str, target: &str) {
        self.put(path, target);
        self.tree.get_mut(Path::new(path)).unwrap().kind = VersionKind::Symlink;
    }

    fn large(&mut self, path: &str, bytes: u64) {
        self.put(path, "");
        self.tree.get_mut(Path::new(path)).unwrap().content = KeptContent::NotKept { bytes };
    }

    fn directory(&mut self, path: &str) {
        self.put(path, "");
        self.tree.get_mut(Path::new(path)).unwrap().kind = VersionKind::Directory;
    }

    fn chmod(&mut self, path: &str, mode: u32) {
        self.tree.get_mut(Path::new(path)).unwrap().mode = mode;
    }

    fn remove(&mut self, path: &str) {
        self.tree.remove(Path::new(path)).unwrap();
    }

    fn rename(&mut self, from: &str, to: &str) {
        let version = self.tree.remove(Path::new(from)).unwrap();
        self.tree.insert(to.into(), version);
    }

    fn text(&self, path: &str) -> Option<String> {
        let KeptContent::Kept(id) = self.tree.get(Path::new(path))?.content else { return None };
        Some(String::from_utf8(self.blobs[&id].clone()).unwrap())
    }

    /// Record what `work` does as a step of a worker for a task.
    fn step(&mut self, worker: &str, task: &str, work: impl FnOnce(&mut Project)) {
        let before = self.tree.clone();
        work(self);
        let paths: std::collections::BTreeSet<&PathBuf> = before.keys().chain(self.tree.keys()).collect();
        let versions = paths.into_iter().map(|path| (path, before.get(path), self.tree.get(path)));
        let changes = versions.filter(|(_, before, after)| before != after).map(|(path, before, after)| {
            PathChange { path: path.clone(), before: before.copied(), after: after.copied() }
        });
        let claim = TaskClaim { task: TaskId::parse(task).unwrap(), epoch: 1, title: String::new() };
        let step = Step {
            worker: WorkerName::parse(worker),
            claim: Some(claim),
            program: (worker == "operator").then(|| UNDO_PROGRAM.to_string()),
            at: Wall(self.steps.len() as i64),
            end: None,
            changes: changes.collect(),
        };
        self.steps.push(step);
    }

    fn plan(&self, task: &str) -> UndoPlan {
        self.plan_within(task, None)
    }

    fn plan_within(&self, task: &str, within: Option<&str>) -> UndoPlan {
        let is_chosen = |step: &Step| step.claim.as_ref().is_some_and(|claim| claim.task.as_str() == task);
        let steps: Vec<_> =
            self.steps.iter().map(|step| ChosenStep { step, chosen: is_chosen(step) }).collect();
        plan_undo(&steps, within.map(Path::new), &mut self.clone())
    }

    /// Do what a plan says, for the paths in `only` or for all, as a step for `task`.
    fn carry_out(&mut self, plan: &UndoPlan, task: &str, only: impl Fn(&Path) -> bool) {
        self.blobs.extend(plan.merged.clone());
        self.step("operator", task, |project| {
            for path in plan.paths.iter().filter(|it| only(&it.path)) {
                match path.wanted {
                    Some(version) => _ = project.tree.insert(path.path.clone(), version),
                    None => _ = project.tree.remove(&path.path),
                }
            }
        });
    }

    /// Undo a task completely, as a step for another task.
    #[track_caller]
    fn undo(&mut self, task: &str, by: &str) {
        let plan = self.plan(task);
        assert!(!plan.has_conflicts(), "{:?}", plan.paths);
        self.carry_out(&plan, by, |_| true);
    }
}

fn outcomes(plan: &UndoPlan) -> Vec<(&str, &UndoOutcome)> {
    plan.paths.iter().map(|path| (path.path.to_str().unwrap(), &path.outcome)).collect()
}

fn numbered(lines: std::ops::Range<usize>) -> String {
    lines.map(|n| format!("line {n}\n")).collect()
}

#[test]
fn what_only_the_worker_changed_becomes_what_it_was() {
    let mut project = Project::default();
    project.put("changed", "1\n");
    project.put("removed", "2\n");
    project.put("script", "3\n");
    project.link("link", "old");
    project.directory("empty");
    let before = project.clone();
    project.step("w1", "t", |it| {
        it.put("changed", "one\n");
        it.remove("removed");
        it.put("made", "4\n");
        it.chmod("script", 0o755);
        it.link("link", "new");
        it.remove("empty");
        it.directory("other");
    });
    let plan = project.plan("t");
    let expected = [
        ("changed", &UndoOutcome::Restored),
        ("empty", &UndoOutcome::Restored),
        ("link", &UndoOutcome::Restored),
        ("made", &UndoOutcome::Removed),
        ("other", &UndoOutcome::Removed),
        ("removed", &UndoOutcome::Restored),
        ("script", &UndoOutcome::Attributes),
    ];
    assert_eq!(outcomes(&plan), expected);
    project.carry_out(&plan, "undo", |_| true);
    assert_eq!(project.tree, before.tree);
    assert!(outcomes(&project.plan("t")).iter().all(|(_, outcome)| **outcome == UndoOutcome::AlreadySo));
}

#[test]
fn a_file_that_others_changed_elsewhere_is_merged() {
    let mut project = Project::default();
    project.put("f", numbered(0..20));
    project.step("w1", "t", |it| it.put("f", numbered(0..20).replace("line 2\n", "two\n")));
    project.step("w2", "o", |it| {
        it.put("f", it.text("f").unwrap().replace("line 15\n", "fifteen\n"));
        it.chmod("f", 0o600);
    });
    let plan = project.plan("t");
    assert_eq!(outcomes(&plan), [("f", &UndoOutcome::Merged)]);
    project.carry_out(&plan, "undo", |_| true);
    assert_eq!(project.text("f").unwrap(), numbered(0..20).replace("line 15\n", "fifteen\n"));
    assert_eq!(project.tree[Path::new("f")].mode, 0o600, "the mode that others gave it stays");
}

#[test]
fn conflicts_have_a_reason_and_the_version_that_was_to_come_back() {
    let reason = |prepare: fn(&mut Project), change: fn(&mut Project), since: fn(&mut Project)| {
        let mut project = Project::default();
        prepare(&mut project);
        let before = project.tree.get(Path::new("f")).copied();
        project.step("w1", "t", change);
        project.step("w2", "o", since);
        let plan = project.plan("t");
        let found = plan.paths.iter().find(|path| path.path == Path::new("f")).unwrap();
        assert_eq!(found.present, project.tree.get(Path::new("f")).copied());
        assert_eq!(found.wanted, before);
        match &found.outcome {
            UndoOutcome::Conflict(reason) => reason.clone(),
            other => panic!("{other:?}"),
        }
    };
    let one = |it: &mut Project| it.put("f", "1\n");
    let two = |it: &mut Project| it.put("f", "2\n");
    let three = |it: &mut Project| it.put("f", "3\n");
    let gone = |it: &mut Project| it.remove("f");
    let large = |it: &mut Project| it.large("f", 1 << 30);
    let nothing = |_: &mut Project| {};
    assert_eq!(reason(one, two, three), ConflictReason::ChangedSince);
    assert_eq!(reason(nothing, two, three), ConflictReason::ChangedSinceMade);
    assert_eq!(reason(one, two, gone), ConflictReason::RemovedSince);
    assert_eq!(reason(one, gone, three), ConflictReason::MadeSince);
    assert_eq!(reason(large, two, nothing), ConflictReason::NotKept);
    assert_eq!(reason(nothing, large, nothing), ConflictReason::NotKept);
    assert_eq!(reason(one, large, nothing), ConflictReason::NotKept);
    assert_eq!(reason(large, gone, nothing), ConflictReason::NotKept);
    let chmod = |it: &mut Project| it.chmod("f", 0o755);
    let private = |it: &mut Project| it.chmod("f", 0o600);
    assert_eq!(reason(one, chmod, private), ConflictReason::AttributesSince);
    let link = |it: &mut Project| it.link("f", "there");
    assert_eq!(reason(one, two, link), ConflictReason::ChangedSince);
}

#[test]
fn pruned_content_is_a_conflict_where_it_is_needed() {
    let mut project = Project::default();
    project.put("f", numbered(0..20));
    let before = content_id(numbered(0..20).as_bytes());
    project.step("w1", "t", |it| it.put("f", numbered(1..20)));
    project.step("w2", "o", |it| it.put("f", numbered(1..30)));
    project.lost.push(before);
    let pruned = ConflictReason::Unreadable("its content was pruned".into());
    assert_eq!(outcomes(&project.plan("t")), [("f", &UndoOutcome::Conflict(pruned))]);
}

#[test]
fn a_renamed_file_takes_the_changes_of_others_back_with_it() {
    let mut project = Project::default();
    project.put("old", numbered(0..20));
    project.step("w1", "t", |it| {
        it.rename("old", "new");
        it.put("new", it.text("new").unwrap().replace("line 2\n", "two\n"));
    });
    project.step("w2", "o", |it| it.put("new", it.text("new").unwrap().replace("line 15\n", "fifteen\n")));
    let plan = project.plan("t");
    assert_eq!(
        outcomes(&plan),
        [("new", &UndoOutcome::MovedAway), ("old", &UndoOutcome::MovedFrom("new".into()))]
    );
    // An undo that was ended after each of its parts is finished by the next.
    for half in ["old", "new"] {
        let mut project = project.clone();
        project.carry_out(&plan, "undo", |path| path == Path::new(half));
        let rest = project.plan("t");
        if half == "old" {
            assert_eq!(outcomes(&rest), [("new", &UndoOutcome::Removed), ("old", &UndoOutcome::AlreadySo)]);
        }
    }
    project.carry_out(&plan, "undo", |_| true);
    assert_eq!(project.text("old").unwrap(), numbered(0..20).replace("line 15\n", "fifteen\n"));
    assert_eq!(project.text("new"), None);
}

#[test]
fn a_rename_is_undone_as_a_whole_or_not_at_all() {
    let mut project = Project::default();
    project.put("src/old", numbered(0..20));
    project.put("other", "1\n");
    project.step("w1", "t", |it| {
        it.rename("src/old", "lib/new");
        it.put("lib/new", numbered(1..20));
        it.put("other", "2\n");
    });
    project.step("w2", "o", |it| it.put("lib/new", numbered(5..20)));
    let plan = project.plan("t");
    let conflict = UndoOutcome::Conflict(ConflictReason::ChangedSince);
    assert_eq!(
        outcomes(&plan),
        [("lib/new", &conflict), ("other", &UndoOutcome::Restored), ("src/old", &UndoOutcome::HeldBack)]
    );
    // A part of the project takes the other end of a rename along.
    assert_eq!(outcomes(&project.plan_within("t", Some("src"))).len(), 2);
    assert_eq!(outcomes(&project.plan_within("t", Some("other"))).len(), 1);
}

#[test]
fn renames_one_after_another_lead_back_to_the_first_name() {
    let mut project = Project::default();
    project.put("a", numbered(0..9));
    project.large("large", 1 << 30);
    project.put("package/__init__", "");
    project.put("x", "x\n");
    project.put("y", "y\n");
    let before = project.clone();
    project.step("w1", "t", |it| {
        it.rename("a", "b");
        it.rename("large", "larger");
        it.rename("package/__init__", "module/__init__");
    });
    project.step("w1", "t", |it| {
        it.rename("b", "c");
        it.put("a", "another\n");
    });
    project.step("w1", "t", |it| {
        it.rename("x", "z");
        it.rename("y", "x");
        it.rename("z", "y");
    });
    let plan = project.plan("t");
    let of = |path: &str| &plan.paths.iter().find(|it| it.path == Path::new(path)).unwrap().outcome;
    assert_eq!(of("a"), &UndoOutcome::MovedFrom("c".into()));
    assert_eq!(
        of("large"),
        &UndoOutcome::MovedFrom("larger".into()),
        "a file that is not kept moves as it is"
    );
    assert_eq!(of("package/__init__"), &UndoOutcome::MovedFrom("module/__init__".into()));
    assert_eq!((of("x"), of("y")), (&UndoOutcome::Restored, &UndoOutcome::Restored));
    project.carry_out(&plan, "undo", |_| true);
    assert_eq!(project.tree, before.tree);
}

#[test]
fn files_that_changed_places_in_several_steps_are_written_in_place() {
    let mut project = Project::default();
    project.put("x", "x\n");
    project.put("y", "y\n");
    let before = project.clone();
    project.step("w1", "t", |it| it.rename("x", "z"));
    project.step("w1", "t", |it| it.rename("y", "x"));
    project.step("w1", "t", |it| it.rename("z", "y"));
    project.undo("t", "undo");
    assert_eq!(project.tree, before.tree);
}

#[test]
fn a_directory_that_became_a_file_belongs_to_what_was_in_it() {
    let mut project = Project::default();
    project.put("a", "1\n");
    project.step("w1", "t", |it| {
        it.remove("a");
        it.put("a/b", "2\n");
    });
    assert_eq!(outcomes(&project.plan("t")), [("a", &UndoOutcome::Restored), ("a/b", &UndoOutcome::Removed)]);
    let mut other = project.clone();
    other.step("w2", "o", |it| it.put("a/b", "3\n"));
    let conflict = UndoOutcome::Conflict(ConflictReason::ChangedSinceMade);
    assert_eq!(outcomes(&other.plan("t")), [("a", &UndoOutcome::HeldBack), ("a/b", &conflict)]);
    project.step("w2", "o", |it| it.put("a/c", "3\n"));
    let conflict = UndoOutcome::Conflict(ConflictReason::MadeSince);
    assert_eq!(outcomes(&project.plan("t")), [("a", &conflict), ("a/b", &UndoOutcome::HeldBack)]);
}

#[test]
fn what_was_undone_stays_so_when_others_change_it_afterwards() {
    let mut project = Project::default();
    project.put("f", "a\nb\nc\n");
    project.step("w1", "t", |it| it.put("f", "a\nB\nc\n"));
    project.undo("t", "undo");
    // The same lines, so that a merge would conflict.
    project.step("w2", "o", |it| it.put("f", "a\nbb\nc\n"));
    assert_eq!(outcomes(&project.plan("t")), [("f", &UndoOutcome::AlreadySo)]);
    // An undo that was undone counts no longer.
    let mut project = Project::default();
    project.put("f", "a\nb\nc\n");
    project.step("w1", "t", |it| it.put("f", "a\nB\nc\n"));
    project.undo("t", "undo");
    project.undo("undo", "again");
    assert_eq!(project.text("f").unwrap(), "a\nB\nc\n");
    assert_eq!(outcomes(&project.plan("t")), [("f", &UndoOutcome::Restored)]);
}

#[test]
fn what_was_removed_by_accident_and_brought_back_is_undone() {
    let mut project = Project::default();
    project.put("f", "a\n");
    project.step("w1", "t", |it| it.put("f", "b\n"));
    project.step("w2", "reset", |it| it.put("f", "a\n"));
    project.step("w2", "clean", |it| it.remove("f"));
    project.step("operator", "undo", |it| it.put("f", "b\n"));
    assert_eq!(outcomes(&project.plan("t")), [("f", &UndoOutcome::Restored)]);
    project.undo("t", "more");
    assert_eq!(project.text("f").unwrap(), "a\n");
}

#[test]
fn a_file_that_was_half_written_by_an_undo_is_finished_by_the_next() {
    let (long, short) = (numbered(0..200), numbered(100..200));
    for (was, became) in [(&long, &short), (&short, &long)] {
        let mut project = Project::default();
        project.put("f", was);
        project.put("gone", was);
        let before = project.clone();
        project.step("w1", "t", |it| {
            it.put("f", became);
            it.remove("gone");
        });
        // Written from the start, up to some byte; and not yet cut to its length.
        for written in [1, 70, 700, was.len()] {
            let mut torn = became.clone().into_bytes();
            let length = torn.len().max(written.min(was.len()));
            torn.resize(length, 0);
            let written = written.min(was.len());
            torn[..written].copy_from_slice(&was.as_bytes()[..written]);
            let mut project = project.clone();
            project.step("operator", "undo", |it| {
                it.put("f", &torn);
                it.put("gone", &was[..written]);
            });
            project.undo("t", "more");
            assert_eq!(project.tree, before.tree, "after {written} bytes");
        }
    }
}

/// A change of one block of lines: block, lines.
type Edit = (u8, usize, Vec<u8>);

const TASKS: [&str; 3] = ["one", "two", "three"];

/// The lines of block `task`, between lines that no edit touches.
fn edit(text: &str, block: usize, lines: &[u8], mark: usize) -> String {
    let (head, tail) = (format!("<{block}\n"), format!("{block}>\n"));
    let (start, end) = (text.find(&head).unwrap() + head.len(), text.find(&tail).unwrap());
    let lines: String = lines.iter().map(|line| format!("{line} by {block} in {mark}\n")).collect();
    format!("{}{lines}{}", &text[..start], &text[end..])
}

fn blocks() -> String {
    let block =
        |n| format!("before {n}\nmore before {n}\n<{n}\nfirst {n}\n{n}>\nafter {n}\nmore after {n}\n");
    (0..TASKS.len()).map(block).collect()
}

/// What a task does to a file: edit its own block, or to a file of its own: make, change, remove, rename, change the mode.
fn work(project: &mut Project, (task, file, lines): &Edit, mark: usize) {
    let task = usize::from(*task) % TASKS.len();
    if *file < 3 {
        let path = format!("f{file}");
        let text = edit(&project.text(&path).unwrap(), task, lines, mark);
        return project.put(&path, text);
    }
    let (own, other) = (format!("{task}-own"), format!("{task}-other"));
    let has = |project: &Project, path: &str| project.tree.contains_key(Path::new(path));
    match (file, has(project, &own), has(project, &other)) {
        (3, true, _) => project.remove(&own),
        (4, true, false) => project.rename(&own, &other),
        (4, false, true) => project.rename(&other, &own),
        (5, true, _) => project.chmod(&own, 0o600 + u32::from(lines.first().copied().unwrap_or(0) % 8)),
        _ => project.put(&own, format!("{mark}\n{lines:?}\n")),
    }
}

fn history(edits: &[Edit], without: Option<usize>) -> Project {
    let mut project = Project::default();
    for file in 0..3 {
        project.put(&format!("f{file}"), blocks());
    }
    for (mark, change) in edits.iter().enumerate() {
        let task = usize::from(change.0) % TASKS.len();
        if without != Some(task) {
            let (worker, task) = (format!("w{task}"), TASKS[task]);
            project.step(&worker, task, |project| work(project, change, mark));
        }
    }
    project
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    proptest::collection::vec((0..3u8, 0..6usize, proptest::collection::vec(0..9u8, 0..4)), 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn undo_leaves_what_there_would_be_without_the_task(edits in edits(), task in 0..3usize) {
        let mut project = history(&edits, None);
        project.undo(TASKS[task], "undo");
        prop_assert_eq!(&project.tree, &history(&edits, Some(task)).tree);
        // A second time, nothing is left to be done.
        let again = project.plan(TASKS[task]);
        prop_assert!(again.paths.iter().all(|path| path.outcome == UndoOutcome::AlreadySo), "{:?}", again.paths);
    }

    #[test]
    fn an_undone_undo_gives_every_byte_back(edits in edits(), task in 0..3usize) {
        let mut project = history(&edits, None);
        let before = project.tree.clone();
        project.undo(TASKS[task], "undo");
        project.undo("undo", "again");
        prop_assert_eq!(&project.tree, &before);
        project.undo(TASKS[task], "third");
        prop_assert_eq!(&project.tree, &history(&edits, Some(task)).tree);
    }

    #[test]
    fn all_tasks_can_be_undone_in_any_order(
        edits in edits(),
        order in Just([0, 1, 2]).prop_shuffle(),
    ) {
        let mut project = history(&edits, None);
        for task in order {
            project.undo(TASKS[task], &format!("undo-{task}"));
        }
        prop_assert_eq!(&project.tree, &history(&[], None).tree);
    }

    #[test]
    fn an_undo_that_ends_anywhere_is_finished_by_the_next(
        edits in edits(),
        task in 0..3usize,
        done in proptest::collection::vec(any::<bool>(), 8),
    ) {
        let mut project = history(&edits, None);
        let plan = project.plan(TASKS[task]);
        let mut done = done.into_iter().cycle();
        let done: Vec<bool> = plan.paths.iter().map(|_| done.next().unwrap()).collect();
        // A file is at one of two paths at any time.
        let is_done = |path: &Path| {
            let at = plan.paths.iter().position(|it| it.path == path).unwrap();
            match plan.paths[at].outcome {
                UndoOutcome::MovedFrom(_) | UndoOutcome::MovedAway => done[0],
                _ => done[at],
            }
        };
        project.carry_out(&plan, "undo", is_done);
        project.undo(TASKS[task], "more");
        prop_assert_eq!(&project.tree, &history(&edits, Some(task)).tree);
    }
}
