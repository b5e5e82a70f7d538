//! Operations on names: create, link, remove and rename.
//!
//! May assume: the kernel holds the locks of the directories concerned, as it does for every such request.
//! Must never: report a file that another process created as its own creation, because no permission check of the caller was made.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Uid, fchmod, fchown, fstat, linkat, mkdirat,
    mknodat, openat, renameat_with, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::data::Data;
use super::inodes::FileId;
use super::{Files, stat_at, stat_of};
use crate::fs::{Attr, Fault, FileKind, Ino, NewMode, Request, Result};
use crate::sys;

impl Files {
    /// Create a regular file, pipe, socket or device, according to the type bits of the mode.
    pub fn mknod(&self, req: &Request, parent: Ino, name: &OsStr, mode: NewMode, rdev: u32) -> Result<Attr> {
        let dir = self.descriptor(parent)?;
        let kept = self.new_mode(req, &dir, mode);
        let acting = sys::create_as(req.uid, req.gid);
        mknodat(&dir, name, FileType::from_raw_mode(mode.mode), kept, u64::from(rdev))?;
        drop(acting);
        self.introduce(&dir, parent, name)
    }

    /// Create a directory.
    pub fn mkdir(&self, req: &Request, parent: Ino, name: &OsStr, mode: NewMode) -> Result<Attr> {
        let dir = self.descriptor(parent)?;
        let mode = self.new_mode(req, &dir, mode);
        let acting = sys::create_as(req.uid, req.gid);
        mkdirat(&dir, name, mode)?;
        drop(acting);
        self.introduce(&dir, parent, name)
    }

    /// Create a symbolic link.
    pub fn symlink(&self, req: &Request, parent: Ino, name: &OsStr, target: &OsStr) -> Result<Attr> {
        let dir = self.descriptor(parent)?;
        let acting = sys::create_as(req.uid, req.gid);
        symlinkat(target, &dir, name)?;
        drop(acting);
        self.introduce(&dir, parent, name)
    }

    /// Create a hard link.
    pub fn link(&self, ino: Ino, parent: Ino, name: &OsStr) -> Result<Attr> {
        let path = self.descriptor(ino)?;
        let dir = self.descriptor(parent)?;
        let number = path.as_raw_fd().to_string();
        // Following the link in /proc leads to the file itself, even if that is a symbolic link.
        linkat(&self.proc_fds, &number, &dir, name, AtFlags::SYMLINK_FOLLOW)?;
        self.introduce(&dir, parent, name)
    }

    /// Create a regular file and open it for reading and writing. `exclusive` is whether the caller passed O_EXCL.
    ///
    /// The descriptor also serves every later read and write: the mode may forbid this daemon to open it again.
    pub fn create(
        &self,
        req: &Request,
        parent: Ino,
        name: &OsStr,
        mode: NewMode,
        exclusive: bool,
    ) -> Result<(Attr, Arc<OwnedFd>)> {
        let dir = self.descriptor(parent)?;
        let since = self.inodes.lock().removals();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = self.new_mode(req, &dir, mode);
        let acting = sys::create_as(req.uid, req.gid);
        let fd = match self.making_room(|| openat(&dir, name, flags, mode)) {
            // Another process created it beneath the mount after the kernel's lookup. ESTALE makes the kernel look it up again, and
            // check the caller's right to open it, which is still unchecked.
            Err(Errno::EXIST) if !exclusive => return Err(Fault::Stale.into()),
            answer => Arc::new(answer?),
        };
        drop(acting);
        let attr = self.count(&stat_of(&fd)?, parent, name, since)?;
        if let Ok(path) = self.reopen(&fd, OFlags::PATH) {
            self.keep_path(attr.ino, path, FileKind::File);
        }
        self.keep_data(Data::new(attr.ino, fd.clone(), OFlags::RDWR));
        Ok((attr, fd))
    }

    /// Remove a name that is not a directory.
    pub fn unlink(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.remove(parent, name, AtFlags::empty())
    }

    /// Remove an empty directory.
    pub fn rmdir(&self, parent: Ino, name: &OsStr) -> Result<()> {
        self.remove(parent, name, AtFlags::REMOVEDIR)
    }

    fn remove(&self, parent: Ino, name: &OsStr, flags: AtFlags) -> Result<()> {
        let dir = self.descriptor(parent)?;
        let _moving = self.moving.read();
        let victim = self.identify(&stat_at(&dir, name)?)?;
        unlinkat(&dir, name, flags)?;
        self.inodes.lock().removed(victim, parent, name);
        Ok(())
    }

    /// Rename; `flags` are those of `renameat2(2)`.
    pub fn rename(&self, req: &Request, from: (Ino, &OsStr), to: (Ino, &OsStr), flags: u32) -> Result<()> {
        let flags = RenameFlags::from_bits_retain(flags);
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let from_dir = self.descriptor(from.0)?;
        let to_dir = self.descriptor(to.0)?;

        let _moving = self.moving.read();
        let mover = self.identify(&stat_at(&from_dir, from.1)?)?;
        let victim = self.victim(&to_dir, to.1)?;
        // RENAME_WHITEOUT creates a node, which must belong to the caller as any other does.
        let acting = sys::create_as(req.uid, req.gid);
        renameat_with(&from_dir, from.1, &to_dir, to.1, flags)?;
        drop(acting);

        let mut inodes = self.inodes.lock();
        match victim {
            Some(victim) if exchange => {
                inodes.moved(mover, from, to);
                inodes.moved(victim, to, from);
            }
            // Two names of one file: rename(2) leaves both.
            Some(victim) if victim == mover => {}
            Some(victim) => {
                inodes.removed(victim, to.0, to.1);
                inodes.moved(mover, from, to);
            }
            None => inodes.moved(mover, from, to),
        }
        Ok(())
    }

    /// The file that is at a name now.
    fn victim(&self, dir: &OwnedFd, name: &OsStr) -> Result<Option<FileId>> {
        match stat_at(dir, name) {
            Err(Errno::NOENT) => Ok(None),
            stat => self.identify(&stat?).map(Some),
        }
    }

    /// The kind of a node's file, from the table alone.
    pub fn kind(&self, ino: Ino) -> Result<FileKind> {
        self.inodes.lock().kind(ino)
    }
}

/// Create a directory with the owner, group and mode of its parent.
///
/// # Errors
/// Those of mkdir(2) and of opening the new directory; EEXIST if another process put its own directory there.
pub fn make_directory_like(parent: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    mkdirat(parent, name, Mode::from(0o700))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(parent, name, flags, Mode::empty())?;
    // Between the two calls another process may have put its own directory there. Only change the owner of an empty one of ours.
    let (parent_stat, made_stat) = (fstat(parent)?, fstat(&made)?);
    if ![geteuid().as_raw(), parent_stat.st_uid].contains(&made_stat.st_uid) || !is_empty(&made)? {
        return Err(Errno::EXIST);
    }
    let (uid, gid) = (Uid::from_raw(parent_stat.st_uid), Gid::from_raw(parent_stat.st_gid));
    // An ordinary user can change no owner, and need not: the project is their own.
    let _ = fchown(&made, Some(uid), Some(gid));
    let _ = fchmod(&made, Mode::from_raw_mode(parent_stat.st_mode & 0o7777));
    Ok(())
}

fn is_empty(directory: &OwnedFd) -> rustix::io::Result<bool> {
    for entry in Dir::read_from(directory)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}
