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
mod watch;

use std::ffi::{OsStr, OsString};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::json;

pub use self::root::HIDDEN;
use self::root::{Link, Root};
use self::watch::{LONG, SHORT, Watch};
use super::files::Files;
use super::guard::{Activity, Change, Guard, Name, Policy};
use super::{
    Attr, DirEntry, Entry, FileRange, Filesystem, Found, FsError, Ino, Kernel, Kind, Opened, ROOT, Reply,
    Request, Result, SetAttr, StatFs, Terms,
};

/// The extended attribute of the root that tells what is in force.
pub const SESSION: &str = "user.crewfs.session";

/// What is configurable about the tree.
#[derive(Debug, Clone)]
pub struct TreeConfig {
    /// The name of the tasks directory, in the root of the project.
    pub tasks: OsString,
}

/// The project's files as a filesystem.
pub struct Tree {
    files: Arc<Files>,
    root: Arc<Root>,
    guard: Guard,
    watch: Arc<Watch>,
    config: TreeConfig,
    terms: OnceLock<Arc<Terms>>,
}

impl Tree {
    /// The tree of `files`; `activity` is told of every request.
    pub fn new(files: Arc<Files>, config: TreeConfig, activity: Activity) -> Result<Tree> {
        let watch = Arc::new(Watch::new(files.clone(), config.tasks.clone()));
        let root = Arc::new(Root::new(files.clone(), config.tasks.clone())?);
        let guard = Guard::new(Box::new(root.clone()), activity);
        Ok(Tree { files, root, guard, watch, config, terms: OnceLock::new() })
    }

    /// From now on, the kernel is told what changes behind the mount.
    pub fn tell(&self, kernel: Arc<dyn Kernel>) -> std::io::Result<()> {
        self.watch.tell(kernel)
    }

    /// The kernel is gone: tell it nothing more.
    pub fn stop(&self) {
        self.watch.stop();
    }

    /// A node that was found or made, where the kernel may believe it for as long as its last known name allows.
    fn entry(&self, attr: Attr) -> Entry {
        let parent = self.files.parent_of(attr.ino).unwrap_or(ROOT);
        self.entry_in(parent, attr)
    }

    fn entry_in(&self, parent: Ino, attr: Attr) -> Entry {
        let attr = self.watched(attr);
        let one_name = attr.kind == Kind::Directory || attr.nlink == 1;
        let entry_ttl = if one_name && self.watch.covers(parent) { LONG } else { SHORT };
        let attr_ttl = if attr.kind == Kind::Directory { self.attr_ttl(&attr) } else { entry_ttl };
        Entry { attr, entry_ttl, attr_ttl }
    }

    /// A directory that the kernel is about to hear of is watched from now on.
    fn watched(&self, attr: Attr) -> Attr {
        match attr.kind {
            Kind::Directory if self.watch.add(attr.ino) => self.files.getattr(attr.ino).unwrap_or(attr),
            _ => attr,
        }
    }

    /// How long attributes may be believed. A file of several names may be changed by one that nobody watches.
    fn attr_ttl(&self, attr: &Attr) -> Duration {
        let told = match (attr.kind, attr.nlink) {
            (Kind::Directory, _) => self.watch.covers(attr.ino),
            (_, 1) => self.files.parent_of(attr.ino).is_some_and(|parent| self.watch.covers(parent)),
            _ => false,
        };
        if told { LONG } else { SHORT }
    }

    /// What a name in a directory means: a file of the project as it was found, or else what crewfs puts there.
    fn found(&self, parent: Ino, name: &OsStr, attr: Attr) -> Entry {
        // What the desk covers nobody sees, and its name does not go away.
        if parent == ROOT && name == self.config.tasks {
            return Entry { attr, entry_ttl: LONG, attr_ttl: LONG };
        }
        self.entry_in(parent, attr)
    }

    fn link_entry(&self, link: Link) -> Entry {
        let entry_ttl = if self.watch.covers(ROOT) { LONG } else { SHORT };
        Entry { attr: self.root.attr(link), entry_ttl, attr_ttl: LONG }
    }

    /// List the project's own entries, and in the root what crewfs adds to them.
    fn list(
        &self,
        ino: Ino,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>, Option<Link>) -> bool,
    ) -> Result<()> {
        // In the root the links come after the disk's entries, at positions that are their node numbers. A disk could
        // only mean one of its own entries by such a position if it numbered 2^62 of them.
        if Link::of(offset).is_none() {
            let ended = self
                .files
                .list(ino, offset, &mut |entry| self.root.hides(ino, entry.name) || sink(entry, None))?;
            if !ended || ino != ROOT {
                return Ok(());
            }
        }
        for link in self.root.links()? {
            if offset >= link.ino() && Link::of(offset).is_some() {
                continue;
            }
            let name = link.name();
            let line = DirEntry { ino: link.ino(), next: link.ino(), kind: Kind::Symlink, name };
            if !sink(line, Some(link)) {
                break;
            }
        }
        Ok(())
    }

    /// What is in force in this session, for people and programs: the value of [`SESSION`].
    pub fn session(&self) -> String {
        let terms = self.terms.get().map(|terms| terms.shown());
        json!({ "tree": terms, "watch": self.watch.shown() }).to_string()
    }

    /// Every change goes this way: note the caller, ask the guard, make the change.
    fn change<T>(&self, req: &Request, change: Change<'_>, make: impl FnOnce() -> Result<T>) -> Result<T> {
        self.guard.seen(req);
        self.guard.admit(req, &change)?;
        make()
    }

    /// This caller is about to change content. The kernel does not think of the mode then.
    fn drop_set_ids(&self, req: &Request, ino: Ino) -> Result<()> {
        if self.files.drop_set_ids(req, ino)?
            && let Some(kernel) = self.watch.kernel()
        {
            kernel.forget_attributes(ino);
        }
        Ok(())
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

    fn began(&self, terms: Arc<Terms>) {
        let _ = self.terms.set(terms);
    }

    fn lookup(&self, req: &Request, parent: Ino, name: &OsStr) -> Result<Found> {
        self.guard.seen(req);
        if self.root.hides(parent, name) {
            return Ok(Found::Nothing(LONG));
        }
        match self.files.lookup(parent, name) {
            Err(error) if error.errno == libc::ENOENT => match self.root.link_at(parent, name)? {
                Some(link) => Ok(Found::Entry(self.link_entry(link))),
                None => Ok(Found::Nothing(self.watch.missing(parent, name))),
            },
            answer => answer.map(|attr| Found::Entry(self.found(parent, name, attr))),
        }
    }

    fn forget(&self, ino: Ino, count: u64) {
        for directory in self.files.forget(ino, count) {
            self.watch.remove(&directory);
        }
    }

    fn getattr(&self, req: &Request, ino: Ino, _fh: Option<u64>, reply: Reply<(Attr, Duration)>) {
        self.guard.seen(req);
        reply.send(self.getattr_or_link(ino).map(|attr| (attr, self.attr_ttl(&attr))));
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
        let attr = self.change(req, asked, || {
            if change.size.is_some() {
                self.drop_set_ids(req, ino)?;
            }
            self.files.setattr(ino, change)
        });
        reply.send(attr.map(|attr| (attr, self.attr_ttl(&attr))));
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
        reply.send(self.change(req, change, || {
            if !cached {
                self.drop_set_ids(req, ino)?;
            }
            self.files.write(ino, offset, data)
        }));
    }

    fn fsync(&self, req: &Request, ino: Ino, _fh: u64, datasync: bool, reply: Reply<()>) {
        self.guard.seen(req);
        reply.send(self.files.fsync(ino, datasync));
    }

    fn opendir(&self, _req: &Request, _ino: Ino) -> Result<u64> {
        Err(FsError::new(libc::ENOSYS))
    }

    fn readdir(
        &self,
        req: &Request,
        ino: Ino,
        _fh: u64,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        self.guard.seen(req);
        self.list(ino, offset, &mut |line, _| sink(line))
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: Ino,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>, &Entry) -> bool,
    ) -> Result<()> {
        self.guard.seen(req);
        let mut failed = None;
        self.list(ino, offset, &mut |line, link| {
            if let Some(link) = link {
                return sink(line, &self.link_entry(link));
            }
            if line.name == "." || line.name == ".." {
                let attr = self.root.nameless(line.ino);
                return sink(line, &Entry { attr, entry_ttl: Duration::ZERO, attr_ttl: Duration::ZERO });
            }
            match self.files.lookup(ino, line.name) {
                Ok(attr) => {
                    let entry = self.found(ino, line.name, attr);
                    let taken = sink(DirEntry { ino: attr.ino, ..line }, &entry);
                    if !taken {
                        self.forget(attr.ino, 1);
                    }
                    taken
                }
                // It went away since it was listed.
                Err(error) if error.errno == libc::ENOENT => true,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn releasedir(&self, _ino: Ino, _fh: u64) {}

    fn fsyncdir(&self, req: &Request, ino: Ino, _fh: u64, reply: Reply<()>) {
        self.guard.seen(req);
        reply.send(self.files.fsync_directory(ino));
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
            None if ino == ROOT && name == SESSION => Ok(self.session().into_bytes()),
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
        reply.send(self.change(req, change, || {
            self.drop_set_ids(req, ino)?;
            self.files.fallocate(ino, offset, length, mode)
        }));
    }

    fn lseek(&self, req: &Request, ino: Ino, _fh: u64, offset: i64, whence: i32) -> Result<u64> {
        self.guard.seen(req);
        self.files.lseek(ino, offset, whence)
    }

    fn copy_file_range(&self, req: &Request, from: FileRange, to: FileRange, length: u64, reply: Reply<u32>) {
        reply.send(self.change(req, Change::CopyFileRange { from, to, length }, || {
            self.drop_set_ids(req, to.ino)?;
            self.files.copy_file_range((from.ino, from.offset), (to.ino, to.offset), length)
        }));
    }
}
