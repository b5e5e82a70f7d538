//! Checks the capabilities of root. A container or a service may lack some, and crewfs then does less.
//!
//! May assume: the daemon of an ordinary user has no capabilities. Then nothing is missing.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::thread::{CapabilitySet, capabilities};

use super::finding::Finding::{self, Problem, Warning};
use crate::sys;

/// An ordinary user that every system has.
const NOBODY: u32 = 65_534;
/// Without it the daemon does not start.
const KEEPING: (CapabilitySet, &str) = (CapabilitySet::SETPCAP, "SETPCAP");
/// What is lost without each of the others. Without CAP_SYS_ADMIN nothing can be mounted, which another check reports.
const RIGHTS: [(CapabilitySet, &str, &str); 9] = [
    (CapabilitySet::SETUID, "SETUID", "what workers of other users make belongs to root"),
    (CapabilitySet::SETGID, "SETGID", "what workers of other users make belongs to the group of root"),
    (CapabilitySet::DAC_OVERRIDE, "DAC_OVERRIDE", "workers cannot change what root could not"),
    (
        CapabilitySet::DAC_READ_SEARCH,
        "DAC_READ_SEARCH",
        "a file whose name changed beneath is not found again when very many files are known",
    ),
    (CapabilitySet::CHOWN, "CHOWN", "workers cannot give a file to another of their groups"),
    (CapabilitySet::FOWNER, "FOWNER", "workers cannot change the modes and times of their own files"),
    (CapabilitySet::FSETID, "FSETID", "workers cannot set the set-group-id bit of a directory"),
    (CapabilitySet::MKNOD, "MKNOD", "root can make no device nodes through the mount"),
    (CapabilitySet::SETFCAP, "SETFCAP", "root can give no file capabilities through the mount"),
];

pub(super) fn findings() -> Vec<Finding> {
    match capabilities(None) {
        Ok(sets) if sys::is_root() => {
            let reads = sets.effective.contains(CapabilitySet::SYS_PTRACE).then_some(true);
            judge(sets.effective, reads.unwrap_or_else(|| reads_names().unwrap_or(true)))
        }
        _ => Vec::new(),
    }
}

/// Judge by the capabilities, and by whether the environments of other users' processes can be read.
fn judge(rights: CapabilitySet, reads_names: bool) -> Vec<Finding> {
    let mend = |name: &str| {
        format!(
            "start the container with --cap-add {name}, or let the service have it: CapabilityBoundingSet="
        )
    };
    let mut findings = Vec::new();
    if !rights.contains(KEEPING.0) {
        let name = KEEPING.1;
        findings
            .push(Problem(format!("root has no CAP_{name} here: the daemon does not start; {}", mend(name))));
    }
    for (_, name, lost) in RIGHTS.iter().filter(|(right, ..)| !rights.contains(*right)) {
        findings.push(Warning(format!("root has no CAP_{name} here: {lost}; {}", mend(name))));
    }
    if !rights.contains(CapabilitySet::SYS_PTRACE) {
        let lost = match reads_names {
            true => "it is not seen whether a write lock of another user's process still holds",
            false => {
                "CREWFS_WORKER of other users' processes cannot be read, so that workers have the names of their users"
            }
        };
        findings.push(Warning(format!("root has no CAP_SYS_PTRACE here: {lost}; {}", mend("SYS_PTRACE"))));
    }
    findings
}

/// Whether the environment of another user's process can be read. Some kernels allow it to CAP_SYS_ADMIN.
fn reads_names() -> io::Result<bool> {
    let mut command = Command::new("cat");
    command.uid(NOBODY).gid(NOBODY).env_clear().env("CREWFS_WORKER", "doctor");
    // `cat` waits for the end of its input.
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let read = fs::read(format!("/proc/{}/environ", child.id()));
    drop(child.stdin.take());
    child.wait()?;
    Ok(read.is_ok_and(|read| !read.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_right_that_is_missing_is_said_with_what_it_costs() {
        let all = CapabilitySet::all();
        assert_eq!(judge(all, true), []);
        for (right, name, lost) in RIGHTS {
            let said = judge(all - right, true);
            assert!(
                matches!(&said[..], [Warning(said)] if said.contains(lost) && said.contains(&format!("--cap-add {name}")))
            );
        }
        assert!(matches!(&judge(all - KEEPING.0, true)[..], [Problem(said)] if said.contains("CAP_SETPCAP")));
        let blind = all - CapabilitySet::SYS_PTRACE;
        assert!(matches!(&judge(blind, false)[..], [Warning(said)] if said.contains("names of their users")));
        assert!(matches!(&judge(blind, true)[..], [Warning(said)] if said.contains("write lock")));
    }
}
