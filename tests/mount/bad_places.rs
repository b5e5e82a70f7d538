//! Projects and mount points that are wrong: each refusal is a sentence that says what to do, and nothing is lost (C70, C71).

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use crate::harness::{Project, as_root, project};
use crate::process::{Ran, mounts_below, run, until};

fn try_mount(project: &Project, place: &Path) -> Ran {
    project.crewfs(["mount".as_ref(), project.source().as_os_str(), place.as_os_str()])
}

pub(crate) fn shell(script: &str) -> Ran {
    let mut command = Command::new("bash");
    command.args(["-c", script]);
    run(command)
}

#[test]
fn c71_a_mount_point_that_is_none() {
    let project = project!();
    let missing = project.dir().join("missing");
    let said = try_mount(&project, &missing).exits(1, "does not exist; make it: mkdir -p");
    assert!(said.contains(&missing.display().to_string()), "{said}");
    let file = project.dir().join("file");
    fs::write(&file, "").unwrap();
    try_mount(&project, &file).exits(1, "is not a directory");
    let inside = project.source().join("inside");
    fs::create_dir(&inside).unwrap();
    try_mount(&project, &inside).exits(1, "lies in the project itself; choose a place outside of");
    let file = project.source().join("file");
    fs::write(&file, "").unwrap();
    project.crewfs(["mount".as_ref(), file.as_os_str()]).exits(1, "is not a directory");
    assert!(!project.source().join(".crewfs").exists(), "nothing is made by a call that is refused");
}

#[test]
fn c71_a_mount_point_in_use_and_a_dead_one() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    try_mount(&project, mounted.path()).exits(1, "is in use: ");
    let elsewhere = project.dir().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let said = try_mount(&project, &elsewhere).exits(1, "this project is served already: process ");
    assert!(said.contains(&format!("process {} has it mounted at", mounted.pid())), "{said}");
    assert!(said.contains("one daemon at a time"), "{said}");
    assert!(mounted.desk("queue.json").exists());
    mounted.kill9();
    // A dead mount of another project is refused, and the command that the refusal names clears it.
    let other = project!();
    let said = try_mount(&other, mounted.path()).exits(1, "is a dead mount, its daemon is gone; clear it: ");
    let clear = said.trim().split("clear it: ").nth(1).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_crewfs")).parent().unwrap();
    shell(&format!("PATH={}:$PATH; {clear}", program.display())).ok();
    try_mount(&other, mounted.path()).ok();
    project.crewfs(["umount".as_ref(), mounted.path().as_os_str()]).ok();
    let mut mounted = project.mount_in_place(&[]);
    project.crewfs(["mount".as_ref(), project.source().as_os_str()]).exits(1, "is in use");
    mounted.kill9();
    project.crewfs(["log".as_ref(), project.source().as_os_str()]).exits(1, "");
}

#[test]
fn c71_the_dead_mount_of_a_project_gives_way_to_its_next_one() {
    let project = project!();
    for in_place in [false, true] {
        let mount = || if in_place { project.mount_in_place(&[]) } else { project.mount(&[]) };
        let mut killed = mount();
        killed.kill9();
        let mut next = mount();
        assert_eq!(crate::process::mounts_below(next.path()).len(), 2, "the dead ones are gone");
        next.sh("w1", "cat tasks/queue.json").ok();
        next.stop();
    }
}

#[test]
fn c71_a_project_without_a_tasks_directory_gets_one_and_a_file_of_that_name_is_named() {
    let project = project!();
    fs::remove_dir(project.source().join("tasks")).unwrap();
    let mut mounted = project.mount(&[]);
    mounted.sh("w1", "echo '# A' > tasks/a.md && touch tasks/claim/a").ok();
    mounted.stop();
    assert!(project.source().join("tasks/a.md").exists());
    let other = project!();
    fs::remove_dir(other.source().join("tasks")).unwrap();
    fs::write(other.source().join("tasks"), "a file\n").unwrap();
    try_mount(&other, other.mountpoint())
        .exits(1, "the project has a file named tasks; choose another directory: -o tasks=NAME");
    assert_eq!(mounts_below(other.dir()), []);
    assert_eq!(fs::read_to_string(other.source().join("tasks")).unwrap(), "a file\n");
}

#[test]
fn a_read_only_project_is_refused_with_the_reason() {
    as_root!();
    let project = project!();
    project.task("a", "# A\n");
    let source = project.source();
    mount_bind(source, source).unwrap();
    mount_remount(source, MountFlags::BIND | MountFlags::RDONLY, "").unwrap();
    let ran = try_mount(&project, project.mountpoint());
    unmount(source, UnmountFlags::DETACH).unwrap();
    let said = ran.exits(1, "the state directory");
    assert!(said.contains("Read-only file system"), "{said}");
    assert_eq!(mounts_below(project.dir()), []);
    project.mount(&[]).stop();
}

#[test]
fn a_state_directory_of_a_newer_version_is_left_alone() {
    let project = project!();
    project.task("a", "# A\n");
    project.mount(&[]).stop();
    let log = project.source().join(".crewfs/log.db");
    let database = rusqlite::Connection::open(&log).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    let before = fs::read(&log).unwrap();
    let said = try_mount(&project, project.mountpoint()).exits(1, "the event log does not open");
    assert!(said.contains("99") && said.contains("newer"), "{said}");
    assert_eq!(fs::read(&log).unwrap(), before);
    assert_eq!(mounts_below(project.dir()), []);
}

#[test]
fn a_log_of_an_older_version_goes_on_and_is_for_this_version_then() {
    let project = project!();
    project.task("a", "# A\n");
    project.mount(&[]).stop();
    let log = project.source().join(".crewfs/log.db");
    let version = |set: Option<i64>| -> i64 {
        let database = rusqlite::Connection::open(&log).unwrap();
        set.iter().for_each(|version| database.pragma_update(None, "user_version", version).unwrap());
        database.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    };
    let newest = version(None);
    assert_eq!(version(Some(1)), 1);
    let mut mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    mounted.stop();
    assert_eq!(version(None), newest);
}

#[test]
fn a_log_that_is_none_is_refused_and_kept() {
    let project = project!();
    project.mount(&[]).stop();
    let log = project.source().join(".crewfs/log.db");
    fs::write(&log, "this is no database, but it is somebody's text\n".repeat(200)).unwrap();
    try_mount(&project, project.mountpoint()).exits(1, "the event log does not open");
    assert!(fs::read_to_string(&log).unwrap().starts_with("this is no database"));
    assert_eq!(mounts_below(project.dir()), []);
}

/// A project on a disk of 24 MiB.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn under(project: &'a Project) -> SmallDisk<'a> {
        let source = project.source();
        mount("tmpfs", source, "tmpfs", MountFlags::empty(), c"size=24m,mode=755").unwrap();
        fs::create_dir(source.join("tasks")).unwrap();
        SmallDisk(source)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn on_a_full_disk_work_is_finished_and_none_begun() {
    as_root!();
    let project = project!();
    let disk = SmallDisk::under(&project);
    for id in ["a", "b", "c"] {
        fs::write(disk.0.join(format!("tasks/{id}.md")), "# T\n").unwrap();
    }
    let mut mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a && touch tasks/claim/b").ok();
    mounted.sh("w1", "cat /dev/zero > filler").refused("No space left");
    // The log has spare room for a while longer.
    let claims = "for n in $(seq 2000); do touch tasks/claim/c || exit 7
        head -c 4000 /dev/zero | tr '\\0' x > tasks/claim/c; rm tasks/claim/c || exit 8; done";
    mounted.sh("w2", claims).exits(7, "No space left");
    assert!(mounted.read("workers/w2/why").contains("claims can be finished, new work cannot be accepted"));
    assert_eq!(mounted.state("c"), "ready");
    mounted.sh("w1", "head -c 500000 /dev/zero | tr '\\0' y > tasks/completed/a").ok();
    mounted.sh("w1", "echo reason > tasks/failed/b").ok();
    assert_eq!((mounted.state("a"), mounted.state("b")), ("completed".into(), "failed".into()));
    mounted.json("queue.json");
    mounted.sh("w1", "rm filler").ok();
    until("there is space again", || mounted.sh("w1", "touch tasks/claim/next").code == Some(0));
    assert_eq!(mounted.state("c"), "claimed");
    mounted.stop();
    let mut mounted = project.mount(&[]);
    assert_eq!(mounted.read("completed/a").len(), 500_000);
    mounted.stop();
    drop(disk);
}

#[test]
fn c10_a_source_that_goes_away_hangs_nobody() {
    let project = project!();
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    let moved = project.dir().join("moved");
    fs::rename(project.source(), &moved).unwrap();
    // The daemon reaches the project by descriptors, so the project may be moved while it is served.
    mounted.sh("w1", "touch tasks/claim/a && echo done > tasks/completed/a && echo x > file").ok();
    assert_eq!(fs::read_to_string(moved.join("file")).unwrap(), "x\n");
    fs::rename(&moved, project.source()).unwrap();
}

#[test]
fn c71_places_of_any_name_and_by_any_way() {
    let project = project!();
    let (source, place) = (project.dir().join("my project\\1"), project.dir().join("a mount"));
    fs::create_dir_all(source.join("tasks")).unwrap();
    fs::create_dir(&place).unwrap();
    std::os::unix::fs::symlink(&place, project.dir().join("link")).unwrap();
    let program = env!("CARGO_BIN_EXE_crewfs");
    for (from, at) in
        [("my project\\1", "a mount"), ("./my project\\1/", "a mount/"), ("my project\\1", "link")]
    {
        let script = format!(
            "cd '{}' && {program} mount '{from}' '{at}' && echo '# A' > '{at}/tasks/a.md' &&
             until test -e '{at}/tasks/ready/a'; do sleep 0.01; done && ls '{at}/tasks/ready' &&
             {program} log '{at}' | wc -l && {program} log '{from}' | wc -l && rm '{at}/tasks/a.md' && {program} umount '{at}'",
            project.dir().display()
        );
        let ran = shell(&script);
        assert!(ran.code == Some(0) && ran.stdout.starts_with("a\n"), "{ran:#?}");
        assert_eq!(mounts_below(project.dir()), []);
    }
    // Mounted in place, by a shell whose working directory is the project.
    let script =
        format!("cd '{}' && {program} mount . && cd / && {program} umount \"$OLDPWD\"", source.display());
    shell(&script).ok();
}
