//! What workers changed is shown, and taken back: `crewfs changes`, `crewfs blame`, `crewfs undo` (C84).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Mounted, Project, as_root, project};
use crate::process::{Ran, crewfs, run, until};

/// A time after everything before the call, and before everything after it, as `--since` takes it.
fn moment() -> String {
    let now = || {
        let mut date = Command::new("date");
        date.args(["-u", "+%FT%T.%3NZ"]);
        run(date).ok().trim().to_string()
    };
    let after = |moment: &str| std::iter::repeat_with(now).find(|now| now != moment).unwrap();
    let since = after(&now());
    after(&since);
    since
}

/// The desk, its links, and git's directory.
const NOT_THE_PROJECT: [&str; 5] = [".git", "tasks", "workers", "task-queue.json", "worker-status.json"];

/// Everything else in the project: kind, mode, and content or target.
fn snapshot(mounted: &Mounted) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(mounted.path().join(&directory)).unwrap().flatten() {
            let path = directory.join(entry.file_name());
            let at = entry.path();
            let kind = entry.file_type().unwrap();
            if NOT_THE_PROJECT.iter().any(|name| path == Path::new(name)) {
                continue;
            }
            let content = if kind.is_dir() {
                directories.push(path.clone());
                Vec::new()
            } else if kind.is_symlink() {
                fs::read_link(&at).unwrap().into_os_string().into_encoded_bytes()
            } else {
                fs::read(&at).unwrap()
            };
            found.insert(path, (fs::symlink_metadata(&at).unwrap().mode(), content));
        }
    }
    found
}

#[track_caller]
fn undo(project: &Project, arguments: &[&str]) -> Ran {
    let mut command = crewfs();
    command.arg("undo").arg(project.source()).args(arguments);
    run(command)
}

#[track_caller]
fn changes(project: &Project, arguments: &[&str]) -> String {
    let mut command = crewfs();
    command.arg("changes").arg(project.source()).args(arguments);
    run(command).ok()
}

/// A repository in which two workers have uncommitted work of every kind.
fn at_work(project: &Project) -> Mounted {
    fs::create_dir_all(project.source().join("src/deep")).unwrap();
    let lines: String = (1..=30).map(|line| format!("line {line}\n")).collect();
    fs::write(project.source().join("src/lib.rs"), lines).unwrap();
    fs::write(project.source().join("src/deep/x.rs"), "x\n").unwrap();
    let mounted = project.mount(&["stale_writes=allow"]);
    mounted
        .sh(
            "coordinator",
            "git init -q && printf '%s\\n' tasks/ .crewfs/ workers '*.json' >> .git/info/exclude && git add src && \
             git -c user.name=x -c user.email=x commit -qm base",
        )
        .ok();
    mounted
        .sh(
            "w1",
            "sed -i 's/^line 3$/login 3/' src/lib.rs; printf 'a\\nb\\nc\\n' > src/new.rs; mkdir -p empty/inner; \
             ln -s new.rs src/link; printf '#!/bin/sh\\n' > run; chmod 750 run; head -c 50000 /dev/urandom > src/binary",
        )
        .ok();
    mounted
        .sh("w2", "sed -i 's/^line 20$/menu 20/' src/lib.rs; echo two > two.txt; echo more >> src/new.rs")
        .ok();
    mounted
}

/// What a worker may do to all others by accident.
const ACCIDENTS: [&str; 10] = [
    "git reset -q --hard",
    "git clean -qfd -e tasks; git reset -q --hard",
    "git -c user.name=x -c user.email=x stash -q -u",
    "git checkout -q -- .",
    "rm -rf src run two.txt empty",
    "mv src lib; mv lib/deep deep; mv run src",
    "chmod 600 run src/*.rs; chmod -x run",
    "for f in src/*.rs; do sed 's/e/E/' $f > $f.new; mv $f.new $f; sed -i s/n/N/ $f; done; ln -sf lib.rs src/link",
    "mv run t; mv two.txt run; mv t two.txt; rm -r empty; echo file > empty; rm src/link; mkdir src/link; echo x > src/link/x",
    "echo > src/lib.rs; truncate -s 10 src/binary; python3 -c 'import mmap; f = open(\"src/new.rs\", \"r+b\"); m = mmap.mmap(f.fileno(), 0); m[0:1] = b\"x\"; m.flush()'",
];

#[test]
fn c84_every_accident_is_taken_back() {
    let project = project!();
    let mounted = at_work(&project);
    let before = snapshot(&mounted);
    for accident in ACCIDENTS {
        let since = moment();
        mounted.sh("w3", accident).ok();
        let after = snapshot(&mounted);
        assert_ne!(after, before, "{accident}: nothing happened");
        let dry = undo(&project, &["--worker", "w3", "--since", &since, "--dry-run"]).ok();
        assert_eq!(snapshot(&mounted), after, "{accident}: a dry run changes nothing");
        let done = undo(&project, &["--worker", "w3", "--since", &since]).ok();
        let lines = |text: &str| text.lines().rev().skip(1).map(String::from).collect::<Vec<_>>();
        assert_eq!(lines(&dry), lines(&done), "{accident}");
        assert_eq!(snapshot(&mounted), before, "{accident}\n{done}");
        let again = undo(&project, &["--worker", "w3", "--since", &since]).ok();
        assert!(again.ends_with("nothing is left to undo\n"), "{accident}: {again}");
    }
}

#[test]
fn c84_a_task_is_undone_and_the_undo_is_undone() {
    let project = project!();
    let lines: String = (1..=30).map(|line| format!("line {line}\n")).collect();
    fs::write(project.source().join("shared"), &lines).unwrap();
    fs::write(project.source().join("old"), "old\n").unwrap();
    project.task("login", "# Login\n");
    let mounted = project.mount(&[]);
    let inode = fs::metadata(mounted.path().join("shared")).unwrap().ino();
    mounted
        .sh(
            "w1",
            "touch tasks/claim/login; cat shared; printf 'login\\n' | dd of=shared conv=notrunc status=none",
        )
        .ok();
    mounted
        .sh("w1", "mkdir made; echo m > made/m; mv old new; chmod 755 new; echo own > tasks/completed/login")
        .ok();
    mounted
        .sh("w2", "cat shared > /dev/null; echo 'line 31' >> shared; sed -i 's/^line 20$/menu 20/' shared")
        .ok();
    let inode_of_w2 = fs::metadata(mounted.path().join("shared")).unwrap().ino();
    let before = snapshot(&mounted);
    let shown = changes(&project, &["login"]);
    assert!(shown.contains("w1  login: Login") && shown.contains("completed: own"), "{shown}");
    assert!(shown.contains("made/m") && !shown.contains("w2"), "{shown}");
    let since = moment();
    let done = undo(&project, &["login", "--diff"]).ok();
    assert!(done.contains("merged      shared") && done.contains("moved back  old, from new"), "{done}");
    assert!(done.contains("--- a/shared") && done.contains("+line 1\n"), "{done}");
    let undone = lines.replace("line 20\n", "menu 20\n") + "line 31\n";
    assert_eq!(
        fs::read_to_string(mounted.path().join("shared")).unwrap().lines().skip(2).collect::<Vec<_>>(),
        undone.lines().skip(2).collect::<Vec<_>>()
    );
    assert!(!mounted.path().join("made").exists() && !mounted.path().join("new").exists());
    assert_eq!(fs::metadata(mounted.path().join("old")).unwrap().permissions().mode() & 0o777, 0o644);
    let now = fs::metadata(mounted.path().join("shared")).unwrap().ino();
    assert!(now == inode_of_w2 || now == inode, "the file is written in place");
    // The undo is a change with an author, and its last line says how to take it back.
    let command = done.trim_end().rsplit_once("crewfs undo ").unwrap().1.to_string();
    let mut arguments = command.split(' ');
    assert_eq!(Path::new(arguments.next().unwrap()), mounted.path());
    let arguments: Vec<&str> = arguments.collect();
    assert!(changes(&project, &["--since", &since]).contains("shared"));
    undo(&project, &arguments).ok();
    assert_eq!(snapshot(&mounted), before);
}

#[test]
fn c84_conflicts_change_nothing_and_partial_does_the_rest() {
    let project = project!();
    let mounted = project.mount(&["history_file=4096"]);
    mounted.sh("w1", "echo one > f; echo one > g; head -c 9000 /dev/zero > large").ok();
    let since = moment();
    mounted.sh("w2", "cat f g > /dev/null; echo two > f; echo two > g; echo made > made; cat large > /dev/null; echo > large").ok();
    mounted.sh("w3", "cat f > /dev/null; echo three > f").ok();
    let before = snapshot(&mounted);
    let arguments = ["--worker", "w2", "--since", &since];
    let refused = undo(&project, &arguments);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let line = |start: &str| refused.stdout.lines().find(|line| line.starts_with(start)).map(String::from);
    let conflict = line("conflict    f: it was changed since, in the same lines").unwrap();
    assert!(line("conflict    large: its content is not in the history").is_some(), "{}", refused.stdout);
    assert!(refused.stderr.contains("2 conflicts: nothing was changed"), "{}", refused.stderr);
    assert_eq!(snapshot(&mounted), before);
    // Both versions can be looked at.
    let show = refused.stderr.split("git --git-dir=").nth(1).unwrap().split(' ').next().unwrap();
    for (word, content) in [("now ", "three\n"), ("before ", "one\n")] {
        let id = conflict.split(word).nth(1).unwrap().split(',').next().unwrap();
        let mut git = Command::new("git");
        git.args(["-c", "safe.directory=*", "--git-dir", show, "show", id]);
        assert_eq!(run(git).ok(), content);
    }
    let partial = undo(&project, &["--worker", "w2", "--since", &since, "--partial"]);
    assert_eq!(partial.code, Some(1), "{partial:?}");
    let after = snapshot(&mounted);
    let text = |path: &str| String::from_utf8(after[Path::new(path)].1.clone()).unwrap();
    assert_eq!(
        (text("f"), text("g"), after.contains_key(Path::new("made"))),
        ("three\n".into(), "one\n".into(), false)
    );
    assert!(changes(&project, &["--file", "large"]).contains("9000 bytes after are not kept"));
    // Its name can come back all the same.
    mounted.sh("w1", "head -c 9000 /dev/zero > huge").ok();
    changes(&project, &[]);
    let since = moment();
    mounted.sh("w2", "mv huge elsewhere").ok();
    undo(&project, &["--worker", "w2", "--since", &since]).ok();
    assert_eq!(fs::read(mounted.path().join("huge")).unwrap(), [0; 9000]);
}

#[test]
fn c84_one_file_can_be_undone_alone() {
    let project = project!();
    let mounted = project.mount(&[]);
    let since = moment();
    mounted.sh("w1", "mkdir src; echo a > src/a; echo b > b").ok();
    let arguments = ["--worker", "w1", "--since", &since, "--file"];
    undo(&project, &[&arguments[..], &["src"]].concat()).ok();
    assert!(!mounted.path().join("src").exists() && mounted.path().join("b").exists());
    let named = mounted.path().join("b");
    undo(&project, &[&arguments[..], &[named.to_str().unwrap()]].concat()).ok();
    assert!(!named.exists());
    undo(&project, &[&arguments[..], &["../b"]].concat()).exits(2, "leads out of the project");
    undo(&project, &[&arguments[..], &["c"]].concat()).exits(1, "no change by w1 since then");
    undo(&project, &["--worker", "w1"]).exits(2, "--since 10m");
    undo(&project, &[]).exits(2, "required");
}

/// Keeps a file open for writing, as a worker, after writing to it what is there.
const HOLD: &str = "import os, sys, time
fd = os.open('held', os.O_RDWR)
os.pwrite(fd, os.pread(fd, 3, 0), 0)
print('held', flush=True)
sys.stdin.read()";

#[test]
fn c84_a_file_that_another_worker_holds_or_owns_keeps_everything_as_it_is() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let project = project!();
    project.task("own", "---\nowns: [own/**]\n---\n# Own\n");
    let mounted = project.mount(&["lock_wait=0s"]);
    let since = moment();
    mounted.sh("w1", "echo all > held; echo all > other; mkdir own; echo all > own/f").ok();
    let before = snapshot(&mounted);
    let mut holder = Command::new("python3");
    holder.args(["-c", HOLD]).env("CREWFS_WORKER", "w2").current_dir(mounted.path());
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "held\n");
    let arguments = ["--worker", "w1", "--since", &since];
    undo(&project, &arguments)
        .exits(1, "held is held by w2 since")
        .contains("nothing was changed")
        .then_some(())
        .unwrap();
    assert_eq!(snapshot(&mounted), before);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    // A worker is not exempt from claims of others.
    mounted.sh("w2", "touch tasks/claim/own").ok();
    let by_worker = |worker: &str| {
        let mut command = crewfs();
        command.arg("undo").arg(project.source()).args(arguments).env("CREWFS_WORKER", worker);
        run(command)
    };
    by_worker("w3").exits(1, "own/f belongs to own");
    assert_eq!(snapshot(&mounted), before);
    mounted.sh("w2", "rm tasks/claim/own").ok();
    by_worker("w3").ok();
    assert!(snapshot(&mounted).is_empty(), "{:?}", snapshot(&mounted).keys());
    assert!(changes(&project, &["--worker", "w3"]).contains("own/f"), "the caller is the author");
}

#[test]
fn c84_an_undo_that_was_killed_is_finished_by_the_next() {
    if Command::new("strace").arg("-V").output().is_err() {
        return eprintln!("skipped: there is no strace");
    }
    let project = project!();
    let mounted = project.mount(&["stale_writes=allow"]);
    mounted.sh("w1", "for i in 1 2 3 4; do seq 1 2000 > f$i; seq 1 9 > g$i; done").ok();
    let before = snapshot(&mounted);
    let calls = ["pwrite64", "ftruncate", "openat", "renameat2", "unlinkat"];
    let mut killed_ones = 0;
    for (number, call) in calls.iter().flat_map(|call| [(1, call), (2, call), (4, call)]) {
        let since = moment();
        mounted.sh("w2", "seq 5 50 > f1; seq 1 999 > g1; seq 7 > f2; rm f3 g2; mv f4 moved; echo new > new; seq 3 >> moved").ok();
        // The first files that it opens are those of the program itself.
        let number = if *call == "openat" { 20 * number } else { number };
        let mut strace = Command::new("strace");
        let kill = format!("inject={call}:signal=KILL:when={number}");
        strace.args(["-f", "-o", "/dev/null", "-e", &kill, env!("CARGO_BIN_EXE_crewfs"), "undo"]);
        strace.arg(project.source()).args(["--worker", "w2", "--since", &since]);
        let killed = run(strace);
        killed_ones += usize::from(killed.code != Some(0));
        let rest = undo(&project, &["--worker", "w2", "--since", &since]);
        assert_eq!(rest.code, Some(0), "{call} {number}: {killed:?}, then {rest:?}");
        assert_eq!(snapshot(&mounted), before, "{call} {number}: {}", rest.stdout);
    }
    assert!(killed_ones > 8, "only {killed_ones} were killed");
}

#[test]
fn c84_other_users_are_told_where_to_look_and_what_is_missing() {
    as_root!();
    let project = project!();
    project.is_for_everybody();
    project.task("t", "# T\n");
    let mut mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/t; echo one > f").ok();
    let program = env!("CARGO_BIN_EXE_crewfs");
    // The program may be where this user cannot reach it.
    let copy = project.dir().join("crewfs");
    fs::copy(program, &copy).unwrap();
    for command in ["changes", "undo", "blame"] {
        let script = format!(
            "{} {command} {} {}",
            copy.display(),
            project.source().display(),
            if command == "blame" { "f" } else { "t" }
        );
        let said = mounted.sh_as(4321, "w9", &script).exits(1, "is for user 0 and root alone");
        assert!(said.contains("tasks/changes/TASK"), "{said}");
    }
    let blamed = run({
        let mut blame = crewfs();
        blame.arg("blame").arg(project.source()).arg("f");
        blame
    })
    .ok();
    assert!(blamed.contains("w1  t  1  one"), "{blamed}");
    mounted.stop();
    // What was recorded can be read without a mount; undo goes through one.
    assert!(changes(&project, &["t"]).contains("  f"), "{}", changes(&project, &["t"]));
    undo(&project, &["t"]).exits(3, "is not mounted");
    let other = Project::new().unwrap();
    let mut listed = crewfs();
    listed.arg("changes").arg(other.source());
    run(listed).exits(1, "was never mounted");
}

#[test]
fn changes_are_listed_for_people_and_for_programs() {
    let project = project!();
    fs::write(project.source().join("f"), "1\n2\n3\n").unwrap();
    let mounted = project.mount_in_place(&["stale_writes=allow"]);
    mounted.sh("w1", "sed -i s/2/two/ f; chmod 755 f; mkdir d; ln -s f link").ok();
    changes(&project, &[]);
    let since = moment();
    mounted.sh("w2", "rm f; printf 'a\\033[2J\\n' > g").ok();
    let all = changes(&project, &[]);
    let order: Vec<&str> = all
        .lines()
        .filter(|line| line.contains("Z  "))
        .map(|line| line.rsplit("  ").next().unwrap())
        .collect();
    assert_eq!(order, ["w2", "w1", "outside of the mount"], "newest first: {all}");
    assert!(all.contains("M     +1 -1  f  (mode 0644 to 0755)"), "{all}");
    assert!(all.contains("d  (directory)") && all.contains("link  (symbolic link)"), "{all}");
    assert!(changes(&project, &["--since", &since]).contains("w2"));
    assert!(!changes(&project, &["--since", &since]).contains("w1"));
    let diff = changes(&project, &["--worker", "w1", "--diff"]);
    assert!(diff.contains("-2\n+two\n"), "{diff}");
    let json = changes(&project, &["--worker", "w2", "--json"]);
    let step: Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!((&step["worker"], &step["changes"][0]["path"]), (&"w2".into(), &"f".into()));
    assert_eq!((&step["changes"][0]["after"], &step["changes"][0]["removed"]), (&Value::Null, &3.into()));
    until("no reader is in the way", || !changes(&project, &["--file", "g"]).is_empty());
}
