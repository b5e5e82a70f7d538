//! The project's real files, by descriptor: what both sessions pass through to the disk.
//!
//! May assume: the root descriptor was opened before anything was mounted over it, names hold no `/`, and the kernel
//! has checked the caller's permissions.
//! Must never: use a path of the project as a string, follow a symbolic link, or touch a mount of its own.
//!
//! A node is reached by the place it was last seen at: `openat` from its parent's descriptor with `O_NOFOLLOW`, then
//! a comparison of device and inode number. What is no longer there is ESTALE, upon which the kernel looks the path
//! up again. So no inode costs a descriptor for as long as it is known; two bounded caches keep the busy ones.
//!
//! # Lock order
//!
//! `moving` → `inodes` → nothing, and `paths`, `data`, `directories` alone. Only `moving` is held over a system call
//! that may wait for the disk: shared by whatever takes names away, from the call until the table knows; exclusive by
//! a walk that failed and is tried once more, so that it sees either all of a rename or nothing of it.

mod attributes;
mod data;
mod directories;
mod inodes;
mod lru;
mod names;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat};
use rustix::io::Errno;

use self::data::Data;
pub use self::data::{read_from, write_to};
use self::directories::Directory;
use self::inodes::{FileId, Inodes, Way};
use self::lru::Lru;
use super::{Attr, FsError, Ino, Kind, ROOT, Result, Timestamp};
use crate::limits::{self, Descriptors};

/// An error that makes the kernel look the path up again.
const STALE: FsError = FsError::new(libc::ESTALE);

/// What is at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its node, if the kernel knows it.
    pub ino: Option<Ino>,
    /// What it is.
    pub kind: Kind,
    /// How many names it has.
    pub links: u64,
}

/// The files below one root directory. See the top of this file.
pub struct Files {
    root: Arc<OwnedFd>,
    /// `/proc/self/fd`: the way from an `O_PATH` descriptor to what only a path can do.
    proc_fds: OwnedFd,
    deleted_max: usize,
    /// No mode of a file keeps this daemon from opening it.
    reopens_all: bool,
    moving: RwLock<()>,
    inodes: Mutex<Inodes>,
    paths: Mutex<Lru<Arc<OwnedFd>>>,
    data: Mutex<Lru<Data>>,
    directories: Mutex<HashMap<u64, Arc<Mutex<Directory>>>>,
    next_directory: AtomicU64,
}

impl Files {
    /// The files below `root`, an `O_PATH` descriptor of a directory.
    ///
    /// Descriptors are kept according to the limit that the process has now.
    pub fn new(root: OwnedFd) -> Result<Files> {
        let stat = fstat(&root)?;
        let id = identify(&stat)?;
        if id.kind != Kind::Directory {
            return Err(FsError::because(libc::ENOTDIR, "the root of the project is not a directory"));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc_fds = openat(CWD, "/proc/self/fd", flags, Mode::empty())?;
        let bounds = Descriptors::of(crate::sys::descriptor_limit());
        Ok(Files {
            root: Arc::new(root),
            proc_fds,
            deleted_max: bounds.deleted,
            reopens_all: crate::sys::is_root(),
            moving: RwLock::new(()),
            inodes: Mutex::new(Inodes::new(id)),
            paths: Mutex::new(Lru::new(bounds.paths)),
            data: Mutex::new(Lru::new(bounds.data)),
            directories: Mutex::new(HashMap::new()),
            next_directory: AtomicU64::new(1),
        })
    }

    /// The descriptor of the root directory (`O_PATH`).
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The last known name of a node, if that name is in the root directory.
    pub fn name_in_root(&self, ino: Ino) -> Option<OsString> {
        let inodes = self.inodes.lock();
        inodes.place(ino).filter(|place| place.parent == ROOT).map(|place| place.name.clone())
    }

    /// Where a node was last seen: its directory, and its name there. Nothing for the root, and for what has no name left.
    pub fn place(&self, ino: Ino) -> Option<(Ino, OsString)> {
        self.inodes.lock().place(ino).map(|place| (place.parent, place.name.clone()))
    }

    /// The path of a node from the root; empty for the root itself. Nothing for what has no name left.
    pub fn path(&self, ino: Ino) -> Option<PathBuf> {
        let inodes = self.inodes.lock();
        let (mut names, mut at) = (Vec::new(), ino);
        while at != ROOT {
            let place = inodes.place(at)?;
            names.push(&place.name);
            at = place.parent;
            if names.len() > limits::DEPTH_MAX {
                return None;
            }
        }
        Some(names.into_iter().rev().collect())
    }

    /// What is at a name now, if anything is. It counts no reference.
    pub fn found_at(&self, parent: Ino, name: &OsStr) -> Result<Option<Found>> {
        let dir = self.descriptor(parent)?;
        let stat = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            answer => answer?,
        };
        let id = identify(&stat)?;
        let ino = self.inodes.lock().known(id);
        Ok(Some(Found { ino, kind: id.kind, links: stat.st_nlink }))
    }

    /// The content of a small file at a path below a directory; nothing if there is none, if it is larger than `most` bytes,
    /// or if a symbolic link is on the way.
    pub fn small_file(&self, directory: Ino, path: &str, most: u64) -> Option<Vec<u8>> {
        let dir = self.descriptor(directory).ok()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let way = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = self.making_room(|| openat2(&dir, path, flags, Mode::empty(), way)).ok()?;
        let stat = fstat(&fd).ok()?;
        let fits = identify(&stat).is_ok_and(|id| id.kind == Kind::File) && stat.st_size as u64 <= most;
        if fits { read_from(&fd, 0, most as u32).ok() } else { None }
    }

    /// Whether the directory holds an entry of that name now. It counts no reference.
    pub fn exists(&self, parent: Ino, name: &OsStr) -> Result<bool> {
        let dir = self.descriptor(parent)?;
        match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Find a name, and count one reference to its node.
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Attr> {
        let dir = self.descriptor(parent)?;
        self.introduce(&dir, parent, name)
    }

    /// Drop `count` references to a node.
    ///
    /// `gone` is called for each node that is no more: this one, and directories that were only known for its sake.
    pub fn forget(&self, ino: Ino, count: u64, mut gone: impl FnMut(Ino)) {
        let removed = self.inodes.lock().forget(ino, count);
        for (ino, _pinned) in removed {
            let _path = self.paths.lock().remove(ino);
            let _data = self.data.lock().remove(ino);
            gone(ino);
        }
    }

    /// The attributes as they are on the disk now.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        let stat = self.settled(|| self.stat(ino))?;
        attr(ino, &stat)
    }

    /// Read what `name` is and count one reference to it: the end of everything that finds or makes a name.
    fn introduce(&self, dir: &OwnedFd, parent: Ino, name: &OsStr) -> Result<Attr> {
        let since = self.inodes.lock().removals();
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.count(&stat, parent, name, since)
    }

    fn count(&self, stat: &Stat, parent: Ino, name: &OsStr, since: u64) -> Result<Attr> {
        let id = identify(stat)?;
        let (ino, _unpinned) = self.inodes.lock().found(id, parent, name, since);
        attr(ino, stat)
    }

    /// An `O_PATH` descriptor of the very file that the node means.
    fn descriptor(&self, ino: Ino) -> Result<Arc<OwnedFd>> {
        self.settled(|| self.walk(ino))
    }

    /// Try; and if the way is stale, try once more while no name is on the move. Not to be called holding `moving`.
    fn settled<T>(&self, attempt: impl Fn() -> Result<T>) -> Result<T> {
        match attempt() {
            Err(error) if error.errno == libc::ESTALE => {
                let _nothing_moves = self.moving.write();
                attempt()
            }
            answer => answer,
        }
    }

    fn stat(&self, ino: Ino) -> Result<Stat> {
        if let Some(fd) = self.at_hand(ino) {
            return Ok(fstat(&fd)?);
        }
        let way = self.inodes.lock().way(ino)?;
        match way {
            Way::Pinned(fd) => Ok(fstat(&fd)?),
            Way::At(place, id) => {
                let dir = self.walk(place.parent)?;
                let stat = statat(&dir, &place.name, AtFlags::SYMLINK_NOFOLLOW).map_err(stale_if_gone)?;
                if identify(&stat)? == id { Ok(stat) } else { Err(STALE) }
            }
        }
    }

    /// A descriptor of the node that is open already. One for content does whatever an `O_PATH` one does.
    fn at_hand(&self, ino: Ino) -> Option<Arc<OwnedFd>> {
        if ino == ROOT {
            return Some(self.root.clone());
        }
        let path = self.paths.lock().get(ino).map(|fd| fd.clone());
        path.or_else(|| self.data.lock().get(ino).map(|data| data.fd.clone()))
    }

    /// Go up the known places to a descriptor at hand, then down again by opening.
    fn walk(&self, ino: Ino) -> Result<Arc<OwnedFd>> {
        let mut below = Vec::new();
        let mut at = ino;
        let mut fd = loop {
            if let Some(fd) = self.at_hand(at) {
                break fd;
            }
            let way = self.inodes.lock().way(at)?;
            match way {
                Way::Pinned(fd) => break fd,
                Way::At(place, id) => {
                    let parent = place.parent;
                    below.push((at, place.name, id));
                    at = parent;
                }
            }
            if below.len() > limits::DEPTH_MAX {
                return Err(STALE);
            }
        };
        while let Some((ino, name, id)) = below.pop() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next =
                self.making_room(|| openat(&fd, &name, flags, Mode::empty())).map_err(stale_if_gone)?;
            if identify(&fstat(&next)?)? != id {
                return Err(STALE);
            }
            fd = Arc::new(next);
            let _evicted = self.paths.lock().insert(ino, fd.clone());
        }
        Ok(fd)
    }

    /// Open; and if the process has no descriptor left, let go of some that are only kept ready, and open again.
    fn making_room<T>(&self, open: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        match open() {
            Err(Errno::MFILE | Errno::NFILE) => {
                let paths = self.paths.lock().take_half();
                let data = self.data.lock().take_half();
                drop((paths, data));
                open()
            }
            answer => answer,
        }
    }

    /// Open the file that an `O_PATH` descriptor stands for.
    fn reopen(&self, path: &OwnedFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let number = path.as_raw_fd().to_string();
        self.making_room(|| openat(&self.proc_fds, &number, flags | OFlags::CLOEXEC, Mode::empty()))
    }
}

fn identify(stat: &Stat) -> Result<FileId> {
    let kind = Kind::from_mode(stat.st_mode).ok_or(FsError::new(libc::EIO))?;
    Ok(FileId { dev: stat.st_dev, ino: stat.st_ino, kind })
}

/// The ways in which a name that was right before can fail to be opened.
fn stale_if_gone(errno: Errno) -> FsError {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => STALE,
        errno => errno.into(),
    }
}

fn attr(ino: Ino, stat: &Stat) -> Result<Attr> {
    let time = |seconds: i64, nanos: u64| Timestamp { seconds, nanos: nanos as u32 };
    Ok(Attr {
        ino,
        kind: identify(stat)?.kind,
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        // FUSE has 32 bits for it: the kernel's own encoding, which is the low half of the C library's.
        rdev: stat.st_rdev as u32,
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
    })
}
