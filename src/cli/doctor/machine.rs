//! The machine: device, kernel, helpers, and limits that mounting takes.

use std::fs;

use super::Finding::{self, Good, Problem, Warning};
use super::number;
use crate::sys::{self, DirectoryWatch};

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

pub(super) fn findings() -> Vec<Finding> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_judged_by_their_version() {
        assert!(matches!(judge_kernel("6.18.44-fc"), Good(_)));
        assert!(matches!(judge_kernel("5.10.0-28-amd64"), Warning(said) if said.contains("capabilities")));
        assert!(matches!(judge_kernel("5.15.0"), Good(_)));
        assert!(matches!(judge_kernel("3.10.0-1160.el7"), Problem(_)));
        assert!(matches!(judge_kernel("plan9"), Warning(_)));
    }
}
