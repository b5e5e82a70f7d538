//! The project's real files: both sessions pass operations through to the disk by descriptor.
//!
//! May assume: the root descriptor was opened before anything was mounted over it, names hold no `/`, and the kernel
//! has checked the caller's permissions.
//! Must never: use a path of the project as a string, follow a symbolic link, or touch one of crewfs's own mounts.
//!
//! A node gets an `O_PATH` descriptor when the kernel learns of the node, and is reached by it ([`paths`]). So a rename or a removal
//! does not change what an open file is. There is not room for a descriptor of every node. A node without one is reached by its last
//! known place: the daemon calls `openat` with `O_NOFOLLOW` on its parent's descriptor, then compares device and inode number. If the
//! file is not at that place, it was renamed or removed. A daemon that may open by handle (open_by_handle_at(2), as root) then opens
//! it by handle, which works while the file has any name. Otherwise the daemon answers ESTALE, and the kernel looks the path up again.
//!
//! # Lock order
//!
//! An open directory's own lock → `moving` → `inodes` → one of `paths`, `lasting`, `data`; and `directories`, `listings` alone.
//! Only `moving` is held over a system call that may wait for the disk. An operation that takes a name away holds it shared, from the
//! system call until the table is updated. A walk that failed holds it exclusively for its second attempt, so that the walk sees
//! either all of a rename or nothing of it.

mod attributes;
mod data;
mod directories;
mod inodes;
mod leased;
mod lru;
mod modes;
mod names;
mod parcels;
mod paths;
mod present;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
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
use self::directories::OpenDirectory;
use self::inodes::{FileId, Inodes, Location};
pub use self::leased::{Leases, is_leased};
use self::lru::Lru;
pub use self::names::make_directory_like;
pub use self::paths::Opens;
use self::paths::{Out, Paths};
pub use self::present::Present;
use super::{Attr, Fault, FileKind, FsError, Ino, ROOT, Result, Timestamp};
use crate::limits::{self, Descriptors};
use crate::sys::{handle_of, open_handle};

/// The kernel looks the path up again when it gets this error.
const STALE: FsError = FsError::Plain(Fault::Stale);

/// The file at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct There {
    /// Its node, if the kernel knows it.
    pub ino: Option<Ino>,
    /// Its kind.
    pub kind: FileKind,
    /// Its link count.
    pub links: u32,
}

/// The files below one root directory. See the module's documentation.
pub struct Files {
    root: RwLock<Arc<OwnedFd>>,
    /// How often the root directory was replaced by another.
    replaced: AtomicU64,
    /// `/proc/self/fd`: through it, calls that take only a path reach the file of an `O_PATH` descriptor.
    proc_fds: OwnedFd,
    /// A descriptor of the root for opening by handle, where the daemon may do that.
    handles: Option<OwnedFd>,
    /// Whether this daemon can open a file whatever its mode.
    reopens_all: bool,
    root_dev: u64,
    /// The device on which files keep their birth time.
    births: Option<u64>,
    moving: RwLock<()>,
    inodes: Mutex<Inodes>,
    paths: Mutex<Paths>,
    data: Mutex<Lru<Data>>,
    /// Descriptors that a daemon other than root could not open again, because of the mode of the file or directory. A process that
    /// opened a file keeps its access after such a change of mode.
    lasting: Mutex<Paths>,
    /// Held while a directory is listed through a descriptor of `lasting`, whose position is shared.
    listing: Mutex<()>,
    directories: Mutex<HashMap<u64, Arc<Mutex<OpenDirectory>>>>,
    next_directory: AtomicU64,
    /// Directories that are listed without an open, by node.
    listings: Mutex<Lru<Arc<Mutex<OpenDirectory>>>>,
    leases: Leases,
}

impl Files {
    /// The files below `root`, an `O_PATH` descriptor of a directory.
    ///
    /// The process's current limit of descriptors decides how many are kept.
    pub fn new(root: OwnedFd, opens: Opens) -> Result<Files> {
        let stat = stat_of(&root)?;
        let keeps_births = KEEPS_BIRTHS.contains(&(fstatfs(&root)?.f_type as u64));
        let births = (keeps_births && has_birth(&stat)).then(|| device(&stat));
        let id = identify(&stat, births)?;
        if id.kind != FileKind::Directory {
            return Err(Fault::NotDirectory.into());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc_fds = openat(CWD, "/proc/self/fd", flags, Mode::empty())?;
        let limit = crate::sys::descriptor_limit();
        let bounds = match opens {
            Opens::Unreported(_) => Descriptors::of_tree(limit),
            Opens::Reported => Descriptors::of_desk(limit),
        };
        let handles = open_by_handle(&root);
        Ok(Files {
            root: RwLock::new(Arc::new(root)),
            replaced: AtomicU64::new(0),
            proc_fds,
            handles,
            reopens_all: crate::sys::is_root(),
            root_dev: id.dev,
            births,
            moving: RwLock::new(()),
            inodes: Mutex::new(Inodes::new(id)),
            paths: Mutex::new(Paths::new(opens, bounds.paths)),
            data: Mutex::new(Lru::new(bounds.data)),
            lasting: Mutex::new(Paths::new(Opens::Unreported(limits::TREE_NODES_KEPT), bounds.data)),
            listing: Mutex::new(()),
            directories: Mutex::new(HashMap::new()),
            next_directory: AtomicU64::new(1),
            listings: Mutex::new(Lru::new(limits::LISTINGS_KEPT.min(bounds.data))),
            leases: Leases::default(),
        })
    }

    /// The descriptor of the root directory (`O_PATH`).
    pub fn root(&self) -> Arc<OwnedFd> {
        self.root.read().clone()
    }

    /// How often the root directory was replaced by another.
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// Replace the root directory by this one.
    ///
    /// All nodes that the kernel knows become stale, and the kernel looks them up again by name.
    ///
    /// # Errors
    /// Those of statx(2) on the directory; nothing is replaced then.
    pub fn replace_root(&self, root: OwnedFd) -> Result<()> {
        let id = self.identify(&stat_of(&root)?)?;
        let _moving = self.moving.write();
        let mut inodes = self.inodes.lock();
        *self.root.write() = Arc::new(root);
        inodes.replace_root(id);
        self.replaced.fetch_add(1, Ordering::Relaxed);
        drop(inodes);
        // All kept descriptors lie below the old root.
        let mut out = Out::new();
        self.paths.lock().take_all(&mut out);
        self.lasting.lock().take_all(&mut out);
        let _closed = self.data.lock().take_if(|_| true);
        let _listings = self.listings.lock().take_if(|_| true);
        Ok(())
    }

    /// The last known name of a node, if that name is in the root directory.
    pub fn name_in_root(&self, ino: Ino) -> Option<OsString> {
        let inodes = self.inodes.lock();
        inodes.place(ino).filter(|place| place.parent == ROOT).map(|place| place.name.clone())
    }

    /// The last known place of a node: its directory, and its name there. `None` for the root, and for a node without a known name.
    pub fn place(&self, ino: Ino) -> Option<(Ino, OsString)> {
        self.inodes.lock().place(ino).map(|place| (place.parent, place.name.clone()))
    }

    /// The path of a node from the root; empty for the root itself. `None` for a node without a known name.
    pub fn path(&self, ino: Ino) -> Option<PathBuf> {
        let inodes = self.inodes.lock();
        let (mut names, mut current) = (Vec::new(), ino);
        while current != ROOT {
            let place = inodes.place(current)?;
            names.push(&place.name);
            current = place.parent;
            if names.len() > limits::DEPTH_MAX {
                return None;
            }
        }
        Some(names.into_iter().rev().collect())
    }

    /// The file that is at a name now, if there is one. This counts no reference.
    pub fn found_at(&self, parent: Ino, name: &OsStr) -> Result<Option<There>> {
        let dir = self.descriptor(parent)?;
        let stat = match stat_at(&dir, name) {
            Err(Errno::NOENT) => return Ok(None),
            answer => answer?,
        };
        let id = self.identify(&stat)?;
        let ino = self.inodes.lock().known(id);
        Ok(Some(There { ino, kind: id.kind, links: stat.stx_nlink }))
    }

    /// The content of a small file at a path below a directory. `None` if there is no such file, if it is larger than `most` bytes,
    /// or if the path crosses a symbolic link.
    pub fn small_file(&self, directory: Ino, path: &str, most: u64) -> Option<Vec<u8>> {
        let dir = self.descriptor(directory).ok()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = self.making_room(|| openat2(&dir, path, flags, Mode::empty(), resolve)).ok()?;
        let stat = stat_of(&fd).ok()?;
        let fits = FileKind::from_mode(stat.stx_mode.into()) == Some(FileKind::File) && stat.stx_size <= most;
        if fits { read_from(&fd, 0, most as u32).ok() } else { None }
    }

    /// Whether the directory has an entry of that name now. This counts no reference.
    pub fn exists(&self, parent: Ino, name: &OsStr) -> Result<bool> {
        let dir = self.descriptor(parent)?;
        match stat_at(&dir, name) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Find a name, and count one reference to its node.
    pub fn lookup(&self, parent: Ino, name: &OsStr) -> Result<Attr> {
        let dir = self.descriptor(parent)?;
        match self.introduce(&dir, parent, name) {
            // The directory's mode no longer lets this daemon search it. A process that has the directory open still finds its entries.
            Err(error) if error.errno() == libc::EACCES => self.introduce_known(parent, name).ok_or(error),
            answer => answer,
        }
    }

    fn introduce_known(&self, parent: Ino, name: &OsStr) -> Option<Attr> {
        let (since, ino) = {
            let inodes = self.inodes.lock();
            (inodes.removals(), inodes.named(parent, name)?)
        };
        let stat = stat_of(&*self.kept_path(ino).ok()??).ok()?;
        let id = self.identify(&stat).ok()?;
        let mut inodes = self.inodes.lock();
        let is_known = inodes.known(id) == Some(ino);
        if is_known { attr(inodes.found(id, parent, name, since), &stat).ok() } else { None }
    }

    /// Drop `count` references to a node. The answer is the directories that were removed from the table. `gone` is called for every
    /// node that was removed from it.
    pub fn forget(&self, ino: Ino, count: u64, mut gone: impl FnMut(Ino)) -> Vec<Forgotten> {
        let mut closed = Vec::new();
        {
            let mut inodes = self.inodes.lock();
            // All under one lock: a lookup may introduce a node again at any moment, and the node must then keep its descriptors.
            for removed in inodes.forget(ino, count) {
                if inodes.kind(removed.ino).is_err() {
                    let (mut out, data) = (Out::new(), self.data.lock().remove(removed.ino));
                    self.lasting.lock().remove(removed.ino, &mut out);
                    let mut path = Out::new();
                    self.paths.lock().remove(removed.ino, &mut path);
                    closed.push((removed, path.pop(), out, data));
                }
            }
        }
        let mut directories = Vec::new();
        for (removed, path, _out, _data) in closed {
            gone(removed.ino);
            if removed.kind == FileKind::Directory {
                let _listing = self.listings.lock().remove(removed.ino);
                directories.push(Forgotten { ino: removed.ino, path, place: removed.place });
            }
        }
        directories
    }

    /// An `O_PATH` descriptor of a forgotten directory, if the directory is still at its last known place.
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

    /// Whether this directory is on the root's own device, where files keep their birth time. Facts that are cached about such a file
    /// cannot be taken for those of a later file with the same inode number.
    pub fn keeps_births(&self, ino: Ino) -> bool {
        self.births.is_some_and(|dev| self.inodes.lock().dev(ino) == dev)
    }

    /// The node of the file that is at a name on the disk now, if the kernel knows it.
    pub fn known_at(&self, parent: Ino, name: &OsStr) -> Option<Ino> {
        self.known_in(&*self.descriptor(parent).ok()?, name)
    }

    fn known_in(&self, dir: &OwnedFd, name: &OsStr) -> Option<Ino> {
        let id = self.identify(&stat_at(dir, name).ok()?).ok()?;
        self.inodes.lock().known(id)
    }

    /// A name was changed beneath the mount. If it no longer leads to the node that had it, that node loses its known name, and the
    /// answer is that node.
    pub fn lost_beneath(&self, parent: Ino, name: &OsStr) -> Option<Ino> {
        let _nothing_moves = self.moving.write();
        let before = self.inodes.lock().named(parent, name)?;
        let now = self.known_while_unmoved(parent, name);
        (now != Some(before)).then(|| self.inodes.lock().lost(before)).map(|()| before)
    }

    /// The node of the file that is at a name on the disk now, if the kernel knows it. If the node has no known name, it gets this one.
    pub fn found_beneath(&self, parent: Ino, name: &OsStr) -> Option<Ino> {
        let _nothing_moves = self.moving.write();
        let found = self.known_while_unmoved(parent, name)?;
        self.inodes.lock().regained(found, parent, name);
        Some(found)
    }

    /// As [`Files::known_at`]; the caller holds `moving` exclusively.
    fn known_while_unmoved(&self, parent: Ino, name: &OsStr) -> Option<Ino> {
        self.known_in(&*self.walk(parent).ok()?, name)
    }

    /// The last known directory of a node.
    pub fn parent_of(&self, ino: Ino) -> Option<Ino> {
        self.inodes.lock().place(ino).map(|place| place.parent)
    }

    /// Whether this is the last known name of a node.
    pub fn place_is(&self, ino: Ino, parent: Ino, name: &OsStr) -> bool {
        self.inodes.lock().place(ino).is_some_and(|place| place.is(parent, name))
    }

    /// Every node that the kernel knows, with its last known name.
    pub fn all_known(&self) -> Vec<(Ino, Option<(Ino, OsString)>)> {
        let inodes = self.inodes.lock();
        let place = |place: &Location| (place.parent, place.name.clone());
        inodes.places().map(|(ino, known)| (ino, known.map(place))).collect()
    }

    /// The attributes that the disk has now.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        let stat = self.retry_stale(|| self.stat(ino))?;
        attr(ino, &stat)
    }

    /// The requests that wait because another process has a lease on a file.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The number of nodes, of nodes with a descriptor, and of descriptors that are in parcels.
    pub fn counts(&self) -> (usize, usize, usize) {
        let nodes = self.inodes.lock().len();
        let paths = self.paths.lock();
        // The root's descriptor is kept apart.
        (nodes, paths.len() + 1, paths.packed())
    }

    /// Nodes whose file was removed beneath the mount, with the names that they had. While the kernel knows such a name, the node's
    /// descriptor keeps the disk from freeing the file's space. This calls statx(2) on every descriptor at hand.
    pub fn removed_beneath(&self) -> Vec<(Ino, Ino, OsString)> {
        let nodes = self.paths.lock().all_at_hand();
        let is_removed = |fd: &OwnedFd| stat_of(fd).is_ok_and(|stat| stat.stx_nlink == 0);
        let removed = nodes.into_iter().filter(|(_, fd)| is_removed(fd));
        removed.filter_map(|(ino, _)| self.place(ino).map(|(parent, name)| (ino, parent, name))).collect()
    }

    /// Close the descriptors of removed nodes that are still in parcels.
    pub(super) fn clear_parcels(&self) {
        let mut out = Out::new();
        for paths in [&self.paths, &self.lasting] {
            while paths.lock().clear(&mut out) {
                out.clear();
            }
        }
    }

    /// The descriptor that a node has.
    fn kept_path(&self, ino: Ino) -> rustix::io::Result<Option<Arc<OwnedFd>>> {
        self.making_room(|| {
            let mut out = Out::new();
            let mut paths = self.paths.lock();
            paths.get(ino, &mut out).map_err(|_| Errno::MFILE)
        })
    }

    /// Keep a descriptor of a node, unless it has one. If there is no room for it, keep the node's file handle.
    fn keep_path(&self, ino: Ino, fd: OwnedFd, kind: FileKind) -> Arc<OwnedFd> {
        let (mut out, fd) = (Out::new(), Arc::new(fd));
        let kept = self.paths.lock().insert(ino, fd.clone(), kind == FileKind::Directory, &mut out);
        if !kept {
            self.keep_handle(ino, &fd);
        }
        fd
    }

    fn keep_handle(&self, ino: Ino, fd: &OwnedFd) {
        if self.handles.is_some()
            && self.inodes.lock().dev(ino) == self.root_dev
            && let Ok(handle) = handle_of(fd.as_fd())
        {
            self.inodes.lock().set_handle(ino, handle);
        }
    }

    /// Find out which file `name` is, and count one reference to its node. Every lookup and every creation ends here.
    fn introduce(&self, dir: &OwnedFd, parent: Ino, name: &OsStr) -> Result<Attr> {
        let (since, expected) = {
            let inodes = self.inodes.lock();
            (inodes.removals(), inodes.named(parent, name))
        };
        // A node that has a descriptor needs no other.
        if let Some(expected) = expected.filter(|ino| self.paths.lock().has(*ino)) {
            let stat = stat_at(dir, name)?;
            let id = self.identify(&stat)?;
            let mut inodes = self.inodes.lock();
            // Compare and count under one lock: the kernel may be about to forget the node.
            if inodes.known(id) == Some(expected) {
                return attr(inodes.found(id, parent, name, since), &stat);
            }
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.making_room(|| openat(dir, name, flags, Mode::empty())) {
            Ok(fd) => {
                let attr = self.count(&stat_of(&fd)?, parent, name, since)?;
                if attr.ino != ROOT {
                    self.keep_path(attr.ino, fd, attr.kind);
                }
                Ok(attr)
            }
            // The node gets no descriptor.
            Err(Errno::MFILE | Errno::NFILE) => self.count(&stat_at(dir, name)?, parent, name, since),
            Err(error) => Err(error.into()),
        }
    }

    fn identify(&self, stat: &Statx) -> Result<FileId> {
        identify(stat, self.births)
    }

    fn count(&self, stat: &Statx, parent: Ino, name: &OsStr, since: u64) -> Result<Attr> {
        let id = self.identify(stat)?;
        let ino = self.inodes.lock().found(id, parent, name, since);
        attr(ino, stat)
    }

    /// An `O_PATH` descriptor of exactly the file of this node.
    pub(super) fn descriptor(&self, ino: Ino) -> Result<Arc<OwnedFd>> {
        self.retry_stale(|| self.walk(ino))
    }

    /// Attempt, and after ESTALE attempt once more while no name can move. The caller must not hold `moving`.
    fn retry_stale<T>(&self, attempt: impl Fn() -> Result<T>) -> Result<T> {
        match attempt() {
            Err(error) if error.errno() == libc::ESTALE => {
                let _nothing_moves = self.moving.write();
                attempt()
            }
            answer => answer,
        }
    }

    fn stat(&self, ino: Ino) -> Result<Statx> {
        Ok(stat_of(&*self.walk(ino)?)?)
    }

    /// A descriptor of the node that is already open. A descriptor for content can do all that an `O_PATH` one can.
    fn at_hand(&self, ino: Ino) -> Result<Option<Arc<OwnedFd>>> {
        if ino == ROOT {
            return Ok(Some(self.root()));
        }
        if let Some(data) = self.data.lock().get(ino) {
            return Ok(Some(data.fd.clone()));
        }
        Ok(self.kept_path(ino)?)
    }

    /// The last known directory of a node, its name there, and its file's identity; `None` if the directory has no descriptor at hand.
    fn location_at_hand(&self, ino: Ino) -> Option<(Arc<OwnedFd>, OsString, FileId)> {
        let (place, id) = self.inodes.lock().location(ino).ok()?;
        Some((self.at_hand(place.parent).ok()??, place.name, id))
    }

    fn walk(&self, ino: Ino) -> Result<Arc<OwnedFd>> {
        match self.walk_by_name(ino) {
            Err(error) if error.errno() == libc::ESTALE => self.open_by_handle(ino).ok_or(error),
            answer => answer,
        }
    }

    fn open_by_handle(&self, ino: Ino) -> Option<Arc<OwnedFd>> {
        let mount = self.handles.as_ref()?;
        let (handle, id) = self.inodes.lock().handle(ino)?;
        let fd = open_handle(mount.as_fd(), &handle).ok()?;
        (self.identify(&stat_of(&fd).ok()?).ok()? == id).then(|| self.keep_path(ino, fd, id.kind))
    }

    /// Walk up the last known places to a descriptor at hand, then open each name downwards.
    fn walk_by_name(&self, ino: Ino) -> Result<Arc<OwnedFd>> {
        let mut below = Vec::new();
        let mut current = ino;
        let mut fd = loop {
            if let Some(fd) = self.at_hand(current)? {
                break fd;
            }
            let (place, id) = self.inodes.lock().location(current)?;
            let parent = place.parent;
            below.push((current, place.name, id));
            current = parent;
            if below.len() > limits::DEPTH_MAX {
                return Err(STALE);
            }
        };
        while let Some((ino, name, id)) = below.pop() {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let next =
                self.making_room(|| openat(&fd, &name, flags, Mode::empty())).map_err(stale_if_gone)?;
            if self.identify(&stat_of(&next)?)? != id {
                return Err(STALE);
            }
            fd = self.keep_path(ino, next, id.kind);
        }
        Ok(fd)
    }

    /// Open. If the process has no descriptor left, close half of those that are only kept ready, and open again.
    fn making_room<T>(&self, open: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        match open() {
            Err(Errno::MFILE | Errno::NFILE) => {
                let data = self.data.lock().take_half();
                data.into_iter().for_each(|data| self.close(data));
                open()
            }
            answer => answer,
        }
    }

    /// Open the file of an `O_PATH` descriptor.
    fn reopen(&self, path: &OwnedFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let number = path.as_raw_fd().to_string();
        self.making_room(|| openat(&self.proc_fds, &number, flags | OFlags::CLOEXEC, Mode::empty()))
    }
}

/// A descriptor of a directory through which this process can open files of its filesystem by handle, if it may do that.
fn open_by_handle(root: &OwnedFd) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mount = openat(root, ".", flags, Mode::empty()).ok()?;
    let handle = handle_of(mount.as_fd()).ok()?;
    open_handle(mount.as_fd(), &handle).is_ok().then_some(mount)
}

/// A directory that the kernel has forgotten.
pub struct Forgotten {
    /// The node number that it had.
    pub ino: Ino,
    path: Option<Arc<OwnedFd>>,
    place: Option<Location>,
}

/// Filesystems, by their `f_type` of statfs(2), on which every file has a birth time that never changes. Network filesystems are not
/// among them, nor is overlayfs: there the first write to a file replaces it by another.
const KEEPS_BIRTHS: [u64; 7] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0xca45_1a4e, 0x2fc1_2fc1];

/// The file at a name; a symbolic link is not followed.
fn stat_at(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// The file of a descriptor.
fn stat_of(fd: &OwnedFd) -> rustix::io::Result<Statx> {
    statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

fn device(stat: &Statx) -> u64 {
    rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

fn has_birth(stat: &Statx) -> bool {
    stat.stx_mask & StatxFlags::BTIME.bits() != 0
}

fn identify(stat: &Statx, births: Option<u64>) -> Result<FileId> {
    let kind = FileKind::from_mode(stat.stx_mode.into()).ok_or(Fault::UnknownKind)?;
    let dev = device(stat);
    let born = if births == Some(dev) && has_birth(stat) {
        stat.stx_btime.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(stat.stx_btime.tv_nsec.into())
    } else {
        0
    };
    Ok(FileId { dev, ino: stat.stx_ino, kind, born })
}

/// ESTALE for each error with which the open of a last known name can fail.
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
        kind: FileKind::from_mode(stat.stx_mode.into()).ok_or(Fault::UnknownKind)?,
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
