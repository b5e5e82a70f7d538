//! The project as undo sees it: the versions below a directory, by descriptor.
//!
//! May assume: nothing about what is there, nor that it stays.
//! Must never: follow a symbolic link, wait for a pipe, or reach anything outside of the directory.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, chmod, fstat, readlinkat, statat};
use rustix::io::Errno;

use crate::cli::beneath::{self, Links};
use crate::history::undo::{DirectoryUse, content_id};
use crate::history::{KeptContent, Version, VersionKind};
use crate::limits::UNDO_FILE_BYTES;

/// A directory that all paths start from.
pub(super) struct ProjectTree {
    root: OwnedFd,
}

impl ProjectTree {
    pub(super) fn new(root: OwnedFd) -> ProjectTree {
        ProjectTree { root }
    }

    /// The directory of a path, and the path's last name.
    pub(super) fn parent_of<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a Path)> {
        let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let name = path.file_name().filter(|_| is_plain).ok_or(Errno::INVAL)?;
        let parent = self.open(path.parent().unwrap_or(Path::new("")), OFlags::PATH | OFlags::DIRECTORY)?;
        Ok((parent, Path::new(name)))
    }

    /// Open what is at a path. A link there is not followed.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        // openat2(2) refuses others together with O_PATH.
        let more = if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NOCTTY };
        beneath::open(&self.root, path, flags | more | OFlags::NOFOLLOW, Links::Refused)
    }

    /// The version at a path. A directory that is not empty is none. Without `read`, the content of a file counts as not kept.
    pub(super) fn version(&self, path: &Path, read: bool) -> io::Result<Option<Version>> {
        Ok(self.found(path, read)?.map(|(version, _)| version))
    }

    /// The content of the file or link at a path.
    pub(super) fn content(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.found(path, true)?.and_then(|(_, content)| content))
    }

    /// The version `like`, with the mode and the owner of what is at a path.
    pub(super) fn attributes(&self, path: &Path, like: &Version) -> io::Result<Version> {
        let stat = fstat(self.open(path, OFlags::PATH)?)?;
        Ok(version(&stat, like.kind, like.content))
    }

    /// Set the mode of a file or a directory. It is opened first, so that no link can take its place.
    pub(super) fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        let there = self.open(path, OFlags::PATH)?;
        if FileType::from_raw_mode(fstat(&there)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP.into());
        }
        Ok(chmod(format!("/proc/self/fd/{}", there.as_raw_fd()), Mode::from(mode))?)
    }

    /// The directory at a path, by what it holds besides these paths and directories of them.
    pub(super) fn directory(&self, path: &Path, besides: &HashSet<&Path>) -> DirectoryUse {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(_) => DirectoryUse::Missing,
            Ok(_) if self.holds(path, besides) => DirectoryUse::InUse,
            Ok(_) => DirectoryUse::Free,
        }
    }

    /// Whether a directory holds something else. One that cannot be listed does.
    fn holds(&self, path: &Path, besides: &HashSet<&Path>) -> bool {
        let listed = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY).and_then(Dir::new);
        let Ok(listed) = listed else { return true };
        for entry in listed {
            let Ok(entry) = entry else { return true };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let inner = path.join(name);
            if name == "." || name == ".." || besides.contains(&*inner) {
                continue;
            }
            let leads_on = besides.iter().any(|path| path.starts_with(&inner));
            if !leads_on || self.directory(&inner, besides) != DirectoryUse::Free {
                return true;
            }
        }
        false
    }

    fn found(&self, path: &Path, read: bool) -> io::Result<Option<(Version, Option<Vec<u8>>)>> {
        let absent = |error: &io::Error| {
            // A path through a file or through a link leads nowhere in the tree.
            let absent = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].map(Errno::raw_os_error);
            error.raw_os_error().is_some_and(|error| absent.contains(&error))
        };
        let (parent, name) = match self.parent_of(path) {
            Err(error) if absent(&error) => return Ok(None),
            parent => parent?,
        };
        let stat = match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            stat => stat?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                // A pipe may have taken the file's place.
                let file = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
                of_file(&file, read).map(|(version, content)| Some((version, content)))
            }
            FileType::Symlink => {
                let target = readlinkat(&parent, name, Vec::new())?.into_bytes();
                let content = KeptContent::Kept(content_id(&target));
                Ok(Some((version(&stat, VersionKind::Symlink, content), Some(target))))
            }
            FileType::Directory if self.holds(path, &HashSet::new()) => Ok(None),
            FileType::Directory => {
                let content = KeptContent::NotKept { bytes: 0 };
                Ok(Some((version(&stat, VersionKind::Directory, content), None)))
            }
            _ => Err(io::Error::other("it is neither a file, nor a directory, nor a symbolic link")),
        }
    }
}

/// The version of an open file, and its content, unless it is too large or is not to be read.
pub(super) fn of_file(file: impl AsFd, read: bool) -> io::Result<(Version, Option<Vec<u8>>)> {
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it was replaced by something that is not a file"));
    }
    let bytes = u64::try_from(stat.st_size).unwrap_or_default();
    if !read || bytes > UNDO_FILE_BYTES {
        return Ok((version(&stat, VersionKind::File, KeptContent::NotKept { bytes }), None));
    }
    let mut file = File::from(file.as_fd().try_clone_to_owned()?);
    let mut content = Vec::with_capacity(bytes as usize);
    io::Seek::rewind(&mut file)?;
    file.take(UNDO_FILE_BYTES).read_to_end(&mut content)?;
    let kept = KeptContent::Kept(content_id(&content));
    Ok((version(&stat, VersionKind::File, kept), Some(content)))
}

fn version(stat: &Stat, kind: VersionKind, content: KeptContent) -> Version {
    Version { kind, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, content }
}
