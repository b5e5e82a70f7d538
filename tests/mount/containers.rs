//! Containers. Where mounting lacks something that it needs, `mount`, `demo` and `doctor` all name it. The daemon identifies callers
//! across pid and user namespaces as far as the page on containers says (C40).

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Mounted, Project, as_root, project};
use crate::process::{Ran, crewfs, mounts_below, run, until};

const GRANT: &str = "--cap-add SYS_ADMIN --device /dev/fuse";
/// Gives a mount namespace a `/dev` of its own. The nodes that a test needs follow in the script.
const OWN_DEV: &str = "mount -t tmpfs -o mode=755 none /dev && mknod -m 666 /dev/null c 1 3";
/// Runs the rest of its arguments with these system calls refused with that error: python3 -c FILTER ERRNO CALLS COMMAND…
const FILTER: &str = "
import ctypes, os, struct, sys
refusal, calls = int(sys.argv[1]), [int(call) for call in sys.argv[2].split(',')]
# Load the number of the call; for each of these: if it is that, refuse; else let it through.
code = [(0x20, 0, 0, 0)]
for call in calls:
    code += [(0x15, 0, 1, call), (0x06, 0, 0, 0x00050000 | refusal)]
code += [(0x06, 0, 0, 0x7fff0000)]
text = ctypes.create_string_buffer(b''.join(struct.pack('<HBBI', *line) for line in code))
class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
program = Program(len(code), ctypes.addressof(text))
if ctypes.CDLL(None).prctl(22, 2, ctypes.byref(program)) != 0:
    raise SystemExit('no filter')
os.execv(sys.argv[3], sys.argv[3:])
";
/// System call numbers that are the same on every architecture.
const MOVE_MOUNT: u32 = 429;
const OPENAT2: u32 = 437;

/// `crewfs` with these arguments, started by another program.
fn by(starter: &[&str], arguments: &[&Path]) -> Ran {
    let program = crewfs();
    let mut command = Command::new(starter[0]);
    command.args(&starter[1..]).arg(program.get_program()).args(arguments);
    command.env_remove("CREWFS_WORKER").env_remove("CREWFS_LOG").current_dir("/");
    run(command)
}

/// Check that `mount`, `demo` and `doctor` each say this, and that none leaves anything behind.
#[track_caller]
fn all_say(project: &Project, starter: &[&str], part: &str) -> String {
    let others = ["-o", "allow_other"].map(Path::new);
    let mount = [Path::new("mount"), project.source(), project.mountpoint(), others[0], others[1]];
    let said = by(starter, &mount).exits(1, part);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(mounts_below(project.dir()).is_empty());
    let demo = by(starter, &[Path::new("demo")]).exits(1, part);
    assert!(
        demo.trim_end().lines().last().unwrap().contains(part),
        "the reason is the last that is said: {demo}"
    );
    assert!(!demo.contains("is not a mount of crewfs"), "{demo}");
    let doctor = by(starter, &[Path::new("doctor")]);
    assert!(
        doctor.stdout.lines().any(|line| line.starts_with("problem") && line.contains(part)),
        "{part:?} in {doctor:#?}"
    );
    doctor.exits(1, "to be solved first");
    said
}

/// The start of a command line: it runs a script in a mount namespace of its own, with the rest of the arguments as its own.
fn apart(script: &str) -> [&str; 6] {
    ["unshare", "--mount", "sh", "-c", script, "sh"]
}

#[test]
fn c71_a_capability_that_is_missing_is_named() {
    as_root!();
    let project = project!();
    let said = all_say(
        &project,
        &["setpriv", "--bounding-set=-sys_admin"],
        "root has no CAP_SYS_ADMIN here, without which it cannot mount; start the container with --cap-add SYS_ADMIN --device /dev/fuse",
    );
    assert!(!said.contains("mount as root"), "{said}");
    assert!(!project.source().join(".crewfs").exists(), "nothing is begun that cannot be served");
    // Other capabilities that a container takes away cost less. The doctor names them before a mount is tried.
    let docker = "--bounding-set=-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,+setpcap,+net_bind_service,+sys_chroot,+kill,+audit_write,+sys_admin";
    let said = by(&["setpriv", docker], &[Path::new("doctor")]).stdout;
    for missing in ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"] {
        let named = format!("root has no {missing} here");
        assert!(said.lines().any(|line| line.starts_with("warning") && line.contains(&named)), "{said}");
    }
    assert!(said.contains("ok       root can mount"), "{said}");
    let said =
        by(&["setpriv", "--bounding-set=-setpcap"], &[Path::new("doctor")]).exits(1, "to be solved first");
    assert!(!said.contains("CAP_SYS_ADMIN"), "{said}");
}

#[test]
fn c71_a_device_that_is_missing_is_named_and_how_to_give_it() {
    as_root!();
    let project = project!();
    let starter = format!("{OWN_DEV} && exec \"$@\"");
    let said = all_say(&project, &apart(&starter), "the kernel has FUSE, but there is no /dev/fuse here");
    assert!(said.contains(GRANT) && !said.contains("modprobe"), "{said}");
    // The device node exists, but the container has no permission to use it.
    let starter =
        format!("{OWN_DEV} && mount -o remount,nodev /dev && mknod -m 666 /dev/fuse c 10 229 && exec \"$@\"");
    let mount = [Path::new("mount"), project.source(), project.mountpoint()];
    by(&apart(&starter), &mount).exits(1, "/dev/fuse is there and may not be used here");
}

#[test]
fn c71_a_device_that_is_closed_to_users_is_not_taken_for_a_missing_program() {
    as_root!();
    let project = project!();
    for place in [project.source(), project.mountpoint()] {
        std::os::unix::fs::chown(place, Some(1001), Some(1001)).unwrap();
    }
    let script = format!(
        "{OWN_DEV} && mknod -m 600 /dev/fuse c 10 229; exec setpriv --reuid=1001 --regid=1001 --clear-groups \"$@\""
    );
    let said = all_say(&project, &apart(&script), "/dev/fuse is closed to user 1001: its mode is 600");
    assert!(said.contains("chmod 666 /dev/fuse") && !said.contains("fuse3"), "{said}");
    let starter = ["setpriv", "--reuid=1001", "--regid=1001", "--clear-groups", "--no-new-privs"];
    all_say(&project, &starter, "fusermount3 cannot become root here, because no_new_privs is set");
    let starter = ["setpriv", "--reuid=1001", "--regid=1001", "--clear-groups", "--bounding-set=-sys_admin"];
    let said = all_say(&project, &starter, "no process here can get CAP_SYS_ADMIN");
    assert!(said.contains(GRANT), "{said}");
}

#[test]
fn c71_a_filter_of_system_calls_is_named() {
    as_root!();
    let project = project!();
    let refused = MOVE_MOUNT.to_string();
    for errno in [libc::EPERM, libc::ENOSYS] {
        let errno = errno.to_string();
        let starter = ["python3", "-c", FILTER, &errno, &refused];
        all_say(
            &project,
            &starter,
            "a seccomp filter forbids it; start the container with --security-opt seccomp=unconfined",
        );
    }
    // crewfs works without a call that it can replace, and says what the replacement costs.
    let (errno, refused) = (libc::EPERM.to_string(), OPENAT2.to_string());
    let starter = ["python3", "-c", FILTER, &errno, &refused];
    let said = by(&starter, &[Path::new("doctor")]);
    assert!(said.stdout.contains("openat2 is not to be had (Operation not permitted"), "{said:?}");
    by(&starter, &[Path::new("mount"), project.source(), project.mountpoint()]).ok();
    project.crewfs(["umount".as_ref(), project.mountpoint().as_os_str()]).ok();
}

#[test]
fn c71_the_processes_of_another_namespace_are_not_taken_for_workers() {
    as_root!();
    let project = project!();
    // Without a /proc of its own, a pid in this namespace is another process in /proc.
    all_say(
        &project,
        &["unshare", "--pid", "--fork"],
        "/proc shows the processes of another pid namespace, so that one worker would be taken for another",
    );
    all_say(&project, &apart("umount -l /proc; exec \"$@\""), "/proc is not mounted");
}

#[test]
fn c71_root_of_a_user_namespace_mounts_where_the_mounts_are_its_own() {
    as_root!();
    let project = project!();
    let starter = ["unshare", "--user", "--map-root-user"];
    let said = all_say(&project, &starter, "the mounts here belong to another user namespace");
    assert!(said.contains("unshare --user --mount"), "{said}");
    let script = "\"$@\" && test -e \"$4/tasks/queue.json\" && \"$1\" umount \"$4\"";
    let starter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"];
    by(&starter, &[Path::new("mount"), project.source(), project.mountpoint()]).ok();
}

/// The name that a script's `readlink tasks/workers/self` prints.
#[track_caller]
fn name(ran: Ran) -> String {
    ran.ok().trim().to_string()
}

#[test]
fn c40_a_worker_in_a_container_is_known_by_what_its_daemon_sees_of_it() {
    as_root!();
    let project = project!();
    project.is_for_everybody();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    let inside = "unshare --pid --fork --mount-proc";
    let who = "readlink tasks/workers/self";
    // The caller's environment counts, and so does that of the container's first process.
    assert_eq!(name(mounted.sh("w1", &format!("{inside} {who}"))), "w1");
    assert_eq!(name(mounted.sh("w1", &format!("{inside} sh -c 'env -u CREWFS_WORKER {who}; true'"))), "w1");
    // An agent without a name is named after its pid in the daemon's namespace.
    let agent = project.dir().join("claude");
    fs::copy("/bin/bash", &agent).unwrap();
    let agent = agent.display();
    let script = format!("{inside} sh -c 'exec {agent} -c \"echo $$; {who}; true\"'");
    let said = mounted.operator(&script).ok();
    let (own, seen) = said.trim().split_once('\n').unwrap();
    let number: u32 = seen.strip_prefix("claude-").unwrap().parse().unwrap();
    assert_eq!(own, "1", "it is the first process of its namespace");
    assert!(number > 1, "{seen}");
    // A user namespace gives no rights: its root is the user that created it.
    let as_user = |worker: &str, script: &str| {
        let user = format!(
            "{worker} setpriv --reuid=1001 --regid=1001 --clear-groups unshare --user --map-root-user"
        );
        name(mounted.operator(&format!("{user} {inside} sh -c 'id -u; {script}'")))
    };
    assert_eq!(as_user("CREWFS_WORKER=w2", who), "0\nw2");
    assert_eq!(as_user("", who), "0\nuid-1001");
    assert_eq!(as_user("", "touch tasks/paused 2>/dev/null || echo no operator"), "0\nno operator");
    // The end of an agent in the container ends its claim.
    let mut command = mounted.worker("w3");
    command.arg(format!("{inside} {agent} -c 'touch tasks/claim/a && sleep 1000; true'"));
    let mut container = command.stdin(Stdio::null()).spawn().unwrap();
    mounted.until_state("a", "claimed");
    container.kill().unwrap();
    let _ = container.wait();
    kill_agent(&project);
    mounted.until_state("a", "ready");
}

/// End the agent that this test has started in a namespace.
fn kill_agent(project: &Project) {
    let program = project.dir().join("claude");
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == program)
        {
            kill_process(pid, Signal::KILL).unwrap();
        }
    }
}

#[test]
fn c40_a_caller_outside_of_the_daemons_pid_namespace_is_known_by_its_user_alone() {
    as_root!();
    let project = project!();
    project.is_for_everybody();
    project.task("a", "# T\n");
    let place = project.mountpoint().display().to_string();
    // As in a container: a pid and a mount namespace of its own, with a /proc that fits.
    let mut daemon = Command::new("unshare");
    daemon.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(crewfs().get_program());
    daemon.arg("mount").arg(project.source()).args([&place, "-f"]).env_remove("CREWFS_WORKER");
    let mut daemon = daemon.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let within = |user: u32, worker: &str, inside: bool, script: &str| {
        let mut command = Command::new("nsenter");
        let child = first_child(daemon.id());
        command.args(["--mount", "--target", &child]).args(inside.then_some("--pid"));
        command.args([
            "--",
            "setpriv",
            &format!("--reuid={user}"),
            &format!("--regid={user}"),
            "--clear-groups",
        ]);
        command.args(["sh", "-c", &format!("cd {place} && {script}")]);
        match worker {
            "" => command.env_remove("CREWFS_WORKER"),
            name => command.env("CREWFS_WORKER", name),
        };
        run(command)
    };
    until("it is mounted", || {
        !first_child(daemon.id()).is_empty()
            && within(0, "", true, "test -e tasks/queue.json").code == Some(0)
    });
    let who = "readlink tasks/workers/self";
    assert_eq!(name(within(0, "w1", true, who)), "w1", "inside, all is as ever");
    // The daemon sees no process outside of its namespace: neither a name nor an end.
    assert_eq!(name(within(0, "w1", false, who)), "root");
    assert_eq!(name(within(1001, "w1", false, who)), "uid-1001");
    within(1001, "w1", false, "touch tasks/claim/a").ok();
    assert_eq!(
        name(within(1001, "w2", false, "cat tasks/workers/self/task | head -1")),
        "# T",
        "all of a user are one"
    );
    // Root is an operator, whatever name the daemon gives it.
    within(0, "w1", false, "touch tasks/paused && rm tasks/paused").ok();
    kill_process(Pid::from_child(&daemon), Signal::KILL).unwrap();
    daemon.wait().unwrap();
}

/// The pid of the first child of a process.
fn first_child(pid: u32) -> String {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().next().unwrap_or_default().to_string()
}

/// A container bind-mounts either the directory above the mount point, and then sees later mounts in it, or the mount point alone.
#[test]
fn c71_a_container_sees_the_mount_of_a_new_daemon_where_the_directory_above_is_shown_as_a_slave() {
    as_root!();
    let project = project!();
    let shared = shared(&project);
    let place = shared.join("demo");
    let mut mounted = project.mount_at(&place, &[]);
    let container = |propagation: &str, source: &Path, target: &str| -> std::process::Child {
        let script = "mkdir -p \"$2\" && mount --rbind \"$1\" \"$2\" && exec sleep 1000";
        let mut command = Command::new("unshare");
        command.args(["--mount", &format!("--propagation={propagation}"), "sh", "-c", script, "sh"]);
        command.arg(source).arg(project.dir().join(target)).stdin(Stdio::null()).spawn().unwrap()
    };
    let mut containers =
        [("slave", &*shared, "slave"), ("private", &shared, "private"), ("slave", &place, "alone")]
            .map(|(propagation, source, target)| (container(propagation, source, target), target));
    let sees = |container: u32, target: &str| {
        let inside = project.dir().join(target).join(if target == "alone" { "" } else { "demo" });
        let mut command = Command::new("nsenter");
        command
            .args(["--mount", "--target", &container.to_string(), "cat"])
            .arg(inside.join("tasks/queue.json"));
        run(command).code == Some(0)
    };
    for (container, target) in &containers {
        until("the container sees the mount", || sees(container.id(), target));
    }
    mounted.kill9();
    project.crewfs(["umount".as_ref(), place.as_os_str()]).ok();
    let mut again: Mounted = project.mount_at(&place, &[]);
    let seen = containers.each_ref().map(|(container, target)| (*target, sees(container.id(), target)));
    assert_eq!(seen, [("slave", true), ("private", false), ("alone", false)]);
    for (container, _) in &mut containers {
        container.kill().unwrap();
        container.wait().unwrap();
    }
    again.stop();
    unmount(&shared, UnmountFlags::DETACH).unwrap();
}

/// A directory on a shared mount of its own, as `/srv/crews` on a host.
fn shared(project: &Project) -> std::path::PathBuf {
    let shared = project.dir().join("crews");
    fs::create_dir_all(shared.join("demo")).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "mount --bind \"$0\" \"$0\" && mount --make-shared \"$0\""]).arg(&shared);
    run(command).ok();
    shared
}

#[test]
fn c71_the_mount_of_a_daemon_in_a_container_is_seen_outside_and_cleared_by_the_next_one() {
    as_root!();
    let project = project!();
    let shared = shared(&project);
    let place = shared.join("demo");
    let queue = place.join("tasks/queue.json");
    // The container shares only this directory with the host, and mounts propagate in both directions.
    let script = "mount --make-private /proc && mount -t proc proc /proc && exec \"$@\"";
    let start = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation=unchanged", "--pid", "--fork", "--kill-child"]);
        command.args(["sh", "-c", script, "sh"]).arg(crewfs().get_program());
        command.arg("mount").arg(project.source()).arg(&place).arg("-f").env_remove("CREWFS_WORKER");
        command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let end = |container: &mut std::process::Child, signal: Signal| {
        let daemon = first_child(container.id()).parse().ok().and_then(Pid::from_raw).unwrap();
        kill_process(daemon, signal).unwrap();
        container.wait().unwrap();
    };
    let mut first = start();
    until("it is seen outside", || queue.exists());
    end(&mut first, Signal::KILL);
    until("it is dead outside too", || {
        fs::read(&queue).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
    });
    let mut second = start();
    until("the next one is seen outside", || queue.exists());
    assert_eq!(mounts_below(&place).len(), 2, "the dead one is gone");
    end(&mut second, Signal::TERM);
    until("it is unmounted outside too", || mounts_below(&place).is_empty());
    unmount(&shared, UnmountFlags::DETACH).unwrap();
}

#[test]
fn c71_the_tree_can_be_made_read_only_by_any_mount_program() {
    as_root!();
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    let remount = |how: &str| {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,bind,{how}")]).arg(mounted.path());
        run(command).ok();
    };
    remount("ro");
    mounted.sh("w1", "touch file").refused("Read-only file system");
    mounted.sh("w1", "touch tasks/claim/a && echo done > tasks/completed/a").ok();
    remount("rw");
    mounted.sh("w1", "touch file").ok();
    let options = [
        Path::new("mount"),
        project.source(),
        project.mountpoint(),
        Path::new("-o"),
        Path::new("remount,ro"),
    ];
    project.crewfs(options).exits(2, "mount -o remount,bind,ro PLACE");
}
