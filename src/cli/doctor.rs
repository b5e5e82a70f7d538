//! `crewfs doctor`: what keeps this machine from mounting, or a mount from being as fast as it could be; and what to do.
//!
//! Must never: change anything, or say what is wrong without saying how to mend it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::{Failure, place};
use crate::fs::tree::SESSION;
use crate::sys::DirectoryWatch;
use crate::{mounts, sys};

#[derive(Args)]
pub(super) struct Arguments {
    /// Where a project is mounted: also tell what is in force there.
    mountpoint: Option<PathBuf>,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    /// As it should be.
    Ok(String),
    /// It works, but slower or not for everybody.
    Warning(String),
    /// Nothing can be mounted.
    Problem(String),
}

use Finding::{Ok as Good, Problem, Warning};

/// Kernels that have what makes the tree fast, oldest first, and what is missing in older ones.
const KERNELS: [((u32, u32), &str); 4] = [
    ((5, 1), "listings are asked for each time they are opened"),
    ((5, 9), "changes behind the mount show only after a second"),
    ((5, 12), "each write is preceded by a question for file capabilities"),
    ((5, 13), "for an ordinary user, changes behind the mount show only after a second"),
];
/// The oldest kernel that opens files without reporting it.
const KERNEL_NEEDED: (u32, u32) = (3, 15);
/// Descriptors below which the daemon must open and close files often.
const DESCRIPTORS_GOOD: u64 = 4_096;
/// Watched directories below which a large project has too many.
const MARKS_GOOD: u64 = 65_536;
/// Inotify instances below which other programs of the user may leave none: one is needed for each mount.
const INSTANCES_GOOD: u64 = 16;

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut findings = machine();
    if let Some(mountpoint) = &arguments.mountpoint {
        let mountpoint = place(mountpoint)?;
        if mounts::at(&mountpoint).map_err(Failure::failed)?.is_none() {
            return Err(Failure::not_mounted(&mountpoint));
        }
        findings.extend(mounted(&mountpoint));
    }
    for finding in &findings {
        let (word, said) = match finding {
            Good(said) => ("ok", said),
            Warning(said) => ("warning", said),
            Problem(said) => ("problem", said),
        };
        println!("{word:<8} {said}");
    }
    match findings.iter().filter(|finding| matches!(finding, Problem(_))).count() {
        0 => Ok(()),
        1 => Err(Failure::failed("one problem is to be solved first")),
        n => Err(Failure::failed(format!("{n} problems are to be solved first"))),
    }
}

fn machine() -> Vec<Finding> {
    let is_root = sys::is_root();
    vec![device(), helper(is_root), others(is_root), kernel(), descriptors(), watching(is_root), inotify()]
}

fn device() -> Finding {
    match fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Good("/dev/fuse can be opened".into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Problem("/dev/fuse is missing; load the kernel module: modprobe fuse".into())
        }
        Err(error) => Problem(format!(
            "/dev/fuse cannot be opened: {error}; let everybody: chmod 666 /dev/fuse (in a container, pass --device /dev/fuse)"
        )),
    }
}

fn helper(is_root: bool) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find(|file| file.is_file());
    match found {
        Some(found) => Good(format!("{} mounts for ordinary users", found.display())),
        None if is_root => Good("fusermount3 is not installed; root does not need it".into()),
        None => Problem("fusermount3 is not installed; install it: apt install fuse3".into()),
    }
}

fn others(is_root: bool) -> Finding {
    let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    match (conf.lines().any(|line| line.trim() == "user_allow_other"), is_root) {
        (true, _) => Good("/etc/fuse.conf lets ordinary users mount for others".into()),
        (false, true) => Good("/etc/fuse.conf lets only root mount for others; you are root".into()),
        (false, false) => Problem(
            "/etc/fuse.conf does not let ordinary users mount for others; have root put the line user_allow_other into it"
                .into(),
        ),
    }
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    judge_kernel(&release)
}

fn judge_kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Warning(format!("the kernel calls itself {release:?}, which says nothing about its age"));
    };
    let version = (major, minor);
    if version < KERNEL_NEEDED {
        let (major, minor) = KERNEL_NEEDED;
        return Problem(format!("Linux {release} is too old; at least {major}.{minor} is needed"));
    }
    let missing: Vec<&str> =
        KERNELS.iter().filter(|(since, _)| version < *since).map(|(_, without)| *without).collect();
    match missing.is_empty() {
        true => Good(format!("Linux {release} has all that crewfs can use")),
        false => Warning(format!("Linux {release}: {}; a newer kernel mends that", missing.join("; "))),
    }
}

fn descriptors() -> Finding {
    // The hard limit is what the daemon takes.
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum {
        Some(limit) if limit < DESCRIPTORS_GOOD => Warning(format!(
            "a process may open only {limit} files; allow {DESCRIPTORS_GOOD} or more: ulimit -Hn, or LimitNOFILE= of a service"
        )),
        Some(limit) => Good(format!("a process may open {limit} files")),
        None => Good("a process may open as many files as it likes".into()),
    }
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn watching(is_root: bool) -> Finding {
    if let Err(error) = DirectoryWatch::new() {
        return Warning(format!(
            "fanotify is not to be had ({error}): changes behind the mount show only after a second; {}",
            if is_root {
                "Linux 5.9 or newer has it"
            } else {
                "Linux 5.13 or newer has it for ordinary users"
            }
        ));
    }
    match number("/proc/sys/fs/fanotify/max_user_marks") {
        Some(marks) if marks < MARKS_GOOD => Warning(format!(
            "only {marks} directories can be watched, in the others changes behind the mount show after a second; allow more: \
             sysctl fs.fanotify.max_user_marks={MARKS_GOOD}"
        )),
        Some(marks) => Good(format!("{marks} directories can be watched with fanotify")),
        None => Good("directories can be watched with fanotify".into()),
    }
}

fn inotify() -> Finding {
    match number("/proc/sys/fs/inotify/max_user_instances") {
        Some(instances) if instances < INSTANCES_GOOD => Warning(format!(
            "a user may have only {instances} inotify instances, and each mount needs one; allow more: \
             sysctl fs.inotify.max_user_instances={INSTANCES_GOOD}"
        )),
        Some(instances) => Good(format!("a user may have {instances} inotify instances")),
        None => {
            Warning("there is no inotify: task files put there behind the mount are found every 2 s".into())
        }
    }
}

/// What is in force for a mount.
fn mounted(mountpoint: &Path) -> Vec<Finding> {
    let shown = mountpoint.display();
    if mounts::is_dead(mountpoint) {
        return vec![Problem(format!(
            "{shown} is a dead mount, its daemon is gone; clear it: crewfs umount {shown}"
        ))];
    }
    let mut findings = Vec::new();
    if !matches!(mounts::desk_of(mountpoint), Ok(Some(_))) {
        findings.push(Problem(format!("{shown} has no desk; mount it anew: crewfs umount {shown}")));
    }
    let mut value = vec![0; 1 << 16];
    let read = rustix::fs::getxattr(mountpoint, SESSION, &mut value[..]);
    let session = read.ok().and_then(|length| serde_json::from_slice::<Value>(&value[..length]).ok());
    match session {
        Some(session) => findings.extend(in_force(&session)),
        None => findings.push(Warning(format!(
            "{shown} does not tell what is in force; is the daemon of another version? mount it anew"
        ))),
    }
    findings
}

/// What each feature of the kernel is good for.
const FEATURES: [(&str, &str); 8] = [
    ("opens_not_reported", "files are opened and closed without asking the daemon"),
    ("opendirs_not_reported", "directories are opened without asking, and listings are remembered"),
    ("readdirplus", "a listing brings the attributes along"),
    ("readdirplus_auto", "a listing brings them along only where they are used"),
    ("handle_killpriv_v2", "a write need not look for file capabilities first"),
    ("cache_symlinks", "the targets of symbolic links are remembered"),
    ("async_dio", "direct reads and writes go side by side"),
    ("max_pages", "reads and writes of up to 1 MiB are one request"),
];

fn in_force(session: &Value) -> Vec<Finding> {
    let (tree, watch) = (&session["tree"], &session["watch"]);
    let mut findings = Vec::new();
    for (name, good_for) in FEATURES {
        findings.push(match tree["kernel"][name].as_bool() {
            Some(true) => Good(format!("{name}: {good_for}")),
            _ => Warning(format!("{name} is not in force: this kernel does not offer it; a newer one does")),
        });
    }
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let (long, short) = (number(&watch["watched_seconds"]), number(&watch["unwatched_seconds"]));
    findings.push(match (watch["by"].as_str(), number(&watch["unwatched"])) {
        (Some("fanotify"), 0) => Good(format!(
            "{} directories are watched; what the kernel knows of them lives {long} s, or until it changes",
            number(&watch["watched"])
        )),
        (Some("fanotify"), unwatched) => Warning(format!(
            "{} directories are watched, {unwatched} are not, and what the kernel knows of these lives {short} s: they are \
             on another disk, or there are more than fs.fanotify.max_user_marks",
            number(&watch["watched"])
        )),
        _ => Warning(format!(
            "nothing is watched, and what the kernel knows lives {short} s: {}; keep the project on a local disk \
             (ext4, xfs, btrfs, tmpfs, f2fs, bcachefs, zfs)",
            watch["why"].as_str().unwrap_or("no reason is given")
        )),
    });
    if number(&watch["lost"]) > 0 {
        findings.push(Warning(format!(
            "{} times more changed behind the mount than the kernel keeps, and everything was looked at anew; let it keep \
             more: sysctl fs.fanotify.max_queued_events",
            number(&watch["lost"])
        )));
    }
    findings.push(Good(format!("{} threads serve the tree", number(&tree["threads"]))));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kernels_are_judged_by_their_version() {
        assert!(matches!(judge_kernel("6.18.44-fc"), Good(_)));
        assert!(matches!(judge_kernel("5.10.0-28-amd64"), Warning(said) if said.contains("capabilities")));
        assert!(matches!(judge_kernel("5.15.0"), Good(_)));
        assert!(matches!(judge_kernel("3.10.0-1160.el7"), Problem(_)));
        assert!(matches!(judge_kernel("plan9"), Warning(_)));
    }

    #[test]
    fn what_is_not_in_force_is_said_with_its_reason() {
        let session = json!({
            "tree": {"threads": 4, "kernel": {"readdirplus": true}},
            "watch": {"by": "nothing", "why": "it rains", "unwatched_seconds": 1},
        });
        let findings = in_force(&session);
        let has = |part: &str, good: bool| {
            findings.iter().any(|finding| match finding {
                Good(said) => good && said.contains(part),
                Warning(said) | Problem(said) => !good && said.contains(part),
            })
        };
        assert!(has("readdirplus: ", true) && has("max_pages is not in force", false));
        assert!(has("lives 1 s: it rains", false) && has("4 threads", true));
    }
}
