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
use super::files::Files;
use super::guard::{Activity, Change, Guard, Name, Policy};
use super::{
    Attr, DirEntry, Entry, FileRange, Filesystem, FsError, Ino, Kind, Opened, ROOT, Reply, Request, Result,
    SetAttr, StatFs,
};

/// What is configurable about the tree.
#[derive(Debug, Clone)]
pub struct TreeConfig {
    /// The name of the tasks directory, in the root of the project.
    pub tasks: OsString,
    /// How long the kernel may believe that a name means a node.
    pub entry_ttl: Duration,
    /// How long it may believe attributes.
    pub attr_ttl: Duration,
}

impl Default for TreeConfig {
    fn default() -> TreeConfig {
        let second = Duration::from_secs(1);
        TreeConfig { tasks: "tasks".into(), entry_ttl: second, attr_ttl: second }
    }
}

/// The project's files as a filesystem.
pub struct Tree {
    files: Arc<Files>,
    root: Arc<Root>,
    guard: Guard,
    config: TreeConfig,
}

impl Tree {
    /// The tree of `files`; `activity` is told of every request.
    pub fn new(files: Arc<Files>, config: TreeConfig, activity: Activity) -> Result<Tree> {
        let root = Arc::new(Root::new(files.clone(), config.tasks.clone())?);
        let guard = Guard::new(Box::new(root.clone()), activity);
        Ok(Tree { files, root, guard, config })
    }

    fn entry(&self, attr: Attr) -> Entry {
        Entry { attr, entry_ttl: self.config.entry_ttl, attr_ttl: self.config.attr_ttl }
    }

    /// Every change goes this way: note the caller, ask the guard, make the change.
    fn change<T>(&self, req: &Request, change: Change<'_>, make: impl FnOnce() -> Result<T>) -> Result<T> {
        self.guard.seen(req);
        self.guard.admit(req, &change)?;
        make()
    }

    fn getattr_or_link(&self, ino: Ino) -> Result<Attr> {
        match Link::of(ino) {
            Some(link) => Ok(self.root.attr(link)),
            None => self.files.getattr(ino),
        }
    }
}

impl Policy for Arc<Root> {
    fn permits(&self, change: &Change<'_>) -> Result<()> {
        (**self).permits(change)
    }
}

impl Filesystem for Tree {
    fn opens_reported(&self) -> bool {
        false
    }

    fn lookup(&self, req: &Request, parent: Ino, name: &OsStr) -> Result<Entry> {
        self.guard.seen(req);
        if self.root.hides(parent, name) {
            return Err(FsError::new(libc::ENOENT));
        }
        match self.files.lookup(parent, name) {
            Err(error) if error.errno == libc::ENOENT => match self.root.link_at(parent, name)? {
                Some(link) => Ok(self.entry(self.root.attr(link))),
                None => Err(error),
            },
            answer => answer.map(|attr| self.entry(attr)),
        }
    }

    fn forget(&self, ino: Ino, count: u64) {
        self.files.forget(ino, count);
    }

    fn getattr(&self, req: &Request, ino: Ino, _fh: Option<u64>, reply: Reply<(Attr, Duration)>) {
        self.guard.seen(req);
        reply.send(self.getattr_or_link(ino).map(|attr| (attr, self.config.attr_ttl)));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: Ino,
        _fh: Option<u64>,
        change: &SetAttr,
        reply: Reply<(Attr, Duration)>,
    ) {
        let asked = match change.size {
            Some(size) => Change::Truncate { ino, size },
            None => Change::SetAttr { ino, change },
        };
        let attr = self.change(req, asked, || self.files.setattr(ino, change));
        reply.send(attr.map(|attr| (attr, self.config.attr_ttl)));
    }

    fn readlink(&self, req: &Request, ino: Ino) -> Result<OsString> {
        self.guard.seen(req);
        match Link::of(ino) {
            Some(link) => Ok(self.root.target(link)),
            None => self.files.readlink(ino),
        }
    }

    fn mknod(&self, req: &Request, parent: Ino, name: &OsStr, mode: u32, rdev: u32, reply: Reply<Entry>) {
        let made = self.change(req, Change::Mknod(Name { parent, name }), || {
            self.files.mknod(req, parent, name, mode, rdev)
        });
        reply.send(made.map(|attr| self.entry(attr)));
    }

    fn mkdir(&self, req: &Request, parent: Ino, name: &OsStr, mode: u32, reply: Reply<Entry>) {
        let made = self
            .change(req, Change::Mkdir(Name { parent, name }), || self.files.mkdir(req, parent, name, mode));
        reply.send(made.map(|attr| self.entry(attr)));
    }

    fn symlink(&self, req: &Request, parent: Ino, name: &OsStr, target: &OsStr, reply: Reply<Entry>) {
        let made = self.change(req, Change::Symlink(Name { parent, name }), || {
            self.files.symlink(req, parent, name, target)
        });
        reply.send(made.map(|attr| self.entry(attr)));
    }

    fn link(&self, req: &Request, ino: Ino, parent: Ino, name: &OsStr, reply: Reply<Entry>) {
        let to = Name { parent, name };
        let made = self.change(req, Change::Link { ino, to }, || self.files.link(ino, parent, name));
        reply.send(made.map(|attr| self.entry(attr)));
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
        let made = self.change(req, Change::Create(Name { parent, name }), || {
            self.files.create(req, parent, name, mode, exclusive)
        });
        // No handle: a RELEASE would never come for it.
        reply.send(made.map(|(attr, _kept_by_files)| (self.entry(attr), Opened::default())));
    }

    fn unlink(&self, req: &Request, parent: Ino, name: &OsStr, reply: Reply<()>) {
        let change = Change::Unlink(Name { parent, name });
        reply.send(self.change(req, change, || self.files.unlink(parent, name)));
    }

    fn rmdir(&self, req: &Request, parent: Ino, name: &OsStr, reply: Reply<()>) {
        let change = Change::Rmdir(Name { parent, name });
        reply.send(self.change(req, change, || self.files.rmdir(parent, name)));
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
        let from = Name { parent, name };
        let to = Name { parent: new_parent, name: new_name };
        reply.send(self.change(req, Change::Rename { from, to, flags }, || {
            self.files.rename(req, (parent, name), (new_parent, new_name), flags)
        }));
    }

    /// Not a sign of life: a page fault reads too, with the process's memory locked, and to look at who that is could
    /// wait for that lock. Whoever reads has looked the file up before.
    fn read(&self, _req: &Request, ino: Ino, _fh: u64, offset: u64, size: u32, reply: Reply<Vec<u8>>) {
        reply.send(self.files.read(ino, offset, size));
    }

    fn write(
        &self,
        req: &Request,
        ino: Ino,
        _fh: u64,
        offset: u64,
        data: &[u8],
        _flags: i32,
        cached: bool,
        reply: Reply<u32>,
    ) {
        let change = Change::Write { ino, offset, length: data.len(), cached };
        reply.send(self.change(req, change, || self.files.write(ino, offset, data)));
    }

    fn fsync(&self, req: &Request, ino: Ino, _fh: u64, datasync: bool, reply: Reply<()>) {
        self.guard.seen(req);
        reply.send(self.files.fsync(ino, datasync));
    }

    fn opendir(&self, req: &Request, ino: Ino) -> Result<u64> {
        self.guard.seen(req);
        self.files.opendir(ino)
    }

    fn readdir(
        &self,
        req: &Request,
        ino: Ino,
        fh: u64,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        self.guard.seen(req);
        // In the root the links come after the disk's entries, at positions that are their node numbers. A disk could
        // only mean one of its own entries by such a position if it numbered 2^62 of them.
        if Link::of(offset).is_none() {
            let ended = self
                .files
                .readdir(ino, fh, offset, &mut |entry| self.root.hides(ino, entry.name) || sink(entry))?;
            if !ended || ino != ROOT {
                return Ok(());
            }
        }
        for link in self.root.links()? {
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
        self.files.releasedir(fh);
    }

    fn fsyncdir(&self, req: &Request, _ino: Ino, fh: u64, reply: Reply<()>) {
        self.guard.seen(req);
        reply.send(self.files.fsyncdir(fh));
    }

    fn statfs(&self, req: &Request, ino: Ino) -> Result<StatFs> {
        self.guard.seen(req);
        self.files.statfs(if Link::of(ino).is_some() { ROOT } else { ino })
    }

    fn setxattr(&self, req: &Request, ino: Ino, name: &OsStr, value: &[u8], flags: i32, reply: Reply<()>) {
        let change = Change::SetXattr { ino, name };
        reply.send(self.change(req, change, || self.files.setxattr(ino, name, value, flags)));
    }

    fn getxattr(&self, req: &Request, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        self.guard.seen(req);
        match Link::of(ino) {
            Some(_) => Err(FsError::new(libc::ENODATA)),
            None => self.files.getxattr(ino, name),
        }
    }

    fn listxattr(&self, req: &Request, ino: Ino) -> Result<Vec<u8>> {
        self.guard.seen(req);
        match Link::of(ino) {
            Some(_) => Ok(Vec::new()),
            None => self.files.listxattr(req, ino),
        }
    }

    fn removexattr(&self, req: &Request, ino: Ino, name: &OsStr, reply: Reply<()>) {
        let change = Change::RemoveXattr { ino, name };
        reply.send(self.change(req, change, || self.files.removexattr(ino, name)));
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
        let change = Change::Fallocate { ino, offset, length };
        reply.send(self.change(req, change, || self.files.fallocate(ino, offset, length, mode)));
    }

    fn lseek(&self, req: &Request, ino: Ino, _fh: u64, offset: i64, whence: i32) -> Result<u64> {
        self.guard.seen(req);
        self.files.lseek(ino, offset, whence)
    }

    fn copy_file_range(&self, req: &Request, from: FileRange, to: FileRange, length: u64, reply: Reply<u32>) {
        reply.send(self.change(req, Change::CopyFileRange { from, to, length }, || {
            self.files.copy_file_range((from.ino, from.offset), (to.ino, to.offset), length)
        }));
    }
}
