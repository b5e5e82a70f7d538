//! The content of regular files, by node.
//!
//! May assume: the kernel lets one writer at a time into a file (`i_rwsem`), and has judged who may open it.
//! Must never: use anything but a regular file, or open with O_APPEND: pwrite(2) would then ignore the offset. What is
//! appended says so with each write.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{
    FallocateFlags, Mode, OFlags, SeekFrom, copy_file_range, fallocate, fdatasync, fsync, ftruncate, openat,
    seek,
};
use rustix::io::{Errno, ReadWriteFlags, pread, pwrite, pwritev2, retry_on_intr};

use super::inodes::Way;
use super::{Files, look_at};
use crate::fs::{FsError, Ino, Kind, Result};
use crate::limits;

/// A descriptor for content.
pub(super) struct Data {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) writable: bool,
    /// Used since [`Files::close_idle`] looked last.
    used: bool,
}

impl Data {
    pub(super) fn new(fd: Arc<OwnedFd>, writable: bool) -> Data {
        Data { fd, writable, used: true }
    }
}

impl Files {
    /// Open a regular file with the flags of an open(2), for a handle of its own.
    ///
    /// Flags that were meant for the path, and are done with, are left out; so are O_APPEND (the kernel sends the
    /// offset) and O_DIRECT (the daemon's buffers are not aligned).
    pub fn open(&self, ino: Ino, flags: i32) -> Result<OwnedFd> {
        let done = libc::O_NOFOLLOW | libc::O_CREAT | libc::O_EXCL | libc::O_NOCTTY | libc::O_DIRECTORY;
        let flags = flags & !(done | libc::O_APPEND | libc::O_DIRECT);
        self.open_content(ino, OFlags::from_bits_retain(flags as u32))
    }

    /// Read up to `size` bytes; fewer only at the end of the file.
    pub fn read(&self, ino: Ino, offset: u64, size: u32) -> Result<Vec<u8>> {
        read_from(&*self.content(ino, false)?, offset, size)
    }

    /// Write all of `data`, or as much as there is room for; the answer is how much.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<u32> {
        write_to(&*self.content(ino, true)?, offset, data)
    }

    /// Write all of `data` at the end that the file has on the disk, or as much as there is room for.
    pub fn append(&self, ino: Ino, data: &[u8]) -> Result<Appended> {
        append_to(&*self.content(ino, true)?, data)
    }

    /// Set the length.
    pub(super) fn truncate(&self, ino: Ino, size: u64) -> Result<()> {
        let fd = self.content(ino, true)?;
        Ok(retry_on_intr(|| ftruncate(&fd, size))?)
    }

    /// Put the content on disk, with the attributes unless `datasync`.
    pub fn fsync(&self, ino: Ino, datasync: bool) -> Result<()> {
        let fd = self.content(ino, false)?;
        Ok(retry_on_intr(|| if datasync { fdatasync(&fd) } else { fsync(&fd) })?)
    }

    /// Reserve or punch space; `mode` is that of `fallocate(2)`.
    pub fn fallocate(&self, ino: Ino, offset: u64, length: u64, mode: i32) -> Result<()> {
        let fd = self.content(ino, true)?;
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        Ok(retry_on_intr(|| fallocate(&fd, mode, offset, length))?)
    }

    /// SEEK_DATA and SEEK_HOLE.
    pub fn lseek(&self, ino: Ino, offset: i64, whence: i32) -> Result<u64> {
        let offset = u64::try_from(offset).map_err(|_| FsError::new(libc::ENXIO))?;
        let from = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(FsError::new(libc::EINVAL)),
        };
        // Nobody reads at the descriptor's own position, so moving it hurts nobody.
        Ok(seek(&*self.content(ino, false)?, from)?)
    }

    /// Copy on the disk, in part or whole; the answer is how much. EOPNOTSUPP lets the kernel copy by reading.
    pub fn copy_file_range(&self, from: (Ino, u64), to: (Ino, u64), length: u64) -> Result<u32> {
        let source = self.content(from.0, false)?;
        let target = self.content(to.0, true)?;
        let (mut read_at, mut write_at) = (from.1, to.1);
        let length = length.min(limits::COPY_MAX) as usize;
        let copied = copy_file_range(&source, Some(&mut read_at), &target, Some(&mut write_at), length);
        match copied {
            Ok(copied) => Ok(copied as u32),
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INTR) => {
                Err(FsError::new(libc::EOPNOTSUPP))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Close the descriptor that is kept of a file, if there is one.
    pub fn let_go(&self, ino: Ino) {
        let kept = self.data.lock().remove(ino);
        drop(kept);
    }

    /// Close the kept descriptors that were not used since the last call. To be called every second or so: nobody tells
    /// when a file is closed, and while it is open for writing here, the disk refuses to execute it (ETXTBSY).
    ///
    /// A daemon that is not root keeps those for writing: the file's mode may keep it from opening them again.
    pub fn close_idle(&self) {
        let idle = self.data.lock().take_if(|data| {
            !std::mem::replace(&mut data.used, false) && (self.reopens_all || !data.writable)
        });
        drop(idle);
        self.close_idle_listings();
    }

    /// The kept descriptor of a node, or a new one.
    pub(super) fn content(&self, ino: Ino, write: bool) -> Result<Arc<OwnedFd>> {
        if let Some(data) = self.data.lock().get(ino)
            && (data.writable || !write)
        {
            data.used = true;
            return Ok(data.fd.clone());
        }
        // Reading opens for reading only: a descriptor that can write would keep the disk from executing the file.
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let fd = Arc::new(self.open_known(ino, access)?);
        self.keep_data(ino, Data::new(fd.clone(), write));
        Ok(fd)
    }

    /// Keep a descriptor ready, unless there is one already that can do more.
    pub(super) fn keep_data(&self, ino: Ino, data: Data) {
        let mut kept = self.data.lock();
        let better = !data.writable && kept.get(ino).is_some_and(|known| known.writable);
        let dropped = if better { Some(data) } else { kept.insert(ino, data) };
        drop(kept);
        drop(dropped);
    }

    /// Open a regular file by its last known name, which is quicker, or else by a descriptor. `access` changes nothing.
    fn open_known(&self, ino: Ino, access: OFlags) -> Result<OwnedFd> {
        if self.kind(ino)? == Kind::File
            && let Way::At(place, id) = self.way(ino)?
            && let Ok(dir) = self.walk(place.parent)
        {
            // Something else may have the name by now: a pipe must not keep us waiting.
            let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let opened = self.making_room(|| openat(&dir, &place.name, flags, Mode::empty()));
            if let Ok(fd) = opened
                && look_at(&fd).is_ok_and(|stat| self.identify(&stat).is_ok_and(|found| found == id))
            {
                return Ok(fd);
            }
        }
        self.open_content(ino, access)
    }

    fn open_content(&self, ino: Ino, flags: OFlags) -> Result<OwnedFd> {
        match self.kind(ino)? {
            Kind::File => Ok(self.reopen(&*self.descriptor(ino)?, flags)?),
            Kind::Directory => Err(FsError::new(libc::EISDIR)),
            _ => Err(FsError::new(libc::EINVAL)),
        }
    }
}

/// The smallest page of any machine.
const PAGE: usize = 4096;

/// Read up to `size` bytes; fewer only at the end of the file.
pub fn read_from(fd: &OwnedFd, offset: u64, size: u32) -> Result<Vec<u8>> {
    let size = size as usize;
    let mut data = Vec::with_capacity(size);
    while data.len() < size {
        let at = offset + data.len() as u64;
        let read = retry_on_intr(|| pread(fd, rustix::buffer::spare_capacity(&mut data), at))?;
        // What ends within a page ends with the file: the disk hands out whole pages as long as there are more.
        if read == 0 || !(at as usize + read).is_multiple_of(PAGE) {
            break;
        }
    }
    // The allocator may have given more room than was asked for.
    data.truncate(size);
    Ok(data)
}

/// Write all of `data`, or as much as there is room for; the answer is how much.
pub fn write_to(fd: &OwnedFd, offset: u64, data: &[u8]) -> Result<u32> {
    let mut done = 0;
    while done < data.len() {
        match retry_on_intr(|| pwrite(fd, &data[done..], offset + done as u64)) {
            Ok(0) => break,
            Ok(written) => done += written,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done as u32)
}

/// What came of writing at the end of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// How much was written, in bytes.
    pub written: u32,
    /// The file's length afterwards.
    pub end: u64,
}

/// Write all of `data` at the file's end, or as much as there is room for. The disk finds the end, and lets no other writer
/// come between the two: pwritev2(2) with RWF_APPEND.
pub fn append_to(fd: &OwnedFd, data: &[u8]) -> Result<Appended> {
    let mut done = 0;
    while done < data.len() {
        let rest = [IoSlice::new(&data[done..])];
        match retry_on_intr(|| pwritev2(fd, &rest, 0, ReadWriteFlags::APPEND)) {
            Ok(0) => break,
            Ok(written) => done += written,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Appended { written: done as u32, end: look_at(fd)?.stx_size })
}
