//! Modes as the caller gets them from a disk, which here sees the daemon alone: the umask, and set-group-id bits.
//!
//! May assume: the kernel leaves the umask to this daemon (FUSE_DONT_MASK), and has judged every new mode of an existing file.
//! Must never: give a right that the disk would not have given to the caller.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, Statx, Uid, chmodat, chownat, getxattr_query};

use super::attributes::proc_path;
use super::{Files, look_at};
use crate::fs::rights::{self, Owner};
use crate::fs::{Fault, NewMode, Request, Result};

const ACCESS_ACL: &str = "system.posix_acl_access";
const DEFAULT_ACL: &str = "system.posix_acl_default";
/// The value of an ACL without entries is its version alone, and removes the ACL.
const ACL_VERSION_BYTES: usize = 4;
/// A program with these runs as its file's group.
const RUNS_AS_GROUP: u32 = libc::S_ISGID | libc::S_IXGRP;

impl Files {
    /// The mode, without type bits, with which the disk is asked to make something in `dir`.
    ///
    /// The umask counts only where the directory has no default ACL. A default ACL set at this very moment finds the umask
    /// applied.
    pub(super) fn new_mode(&self, req: &Request, dir: &OwnedFd, new: NewMode) -> Mode {
        let mut mode = new.mode & 0o7777;
        // Kernels before 6.0 leave this to the disk. Directories are not made with the bit; they inherit it.
        if mode & RUNS_AS_GROUP == RUNS_AS_GROUP && loses_set_gid_in(req, dir) {
            mode &= !libc::S_ISGID;
        }
        let masked = new.umask & 0o777;
        if mode & masked != 0 && !has_default_acl(dir) {
            mode &= !masked;
        }
        Mode::from_raw_mode(mode)
    }

    /// Give a file another owner or group. The disk takes the set-id bits off; but one that lets no program run as the group it
    /// leaves to the daemon, which is privileged, and the caller may not be.
    pub(super) fn chown(
        &self,
        req: &Request,
        path: &OwnedFd,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        let before = look_at(path)?;
        chownat(path, "", uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::EMPTY_PATH)?;
        let mode = u32::from(before.stx_mode);
        let lasting = mode & RUNS_AS_GROUP == libc::S_ISGID && mode & libc::S_IFMT == libc::S_IFREG;
        if lasting && !rights::keeps_set_gid(req, owner(&before)) {
            let now = u32::from(look_at(path)?.stx_mode);
            return self.chmod(path, now & !libc::S_ISGID);
        }
        Ok(())
    }

    /// Set the permissions of a file.
    pub(super) fn chmod(&self, path: &OwnedFd, mode: u32) -> Result<()> {
        let number = path.as_raw_fd().to_string();
        Ok(chmodat(&self.proc_fds, &number, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?)
    }

    /// What is left of a file's permissions when this caller changes its content; nothing if all of them are.
    pub(super) fn left_by_a_write(&self, req: &Request, stat: &Statx) -> Option<u32> {
        let mode = u32::from(stat.stx_mode) & 0o7777;
        // Most files have no such bits, and then it is not asked who the caller is. What the disk does to a daemon that is not
        // privileged, it does to all.
        if mode & (libc::S_ISUID | libc::S_ISGID) == 0 || self.reopens_all && rights::keeps_set_ids(req) {
            return None;
        }
        let runs_as_group = mode & libc::S_IXGRP != 0;
        let clears = mode & libc::S_ISGID != 0 && (runs_as_group || !rights::keeps_set_gid(req, owner(stat)));
        let kept = mode & !libc::S_ISUID & if clears { !libc::S_ISGID } else { !0 };
        (kept != mode).then_some(kept)
    }

    /// Refuse extended attributes that only an owner may change, where the kernel has not: before 6.2 it judges no ACL of a mount
    /// without FUSE_POSIX_ACL, and never others of this kind, such as those of NFS.
    pub(super) fn check_system_attribute(&self, req: &Request, path: &OwnedFd, name: &OsStr) -> Result<()> {
        if !name.as_encoded_bytes().starts_with(b"system.")
            || rights::acts_as_owner(req, owner(&look_at(path)?))
        {
            return Ok(());
        }
        Err(Fault::NotOwner.into())
    }

    /// An extended attribute was set: an ACL that decides over a file takes its set-group-id bit off, unless the caller is in
    /// the file's group or privileged.
    pub(super) fn attribute_was_set(
        &self,
        req: &Request,
        path: &OwnedFd,
        name: &OsStr,
        value: &[u8],
    ) -> Result<()> {
        if name != ACCESS_ACL || value.len() <= ACL_VERSION_BYTES {
            return Ok(());
        }
        let stat = look_at(path)?;
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

/// Whether what this caller makes in a directory gets a group that the caller is not in.
fn loses_set_gid_in(req: &Request, dir: &OwnedFd) -> bool {
    look_at(dir).is_ok_and(|stat| {
        u32::from(stat.stx_mode) & libc::S_ISGID != 0 && !rights::keeps_set_gid(req, owner(&stat))
    })
}

/// Any other answer than that there is one is taken for none: then the umask counts, which gives less.
fn has_default_acl(dir: &OwnedFd) -> bool {
    getxattr_query(proc_path(dir), DEFAULT_ACL).is_ok_and(|length| length > 0)
}
