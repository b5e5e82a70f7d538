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
//! An open directory's own lock → `moving` → `inodes` → nothing, and `paths`, `data`, `directories`, `listings` alone. Only `moving` is held over a system call
//! that may wait for the disk: shared by whatever takes names away, from the call until the table knows; exclusive by
//! a walk that failed and is tried once more, so that it sees either all of a rename or nothing of it.

mod attributes;
mod data;
mod directories;
mod inodes;
mod lru;
mod modes;
mod names;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags, StatxTimestamp, fstatfs, openat, openat2,
    statx,
};
use rustix::io::Errno;

use self::data::Data;
pub use self::data::{Appended, append_to, read_from, write_to};
use self::directories::Directory;
use self::inodes::{FileId, Inodes, Place, Way};
use self::lru::Lru;
pub use self::names::make_directory_like;
use super::{Attr, FsError, Ino, Kind, ROOT, Result, Timestamp};
use crate::limits::{self, Descriptors};

/// An error that makes the kernel look the path up again.
const STALE: FsError = FsError::new(libc::ESTALE);

/// What is at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct There {
    /// Its node, if the kernel knows it.
    pub ino: Option<Ino>,
    /// What it is.
    pub kind: Kind,
    /// How many names it has.
    pub links: u32,
}

/// The files below one root directory. See the top of this file.
pub struct Files {
    root: RwLock<Arc<OwnedFd>>,
    /// How often another directory took the place of the root.
    replaced: AtomicU64,
    /// `/proc/self/fd`: the way from an `O_PATH` descriptor to what only a path can do.
    proc_fds: OwnedFd,
    deleted_max: usize,
    /// No mode of a file keeps this daemon from opening it.
    reopens_all: bool,
    /// The device on which a file keeps the time of its birth.
    births: Option<u64>,
    moving: RwLock<()>,
    inodes: Mutex<Inodes>,
    paths: Mutex<Lru<Arc<OwnedFd>>>,
    data: Mutex<Lru<Data>>,
    directories: Mutex<HashMap<u64, Arc<Mutex<Directory>>>>,
    next_directory: AtomicU64,
    /// Directories that are listed without being opened, by node.
    listings: Mutex<Lru<Arc<Mutex<Directory>>>>,
}

impl Files {
    /// The files below `root`, an `O_PATH` descriptor of a directory.
    ///
    /// Descriptors are kept according to the limit that the process has now.
    pub fn new(root: OwnedFd) -> Result<Files> {
        let stat = look_at(&root)?;
        let keeps_births = KEEPS_BIRTHS.contains(&(fstatfs(&root)?.f_type as u64));
        let births = (keeps_births && has_birth(&stat)).then(|| device(&stat));
        let id = identify(&stat, births)?;
        if id.kind != Kind::Directory {
            return Err(FsError::because(libc::ENOTDIR, "the root of the project is not a directory"));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc_fds = openat(CWD, "/proc/self/fd", flags, Mode::empty())?;
        let bounds = Descriptors::of(crate::sys::descriptor_limit());
        Ok(Files {
            root: RwLock::new(Arc::new(root)),
            replaced: AtomicU64::new(0),
            proc_fds,
            deleted_max: bounds.deleted,
            reopens_all: crate::sys::is_root(),
            births,
            moving: RwLock::new(()),
            inodes: Mutex::new(Inodes::new(id)),
            paths: Mutex::new(Lru::new(bounds.paths)),
            data: Mutex::new(Lru::new(bounds.data)),
            directories: Mutex::new(HashMap::new()),
            next_directory: AtomicU64::new(1),
            listings: Mutex::new(Lru::new(limits::LISTINGS_KEPT.min(bounds.data))),
        })
    }

    /// The descriptor of the root directory (`O_PATH`).
    pub fn root(&self) -> Arc<OwnedFd> {
        self.root.read().clone()
    }

    /// How often another directory took the place of the root.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// From now on the files are those below this directory, which has taken the place of the one before.
    ///
    /// What the kernel knows of the old one is stale from then on, and looked up again by name.
    ///
    /// # Errors
    /// Those of looking at the directory; then everything stays as it was.
    pub fn replace_root(&self, root: OwnedFd) -> Result<()> {
        let id = self.identify(&look_at(&root)?)?;
        let _moving = self.moving.write();
        let mut inodes = self.inodes.lock();
        *self.root.write() = Arc::new(root);
        inodes.replace_root(id);
        self.replaced.fetch_add(1, Ordering::Relaxed);
        drop(inodes);
        // What is kept open lies below the old one.
        let _closed = (self.paths.lock().take_if(|_| true), self.data.lock().take_if(|_| true));
        let _listings = self.listings.lock().take_if(|_| true);
        Ok(())
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
    pub fn found_at(&self, parent: Ino, name: &OsStr) -> Result<Option<There>> {
        let dir = self.descriptor(parent)?;
        let stat = match look(&dir, name) {
            Err(Errno::NOENT) => return Ok(None),
            answer => answer?,
        };
        let id = self.identify(&stat)?;
        let ino = self.inodes.lock().known(id);
        Ok(Some(There { ino, kind: id.kind, links: stat.stx_nlink }))
    }

    /// The content of a small file at a path below a directory; nothing if there is none, if it is larger than `most` bytes,
    /// or if a symbolic link is on the way.
    pub fn small_file(&self, directory: Ino, path: &str, most: u64) -> Option<Vec<u8>> {
        let dir = self.descriptor(directory).ok()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let way = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = self.making_room(|| openat2(&dir, path, flags, Mode::empty(), way)).ok()?;
        let stat = look_at(&fd).ok()?;
        let fits = Kind::from_mode(stat.stx_mode.into()) == Some(Kind::File) && stat.stx_size <= most;
        if fits { read_from(&fd, 0, most as u32).ok() } else { None }
    }

    /// Whether the directory holds an entry of that name now. It counts no reference.
    pub fn exists(&self, parent: Ino, name: &OsStr) -> Result<bool> {
        let dir = self.descriptor(parent)?;
        match look(&dir, name) {
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

    /// Drop `count` references to a node. The answer is the directories that thereby are no longer known; `gone` is called
    /// for every node that is no more.
    pub fn forget(&self, ino: Ino, count: u64, mut gone: impl FnMut(Ino)) -> Vec<Forgotten> {
        let removed = self.inodes.lock().forget(ino, count);
        let mut directories = Vec::new();
        for removed in removed {
            let path = self.paths.lock().remove(removed.ino);
            let _data = self.data.lock().remove(removed.ino);
            gone(removed.ino);
            if removed.kind == Kind::Directory {
                let _listing = self.listings.lock().remove(removed.ino);
                directories.push(Forgotten { ino: removed.ino, path, place: removed.place });
            }
        }
        directories
    }

    /// An `O_PATH` descriptor of a directory that is no longer known, if it is still where it was.
    pub fn descriptor_of_forgotten(&self, forgotten: &Forgotten) -> Option<Arc<OwnedFd>> {
        if forgotten.path.is_some() {
            return forgotten.path.clone();
        }
        let place = forgotten.place.as_ref()?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = self.descriptor(place.parent).ok()?;
        openat(&*parent, &place.name, flags, Mode::empty()).ok().map(Arc::new)
    }

    /// Whether the kernel knows the node.
    pub fn knows(&self, ino: Ino) -> bool {
        self.inodes.lock().kind(ino).is_ok()
    }

    /// Whether this is a directory of the root's own disk, whose files keep the time of their birth: what is remembered of
    /// such a file can never be taken for another's that has its number later.
    pub fn keeps_births(&self, ino: Ino) -> bool {
        self.births.is_some_and(|dev| self.inodes.lock().dev(ino) == dev)
    }

    /// The node that a name means on the disk now, if the kernel knows it.
    pub fn known_at(&self, parent: Ino, name: &OsStr) -> Option<Ino> {
        let dir = self.descriptor(parent).ok()?;
        let id = self.identify(&look(&dir, name).ok()?).ok()?;
        self.inodes.lock().known(id)
    }

    /// The directory in which a node was last seen.
    pub fn parent_of(&self, ino: Ino) -> Option<Ino> {
        self.inodes.lock().place(ino).map(|place| place.parent)
    }

    /// Whether a node was last seen by this name.
    pub fn place_is(&self, ino: Ino, parent: Ino, name: &OsStr) -> bool {
        self.inodes.lock().place(ino).is_some_and(|place| place.is(parent, name))
    }

    /// Every node that the kernel knows, with its last known name.
    pub fn all_known(&self) -> Vec<(Ino, Option<(Ino, OsString)>)> {
        let inodes = self.inodes.lock();
        let place = |place: &Place| (place.parent, place.name.clone());
        inodes.places().map(|(ino, at)| (ino, at.map(place))).collect()
    }

    /// The attributes as they are on the disk now.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        let stat = self.settled(|| self.stat(ino))?;
        attr(ino, &stat)
    }

    /// Read what `name` is and count one reference to it: the end of everything that finds or makes a name.
    fn introduce(&self, dir: &OwnedFd, parent: Ino, name: &OsStr) -> Result<Attr> {
        let since = self.inodes.lock().removals();
        let stat = look(dir, name)?;
        self.count(&stat, parent, name, since)
    }

    fn identify(&self, stat: &Statx) -> Result<FileId> {
        identify(stat, self.births)
    }

    fn count(&self, stat: &Statx, parent: Ino, name: &OsStr, since: u64) -> Result<Attr> {
        let id = self.identify(stat)?;
        let (ino, _unpinned) = self.inodes.lock().found(id, parent, name, since);
        attr(ino, stat)
    }

    /// An `O_PATH` descriptor of the very file that the node means.
    pub(super) fn descriptor(&self, ino: Ino) -> Result<Arc<OwnedFd>> {
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

    fn way(&self, ino: Ino) -> Result<Way> {
        self.inodes.lock().way(ino)
    }

    fn stat(&self, ino: Ino) -> Result<Statx> {
        if let Some(fd) = self.at_hand(ino) {
            return Ok(look_at(&fd)?);
        }
        match self.way(ino)? {
            Way::Pinned(fd) => Ok(look_at(&fd)?),
            Way::At(place, id) => {
                let dir = self.walk(place.parent)?;
                let stat = look(&dir, &place.name).map_err(stale_if_gone)?;
                if self.identify(&stat)? == id { Ok(stat) } else { Err(STALE) }
            }
        }
    }

    /// A descriptor of the node that is open already. One for content does whatever an `O_PATH` one does.
    fn at_hand(&self, ino: Ino) -> Option<Arc<OwnedFd>> {
        if ino == ROOT {
            return Some(self.root());
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
            match self.way(at)? {
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
            if self.identify(&look_at(&next)?)? != id {
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

/// A directory that the kernel no longer knows.
pub struct Forgotten {
    /// Its number until now.
    pub ino: Ino,
    path: Option<Arc<OwnedFd>>,
    place: Option<Place>,
}

/// Filesystems, by their `f_type` of statfs(2), on which a file's time of birth is there and never changes. Not among them:
/// overlayfs, where a file that is written to for the first time becomes another, and whatever is served by other machines.
const KEEPS_BIRTHS: [u64; 7] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0xca45_1a4e, 0x2fc1_2fc1];

/// What a name is, links not followed.
fn look(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// What a descriptor stands for.
fn look_at(fd: &OwnedFd) -> rustix::io::Result<Statx> {
    statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

fn device(stat: &Statx) -> u64 {
    rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

fn has_birth(stat: &Statx) -> bool {
    stat.stx_mask & StatxFlags::BTIME.bits() != 0
}

fn identify(stat: &Statx, births: Option<u64>) -> Result<FileId> {
    let kind = Kind::from_mode(stat.stx_mode.into()).ok_or(FsError::new(libc::EIO))?;
    let dev = device(stat);
    let born = if births == Some(dev) && has_birth(stat) {
        stat.stx_btime.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(stat.stx_btime.tv_nsec.into())
    } else {
        0
    };
    Ok(FileId { dev, ino: stat.stx_ino, kind, born })
}

/// The ways in which a name that was right before can fail to be opened.
fn stale_if_gone(errno: Errno) -> FsError {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => STALE,
        errno => errno.into(),
    }
}

fn attr(ino: Ino, stat: &Statx) -> Result<Attr> {
    let time = |time: StatxTimestamp| Timestamp { seconds: time.tv_sec, nanos: time.tv_nsec };
    Ok(Attr {
        ino,
        kind: Kind::from_mode(stat.stx_mode.into()).ok_or(FsError::new(libc::EIO))?,
        perm: stat.stx_mode & 0o7777,
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        // FUSE has 32 bits for it: the kernel's own encoding, which is the low half of the C library's.
        rdev: rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor) as u32,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        blksize: stat.stx_blksize,
        atime: time(stat.stx_atime),
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
    })
}
