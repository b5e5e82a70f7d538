//! The tree: the project as it is. The kernel does not report opens to it.
//!
//! May assume: the session is mounted with `default_permissions`, because nothing else checks an open.
//! Must never: make a change that [`Guard`] has not granted, or let a thread that serves the kernel wait for anything but the
//! disk.
//!
//! Reads and writes name a node, and the daemon serves them through descriptors that [`Files`] keeps ready. O_TRUNC arrives as a
//! SETATTR of size 0 before open(2) returns. O_APPEND arrives with each write, and the daemon appends at the disk's end of the file: the
//! offset in the request is the end that the kernel last read, which is wrong after a change beneath the mount.

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
use super::recorder::Recorder;
use super::{
    Attr, CallerCheck, DirEntry, Entry, Fault, FileKind, FileRange, Filesystem, Found, FsError, Ino, Kernel,
    NewMode, Opened, ROOT, ReadRequest, Reply, Request, Result, SessionInfo, SetAttr, StatFs,
};
use crate::engine::Engine;
use crate::shown;

/// The extended attribute of the root that shows what is in force.
pub const SESSION: &str = "user.crewfs.session";

/// The extended attribute of the root whose value is known when all changes made until now are in the history.
pub const HISTORY: &str = "user.crewfs.history";

/// The configuration of the tree.
#[derive(Debug, Clone)]
pub struct TreeConfig {
    /// The name of the tasks directory, in the root of the project.
    pub tasks: OsString,
    /// The guard's configuration.
    pub guard: guard::Config,
}

/// The project's files as a filesystem.
pub struct Tree {
    core: Arc<TreeCore>,
}

/// What the methods share with parked answers.
struct TreeCore {
    files: Arc<Files>,
    root: Arc<Root>,
    guard: Arc<Guard>,
    recorder: Option<Arc<Recorder>>,
    watch: Arc<TreeWatch>,
    terms: OnceLock<Arc<SessionInfo>>,
    /// The members that the daemon adds to the value of [`SESSION`].
    extra: OnceLock<ExtraMembers>,
}

/// Where a WRITE puts its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriteTarget {
    /// At this offset.
    Offset(u64),
    /// At the file's end on the disk; the kernel expected it at `kernel_end`.
    End { kernel_end: u64 },
    /// At this offset, from the page cache: a process has stored into a mapped page.
    Page(u64),
}

/// Members for the value of [`SESSION`].
type ExtraMembers = Box<dyn Fn() -> serde_json::Map<String, serde_json::Value> + Send + Sync>;

impl Tree {
    /// What the session has agreed on with the kernel, once it is mounted.
    pub fn terms(&self) -> Option<Arc<SessionInfo>> {
        self.core.terms.get().cloned()
    }

    /// The tree of `files`.
    pub fn new(
        files: Arc<Files>,
        config: TreeConfig,
        callers: Arc<Callers>,
        engine: Arc<Engine>,
        recorder: Option<Arc<Recorder>>,
    ) -> Result<Tree> {
        let watch = Arc::new(TreeWatch::new(files.clone(), config.tasks.clone()));
        let root = Arc::new(Root::new(files.clone(), config.tasks.clone())?);
        let policy = Box::new(root.clone());
        let guard =
            Arc::new(Guard::new(config.guard, policy, files.clone(), callers, engine, recorder.clone()));
        let (terms, extra) = (OnceLock::new(), OnceLock::new());
        Ok(Tree { core: Arc::new(TreeCore { files, root, guard, recorder, watch, terms, extra }) })
    }

    /// The tree is mounted as this device. From now on the watch and the guard invalidate the kernel's caches, and changes can wait.
    pub fn mounted(&self, device: DeviceNumber, kernel: Arc<dyn Kernel>) -> std::io::Result<()> {
        let guard = self.core.guard.clone();
        self.core.guard.start(device, kernel.clone())?;
        self.core.watch.start(kernel, Box::new(move |name| guard.changed_behind(name)))
    }

    /// The guard that grants changes.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.core.guard
    }

    /// The caller runs this about once a second. It lowers the fences of connections that have closed their file. If the watch does not
    /// report all changes beneath the mount, it also searches for some.
    pub fn look_around(&self) {
        self.core.guard.lower_fences();
        if !self.core.watch.watches_all() {
            self.core.guard.changed_behind(None);
            self.core.watch.invalidate_removed();
        }
    }

    /// Add the members that `more` returns to the value of [`SESSION`]. Each read of that attribute calls it, so it must be fast.
    pub fn tell_more(
        &self,
        more: impl Fn() -> serde_json::Map<String, serde_json::Value> + Send + Sync + 'static,
    ) {
        let _ = self.core.extra.set(Box::new(more));
    }

    /// The value of [`SESSION`]: what is in force in this session, for people and programs.
    pub fn session(&self) -> String {
        self.core.session()
    }

    /// The kernel is gone: invalidate nothing more, and end every wait.
    pub fn stop(&self) {
        self.core.guard.stop();
        self.core.watch.stop();
    }

    /// Run an operation that creates a name, and answer with the node of that name.
    fn make(
        &self,
        req: &Request,
        change: Change,
        reply: Reply<Entry>,
        mut make: impl FnMut(&TreeCore) -> Result<Attr> + Send + 'static,
    ) {
        let (reply_core, make_core) = (self.core.clone(), self.core.clone());
        self.core
            .guard
            .run(req, change, reply.from(move |attr| reply_core.entry(attr)), move || make(&make_core));
    }

    /// Run any other change.
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
    /// The answer for a node that was found or created; its last known place decides how long the kernel may cache it.
    fn entry(&self, attr: Attr) -> Entry {
        let parent = self.files.parent_of(attr.ino).unwrap_or(ROOT);
        self.entry_in(parent, attr)
    }

    fn entry_in(&self, parent: Ino, attr: Attr) -> Entry {
        let attr = self.watch_directory(attr);
        let one_name = attr.kind == FileKind::Directory || attr.nlink == 1;
        let entry_ttl = if one_name && self.watch.covers(parent) { LONG } else { SHORT };
        let attr_ttl = match attr.kind {
            FileKind::Directory => self.attr_ttl(&attr),
            FileKind::File => self.guard.attr_ttl(attr.ino, entry_ttl),
            _ => entry_ttl,
        };
        Entry { attr, entry_ttl, attr_ttl }
    }

    /// Watch a directory before the kernel learns of it.
    fn watch_directory(&self, attr: Attr) -> Attr {
        match attr.kind {
            FileKind::Directory if self.watch.add(attr.ino) => self.files.getattr(attr.ino).unwrap_or(attr),
            _ => attr,
        }
    }

    /// How long the kernel may cache attributes. A file with several names may be changed through one in an unwatched directory. The
    /// watch reports nothing more of a file that lost its name beneath the mount and may still be open.
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

    /// The mount point of the desk is always there, whatever the disk has by that name.
    fn desk_entry(&self) -> Entry {
        Entry { attr: self.root.desk_attr(), entry_ttl: LONG, attr_ttl: LONG }
    }

    /// List the project's own entries, and in the root also what crewfs adds to them.
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
        // In the root the links come after the disk's entries, at positions that are their node numbers. A disk could use such a
        // position for an entry of its own only if it numbered 2^62 of them.
        if !is_synthesized(offset) {
            let ended = self
                .files
                .list(ino, offset, &mut |entry| self.root.shadows(ino, entry.name) || sink(entry, None))?;
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

    /// Answer when all changes made until now are in the history, with what a command needs to find it.
    fn history(&self, reply: Reply<Vec<u8>>) {
        let Some(recorder) = &self.recorder else {
            return reply.send(Ok(shown::json(&json!({ "off": true })).into_bytes()));
        };
        let value = shown::json(&json!({ "off": false, "repository": recorder.repository() }));
        recorder.flush(move |outcome| {
            reply.send(outcome.map(|()| value.into_bytes()).map_err(FsError::History));
        });
    }

    fn session(&self) -> String {
        let terms = self.terms.get().map(|terms| terms.shown());
        let (known, descriptors, packed) = self.files.counts();
        let nodes = json!({ "known": known, "descriptors": descriptors, "packed": packed });
        let mut session = json!({ "tree": terms, "watch": self.watch.shown(), "nodes": nodes });
        if let (Some(extra), Some(session)) = (self.extra.get(), session.as_object_mut()) {
            session.extend(extra());
        }
        shown::json(&session)
    }

    fn write(&self, req: &Request, ino: Ino, target: WriteTarget, data: &[u8], direct: bool) -> Result<u32> {
        if !matches!(target, WriteTarget::Page(_)) {
            self.drop_set_ids(req, ino)?;
        }
        let written = match target {
            WriteTarget::Page(offset) | WriteTarget::Offset(offset) => self.files.write(ino, offset, data)?,
            WriteTarget::End { kernel_end } => {
                let appended = self.files.append(ino, data)?;
                if appended.end != kernel_end + u64::from(appended.written) {
                    // The kernel has put the data into its pages at the end that it knew.
                    self.guard.drop_pages(ino, || {});
                }
                appended.written
            }
        };
        if direct && let Some(kernel) = self.watch.kernel() {
            // The kernel drops its pages before an asynchronous direct write and not after it. If a page was read in between, the
            // kernel drops it when it sees that the file's time has changed.
            kernel.forget_attributes(ino);
        }
        Ok(written)
    }

    /// Clear the set-id bits that this caller's write removes. The kernel does not update its cached mode then.
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
            // The guard may record a read for it.
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
        // A read(2) sends the open file along; an open(2) does not.
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
            // ftruncate(2) sends a descriptor along; O_TRUNC does not.
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
        // No handle: the kernel would never send a RELEASE for it.
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

    /// A read is no sign of life. A page fault also reads, while it holds the process's memory lock, and a look-up of its caller could
    /// wait for that lock. A reader has looked up the file before.
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
        self.core.files.leases().run(req.uid, read, move |outcome| reply.send(outcome));
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
            false if flags & libc::O_APPEND != 0 => WriteTarget::End { kernel_end: offset },
            false => WriteTarget::Offset(offset),
        };
        let direct = flags & libc::O_DIRECT != 0;
        let change = match target {
            WriteTarget::Page(_) => Change::WriteMapped { ino },
            WriteTarget::Offset(_) => Change::Write { ino, append: false },
            WriteTarget::End { .. } => Change::Write { ino, append: true },
        };
        // Not by `change`: the data is copied only if the write has to wait.
        match core.guard.judge(req, &change) {
            Verdict::Granted(grant) => {
                let outcome =
                    core.guard.keep(&grant).and_then(|()| core.write(req, ino, target, data, direct));
                if !is_leased(&outcome) {
                    return reply.send(core.guard.record_made(&grant, outcome));
                }
                let (later, data, caller) = (core.clone(), data.to_vec(), *req);
                let write = move || later.write(&caller, ino, target, &data, direct);
                core.guard.finish(grant, req.uid, write, move |outcome| reply.send(outcome));
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
        self.core.files.leases().run(req.uid, sync, move |outcome| reply.send(outcome));
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
                // The entry was removed after it was listed.
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

    fn getxattr(&self, req: &Request, ino: Ino, name: &OsStr, reply: Reply<Vec<u8>>) {
        self.core.guard.seen(req);
        if ino == ROOT && name == HISTORY {
            return self.core.history(reply);
        }
        reply.send(match is_synthesized(ino) {
            true => Err(Fault::NoAttribute.into()),
            false if name == LOCK_ATTRIBUTE => {
                self.core.guard.holder(ino).map(String::into_bytes).ok_or(FsError::Plain(Fault::NoAttribute))
            }
            false if ino == ROOT && name == SESSION => Ok(self.core.session().into_bytes()),
            false => self.core.files.getxattr(ino, name),
        });
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
