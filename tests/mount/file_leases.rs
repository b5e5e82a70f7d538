//! Leases of other processes on files of the project (fcntl(2), F_SETLEASE).

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::harness::{Mounted, Project, as_root, project};
use crate::process::run_within;

/// Shorter than the time for which the kernel lets a lease delay an open (`/proc/sys/fs/lease-break-time`, 45 s).
const LIMIT: Duration = Duration::from_secs(30);
/// Takes leases on the files in its arguments, opened with the flag that the first argument names. It prints `held`, then `asked`
/// whenever the kernel breaks a lease, and keeps the leases until its input ends.
/// The daemon may have a file open at any time, so the holder retries until it gets the lease. SIGIO is blocked until `held` is printed.
const HOLDER: &str = "
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, lambda *_: os.write(1, b'asked\\n'))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
def lease(fd):
    while True:
        try:
            return fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except BlockingIOError:
            pass
held = [os.open(name, getattr(os, sys.argv[1])) for name in sys.argv[2:]]
for fd in held:
    lease(fd)
os.write(1, b'held\\n')
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
sys.stdin.read()";
/// Repeats an operation on a file until no lease blocks it, and prints how often it was refused. It does not use Python's
/// own files, for which EAGAIN of a read is no error.
const PATIENT: &str = "
import os, sys
refused = 0
while True:
    try:
        exec(sys.argv[2], {'os': os, 'f': sys.argv[1]})
        break
    except BlockingIOError:
        refused += 1
print('done', refused)";

struct Holder {
    process: Child,
    input: Option<ChildStdin>,
    says: Lines<BufReader<ChildStdout>>,
}

impl Holder {
    fn of(directory: &Path, names: &[&str]) -> Holder {
        Holder::by("O_RDWR", directory, names)
    }

    fn by(flag: &str, directory: &Path, names: &[&str]) -> Holder {
        let mut process = Command::new("python3")
            .args(["-c", HOLDER, flag])
            .args(names.iter().map(|name| directory.join(name)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, says) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()).lines());
        let mut holder = Holder { process, input, says };
        holder.says("held");
        holder
    }

    fn says(&mut self, word: &str) {
        assert_eq!(self.says.next().unwrap().unwrap(), word);
    }

    fn gives_back(&mut self) {
        self.input.take();
        self.process.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.gives_back();
    }
}

fn patient(mounted: &Mounted, file: &str, action: &str) -> Child {
    let mut command = Command::new("python3");
    command.args(["-c", PATIENT]).arg(mounted.path().join(file)).arg(action).env("CREWFS_WORKER", "waits");
    command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap()
}

fn others_go_on(mounted: &Mounted, round: usize) {
    let script = format!(
        "stat f0 && ls -l && cat free && echo {round} >> log && mv log log.1 && mv log.1 log && touch tasks/claim/t{round} \
         && echo ok > tasks/completed/t{round}"
    );
    let mut command = mounted.worker("other");
    command.arg(&script);
    run_within(LIMIT, command).ok();
}

fn files(project: &Project, names: &[&str]) {
    for name in names {
        std::fs::write(project.source().join(name), "content").unwrap();
    }
}

#[test]
fn c58_only_what_uses_a_leased_file_waits() {
    as_root!();
    let project = project!();
    let names = ["f0", "f1", "f2", "f3", "f4", "f5"];
    files(&project, &names);
    files(&project, &["free"]);
    let mounted = project.mount(&["threads=2"]);
    (0..2).for_each(|round| drop(mounted.operator(&format!("echo x > tasks/t{round}.md")).ok()));
    let mut holder = Holder::of(project.source(), &names);
    let actions = [
        "assert os.read(os.open(f, os.O_RDONLY), 100) == b'content'",
        "os.write(os.open(f, os.O_WRONLY | os.O_APPEND), b'more')",
        "os.truncate(f, 3)",
        "open(f, 'w').close()",
        "fd = os.open(f, os.O_RDWR); os.posix_fallocate(fd, 0, 100)",
        "os.fsync(os.open(f, os.O_RDONLY))",
    ];
    let mut waiting: Vec<Child> =
        names.iter().zip(actions).map(|(name, action)| patient(&mounted, name, action)).collect();
    for round in 0..2 {
        others_go_on(&mounted, round);
    }
    assert!(waiting.iter_mut().all(|child| child.try_wait().unwrap().is_none()), "the leases are held still");
    holder.gives_back();
    for child in waiting {
        let said = child.wait_with_output().unwrap();
        assert!(said.stdout.starts_with(b"done"), "{said:?}");
    }
    let content = |name: &str| std::fs::read(project.source().join(name)).unwrap();
    assert_eq!(content("f1"), b"contentmore", "written once");
    assert_eq!((content("f2"), content("f3")), (b"con".to_vec(), Vec::new()));
    assert_eq!(content("f4").len(), 100);
}

#[test]
fn c58_a_lease_that_is_not_given_back_is_eagain_in_the_end() {
    as_root!();
    let project = project!();
    files(&project, &["f"]);
    let mounted = project.mount(&[]);
    let _holder = Holder::of(project.source(), &["f"]);
    mounted.sh("w1", "cat f").refused("Resource temporarily unavailable");
}

#[test]
fn c58_a_task_file_with_a_lease_is_a_task_once_the_lease_is_given_back() {
    as_root!();
    let project = project!();
    let mounted = project.mount(&[]);
    mounted.operator("echo read me > tasks/t.md").ok();
    mounted.until_state("t", "ready");
    let mut holder = Holder::of(&project.source().join("tasks"), &["t.md"]);
    let reads = patient(&mounted, "tasks/t.md", "os.read(os.open(f, os.O_RDONLY), 100)");
    let two = project.source().join("tasks/two.md");
    std::fs::write(two.with_extension("tmp"), "another").unwrap();
    let mut second = Holder::of(&project.source().join("tasks"), &["two.tmp"]);
    std::fs::rename(two.with_extension("tmp"), &two).unwrap();
    second.says("asked");
    holder.gives_back();
    second.gives_back();
    assert!(reads.wait_with_output().unwrap().stdout.starts_with(b"done"));
    mounted.until_state("two", "ready");
    mounted.until_state("t", "ready");
    let events = mounted.read("events.jsonl");
    assert!(!events.contains("cannot be read"), "{events}");
}

#[test]
fn c58_the_end_of_a_lease_on_a_new_task_file_is_noticed_though_nothing_is_written() {
    as_root!();
    let project = project!();
    let tasks = project.source().join("tasks");
    std::fs::write(tasks.join("before.md"), "text").unwrap();
    let mut before = Holder::by("O_RDONLY", &tasks, &["before.md"]);
    let mounted = project.mount(&[]);
    std::fs::write(tasks.join("after.tmp"), "text").unwrap();
    let mut after = Holder::by("O_RDONLY", &tasks, &["after.tmp"]);
    std::fs::rename(tasks.join("after.tmp"), tasks.join("after.md")).unwrap();
    for (holder, task) in [(&mut before, "before"), (&mut after, "after")] {
        holder.says("asked");
        holder.gives_back();
        mounted.until_state(task, "ready");
    }
}
