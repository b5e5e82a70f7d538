//! Attributes: mode, owner, length, times, extended attributes, symbolic links' targets, and the disk's totals.
//!
//! May assume: the kernel has judged every change. Where it was told that set-id bits are seen to here
//! (FUSE_HANDLE_KILLPRIV_V2), somebody calls [`Files::drop_set_ids`]; else it sends them as a new mode.
//! Must never: follow a symbolic link. The paths through `/proc/self/fd` lead to the descriptor's own file.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{
    AtFlags, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags, fchmod, fstatvfs, getxattr,
    listxattr, readlinkat, removexattr, setxattr, utimensat,
};
use rustix::io::Errno;

use super::{Files, look_at};
use crate::fs::{Attr, Ino, Request, Result, SetAttr, StatFs, TimeChange};
use crate::limits;

impl Files {
    /// This caller is about to change content: set-id bits that the file has for another's sake go, as on any disk, unless
    /// the caller is privileged. The disk does the same with file capabilities, and when an owner changes, for any caller; but it
    /// takes a daemon of root's for root. The answer tells whether there were any.
    pub fn drop_set_ids(&self, req: &Request, ino: Ino) -> Result<bool> {
        let fd = self.content(ino, true)?;
        let Some(kept) = self.left_by_a_write(req, &look_at(&fd)?) else { return Ok(false) };
        match fchmod(&fd, Mode::from_raw_mode(kept)) {
            // The disk does it for a daemon that is not root.
            Err(error) if self.reopens_all => Err(error.into()),
            _ => Ok(true),
        }
    }

    /// Change attributes; the answer is how they are then.
    pub fn setattr(&self, req: &Request, ino: Ino, change: &SetAttr) -> Result<Attr> {
        if let Some(size) = change.size {
            self.truncate(ino, size)?;
        }
        let path = self.descriptor(ino)?;
        if change.uid.is_some() || change.gid.is_some() {
            self.chown(req, &path, change.uid, change.gid)?;
        }
        // After the owner: chown(2) clears the set-id bits that a mode sent along may want set.
        if let Some(mode) = change.mode {
            self.open_before(ino, mode);
            self.chmod(&path, mode)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let times =
                Timestamps { last_access: timespec(change.atime), last_modification: timespec(change.mtime) };
            let number = path.as_raw_fd().to_string();
            utimensat(&self.proc_fds, &number, &times, AtFlags::empty())?;
        }
        self.getattr(ino)
    }

    /// The target of a symbolic link.
    pub fn readlink(&self, ino: Ino) -> Result<OsString> {
        let target = readlinkat(&*self.descriptor(ino)?, "", Vec::with_capacity(256))?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// Space and inodes of the disk that a node is on.
    pub fn statfs(&self, ino: Ino) -> Result<StatFs> {
        let stat = fstatvfs(&*self.descriptor(ino)?)?;
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(StatFs {
            blocks: stat.f_blocks,
            bfree: stat.f_bfree,
            bavail: stat.f_bavail,
            files: stat.f_files,
            ffree: stat.f_ffree,
            bsize: small(stat.f_bsize),
            namelen: small(stat.f_namemax),
            frsize: small(stat.f_frsize),
        })
    }

    /// Set an extended attribute; `flags` are those of `setxattr(2)`.
    pub fn setxattr(&self, req: &Request, ino: Ino, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        let path = self.descriptor(ino)?;
        self.check_system_attribute(req, &path, name)?;
        setxattr(proc_path(&path), name, value, XattrFlags::from_bits_retain(flags as u32))?;
        self.attribute_was_set(req, &path, name, value)
    }

    /// The value of an extended attribute.
    pub fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        let path = proc_path(&*self.descriptor(ino)?);
        sized(|buffer| getxattr(&path, name, buffer))
    }

    /// The names of all extended attributes that the caller may know of, each ended by a NUL.
    pub fn listxattr(&self, req: &Request, ino: Ino) -> Result<Vec<u8>> {
        let path = proc_path(&*self.descriptor(ino)?);
        let mut names = sized(|buffer| listxattr(&path, buffer))?;
        // The disk hides these from whoever is not privileged, but it has only seen the daemon.
        if req.uid != 0 {
            let visible = |name: &&[u8]| !name.starts_with(b"trusted.");
            names = names.split_inclusive(|&byte| byte == 0).filter(visible).flatten().copied().collect();
        }
        Ok(names)
    }

    /// Remove an extended attribute.
    pub fn removexattr(&self, req: &Request, ino: Ino, name: &OsStr) -> Result<()> {
        let path = self.descriptor(ino)?;
        self.check_system_attribute(req, &path, name)?;
        Ok(removexattr(proc_path(&path), name)?)
    }
}

/// A path to the file of an `O_PATH` descriptor, for the calls that take nothing else.
pub(super) fn proc_path(path: &OwnedFd) -> OsString {
    OsStr::from_bytes(format!("/proc/self/fd/{}", path.as_raw_fd()).as_bytes()).to_owned()
}

/// Call with a small buffer, which nearly always does, and else with the largest that can be needed.
fn sized(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> Result<Vec<u8>> {
    let mut small = [0; 256];
    match call(&mut small) {
        Ok(length) => Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; limits::XATTR_MAX];
            let length = call(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        Err(error) => Err(error.into()),
    }
}

fn timespec(change: Option<TimeChange>) -> Timespec {
    match change {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(TimeChange::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(TimeChange::To(time)) => Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() },
    }
}
