//! The tree: the project as it is, with opens not reported.
//!
//! May assume: the session is mounted with `default_permissions`, for nothing else checks an open.
//! Must never: make a change that [`Guard`] was not asked about, or let a thread that serves the kernel wait for anything but the
//! disk.
//!
//! Reads and writes come by node, and are served through descriptors that [`Files`] keeps ready. O_TRUNC comes as a
//! SETATTR of size 0 before open(2) returns. O_APPEND comes with each write, and the write goes to the disk's end: the offset
//! that the kernel sends is where the file ended when the kernel looked last, which is wrong after a change beneath the mount.

mod reserved;
mod root;
mod watch;

use std::ffi::{OsStr, OsString};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::json;

pub use self::reserved::Reserved;
pub use self::root::DESK;
pub use self::root::HIDDEN;
use self::root::{Link, Root, is_synthesized};
use self::watch::{LONG, SHORT, TreeWatch};
use super::files::{Files, is_leased};
use super::guard::{self, Change, DeviceNumber, EntryName, Guard, LOCK_ATTRIBUTE, Policy, Verdict};
use super::identity::callers::Callers;
use super::{
    Attr, CallerCheck, DirEntry, Entry, Fault, FileKind, FileRange, Filesystem, Found, FsError, Ino, Kernel,
    NewMode, Opened, ROOT, ReadRequest, Reply, Request, Result, SessionInfo, SetAttr, StatFs,
};
use crate::engine::Engine;
use crate::shown;

/// The extended attribute of the root that tells what is in force.
pub const SESSION: &str = "user.crewfs.session";

/// What is configurable about the tree.
#[derive(Debug, Clone)]
pub struct TreeConfig {
    /// The name of the tasks directory, in the root of the project.
    pub tasks: OsString,
    /// How changes are let through.
    pub guard: guard::Config,
}

/// The project's files as a filesystem.
pub struct Tree {
    core: Arc<TreeCore>,
}

/// What the methods and their parked answers share.
struct TreeCore {
    files: Arc<Files>,
    root: Arc<Root>,
    guard: Arc<Guard>,
    watch: Arc<TreeWatch>,
    terms: OnceLock<Arc<SessionInfo>>,
    /// What the daemon has to say of itself.
    more: OnceLock<More>,
}

/// Where a WRITE puts its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteTarget {
    /// At this offset.
    Offset(u64),
    /// At the file's end, wherever the kernel believes that to be.
    End { believed: u64 },
    /// At this offset, as the kernel writes back a page that a process stored into.
    Page(u64),
}

/// Members for the value of [`SESSION`].
type More = Box<dyn Fn() -> serde_json::Map<String, serde_json::Value> + Send + Sync>;

impl Tree {
    /// The terms on which it is served, once it is.
    pub fn terms(&self) -> Option<Arc<SessionInfo>> {
        self.core.terms.get().cloned()
    }

    /// The tree of `files`.
    pub fn new(
        files: Arc<Files>,
        config: TreeConfig,
        callers: Arc<Callers>,
        engine: Arc<Engine>,
    ) -> Result<Tree> {
        let watch = Arc::new(TreeWatch::new(files.clone(), config.tasks.clone()));
        let root = Arc::new(Root::new(files.clone(), config.tasks.clone())?);
        let policy = Box::new(root.clone());
        let guard = Arc::new(Guard::new(config.guard, policy, files.clone(), callers, engine));
        let (terms, more) = (OnceLock::new(), OnceLock::new());
        Ok(Tree { core: Arc::new(TreeCore { files, root, guard, watch, terms, more }) })
    }

    /// The tree is mounted now, as this device. From now on `kernel` is told what to forget, and changes can wait.
    pub fn mounted(&self, device: DeviceNumber, kernel: Arc<dyn Kernel>) -> std::io::Result<()> {
        let guard = self.core.guard.clone();
        self.core.guard.start(device, kernel.clone())?;
        self.core.watch.tell(kernel, Box::new(move |name| guard.changed_behind(name)))
    }

    /// Who lets changes through.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.core.guard
    }

    /// To be called every second or so: who is kept from a file may be done with it, and where not all changes behind the mount are
    /// heard of, it is looked for some.
    pub fn look_around(&self) {
        self.core.guard.lower_fences();
        if !self.core.watch.hears_all() {
            self.core.guard.changed_behind(None);
            self.core.watch.forget_removed();
        }
    }

    /// Have what `more` says told along with what is in force. It is called at every question: be brief.
    pub fn tell_more(
        &self,
        more: impl Fn() -> serde_json::Map<String, serde_json::Value> + Send + Sync + 'static,
    ) {
        let _ = self.core.more.set(Box::new(more));
    }

    /// What is in force in this session, for people and programs: the value of [`SESSION`].
    pub fn session(&self) -> String {
        self.core.session()
    }

    /// The kernel is gone: tell it nothing more, and let nobody wait.
    pub fn stop(&self) {
        self.core.guard.stop();
        self.core.watch.stop();
    }

    /// Make a change of names, and answer with the node that it makes.
    fn make(
        &self,
        req: &Request,
        change: Change,
        reply: Reply<Entry>,
        mut make: impl FnMut(&TreeCore) -> Result<Attr> + Send + 'static,
    ) {
        let (core, maker) = (self.core.clone(), self.core.clone());
        self.core.guard.run(req, change, reply.from(move |attr| core.entry(attr)), move || make(&maker));
    }

    /// Make any other change.
    fn change<T: guard::ChangeOutcome + Send + 'static>(
        &self,
        req: &Request,
        change: Change,
        reply: Reply<T>,
        mut make: impl FnMut(&TreeCore) -> Result<T> + Send + 'static,
    ) {
        let core = self.core.clone();
        self.core.guard.run(req, change, reply, move || make(&core));
    }
}

impl TreeCore {
    /// A node that was found or made, where the kernel may believe it for as long as its last known name allows.
    fn entry(&self, attr: Attr) -> Entry {
        let parent = self.files.parent_of(attr.ino).unwrap_or(ROOT);
        self.entry_in(parent, attr)
    }

    fn entry_in(&self, parent: Ino, attr: Attr) -> Entry {
        let attr = self.watched(attr);
        let one_name = attr.kind == FileKind::Directory || attr.nlink == 1;
        let entry_ttl = if one_name && self.watch.covers(parent) { LONG } else { SHORT };
        let attr_ttl = match attr.kind {
            FileKind::Directory => self.attr_ttl(&attr),
            FileKind::File => self.guard.attr_ttl(attr.ino, entry_ttl),
            _ => entry_ttl,
        };
        Entry { attr, entry_ttl, attr_ttl }
    }

    /// A directory that the kernel is about to hear of is watched from now on.
    fn watched(&self, attr: Attr) -> Attr {
        match attr.kind {
            FileKind::Directory if self.watch.add(attr.ino) => self.files.getattr(attr.ino).unwrap_or(attr),
            _ => attr,
        }
    }

    /// How long attributes may be believed. A file of several names may be changed by one that is not watched. Of a file that
    /// lost its name beneath the mount, and is perhaps still open, nothing more is heard.
    fn attr_ttl(&self, attr: &Attr) -> Duration {
        let ttl = match (attr.kind, self.files.parent_of(attr.ino)) {
            _ if is_synthesized(attr.ino) => LONG,
            (FileKind::Directory, _) if self.watch.covers(attr.ino) => LONG,
            (FileKind::Directory, _) => SHORT,
            (_, None) => Duration::ZERO,
            (_, Some(parent)) if attr.nlink == 1 && self.watch.covers(parent) => LONG,
            _ => SHORT,
        };
        if attr.kind == FileKind::File { self.guard.attr_ttl(attr.ino, ttl) } else { ttl }
    }

    fn link_entry(&self, link: Link) -> Entry {
        let entry_ttl = if self.watch.covers(ROOT) { LONG } else { SHORT };
        Entry { attr: self.root.attr(link), entry_ttl, attr_ttl: LONG }
    }

    /// What the desk is mounted on is always there, whatever the disk has by that name.
    fn desk_entry(&self) -> Entry {
        Entry { attr: self.root.desk_attr(), entry_ttl: LONG, attr_ttl: LONG }
    }

    /// List the project's own entries, and in the root what crewfs adds to them.
    fn list(
        &self,
        ino: Ino,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>, Option<Entry>) -> bool,
    ) -> Result<()> {
        if ino == DESK {
            for (name, next) in [(".", 1), ("..", 2)].into_iter().skip(offset as usize) {
                let line = DirEntry { ino, next, kind: FileKind::Directory, name: OsStr::new(name) };
                if !sink(line, Some(self.desk_entry())) {
                    break;
                }
            }
            return Ok(());
        }
        // In the root the links come after the disk's entries, at positions that are their node numbers. A disk could
        // only mean one of its own entries by such a position if it numbered 2^62 of them.
        if !is_synthesized(offset) {
            let ended = self
                .files
                .list(ino, offset, &mut |entry| self.root.covers(ino, entry.name) || sink(entry, None))?;
            if !ended || ino != ROOT {
                return Ok(());
            }
        }
        for link in self.root.links()? {
            if offset >= link.ino() && is_synthesized(offset) {
                continue;
            }
            let name = link.name();
            let line = DirEntry { ino: link.ino(), next: link.ino(), kind: FileKind::Symlink, name };
            if !sink(line, Some(self.link_entry(link))) {
                return Ok(());
            }
        }
        if offset != DESK {
            let line = DirEntry { ino: DESK, next: DESK, kind: FileKind::Directory, name: self.root.desk() };
            sink(line, Some(self.desk_entry()));
        }
        Ok(())
    }

    fn session(&self) -> String {
        let terms = self.terms.get().map(|terms| terms.shown());
        let (known, descriptors, packed) = self.files.counts();
        let nodes = json!({ "known": known, "descriptors": descriptors, "packed": packed });
        let mut session = json!({ "tree": terms, "watch": self.watch.shown(), "nodes": nodes });
        if let (Some(more), Some(session)) = (self.more.get(), session.as_object_mut()) {
            session.extend(more());
        }
        shown::json(&session)
    }

    fn write(&self, req: &Request, ino: Ino, target: WriteTarget, data: &[u8], direct: bool) -> Result<u32> {
        if !matches!(target, WriteTarget::Page(_)) {
            self.drop_set_ids(req, ino)?;
        }
        let written = match target {
            WriteTarget::Page(offset) | WriteTarget::Offset(offset) => self.files.write(ino, offset, data)?,
            WriteTarget::End { believed } => {
                let appended = self.files.append(ino, data)?;
                if appended.end != believed + u64::from(appended.written) {
                    // The kernel has put the data into its pages where it took the end to be.
                    self.guard.drop_pages(ino, || {});
                }
                appended.written
            }
        };
        if direct && let Some(kernel) = self.watch.kernel() {
            // The kernel drops its pages before an asynchronous direct write, and not after. One that was read in between is
            // dropped when the file's time is seen to have changed.
            kernel.forget_attributes(ino);
        }
        Ok(written)
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
            None if ino == DESK => Ok(self.root.desk_attr()),
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

    fn caller_check(&self, read: ReadRequest<'_>) -> CallerCheck {
        match read {
            // The guard may hear of a read by it.
            ReadRequest::Getattr(_) => CallerCheck::Exact,
            ReadRequest::Lookup(..) | ReadRequest::Other => CallerCheck::Recent,
        }
    }

    fn began(&self, terms: Arc<SessionInfo>) {
        let _ = self.core.terms.set(terms);
    }

    fn lookup(&self, req: &Request, parent: Ino, name: &OsStr) -> Result<Found> {
        self.core.guard.seen(req);
        if self.core.root.hides(parent, name) {
            return Ok(Found::Nothing(LONG));
        }
        if self.core.root.is_desk(parent, name) {
            return Ok(Found::Entry(self.core.desk_entry()));
        }
        if parent == DESK {
            return Ok(Found::Nothing(LONG));
        }
        match self.core.files.lookup(parent, name) {
            Err(error) if error.errno() == libc::ENOENT => match self.core.root.link_at(parent, name)? {
                Some(link) => Ok(Found::Entry(self.core.link_entry(link))),
                None => Ok(Found::Nothing(self.core.watch.missing(parent, name))),
            },
            answer => answer.map(|attr| Found::Entry(self.core.entry_in(parent, attr))),
        }
    }

    fn forget(&self, ino: Ino, count: u64) {
        for directory in self.core.files.forget(ino, count, |gone| self.core.guard.forget(gone)) {
            self.core.watch.remove(&directory);
        }
    }

    fn getattr(&self, req: &Request, ino: Ino, fh: Option<u64>, reply: Reply<(Attr, Duration)>) {
        self.core.guard.seen(req);
        let core = self.core.clone();
        // Reading asks by the open file, opening does not.
        self.core.guard.before_read(req, ino, fh.is_none(), move || {
            let attr = core.getattr_or_link(ino);
            reply.send(attr.map(|attr| (attr, core.attr_ttl(&attr))));
        });
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
        let reply = reply.from(move |attr: Attr| (attr, core.attr_ttl(&attr)));
        let caller = *req;
        self.change(req, asked, reply, move |core| {
            if wanted.size.is_some() {
                core.drop_set_ids(&caller, ino)?;
            }
            core.files.setattr(&caller, ino, &wanted)
        });
    }

    fn readlink(&self, req: &Request, ino: Ino) -> Result<OsString> {
        self.core.guard.seen(req);
        match Link::of(ino) {
            Some(link) => Ok(self.core.root.target(link)),
            None => self.core.files.readlink(ino),
        }
    }

    fn mknod(&self, req: &Request, parent: Ino, name: &OsStr, mode: NewMode, rdev: u32, reply: Reply<Entry>) {
        let (at, caller) = (EntryName::new(parent, name), *req);
        self.make(req, Change::Mknod(at.clone()), reply, move |core| {
            core.files.mknod(&caller, parent, &at.name, mode, rdev)
        });
    }

    fn mkdir(&self, req: &Request, parent: Ino, name: &OsStr, mode: NewMode, reply: Reply<Entry>) {
        let (at, caller) = (EntryName::new(parent, name), *req);
        self.make(req, Change::Mkdir(at.clone()), reply, move |core| {
            core.files.mkdir(&caller, parent, &at.name, mode)
        });
    }

    fn symlink(&self, req: &Request, parent: Ino, name: &OsStr, target: &OsStr, reply: Reply<Entry>) {
        let (at, caller, target) = (EntryName::new(parent, name), *req, target.to_owned());
        self.make(req, Change::Symlink(at.clone()), reply, move |core| {
            core.files.symlink(&caller, parent, &at.name, &target)
        });
    }

    fn link(&self, req: &Request, ino: Ino, parent: Ino, name: &OsStr, reply: Reply<Entry>) {
        let to = EntryName::new(parent, name);
        self.make(req, Change::Link { ino, to: to.clone() }, reply, move |core| {
            core.files.link(ino, parent, &to.name)
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: Ino,
        name: &OsStr,
        mode: NewMode,
        flags: i32,
        reply: Reply<(Entry, Opened)>,
    ) {
        let exclusive = flags & libc::O_EXCL != 0;
        let (at, caller) = (EntryName::new(parent, name), *req);
        // No handle: a RELEASE would never come for it.
        let reply = reply.from(|entry| (entry, Opened::default()));
        self.make(req, Change::Create { at: at.clone(), flags }, reply, move |core| {
            let (attr, _kept_by_files) = core.files.create(&caller, parent, &at.name, mode, exclusive)?;
            Ok(attr)
        });
    }

    fn unlink(&self, req: &Request, parent: Ino, name: &OsStr, reply: Reply<()>) {
        let at = EntryName::new(parent, name);
        self.change(req, Change::Unlink(at.clone()), reply, move |core| core.files.unlink(parent, &at.name));
    }

    fn rmdir(&self, req: &Request, parent: Ino, name: &OsStr, reply: Reply<()>) {
        let at = EntryName::new(parent, name);
        self.change(req, Change::Rmdir(at.clone()), reply, move |core| core.files.rmdir(parent, &at.name));
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
        let (from, to) = (EntryName::new(parent, name), EntryName::new(new_parent, new_name));
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        let (change, caller) = (Change::Rename { from: from.clone(), to: to.clone(), exchange }, *req);
        self.change(req, change, reply, move |core| {
            core.files.rename(&caller, (from.parent, &from.name), (to.parent, &to.name), flags)
        });
    }

    /// Not a sign of life: a page fault reads too, with the process's memory locked, and to look at who that is could
    /// wait for that lock. Whoever reads has looked the file up before.
    fn read(
        &self,
        req: &Request,
        ino: Ino,
        _fh: u64,
        offset: u64,
        size: u32,
        flags: i32,
        reply: Reply<Vec<u8>>,
    ) {
        self.core.guard.reading(req, ino, flags & libc::O_ACCMODE != libc::O_RDONLY);
        let core = self.core.clone();
        let read = move || core.files.read(ino, offset, size);
        self.core.files.leases().run(req.uid, read, move |came| reply.send(came));
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
        let target = match cached {
            true => WriteTarget::Page(offset),
            false if flags & libc::O_APPEND != 0 => WriteTarget::End { believed: offset },
            false => WriteTarget::Offset(offset),
        };
        let direct = flags & libc::O_DIRECT != 0;
        let change = match target {
            WriteTarget::Page(_) => Change::WriteMapped { ino },
            WriteTarget::Offset(_) => Change::Write { ino, append: false },
            WriteTarget::End { .. } => Change::Write { ino, append: true },
        };
        // Not by `change`: what is written is copied only if it has to wait.
        match core.guard.judge(req, &change) {
            Verdict::Granted(grant) => {
                let came = core.write(req, ino, target, data, direct);
                if !is_leased(&came) {
                    return reply.send(core.guard.carry_out(grant, || came));
                }
                let (later, data, caller) = (core.clone(), data.to_vec(), *req);
                let write = move || later.write(&caller, ino, target, &data, direct);
                core.guard.finish(grant, req.uid, write, move |came| reply.send(came));
            }
            Verdict::Refused(error) => reply.send(Err(error)),
            Verdict::Wait(patience) => {
                let (core, data, caller) = (core.clone(), data.to_vec(), *req);
                let guard = core.guard.clone();
                guard.park(patience, change, reply, move || core.write(&caller, ino, target, &data, direct));
            }
        }
    }

    fn fsync(&self, req: &Request, ino: Ino, _fh: u64, datasync: bool, reply: Reply<()>) {
        self.core.guard.seen(req);
        let core = self.core.clone();
        let sync = move || core.files.fsync(ino, datasync);
        self.core.files.leases().run(req.uid, sync, move |came| reply.send(came));
    }

    fn opendir(&self, _req: &Request, _ino: Ino) -> Result<u64> {
        Err(Fault::NotImplemented.into())
    }

    fn readdir(
        &self,
        req: &Request,
        ino: Ino,
        _fh: u64,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>) -> bool,
    ) -> Result<()> {
        self.core.guard.seen(req);
        self.core.list(ino, offset, &mut |line, _| sink(line))
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: Ino,
        offset: u64,
        sink: &mut dyn FnMut(DirEntry<'_>, &Entry) -> bool,
    ) -> Result<()> {
        self.core.guard.seen(req);
        let mut failed = None;
        self.core.list(ino, offset, &mut |line, entry| {
            if line.name == "." || line.name == ".." {
                let attr = self.core.root.nameless(line.ino);
                return sink(line, &Entry { attr, entry_ttl: Duration::ZERO, attr_ttl: Duration::ZERO });
            }
            if let Some(entry) = entry {
                return sink(line, &entry);
            }
            match self.core.files.lookup(ino, line.name) {
                Ok(attr) => {
                    let entry = self.core.entry_in(ino, attr);
                    let taken = sink(DirEntry { ino: attr.ino, ..line }, &entry);
                    if !taken {
                        self.forget(attr.ino, 1);
                    }
                    taken
                }
                // It went away since it was listed.
                Err(error) if error.errno() == libc::ENOENT => true,
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
        self.core.guard.seen(req);
        reply.send(self.core.files.fsync_directory(ino));
    }

    fn statfs(&self, req: &Request, ino: Ino) -> Result<StatFs> {
        self.core.guard.seen(req);
        self.core.files.statfs(if is_synthesized(ino) { ROOT } else { ino })
    }

    fn setxattr(&self, req: &Request, ino: Ino, name: &OsStr, value: &[u8], flags: i32, reply: Reply<()>) {
        let (name, value, caller) = (name.to_owned(), value.to_vec(), *req);
        self.change(req, Change::Xattr { ino, name: name.clone() }, reply, move |core| {
            core.files.setxattr(&caller, ino, &name, &value, flags)
        });
    }

    fn getxattr(&self, req: &Request, ino: Ino, name: &OsStr) -> Result<Vec<u8>> {
        self.core.guard.seen(req);
        match is_synthesized(ino) {
            true => Err(Fault::NoAttribute.into()),
            false if name == LOCK_ATTRIBUTE => {
                self.core.guard.holder(ino).map(String::into_bytes).ok_or(FsError::Plain(Fault::NoAttribute))
            }
            false if ino == ROOT && name == SESSION => Ok(self.core.session().into_bytes()),
            false => self.core.files.getxattr(ino, name),
        }
    }

    fn listxattr(&self, req: &Request, ino: Ino) -> Result<Vec<u8>> {
        self.core.guard.seen(req);
        if is_synthesized(ino) { Ok(Vec::new()) } else { self.core.files.listxattr(req, ino) }
    }

    fn removexattr(&self, req: &Request, ino: Ino, name: &OsStr, reply: Reply<()>) {
        let (name, caller) = (name.to_owned(), *req);
        self.change(req, Change::Xattr { ino, name: name.clone() }, reply, move |core| {
            core.files.removexattr(&caller, ino, &name)
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
        let (change, caller) = (Change::Fallocate { ino }, *req);
        self.change(req, change, reply, move |core| {
            core.drop_set_ids(&caller, ino)?;
            core.files.fallocate(ino, offset, length, mode)
        });
    }

    fn lseek(&self, req: &Request, ino: Ino, _fh: u64, offset: i64, whence: i32) -> Result<u64> {
        self.core.guard.seen(req);
        self.core.files.lseek(ino, offset, whence)
    }

    fn copy_file_range(&self, req: &Request, from: FileRange, to: FileRange, length: u64, reply: Reply<u32>) {
        let caller = *req;
        self.change(req, Change::CopyFileRange { from, to }, reply, move |core| {
            core.drop_set_ids(&caller, to.ino)?;
            core.files.copy_file_range((from.ino, from.offset), (to.ino, to.offset), length)
        });
    }
}
