//! The desk: the `tasks` directory as a filesystem, where the queue is made of files.
//!
//! May assume: every open, create and close is reported, and the kernel caches nothing that it cannot be made to invalidate.
//! Must never: decide what may happen to a task (the queue does), or keep a thread waiting for the disk: an answer that
//! depends on a commit is parked with the engine.
//!
//! | file | what |
//! |---|---|
//! | `table` | which name is which node, and what making, moving and removing one means |
//! | `ops/` | requests on synthesized nodes: each becomes a command of the queue |
//! | `passthrough` | requests on the project's own files in this directory |
//! | `view` | what every answer needs: the queue, the callers, the nodes |
//! | `content`, `attributes`, `listing` | what a read, a stat(2) and a listing of each node return |
//! | `documents`, `sentences`, `timestamps` | the state of the queue as JSON, as sentences and as file times |
//! | `overview`, `dashboard`, `metrics`, `renderings` | the documents that change with the time, and their cache |
//! | `publish`, `watch` | from instruction files to tasks |
//! | `file_names`, `misnamed` | the files that are tasks, and those that look like tasks and are none |
//! | `members`, `private` | which users may change the queue, and which may see what of it |
//! | `scratch` | temporary files in `completed/` and `failed/` |
//! | `nodes`, `handles` | node numbers, open files |
//! | `misuse`, `refused` | requests that mean nothing here, and what happens at a refusal |
//! | `create_probe` | the proof that the kernel waits for a claim |

mod attributes;
mod content;
mod create_probe;
mod dashboard;
mod documents;
mod file_names;
mod handles;
mod listing;
mod members;
mod metrics;
mod misnamed;
pub(in crate::fs) mod misuse;
mod nodes;
mod ops;
mod overview;
mod passthrough;
mod private;
mod publish;
mod refused;
mod renderings;
mod scratch;
pub(in crate::fs) mod sentences;
mod table;
mod timestamps;
mod view;
mod watch;

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use self::create_probe::CreateProbe;
use self::handles::{Handles, ListingLine, OpenHandle};
pub use self::members::Users;
pub use self::misuse::Misuse;
use self::nodes::{DeskDirectory, DeskNode, is_synthesized};
use self::publish::Publisher;
use self::view::View;
pub use self::watch::DeskWatch;
use super::files::Files;
use super::guard::Guard;
use super::identity::callers::Callers;
use super::recorder::Recorder;
use super::{
    Attr, CallerCheck, DirEntry, Entry, Fault, FileKind, FileRange, Filesystem, Found, Ino, NewMode, Opened,
    ROOT, ReadRequest, Reply, Request, Result, SessionInfo, SetAttr, StatFs,
};
use crate::engine::Engine;
use crate::queue::Span;

/// The kernel caches no names and attributes of the desk: they depend on the time and on the caller.
const NO_TIME: Duration = Duration::ZERO;
/// The kernel caches the directories of the desk until the daemon invalidates them. They always exist, and the daemon invalidates their
/// attributes when these change.
const UNTIL_TOLD: Duration = Duration::from_secs(3600);
/// How long the kernel may cache the attributes of the project's directory.
const A_MOMENT: Duration = Duration::from_secs(1);

/// The settings of the desk.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of the tasks directory, as sentences spell it.
    pub tasks: String,
    /// The lease of a task that names none.
    pub lease: Span,
    /// How long a worker without work is kept (C60).
    pub idle_timeout: Span,
    /// How long a task outlives its instruction file before it is withdrawn (C14).
    pub file_grace: Span,
    /// The owner of the synthesized nodes: the uid that mounts.
    pub owner_uid: u32,
    /// Its group.
    pub owner_gid: u32,
    /// The users that may change the queue whatever the mode of the tasks directory is (C17).
    pub workers: Users,
    /// How many threads serve the desk.
    pub threads: usize,
    /// The absolute paths of the project. An absolute path in front matter that begins with one of them is taken relative to the root.
    pub roots: Vec<String>,
}

/// The desk of one project.
pub struct Desk {
    core: Arc<DeskCore>,
}

/// What the methods share with parked answers.
struct DeskCore {
    files: Arc<Files>,
    view: View,
    handles: Handles,
    /// The number of the next new node.
    made: AtomicU64,
    create_probe: CreateProbe,
    /// Directories whose attributes the kernel may have cached.
    believed: [AtomicBool; DeskDirectory::ALL.len()],
    /// Invalidates the attributes of a node in the kernel.
    invalidate: OnceLock<Box<dyn Fn(Ino) + Send + Sync>>,
}

impl Desk {
    /// The desk over the directory of `files`, in the project with the descriptor `project`.
    pub fn new(
        files: Arc<Files>,
        project: OwnedFd,
        engine: Arc<Engine>,
        callers: Arc<Callers>,
        guard: Arc<Guard>,
        recorder: Option<Arc<Recorder>>,
        config: Config,
    ) -> Desk {
        for (name, _) in table::TOP {
            if rustix::fs::statat(files.root(), name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                log::warn!("{}/{name} of the project cannot be seen while crewfs is mounted", config.tasks);
            }
        }
        let (may_wait, roots) = (config.threads - 1, config.roots.clone());
        let publisher = Arc::new(Publisher::new(engine.clone(), files.clone(), project, may_wait, roots));
        let view = View::new(engine, callers, guard, recorder, publisher, config);
        Desk {
            core: Arc::new(DeskCore {
                files,
                view,
                handles: Handles::default(),
                made: AtomicU64::new(0),
                create_probe: CreateProbe::default(),
                believed: Default::default(),
                invalidate: OnceLock::new(),
            }),
        }
    }

    /// Calls `invalidate` with the number of each directory whose attributes change, before the caller that changed it is answered.
    pub fn tell(&self, invalidate: impl Fn(Ino) + Send + Sync + 'static) {
        let core = self.core.clone();
        let _ = self.core.invalidate.set(Box::new(invalidate));
        self.core.view.engine.observe(move || core.disbelieve());
    }

    /// The session of the desk, once it is mounted.
    pub fn terms(&self) -> Option<Arc<SessionInfo>> {
        self.core.view.desk_session.get().cloned()
    }

    /// Sets the session of the tree.
    pub fn beside(&self, tree: Arc<SessionInfo>) {
        let _ = self.core.view.tree_session.set(tree);
    }

    /// Proves that the kernel asks for the attributes of a new file before open(2) returns; else CREATE is answered later. `open` makes
    /// and closes a file of the given name in `claim/`. It may not run on a thread that serves the kernel.
    ///
    /// # Errors
    /// Those of `open`. CREATE is answered later in that case, too.
    pub fn prove_create(&self, open: impl FnOnce(&OsStr) -> std::io::Result<()>) -> std::io::Result<()> {
        self.core.create_probe.run(open)
    }

    /// Whether each CREATE is answered when the claim is on disk, because it is not proven that the kernel waits for that.
    pub fn create_waits(&self) -> bool {
        self.core.create_probe.create_waits()
    }

    /// Publishes the files that exist now, and starts the watch. Returns when the queue has all of them.
    pub fn watch(&self) -> std::io::Result<DeskWatch> {
        let view = &self.core.view;
        let terms = watch::DeskWatchConfig { name: view.config.tasks.clone(), grace: view.config.file_grace };
        let watch = DeskWatch::start(view.engine.clone(), view.publisher.clone(), terms)?;
        view.engine.barrier();
        Ok(watch)
    }
}

impl DeskCore {
    /// The entry of a node, with one more reference.
    fn entry(&self, node: &DeskNode, req: &Request) -> Result<Entry> {
        let ttl = self.ttl(node);
        let shown = self.view.show(node, req)?;
        let attr = self.view.dress(self.view.nodes.refer(node), &shown);
        Ok(Entry { attr, entry_ttl: ttl, attr_ttl: ttl })
    }

    /// Invalidates the attributes of the directories that the kernel may have cached.
    fn disbelieve(&self) {
        let Some(invalidate) = self.invalidate.get() else { return };
        for (directory, believed) in DeskDirectory::ALL.into_iter().zip(&self.believed) {
            if believed.swap(false, Ordering::AcqRel) {
                invalidate(self.view.nodes.shown(&DeskNode::Directory(directory)));
            }
        }
    }

    /// How long the kernel may cache the attributes of a node. Call it before reading them: a change in between invalidates them.
    fn ttl(&self, node: &DeskNode) -> Duration {
        match node {
            DeskNode::Directory(directory) => {
                self.believed[*directory as usize].store(true, Ordering::Release);
                UNTIL_TOLD
            }
            _ => NO_TIME,
        }
    }

    fn find(&self, req: &Request, parent: Ino, name: &OsStr) -> Result<Entry> {
        if let Some(node) = self.synthesized_at(parent, name) {
            return self.entry(&node, req);
        }
        if is_synthesized(parent) {
            let node = self.view.find(parent, name, req)?;
            return self.entry(&node, req);
        }
        Ok(DeskCore::plain_entry(self.files.lookup(parent, name)?))
    }

    /// Whether the attributes of a node may depend on the caller.
    fn depends_on_caller(&self, ino: Ino) -> bool {
        let depends = |node: DeskNode| self.view.depends_on_caller(&node);
        is_synthesized(ino) && self.view.nodes.get(ino).map_or(true, depends)
    }

    /// Whether the node of a name may depend on the caller.
    fn name_depends_on_caller(&self, parent: Ino, name: &OsStr) -> bool {
        if self.view.is_settling() {
            return true;
        }
        let node = match is_synthesized(parent) {
            true => self.view.nodes.get(parent).ok().and_then(|node| table::in_directory(&node, name)),
            false => self.synthesized_at(parent, name),
        };
        node.is_some_and(|node| self.view.depends_on_caller(&node))
    }

    fn synthesized_at(&self, parent: Ino, name: &OsStr) -> Option<DeskNode> {
        if parent == ROOT { table::at_top(name) } else { None }
    }
}

impl Filesystem for Desk {
    fn opens_reported(&self) -> bool {
        true
    }

    fn caller_check(&self, read: ReadRequest<'_>) -> CallerCheck {
        let depends = match read {
            ReadRequest::Getattr(ino) => self.core.depends_on_caller(ino),
            ReadRequest::Lookup(parent, name) => self.core.name_depends_on_caller(parent, name),
            ReadRequest::Other => true,
        };
        if depends { CallerCheck::Exact } else { CallerCheck::Recent }
    }

    fn began(&self, terms: Arc<SessionInfo>) {
        let _ = self.core.view.desk_session.set(terms);
    }

    fn lookup(&self, req: &Request, parent: Ino, name: &OsStr) -> Result<Found> {
        self.core.view.settle(req);
        self.core.find(req, parent, name).map(Found::Entry)
    }

    fn forget(&self, ino: Ino, count: u64) {
        if is_synthesized(ino) {
            self.core.view.nodes.forget(ino, count);
        } else {
            drop(self.core.files.forget(ino, count, |_| {}));
        }
    }

    fn getattr(&self, req: &Request, ino: Ino, fh: Option<u64>, reply: Reply<(Attr, Duration)>) {
        match self.core.made(ino) {
            Some(made) => {
                self.core.create_probe.asked(ino);
                self.core.safe(ino, made, reply);
            }
            None => reply.send(self.core.attributes(req, ino, fh)),
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
        self.core.view.callers.seen(req);
        if is_synthesized(ino) {
            return self.core.set_synthesized(req, ino, fh, change, reply);
        }
        self.core.set_plain(req, ino, change, reply);
    }

    fn readlink(&self, req: &Request, ino: Ino) -> Result<OsString> {
        let view = &self.core.view;
        if !is_synthesized(ino) {
            return self.core.files.readlink(ino);
        }
        view.target(&view.nodes.get(ino)?, &view.engine.state(), req)
    }

    fn mknod(&self, req: &Request, parent: Ino, name: &OsStr, mode: NewMode, rdev: u32, reply: Reply<Entry>) {
        if let Some(node) = self.core.being_made(parent, name) {
            return match mode.mode & libc::S_IFMT {
                libc::S_IFREG => self.core.make_durably(req, node, FileKind::File, reply),
                _ => reply.send(Err(Misuse::OnlyFiles.into())),
            };
        }
        let made = self.core.files.mknod(req, parent, name, mode, rdev);
        self.core.appeared(parent, name, made.map(DeskCore::plain_entry), reply);
    }

    fn mkdir(&self, req: &Request, parent: Ino, name: &OsStr, mode: NewMode, reply: Reply<Entry>) {
        if let Some(node) = self.core.being_made(parent, name) {
            return self.core.make_durably(req, node, FileKind::Directory, reply);
        }
        let made = self.core.files.mkdir(req, parent, name, mode);
        self.core.appeared(parent, name, made.map(DeskCore::plain_entry), reply);
    }

    fn symlink(&self, req: &Request, parent: Ino, name: &OsStr, target: &OsStr, reply: Reply<Entry>) {
        if self.core.being_made(parent, name).is_some() {
            return reply.send(Err(Misuse::NoSymlinks.into()));
        }
        let made = self.core.files.symlink(req, parent, name, target);
        self.core.appeared(parent, name, made.map(DeskCore::plain_entry), reply);
    }

    fn link(&self, req: &Request, ino: Ino, parent: Ino, name: &OsStr, reply: Reply<Entry>) {
        match (is_synthesized(ino), self.core.being_made(parent, name)) {
            (false, None) => {
                let made = self.core.files.link(ino, parent, name);
                self.core.appeared(parent, name, made.map(DeskCore::plain_entry), reply);
            }
            (true, Some(node)) => self.core.link_synthesized(req, ino, node, reply),
            (false, Some(node)) => self.core.brought_in(req, &node, reply),
            (true, None) => reply.send(Err(Fault::OtherFilesystem.into())),
        }
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
        match self.core.being_made(parent, name) {
            // The name of the probe is no task id.
            Some(DeskNode::Nothing) if self.core.create_probe.is_named(name) => {
                reply.send(Ok(self.core.create_probed()));
            }
            Some(node) => self.core.create_synthesized(req, (parent, name), node, (mode, flags), reply),
            None => {
                self.core.view.callers.seen(req);
                let exclusive = flags & libc::O_EXCL != 0;
                reply.send(self.core.create_plain(req, parent, name, mode, exclusive));
            }
        }
    }

    fn unlink(&self, req: &Request, parent: Ino, name: &OsStr, reply: Reply<()>) {
        match self.core.being_made(parent, name) {
            Some(node) => self.core.unlink_synthesized(req, parent, name, node, reply),
            None => self.core.unlink_plain(req, parent, name, reply),
        }
    }

    fn rmdir(&self, req: &Request, parent: Ino, name: &OsStr, reply: Reply<()>) {
        if self.core.being_made(parent, name).is_some() {
            return reply.send(Err(Misuse::OurDirectory.into()));
        }
        self.core.view.callers.seen(req);
        self.core.appeared(parent, name, self.core.files.rmdir(parent, name), reply);
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
        let core = &self.core;
        match (core.being_made(parent, name), core.being_made(new_parent, new_name)) {
            (None, None) => core.rename_plain(req, (parent, name), (new_parent, new_name), flags, reply),
            (Some(from), Some(to)) => {
                core.rename_synthesized(req, (parent, name, from), (new_parent, new_name, to), flags, reply);
            }
            (None, Some(to)) => core.brought_in(req, &to, reply),
            (Some(_), None) => reply.send(Err(Fault::OtherFilesystem.into())),
        }
    }

    fn open(&self, req: &Request, ino: Ino, flags: i32, reply: Reply<Opened>) {
        self.core.view.callers.seen(req);
        if is_synthesized(ino) {
            self.core.open_synthesized(req, ino, flags, reply);
        } else {
            let (core, caller) = (self.core.clone(), *req);
            let open = move || core.open_plain(&caller, ino, flags);
            self.core.files.leases().run(req.uid, open, move |opened| reply.send(opened));
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: Ino,
        fh: u64,
        offset: u64,
        size: u32,
        _flags: i32,
        reply: Reply<Vec<u8>>,
    ) {
        let handle = match self.core.handles.get(fh) {
            Ok(handle) => handle,
            Err(error) => return reply.send(Err(error)),
        };
        match &*handle {
            OpenHandle::Plain(file) => {
                let read = DeskCore::read_plain(file, offset, size);
                answer_without(handle, read, reply);
            }
            _ => self.core.read_synthesized(&handle, offset, size, reply),
        }
    }

    fn write(
        &self,
        req: &Request,
        ino: Ino,
        fh: u64,
        offset: u64,
        data: &[u8],
        flags: i32,
        cached: bool,
        reply: Reply<u32>,
    ) {
        self.core.view.callers.seen(req);
        // Pages written through a mapping come with any handle that is open for writing, or with none.
        match self.core.handles.get(fh) {
            Ok(handle) => match &*handle {
                OpenHandle::Plain(file) => {
                    // Pages of a file opened with O_APPEND carry the flag, too, and have an offset of their own.
                    let append = flags & libc::O_APPEND != 0 && !cached;
                    let written = DeskCore::write_plain(file, offset, data, append);
                    answer_without(handle, written, reply);
                }
                other => self.core.write_synthesized(other, offset, data, flags, reply),
            },
            Err(_) if cached && !is_synthesized(ino) => {
                self.core.changed(ino, self.core.files.write(ino, offset, data), reply);
            }
            Err(error) => reply.send(Err(error)),
        }
    }

    fn flush(&self, req: &Request, ino: Ino, fh: u64, reply: Reply<()>) {
        match self.core.handles.get(fh) {
            Ok(handle) => match &*handle {
                OpenHandle::Plain(file) => {
                    self.core.flush_plain(req, ino, fh, file);
                    answer_without(handle, Ok(()), reply);
                }
                _ => self.core.flush_draft(handle, reply),
            },
            Err(error) => reply.send(Err(error)),
        }
    }

    fn release(&self, ino: Ino, fh: u64) {
        let Some(handle) = self.core.handles.remove(fh) else { return };
        match &*handle {
            OpenHandle::Plain(_) => self.core.release_plain(ino, fh, handle),
            OpenHandle::Scratch(number) => self.core.view.scratches.closed(*number),
            _ => self.core.keep_draft(
                handle,
                Reply::new(|outcome| {
                    if let Err(error) = outcome {
                        log::warn!("a text that was written after its last close is lost: {error:?}");
                    }
                }),
            ),
        }
    }

    fn fsync(&self, _req: &Request, ino: Ino, fh: u64, datasync: bool, reply: Reply<()>) {
        if !is_synthesized(ino) {
            return reply.send(self.core.files.fsync(ino, datasync));
        }
        match self.core.handles.get(fh) {
            Ok(handle) => self.core.keep_draft(handle, reply),
            Err(error) => reply.send(Err(error)),
        }
    }

    fn opendir(&self, req: &Request, ino: Ino) -> Result<u64> {
        self.core.view.callers.seen(req);
        if ino == ROOT || is_synthesized(ino) {
            self.core.handles.admit(req.uid, 0)?;
            return Ok(self.core.handles.insert(req.uid, OpenHandle::Listing(Mutex::default())));
        }
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
        let core = &self.core;
        if ino != ROOT && !is_synthesized(ino) {
            return core.files.readdir(ino, fh, offset, sink).map(|_| ());
        }
        let handle = core.handles.get(fh)?;
        let OpenHandle::Listing(listing) = &*handle else { return Err(Fault::NotDirectory.into()) };
        let mut listing = listing.lock();
        if offset == 0 {
            // A listing shows one moment. A read from the start is a new listing, as rewinddir(3) promises.
            core.view.settle(req);
            *listing = core.list(ino, req)?;
        }
        for (line, next) in listing.iter().zip(1..).skip(offset as usize) {
            if !sink(DirEntry { ino: line.ino, next, kind: line.kind, name: &line.name }) {
                break;
            }
        }
        Ok(())
    }

    fn releasedir(&self, ino: Ino, fh: u64) {
        if ino == ROOT || is_synthesized(ino) {
            self.core.handles.remove(fh);
        } else {
            self.core.files.releasedir(fh);
        }
    }

    fn fsyncdir(&self, _req: &Request, ino: Ino, fh: u64, reply: Reply<()>) {
        // The queue answers only what is on disk.
        reply.send(if ino == ROOT || is_synthesized(ino) { Ok(()) } else { self.core.files.fsyncdir(fh) });
    }

    fn statfs(&self, _req: &Request, _ino: Ino) -> Result<StatFs> {
        self.core.files.statfs(ROOT)
    }

    fn setxattr(&self, req: &Request, ino: Ino, name: &OsStr, value: &[u8], flags: i32, reply: Reply<()>) {
        let done = plain_only(ino).and_then(|()| self.core.files.setxattr(req, ino, name, value, flags));
        self.core.marked(ino, done, reply);
    }

    fn getxattr(&self, _req: &Request, ino: Ino, name: &OsStr, reply: Reply<Vec<u8>>) {
        reply.send(match is_synthesized(ino) {
            // The kernel asks for the ACL of each node whose mode it checks.
            true if name.as_encoded_bytes().starts_with(b"system.posix_acl_") => {
                Err(Fault::NoAttribute.into())
            }
            _ => plain_only(ino).and_then(|()| self.core.files.getxattr(ino, name)),
        });
    }

    fn listxattr(&self, req: &Request, ino: Ino) -> Result<Vec<u8>> {
        if is_synthesized(ino) { Ok(Vec::new()) } else { self.core.files.listxattr(req, ino) }
    }

    fn removexattr(&self, req: &Request, ino: Ino, name: &OsStr, reply: Reply<()>) {
        let done = plain_only(ino).and_then(|()| self.core.files.removexattr(req, ino, name));
        self.core.marked(ino, done, reply);
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: Ino,
        _fh: u64,
        offset: u64,
        length: u64,
        mode: i32,
        reply: Reply<()>,
    ) {
        let done = plain_only(ino).and_then(|()| self.core.files.fallocate(ino, offset, length, mode));
        self.core.changed(ino, done, reply);
    }

    fn lseek(&self, _req: &Request, ino: Ino, _fh: u64, offset: i64, whence: i32) -> Result<u64> {
        plain_only(ino).and_then(|()| self.core.files.lseek(ino, offset, whence))
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        from: FileRange,
        to: FileRange,
        length: u64,
        reply: Reply<u32>,
    ) {
        // EOPNOTSUPP makes the kernel copy by reading and writing.
        let plain = plain_only(from.ino).and(plain_only(to.ino));
        let copied = plain.and_then(|()| {
            self.core.files.copy_file_range((from.ino, from.offset), (to.ino, to.offset), length)
        });
        self.core.changed(to.ino, copied, reply);
    }
}

impl DeskCore {
    fn attributes(&self, req: &Request, ino: Ino, fh: Option<u64>) -> Result<(Attr, Duration)> {
        if !is_synthesized(ino) {
            return Ok((self.files.getattr(ino)?, if ino == ROOT { A_MOMENT } else { NO_TIME }));
        }
        let node = self.view.nodes.get(ino)?;
        if matches!(node, DeskNode::Directory(_)) {
            self.view.settle(req);
        }
        let ttl = self.ttl(&node);
        let open = fh.and_then(|fh| self.handles.get(fh).ok());
        Ok((self.attr_of_open(ino, &node, open.as_deref(), req)?, ttl))
    }

    fn list(&self, ino: Ino, req: &Request) -> Result<Vec<ListingLine>> {
        if ino == ROOT {
            return self.list_plain_root(req);
        }
        let dots = [".", ".."].map(|name| ListingLine { ino, kind: FileKind::Directory, name: name.into() });
        let listed = self.view.list(ino, &self.view.nodes.get(ino)?, req)?;
        Ok(dots.into_iter().chain(listed).collect())
    }
}

/// Answers after this thread has dropped the handle. After the answer the kernel may close it, and the daemon then asks the disk whether
/// the file is open for writing. So the daemon itself may have no descriptor left.
fn answer_without<T>(handle: Arc<OpenHandle>, answer: Result<T>, reply: Reply<T>) {
    drop(handle);
    reply.send(answer);
}

fn plain_only(ino: Ino) -> Result<()> {
    if is_synthesized(ino) { Err(Fault::Unsupported.into()) } else { Ok(()) }
}
