//! Waits for the exit of a daemon that was killed. Until the kernel has closed its files it has the project, and its mounts may answer.
//!
//! May assume: `/proc`. A pid may be reused by another process; then a moment is lost.
//! Must never: wait without a bound, or for a process that is not exiting.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

/// How long the exit of a process may take.
const ENDING: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// Within this time a killed process is gone as a rule, or `/proc` shows that it is exiting.
const A_MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Wait for the exit of a process.
pub(super) fn wait_for(pid: u32) {
    if let Some(Ok(process)) = descriptor(pid) {
        ends_within(&process, &ENDING);
    }
}

/// Whether a process is gone. A process that is exiting is waited for.
pub(super) fn has_exited(pid: u32) -> bool {
    match descriptor(pid) {
        Some(Ok(process)) => {
            ends_within(&process, &A_MOMENT) || is_ending(pid) && ends_within(&process, &ENDING)
        }
        Some(Err(error)) => error == Errno::SRCH,
        None => false,
    }
}

fn descriptor(pid: u32) -> Option<rustix::io::Result<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    Some(pidfd_open(pid, PidfdFlags::empty()))
}

fn ends_within(process: &OwnedFd, limit: &Timespec) -> bool {
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(limit)) == Ok(1)
}

/// Whether a process is exiting: killed, writing its core, or without memory already.
fn is_ending(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).map_or(true, |status| judge(&status))
}

fn judge(status: &str) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let killed = |pending: &str| {
        let pending = u64::from_str_radix(pending.trim(), 16).unwrap_or_default();
        pending & 1 << (Signal::KILL.as_raw() - 1) != 0
    };
    field("VmSize").is_none()
        || field("CoreDumping").is_some_and(|dumping| dumping.trim() == "1")
        || ["SigPnd", "ShdPnd"].into_iter().filter_map(field).any(killed)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_lives_is_not_waited_for_and_what_was_killed_is() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        assert!(!has_exited(child.id()) && !is_ending(child.id()));
        child.kill().unwrap();
        assert!(has_exited(child.id()), "also before its parent has waited for it");
        assert!(is_ending(child.id()), "it has no memory any more");
        child.wait().unwrap();
        assert!(has_exited(child.id()), "there is no such process");
    }

    #[test]
    fn a_process_that_is_ending_is_known_by_its_status() {
        let alive = "State:\tS (sleeping)\nVmSize:\t  100 kB\nCoreDumping:\t0\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\n";
        assert!(!judge(alive), "SIGTERM is no end");
        assert!(judge(&alive.replace("ShdPnd:\t0000000000004000", "ShdPnd:\t0000000000004100")));
        assert!(judge(&alive.replace("SigPnd:\t0000000000000000", "SigPnd:\t0000000000000100")));
        assert!(judge(&alive.replace("CoreDumping:\t0", "CoreDumping:\t1")));
        assert!(judge("State:\tZ (zombie)\nSigPnd:\t0000000000000000\n"));
    }
}
