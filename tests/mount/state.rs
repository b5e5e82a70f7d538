//! The state directory: it is in its place whenever a change is acknowledged, even after it was removed or moved; and the places where it
//! may be (C3, C27, C71).

use std::fs;
use std::path::Path;

use crate::bad_places::shell;
use crate::harness::{Mounted, Project, as_root, project};
use crate::process::{Ran, crewfs, run, until};

/// A project under git. Its tasks are committed, so that `git clean` leaves them.
fn with_tasks(project: &Project) {
    for id in ["a", "b", "c", "d"] {
        project.task(id, "# T\n");
    }
    let git = "git -c init.defaultBranch=main init -q . && git add . &&
        git -c user.name=t -c user.email=t@t commit -qm tasks";
    shell(&format!("cd '{}' && {git}", project.source().display())).ok();
}

/// Claim a task and complete it. A successful answer acknowledges both.
fn do_task(mounted: &Mounted, id: &str) -> Ran {
    mounted.sh("w1", &format!("touch tasks/claim/{id} && echo 'done {id}' > tasks/completed/{id}"))
}

#[track_caller]
fn assert_done(mounted: &Mounted, ids: &[&str]) {
    for id in ids {
        assert_eq!(mounted.read(&format!("completed/{id}")), format!("done {id}\n"));
    }
}

/// The ways in which the state directory is taken away, run in the project's own directory.
const AWAY: [&str; 8] = [
    "git clean -fdxq",
    "rm -rf .crewfs",
    "mv .crewfs x",
    "rm .crewfs/log.db",
    "rm .crewfs/log.db-wal",
    "rm -r .crewfs/*",
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
        // At once, so that the daemon has no time to tidy up.
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
    // The daemon is stopped just after the removal: its last check of the directory comes later.
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

    // The directory comes back when its place is free.
    fs::remove_file(&state).unwrap();
    until("the log works again", || do_task(&mounted, "b").code == Some(0));
    until("what was saved is cleared away", || !rescued.exists());
    mounted.kill9();
    let mut mounted = project.mount(&[]);
    assert_done(&mounted, &["a", "b"]);

    // The daemon ends before the directory is back.
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

/// `crewfs mount`, in the background, with these options.
fn mount(project: &Project, options: &str) -> Ran {
    let options = format!("allow_other,{options}");
    let place = project.mountpoint().as_os_str();
    let arguments = ["mount".as_ref(), project.source().as_os_str(), place, "-o".as_ref(), options.as_ref()];
    project.crewfs(arguments)
}

fn umount(project: &Project) {
    project.crewfs(["umount".as_ref(), project.mountpoint().as_os_str()]).ok();
}

#[test]
fn c71_a_state_directory_may_stand_outside_of_the_project() {
    let project = project!();
    with_tasks(&project);
    let state = project.dir().join("state");
    let option = format!("state={}", state.display());
    let source = project.source().as_os_str();
    let mut mounted = project.mount(&[&option]);
    do_task(&mounted, "a").ok();
    assert!(state.join("log.db").exists() && !project.source().join(".crewfs").exists());
    mounted.sh("w1", "mkdir .crewfs").refused("Operation not permitted");
    // The state directory is as safe there.
    fs::remove_dir_all(&state).unwrap();
    do_task(&mounted, "b").ok();
    let log = mounted.read("events.jsonl");
    for place in [source, project.mountpoint().as_os_str()] {
        assert_eq!(project.crewfs(["log".as_ref(), place]).ok(), log);
    }
    let elsewhere = project.dir().join("elsewhere");
    for other in ["lease=1m".to_string(), format!("state={}", elsewhere.display())] {
        let place = project.dir().join("place");
        fs::create_dir_all(&place).unwrap();
        let second = ["mount".as_ref(), source, place.as_os_str(), "-o".as_ref(), other.as_ref()];
        let second = project.crewfs([&second[..], &["-o".as_ref(), "allow_other".as_ref()]].concat());
        second.exits(1, "this project is served already");
    }
    assert!(!elsewhere.exists() && !project.source().join(".crewfs").exists());
    mounted.kill9();
    umount(&project);

    mount(&project, &option).ok();
    assert!(fs::read_to_string(state.join("crewfs.log")).unwrap().contains("is mounted at"));
    umount(&project);
    project.crewfs(["log".as_ref(), source]).exits(1, "was never mounted");
    assert_eq!(project.crewfs(["log".as_ref(), source, "-o".as_ref(), option.as_ref()]).ok(), log);
    let settings = project.dir().join("settings.toml");
    let text = format!("source = '{}'\nstate = '{}'\n", project.source().display(), state.display());
    fs::write(&settings, text).unwrap();
    assert_eq!(project.crewfs(["log".as_ref(), "--config".as_ref(), settings.as_os_str()]).ok(), log);
}

#[test]
fn c71_a_queue_is_not_left_behind_when_its_state_is_to_be_elsewhere() {
    let project = project!();
    with_tasks(&project);
    let mut mounted = project.mount(&[]);
    do_task(&mounted, "a").ok();
    mounted.stop();
    let state = project.dir().join("state");
    let option = format!("state={}", state.display());
    let said = mount(&project, &option).exits(1, "so that nothing is begun anew: mv -T ");
    assert!(!state.exists());
    shell(said.trim().rsplit_once("anew: ").unwrap().1).ok();
    let mut mounted = project.mount(&[&option]);
    assert_done(&mounted, &["a"]);
    mounted.stop();
    let other = project.dir().join("other");
    fs::create_dir(&other).unwrap();
    let arguments = ["mount".as_ref(), other.as_os_str(), "-o".as_ref(), option.as_ref()];
    let said = project.crewfs([&arguments[..], &["-o".as_ref(), "allow_other".as_ref()]].concat());
    said.exits(1, "is the state of another project");
    for (wrong, said) in [
        (project.source().join("x"), "lies in the project"),
        (project.mountpoint().join("x"), "lies in the mount point"),
        (project.dir().to_path_buf(), "contains the project"),
        (project.dir().join("no/x"), "its parent does not exist; make that: mkdir -p "),
    ] {
        mount(&project, &format!("state={}", wrong.display())).exits(1, said);
    }
}

#[test]
fn c71_a_state_directory_is_neither_a_project_nor_a_place() {
    let project = project!();
    let state = project.dir().join("state");
    project.mount(&[]).stop();
    project.mount_at(project.mountpoint(), &[]).stop();
    let inside = project.source().join(".crewfs");
    fs::create_dir(&state).unwrap();
    for name in ["lock", "log.db"] {
        fs::copy(inside.join(name), state.join(name)).unwrap();
    }
    let before = fs::read_dir(&inside).unwrap().count();
    for directory in [&inside, &state] {
        let as_source = ["mount".as_ref(), directory.as_os_str(), project.mountpoint().as_os_str()];
        project.crewfs(as_source).exits(1, "is the state directory of crewfs, and no project");
        project.crewfs(["mount".as_ref(), directory.as_os_str()]).exits(1, "and no project");
        let as_place = ["mount".as_ref(), project.source().as_os_str(), directory.as_os_str()];
        project.crewfs(as_place).exits(1, "is the state directory of crewfs, where nothing can be mounted");
    }
    assert_eq!(fs::read_dir(&inside).unwrap().count(), before);
}

#[test]
fn the_doctor_says_where_the_state_is_and_what_became_of_it() {
    let project = project!();
    with_tasks(&project);
    let state = project.dir().join("state");
    let mounted = project.mount(&[&format!("state={}", state.display())]);
    let of = |place: &Path| project.crewfs(["doctor".as_ref(), place.as_os_str()]);
    let line = |said: &str, part: &str| -> String {
        let line = said.lines().find(|line| line.contains(part));
        line.unwrap_or_else(|| panic!("{part:?} in {said}")).to_string()
    };
    for place in [project.source(), mounted.path()] {
        let said = of(place).ok();
        let shown = line(&said, "the state is in ");
        assert!(shown.starts_with("ok") && shown.ends_with(&state.display().to_string()), "{shown}");
        let pid = mounted.pid().to_string();
        assert!(said.lines().any(|line| line.contains("serves") && line.contains(&pid)), "{said}");
        assert!(line(&said, "is closed to all users but its owner").starts_with("ok"), "{said}");
    }
    fs::remove_dir_all(&state).unwrap();
    do_task(&mounted, "a").ok();
    let said = of(project.source()).exits(1, "one problem").replace("crewfs: ", "");
    assert!(!said.is_empty());
    assert!(line(&of(mounted.path()).stdout, "taken away 1 times").starts_with("problem"));
    fs::remove_dir_all(&state).unwrap();
    fs::write(&state, "").unwrap();
    do_task(&mounted, "b").refused("");
    let said = of(mounted.path()).stdout;
    assert!(line(&said, "something else is at ").starts_with("problem"), "{said}");
    fs::remove_file(&state).unwrap();
    until("the log works again", || do_task(&mounted, "b").code == Some(0));
}
