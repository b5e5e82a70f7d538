//! The spool: copies of content that the repository does not have yet.
//!
//! May assume: its directory is for the daemon alone, and on a local disk.
//! Must never: sync, or link a file that keeps a name in the tree: a later write would change the copy.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, copy_file_range, ioctl_ficlone, linkat, openat, unlinkat};
use rustix::io::{Errno, read, retry_on_intr, write};

/// How much is copied at once where the kernel cannot copy by itself, in bytes.
const PIECE: usize = 128 << 10;

/// The spool's directory. Each file has a number as its name.
pub(super) struct Spool {
    directory: OwnedFd,
    next: AtomicU64,
}

impl Spool {
    /// The spool in this directory, which also has other files. New numbers are larger than all that are there.
    ///
    /// # Errors
    /// Those of listing it.
    pub(super) fn open(directory: OwnedFd) -> io::Result<Spool> {
        let last = numbers(&directory)?.into_iter().max();
        Ok(Spool { directory, next: AtomicU64::new(last.map_or(0, |last| last + 1)) })
    }

    /// Copy a file. Where the disk can, the copy shares its blocks.
    ///
    /// # Errors
    /// Those of copying; ENOENT if the directory was removed.
    pub(super) fn copy(&self, content: &OwnedFd) -> rustix::io::Result<u64> {
        self.make(|file| {
            if ioctl_ficlone(file, content).is_ok() {
                return Ok(());
            }
            copy(content, file)
        })
    }

    /// Keep a file that is about to lose its last name: link it, or else copy it. `path` is its `O_PATH` descriptor, `content` opens it.
    ///
    /// # Errors
    /// As for [`Spool::copy`].
    pub(super) fn keep(
        &self,
        path: &OwnedFd,
        content: impl FnOnce() -> rustix::io::Result<OwnedFd>,
    ) -> rustix::io::Result<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let from = format!("/proc/self/fd/{}", path.as_raw_fd());
        match linkat(CWD, from, &self.directory, number.to_string(), AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(number),
            Err(_) => self.copy(&content()?),
        }
    }

    /// Write content.
    ///
    /// # Errors
    /// As for [`Spool::copy`].
    pub(super) fn put(&self, content: &[u8]) -> rustix::io::Result<u64> {
        self.make(|file| write_all(file, content))
    }

    /// Open a file of the spool for reading.
    ///
    /// # Errors
    /// Those of openat(2).
    pub(super) fn read(&self, number: u64) -> rustix::io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        openat(&self.directory, number.to_string(), flags, Mode::empty()).map(File::from)
    }

    /// Remove a file of the spool.
    pub(super) fn remove(&self, number: u64) {
        let _ = unlinkat(&self.directory, number.to_string(), AtFlags::empty());
    }

    /// The numbers of all files.
    ///
    /// # Errors
    /// Those of listing it.
    pub(super) fn all(&self) -> io::Result<Vec<u64>> {
        numbers(&self.directory)
    }

    /// The directory.
    pub(super) fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    fn make(&self, fill: impl FnOnce(&OwnedFd) -> rustix::io::Result<()>) -> rustix::io::Result<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, number.to_string(), flags, Mode::from(0o600))?;
        match fill(&file) {
            Ok(()) => Ok(number),
            Err(error) => {
                self.remove(number);
                Err(error)
            }
        }
    }
}

fn numbers(directory: impl AsFd) -> io::Result<Vec<u64>> {
    let entries = Dir::read_from(directory)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.iter().filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok()).collect())
}

fn copy(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    loop {
        match copy_file_range(from, None, to, None, PIECE * 128) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    let mut piece = vec![0; PIECE];
    loop {
        match retry_on_intr(|| read(from, &mut piece))? {
            0 => return Ok(()),
            length => write_all(to, &piece[..length])?,
        }
    }
}

fn write_all(to: &OwnedFd, mut content: &[u8]) -> rustix::io::Result<()> {
    while !content.is_empty() {
        let written = retry_on_intr(|| write(to, content))?;
        content = &content[written..];
    }
    Ok(())
}
