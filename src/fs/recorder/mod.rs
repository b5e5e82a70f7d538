//! The recorder: it keeps what a change destroys before the change is made, and tells the history who changed what.
//!
//! May assume: the guard calls [`Recorder::keep`] before each granted change and [`Recorder::made`] after it, and the kernel keeps the file
//! (and, for names, the directory) locked from the one to the other. The state directory is for the daemon alone.
//! Must never: decide whether a change may be made, except that there is no room to keep what it destroys; or wait for the repository.
//!
//! The first change of a path by an author (a worker, under one claim or under none) copies what is there into the spool ([`spool`]). The
//! author's further changes of the path cost a look-up ([`table`]). A thread ([`recording`]) reads what authors leave, stores all content
//! in the repository, and records the steps there. What must survive the daemon's death until then is in the journal ([`journal`]).
//!
//! Lock order: `state`, alone. It is never held over a system call but the write to the journal.

mod journal;
mod reading;
mod recording;
mod records;
mod spool;
mod table;
#[cfg(test)]
mod table_tests;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, RwLock};
use rustix::io::Errno;

use self::journal::Journal;
use self::reading::KnownDiff;
use self::recording::HistoryRequest;
use self::records::{Author, ContentSource, Observed, Snapshot, SnapshotKind, Stamp};
use self::spool::Spool;
use self::table::Table;
use super::files::{Files, Present};
use super::identity::callers::Caller;
use super::{Attr, FileKind, FsError, Ino, Result};
use crate::clock::Clock;
use crate::engine::Engine;
use crate::queue::Span;
use crate::state_directory::StateDirectory;

/// The options of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecorderConfig {
    /// The largest file whose content is kept, in bytes.
    pub file_bytes: u64,
    /// How long steps are kept.
    pub age: Span,
    /// How much all of them may take on the disk, in bytes.
    pub bytes: u64,
}

impl Default for RecorderConfig {
    fn default() -> RecorderConfig {
        RecorderConfig { file_bytes: 16 << 20, age: Span(30 * 24 * 3_600_000), bytes: 2 << 30 }
    }
}

/// What a change does to a guarded path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// The content of a file changes in place, or its mode or owner.
    Node(Ino),
    /// Only the times of a file change.
    Times(Ino),
    /// A name is made, replaced or removed. The name's file is removed if this is its last name.
    Entry {
        /// The directory.
        parent: Ino,
        /// The name.
        name: OsString,
        /// Whether the file that is there loses this name for good.
        removes: bool,
    },
    /// A directory gets another name, with all that is in it.
    Directory {
        /// The old name.
        from: (Ino, OsString),
        /// The new name. A directory that is there is replaced, or exchanged.
        to: (Ino, OsString),
    },
}

/// Whether the guard exempts a name in a directory; the last argument is whether the name is that of a directory.
pub type IsExempt<'a> = &'a dyn Fn(Ino, &OsStr, bool) -> bool;

/// Keeps what changes destroy. See the module's documentation.
pub struct Recorder {
    config: RecorderConfig,
    files: Arc<Files>,
    engine: Arc<Engine>,
    clock: Clock,
    directory: Arc<StateDirectory>,
    spool: RwLock<Arc<Spool>>,
    state: Mutex<RecorderState>,
    requests: Mutex<Requests>,
    work: Condvar,
    /// Whether the thread knows that there is something to do.
    stirred: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
    diffs: Mutex<Vec<KnownDiff>>,
}

struct RecorderState {
    table: Table,
    journal: Journal,
}

#[derive(Default)]
struct Requests {
    closed: bool,
    waiting: Vec<HistoryRequest>,
}

impl Recorder {
    /// A recorder of the changes of `files`. What the last daemon left in the journal is recorded too.
    ///
    /// # Errors
    /// Why the state directory or the repository cannot be used.
    pub fn start(
        config: RecorderConfig,
        files: Arc<Files>,
        engine: Arc<Engine>,
        directory: Arc<StateDirectory>,
    ) -> io::Result<Arc<Recorder>> {
        let spool = Arc::new(open_spool(&directory)?);
        let mut table = Table::replay(Journal::read(spool.directory()));
        let journal = Journal::begin(spool.directory(), &table.as_lines())?;
        let used = table.spooled();
        spool
            .all()?
            .into_iter()
            .filter(|number| !used.contains(number))
            .for_each(|number| spool.remove(number));
        let recorder = Arc::new(Recorder {
            config,
            files,
            clock: engine.clock().clone(),
            engine,
            directory,
            spool: RwLock::new(spool),
            state: Mutex::new(RecorderState { table, journal }),
            requests: Mutex::default(),
            work: Condvar::new(),
            stirred: AtomicBool::new(true),
            thread: Mutex::new(None),
            diffs: Mutex::default(),
        });
        recording::start(&recorder)?;
        Ok(recorder)
    }

    /// The path of the repository, for messages and commands.
    pub fn repository(&self) -> PathBuf {
        self.directory.shown().join(crate::history::REPOSITORY)
    }

    /// Keep what a change is about to destroy, if its author has not changed it last. `by`: the caller, if it is known.
    ///
    /// # Errors
    /// EAGAIN while another process has a lease on a file; those of the disk on which the state directory is.
    pub fn keep(&self, by: Option<&Caller>, touched: &[Touched], is_exempt: IsExempt<'_>) -> Result<()> {
        if touched.is_empty() {
            return Ok(());
        }
        let author = self.author(by);
        for touched in touched {
            match touched {
                Touched::Node(ino) => self.keep_node(&author, *ino)?,
                Touched::Times(_) => {}
                Touched::Entry { parent, name, removes } => {
                    self.keep_entry(&author, *parent, name, *removes)?
                }
                Touched::Directory { from, to } => {
                    for (one, other) in [(from, to), (to, from)] {
                        self.keep_directory(&author, one, other, is_exempt)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The change was made.
    pub fn made(&self, touched: &[Touched]) {
        for touched in touched {
            match touched {
                Touched::Node(ino) => self.changed_node(*ino),
                Touched::Times(ino) => {
                    if let Ok(attr) = self.files.getattr(*ino) {
                        self.state.lock().table.touched_node(*ino, Stamp::of(&attr));
                    }
                }
                Touched::Entry { parent, name, .. } => self.changed_entry(*parent, name),
                Touched::Directory { from, to } => self.changed_directories([from, to]),
            }
        }
        if !touched.is_empty() && !self.stirred.swap(true, Ordering::AcqRel) {
            self.work.notify_all();
        }
    }

    /// The kernel has forgotten a node.
    pub fn forget(&self, ino: Ino) {
        self.state.lock().table.forget_node(ino);
    }

    fn author(&self, by: Option<&Caller>) -> Author {
        let Some(caller) = by else { return Author::outside() };
        let worker = &caller.actor.worker;
        let state = self.engine.state();
        let held = state.worker(worker.as_str()).and_then(|worker| worker.claims.last());
        let claim = held.and_then(|task| {
            let claim = state.task(task.as_str())?.claim()?;
            (claim.worker == *worker).then(|| (task.clone(), claim.epoch()))
        });
        Author { worker: Some(worker.clone()), claim, program: caller.tree_program.map(str::to_owned) }
    }

    fn keep_node(&self, author: &Author, ino: Ino) -> Result<()> {
        {
            let mut state = self.state.lock();
            let step = state.table.step(author);
            if state.table.is_last_of(ino, step) {
                return Ok(());
            }
        }
        // A file without a name is out of reach for all but the processes that have it open.
        let Some(path) = self.files.path(ino) else { return Ok(()) };
        if self.is_open(author, &path) {
            self.state.lock().table.bind(ino, &path);
            return Ok(());
        }
        let found = self.found(&path, Some(self.files.present(ino)?), false)?;
        self.enter(author, &path, found);
        self.state.lock().table.bind(ino, &path);
        Ok(())
    }

    fn keep_entry(&self, author: &Author, parent: Ino, name: &OsStr, removes: bool) -> Result<()> {
        let Some(directory) = self.files.path(parent) else { return Ok(()) };
        let path = directory.join(name);
        if !self.is_open(author, &path) {
            let found = self.found(&path, self.files.present_at(parent, name)?, removes)?;
            self.enter(author, &path, found);
        }
        Ok(())
    }

    /// Keep the files below a directory that is about to move, and what is at their next paths.
    fn keep_directory(
        &self,
        author: &Author,
        from: &(Ino, OsString),
        to: &(Ino, OsString),
        is_exempt: IsExempt<'_>,
    ) -> Result<()> {
        let at = |(parent, name): &(Ino, OsString)| self.files.path(*parent).map(|parent| parent.join(name));
        let (Some(source), Some(target)) = (at(from), at(to)) else { return Ok(()) };
        if is_exempt(from.0, &from.1, true) {
            return Ok(());
        }
        let target = (!is_exempt(to.0, &to.1, true)).then_some(target);
        let mut held = Vec::new();
        let kept = self.keep_below(author, (from.0, &from.1, source), target, is_exempt, &mut held);
        held.into_iter().for_each(|ino| drop(self.files.forget(ino, 1, |gone| self.forget(gone))));
        kept
    }

    /// Keep what is at and below a name. `held`: the nodes that were looked up for it, each with a reference to drop.
    fn keep_below(
        &self,
        author: &Author,
        (parent, name, source): (Ino, &OsStr, PathBuf),
        target: Option<PathBuf>,
        is_exempt: IsExempt<'_>,
        held: &mut Vec<Ino>,
    ) -> Result<()> {
        let mut below = Vec::from([(parent, name.to_owned(), PathBuf::new())]);
        while let Some((parent, name, rest)) = below.pop() {
            let attr = match self.files.lookup(parent, &name) {
                Err(error) if error.errno() == libc::ENOENT => continue,
                found => found?,
            };
            held.push(attr.ino);
            let at =
                |base: &Path| if rest.as_os_str().is_empty() { base.to_owned() } else { base.join(&rest) };
            let path = at(&source);
            let found = self.found(&path, self.files.present_at(parent, &name)?, false)?;
            if found.1.is_some() || self.is_known(&path) {
                self.enter(author, &path, found);
                if let Some(next) = target.as_deref().map(at).filter(|next| !self.is_open(author, next)) {
                    let found = self.found(&next, self.files.present_at_path(&next)?, false)?;
                    self.enter(author, &next, found);
                }
            }
            if attr.kind == FileKind::Directory {
                self.files.list(attr.ino, 0, &mut |entry| {
                    let is_link = entry.name == "." || entry.name == "..";
                    if !is_link && !is_exempt(attr.ino, entry.name, entry.kind == FileKind::Directory) {
                        below.push((attr.ino, entry.name.to_owned(), rest.join(entry.name)));
                    }
                    true
                })?;
            }
        }
        Ok(())
    }

    /// The stamp of what is at a path. That of a directory tells whether it is empty: its entries have versions of their own.
    fn stamp(&self, present: &Present) -> Stamp {
        let stamp = Stamp::of(&present.attr);
        if present.attr.kind != FileKind::Directory {
            return stamp;
        }
        let size = u64::from(!self.files.is_empty_directory(present));
        Stamp { is_directory: true, size, mtime_ns: 0, mode: stamp.mode }
    }

    fn is_known(&self, path: &Path) -> bool {
        self.state.lock().table.has(path)
    }

    fn is_open(&self, author: &Author, path: &Path) -> bool {
        let mut state = self.state.lock();
        let step = state.table.step(author);
        state.table.is_open(path, step)
    }

    fn enter(&self, author: &Author, path: &Path, found: Observed) {
        let now = (self.clock)();
        self.update(|table| {
            let step = table.step(author);
            table.enter(step, path, found, now);
        });
    }

    /// Change the table, and write into the journal what follows from it.
    fn update<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut state = self.state.lock();
        let outcome = change(&mut state.table);
        let lines = state.table.take_lines();
        if let Err(error) = state.journal.append(&lines) {
            log::error!("the journal of the history cannot be written: {error}");
        }
        outcome
    }

    /// What is at a path, with a copy of its content unless that is known. `removes`: the file loses this name.
    fn found(&self, path: &Path, present: Option<Present>, removes: bool) -> Result<Observed> {
        let stamp = present.as_ref().map(|present| self.stamp(present));
        if let Some(known) = self.state.lock().table.known(path, &stamp) {
            return Ok((stamp, known));
        }
        let Some(present) = present else { return Ok((None, None)) };
        let snapshot = self.snapshot(&present, |kind| self.copy(&present, kind, removes))?;
        Ok((stamp, snapshot))
    }

    /// The version that is at a path, with its content from `source`. A directory that is not empty is none: what is in it has versions.
    fn snapshot<E>(
        &self,
        present: &Present,
        source: impl FnOnce(SnapshotKind) -> std::result::Result<ContentSource, E>,
    ) -> std::result::Result<Option<Snapshot>, E> {
        let kind = match present.attr.kind {
            FileKind::File => SnapshotKind::File,
            FileKind::Symlink => SnapshotKind::Symlink,
            FileKind::Directory if self.files.is_empty_directory(present) => SnapshotKind::Directory,
            _ => return Ok(None),
        };
        let (source, attr) = (source(kind)?, &present.attr);
        let (mode, uid, gid) = (u32::from(attr.perm), attr.uid, attr.gid);
        Ok(Some(Snapshot { kind, mode, uid, gid, source }))
    }

    /// Copy content into the spool.
    fn copy(&self, present: &Present, kind: SnapshotKind, removes: bool) -> Result<ContentSource> {
        let size = present.attr.size;
        let not_kept = |why: &dyn std::fmt::Display| {
            log::debug!("a version of {size} bytes is not kept: {why}");
            Ok(ContentSource::NotKept(size))
        };
        if kind == SnapshotKind::Directory {
            return Ok(ContentSource::NotKept(0));
        }
        if size > self.config.file_bytes {
            return not_kept(&"it is too large");
        }
        let copied = self.with_spool(|spool| match kind {
            SnapshotKind::Symlink => spool.put(present.target()?.as_bytes()),
            _ if removes && present.attr.nlink == 1 => {
                spool.keep(&present.path, || self.files.open_present(present))
            }
            _ => spool.copy(&self.files.open_present(present)?),
        });
        match copied {
            Ok(number) => Ok(ContentSource::Spooled(number)),
            Err(Errno::AGAIN) => Err(Errno::AGAIN.into()),
            // What the daemon cannot read it cannot keep. A full disk must not keep a file from being removed.
            Err(error @ (Errno::ACCESS | Errno::PERM)) => not_kept(&error),
            Err(error @ (Errno::NOSPC | Errno::DQUOT)) if removes => not_kept(&error),
            Err(error) => Err(FsError::from(error)),
        }
    }

    /// Use the spool. If its directory was removed, it is made again.
    fn with_spool<T>(&self, using: impl Fn(&Spool) -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        let spool = self.spool.read().clone();
        match using(&spool) {
            Err(Errno::NOENT) => {
                self.open_again(&spool)?;
                let spool = self.spool.read().clone();
                using(&spool)
            }
            outcome => outcome,
        }
    }

    /// Make the directory of the spool and the journal again, unless another thread has.
    fn open_again(&self, gone: &Arc<Spool>) -> rustix::io::Result<()> {
        let mut spool = self.spool.write();
        if !Arc::ptr_eq(&spool, gone) {
            return Ok(());
        }
        let opened = open_spool(&self.directory).or_else(|_| {
            // The state directory itself was removed. The log puts its files back when it finds that.
            self.directory.put_back().map_err(io::Error::other)?;
            open_spool(&self.directory)
        });
        *spool = Arc::new(opened.map_err(|error| {
            log::error!("the history cannot be kept: {error}");
            Errno::IO
        })?);
        let mut state = self.state.lock();
        let lines = state.table.as_lines();
        state.journal = Journal::begin(spool.directory(), &lines).map_err(|_| Errno::IO)?;
        Ok(())
    }

    fn changed_node(&self, ino: Ino) {
        let now = (self.clock)().instant;
        if let Ok(attr) = self.files.getattr(ino) {
            self.state.lock().table.changed_node(ino, Stamp::of(&attr), now);
        }
    }

    fn changed_entry(&self, parent: Ino, name: &OsStr) {
        let Some(directory) = self.files.path(parent) else { return };
        let path = directory.join(name);
        let now = (self.clock)().instant;
        let present = self.files.present_at(parent, name).ok().flatten();
        let stamp = present.as_ref().map(|present| self.stamp(present));
        let ino = present.and_then(|_| self.files.known_at(parent, name));
        self.state.lock().table.changed(&path, stamp, ino, now);
    }

    fn changed_directories(&self, places: [&(Ino, OsString); 2]) {
        let now = (self.clock)().instant;
        self.state.lock().table.forget_nodes();
        for (parent, name) in places {
            let Some(directory) = self.files.path(*parent) else { continue };
            let directory = directory.join(name);
            let paths: Vec<_> = self.state.lock().table.paths_at(&directory).cloned().collect();
            for path in paths {
                let present = self.files.present_at_path(&path).ok().flatten();
                let stamp = present.map(|present| self.stamp(&present));
                self.state.lock().table.changed(&path, stamp, None, now);
            }
        }
    }
}

impl Stamp {
    fn of(attr: &Attr) -> Stamp {
        let mtime_ns = i128::from(attr.mtime.seconds) * 1_000_000_000 + i128::from(attr.mtime.nanos);
        Stamp { is_directory: false, size: attr.size, mtime_ns, mode: u32::from(attr.perm) }
    }
}

/// The name of the spool's directory in the state directory.
const SPOOL: &str = "history";

fn open_spool(directory: &StateDirectory) -> io::Result<Spool> {
    Spool::open(directory.subdirectory(SPOOL).map_err(io::Error::other)?)
}
