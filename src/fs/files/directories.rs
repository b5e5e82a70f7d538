//! Listing directories.
//!
//! May assume: the kernel lets one reader at a time into an open directory.
//! Must never: hold a whole directory. Positions are the disk's own cookies, so seekdir(3) works for any size.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, fsync, openat, seek, statat};
use rustix::io::{Errno, retry_on_intr};

use super::Files;
use crate::fs::{DirEntry, Fault, FileKind, FsError, Ino, Result};
use crate::limits;

struct RawEntry {
    ino: Ino,
    next: u64,
    kind: FileKind,
    name: OsString,
}

/// An open directory, and the entries read from the disk that no listing has taken yet.
pub(super) struct OpenDirectory {
    fd: Arc<OwnedFd>,
    /// The position of the first entry in `lines`.
    position: u64,
    lines: VecDeque<RawEntry>,
    /// Used since the last [`Files::close_idle`].
    used: bool,
    /// Whether other listings move the position of the descriptor too.
    is_shared: bool,
}

impl OpenDirectory {
    fn new(fd: Arc<OwnedFd>, is_shared: bool) -> OpenDirectory {
        OpenDirectory { fd, position: 0, lines: VecDeque::new(), used: true, is_shared }
    }
}

impl Files {
    /// Open a directory for listing. The answer is its handle.
    pub fn opendir(&self, ino: Ino) -> Result<u64> {
        let directory = self.open_listing(ino)?;
        let fh = self.next_directory.fetch_add(1, Ordering::Relaxed);
        self.directories.lock().insert(fh, Arc::new(Mutex::new(directory)));
        Ok(fh)
    }

    fn open_listing(&self, ino: Ino) -> Result<OpenDirectory> {
        match self.open_directory(ino) {
            Err(error) if error.errno() == libc::EACCES => {
                self.lasting_descriptor(ino).map(|fd| OpenDirectory::new(fd, true)).ok_or(error)
            }
            opened => Ok(OpenDirectory::new(Arc::new(opened?), false)),
        }
    }

    pub(super) fn open_directory(&self, ino: Ino) -> Result<OwnedFd> {
        let path = self.descriptor(ino)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(self.making_room(|| openat(&path, ".", flags, Mode::empty()))?)
    }

    /// List from `offset` until `sink` returns false. The answer is whether the end was reached.
    pub fn readdir(
        &self,
        ino: Ino,
        fh: u64,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool> {
        let directory = self.directory(fh)?;
        self.list_open(ino, &mut directory.lock(), offset, sink)
    }

    /// As [`Files::readdir`], for a directory that has no handle. It is kept open until its listing ends, or until it is idle or
    /// evicted by others.
    pub fn list(&self, ino: Ino, offset: u64, sink: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<bool> {
        let kept = self.listings.lock().get(ino).cloned();
        let directory = match kept {
            Some(directory) => directory,
            None => {
                let directory = Arc::new(Mutex::new(self.open_listing(ino)?));
                let _evicted = self.listings.lock().insert(ino, directory.clone());
                directory
            }
        };
        let (mut taken, mut open) = (false, directory.lock());
        open.used = true;
        let ended = self.list_open(ino, &mut open, offset, &mut |line| {
            let took = sink(line);
            taken |= took;
            took
        })?;
        drop(open);
        // The kernel asks once more after the last entry. After that the listing is over.
        if ended && !taken {
            let _closed = self.listings.lock().remove(ino);
        }
        Ok(ended)
    }

    /// Close the directories without a listing since the last call.
    pub(super) fn close_idle_listings(&self) {
        let idle = self.listings.lock().take_if(|directory| {
            // A held lock means that a listing is under way.
            directory.try_lock().is_some_and(|mut open| !std::mem::replace(&mut open.used, false))
        });
        drop(idle);
    }

    /// Sync the entries of a directory without a handle to the disk.
    pub fn fsync_directory(&self, ino: Ino) -> Result<()> {
        let fd = self.open_listing(ino)?.fd;
        Ok(retry_on_intr(|| fsync(&fd))?)
    }

    fn list_open(
        &self,
        ino: Ino,
        directory: &mut OpenDirectory,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool> {
        // A listing from the start reads the disk anew, as rewinddir(3) promises.
        if offset == 0 || offset != directory.position {
            directory.lines.clear();
            seek(&directory.fd, SeekFrom::Start(offset))?;
            directory.position = offset;
        }
        loop {
            while let Some(RawEntry { ino, next, kind, name }) = directory.lines.front() {
                let next = *next;
                if !sink(DirEntry { ino: *ino, next, kind: *kind, name }) {
                    return Ok(false);
                }
                directory.position = next;
                directory.lines.pop_front();
            }
            self.refill(ino, directory)?;
            if directory.lines.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Close a directory handle.
    pub fn releasedir(&self, fh: u64) {
        let _closed_after_the_lock = self.directories.lock().remove(&fh);
    }

    /// Sync a directory's entries to the disk.
    pub fn fsyncdir(&self, fh: u64) -> Result<()> {
        let fd = self.directory(fh)?.lock().fd.clone();
        Ok(retry_on_intr(|| fsync(&fd))?)
    }

    fn directory(&self, fh: u64) -> Result<Arc<Mutex<OpenDirectory>>> {
        self.directories.lock().get(&fh).cloned().ok_or(FsError::Plain(Fault::NoHandle))
    }

    fn refill(&self, ino: Ino, directory: &mut OpenDirectory) -> Result<()> {
        let mut buffer = Vec::with_capacity(limits::DIRECTORY_BATCH);
        let _alone = if directory.is_shared { Some(self.listing.lock()) } else { None };
        if directory.is_shared {
            seek(&directory.fd, SeekFrom::Start(directory.position))?;
        }
        let mut entries = RawDir::new(directory.fd.as_fd(), buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // The directory was removed while open: its listing is empty, as on the disk.
                Err(Errno::NOENT) => break,
                Err(error) => return Err(error.into()),
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if let Some(kind) = kind_of(&directory.fd, name, entry.file_type()) {
                directory.lines.push_back(RawEntry {
                    ino: entry.ino(),
                    next: entry.next_entry_cookie(),
                    kind,
                    name: name.to_owned(),
                });
            }
            // One batch at a time, unless it had no entry that can be shown.
            if entries.is_buffer_empty() && !directory.lines.is_empty() {
                break;
            }
        }
        let inodes = self.inodes.lock();
        let dev = inodes.dev(ino);
        for line in &mut directory.lines {
            line.ino = match line.name.as_bytes() {
                b"." => ino,
                b".." => inodes.parent(ino),
                _ => inodes.shown(dev, line.ino),
            };
        }
        Ok(())
    }
}

/// The kind of an entry, read from the file itself where the directory does not say it; `None` for an entry that is gone by now.
fn kind_of(dir: &OwnedFd, name: &OsStr, listed: FileType) -> Option<FileKind> {
    match listed {
        FileType::Unknown => FileKind::from_mode(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?.st_mode),
        listed => FileKind::from_mode(listed.as_raw_mode()),
    }
}
