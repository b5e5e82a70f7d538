//! Confines a program to one directory: its root directory holds that and what any program needs.
//!
//! May assume: this process has one thread, and starts the program next.
//! Must never: start the program after a step has failed.
//!
//! The process gets a mount namespace with a new root. The root holds the directory at its own path, `/usr`, the links into `/usr`,
//! and a few files of `/etc`. Everything else is unmounted, so neither `..` nor an absolute path nor a symbolic link leads out.
//! An ordinary user needs a user namespace for that.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, openat, statvfs};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};
use rustix::process::{chdir, fchdir, getegid, geteuid, pivot_root};
use thiserror::Error;

use crate::sys;

/// The new root is assembled here. Every system has this directory, and no other mount namespace sees what is mounted on it.
const WORKSHOP: &str = "/tmp";
/// Programs and libraries, and the links or directories by which some systems reach them.
const SYSTEM: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// What a program needs that is dynamically linked and looks up the name of its user; and `/dev/null`.
const FILES: [&str; 6] =
    ["etc/ld.so.cache", "etc/passwd", "etc/group", "etc/nsswitch.conf", "etc/localtime", "dev/null"];

/// Why a process cannot be confined.
#[derive(Debug, Error)]
pub enum ConfineError {
    /// The machine does not allow this user a namespace.
    #[error("this machine does not let ordinary users have namespaces of their own ({0})")]
    NotAllowed(io::Error),
    /// A step failed.
    #[error("{what}: {why}")]
    Step {
        /// The step.
        what: String,
        /// Why it failed.
        why: io::Error,
    },
}

impl ConfineError {
    /// The kernel's error.
    pub fn why(&self) -> &io::Error {
        match self {
            ConfineError::NotAllowed(why) | ConfineError::Step { why, .. } => why,
        }
    }
}

fn step<T, E: Into<io::Error>>(what: impl Into<String>, outcome: Result<T, E>) -> Result<T, ConfineError> {
    outcome.map_err(|why| ConfineError::Step { what: what.into(), why: why.into() })
}

/// Confine this process, and all that it starts, to an open directory. The directory is mounted at `place`, an absolute path without
/// links. It is reached by its descriptor alone, because another directory may have its name by now.
///
/// # Errors
/// Why the process cannot be confined. It must not go on then.
pub fn to(directory: impl AsFd, place: &Path) -> Result<(), ConfineError> {
    let what = || format!("{} cannot be shown", place.display());
    // A descriptor stays in the mount namespace in which it was opened, and cannot be mounted in another one. The current directory
    // moves along.
    step(what(), fchdir(directory))?;
    own_namespaces()?;
    let shown = step(what(), openat(CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    step("a new root cannot be made", mount("crewfs", WORKSHOP, "tmpfs", flags, Some(c"mode=0755,size=1m")))?;
    let workshop = Path::new(WORKSHOP);
    for name in SYSTEM {
        bring(&Path::new("/").join(name), &workshop.join(name))?;
    }
    for name in FILES {
        bring(&Path::new("/").join(name), &workshop.join(name))?;
    }
    let place = workshop.join(place.strip_prefix("/").unwrap_or(place));
    step(what(), fs::create_dir_all(&place))?;
    step(what(), mount_bind_recursive(descriptor(&shown), &place))?;
    drop(shown);
    step("the new root cannot be entered", chdir(WORKSHOP))?;
    step("the new root cannot be put in place", pivot_root(".", "."))?;
    step("the old root cannot be taken away", unmount(".", UnmountFlags::DETACH))?;
    step("the new root cannot be entered", chdir("/"))?;
    step("the new root cannot be closed", read_only(Path::new("/")))?;
    step("new privileges cannot be given up", rustix::thread::set_no_new_privs(true))
}

/// Give this process a mount namespace of its own, whose mounts are not seen outside. A process that is not root also gets the user
/// namespace that this needs, with the same user id.
///
/// # Errors
/// Why the machine does not allow it.
pub fn own_namespaces() -> Result<(), ConfineError> {
    let (uid, gid) = (geteuid(), getegid());
    let ordinary = !uid.is_root();
    sys::unshare_namespaces(ordinary).map_err(ConfineError::NotAllowed)?;
    if ordinary {
        let map = |id: u32| format!("{id} {id} 1");
        step("group rights cannot be given up", fs::write("/proc/self/setgroups", "deny"))?;
        step("the user cannot be mapped", fs::write("/proc/self/uid_map", map(uid.as_raw())))?;
        step("the group cannot be mapped", fs::write("/proc/self/gid_map", map(gid.as_raw())))?;
    }
    let propagation = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    step("mounts cannot be made private", mount_change("/", propagation))
}

/// A path to an open file, whatever its name is.
fn descriptor(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Mount `from` read-only at `to`, if it exists. A link is copied as a link.
fn bring(from: &Path, to: &Path) -> Result<(), ConfineError> {
    let what = || format!("{} cannot be shown", from.display());
    let Ok(there) = fs::symlink_metadata(from) else { return Ok(()) };
    step(what(), fs::create_dir_all(to.parent().unwrap_or(to)))?;
    if there.is_symlink() {
        let target = step(what(), fs::read_link(from))?;
        return step(what(), std::os::unix::fs::symlink(target, to));
    }
    if there.is_dir() {
        step(what(), fs::create_dir(to))?;
        step(what(), mount_bind_recursive(from, to))?;
    } else {
        step(what(), fs::File::create(to))?;
        step(what(), mount_bind(from, to))?;
    }
    // A device must stay writable.
    if there.is_dir() || there.is_file() { step(what(), read_only(to)) } else { Ok(()) }
}

/// Make one mount read-only. The kernel refuses a remount that leaves out a restriction the mount already has.
fn read_only(place: &Path) -> Result<(), Errno> {
    const KEPT: [(StatVfsMountFlags, MountFlags); 6] = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let now = statvfs(place)?.f_flag;
    let kept = KEPT.into_iter().filter(|(flag, _)| now.contains(*flag)).map(|(_, flag)| flag);
    let flags = kept.fold(MountFlags::BIND | MountFlags::RDONLY, |flags, flag| flags | flag);
    mount_remount(place, flags, "")
}
