//! Where something is mounted: a name in a directory that is held by a descriptor.
//!
//! May assume: nothing about which users may rename, replace or cover the directory, or one above it.
//! Must never: follow a symbolic link, unmount another mount than the given one, or ask a filesystem that is mounted there. A daemon
//! that hangs must not block the caller.
//!
//! A mount cannot be unmounted through a descriptor of itself, because the descriptor keeps it in use. So it is unmounted by its name in
//! the parent directory, after a check of what the name leads to. Between the two, a user with write permission there could only put
//! another mount in its place. That takes root, or is a mount of that user's own.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, readlinkat, statx,
};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::geteuid;

/// The device number of a mounted filesystem: major, minor. No two have the same at one time.
pub type Device = (u32, u32);

const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How many symbolic links a path may lead through, as in the kernel.
const LINKS: usize = 40;

/// The place of a mount.
#[derive(Debug)]
pub struct MountPoint {
    parent: OwnedFd,
    name: OsString,
    shown: PathBuf,
}

impl MountPoint {
    /// The place at an absolute path. A symbolic link in the path is an error.
    ///
    /// # Errors
    /// Those of openat2(2) for the parent directory. EBUSY for the root directory, which has no parent.
    pub fn at(path: &Path) -> rustix::io::Result<MountPoint> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::BUSY) };
        let parent = open_without_links(parent)?;
        Ok(MountPoint { parent, name: name.to_owned(), shown: path.to_path_buf() })
    }

    /// The place with this name in the mount at this place, if that is the given mount.
    ///
    /// # Errors
    /// Those of openat(2). EINVAL if another mount is there, or none.
    pub fn below(&self, mount: Device, name: impl AsRef<OsStr>) -> rustix::io::Result<MountPoint> {
        let parent = self.open()?;
        if device_of(&parent)? != mount {
            return Err(Errno::INVAL);
        }
        Ok(MountPoint { parent, name: name.as_ref().to_owned(), shown: self.shown.join(name.as_ref()) })
    }

    /// Its path, for messages.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// Open what is there now: the root of the youngest mount, or a directory.
    ///
    /// # Errors
    /// Those of openat(2). ENOTDIR or ELOOP for a symbolic link.
    pub fn open(&self) -> rustix::io::Result<OwnedFd> {
        openat(&self.parent, &*self.name, PLACE, Mode::empty())
    }

    /// Unmount the given mount.
    ///
    /// # Errors
    /// Those of umount2(2). EINVAL if another mount is there, or none.
    pub fn unmount(&self, mount: Device, detach: bool) -> rustix::io::Result<()> {
        // The descriptor is closed before the unmount, because it keeps the mount in use.
        if self.open().and_then(device_of)? != mount {
            return Err(Errno::INVAL);
        }
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", self.parent.as_raw_fd()));
        path.push(&self.name);
        let flags = if detach { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        unmount(path, flags | UnmountFlags::NOFOLLOW)
    }
}

/// The device number of an open file. Only the kernel is asked, not the filesystem.
///
/// # Errors
/// Those of statx(2).
pub fn device_of(fd: impl AsFd) -> rustix::io::Result<Device> {
    let asked = statx(fd, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::empty())?;
    Ok((asked.stx_dev_major, asked.stx_dev_minor))
}

/// The same for a path.
///
/// # Errors
/// Those of statx(2).
pub fn device_at(path: &Path) -> rustix::io::Result<Device> {
    let asked = statx(CWD, path, AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT, StatxFlags::empty())?;
    Ok((asked.stx_dev_major, asked.stx_dev_minor))
}

/// Open a directory (`O_PATH`) by a path that has no symbolic link in it.
///
/// # Errors
/// Those of openat2(2). ELOOP for a link.
pub fn open_without_links(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Before Linux 5.6, and in a sandbox that does not know the call, only a link as the last part is refused.
        Err(Errno::NOSYS | Errno::PERM) => openat(CWD, path, flags | OFlags::NOFOLLOW, Mode::empty()),
        opened => opened,
    }
}

/// Why a path is not resolved.
#[derive(Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// A system call failed.
    Failed(Errno),
    /// This symbolic link on the path belongs to another ordinary user, and could be changed to lead anywhere.
    LinkOf(PathBuf, u32),
}

/// Resolve a path to an absolute one without symbolic links. Only links of this user and of root are followed. A filesystem on the path is
/// asked only for lookups.
///
/// # Errors
/// See [`Unresolved`].
pub fn resolve(path: &Path) -> Result<PathBuf, Unresolved> {
    let failed = Unresolved::Failed;
    let parts = |path: &Path| -> Vec<OsString> {
        let named = |part: Component<'_>| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        };
        path.components().rev().filter_map(named).collect()
    };
    // In reverse order: the next part is the last item.
    let mut rest = parts(&std::path::absolute(path).map_err(|_| failed(Errno::INVAL))?);
    let (mut found, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = rest.pop() {
        if part == ".." {
            found.pop();
            continue;
        }
        let within = open_without_links(&found).map_err(failed)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(within, &*part, flags, Mode::empty()).map_err(failed)?;
        let asked = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let stat = statx(&fd, "", asked, StatxFlags::TYPE | StatxFlags::UID).map_err(failed)?;
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::Symlink {
            found.push(part);
            continue;
        }
        if ![0, geteuid().as_raw()].contains(&stat.stx_uid) {
            return Err(Unresolved::LinkOf(found.join(part), stat.stx_uid));
        }
        links += 1;
        if links > LINKS {
            return Err(failed(Errno::LOOP));
        }
        let to = readlinkat(&fd, "", Vec::new()).map_err(failed)?;
        let to = Path::new(OsStr::from_bytes(to.to_bytes()));
        if to.is_absolute() {
            found = PathBuf::from("/");
        }
        rest.extend(parts(to));
    }
    Ok(found)
}

/// Unmount a mount of an ordinary user by fusermount3. The user itself may not.
///
/// # Errors
/// Why it does not, as it says, or why it cannot be run.
pub fn unmount_by_helper(place: &Path, detach: bool) -> io::Result<()> {
    let mut helper = std::process::Command::new("fusermount3");
    helper.arg("-u").args(detach.then_some("-z")).arg("--").arg(place);
    let output = helper.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_no_place_and_leads_to_none() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        fs::create_dir_all(dir.join("real/place")).unwrap();
        let place = MountPoint::at(&dir.join("real/place")).unwrap();
        assert!(place.open().is_ok());
        fs::rename(dir.join("real/place"), dir.join("real/other")).unwrap();
        symlink("other", dir.join("real/place")).unwrap();
        assert!(matches!(place.open(), Err(Errno::NOTDIR | Errno::LOOP)));
        symlink("real", dir.join("link")).unwrap();
        assert_eq!(MountPoint::at(&dir.join("link/other")).unwrap_err(), Errno::LOOP);
        assert_eq!(MountPoint::at(Path::new("/")).unwrap_err(), Errno::BUSY);
    }

    #[test]
    fn only_the_given_mount_is_taken_away_or_gone_into() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("place");
        fs::create_dir(&path).unwrap();
        let place = MountPoint::at(&path).unwrap();
        let own = place.open().and_then(device_of).unwrap();
        let other = (own.0, own.1 + 1);
        assert_eq!(place.unmount(other, true).unwrap_err(), Errno::INVAL);
        assert_eq!(place.below(other, "x").unwrap_err(), Errno::INVAL);
        assert_eq!(place.below(own, "x").unwrap().open().unwrap_err(), Errno::NOENT);
        assert_eq!(place.below(own, "x").unwrap().shown(), path.join("x"));
    }

    #[test]
    fn a_path_is_resolved_by_links_of_its_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        fs::create_dir_all(dir.join("a/b")).unwrap();
        symlink("a/b/..", dir.join("relative")).unwrap();
        symlink(dir.join("relative"), dir.join("absolute")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        for path in ["a/b", "a/b/../b/.", "relative/b", "absolute/b", "a/../absolute/b/../../relative/b"] {
            assert_eq!(resolve(&dir.join(path)), Ok(dir.join("a/b")), "{path}");
            assert_eq!(dir.join(path).canonicalize().unwrap(), dir.join("a/b"), "{path}");
        }
        assert_eq!(resolve(&dir.join("none")), Err(Unresolved::Failed(Errno::NOENT)));
        assert_eq!(resolve(&dir.join("loop")), Err(Unresolved::Failed(Errno::LOOP)));
        assert_eq!(resolve(Path::new("/..")), Ok("/".into()));
        if geteuid().is_root() {
            std::os::unix::fs::lchown(dir.join("relative"), Some(4321), None).unwrap();
            assert_eq!(resolve(&dir.join("absolute/b")), Err(Unresolved::LinkOf(dir.join("relative"), 4321)));
        }
    }
}
