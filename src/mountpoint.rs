//! A place for a mount: a name in a directory that is held by a descriptor.
//!
//! May assume: nothing about who may rename, replace or cover what lies there, or above it.
//! Must never: follow a symbolic link, unmount what it was not told to, or ask a filesystem that is mounted there: one whose daemon
//! hangs must not stop who asks.
//!
//! A mount cannot be taken away through a descriptor of itself, since that keeps it in use. So it is taken away by its name in the
//! directory above, after a look at what the name leads to. Between the two, a user who may write in that directory could only put another
//! mount there, which takes root, or a mount of that user's own.

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

/// The number of a filesystem that is mounted: major and minor. No two have the same at one time.
pub type Device = (u32, u32);

const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How many symbolic links a path may lead through, as for the kernel.
const LINKS: usize = 40;

/// A place.
#[derive(Debug)]
pub struct MountPoint {
    parent: OwnedFd,
    name: OsString,
    shown: PathBuf,
}

impl MountPoint {
    /// The one at this path, which is absolute and without symbolic links: if there is one by now, that is an error.
    ///
    /// # Errors
    /// Those of openat2(2) for the directory above; EBUSY for the root, which has none.
    pub fn at(path: &Path) -> rustix::io::Result<MountPoint> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::BUSY) };
        let parent = open_without_links(parent)?;
        Ok(MountPoint { parent, name: name.to_owned(), shown: path.to_path_buf() })
    }

    /// The one with this name in the mount that is at this place, if that mount is the given one.
    ///
    /// # Errors
    /// Those of openat(2); EINVAL if another one is there, or none.
    pub fn below(&self, mount: Device, name: impl AsRef<OsStr>) -> rustix::io::Result<MountPoint> {
        let parent = self.open()?;
        if device_of(&parent)? != mount {
            return Err(Errno::INVAL);
        }
        Ok(MountPoint { parent, name: name.as_ref().to_owned(), shown: self.shown.join(name.as_ref()) })
    }

    /// Where it is, for people.
    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// What is there now: the root of the youngest mount, or a directory.
    ///
    /// # Errors
    /// Those of openat(2); ENOTDIR or ELOOP for a symbolic link.
    pub fn open(&self) -> rustix::io::Result<OwnedFd> {
        openat(&self.parent, &*self.name, PLACE, Mode::empty())
    }

    /// Take the given mount away.
    ///
    /// # Errors
    /// Those of umount2(2); EINVAL if another one is there, or none.
    pub fn unmount(&self, mount: Device, detach: bool) -> rustix::io::Result<()> {
        // Closed before it is unmounted, for it keeps the mount in use.
        if self.open().and_then(device_of)? != mount {
            return Err(Errno::INVAL);
        }
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", self.parent.as_raw_fd()));
        path.push(&self.name);
        let flags = if detach { UnmountFlags::DETACH } else { UnmountFlags::empty() };
        unmount(path, flags | UnmountFlags::NOFOLLOW)
    }
}

/// On which filesystem it lies. That is asked of the kernel alone.
///
/// # Errors
/// Those of statx(2).
pub fn device_of(fd: impl AsFd) -> rustix::io::Result<Device> {
    let asked = statx(fd, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::empty())?;
    Ok((asked.stx_dev_major, asked.stx_dev_minor))
}

/// The same of what a path leads to.
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
/// Those of openat2(2); ELOOP where there is a link.
pub fn open_without_links(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Before Linux 5.6, and in a sandbox that does not know the call, there is no such promise but for the last part.
        Err(Errno::NOSYS | Errno::PERM) => openat(CWD, path, flags | OFlags::NOFOLLOW, Mode::empty()),
        opened => opened,
    }
}

/// Why a path is not resolved.
#[derive(Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// A system call failed.
    Failed(Errno),
    /// This symbolic link on its way belongs to another ordinary user, who could lead it anywhere.
    LinkOf(PathBuf, u32),
}

/// The absolute path without symbolic links to which a path leads, by links of this user and of root alone. What is mounted on its
/// way is not asked more than the lookup of names takes.
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
    // Backwards: the next part is the last one.
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

/// Have fusermount3 take away what an ordinary user has mounted: only that helper may.
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
