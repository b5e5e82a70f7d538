//! Commands that end, conditions that come true, and the mounts below a place. Every wait has a limit.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process_group};

/// The time limit of one command of a worker, and of the wait for one condition.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// The time between two checks of a condition.
const LOOK: Duration = Duration::from_millis(5);

/// How many times slower this machine is (`CREWFS_TEST_SLOWNESS`), for example an emulated one.
fn slowness() -> u32 {
    std::env::var("CREWFS_TEST_SLOWNESS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Whether this machine is too slow for the time limits of crewfs itself.
pub(crate) fn is_slow() -> bool {
    slowness() > 1
}

/// The limit, extended for a slow machine.
pub(crate) fn slow(limit: Duration) -> Duration {
    limit * slowness()
}

/// As many of `all` attempts as a slow machine can make in the time in which another machine makes all of them. The step between
/// them is odd, so that every bit varies.
pub(crate) fn some_of(all: u32) -> impl Iterator<Item = u32> {
    (0..all).step_by(slowness() as usize | 1)
}

/// Wait until `done`. `what` completes the sentence "waited in vain until …".
#[track_caller]
pub(crate) fn until(what: &str, done: impl FnMut() -> bool) {
    assert!(within(LIMIT, done), "waited in vain until {what}");
}

/// Whether `done` comes true within this time.
pub(crate) fn within(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let (start, limit) = (Instant::now(), slow(limit));
    while !done() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

/// The outcome of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The command.
    pub(crate) what: String,
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Check that it succeeded. Returns its standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// Check that it failed and that its standard error contains this.
    #[track_caller]
    pub(crate) fn refused(self, said: &str) -> String {
        assert!(
            self.code.is_some_and(|code| code != 0) && self.stderr.contains(said),
            "{said:?} in {self:#?}"
        );
        self.stderr
    }

    /// Check that it ended with this code and that its standard error contains this.
    #[track_caller]
    pub(crate) fn exits(self, code: i32, said: &str) -> String {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self.refused(said)
    }
}

/// Run a command to its end. If it takes longer than [`LIMIT`], it is killed with all its children, and the test fails.
#[track_caller]
pub(crate) fn run(command: Command) -> Ran {
    run_within(LIMIT, command)
}

/// As [`run`], with a limit of its own.
#[track_caller]
pub(crate) fn run_within(limit: Duration, mut command: Command) -> Ran {
    let (what, limit) = (format!("{command:?}"), slow(limit));
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
    let group = Pid::from_child(&child);
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(limit).unwrap_or_else(|_| {
        let _ = kill_process_group(group, Signal::KILL);
        panic!("took longer than {limit:?}: {what}")
    });
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { what, code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The program under test.
pub(crate) fn crewfs() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crewfs"));
    command.env_remove("CREWFS_WORKER").env_remove("CREWFS_LOG").current_dir("/");
    command
}

/// The program under test, with this limit of open files.
pub(crate) fn crewfs_with_descriptors(most: u64) -> Command {
    let program = crewfs();
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={most}")).arg(program.get_program());
    command.env_remove("CREWFS_WORKER").env_remove("CREWFS_LOG").current_dir("/");
    command
}

/// The mounts at and below a place, youngest first, each with the minor number of its device.
pub(crate) fn mounts_below(place: &Path) -> Vec<(PathBuf, u32)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = table.lines().rev().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let minor = fields.next()?.split_once(':')?.1.parse().ok()?;
        // The characters that the kernel writes as octal escapes. The backslash that begins an escape comes last.
        let written = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
        let place =
            written.iter().fold(fields.nth(1)?.to_string(), |place, (from, to)| place.replace(from, to));
        Some((PathBuf::from(place), minor))
    });
    mounts.filter(|(mountpoint, _)| mountpoint.starts_with(place)).collect()
}

/// Make every call on these mounts fail, including the calls that hang.
pub(crate) fn abort_below(place: &Path) {
    for (_, minor) in mounts_below(place) {
        let _ = fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1");
    }
}

/// Detach these mounts, even while processes use them.
pub(crate) fn detach_below(place: &Path) {
    for (mountpoint, _) in mounts_below(place) {
        let _ = unmount(&mountpoint, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        if mounts_below(&mountpoint).iter().any(|(still, _)| *still == mountpoint) {
            let _ = Command::new("fusermount3").args(["-uz"]).arg(&mountpoint).status();
        }
    }
}
