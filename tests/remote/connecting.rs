//! `connect.sh` and `disconnect.sh`: the state that they leave, and the messages when they fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::client::{Worker, path_of, script};
use crate::harness::project;
use crate::process::{Ran, mounts_below, run, run_within, until};
use crate::server::server;

#[test]
fn connecting_twice_and_disconnecting_twice() {
    let project = project!();
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let (worker, dir) = (server.worker("w1"), project.dir().join("far away"));
    let connection = worker.connect(&dir);
    let mounts = mounts_below(&dir);
    assert_eq!(mounts.len(), 2);
    assert!(fs::read_to_string(dir.join("task-queue.json")).unwrap().starts_with('{'));

    let again = connect(&worker, &worker.remote, &dir).ok();
    assert_eq!(again, format!("{} is connected to {} already; you are w1.\n", dir.display(), worker.remote));
    assert_eq!(mounts_below(&dir), mounts);
    let elsewhere = format!("{}/src", worker.remote);
    connect(&worker, &elsewhere, &dir).exits(1, "already; first: ");

    let gone = connection.disconnect().ok();
    assert_eq!(
        gone,
        format!("{} is disconnected. It takes no writes until it is connected again.\n", dir.display())
    );
    assert_eq!(mounts_below(&dir), []);
    assert_eq!(connection.disconnect().ok(), format!("{} is not connected.\n", dir.display()));
    drop(worker.connect(&dir));
}

#[test]
fn a_mount_point_takes_no_writes_while_nothing_is_mounted() {
    let project = project!();
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let worker = server.worker("w1");
    let connection = worker.connect(&project.dir().join("remote"));
    connection.disconnect().ok();
    takes_no_writes(&connection.dir);
    // The same when sshfs ends by itself, which ends its mount too.
    connect(&worker, &worker.remote, &connection.dir).ok();
    for tree_and_desk in [1, 2] {
        connection.signal_sshfs(Signal::TERM);
        until("the mounts are gone", || mounts_below(&connection.dir).is_empty());
        takes_no_writes(&connection.dir);
        if tree_and_desk == 1 {
            connect(&worker, &worker.remote, &connection.dir).ok();
        }
    }
}

#[track_caller]
fn takes_no_writes(dir: &Path) {
    let made = [
        fs::write(dir.join("x"), "x"),
        fs::create_dir(dir.join("tasks")),
        fs::create_dir_all(dir.join("tasks/claim")),
    ];
    for made in made {
        assert!(made.is_err(), "{} took a write", dir.display());
    }
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
}

/// Also as a user other than root. fusermount3 lets such a user mount only on directories that the user may write to.
#[test]
fn an_ordinary_user_connects() {
    let project = project!();
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    crate::sides::needs!("setpriv", "unshare");
    let worker = server.worker("w1");
    let user = crate::server::User::new(project.dir());
    let home = project.dir().join("home");
    fs::create_dir(&home).unwrap();
    user.own(&home);
    for name in ["key", "known"] {
        fs::copy(if name == "key" { &worker.key } else { &worker.known }, home.join(name)).unwrap();
        fs::set_permissions(home.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        user.own(home.join(name));
    }
    copy_scripts(&home);
    let connect = format!(
        "./connect.sh --port {} --identity key -o UserKnownHostsFile={}/known {} project",
        worker.port,
        home.display(),
        worker.remote
    );
    let refused = on_a_machine_with("", &user.name, &home, &connect);
    refused.exits(1, "echo user_allow_other >> /etc/fuse.conf");
    let steps = format!(
        "{connect}; {connect}; cd project; touch tasks/claim/a; cd ..; ./disconnect.sh project; \
         touch project/x || mkdir project/tasks || ls -A project; {connect}; cat project/tasks/workers/self/task; \
         ./disconnect.sh project"
    );
    project.task("a", "# Alpha\n");
    until("it is published", || mounted.state("a") == "ready");
    let ran = on_a_machine_with("user_allow_other\n", &user.name, &home, &steps);
    let said = ran.ok();
    assert_eq!(said.matches("you are w1.").count(), 3, "{said}");
    assert_eq!(said.matches("is disconnected.").count(), 2, "{said}");
    assert!(said.contains("# Alpha") && mounted.state("a") == "claimed", "{said}");
    assert_eq!(fs::read_dir(home.join("project")).unwrap().count(), 0);
}

/// Copy the scripts to a place where any user may run them.
fn copy_scripts(to: &Path) {
    for name in ["connect.sh", "disconnect.sh"] {
        fs::copy(path_of(name), to.join(name)).unwrap();
    }
}

/// Run a script as a user on a machine with this `/etc/fuse.conf`.
fn on_a_machine_with(fuse_conf: &str, user: &str, home: &Path, steps: &str) -> Ran {
    let conf = home.join("fuse.conf");
    fs::write(&conf, fuse_conf).unwrap();
    let mut command = Command::new("unshare");
    let enter = r#"mount --bind "$1" /etc/fuse.conf; cd "$2"; exec setpriv --reuid="$3" --regid="$3" --clear-groups sh -c "$4""#;
    command.args(["--mount", "sh", "-c", enter, "machine"]).arg(conf).arg(home).args([user, steps]);
    run_within(std::time::Duration::from_secs(40), command)
}

#[test]
fn a_dead_connection_is_cleared() {
    let project = project!();
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let worker = server.worker("w1");
    let connection = worker.connect(&project.dir().join("remote"));
    connection.signal_sshfs(Signal::KILL);
    until("the mount is dead", || fs::read_dir(&connection.dir).is_err());
    let said = connect(&worker, &worker.remote, &connection.dir).ok();
    assert!(said.starts_with("clearing the mounts of an old connection at"), "{said}");
    assert!(fs::read_to_string(connection.desk("queue.json")).unwrap().starts_with('{'));
    connection.disconnect().ok();
}

#[test]
fn the_desk_alone_goes_into_a_clone() {
    let project = project!();
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let (worker, clone) = (server.worker("w1"), project.dir().join("clone"));
    fs::create_dir(&clone).unwrap();
    fs::write(clone.join("main.rs"), "mine").unwrap();
    let mut command = worker.connecting(["--desk-only"]);
    command.arg(&worker.remote).arg(&clone);
    let connection = worker.connection_at(&clone);
    run(command).ok();
    assert_eq!(mounts_below(&clone).len(), 1);
    assert!(fs::read_to_string(connection.desk("queue.json")).unwrap().starts_with('{'));
    assert_eq!(fs::read_to_string(clone.join("main.rs")).unwrap(), "mine");
    connection.disconnect().ok();
    assert!(fs::write(connection.desk("x.md"), "x").is_err());
    let _ = Command::new("chattr").arg("-i").arg(connection.desk("")).status();
}

#[track_caller]
fn connect(worker: &Worker, remote: &str, dir: &Path) -> Ran {
    connect_with::<&str>(worker, [], remote, dir)
}

#[track_caller]
fn connect_with<A: AsRef<std::ffi::OsStr>>(
    worker: &Worker,
    more: impl IntoIterator<Item = A>,
    remote: &str,
    dir: &Path,
) -> Ran {
    let mut command = worker.connecting(more);
    command.arg(remote).arg(dir);
    run(command)
}

#[test]
fn it_says_what_is_wrong_and_what_to_do() {
    let project = project!();
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let worker = server.worker("w1");
    let dir = project.dir().join("remote");
    let refused = |ran: Ran, code, said: &str| {
        ran.exits(code, said);
        assert!(!dir.exists(), "left behind: {said}");
    };
    let remote = worker.remote.as_str();
    for (arguments, said) in [
        (&["--fast"][..], "--fast is no option"),
        (&["--port"], "--port needs a value"),
        (&["--port", "ssh", remote, "x"], "ssh is no port"),
        (&["--tasks", "a/b", remote, "x"], "\"a/b\" is no name of a directory"),
        (&[remote], "USER@HOST:PROJECT and DIR are needed"),
        (&[remote, "x", "y"], "and nothing after them"),
        (&["somewhere", "x"], "somewhere names no project: write USER@HOST:PROJECT"),
    ] {
        let mut command = script("connect.sh");
        command.args(arguments);
        assert!(run(command).exits(2, said).contains("usage: connect.sh"));
    }
    let host = worker.host();
    let nobody = server.stranger();
    refused(connect(&nobody, remote, &dir), 1, "the server refuses your key; add it there");
    let mut unknown = worker.clone();
    unknown.known = project.dir().join("nobody");
    fs::write(&unknown.known, "").unwrap();
    refused(connect(&unknown, remote, &dir), 1, "is not known here; compare it with what ssh-keygen -lf");
    fs::write(&unknown.known, format!("* {}", fs::read_to_string(nobody.key.with_extension("pub")).unwrap()))
        .unwrap();
    refused(connect(&unknown, remote, &dir), 1, "has changed; ask the administrator of the server");
    let mut away = worker.clone();
    away.port = 1;
    refused(connect(&away, remote, &dir), 1, "port 1 cannot be reached; check the name and the port");
    let there = connect(&worker, &format!("{}@nowhere.invalid:/", server.user.name), &dir);
    refused(there, 1, "cannot be reached");
    let missing = connect(&worker, &format!("{host}:{}/nothing", mounted.path().display()), &dir);
    refused(missing, 1, "does not exist on the server, is not mounted, or is not visible");
    let tasks = connect_with(&worker, ["--tasks", "jobs"], remote, &dir);
    refused(tasks, 1, "jobs does not exist on the server");
    let option = connect_with(&worker, ["-o", "such_is_no_option"], remote, &dir);
    refused(option, 1, "sshfs does not support an option");
    fs::create_dir_all(mounted.path().join("lib/tasks")).unwrap();
    let part = connect(&worker, &format!("{remote}/lib"), &dir);
    refused(part, 1, "exists, but crewfs is not mounted on it");
    let key = connect_with(&worker, ["--identity", "no such key"], remote, &dir);
    refused(key, 1, "the key no such key cannot be read; make one: ssh-keygen -t ed25519 -f no such key");
    let clone = connect_with(&worker, ["--desk-only"], remote, &dir);
    refused(clone, 1, "does not exist; with --desk-only it is a clone of your own");

    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("mine"), "").unwrap();
    connect(&worker, remote, &dir).exits(1, "is not empty, and the mount would hide its files");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    fs::remove_file(dir.join("mine")).unwrap();

    let mut command = worker.connecting::<&str>([]);
    command.arg(remote).arg(&dir).env("PATH", without_sshfs(project.dir()));
    run(command).exits(1, "sshfs is not installed; install it, on Debian: apt-get install sshfs");
    without_fuse(&worker, &dir).exits(1, "there is no /dev/fuse; load the kernel module: modprobe fuse");
    assert_eq!(mounts_below(&dir), []);
}

/// A PATH with the programs that `connect.sh` uses before it looks for sshfs.
fn without_sshfs(dir: &Path) -> std::path::PathBuf {
    let bin = dir.join("bin");
    fs::create_dir(&bin).unwrap();
    for program in ["sh", "cat"] {
        std::os::unix::fs::symlink(crate::sides::find(program).unwrap(), bin.join(program)).unwrap();
    }
    bin
}

/// Connect where `/dev` has only the devices that every machine has.
fn without_fuse(worker: &Worker, dir: &Path) -> Ran {
    let connect = worker.connecting::<&str>([]);
    let mut command = Command::new("unshare");
    let enter = "mount -t tmpfs none /dev; mknod /dev/null c 1 3; exec \"$@\"";
    command
        .args(["--mount", "sh", "-c", enter, "machine"])
        .arg(connect.get_program())
        .args(connect.get_args());
    command.arg(&worker.remote).arg(dir);
    run(command)
}

#[test]
fn a_mount_in_use_is_not_disconnected_but_lazily() {
    let project = project!();
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let worker = server.worker("w1");
    let connection = worker.connect(&project.dir().join("remote"));
    let open = fs::File::open(connection.dir.join("tasks")).unwrap();
    connection.disconnect().exits(1, "is in use or dead; end the programs that use it");
    let mut lazily = script("disconnect.sh");
    lazily.arg("--lazy").arg(&connection.dir);
    run(lazily).ok();
    assert_eq!(mounts_below(&connection.dir), []);
    drop(open);
    let mut wrong = script("disconnect.sh");
    wrong.arg("--now");
    run(wrong).exits(2, "usage: disconnect.sh [--lazy] DIR");
}
