//! `crewfs sftp-server` with OpenSSH's own client: the identity of a remote worker, and what it sees (C42).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Mounted, Project, as_root, project};
use crate::process::{Ran, crewfs, run, until};

/// A user that exists on every system, `daemon`, and has no rights of its own anywhere. The server needs a user with a name.
const SOMEBODY: u32 = 1;

/// The program, at a place where every user can run it.
fn program(project: &Project) -> PathBuf {
    let program = project.dir().join("crewfs");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_crewfs"), &program).unwrap();
    }
    program
}

/// Run OpenSSH's client on `crewfs sftp-server`, both as this user, in an environment with false names.
fn client(project: &Project, uid: u32, server: &str, orders: &str) -> Ran {
    let batch = project.dir().join("orders");
    fs::write(&batch, orders).unwrap();
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into()])
        .args(["sftp".as_ref(), "-b".as_ref(), batch.as_os_str()])
        .args(["-D".into(), format!("{} sftp-server {server}", program(project).display())])
        .current_dir(project.dir())
        .env("CREWFS_WORKER", "forged");
    run(command)
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
}

/// A mounted project that every user may write to.
fn shared(project: &Project) -> Mounted {
    open_to_all(project.source());
    open_to_all(&project.source().join("tasks"));
    project.task("a", "# A\n");
    project.mount(&[])
}

#[test]
fn c42_the_name_is_that_of_the_command_whatever_the_environment_says() {
    as_root!();
    let project = project!();
    let mounted = shared(&project);
    for (uid, worker, root) in
        [(SOMEBODY, "w1", true), (0, "w2", true), (SOMEBODY, "w3", false), (0, "w4", false)]
    {
        let place = mounted.path().display();
        let server =
            if root { format!("--worker {worker} --root {place}") } else { format!("--worker {worker}") };
        let got = project.dir().join(format!("status-of-{worker}"));
        fs::write(&got, "").unwrap();
        open_to_all(&got);
        client(&project, uid, &server, &format!("get {place}/tasks/workers/self/status {}", got.display()))
            .ok();
        let status = fs::read_to_string(&got).unwrap();
        assert!(status.contains(&format!(r#""worker": "{worker}""#)), "{status}");
    }
    assert!(!mounted.desk("workers/forged").exists());
    // The client claims a task, writes a note, and finishes the task.
    let server = format!("--worker w1 --root {}", mounted.path().display());
    let note = project.dir().join("note");
    fs::write(&note, "half done\n").unwrap();
    client(&project, SOMEBODY, &server, &format!("put {} tasks/claim/next", note.display())).ok();
    let status = mounted.json("status/a");
    assert_eq!((status["worker"].as_str(), status["note"].as_str()), (Some("w1"), Some("half done")));
    client(&project, SOMEBODY, &server, &format!("put {} tasks/completed/a", note.display())).ok();
    assert_eq!(mounted.state("a"), "completed");
    assert_eq!(mounted.read("completed/a"), "half done\n");
}

#[test]
fn c42_with_a_root_nothing_else_is_there() {
    as_root!();
    let project = project!();
    let outside = project.dir().join("outside");
    fs::write(&outside, "secret\n").unwrap();
    symlink(&outside, project.source().join("out")).unwrap();
    symlink("/", project.source().join("top")).unwrap();
    fs::write(project.source().join("inside"), "plain\n").unwrap();
    let mounted = shared(&project);
    let place = mounted.path().display().to_string();
    let server = format!("--worker w1 --root {place}");
    let into = project.dir().join("got");
    fs::create_dir(&into).unwrap();
    open_to_all(&into);
    for uid in [SOMEBODY, 0] {
        let got = into.join(uid.to_string()).display().to_string();
        client(&project, uid, &server, &format!("get inside {got}\nget {place}/inside {got}")).ok();
        assert_eq!(fs::read_to_string(&got).unwrap(), "plain\n");
        for (way, said) in [
            (format!("get {} {got}", outside.display()), "not found"),
            (format!("get out {got}"), "not found"),
            (format!("get ../outside {got}"), "not found"),
            (format!("get top{} {got}", outside.display()), "not found"),
            ("ls /root".into(), "not found"),
            ("ls /home".into(), "not found"),
            ("ls /proc".into(), "not found"),
            (format!("put {got} /usr/evil"), "Failure"),
            (format!("put {got} /evil"), "Failure"),
            (format!("put {got} {}", outside.display()), ""),
        ] {
            let ran = client(&project, uid, &server, &way);
            // The client has two messages for a missing file.
            let stderr = ran.stderr.replace("No such file or directory", "not found");
            Ran { stderr, ..ran }.refused(said);
        }
    }
    assert_eq!(fs::read_to_string(&outside).unwrap(), "secret\n");
    assert!(!Path::new("/usr/evil").exists() && !Path::new("/evil").exists());
}

#[test]
fn c42_a_connection_ends_with_the_mount_that_it_serves() {
    as_root!();
    let project = project!();
    for in_place in [false, true] {
        for killed in [false, true] {
            let mut mounted = if in_place { project.mount_in_place(&[]) } else { project.mount(&[]) };
            let mut command = crewfs();
            command.args(["sftp-server", "--worker", "w1", "--root"]).arg(mounted.path());
            let mut connection =
                command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            let children = format!("/proc/{0}/task/{0}/children", connection.id());
            until("the server runs", || {
                fs::read_to_string(&children).is_ok_and(|children| !children.is_empty())
            });
            assert!(connection.try_wait().unwrap().is_none());
            if killed {
                mounted.kill9();
                // The next mount of the project removes the dead one.
                mounted = if in_place { project.mount_in_place(&[]) } else { project.mount(&[]) };
            } else {
                kill_process(Pid::from_raw(mounted.pid() as i32).unwrap(), Signal::TERM).unwrap();
                mounted.wait();
            }
            until("the connection ends", || connection.try_wait().unwrap().is_some());
            let ended = connection.wait_with_output().unwrap();
            assert_eq!(ended.status.code(), Some(3));
            let said = String::from_utf8(ended.stderr).unwrap();
            assert!(said.contains("is mounted no longer; connect again when it is"), "{said}");
            if killed {
                mounted.stop();
            }
        }
    }
}

#[test]
fn c42_nothing_is_served_beneath_a_mount_or_under_no_name() {
    let project = project!();
    let source = project.source().to_str().unwrap();
    project
        .crewfs(["sftp-server", "--worker", "w1", "--root", source])
        .exits(3, "is not mounted by crewfs; mount it first: crewfs mount ");
    project.crewfs(["sftp-server", "--worker", "a/b"]).exits(2, "is no worker name");
    project.crewfs(["sftp-server", "--worker", "self"]).exits(2, "is no worker name");
    project.crewfs(["sftp-server"]).exits(2, "--worker");
}

/// A project with a directory `sub`, which a member may exchange, and links beside it.
fn with_sub(project: &Project) -> Mounted {
    fs::create_dir(project.source().join("sub")).unwrap();
    fs::write(project.source().join("sub/inside"), "plain\n").unwrap();
    fs::create_dir(project.source().join("other")).unwrap();
    for (link, target) in [("top", "/"), ("aside", "other"), ("deep", "sub"), ("roots", "/root")] {
        symlink(target, project.source().join(link)).unwrap();
    }
    shared(project)
}

#[test]
fn c43_no_link_in_a_mount_leads_to_what_is_served() {
    as_root!();
    let (project, another) = (project!(), project!());
    let other = shared(&another);
    symlink(other.path(), project.source().join("another")).unwrap();
    let mounted = with_sub(&project);
    let place = mounted.path().display();
    let server = |root: &str| format!("--worker w1 --root {root}");
    for link in ["top", "top/etc", "aside", "deep", "roots", "another", "another/tasks", "sub/../deep"] {
        client(&project, 0, &server(&format!("{place}/{link}")), "ls").refused("");
        project
            .crewfs(["sftp-server", "--worker", "w1", "--root", &format!("{place}/{link}")])
            .exits(1, "is not served, because a link in the mount leads to it");
    }
    // Links above the mount belong to the operator that wrote the command.
    let above = project.dir().join("above");
    symlink(mounted.path(), &above).unwrap();
    for root in [format!("{place}/sub"), format!("{}/sub", above.display()), format!("{place}/./sub/")] {
        let said = client(&project, 0, &server(&root), "pwd\nls").ok();
        assert!(said.contains("inside") && said.contains(&format!("{place}/sub")), "{said}");
    }
}

#[test]
fn c43_a_root_that_is_exchanged_for_a_link_shows_nothing_else() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use std::sync::atomic::{AtomicBool, Ordering};
    as_root!();
    let project = project!();
    let mounted = with_sub(&project);
    let (sub, top) = (mounted.path().join("sub"), mounted.path().join("top"));
    let ended = AtomicBool::new(false);
    let server = format!("--worker w1 --root {}", sub.display());
    let connections: Vec<Ran> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let _ = renameat_with(CWD, &sub, CWD, &top, RenameFlags::EXCHANGE);
            }
        });
        let connections = (0..40).map(|_| client(&project, 0, &server, "ls -a")).collect();
        ended.store(true, Ordering::Relaxed);
        connections
    });
    for ran in connections.iter().filter(|ran| ran.code == Some(0)) {
        let shown: Vec<&str> = ran.stdout.lines().flat_map(str::split_whitespace).collect();
        assert!(shown.contains(&"inside") && !shown.contains(&"etc"), "{ran:?}");
    }
}
