//! What is at a path now, for the history: its attributes, and a way to its content that no rename changes.
//!
//! Must never: follow a symbolic link, or wait for a process that has a lease on a file.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Dir, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::{Files, attr, stat_of};
use crate::fs::{Attr, Ino, Result};

/// What is at a path. [`Attr::ino`] is the number on the disk.
pub struct Present {
    /// Its attributes.
    pub attr: Attr,
    /// Its `O_PATH` descriptor.
    pub path: Arc<OwnedFd>,
}

impl Files {
    /// What is at a name; `None` if there is nothing.
    pub fn present_at(&self, parent: Ino, name: &OsStr) -> Result<Option<Present>> {
        let directory = self.descriptor(parent)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.making_room(|| openat(&directory, name, flags, Mode::empty())).map_or_else(absent, present)
    }

    /// What is at a path from the root; `None` if there is nothing.
    pub fn present_at_path(&self, path: &Path) -> Result<Option<Present>> {
        let root = self.root();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let way = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let open = || openat2(&root, path, flags, Mode::empty(), way);
        // The flag would refuse a path whose last part is a link.
        match self.making_room(open) {
            Err(Errno::LOOP) => {
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                let directory = openat2(&root, parent, flags | OFlags::DIRECTORY, Mode::empty(), way);
                directory
                    .and_then(|directory| openat(directory, name, flags, Mode::empty()))
                    .map_or_else(absent, present)
            }
            opened => opened.map_or_else(absent, present),
        }
    }

    /// The file of a node.
    pub fn present(&self, ino: Ino) -> Result<Present> {
        let path = self.descriptor(ino)?;
        let stat = stat_of(&path)?;
        Ok(Present { attr: attr(stat.stx_ino, &stat)?, path })
    }

    /// Open its content for reading.
    ///
    /// # Errors
    /// EAGAIN while another process has a lease on it.
    pub fn open_present(&self, present: &Present) -> rustix::io::Result<OwnedFd> {
        self.reopen(&present.path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    /// Whether a directory has no entries.
    pub fn is_empty_directory(&self, present: &Present) -> bool {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let listed = self.reopen(&present.path, flags).and_then(Dir::new);
        listed.is_ok_and(|mut listed| {
            listed.all(|entry| entry.is_ok_and(|it| matches!(it.file_name().to_bytes(), b"." | b"..")))
        })
    }
}

impl Present {
    /// The target of a symbolic link.
    ///
    /// # Errors
    /// Those of readlinkat(2).
    pub fn target(&self) -> rustix::io::Result<OsString> {
        readlinkat(&self.path, "", Vec::new()).map(|target| OsString::from_vec(target.into_bytes()))
    }
}

fn present(path: OwnedFd) -> Result<Option<Present>> {
    let stat = stat_of(&path)?;
    Ok(Some(Present { attr: attr(stat.stx_ino, &stat)?, path: Arc::new(path) }))
}

fn absent(error: Errno) -> Result<Option<Present>> {
    match error {
        Errno::NOENT | Errno::NOTDIR => Ok(None),
        error => Err(error.into()),
    }
}
