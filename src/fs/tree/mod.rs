//! The tree: the project as it is, with opens not reported.
//!
//! May assume: the session is mounted with `default_permissions`, for nothing else checks an open.
//! Must never: make a change that [`Guard::admit`] was not asked about, or wait for anything but the disk.
//!
//! Reads and writes come by node, and are served through descriptors that [`Files`] keeps ready. O_TRUNC comes as a
//! SETATTR of size 0 before open(2) returns. O_APPEND needs nothing: the kernel takes the file's lock, asks for the
//! size, and sends the write with that offset; one kernel serves all callers of a mount, so the lock is the same one
//! that makes appending atomic on a local disk.

mod root;

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

pub use self::root::HIDDEN;
use self::root::{Link, Root};
use super::caller::Callers;
use super::files::Files;
use super::guard::{self, Change, Device, Guard, LOCK_ATTRIBUTE, Name, Policy, Verdict};
use super::{
    Attr, DirEntry, Entry, FileRange, Filesystem, FsError, Ino, Kernel, Kind, Opened, ROOT, Reply, Request,
    Result, SetAttr, StatFs,
};
use crate::engine::Engine;

/// What is configurable about the tree.
#[derive(Debug, Clone)]
pub struct TreeConfig {
    /// The name of the tasks directory, in the root of the project.
    pub tasks: OsString,
    /// How long the kernel may believe that a name means a node.
    pub entry_ttl: Duration,
    /// How long it may believe attributes.
    pub attr_ttl: Duration,
    /// How changes are let through.
    pub guard: guard::Config,
}

impl Default for TreeConfig {
    fn default() -> TreeConfig {
        let second = Duration::from_secs(1);
        TreeConfig {
            tasks: "tasks".into(),
            entry_ttl: second,
            attr_ttl: second,
            guard: guard::Config::default(),
        }
    }
}

/// The project's files as a filesystem.
pub struct Tree {
    core: Arc<Core>,
}

/// What the methods and their parked answers share.
struct Core {
    files: Arc<Files>,
    root: Arc<Root>,
    guard: Arc<Guard>,
    config: TreeConfig,
}

impl Tree {
    /// The tree of `files`.
    pub fn new(
        files: Arc<Files>,
        config: TreeConfig,
        callers: Arc<Callers>,
        engine: Arc<Engine>,
    ) -> Result<Tree> {
        let root = Arc::new(Root::new(files.clone(), config.tasks.clone())?);
        let guard = Guard::new(config.guard, Box::new(root.clone()), files.clone(), callers, engine);
        Ok(Tree { core: Arc::new(Core { files, root, guard: Arc::new(guard), config }) })
    }

    /// The tree is mounted now, as this device. `kernel` can be told what to forget.
    pub fn mounted(&self, device: Device, kernel: Arc<dyn Kernel>) -> std::io::Result<()> {
        self.core.guard.start(device, kernel)
    }

    /// Who lets changes through.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.core.guard
    }

    /// Make a change of names, and answer with the node that it makes.
    fn make(
        &self,
        req: &Request,
        change: Change,
        reply: Reply<Entry>,
        make: impl FnOnce(&Core) -> Result<Attr> + Send + 'static,
    ) {
        let (core, maker) = (self.core.clone(), self.core.clone());
        self.core.guard.run(req, change, reply.from(move |attr| core.entry(attr)), move || make(&maker));
    }

    /// Make any other change.
    fn change<T: guard::Made + Send + 'static>(
        &self,
        req: &Request,
        change: Change,
        reply: Reply<T>,
        make: impl FnOnce(&Files) -> Result<T> + Send + 'static,
    ) {
        let files = self.core.files.clone();
        self.core.guard.run(req, change, reply, move || make(&files));
    }
}

impl Core {
    fn entry(&self, attr: Attr) -> Entry {
        Entry { attr, entry_ttl: self.config.entry_ttl, attr_ttl: self.attr_ttl(attr.ino) }
    }

    fn attr_ttl(&self, ino: Ino) -> Duration {
        self.guard.attr_ttl(ino, self.config.attr_ttl)
    }

    fn getattr_or_link(&self, ino: Ino) -> Result<Attr> {
        match Link::of(ino) {
            Some(link) => Ok(self.root.attr(link)),
            None => self.files.getattr(ino),
        }
    }
}

impl Policy for Arc<Root> {
    fn permits(&self, change: &Change) -> Result<()> {
        (**self).permits(change)
    }
}

impl Filesystem for Tree {
    fn opens_reported(&self) -> bool {
        false
    }

    fn lookup(&self, req: &Request, parent: Ino, name: &OsStr) -> Result<Entry> {
        let core = &self.core;
        core.guard.seen(req);
        if core.root.hides(parent, name) {
            return Err(FsError::new(libc::ENOENT));
        }
        match core.files.lookup(parent, name) {
            Err(error) if error.errno == libc::ENOENT => match core.root.link_at(parent, name)? {
                Some(link) => Ok(core.entry(core.root.attr(link))),
                None => Err(error),
            },
            answer => answer.map(|attr| core.entry(attr)),
        }
    }

    fn forget(&self, ino: Ino, count: u64) {
        self.core.files.forget(ino, count, |gone| self.core.guard.forget(gone));
    }

    fn getattr(&self, req: &Request, ino: Ino, _fh: Option<u64>, reply: Reply<(Attr, Duration)>) {
        self.core.guard.seen(req);
        match self.core.getattr_or_link(ino) {
            Ok(attr) => {
                let core = self.core.clone();
                self.core.guard.before_read(req, &attr, move || {
                    let ttl = core.attr_ttl(ino);
                    reply.send(Ok((attr, ttl)));
                });
            }
            Err(error) => reply.send(Err(error)),
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: Ino,
        fh: Option<u64>,
        change: &SetAttr,
        reply: Reply<(Attr, Duration)>,
    ) {
        let wanted = *change;
        let asked = match wanted.size {
            // A descriptor comes along with ftruncate(2), and not with O_TRUNC.
            Some(size) => Change::Truncate { ino, size, opens: fh.is_none() },
            None => Change::SetAttr { ino, change: wanted },
        };
        let core = self.core.clone();
        let reply = reply.from(move |attr: Attr| (attr, core.attr_ttl(attr.ino)));
        self.change(req, asked, reply, move |files| files.setattr(ino, &wanted));
    }

    fn readlink(&self, req: &Request, ino: Ino) -> Result<OsString> {
        self.core.guard.seen(req);
        match Link::of(ino) {
            Some(link) => Ok(self.core.root.target(link)),
            None => self.core.files.readlink(ino),
        }
    }

    fn mknod(&self, req: &Request, parent: Ino, name: &OsStr, mode: u32, rdev: u32, reply: Reply<Entry>) {
        let (at, caller) = (Name::new(parent, name), *req);
        self.make(req, Change::Mknod(at.clone()), reply, move |core| {
            core.files.mknod(&caller, parent, &at.name, mode, rdev)
        });
    }

    fn mkdir(&self, req: &Request, parent: Ino, name: &OsStr, mode: u32, reply: Reply<Entry>) {
        let (at, caller) = (Name::new(parent, name), *req);
        self.make(req, Change::Mkdir(at.clone()), reply, move |core| {
            core.files.mkdir(&caller, parent, &at.name, mode)
        });
    }

    fn symlink(&self, req: &Request, parent: Ino, name: &OsStr, target: &OsStr, reply: Reply<Entry>) {
        let (at, caller, target) = (Name::new(parent, name), *req, target.to_owned());
        self.make(req, Change::Symlink(at.clone()), reply, move |core| {
            core.files.symlink(&caller, parent, &at.name, &target)
        });
    }

    fn link(&self, req: &Request, ino: Ino, parent: Ino, name: &OsStr, reply: Reply<Entry>) {
        let to = Name::new(parent, name);
        self.make(req, Change::Link { ino, to: to.clone() }, reply, move |core| {
            core.files.link(ino, parent, &to.name)
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: i32,
        reply: Reply<(Entry, Opened)>,
    ) {
        let exclusive = flags & libc::O_EXCL != 0;
        let (at, caller) = (Name::new(parent, name), *req);
        // No handle: a RELEASE would never come for it.
        let reply = reply.from(|entry| (entry, Opened::default()));
        self.make(req, Change::Create(at.clone()), reply, move |core| {
            let (attr, _kept_by_files) = core.files.create(&caller, parent, &at.name, mode, exclusive)?;
            Ok(attr)
        });
    }

    fn unlink(&self, req: &Request, parent: Ino, name: &OsStr, reply: Reply<()>) {
        let at = Name::new(parent, name);
        self.change(req, Change::Unlink(at.clone()), reply, move |files| files.unlink(parent, &at.name));
    }

    fn rmdir(&self, req: &Request, parent: Ino, name: &OsStr, reply: Reply<()>) {
        let at = Name::new(parent, name);
        self.change(req, Change::Rmdir(at.clone()), reply, move |files| files.rmdir(parent, &at.name));
    }

    fn rename(
        &self,
        req: &Request,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        flags: u32,
        reply: Reply<()>,
    ) {
        let (from, to) = (Name::new(parent, name), Name::new(new_parent, new_name));
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        let (change, caller) = (Change::Rename { from: from.clone(), to: to.clone(), exchange }, *req);
        self.change(req, change, reply, move |files| {
            files.rename(&caller, (from.parent, &from.name), (to.parent, &to.name), flags)
        });
    }

    /// Not a sign of life: a page fault reads too, with the process's memory locked, and to look at who that is could
    /// wait for that lock. Whoever reads has looked the file up before.
    fn read(&self, req: &Request, ino: Ino, _fh: u64, offset: u64, size: u32, reply: Reply<Vec<u8>>) {
        self.core.guard.reading(req, ino);
        reply.send(self.core.files.read(ino, offset, size));
    }

    fn write(
        &self,
        req: &Request,
        ino: Ino,
        _fh: u64,
        offset: u64,
        data: &[u8],
        flags: i32,
        cached: bool,
        reply: Reply<u32>,
    ) {
        let core = &self.core;
        // A write can go elsewhere in spite of O_APPEND (RWF_NOAPPEND of pwritev2(2)).
        let at_end = || core.files.getattr(ino).is_ok_and(|attr| offset >= attr.size);
        let append = flags & libc::O_APPEND != 0 && at_end();
        let change = if cached { Change::WriteMapped { ino } } else { Change::Write { ino, append } };
        // Not by `change`: what is written is copied only if it has to wait.
        match core.guard.judge(req, &change) {
            Verdict::Granted(grant) => {
                reply.send(core.guard.carry_out(grant, || core.files.write(ino, offset, data)));
            }
            Verdict::Refused(error) => reply.send(Err(error)),
            Verdict::Wait(patience) => {
                let (files, data) = (core.files.clone(), data.to_vec());
                core.guard.park(patience, change, reply, move || files.write(ino, offset, &data));
            }
        }
    }

    fn fsync(&self, req: &Request, ino: Ino, _fh: u64, datasync: bool, reply: Reply<()>) {
        self.core.guard.seen(req);
        reply.send(self.core.files.fsync(ino, datasync));
    }

    fn opendir(&self, req: &Request, ino: Ino) -> Result<u64> {
        self.core.guard.seen(req);
        self.core.files.opendir(ino)
    }

    fn readdir(
        &self,
        req: &Request,
        ino: Ino,
        fh: u64,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        self.core.guard.seen(req);
        // In the root the links come after the disk's entries, at positions that are their node numbers. A disk could
        // only mean one of its own entries by such a position if it numbered 2^62 of them.
        if Link::of(offset).is_none() {
            let ended = self.core.files.readdir(ino, fh, offset, &mut |entry| {
                self.core.root.hides(ino, entry.name) || sink(entry)
            })?;
            if !ended || ino != ROOT {
                return Ok(());
            }
        }
        for link in self.core.root.links()? {
            if offset >= link.ino() && Link::of(offset).is_some() {
                continue;
            }
            let name = link.name();
            if !sink(DirEntry { ino: link.ino(), next: link.ino(), kind: Kind::Symlink, name }) {
                break;
            }
        }
        Ok(())
    }

    fn releasedir(&self, _ino: Ino, fh: u64) {
        self.core.files.releasedir(fh);
    }

    fn fsyncdir(&self, req: &Request, _ino: Ino, fh: u64, reply: Reply<()>) {
        self.core.guard.seen(req);
        reply.send(self.core.files.fsyncdir(fh));
    }

    fn statfs(&self, req: &Request, ino: Ino) -> Result<StatFs> {
        self.core.guard.seen(req);
        self.core.files.statfs(if Link::of(ino).is_some() { ROOT } else { ino })
    }

    fn setxattr(&self, req: &Request, ino: Ino, name: &OsStr, value: &[u8], flags: i32, reply: Reply<()>) {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.change(req, Change::Xattr { ino, name: name.clone() }, reply, move |files| {
            files.setxattr(ino, &name, &value, flags)
        });
    }

    fn getxattr(&self, req: &Request, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        self.core.guard.seen(req);
        match Link::of(ino) {
            Some(_) => Err(FsError::new(libc::ENODATA)),
            None if name == LOCK_ATTRIBUTE => {
                self.core.guard.holder(ino).map(String::into_bytes).ok_or(FsError::new(libc::ENODATA))
            }
            None => self.core.files.getxattr(ino, name),
        }
    }

    fn listxattr(&self, req: &Request, ino: Ino) -> Result<Vec<u8>> {
        self.core.guard.seen(req);
        match Link::of(ino) {
            Some(_) => Ok(Vec::new()),
            None => self.core.files.listxattr(req, ino),
        }
    }

    fn removexattr(&self, req: &Request, ino: Ino, name: &OsStr, reply: Reply<()>) {
        let name = name.to_owned();
        self.change(req, Change::Xattr { ino, name: name.clone() }, reply, move |files| {
            files.removexattr(ino, &name)
        });
    }

    fn fallocate(
        &self,
        req: &Request,
        ino: Ino,
        _fh: u64,
        offset: u64,
        length: u64,
        mode: i32,
        reply: Reply<()>,
    ) {
        let change = Change::Fallocate { ino };
        self.change(req, change, reply, move |files| files.fallocate(ino, offset, length, mode));
    }

    fn lseek(&self, req: &Request, ino: Ino, _fh: u64, offset: i64, whence: i32) -> Result<u64> {
        self.core.guard.seen(req);
        self.core.files.lseek(ino, offset, whence)
    }

    fn copy_file_range(&self, req: &Request, from: FileRange, to: FileRange, length: u64, reply: Reply<u32>) {
        self.change(req, Change::CopyFileRange { from, to }, reply, move |files| {
            files.copy_file_range((from.ino, from.offset), (to.ino, to.offset), length)
        });
    }
}
