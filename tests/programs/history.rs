//! Git reads, fetches from and applies what the history holds.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crewfs::history::{
    ClaimEnd, KeptContent, PathChange, Repository, Step, StepFilter, TaskClaim, Version, VersionKind,
};
use crewfs::queue::{TaskId, Wall, WorkerName};

use crate::harness::as_root;
use crate::sides::needs;

/// A history, and a project that one could fetch it into.
struct Place {
    place: tempfile::TempDir,
    repository: Repository,
}

impl Place {
    fn new() -> Place {
        let place = tempfile::tempdir().unwrap();
        for name in ["history.git", "project"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        let repository = open(place.path(), true);
        Place { place, repository }
    }

    fn git(&self, within: &str, arguments: &[&str]) -> Result<String, String> {
        let run = Command::new("git")
            .args(arguments)
            .current_dir(self.place.path().join(within))
            .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_PAGER", "cat")])
            .envs(["AUTHOR", "COMMITTER"].map(|role| (format!("GIT_{role}_NAME"), "reviewer")))
            .envs(["AUTHOR", "COMMITTER"].map(|role| (format!("GIT_{role}_EMAIL"), "reviewer@example.org")))
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        match run.status.success() {
            true => Ok(text(run.stdout)),
            false => Err(format!("git {arguments:?}: {}{}", text(run.stdout), text(run.stderr))),
        }
    }

    /// What git says about the history.
    fn history(&self, arguments: &[&str]) -> String {
        self.git("history.git", arguments).unwrap()
    }

    /// Git finds no fault.
    fn is_sound(&self) {
        self.history(&["fsck", "--strict", "--full", "--no-dangling", "--no-progress"]);
    }

    fn version(&self, content: &[u8]) -> Version {
        let content = KeptContent::Kept(self.repository.store(content).unwrap());
        Version { kind: VersionKind::File, mode: 0o644, uid: 1000, gid: 1000, content }
    }

    fn record(&mut self, worker: Option<&str>, task: Option<&str>, at: i64, changes: Vec<PathChange>) {
        let step = Step {
            worker: worker.and_then(WorkerName::parse),
            claim: task.map(claim),
            program: None,
            at: Wall(1_700_000_000_000 + at * 1_000),
            end: None,
            changes,
        };
        self.repository.record(&step).unwrap();
    }
}

fn open(place: &Path, create: bool) -> Repository {
    let directory = File::open(place.join("history.git")).unwrap();
    Repository::open(OwnedFd::from(directory), create).unwrap()
}

fn claim(task: &str) -> TaskClaim {
    TaskClaim { task: TaskId::parse(task).unwrap(), epoch: 1, title: format!("The title of {task}") }
}

fn change(path: impl Into<PathBuf>, before: Option<Version>, after: Option<Version>) -> PathChange {
    PathChange { path: path.into(), before, after }
}

/// Lines with numbers; those in `edits` are changed.
fn lines(edits: &[usize]) -> Vec<u8> {
    let line =
        |n: usize| if edits.contains(&n) { format!("line {n}, changed\n") } else { format!("line {n}\n") };
    (1..=40).map(line).collect::<String>().into_bytes()
}

#[test]
fn git_reads_the_history() {
    needs!("git");
    let mut place = Place::new();
    let [one, two] = [b"1\n", b"2\n"].map(|content| place.version(content));
    let link = Version { kind: VersionKind::Symlink, mode: 0o777, ..place.version(b"a/b") };
    let large = Version { content: KeptContent::NotKept { bytes: 1 << 30 }, ..one };
    let odd = PathBuf::from(OsStr::from_bytes(b"odd \xff\n\"name"));
    let first = vec![
        change(".git/config", None, Some(one)),
        change(".gitmodules", None, Some(link)),
        change("a/b", None, Some(one)),
        change("a.b", None, Some(two)),
        change("l", None, Some(link)),
        change("large", None, Some(large)),
        change(odd.clone(), None, Some(Version { mode: 0o4755, ..one })),
    ];
    place.record(Some("worker-1"), Some("login"), 1, first);
    place.record(Some("worker-2"), None, 2, vec![change("a/b", Some(two), None)]);
    place.record(None, None, 3, vec![change(odd, Some(one), None), change("l", Some(link), Some(one))]);
    place.is_sound();
    let log =
        place.history(&["log", "--format=%an|%s|%ct|%(trailers:key=Task,valueonly,separator=)", "main"]);
    assert_eq!(
        log,
        "outside|Changes from outside crewfs|1700000003|\n\
         outside|Changes from outside crewfs|1700000003|\n\
         worker-2|Changes by worker-2|1700000002|\n\
         outside|Changes from outside crewfs|1700000002|\n\
         worker-1|login: The title of login|1700000001|login\n"
    );
    assert!(place.history(&["show", "main~2"]).contains("deleted file mode 100644"));
    assert_eq!(place.history(&["show", "main:a.b"]), "2\n");
    assert_eq!(place.history(&["symbolic-ref", "HEAD"]), "refs/heads/main\n");
    // Another user has nothing to look for there, and a reader opens it without writing.
    let mode = fs::metadata(place.place.path().join("history.git")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    let steps = open(place.place.path(), false).steps(StepFilter::default()).unwrap().count();
    assert_eq!(steps, 5);
}

#[test]
fn one_tasks_work_is_fetched_and_picked_without_that_of_others() {
    needs!("git");
    let mut place = Place::new();
    let states = [&[][..], &[3], &[3, 30], &[3, 15, 30]].map(|edits| place.version(&lines(edits)));
    let new = place.version(b"new\n");
    let by = |n: usize| {
        (Some(if n == 1 { "worker-2" } else { "worker-1" }), Some(if n == 1 { "other" } else { "log..in" }))
    };
    for n in 0..3 {
        let mut changes = vec![change("src/f", Some(states[n]), Some(states[n + 1]))];
        changes.extend((n == 1).then(|| change("theirs", None, Some(new))));
        changes.extend((n == 2).then(|| change("mine", None, Some(Version { mode: 0o755, ..new }))));
        place.record(by(n).0, by(n).1, n as i64, changes);
    }
    let end = ClaimEnd { how: "completed".into(), text: "It works now.".into() };
    let worker = WorkerName::parse("worker-1").unwrap();
    place.repository.end_task(&claim("log..in"), &end, &worker).unwrap();
    place.repository.end_task(&claim("log..in"), &end, &worker).unwrap();
    place.is_sound();
    // The project went on in the meantime, elsewhere in the same file.
    let git = |arguments: &[&str]| place.git("project", arguments).unwrap();
    let project = place.place.path().join("project");
    git(&["init", "-q", "-b", "main"]);
    fs::create_dir(project.join("src")).unwrap();
    fs::write(project.join("src/f"), lines(&[38])).unwrap();
    fs::write(project.join("unrelated"), "unrelated\n").unwrap();
    git(&["add", "-A"]);
    git(&["commit", "-qm", "first"]);
    git(&["fetch", "-q", "../history.git", "refs/tasks/log%2E.in"]);
    git(&["cherry-pick", "FETCH_HEAD"]);
    assert_eq!(fs::read(project.join("src/f")).unwrap(), lines(&[3, 15, 38]));
    assert_eq!(git(&["ls-files", "-s", "mine"]).split(' ').next(), Some("100755"));
    assert!(!project.join("theirs").exists() && project.join("unrelated").exists());
    let said = git(&["log", "-1", "--format=%an%n%B"]);
    assert!(
        said.starts_with("worker-1\nlog..in: The title of log..in\n\nIt works now.\n\nTask: log..in\n"),
        "{said}"
    );
}

#[test]
fn git_reads_a_history_that_was_cut_and_packed() {
    needs!("git");
    let mut place = Place::new();
    let end = ClaimEnd { how: "completed".into(), text: String::new() };
    let worker = WorkerName::parse("worker-1").unwrap();
    let mut before = None;
    for at in 0..20 {
        let after = Some(place.version(&lines(&[at])));
        let task = format!("t{at}");
        place.record(Some("worker-1"), Some(&task), at as i64, vec![change("f", before, after)]);
        place.repository.end_task(&claim(&task), &end, &worker).unwrap();
        before = after;
    }
    let prune = |place: &Place, at: i64| {
        let oldest = Wall(1_700_000_000_000 + at * 1_000);
        place.repository.prune(oldest, u64::MAX, &BTreeSet::new, &mut || true).unwrap();
        place.is_sound();
    };
    // The first time, the space is not worth the work.
    prune(&place, 1);
    assert_eq!(place.history(&["rev-list", "--count", "main"]), "20\n");
    prune(&place, 10);
    assert_eq!(place.history(&["rev-list", "--count", "main"]), "11\n");
    assert_eq!(place.history(&["show", "main:f"]).into_bytes(), lines(&[19]));
    assert!(place.history(&["log", "-p", "main"]).contains("+line 9, changed"));
    assert_eq!(place.history(&["for-each-ref", "refs/tasks"]).lines().count(), 10);
    place.git("project", &["init", "-q"]).unwrap();
    place.git("project", &["fetch", "-q", "../history.git", "refs/tasks/t15"]).unwrap();
    let work = place.git("project", &["show", "--format=%s", "FETCH_HEAD"]).unwrap();
    assert!(work.starts_with("t15: The title of t15\n") && work.contains("+line 15, changed"), "{work}");
    place.git("", &["clone", "-q", "--bare", "history.git", "copy.git"]).unwrap();
    // An operator may pack it with git.
    place.history(&["gc", "-q"]);
    let after = Some(place.version(b"after\n"));
    place.record(Some("worker-1"), None, 20, vec![change("f", before, after)]);
    prune(&place, 15);
    assert_eq!(place.history(&["rev-list", "--count", "main"]), "7\n");
    assert_eq!(place.history(&["for-each-ref", "refs/tasks"]).lines().count(), 5);
    assert_eq!(place.history(&["count-objects", "-v"]).lines().filter(|line| *line == "packs: 1").count(), 1);
}

/// A filesystem over a directory, until it is dropped.
struct Covered(PathBuf);

impl Covered {
    fn new(directory: &Path) -> Covered {
        let run = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(directory).status().unwrap();
        assert!(run.success());
        Covered(directory.to_path_buf())
    }
}

impl Drop for Covered {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_mount_over_the_history_is_not_entered() {
    needs!("git", "mount");
    as_root!();
    let mut place = Place::new();
    let covered = Covered::new(&place.place.path().join("history.git"));
    let end = ClaimEnd { how: "completed".into(), text: String::new() };
    let worker = WorkerName::parse("worker-1").unwrap();
    let mut before = None;
    for at in 0..20 {
        let after = Some(place.version(&lines(&[at])));
        place.record(Some("worker-1"), Some("task"), at as i64, vec![change("f", before, after)]);
        before = after;
    }
    place.repository.end_task(&claim("task"), &end, &worker).unwrap();
    let oldest = Wall(1_700_000_000_000 + 10_000);
    place.repository.prune(oldest, u64::MAX, &BTreeSet::new, &mut || true).unwrap();
    let steps = place.repository.steps(StepFilter::default()).unwrap();
    let changes: Vec<PathChange> = steps.map(|step| step.unwrap().changes.remove(0)).collect();
    assert_eq!(changes.len(), 10);
    assert!(!place.repository.diff(&changes[..1], false).unwrap().is_empty());
    assert_eq!(place.repository.blame(Path::new("f"), &lines(&[])).unwrap().len(), 40);
    assert_eq!(fs::read_dir(&covered.0).unwrap().count(), 0, "something was made in the mount");
    drop(covered);
    place.is_sound();
    assert_eq!(place.history(&["count-objects", "-v"]).lines().filter(|line| *line == "packs: 1").count(), 1);
}

#[test]
fn git_applies_the_diff_of_a_task() {
    needs!("git");
    let mut place = Place::new();
    let version = |content: &[u8]| place.version(content);
    let (text, binary) = (lines(&[]), [lines(&[]), vec![0, 1, 2]].concat());
    let link = Version { kind: VersionKind::Symlink, mode: 0o777, ..version(b"old") };
    let before = [
        ("edited", Some(version(&text))),
        ("moved from", Some(version(&text))),
        ("removed", Some(version(b"gone\n"))),
        ("binary", Some(version(&binary))),
        ("mode", Some(version(b"#!/bin/sh\n"))),
        ("link", Some(link)),
        ("end", Some(version(b"no newline"))),
        ("closed", Some(version(b"closed\n"))),
        ("large", Some(Version { content: KeptContent::NotKept { bytes: 5 }, ..link })),
    ];
    let after = [
        ("edited", Some(version(&lines(&[1, 20, 40])))),
        ("dir/moved to", Some(version(&lines(&[7])))),
        ("binary", Some(version(&[&binary[..], &[9, 0, 9]].concat()))),
        ("mode", Some(Version { mode: 0o755, ..version(b"#!/bin/sh\n") })),
        ("link", Some(Version { kind: VersionKind::Symlink, ..version(b"new") })),
        ("end", Some(version(b"still no newline"))),
        ("empty", Some(version(b""))),
        ("closed", Some(Version { mode: 0o600, gid: 0, ..version(b"closed\n") })),
        ("new \u{e4} \"", Some(version(b"new"))),
        ("large", Some(Version { content: KeptContent::NotKept { bytes: 6 }, ..link })),
    ];
    let side = |side: &[(&str, Option<Version>)], path: &str| {
        side.iter().find(|(other, _)| *other == path).and_then(|(_, version)| *version)
    };
    let mut paths: Vec<&str> = before.iter().chain(&after).map(|(path, _)| *path).collect();
    paths.sort();
    paths.dedup();
    let changes: Vec<PathChange> =
        paths.iter().map(|path| change(*path, side(&before, path), side(&after, path))).collect();
    place.record(Some("worker-1"), Some("task"), 1, changes.clone());
    let reader = open(place.place.path(), false);
    let changes = reader.task_changes(&TaskId::parse("task").unwrap(), None).unwrap();
    let diff = reader.diff(&changes, true).unwrap();
    let project = place.place.path().join("project");
    for (path, version) in before {
        put(&reader, &project.join(path), version.unwrap());
    }
    fs::write(place.place.path().join("diff"), &diff).unwrap();
    let shown = String::from_utf8(diff).unwrap();
    place.git("project", &["apply", "../diff"]).unwrap_or_else(|error| panic!("{error}\n{shown}"));
    for (path, version) in after.into_iter().filter(|(path, _)| *path != "large") {
        let (path, version) = (project.join(path), version.unwrap());
        let KeptContent::Kept(id) = version.content else { unreachable!() };
        let content = reader.read(id).unwrap();
        match version.kind {
            VersionKind::Symlink => assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), content),
            _ => assert_eq!(fs::read(&path).unwrap(), content, "{}", path.display()),
        }
    }
    assert_eq!(fs::metadata(project.join("mode")).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(!project.join("removed").exists() && !project.join("moved from").exists());
    for said in [
        "rename from moved from\nrename to dir/moved to\n",
        "# large: the content before is not kept (5 bytes)\n",
        "# closed: mode 0644 becomes 0600\n# closed: owner 1000:1000 becomes 1000:0\n",
        "GIT binary patch",
    ] {
        assert!(shown.contains(said), "{said:?} in {shown}");
    }
    let short = String::from_utf8(reader.diff(&changes, false).unwrap()).unwrap();
    assert!(short.contains("Binary files a/binary and b/binary differ"), "{short}");
}

/// Make a file as a version says.
fn put(reader: &Repository, path: &Path, version: Version) {
    let KeptContent::Kept(id) = version.content else { return };
    let content = reader.read(id).unwrap();
    match version.kind {
        VersionKind::Symlink => std::os::unix::fs::symlink(OsStr::from_bytes(&content), path).unwrap(),
        _ => {
            fs::write(path, content).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(version.mode)).unwrap();
        }
    }
}
