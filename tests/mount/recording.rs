//! The history of changes: what a change destroys is kept before the change is made, with its author and its task (C80 to C83).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Mounted, Project, as_root, project};
use crate::process::{run, until};

/// What a worker overwrites unseen is kept too.
const UNGUARDED: &[&str] = &["stale_writes=allow"];

/// Wait until all changes are in the history.
#[track_caller]
pub(crate) fn flush(mounted: &Mounted) -> Value {
    let mut value = vec![0; 4096];
    let length = rustix::fs::getxattr(mounted.path(), "user.crewfs.history", &mut value[..]).unwrap();
    serde_json::from_slice(&value[..length]).unwrap()
}

/// Run git on the history's repository.
#[track_caller]
fn git(project: &Project, args: &[&str]) -> String {
    let mut command = Command::new("git");
    let repository = project.behind().join(".crewfs/history.git");
    command.args(["-c", "safe.directory=*", "--git-dir"]).arg(repository).args(args);
    run(command).ok()
}

/// The recorded steps, oldest first: author, subject, and the changed paths with their status.
#[track_caller]
fn steps(project: &Project) -> Vec<String> {
    let log = git(project, &["log", "--reverse", "--no-renames", "--name-status", "--format=%n@%an", "main"]);
    let steps = log.split("\n@").map(|step| step.split_whitespace().collect::<Vec<_>>().join(" "));
    steps.filter(|step| !step.is_empty()).map(|step| step.trim_start_matches('@').to_string()).collect()
}

/// The content of a path in the newest step of an author.
#[track_caller]
fn left_by(project: &Project, author: &str, path: &str) -> String {
    let commit =
        git(project, &["log", "-1", "--format=%H", &format!("--author=^{author} <"), "main", "--", path]);
    git(project, &["show", &format!("{}:{path}", commit.trim())])
}

#[test]
fn c80_what_a_worker_overwrites_is_in_the_history_with_its_author() {
    let project = project!();
    fs::write(project.source().join("f"), "from before\n").unwrap();
    let mounted = project.mount(UNGUARDED);
    mounted.sh("w1", "echo one > f").ok();
    mounted.sh("w2", "echo two > f").ok();
    mounted.sh("w1", "echo three >> f").ok();
    flush(&mounted);
    assert_eq!(steps(&project), ["outside A f", "w1 M f", "w2 M f", "w1 M f"]);
    assert_eq!(left_by(&project, "outside", "f"), "from before\n");
    assert_eq!(left_by(&project, "w2", "f"), "two\n");
    assert_eq!(left_by(&project, "w1", "f"), "two\nthree\n");
    git(&project, &["fsck", "--strict"]);
    // Changes of one author are one step, until the next one comes.
    mounted.sh("w1", "for i in 1 2 3; do echo $i > f; done; echo new > g; rm g").ok();
    flush(&mounted);
    assert_eq!(steps(&project).len(), 5, "{:?}", steps(&project));
    assert_eq!(left_by(&project, "w1", "f"), "3\n");
}

/// Each way to destroy a file's content or its name.
const WAYS: [&str; 12] = [
    "echo x > f",
    "python3 -c 'import os; d = os.open(\"f\", os.O_WRONLY); os.write(d, b\"x\")'",
    "truncate -s 3 f",
    "rm f",
    "echo x > .t; mv .t f",
    "mv f g",
    "mv f ignored/ && rm ignored/f",
    "ln -sf elsewhere f",
    "cp --reflink=never /etc/hostname f",
    "python3 -c 'import mmap; f = open(\"f\", \"r+b\"); m = mmap.mmap(f.fileno(), 0); m[0:1] = b\"x\"; m.flush()'",
    "fallocate -p -o 0 -l 4 f",
    "mv d e && rm -r e; rm f",
];

#[test]
fn c80_every_way_to_destroy_content_keeps_it_first() {
    let project = project!();
    let mounted = project.mount(UNGUARDED);
    mounted.sh("w1", "echo ignored/ > .gitignore").ok();
    for (number, way) in WAYS.iter().enumerate() {
        let text = format!("unseen work {number}\n");
        let make = format!(
            "mkdir -p {number}/d {number}/ignored; cd {number}; printf '{text}' > f; printf 'deep {text}' > d/f"
        );
        mounted.sh("w1", &make).ok();
        mounted.sh("w2", &format!("cd {number}; {way}")).ok();
        flush(&mounted);
        assert_eq!(left_by(&project, "w1", &format!("{number}/f")), text, "{way}");
        if way.contains("mv d") {
            assert_eq!(left_by(&project, "w1", &format!("{number}/d/f")), format!("deep {text}"), "{way}");
        }
    }
    git(&project, &["fsck", "--strict"]);
}

#[test]
fn c81_a_task_s_work_is_one_commit_apart_from_all_others() {
    let project = project!();
    let lines: String = (1..=30).map(|line| format!("line {line}\n")).collect();
    fs::write(project.source().join("shared"), &lines).unwrap();
    project.task("login", "# Build the login\n");
    project.task("menu", "# Build the menu\n");
    let mounted = project.mount(UNGUARDED);
    mounted
        .sh("w1", "touch tasks/claim/login && sed -i 's/^line 3$/login 3/' shared && echo login > login.rs")
        .ok();
    mounted.sh("w2", "touch tasks/claim/menu && sed -i 's/^line 15$/menu 15/' shared").ok();
    mounted.sh("w1", "sed -i 's/^line 27$/login 27/' shared && echo 'all done' > tasks/completed/login").ok();
    mounted.sh("w2", "sed -i 's/^line 18$/menu 18/' shared && touch tasks/completed/menu").ok();
    flush(&mounted);
    let commit =
        |format: &str| git(&project, &["log", "-1", &format!("--format={format}"), "refs/tasks/login"]);
    assert_eq!(commit("%an|%s").trim(), "w1|login: Build the login");
    let message = commit("%B");
    assert!(
        message.contains("all done") && message.contains("Task: login") && message.contains("Worker: w1")
    );
    let diff = git(&project, &["show", "--format=", "--unified=0", "refs/tasks/login"]);
    let changed: Vec<&str> =
        diff.lines().filter(|line| line.starts_with("+") && !line.starts_with("+++")).collect();
    assert_eq!(changed, ["+login", "+login 3", "+login 27"], "{diff}");
    // Another checkout of the project takes this task's work alone.
    let clone = project.dir().join("clone");
    fs::create_dir(&clone).unwrap();
    fs::write(clone.join("shared"), &lines).unwrap();
    let land = format!(
        "git init -q && git add -A && git -c user.name=x -c user.email=x commit -qm base && \
         git -c safe.directory='*' fetch -q {}/.crewfs/history.git refs/tasks/login && \
         git -c user.name=x -c user.email=x cherry-pick FETCH_HEAD >&2 && cat shared login.rs",
        project.source().display()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &land]).current_dir(&clone);
    let landed = run(command).ok();
    assert_eq!(landed, lines.replace("line 3\n", "login 3\n").replace("line 27\n", "login 27\n") + "login\n");
}

#[test]
fn c81_the_changes_of_a_task_can_be_read_as_a_diff() {
    let project = project!();
    fs::write(project.source().join("f"), "one\ntwo\n").unwrap();
    project.task("t", "# T\n");
    let mounted = project.mount(UNGUARDED);
    assert_eq!(mounted.read("changes/t"), "");
    mounted.sh("w1", "touch tasks/claim/t; sed -i s/two/2/ f; mkdir -p src; echo new > src/new").ok();
    let diff = mounted.read("changes/t");
    assert!(diff.contains("-two\n+2\n") && diff.contains("+++ b/src/new"), "{diff}");
    assert_eq!(fs::metadata(mounted.desk("changes/t")).unwrap().len(), diff.len() as u64);
    assert_eq!(mounted.list("changes"), ["t"]);
    mounted.sh("w1", "rm src/new; echo done > tasks/completed/t").ok();
    let diff = mounted.read("changes/t");
    assert!(diff.contains("+2\n") && !diff.contains("src/new"), "{diff}");
    // The reviewer's input is a patch.
    fs::write(project.dir().join("patch"), &diff).unwrap();
    fs::write(project.dir().join("f"), "one\ntwo\n").unwrap();
    let mut apply = Command::new("git");
    apply.args(["apply", "patch"]).current_dir(project.dir());
    run(apply).ok();
    assert_eq!(fs::read_to_string(project.dir().join("f")).unwrap(), "one\n2\n");
    mounted.sh("w1", "mv tasks/changes/t tasks/claim/t").refused("Operation not permitted");
}

#[test]
fn c80_what_comes_from_outside_has_no_author() {
    let project = project!();
    let mounted = project.mount(UNGUARDED);
    mounted.sh("w1", "echo one > f").ok();
    flush(&mounted);
    fs::write(project.behind().join("f"), "from outside\n").unwrap();
    until("the mount shows it", || mounted.sh("w2", "cat f").ok() == "from outside\n");
    mounted.sh("w2", "echo two >> f").ok();
    flush(&mounted);
    assert_eq!(steps(&project), ["w1 A f", "outside M f", "w2 M f"]);
    assert_eq!(left_by(&project, "outside", "f"), "from outside\n");
}

#[test]
fn c82_the_death_of_the_daemon_loses_no_version() {
    let project = project!();
    fs::write(project.source().join("f"), "zero\n").unwrap();
    project.task("t", "# T\n");
    let mut mounted = project.mount(UNGUARDED);
    mounted.sh("w1", "touch tasks/claim/t; echo one > f; echo own > own").ok();
    mounted.sh("w2", "echo two > f; echo gone > gone").ok();
    mounted.sh("w1", "rm gone").ok();
    mounted.kill9();
    crate::process::detach_below(project.mountpoint());
    let mut mounted = project.mount(UNGUARDED);
    mounted.sh("w1", "echo 'and more' >> own; touch tasks/completed/t").ok();
    flush(&mounted);
    assert_eq!(left_by(&project, "outside", "f"), "zero\n");
    assert_eq!(left_by(&project, "w1", "f"), "one\n");
    assert_eq!(left_by(&project, "w2", "f"), "two\n");
    assert_eq!(left_by(&project, "w2", "gone"), "gone\n");
    assert_eq!(git(&project, &["show", "refs/tasks/t:own"]), "own\nand more\n");
    mounted.stop();
    let spool: Vec<_> = fs::read_dir(project.source().join(".crewfs/history")).unwrap().flatten().collect();
    assert_eq!(spool.len(), 1, "the journal alone is left: {spool:?}");
}

#[test]
fn c83_what_git_ignores_and_what_is_too_large_is_not_kept() {
    let project = project!();
    let mounted = project.mount(&["history_file=1K", "stale_writes=allow"]);
    mounted
        .sh(
            "w1",
            "git init -q; echo out/ > .gitignore; mkdir out; echo x > out/x; head -c 2000 /dev/zero > big",
        )
        .ok();
    mounted.sh("w2", "rm -r out; rm big; rm -rf .git; echo y > small").ok();
    flush(&mounted);
    let paths = git(&project, &["log", "--format=", "--name-only", "main"]);
    let mut paths: Vec<&str> = paths.split_whitespace().collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths, [".gitignore", "small"]);
    assert!(git(&project, &["log", "main"]).contains("2000"), "the length of what is not kept is known");
}

#[test]
fn c83_the_history_can_be_off() {
    let project = project!();
    project.task("t", "# T\n");
    let mounted = project.mount(&["history=off"]);
    mounted.sh("w1", "echo one > f; touch tasks/claim/t; rm f").ok();
    assert_eq!(flush(&mounted)["off"], true);
    assert!(!project.source().join(".crewfs/history.git").exists());
    assert!(mounted.read("changes/t").contains("history=off"));
}

#[test]
fn c83_a_version_is_shown_to_users_that_may_read_the_file() {
    as_root!();
    let project = project!();
    project.is_for_everybody();
    project.task("t", "# T\n");
    let mounted = project.mount(UNGUARDED);
    mounted.sh("w1", "touch tasks/claim/t; echo secret > private; chmod 600 private; mkdir closed; echo hidden > closed/f; chmod 700 closed; echo open > public").ok();
    let all = mounted.read("changes/t");
    assert!(all.contains("+secret") && all.contains("+hidden") && all.contains("+open"), "{all}");
    let theirs = mounted.sh_as(12_345, "reader", "cat tasks/changes/t").ok();
    assert!(!theirs.contains("secret") && !theirs.contains("hidden") && theirs.contains("+open"), "{theirs}");
    assert!(theirs.starts_with("2 files"), "{theirs}");
    let place = project.source().join(".crewfs");
    for directory in ["history.git", "history"] {
        let mode = fs::metadata(place.join(directory)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{directory}");
    }
}

#[test]
fn c82_a_history_whose_files_were_removed_goes_on() {
    for removed in [&[".crewfs/history.git", ".crewfs/history"][..], &[".crewfs"]] {
        let project = project!();
        let mounted = project.mount(UNGUARDED);
        mounted.sh("w1", "echo one > f").ok();
        flush(&mounted);
        for directory in removed {
            fs::remove_dir_all(project.source().join(directory)).unwrap();
        }
        mounted.sh("w2", "echo two > f").ok();
        mounted.sh("w1", "echo three > f").ok();
        until("the history is written again", || {
            let mut value = vec![0; 4096];
            rustix::fs::getxattr(mounted.path(), "user.crewfs.history", &mut value[..]).is_ok()
        });
        assert_eq!(left_by(&project, "w2", "f"), "two\n");
        assert_eq!(left_by(&project, "w1", "f"), "three\n");
        git(&project, &["fsck", "--strict"]);
    }
}

#[test]
fn c80_a_directory_that_moves_unseen_takes_its_files_along() {
    let project = project!();
    fs::create_dir_all(project.source().join("src/deep/deeper")).unwrap();
    fs::write(project.source().join("src/deep/deeper/f"), "from before\n").unwrap();
    let mounted = project.mount(UNGUARDED);
    // The kernel has looked up none of the files.
    mounted.sh("w1", "mv src lib").ok();
    flush(&mounted);
    assert_eq!(
        steps(&project),
        ["outside A src/deep/deeper/f", "w1 A lib/deep/deeper/f D src/deep/deeper/f"]
    );
}

#[test]
fn c80_directories_that_move_and_go_take_no_version_along() {
    let project = project!();
    let mounted = project.mount(UNGUARDED);
    mounted
        .sh(
            "w1",
            "mkdir -p src/deep empty; echo a > src/a; echo b > src/deep/b; ln -s a src/link; chmod 600 src/a",
        )
        .ok();
    mounted.sh("w2", "mv src lib; echo changed > lib/a; rm -r lib/deep; rmdir empty").ok();
    flush(&mounted);
    assert_eq!(left_by(&project, "w1", "src/a"), "a\n");
    assert_eq!(left_by(&project, "w1", "src/deep/b"), "b\n");
    assert_eq!(left_by(&project, "w1", "src/link"), "a");
    assert_eq!(left_by(&project, "w2", "lib/a"), "changed\n");
    let last = git(&project, &["ls-tree", "-r", "--name-only", "main"]);
    assert_eq!(last.split_whitespace().collect::<Vec<_>>(), ["lib/a", "lib/link"]);
    assert!(Path::new(&project.source().join("lib/link")).is_symlink());
}
