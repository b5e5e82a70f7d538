//! The command line: codes, sentences, and that `mount` returns when the mount answers (C70, C71).

use std::fs;

use crate::harness::{Project, as_root, project};
use crate::process::{Ran, crewfs, mounts_below, run, until};

/// `crewfs mount`, in the background.
fn mount(project: &Project, options: &[&str]) -> Ran {
    let mut command = crewfs();
    command.arg("mount").arg(project.source()).arg(project.mountpoint());
    options.iter().for_each(|option| assert!(command.args(["-o", option]).get_args().len() > 0));
    run(command)
}

fn umount(project: &Project, place: &std::path::Path) -> Ran {
    project.crewfs(["umount".as_ref(), place.as_os_str()])
}

#[test]
fn c71_mount_returns_when_the_mount_answers_and_umount_when_it_is_gone() {
    let project = project!();
    project.task("a", "# A\n");
    for _ in 0..3 {
        let ran = mount(&project, &["lease=1m"]);
        assert_eq!((ran.stderr.as_str(), ran.code), ("", Some(0)));
        let queue = fs::read_to_string(project.mountpoint().join("tasks/queue.json")).unwrap();
        assert!(queue.contains(r#""a": {"status":"ready""#), "{queue}");
        let ran = umount(&project, project.mountpoint());
        assert_eq!((ran.stderr.as_str(), ran.code), ("", Some(0)));
        assert_eq!(mounts_below(project.dir()), []);
        assert_eq!(fs::read_dir(project.mountpoint()).unwrap().count(), 0);
    }
    // What the daemon in the background has to say is in the state directory.
    let log = fs::read_to_string(project.source().join(".crewfs/crewfs.log")).unwrap();
    assert!(log.contains("is mounted at") && log.contains("is unmounted"), "{log}");
}

#[test]
fn c71_in_place_it_covers_the_project() {
    let project = project!();
    let source = project.source().to_path_buf();
    fs::write(source.join("file"), "text\n").unwrap();
    project.crewfs(["mount".as_ref(), source.as_os_str()]).ok();
    assert!(source.join("tasks/queue.json").exists() && !source.join(".crewfs").exists());
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "text\n");
    umount(&project, &source).ok();
    assert!(!source.join("tasks/queue.json").exists() && source.join(".crewfs").exists());
}

#[test]
fn c70_wrong_usage_is_2() {
    let project = project!();
    for (option, said) in [
        ("leas=3m", "there is no option \"leas=3m\"; there are: tasks=NAME"),
        ("lease=soon", "lease takes a span of time such as 90s"),
        ("lease=10ms", "lease must be at least 1s"),
        ("tasks=a/b", "tasks takes the name of a directory"),
        ("tasks=.git", "tasks takes the name of a directory"),
        ("threads=0", "threads takes a number from 1 to 64"),
        ("allow_other=yes", "there is no option"),
    ] {
        mount(&project, &[option]).exits(2, said);
    }
    project.crewfs([] as [&str; 0]).exits(2, "Usage");
    project.crewfs(["mount"]).exits(2, "SOURCE");
    project.crewfs(["fly"]).exits(2, "fly");
    project.crewfs(["--version"]).ok();
    assert_eq!(mounts_below(project.dir()), []);
    assert!(!project.source().join(".crewfs").exists(), "nothing is made by a call that is wrong");
}

#[test]
fn c70_refusals_are_1_and_not_mounted_is_3() {
    let project = project!();
    let missing = project.dir().join("missing");
    umount(&project, project.mountpoint()).exits(3, "is not a mount of crewfs");
    umount(&project, &missing).exits(3, "is not a mount of crewfs");
    project.crewfs(["log".as_ref(), project.source().as_os_str()]).exits(1, "was never mounted");
    project.crewfs(["log".as_ref(), missing.as_os_str()]).exits(1, "No such file");
    project.crewfs(["mount".as_ref(), missing.as_os_str(), project.mountpoint().as_os_str()]).exits(1, "missing");
}

#[test]
fn c70_umount_tells_who_is_in_the_way() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    for used in [mounted.tasks(), mounted.path().to_path_buf()] {
        let open = fs::File::open(&used).unwrap();
        let said = umount(&project, mounted.path()).exits(1, "is in use; who uses it: fuser -vm");
        assert!(said.contains(&used.display().to_string()) && said.contains("--lazy"), "{said}");
        drop(open);
        until("it is still mounted, both parts of it", || mounts_below(mounted.path()).len() == 2);
    }
    let open = fs::File::open(mounted.desk("queue.json")).unwrap();
    let mut lazy = crewfs();
    lazy.args(["umount", "--lazy"]).arg(mounted.path());
    let ended = std::thread::spawn(move || run(lazy));
    until("nothing is mounted any more", || mounts_below(project.dir()).is_empty());
    drop(open);
    ended.join().unwrap().ok();
    mounted.wait();
}

#[test]
fn c70_umount_clears_a_dead_mount() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    mounted.kill9();
    assert_eq!(mounts_below(project.dir()).len(), 2);
    umount(&project, project.mountpoint()).ok();
    assert_eq!(mounts_below(project.dir()), []);
    let mut mounted = project.mount_in_place(&[]);
    mounted.kill9();
    umount(&project, project.source()).ok();
    assert_eq!(mounts_below(project.dir()), []);
}

#[test]
fn c61_the_daemon_ends_when_somebody_unmounts_either_part_or_asks_it_to() {
    as_root!();
    let project = project!();
    for part in ["tasks", ""] {
        let mut mounted = project.mount(&[]);
        let flags = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(mounted.path().join(part), flags).unwrap();
        mounted.wait();
    }
    let mut mounted = project.mount(&[]);
    mounted.stop();
    assert!(mounted.stderr().contains("is unmounted"));
    // Also while somebody is in there: a service that is stopped must stop.
    let mut mounted = project.mount(&[]);
    let open = fs::File::open(mounted.path()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(mounted.pid() as i32).unwrap(),
        rustix::process::Signal::INT,
    )
    .unwrap();
    until("nothing is mounted any more", || mounts_below(project.dir()).is_empty());
    mounted.wait();
    drop(open);
}

#[test]
fn crewfs_log_is_the_same_with_and_without_a_mount() {
    let project = project!();
    project.task("a", "# A\n");
    let mut mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a && echo done > tasks/completed/a").ok();
    let of = |place: &std::path::Path| project.crewfs(["log".as_ref(), place.as_os_str()]).ok();
    let log = of(project.source());
    assert_eq!(log, mounted.read("events.jsonl"));
    assert_eq!(of(mounted.path()), log, "also by where it is mounted");
    let events: Vec<serde_json::Value> = log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["published", "joined", "claimed", "completed", "reported"]);
    mounted.stop();
    assert_eq!(of(project.source()), log);
    let mut mounted = project.mount_in_place(&[]);
    assert_eq!(of(project.source()), log);
    mounted.stop();
    let mut first = crewfs();
    first.args(["log"]).arg(project.source());
    let head = format!("{first:?} | head -n 1").replace("cd \"/\" && ", "");
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", &format!("set -o pipefail; {}", head.split_once("env").map_or(head.as_str(), |_| &head))]);
    assert_eq!(run(shell).stdout.lines().count(), 1);
}

#[test]
fn ordinary_users_can_mount_with_fusermount() {
    as_root!();
    if std::process::Command::new("fusermount3").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no fusermount3");
    }
    let project = project!();
    for place in [project.source(), project.mountpoint(), &project.source().join("tasks")] {
        std::os::unix::fs::chown(place, Some(1001), Some(1001)).unwrap();
    }
    project.task("a", "# A\n");
    let program = env!("CARGO_BIN_EXE_crewfs");
    let (source, place) = (project.source().display(), project.mountpoint().display());
    let as_user = |script: &str| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=1001", "--regid=1001", "--clear-groups", "bash", "-c", script]).current_dir("/");
        run(command.env("CREWFS_WORKER", "w1").env("HOME", "/").stdin(std::process::Stdio::null()).into_inner())
    };
    let ran = as_user(&format!("test -w /dev/fuse && {program} mount {source} {place}"));
    if ran.code != Some(0) {
        return eprintln!("skipped: users cannot mount here: {}", ran.stderr);
    }
    as_user(&format!("cd {place} && touch tasks/claim/a && echo done > tasks/completed/a")).ok();
    as_user(&format!("{program} umount {place}")).ok();
    assert!(project.log().contains(r#""uid":1001"#));
}
