//! Checks the machine: the device, fusermount3, and the limits that a mount needs.

use std::fs;

use super::finding::Finding::{self, Good, Problem, Warning};
use super::system::number;
use crate::daemon::requirements;
use crate::sys::{self, DirectoryWatch};

/// Descriptors below which the daemon often opens and closes files.
const DESCRIPTORS_GOOD: u64 = 4_096;
/// Watched directories below which a large project has too many directories.
const MARKS_GOOD: u64 = 65_536;
/// Inotify instances below which other programs of the user may leave none. Each mount needs one.
const INSTANCES_GOOD: u64 = 16;

pub(super) fn findings() -> Vec<Finding> {
    let is_root = sys::is_root();
    let mut findings: Vec<_> =
        requirements::processes().err().map(|error| Problem(error.to_string())).into_iter().collect();
    findings.extend([
        device(),
        helper(is_root),
        others(is_root),
        descriptors(),
        watching(is_root),
        inotify(),
    ]);
    findings
}

fn device() -> Finding {
    match requirements::device() {
        Ok(()) => Good("/dev/fuse can be opened".into()),
        Err(error) => Problem(error.to_string()),
    }
}

fn helper(is_root: bool) -> Finding {
    match requirements::helper() {
        Ok(found) => Good(format!("{} mounts for ordinary users", found.display())),
        Err(error) if is_root => Good(format!("root mounts by itself; for ordinary users: {error}")),
        Err(error) => Problem(error.to_string()),
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

fn descriptors() -> Finding {
    // The daemon raises its limit to the hard one.
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum {
        Some(limit) if limit < DESCRIPTORS_GOOD => Warning(format!(
            "a process may open only {limit} files; allow {DESCRIPTORS_GOOD} or more: ulimit -Hn, or LimitNOFILE= of a service"
        )),
        Some(limit) => Good(format!("a process may open {limit} files")),
        None => Good("a process may open as many files as it likes".into()),
    }
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
