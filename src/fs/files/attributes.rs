//! Attributes: mode, owner, length, times, extended attributes, symbolic links' targets, and the disk's totals.
//!
//! May assume: the kernel has permitted every change. Where the daemon has taken over clearing set-id bits
//! (FUSE_HANDLE_KILLPRIV_V2), the session calls [`Files::drop_set_ids`]; elsewhere the kernel sends a new mode without them.
//! Must never: follow a symbolic link. The paths through `/proc/self/fd` lead to the descriptor's own file.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{
    AtFlags, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags, fchmod, fstatvfs, getxattr,
    listxattr, readlinkat, removexattr, setxattr, utimensat,
};
use rustix::io::Errno;

use super::{Files, stat_of};
use crate::fs::{Attr, Ino, Request, Result, SetAttr, StatFs, TimeChange};
use crate::limits;

impl Files {
    /// Clear the set-id bits that a write by this caller removes, as a disk does unless the caller is privileged. The disk itself
    /// removes file capabilities on a write, and both on a change of owner, for any caller. It does not clear set-id bits for a daemon
    /// that runs as root. The answer is whether there were any.
    pub fn drop_set_ids(&self, req: &Request, ino: Ino) -> Result<bool> {
        let fd = self.content(ino, true)?;
        let Some(kept) = self.mode_after_write(req, &stat_of(&fd)?) else { return Ok(false) };
        match fchmod(&fd, Mode::from_raw_mode(kept)) {
            // For a daemon that is not root, the disk clears them.
            Err(error) if self.reopens_all => Err(error.into()),
            _ => Ok(true),
        }
    }

    /// Change attributes. The answer is the attributes afterwards.
    pub fn setattr(&self, req: &Request, ino: Ino, change: &SetAttr) -> Result<Attr> {
        if let Some(size) = change.size {
            self.truncate(ino, size)?;
        }
        let path = self.descriptor(ino)?;
        if change.uid.is_some() || change.gid.is_some() {
            self.chown(req, &path, change.uid, change.gid)?;
        }
        // After the owner: chown(2) clears set-id bits, which a mode of the same request may set.
        if let Some(mode) = change.mode {
            self.open_before_chmod(ino, mode);
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
        self.after_setxattr(req, &path, name, value)
    }

    /// The value of an extended attribute.
    pub fn getxattr(&self, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        let path = proc_path(&*self.descriptor(ino)?);
        sized(|buffer| getxattr(&path, name, buffer))
    }

    /// The names of all extended attributes that the caller may see, each ended by a NUL.
    pub fn listxattr(&self, req: &Request, ino: Ino) -> Result<Vec<u8>> {
        let path = proc_path(&*self.descriptor(ino)?);
        let mut names = sized(|buffer| listxattr(&path, buffer))?;
        // The disk hides these from unprivileged callers, but for the disk the daemon is the caller.
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

/// A path to the file of an `O_PATH` descriptor, for calls that take only a path.
pub(super) fn proc_path(path: &OwnedFd) -> OsString {
    OsStr::from_bytes(format!("/proc/self/fd/{}", path.as_raw_fd()).as_bytes()).to_owned()
}

/// Call with a small buffer, which nearly always suffices, and otherwise with the largest that can be needed.
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
