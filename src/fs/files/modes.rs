//! File modes as a disk would set them for the caller, although the disk sees only the daemon: the umask, and set-group-id bits.
//!
//! May assume: the kernel leaves the umask to this daemon (FUSE_DONT_MASK), and has permitted every new mode of an existing file.
//! Must never: give a right that the disk would not have given to the caller.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, Statx, Uid, chmodat, chownat, getxattr_query};

use super::attributes::proc_path;
use super::{Files, stat_of};
use crate::fs::rights::{self, Owner};
use crate::fs::{Fault, NewMode, Request, Result};

const ACCESS_ACL: &str = "system.posix_acl_access";
const DEFAULT_ACL: &str = "system.posix_acl_default";
/// An ACL value of this length has only the version and no entries; setting it removes the ACL.
const ACL_VERSION_BYTES: usize = 4;
/// A program with both bits runs as its file's group.
const RUNS_AS_GROUP: u32 = libc::S_ISGID | libc::S_IXGRP;

impl Files {
    /// The mode, without type bits, with which to create a file in `dir`.
    ///
    /// The umask applies only where the directory has no default ACL. If a default ACL is set at this very moment, the umask is still
    /// applied.
    pub(super) fn new_mode(&self, req: &Request, dir: &OwnedFd, new: NewMode) -> Mode {
        let mut mode = new.mode & 0o7777;
        // Kernels before 6.0 leave this to the disk. A new directory is not created with the bit; it inherits it.
        if mode & RUNS_AS_GROUP == RUNS_AS_GROUP && loses_set_gid_in(req, dir) {
            mode &= !libc::S_ISGID;
        }
        let masked = new.umask & 0o777;
        if mode & masked != 0 && !has_default_acl(dir) {
            mode &= !masked;
        }
        Mode::from_raw_mode(mode)
    }

    /// Change a file's owner or group. The disk clears set-id bits, except a set-group-id bit without group execution: that one it
    /// clears only for an unprivileged caller, and the daemon is privileged although its caller may not be.
    pub(super) fn chown(
        &self,
        req: &Request,
        path: &OwnedFd,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        let before = stat_of(path)?;
        chownat(path, "", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::EMPTY_PATH)?;
        let mode = u32::from(before.stx_mode);
        let disk_keeps_bit = mode & RUNS_AS_GROUP == libc::S_ISGID && mode & libc::S_IFMT == libc::S_IFREG;
        if disk_keeps_bit && !rights::keeps_set_gid(req, owner(&before)) {
            let now = u32::from(stat_of(path)?.stx_mode);
            return self.chmod(path, now & !libc::S_ISGID);
        }
        Ok(())
    }

    /// Set the permissions of a file.
    pub(super) fn chmod(&self, path: &OwnedFd, mode: u32) -> Result<()> {
        let number = path.as_raw_fd().to_string();
        Ok(chmodat(&self.proc_fds, &number, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?)
    }

    /// The permissions that remain when this caller changes the file's content; `None` if they stay as they are.
    pub(super) fn mode_after_write(&self, req: &Request, stat: &Statx) -> Option<u32> {
        let mode = u32::from(stat.stx_mode) & 0o7777;
        // Most files have no such bits, and the caller's rights need not be read. The disk clears the bits on every write of a daemon
        // that is not privileged, whatever the caller.
        if mode & (libc::S_ISUID | libc::S_ISGID) == 0 || self.reopens_all && rights::keeps_set_ids(req) {
            return None;
        }
        let runs_as_group = mode & libc::S_IXGRP != 0;
        let clears_group =
            mode & libc::S_ISGID != 0 && (runs_as_group || !rights::keeps_set_gid(req, owner(stat)));
        let kept = mode & !libc::S_ISUID & if clears_group { !libc::S_ISGID } else { !0 };
        (kept != mode).then_some(kept)
    }

    /// Refuse changes to `system.*` attributes by callers other than the owner, where the kernel does not: before 6.2 it checks no ACL of
    /// a mount without FUSE_POSIX_ACL, and it never checks other attributes of this kind, such as those of NFS.
    pub(super) fn check_system_attribute(&self, req: &Request, path: &OwnedFd, name: &OsStr) -> Result<()> {
        if !name.as_encoded_bytes().starts_with(b"system.")
            || rights::acts_as_owner(req, owner(&stat_of(path)?))
        {
            return Ok(());
        }
        Err(Fault::NotOwner.into())
    }

    /// After an extended attribute was set: an access ACL clears the file's set-group-id bit, unless the caller is in the file's group
    /// or privileged.
    pub(super) fn after_setxattr(
        &self,
        req: &Request,
        path: &OwnedFd,
        name: &OsStr,
        value: &[u8],
    ) -> Result<()> {
        if name != ACCESS_ACL || value.len() <= ACL_VERSION_BYTES {
            return Ok(());
        }
        let stat = stat_of(path)?;
        let mode = u32::from(stat.stx_mode);
        if mode & libc::S_ISGID == 0 || rights::keeps_set_gid(req, owner(&stat)) {
            return Ok(());
        }
        self.chmod(path, mode & !libc::S_ISGID)
    }
}

fn owner(stat: &Statx) -> Owner {
    Owner { uid: stat.stx_uid, gid: stat.stx_gid }
}

/// Whether a file that this caller creates in a directory gets a group that the caller is not in.
fn loses_set_gid_in(req: &Request, dir: &OwnedFd) -> bool {
    stat_of(dir).is_ok_and(|stat| {
        u32::from(stat.stx_mode) & libc::S_ISGID != 0 && !rights::keeps_set_gid(req, owner(&stat))
    })
}

/// An error counts as no ACL: the umask then applies, which grants less.
fn has_default_acl(dir: &OwnedFd) -> bool {
    getxattr_query(proc_path(dir), DEFAULT_ACL).is_ok_and(|length| length > 0)
}
