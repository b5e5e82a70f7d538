//! Undo on a plain directory: what a plan does, and that a failure in the middle leaves nothing changed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::history::PathChange;

/// A directory, and every content that was in it.
struct Project {
    dir: tempfile::TempDir,
    tree: ProjectTree,
    blobs: HashMap<ContentId, Vec<u8>>,
    steps: Vec<(Step, bool)>,
}

type Snapshot = BTreeMap<PathBuf, Version>;

impl VersionSource for &mut Project {
    fn present(&mut self, path: &Path, read: bool) -> Result<Option<Version>, String> {
        self.tree.version(path, read).map_err(|error| error.to_string())
    }

    fn directory(&mut self, path: &Path, besides: &HashSet<&Path>) -> DirectoryUse {
        self.tree.directory(path, besides)
    }

    fn content(&mut self, id: ContentId) -> Result<Vec<u8>, String> {
        self.blobs.get(&id).cloned().ok_or_else(|| "not kept".to_string())
    }

    fn keeps_owners(&self) -> bool {
        true
    }
}

impl Project {
    fn new() -> Project {
        let dir = tempfile::tempdir().unwrap();
        let root = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        Project { dir, tree: ProjectTree::new(root), blobs: HashMap::new(), steps: Vec::new() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn put(&self, path: &str, content: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), content).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Files, links, and empty directories.
    fn snapshot(&mut self) -> Snapshot {
        let mut found = Snapshot::new();
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            let entries: Vec<_> = fs::read_dir(self.dir.path().join(&directory)).unwrap().flatten().collect();
            if entries.is_empty() && directory != Path::new("") {
                found.insert(directory.clone(), self.tree.version(&directory, true).unwrap().unwrap());
            }
            for entry in entries {
                let path = directory.join(entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    directories.push(path);
                    continue;
                }
                let version = self.tree.version(&path, true).unwrap().unwrap();
                if let (KeptContent::Kept(id), Some(content)) =
                    (version.content, self.tree.content(&path).unwrap())
                {
                    self.blobs.insert(id, content);
                }
                found.insert(path, version);
            }
        }
        found
    }

    /// Record what `work` does as a step that is to be undone, or as one of others.
    fn step(&mut self, chosen: bool, work: impl FnOnce(&Project)) {
        let before = self.snapshot();
        work(self);
        let after = self.snapshot();
        let paths: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
        let change = |path: &PathBuf| PathChange {
            path: path.clone(),
            before: before.get(path).copied(),
            after: after.get(path).copied(),
        };
        let changes = paths.into_iter().map(change).filter(|change| change.before != change.after).collect();
        let step = Step { worker: None, claim: None, program: None, at: Wall(0), end: None, changes };
        self.steps.push((step, chosen));
    }

    fn plan(&mut self) -> UndoPlan {
        let steps = self.steps.clone();
        let steps: Vec<ChosenStep> =
            steps.iter().map(|(step, chosen)| ChosenStep { step, chosen: *chosen }).collect();
        plan_undo(&steps, None, &mut { self })
    }

    /// Carry out the plan. `calls`: how many contents can be had before one fails.
    fn undo(&mut self, calls: usize) -> Result<UndoPlan, CarryOutError> {
        let plan = self.plan();
        self.blobs.extend(plan.merged.clone());
        let held = hold(&self.tree, &plan.paths).unwrap();
        let mut left = calls;
        let mut content = |version: &Version| {
            let KeptContent::Kept(id) = version.content else { unreachable!("planned without its content") };
            left = left.checked_sub(1).ok_or_else(|| io::Error::other("no more"))?;
            Ok(self.blobs[&id].clone())
        };
        carry_out(&self.tree, &plan.paths, held, &mut content).map(|()| plan)
    }
}

fn lines(range: std::ops::Range<usize>) -> String {
    range.map(|line| format!("line {line}\n")).collect()
}

/// A project in which a step did one of everything.
fn project_of_everything() -> (Project, Snapshot) {
    let mut project = Project::new();
    project.put("src/long", &lines(0..99));
    project.put("src/short", &lines(0..9));
    project.put("src/gone/deep/file", "gone\n");
    project.put("run.sh", "#!/bin/sh\n");
    project.put("read-only", "before\n");
    project.chmod("read-only", 0o444);
    project.put("moved", &lines(50..70));
    project.put("file-then-directory", "file\n");
    project.put("directory-then-file/inner", "inner\n");
    project.put("shared", &lines(0..40));
    symlink("src/long", project.at("link")).unwrap();
    fs::create_dir(project.at("empty")).unwrap();
    project.chmod("empty", 0o750);
    let before = project.snapshot();
    project.step(true, |it| {
        it.put("src/long", &lines(0..9));
        it.put("src/short", &lines(0..99));
        fs::remove_dir_all(it.at("src/gone")).unwrap();
        it.put("made/here/file", "made\n");
        it.chmod("run.sh", 0o755);
        it.chmod("read-only", 0o644);
        it.put("read-only", "after\n");
        it.chmod("read-only", 0o444);
        fs::rename(it.at("moved"), it.at("src/moved")).unwrap();
        fs::remove_file(it.at("file-then-directory")).unwrap();
        it.put("file-then-directory/inner", "inner\n");
        fs::remove_dir_all(it.at("directory-then-file")).unwrap();
        it.put("directory-then-file", "file\n");
        fs::remove_file(it.at("link")).unwrap();
        symlink("src/short", it.at("link")).unwrap();
        fs::remove_dir(it.at("empty")).unwrap();
        fs::create_dir(it.at("other")).unwrap();
        it.put("shared", &it.text("shared").replace("line 2\n", "two\n"));
    });
    project.step(false, |it| {
        it.put("shared", &it.text("shared").replace("line 30\n", "thirty\n"));
    });
    (project, before)
}

#[test]
fn everything_comes_back() {
    let (mut project, mut before) = project_of_everything();
    let merged = lines(0..40).replace("line 30\n", "thirty\n");
    let inode = |project: &Project, path: &str| fs::metadata(project.at(path)).unwrap().ino();
    let inodes = [inode(&project, "src/long"), inode(&project, "src/moved")];
    project.undo(usize::MAX).unwrap();
    before.get_mut(Path::new("shared")).unwrap().content =
        KeptContent::Kept(crate::history::undo::content_id(merged.as_bytes()));
    assert_eq!(project.snapshot(), before);
    assert_eq!([inode(&project, "src/long"), inode(&project, "moved")], inodes, "files stay the same files");
    assert!(!project.at("made").exists(), "directories of removed files go too");
    // Again: nothing is left.
    assert!(!project.plan().paths.iter().any(is_touched));
}

#[test]
fn a_failure_anywhere_leaves_nothing_changed() {
    for calls in 0.. {
        let (mut project, _) = project_of_everything();
        let before = project.snapshot();
        match project.undo(calls) {
            Ok(_) => return assert!(calls > 7, "only {calls} contents were asked for"),
            Err(failure) => assert!(failure.left.is_empty(), "{failure:?}"),
        }
        assert_eq!(project.snapshot(), before, "after {calls} contents");
    }
}

#[test]
fn what_changes_after_the_plan_is_noticed_before_anything_is_touched() {
    let changes: [fn(&Project); 6] = [
        |it| it.put("src/long", "changed\n"),
        |it| it.chmod("run.sh", 0o700),
        |it| fs::remove_file(it.at("src/short")).unwrap(),
        |it| it.put("empty", "a file\n"),
        |it| {
            fs::rename(it.at("src/long"), it.at("elsewhere")).unwrap();
            fs::copy(it.at("elsewhere"), it.at("src/long")).unwrap();
            fs::remove_file(it.at("src/long")).unwrap();
            symlink("../elsewhere", it.at("src/long")).unwrap();
        },
        |it| {
            fs::rename(it.at("src"), it.at("elsewhere")).unwrap();
            symlink("elsewhere", it.at("src")).unwrap();
        },
    ];
    for change in changes {
        let (mut project, _) = project_of_everything();
        let plan = project.plan();
        change(&project);
        let before = project.snapshot();
        assert!(matches!(hold(&project.tree, &plan.paths), Err(HoldError::Changed(_))));
        assert_eq!(project.snapshot(), before);
    }
}

#[test]
fn no_link_leads_out_of_the_project() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "outside\n").unwrap();
    let mut project = Project::new();
    project.put("dir/file", "before\n");
    project.step(true, |it| it.put("dir/file", "after\n"));
    project.step(true, |it| fs::remove_dir_all(it.at("dir")).unwrap());
    symlink(outside.path(), project.at("dir")).unwrap();
    let plan = project.plan();
    let held = hold(&project.tree, &plan.paths).unwrap();
    let mut content = |_: &Version| Ok(b"before\n".to_vec());
    carry_out(&project.tree, &plan.paths, held, &mut content).unwrap_err();
    assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "outside\n");
    for path in ["../outside", "/etc/passwd", "dir/../../x", ""] {
        assert!(project.tree.version(Path::new(path), true).is_err(), "{path}");
    }
}

/// A random change of a project: its kind, one path, another one, and a number for contents.
type Deed = (u8, u8, u8, u8);

const PATHS: [&str; 7] = ["a", "b", "d/a", "d/b", "d/e/a", "d/e/f/a", "g"];

fn deed(project: &Project, (kind, one, other, number): Deed) {
    let (one, other) = (project.at(PATHS[usize::from(one) % 7]), project.at(PATHS[usize::from(other) % 7]));
    // What cannot be done is left undone.
    let parent = || fs::create_dir_all(other.parent().unwrap());
    let _ = match kind {
        0 => fs::remove_file(&one),
        1 => fs::remove_dir_all(&one),
        2 => parent().and_then(|()| fs::rename(&one, &other)),
        3 => fs::set_permissions(&one, fs::Permissions::from_mode(0o700 + u32::from(number % 8))),
        4 => parent().and_then(|()| symlink(format!("target-{number}"), &other)),
        5 => fs::create_dir_all(&other),
        _ => parent().and_then(|()| fs::write(&other, lines(usize::from(number)..100))),
    };
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_work_is_undone_completely_or_not_at_all(
        first in proptest::collection::vec((4..9u8, 0..7u8, 0..7u8, 0..9u8), 0..9),
        steps in proptest::collection::vec(proptest::collection::vec((0..9u8, 0..7u8, 0..7u8, 0..9u8), 1..6), 1..5),
        calls in 0..6usize,
    ) {
        let mut project = Project::new();
        first.into_iter().for_each(|it| deed(&project, it));
        let before = project.snapshot();
        for step in steps {
            project.step(true, |project| step.into_iter().for_each(|it| deed(project, it)));
        }
        let after = project.snapshot();
        if let Err(failure) = project.undo(calls) {
            prop_assert!(failure.left.is_empty(), "{:?}", failure);
            prop_assert_eq!(project.snapshot(), after);
        }
        let plan = project.undo(usize::MAX).map_err(|failure| TestCaseError::fail(format!("{failure:?}")))?;
        prop_assert!(!plan.has_conflicts(), "{:?}", plan.paths);
        // An empty directory that got a file and lost it goes as well, as in git.
        let files = |snapshot: Snapshot| -> Snapshot {
            snapshot.into_iter().filter(|(_, version)| version.kind != VersionKind::Directory).collect()
        };
        prop_assert_eq!(files(project.snapshot()), files(before));
    }
}
