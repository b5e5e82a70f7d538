//! Files that another user has put into a state directory, or in its place, before root mounts. crewfs refuses them, and it changes no
//! file outside, waits for none, and trusts none (C73).

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::bad_places::shell;
use crate::harness::{Project, as_root, project};
use crate::process::{Ran, crewfs, mounts_below, run};

/// An ordinary user: the member of the project that plants the files.
const MEMBER: u32 = 4321;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// `crewfs mount`, in the background, as a service runs it.
fn try_mount(project: &Project) -> Ran {
    let mut mount = crewfs();
    mount.arg("mount").arg(project.source()).arg(project.mountpoint()).args(["-o", "allow_other"]);
    run(mount)
}

/// A state directory that crewfs has not made, and a file outside that must not change.
fn with_state(project: &Project) -> (PathBuf, PathBuf) {
    let (state, outside) = (project.source().join(".crewfs"), project.dir().join("outside"));
    fs::create_dir(&state).unwrap();
    mode(&state, 0o700);
    fs::write(&outside, "precious").unwrap();
    (state, outside)
}

/// Check that mounting refuses `project` with this sentence, and that no command waits or changes anything.
#[track_caller]
fn assert_refused(project: &Project, said: &str, outside: &Path) {
    let entries = |place: &Path| fs::read_dir(place).map_or(0, Iterator::count);
    let state = project.source().join(".crewfs");
    let before = entries(&state);
    try_mount(project).exits(1, said);
    project.crewfs(["log".as_ref(), project.source().as_os_str()]).exits(1, said);
    let doctor = project.crewfs(["doctor".as_ref(), project.source().as_os_str()]);
    // A directory that belongs entirely to another user is in order for that user.
    let others = said.starts_with("belongs to user");
    assert!(others || doctor.stdout.contains("problem"), "{doctor:#?}");
    assert_eq!(fs::read(outside).unwrap(), b"precious", "{said}");
    assert_eq!(entries(&state), before, "nothing is made in it: {said}");
    assert_eq!(mounts_below(project.dir()), []);
}

#[test]
fn c73_what_is_planted_in_the_state_directory_is_refused() {
    let project = project!();
    let (state, outside) = with_state(&project);
    let files =
        ["lock", "reserve", "crewfs.log", "snapshot.json", "snapshot.json.new", "log.db", "log.db-wal"];
    for name in files {
        let planted = state.join(name);
        symlink(&outside, &planted).unwrap();
        assert_refused(&project, "is a symbolic link, where crewfs keeps a plain file", &outside);
        fs::remove_file(&planted).unwrap();
        mkfifoat(CWD, &planted, Mode::from(0o600)).unwrap();
        assert_refused(&project, "is a named pipe, where crewfs keeps a plain file", &outside);
        fs::remove_file(&planted).unwrap();
        fs::hard_link(&outside, &planted).unwrap();
        assert_refused(&project, "is one of 2 hard links", &outside);
        fs::remove_file(&planted).unwrap();
    }
    // The command in the refusal solves the problem.
    symlink(&outside, state.join("lock")).unwrap();
    let said = try_mount(&project).exits(1, "rm -r ");
    shell(said.trim().rsplit_once("remove it: ").unwrap().1).ok();
    project.mount(&[]).stop();
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
}

#[test]
fn c73_a_state_directory_of_another_user_is_refused() {
    as_root!();
    let project = project!();
    let (state, outside) = with_state(&project);
    chown(&state, Some(MEMBER), None).unwrap();
    assert_refused(&project, &format!("belongs to user {MEMBER}, and crewfs runs here as user 0"), &outside);
    chown(&state, Some(0), None).unwrap();
    fs::write(state.join("snapshot.json"), "{}").unwrap();
    chown(state.join("snapshot.json"), Some(MEMBER), None).unwrap();
    assert_refused(&project, &format!("snapshot.json belongs to user {MEMBER}"), &outside);
    // That user's own daemon serves such a directory. Root does not look into it as root.
    fs::remove_dir_all(&state).unwrap();
    symlink("/etc", &state).unwrap();
    assert_refused(&project, "is a symbolic link, where crewfs keeps a directory of its own", &outside);
}

#[test]
fn c73_a_state_directory_that_others_may_write_is_refused_with_the_command_that_closes_it() {
    let project = project!();
    project.mount(&[]).stop();
    let (state, outside) = (project.source().join(".crewfs"), project.dir().join("outside"));
    fs::write(&outside, "precious").unwrap();
    // As in deployments that let a group write everywhere in the project.
    shell(&format!("chmod -R g+rwX '{0}' && chmod g+s '{0}'", state.display())).ok();
    assert_refused(&project, "can be changed by others than its owner (mode 2770)", &outside);
    let said = try_mount(&project).exits(1, "close it: chmod -R go-w ");
    shell(said.trim().rsplit_once("close it: ").unwrap().1).ok();
    project.mount(&[]).stop();
}

#[test]
fn c73_a_member_who_replaces_the_state_directory_while_nobody_serves_it_gains_nothing() {
    as_root!();
    let project = project!();
    project.mount(&[]).stop();
    let outside = project.dir().join("outside");
    fs::write(&outside, "precious").unwrap();
    chown(project.source(), Some(MEMBER), Some(MEMBER)).unwrap();
    let user = [format!("--reuid={MEMBER}"), format!("--regid={MEMBER}"), "--clear-groups".to_string()];
    let script = format!(
        "cd '{}' && mv .crewfs taken && mkdir .crewfs && ln -s '{}' .crewfs/lock && ! rm taken/lock 2> /dev/null",
        project.source().display(),
        outside.display()
    );
    let mut member = Command::new("setpriv");
    member.args(user).args(["bash", "-c", &script]);
    run(member).ok();
    assert_refused(&project, &format!(".crewfs belongs to user {MEMBER}"), &outside);
}

#[test]
fn c73_nothing_in_a_project_is_waited_for() {
    let project = project!();
    for name in ["log.db", "lock"] {
        mkfifoat(CWD, project.source().join(name), Mode::from(0o600)).unwrap();
    }
    let mut mounted = project.mount(&[]);
    mounted.kill9();
    let lock = project.source().join(".crewfs/lock");
    fs::remove_file(&lock).unwrap();
    mkfifoat(CWD, &lock, Mode::from(0o600)).unwrap();
    project.crewfs(["umount".as_ref(), project.mountpoint().as_os_str()]).ok();
    assert_eq!(mounts_below(project.dir()), []);
}

#[test]
fn c73_the_demo_takes_no_directory_that_is_there_already() {
    let project = project!();
    let (planted, outside) = (project.dir().join("planted"), project.dir().join("outside"));
    fs::create_dir(&planted).unwrap();
    fs::write(&outside, "precious").unwrap();
    // The names that the demo would take contain its pid.
    let script = format!(
        "for name in crewfs-demo-$$ crewfs-demo-$$-0; do
             mkdir -p \"$TMPDIR/$name/project/.crewfs\" && ln -s '{}' \"$TMPDIR/$name/project/.crewfs/lock\"
         done; exec '{}' demo",
        outside.display(),
        env!("CARGO_BIN_EXE_crewfs")
    );
    let mut demo = Command::new("sh");
    demo.args(["-c", &script]).env("TMPDIR", &planted).env_remove("CREWFS_WORKER");
    let ran = crate::process::run_within(std::time::Duration::from_secs(50), demo);
    assert!(ran.code == Some(0), "{ran:#?}");
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
    assert_eq!(fs::read_dir(&planted).unwrap().count(), 2, "its own directory is gone, and only that");
}

#[test]
fn c73_what_looks_like_a_desk_holds_no_reader_up() {
    let project = project!();
    let tasks = project.source().join("tasks");
    for name in ["summary.json", "workers.json", "queue.json"] {
        symlink("/dev/zero", tasks.join(name)).unwrap();
    }
    mkfifoat(CWD, tasks.join("events.jsonl"), Mode::from(0o600)).unwrap();
    let ran = project.crewfs(["top".as_ref(), "--once".as_ref(), project.source().as_os_str()]);
    assert!(ran.code.is_some_and(|code| code != 0), "{ran:#?}");
}

#[test]
fn c73_a_daemon_that_hangs_does_not_hold_up_umount() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    let signal = |signal| {
        let pid = rustix::process::Pid::from_raw(mounted.pid() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    signal(rustix::process::Signal::STOP);
    let ran = project.crewfs(["umount".as_ref(), project.mountpoint().as_os_str()]);
    signal(rustix::process::Signal::CONT);
    let said = ran.exits(1, "gives no answer");
    assert!(said.contains("kill -CONT"), "{said}");
    mounted.stop();
}
