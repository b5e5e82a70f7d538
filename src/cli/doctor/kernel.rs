//! Checks the kernel: which calls and features it lacks, and what is lost without them. Each is tried. The version is not compared.
//!
//! Must never: leave a mount behind. The trial mount is in a child, in a mount namespace of its own.

use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, MemfdFlags, Mode, OFlags, ResolveFlags, StatxFlags, memfd_create, openat, openat2, statx,
};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use serde_json::{Map, Value, json};

use super::finding::Finding::{self, Good, Problem, Warning};
use super::probe::{self, Probe, ProbeProcess};
use crate::cli::error::CliError;
use crate::cli::out;
use crate::confine::{self, ConfineError};
use crate::daemon::requirements;
use crate::fs::identity::exits::ExitStatusSource;
use crate::fuse::{KernelOffer, TrialMount};
use crate::limits::DOCTOR_SILENT_MS;
use crate::sys;

/// The oldest supported kernel, and its minor version of the FUSE protocol.
const OLDEST: (&str, u32) = ("5.10", 32);

/// The features of FUSE, the kernel that brought each, and what is lost without it.
const FEATURES: [(&str, &str, &str); 9] = [
    ("opens_not_reported", "3.16", "nothing can be mounted"),
    ("opendirs_not_reported", "5.1", "listings are asked for each time they are opened"),
    ("readdirplus", "3.9", "a listing is followed by a question for each file in it"),
    ("readdirplus_auto", "3.9", "each listing brings attributes along, needed or not"),
    ("handle_killpriv_v2", "5.11", "each write is preceded by a question for file capabilities"),
    ("cache_symlinks", "4.20", "the target of a symbolic link is asked for each time"),
    ("async_dio", "3.13", "direct reads and writes go one after the other"),
    ("max_pages", "4.20", "reads and writes go in pieces of 128 KiB"),
    ("posix_acl", "4.9", "the mask of an ACL counts as the rights of the group"),
];

/// The result of the trial mount.
struct MountTrial {
    offer: Option<KernelOffer>,
    /// The error, if the mount was refused.
    refused: Option<i32>,
}

pub(super) fn findings() -> Vec<Finding> {
    let mut findings = calls();
    findings.extend(endings(&ExitStatusSource::find()));
    // If the device is missing, another check reports that. A missing right is reported here.
    if let Err(error) = requirements::right()
        && sys::is_root()
    {
        findings.push(Problem(error.to_string()));
    }
    let tried = match (requirements::device(), requirements::right()) {
        (Ok(()), Ok(())) => try_mount(),
        _ => None,
    };
    if let Some(tried) = &tried {
        findings.extend(judge(tried));
    }
    if findings.iter().all(|finding| matches!(finding, Good(_))) {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        findings.push(Good(match tried.and_then(|tried| tried.offer) {
            Some(_) => format!("Linux {release} has all that crewfs can use"),
            None => format!(
                "Linux {release} has the calls that crewfs takes; what its FUSE offers is seen at a mount: crewfs doctor MOUNTPOINT"
            ),
        }));
    }
    findings
}

/// The system calls, each tried without an effect.
fn calls() -> Vec<Finding> {
    let found = |outcome: rustix::io::Result<OwnedFd>| outcome.map(drop);
    let lookup = openat2(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    let process = pidfd_open(getpid(), PidfdFlags::empty());
    let append = memfd_create("crewfs", MemfdFlags::CLOEXEC)
        .and_then(|file| pwritev2(file.as_fd(), &[IoSlice::new(b"x")], 0, ReadWriteFlags::APPEND).map(drop));
    // In a thread of its own, as the daemon's lookup threads do.
    let descriptors = std::thread::spawn(sys::unshare_descriptors).join().unwrap_or(Ok(()));
    let birth = statx(CWD, "/", AtFlags::empty(), StatxFlags::BTIME).map(drop);
    [
        judge_call("statx", "4.11", birth, "no file can be told from another one"),
        judge_call(
            "close_range",
            "5.9",
            descriptors.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL)),
            "a daemon that ends while it looks at a process that hangs leaves the project locked until that process goes on",
        ),
        judge_call(
            "openat2",
            "5.6",
            found(lookup),
            "the rules of .gitignore are not read, and what a task names as its context is not found",
        ),
        judge_call(
            "pidfd_open",
            "5.3",
            found(process),
            "the end of a process ends no claim, leases alone do",
        ),
        judge_call("RWF_APPEND", "4.16", append, "nothing can be appended to a file"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A problem, if a call is missing.
fn judge_call(call: &str, since: &str, outcome: rustix::io::Result<()>, lost: &str) -> Option<Finding> {
    let error = match outcome {
        // A seccomp filter answers with one of these.
        Err(error @ (Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM)) => error,
        _ => return None,
    };
    Some(Problem(format!(
        "{call} is not to be had ({error}): {lost}; Linux {since} has it, and a seccomp filter must allow it (for a container: \
         --security-opt seccomp=unconfined, or a newer profile)"
    )))
}

/// A warning, if the daemon cannot learn exit statuses.
fn endings(endings: &ExitStatusSource) -> Option<Finding> {
    let ExitStatusSource::Untold(error) = endings else { return None };
    Some(Warning(format!(
        "how a process of others ended is not told here ({error}): claims of programs that are no agents and end badly wait for their leases; \
         Linux 6.15 tells it to every daemon, and older kernels to root with CAP_NET_ADMIN, outside of containers"
    )))
}

/// Let a child make a trial mount. `None` if that cannot be tried.
fn try_mount() -> Option<MountTrial> {
    let asked = probe::command(Probe::TrialMount).and_then(ProbeProcess::start).ok()?;
    let said = asked.answer(Duration::from_millis(DOCTOR_SILENT_MS))?;
    let said: Value = serde_json::from_slice(&said.stdout).ok()?;
    let features = said["features"].as_object();
    let offer = features.zip(said["minor"].as_u64()).map(|(features, minor)| KernelOffer {
        minor: minor as u32,
        features: FEATURES
            .iter()
            .map(|(name, ..)| (*name, features.get(*name) == Some(&true.into())))
            .collect(),
    });
    let refused = said["refused"].as_i64().map(|errno| errno as i32);
    Some(MountTrial { offer, refused })
}

fn judge(tried: &MountTrial) -> Vec<Finding> {
    let mut findings = Vec::new();
    match tried.refused {
        Some(errno) => {
            let error = std::io::Error::from_raw_os_error(errno);
            findings.push(Problem(requirements::refused("a project", &error).to_string()));
        }
        None if sys::is_root() => findings.push(Good("root can mount: it was tried, out of sight".into())),
        None => {}
    }
    if let Some(offer) = &tried.offer {
        let (oldest, minor) = OLDEST;
        if offer.minor < minor {
            findings.push(Problem(format!(
                "the FUSE of this kernel is of version 7.{}, and that of Linux {oldest} is 7.{minor}: crewfs is not supported before \
                 Linux {oldest}; use a newer kernel",
                offer.minor
            )));
        }
        for (name, since, lost) in
            FEATURES.iter().filter(|(name, ..)| offer.features.contains(&(*name, false)))
        {
            findings.push(Warning(format!("this kernel does not offer {name}: {lost}; Linux {since} does")));
        }
    }
    findings
}

/// The child's part.
pub(super) fn probe() -> Result<(), CliError> {
    let (mut said, (offer, refused)) = (Map::new(), trial_mount()?);
    if let Some(offer) = offer {
        said.insert("minor".into(), offer.minor.into());
        let features = offer.features.into_iter().map(|(name, offered)| (name.to_owned(), json!(offered)));
        said.insert("features".into(), Value::Object(features.collect()));
    }
    said.insert("refused".into(), refused.map_or(Value::Null, Value::from));
    out::write(Value::Object(said).to_string().as_bytes());
    Ok(())
}

/// What the kernel offers, and the error if it refuses.
fn trial_mount() -> Result<(Option<KernelOffer>, Option<i32>), CliError> {
    // In the mount namespace of the daemon: root of a user namespace may not mount in every one.
    if sys::is_root()
        && let Err(error) = TrialMount::make()
    {
        return Ok((None, error.raw_os_error()));
    }
    let is_private = match confine::own_namespaces() {
        Ok(()) => true,
        // Nothing is mounted at the root directory: a chroot.
        Err(ConfineError::Step { why, .. }) if why.raw_os_error() == Some(libc::EINVAL) => false,
        Err(error @ ConfineError::Step { .. }) if sys::is_root() => {
            return Ok((None, error.why().raw_os_error()));
        }
        Err(error) => return Err(CliError::failed(error)),
    };
    let trial = match TrialMount::make() {
        Ok(trial) => trial,
        Err(error) => return Ok((None, error.raw_os_error())),
    };
    let offer = trial.offer().map_err(CliError::failed)?;
    if !is_private {
        return Ok((Some(offer), None));
    }
    let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(CliError::failed)?;
    let refused = trial.appear(&root).err().and_then(|error| error.raw_os_error());
    Ok((Some(offer), refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_not_to_be_had_is_a_problem_with_what_it_costs() {
        for error in [Errno::NOSYS, Errno::PERM] {
            let said = judge_call("openat2", "5.6", Err(error), "it rains");
            assert!(matches!(said, Some(Problem(said)) if said.contains(": it rains; Linux 5.6 has it")));
        }
        assert_eq!(judge_call("openat2", "5.6", Ok(()), "it rains"), None);
        assert_eq!(judge_call("openat2", "5.6", Err(Errno::MFILE), "it rains"), None, "it is there");
        assert_eq!(calls(), [], "all kernels on which this is tested have them");
    }

    #[test]
    fn what_an_older_kernel_lacks_is_said_with_what_is_lost() {
        let offer = |minor, lacks: &str| KernelOffer {
            minor,
            features: FEATURES.iter().map(|(name, ..)| (*name, *name != lacks)).collect(),
        };
        let judge = |offer| judge(&MountTrial { offer: Some(offer), refused: None });
        let complaints = |findings: Vec<Finding>| -> Vec<Finding> {
            findings.into_iter().filter(|finding| !matches!(finding, Good(_))).collect()
        };
        assert_eq!(complaints(judge(offer(45, ""))), []);
        let said = complaints(judge(offer(32, "handle_killpriv_v2")));
        assert!(matches!(&said[..], [Warning(slow)] if slow.contains("file capabilities; Linux 5.11")));
        let said = complaints(judge(offer(31, "")));
        assert!(
            matches!(&said[..], [Problem(old)] if old.contains("7.31") && old.contains("before Linux 5.10"))
        );
    }

    #[test]
    fn that_exits_are_not_told_is_said() {
        assert_eq!(endings(&ExitStatusSource::Kept), None);
        let said = endings(&ExitStatusSource::Untold(std::io::ErrorKind::Unsupported.into()));
        assert!(
            matches!(said, Some(Warning(said)) if said.contains("(unsupported)") && said.contains("6.15"))
        );
    }

    #[test]
    fn each_feature_that_the_tree_uses_is_explained() {
        let names: Vec<&str> = FEATURES.iter().map(|(name, ..)| *name).collect();
        // If nothing can be mounted, there is nothing to compare with.
        let Ok(trial) = TrialMount::make() else { return };
        let offered: Vec<&str> = trial.offer().unwrap().features.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, offered);
    }
}
