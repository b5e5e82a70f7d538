//! The command line: exit codes, messages, and `mount`, which returns once the mount answers (C70, C71).

use std::fs;

use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::harness::{Project, as_root, project};
use crate::process::{Ran, crewfs, mounts_below, run, until};

/// `crewfs mount`, in the background.
fn mount(project: &Project, options: &[&str]) -> Ran {
    let mut command = crewfs();
    command.arg("mount").arg(project.source()).arg(project.mountpoint());
    for option in options {
        command.args(["-o", option]);
    }
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
    // The background daemon writes its messages to a file in the state directory.
    let log = fs::read_to_string(project.source().join(".crewfs/crewfs.log")).unwrap();
    assert!(log.contains("is mounted at") && log.contains("is unmounted"), "{log}");
}

#[test]
fn c70_umount_takes_the_project_for_the_place_where_it_is_mounted() {
    let project = project!();
    mount(&project, &[]).ok();
    umount(&project, &project.source().join("tasks")).exits(3, "is not a mount of crewfs");
    assert_eq!(mounts_below(project.dir()).len(), 2);
    umount(&project, project.source()).ok();
    assert_eq!(mounts_below(project.dir()), []);
    umount(&project, project.source()).exits(3, "is not a mount of crewfs");
}

#[test]
fn c70_umount_asks_which_where_a_project_is_seen_twice() {
    as_root!();
    let project = project!();
    mount(&project, &[]).ok();
    let copy = project.dir().join("copy");
    fs::create_dir(&copy).unwrap();
    mount_bind(project.mountpoint(), &copy).unwrap();
    let said = umount(&project, project.source()).exits(1, "is mounted at several places; say which: ");
    for place in [project.mountpoint(), &copy] {
        assert!(said.contains(place.to_str().unwrap()), "{said}");
    }
    assert_eq!(mounts_below(project.dir()).len(), 3, "nothing was taken away");
    unmount(&copy, UnmountFlags::DETACH).unwrap();
    umount(&project, project.source()).ok();
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
        ("leas=3m", "there is no option \"leas=3m\"; there are: state=DIR, tasks=NAME"),
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
    project
        .crewfs(["mount".as_ref(), missing.as_os_str(), project.mountpoint().as_os_str()])
        .exits(1, "missing");
}

#[test]
fn c70_umount_tells_who_is_in_the_way() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    for used in [mounted.tasks(), mounted.path().to_path_buf()] {
        let open = fs::File::open(&used).unwrap();
        let said = umount(&project, mounted.path()).exits(1, "is in use by ");
        assert!(said.contains(&format!("(process {})", std::process::id())), "{said}");
        assert!(said.contains("crewfs umount --lazy"), "{said}");
        assert_eq!(mounts_below(mounted.path()).len(), 2, "both parts are still there");
        assert!(mounted.desk("queue.json").exists());
        drop(open);
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
fn c70_umount_names_each_process_once_and_never_itself() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    // A shell in the mount, which has two files of it open and waits for its command to end.
    let shell = |script: &str| shell_in(&project, script);
    let ran = shell("exec 8<. 9<tasks; echo $$; \"$0\" umount \"$1\" 8<&- 9<&-; exit $?");
    let place = mounted.path().display();
    let by = format!("sh (process {})", ran.stdout.trim());
    let said = format!(
        "crewfs: {place} is in use by {by}; end that, or take it away all the same: crewfs umount --lazy {place}\n"
    );
    assert_eq!((ran.code, ran.stderr), (Some(1), said));
    // The command's own standard output keeps the mount in use.
    shell("cd / && exec \"$0\" umount \"$1\" > \"$1/out\"").exits(1, "is in use by this command itself");
    // A shell that runs alone in the mount, in the tree or in the desk, does not block its own umount.
    shell("cd tasks && exec \"$0\" umount \"$1\"").ok();
    mounted.wait();
    let mut mounted = project.mount(&[]);
    shell("exec \"$0\" umount .").ok();
    mounted.wait();
}

/// Run a script in a shell whose working directory is the mount, with the program as `$0` and the mount as `$1`.
fn shell_in(project: &Project, script: &str) -> Ran {
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", script, env!("CARGO_BIN_EXE_crewfs")])
        .arg(project.mountpoint())
        .current_dir(project.mountpoint());
    run(shell)
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
    // The daemon also ends while a process has the mount open: a service that is stopped must stop.
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
fn c71_right_after_the_daemon_was_killed_it_is_mounted_again() {
    let project = project!();
    for place in [project.mountpoint(), project.source()] {
        let mount = || {
            let mut command = crewfs();
            command.arg("mount").arg(project.source()).args((place != project.source()).then_some(place));
            command.args(["-o", "allow_other"]);
            run(command).ok();
        };
        mount();
        for _ in 0..8 {
            let lock = fs::read_to_string(project.behind().join(".crewfs/lock")).unwrap();
            let holder: serde_json::Value = serde_json::from_str(&lock).unwrap();
            let pid = rustix::process::Pid::from_raw(holder["pid"].as_i64().unwrap() as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            mount();
        }
        project.crewfs(["umount".as_ref(), place.as_os_str()]).ok();
    }
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
    // A reader that closes the pipe early is no failure.
    let mut head = std::process::Command::new("bash");
    head.args(["-c", "\"$0\" log \"$1\" | head -n 1; exit ${PIPESTATUS[0]}", env!("CARGO_BIN_EXE_crewfs")]);
    head.arg(project.source());
    assert_eq!(run(head).ok().lines().count(), 1);
}

#[test]
fn c70_the_doctor_tells_what_is_in_force() {
    let project = project!();
    let said = project.crewfs(["doctor"]).ok();
    assert!(said.lines().any(|line| line == "ok       /dev/fuse can be opened"), "{said}");
    let at = |place: &std::path::Path| project.crewfs(["doctor".as_ref(), place.as_os_str()]);
    at(project.mountpoint()).exits(3, "is not a mount of crewfs");
    let mut mounted = project.mount(&["threads=5"]);
    let said = at(mounted.path()).ok();
    for part in ["readdirplus", "opens_not_reported", "directories are watched", "5 threads serve the tree"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(mounted.stderr().contains("in force: {"));
    let name = "user.crewfs.session";
    mounted
        .sh("w1", &format!("python3 -c \"import os; os.setxattr('.', '{name}', b'x')\""))
        .refused("Errno 1");
    mounted.sh("w1", &format!("python3 -c \"import os; os.removexattr('.', '{name}')\"")).refused("Errno 1");
    mounted.kill9();
    at(project.mountpoint()).exits(1, "one problem");
}

#[test]
fn bash_completes_commands_and_options() {
    let mut made = crewfs();
    made.args(["completions", "bash"]);
    let script = run(made).ok();
    for (words, expected) in [
        (["crewfs", "do"].as_slice(), "doctor"),
        (&["crewfs", "umount", "--la"], "--lazy"),
        (&["crewfs", "top", "--on"], "--once"),
    ] {
        let at = words.len() - 1;
        let mut bash = std::process::Command::new("bash");
        // As bash calls the function when the user presses tab.
        bash.args(["--norc", "-c", &format!(
            "{script}\nCOMP_WORDS=({}) COMP_CWORD={at}; _crewfs crewfs {} {}; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.join(" "), words[at], words[at - 1]
        )]);
        assert_eq!(run(bash).ok().lines().collect::<Vec<_>>(), [expected], "{words:?}");
    }
}
