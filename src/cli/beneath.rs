//! Opens paths below a directory that other users may change at any moment: in one step, by descriptor, never outside of it.
//!
//! May assume: nothing about what is there, nor that it stays.
//! Must never: follow a link out of the directory, or return a name where a descriptor will do.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::{Errno, Result};

/// How a symbolic link in the path is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// It is followed within the directory.
    Inside,
    /// It is an error (ELOOP).
    Refused,
}

/// Open a path below a directory. The empty path is the directory itself.
///
/// # Errors
/// Those of openat2(2): EXDEV where the path leads out of the directory.
pub(super) fn open(directory: impl AsFd, path: &Path, flags: OFlags, links: Links) -> Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = flags | OFlags::CLOEXEC;
    let mut way = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    if links == Links::Refused {
        way |= ResolveFlags::NO_SYMLINKS;
    }
    // EAGAIN: a part of the path was renamed meanwhile.
    for _ in 0..TRIES {
        match openat2(&directory, path, flags, Mode::empty(), way) {
            Err(Errno::AGAIN) => {}
            // Linux before 5.6, and sandboxes that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => return step_by_step(&directory, path, flags),
            outcome => return outcome,
        }
    }
    Err(Errno::AGAIN)
}

const TRIES: usize = 128;

/// The same without openat2(2). It follows no links.
fn step_by_step(directory: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat(directory, ".", step, Mode::empty())?;
    let mut names = path.components().peekable();
    while let Some(name) = names.next() {
        let name = match name {
            Component::Normal(name) => name,
            Component::CurDir => continue,
            _ => return Err(Errno::XDEV),
        };
        if names.peek().is_none() {
            let found = openat(&at, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
            let is_link =
                rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode).is_symlink();
            let wanted = flags.contains(OFlags::NOFOLLOW);
            return if is_link && !wanted { Err(Errno::LOOP) } else { Ok(found) };
        }
        at = match openat(&at, name, step, Mode::empty()) {
            // openat(2) with O_DIRECTORY and O_NOFOLLOW answers so for a link.
            Err(Errno::NOTDIR) => return Err(Errno::LOOP),
            outcome => outcome?,
        };
    }
    openat(&at, ".", flags, Mode::empty())
}

/// Open the file of a descriptor again with other flags. It is the same file, also if another one has its name by now.
pub(super) fn reopen(there: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", there.as_fd().as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_way_leads_out_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::write(inside.join("a/b/file"), "").unwrap();
        fs::write(dir.path().join("outside"), "").unwrap();
        symlink("../outside", inside.join("up")).unwrap();
        symlink("/", inside.join("root")).unwrap();
        symlink("a", inside.join("link")).unwrap();
        let root = rustix::fs::open(&inside, OFlags::PATH, Mode::empty()).unwrap();
        let modern = |path: &str, links| open(&root, Path::new(path), OFlags::PATH, links).map(|_| ());
        let older = |path: &str| step_by_step(&root, Path::new(path), OFlags::PATH).map(|_| ());
        for path in ["", "a", "a/b", "a/b/file", "./a/b"] {
            assert_eq!(modern(path, Links::Refused), Ok(()), "{path}");
            assert_eq!(modern(path, Links::Inside), Ok(()), "{path}");
            assert_eq!(older(path), Ok(()), "{path}");
        }
        for path in ["..", "up", "root", "root/tmp", "/", "a/../../outside"] {
            assert!(modern(path, Links::Refused).is_err(), "{path}");
            assert_eq!(modern(path, Links::Inside), Err(Errno::XDEV), "{path}");
            assert!(older(path).is_err(), "{path}");
        }
        for path in ["link", "link/b"] {
            assert_eq!(modern(path, Links::Inside), Ok(()), "{path}");
            assert_eq!(
                (modern(path, Links::Refused), older(path)),
                (Err(Errno::LOOP), Err(Errno::LOOP)),
                "{path}"
            );
        }
        assert_eq!((modern("none", Links::Inside), older("none")), (Err(Errno::NOENT), Err(Errno::NOENT)));
        let link = open(&root, Path::new("link"), OFlags::PATH | OFlags::NOFOLLOW, Links::Inside);
        assert!(link.is_ok(), "a link may be asked for itself");
    }
}
