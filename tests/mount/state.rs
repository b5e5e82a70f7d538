//! The state directory: that it is in its place whenever something is acknowledged, whatever is done to it; and where that place may
//! be (C3, C27, C71).

use std::fs;

use crate::bad_places::shell;
use crate::harness::{Mounted, Project, as_root, project};
use crate::process::{Ran, crewfs, run, until};

/// A project under git with tasks that are committed, so that `git clean` leaves them.
fn with_tasks(project: &Project) {
    for id in ["a", "b", "c", "d"] {
        project.task(id, "# T\n");
    }
    let git = "git -c init.defaultBranch=main init -q . && git add . &&
        git -c user.name=t -c user.email=t@t commit -qm tasks";
    shell(&format!("cd '{}' && {git}", project.source().display())).ok();
}

/// Claim a task and complete it; what is answered is acknowledged.
fn do_task(mounted: &Mounted, id: &str) -> Ran {
    mounted.sh("w1", &format!("touch tasks/claim/{id} && echo 'done {id}' > tasks/completed/{id}"))
}

#[track_caller]
fn assert_done(mounted: &Mounted, ids: &[&str]) {
    for id in ids {
        assert_eq!(mounted.read(&format!("completed/{id}")), format!("done {id}\n"));
    }
}

/// What is done to the state directory, in the project's own directory.
const AWAY: [&str; 8] = [
    "git clean -fdxq",
    "rm -rf .crewfs",
    "mv .crewfs x",
    "rm .crewfs/log.db",
    "rm .crewfs/log.db-wal",
    "rm .crewfs/*",
    "echo another > y && mv y .crewfs/log.db",
    "rm -r .crewfs && mkdir .crewfs",
];

#[test]
fn c27_what_is_acknowledged_is_in_the_state_directory_although_that_was_taken_away() {
    for away in AWAY {
        let project = project!();
        with_tasks(&project);
        let mut mounted = project.mount(&[]);
        do_task(&mounted, "a").ok();
        let events = mounted.read("events.jsonl");
        shell(&format!("cd '{}' && {away}", project.source().display())).ok();
        do_task(&mounted, "b").ok();
        // At once: there is no time to tidy up.
        mounted.kill9();
        let mut mounted = project.mount(&[]);
        assert_done(&mounted, &["a", "b"]);
        assert!(mounted.read("events.jsonl").starts_with(&events), "{away}");
        shell(&format!("cd '{}' && {}", project.source().display(), away.replace(" x", " x2"))).ok();
        do_task(&mounted, "c").ok();
        let said = mounted.stderr();
        assert!(
            said.contains("was taken away while it was in use; the event log was put back"),
            "{away}: {said}"
        );
        do_task(&mounted, "d").ok();
        mounted.stop();
        let mut mounted = project.mount(&[]);
        assert_done(&mounted, &["a", "b", "c", "d"]);
        assert!(!mounted.stderr().contains("put back"), "{}", mounted.stderr());
        mounted.stop();
        if away.contains("another") {
            let found = fs::read(project.source().join(".crewfs/log.db.found")).unwrap();
            assert_eq!(found, b"another\n", "what took its place is not destroyed");
        }
    }
}

#[test]
fn c27_a_state_directory_comes_back_also_while_nobody_does_anything() {
    let project = project!();
    with_tasks(&project);
    let mut mounted = project.mount(&[]);
    do_task(&mounted, "a").ok();
    let state = project.source().join(".crewfs");
    for _ in 0..3 {
        fs::remove_dir_all(&state).unwrap();
        until("it is there again", || state.join("log.db").exists() && state.join("reserve").exists());
    }
    let lock = fs::read_to_string(state.join("lock")).unwrap();
    assert!(lock.contains(&format!("\"pid\":{}", mounted.pid())), "{lock}");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&state).unwrap());
    assert_eq!(mode & 0o777, 0o700);
    // Stopped at once after it went: the last look is after that.
    fs::remove_dir_all(&state).unwrap();
    mounted.stop();
    let mounted = project.mount(&[]);
    assert_done(&mounted, &["a"]);
}

#[test]
fn c27_a_daemon_in_the_background_takes_its_log_along() {
    let project = project!();
    with_tasks(&project);
    let mount = ["mount".as_ref(), project.source().as_os_str(), project.mountpoint().as_os_str()];
    project.crewfs([&mount[..], &["-o".as_ref(), "allow_other".as_ref()]].concat()).ok();
    let log = project.source().join(".crewfs/crewfs.log");
    fs::remove_dir_all(project.source().join(".crewfs")).unwrap();
    until("the log is there again", || fs::read_to_string(&log).is_ok_and(|said| said.contains("put back")));
    project.crewfs(["umount".as_ref(), project.mountpoint().as_os_str()]).ok();
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("is mounted at") && said.contains("is unmounted"), "{said}");
}

#[test]
fn c27_where_it_cannot_come_back_nothing_is_acknowledged_and_nothing_lost() {
    let project = project!();
    with_tasks(&project);
    let (state, rescued) = (project.source().join(".crewfs"), project.source().join(".crewfs.rescued"));
    let mut mounted = project.mount(&[]);
    do_task(&mounted, "a").ok();
    let taken = format!("cd '{}' && rm -rf .crewfs && touch .crewfs", project.source().display());
    shell(&taken).ok();
    let said = do_task(&mounted, "b").refused("");
    assert!(said.contains("Input/output error") || said.contains("Read-only file system"), "{said}");
    do_task(&mounted, "b").refused("Read-only file system");
    let why = mounted.read("workers/w1/why");
    let part = format!(
        "something else is at {0}; move it away, and crewfs puts its own back: mv {0} {0}.other",
        state.display()
    );
    assert!(why.contains(&part), "{why}");
    assert_done(&mounted, &["a"]);
    assert_eq!(fs::read(&state).unwrap(), b"", "what took its place is left alone");

    // It comes back when its place is free.
    fs::remove_file(&state).unwrap();
    until("the log works again", || do_task(&mounted, "b").code == Some(0));
    until("what was saved is cleared away", || !rescued.exists());
    mounted.kill9();
    let mut mounted = project.mount(&[]);
    assert_done(&mounted, &["a", "b"]);

    // The daemon ends before that.
    shell(&taken).ok();
    do_task(&mounted, "c").refused("");
    mounted.kill9();
    let try_mount = || {
        let mut mount = crewfs();
        mount.arg("mount").arg(project.source()).arg(project.mountpoint()).args(["-o", "allow_other"]);
        run(mount)
    };
    try_mount().exits(1, "was taken away while it was in use");
    fs::remove_file(&state).unwrap();
    let said = try_mount().exits(1, "was taken away while it was in use");
    let command = said.trim().rsplit_once("put it back: ").unwrap().1;
    shell(command).ok();
    let mut mounted = project.mount(&[]);
    assert_done(&mounted, &["a", "b"]);
    mounted.stop();
}

#[test]
fn c27_a_mount_over_the_state_directory_is_no_place_for_it() {
    as_root!();
    let project = project!();
    with_tasks(&project);
    let mut mounted = project.mount(&[]);
    do_task(&mounted, "a").ok();
    let state = project.source().join(".crewfs");
    let other = project.dir().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("theirs"), "").unwrap();
    shell(&format!("mount --bind -o ro '{}' '{}'", other.display(), state.display())).ok();
    do_task(&mounted, "b").refused("");
    shell(&format!("umount '{}'", state.display())).ok();
    until("the log works again", || do_task(&mounted, "b").code == Some(0));
    mounted.kill9();
    let mounted = project.mount(&[]);
    assert_done(&mounted, &["a", "b"]);
    assert!(!project.source().join(".crewfs.rescued").exists());
}
