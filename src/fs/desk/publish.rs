//! Publishing: from an instruction file on the disk to a task in the queue (C10).
//!
//! May assume: the directory of the files is reached by a descriptor.
//! Must never: offer a file that is open for writing, or whose writer was killed before it was done.
//!
//! A file is complete at the *last* close of its writing descriptors. The kernel reports that close (RELEASE) without waiting for an
//! answer, so a worker that writes a task and looks for it at once could be too early. [`Settling`] closes that gap: readers of the queue
//! wait, for a bounded time, from the close that the writer waits for (FLUSH) until the file is published.
//!
//! An open file is known by its inode, not by its name: it may be renamed onto a task's name, or away from it, while it is open.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, statat};
use rustix::io::Errno;

use super::file_names::{file_of, task_of};
use super::misnamed::Misnamed;
use crate::engine::{Engine, Failure, Submission};
use crate::fs::ROOT;
use crate::fs::files::{Files, read_from};
use crate::fs::permissions::access_of;
use crate::limits::{INSTRUCTIONS_BYTES, PUBLISH_MS, SETTLE_MS, TORN_FILES, WRITERS_REMEMBERED};
use crate::queue::{
    Command, FileStamp, Manifest, Outcome, Payer, Problem, Task, TaskId, WorkerName, bounded_warnings,
    parse_instructions,
};

/// A file of the disk: its device and its inode number.
type FileKey = (u64, u64);

/// A file that is open for writing through the desk.
#[derive(Default)]
struct OpenWriter {
    handles: usize,
    /// The user that wrote last, if it is known.
    by: Option<Payer>,
    /// Whether the last of its writers was killed.
    torn: bool,
}

/// Reads instruction files and hands them to the queue.
pub(super) struct Publisher {
    engine: Arc<Engine>,
    /// The files of the directory.
    files: Arc<Files>,
    /// Where paths in front matter begin.
    project: OwnedFd,
    /// The absolute paths by which the project is reached.
    roots: Vec<String>,
    /// Files that look like tasks and are none.
    pub(super) misnamed: Misnamed,
    writers: Arc<Mutex<HashMap<FileKey, OpenWriter>>>,
    /// Contents that killed writers left behind, oldest first. They stay what they are when the file is renamed.
    torn: Mutex<VecDeque<(FileKey, FileStamp)>>,
    /// Tasks whose file could not be opened because another process has a lease on it. The kernel reports no change when a lease ends.
    leased: Mutex<BTreeSet<TaskId>>,
    /// The user that wrote each content through the mount, oldest first.
    written: Mutex<VecDeque<(FileKey, FileStamp, Payer)>>,
    pub(super) settling: Settling,
}

impl Publisher {
    /// `files` is the directory of the instructions. Paths in them are relative to `project`. At most `may_wait` threads wait at one
    /// time, so that another thread can receive the close that they wait for.
    pub(super) fn new(
        engine: Arc<Engine>,
        files: Arc<Files>,
        project: OwnedFd,
        may_wait: usize,
        roots: Vec<String>,
    ) -> Publisher {
        let settling = Settling::new(may_wait);
        let misnamed = Misnamed::new(engine.clock().clone());
        let (writers, torn, leased, written) = Default::default();
        Publisher { engine, files, project, roots, misnamed, writers, torn, leased, written, settling }
    }

    /// A file was opened for writing through the desk; `task` is the one whose instructions it holds at present.
    pub(super) fn opened(self: &Arc<Self>, file: impl AsFd, task: Option<&TaskId>) {
        if let Ok(stat) = rustix::fs::fstat(file) {
            self.writers.lock().entry(key_of(&stat)).or_default().handles += 1;
        }
        if let Some(task) = task {
            self.hold_back(task);
        }
    }

    /// A handle for writing is closed, of the file of which `stat` was told last. `wrote` tells whether it changed the file, and `by`
    /// whom; `torn` whether the process that did so was killed before it was done.
    pub(super) fn closed(&self, stat: &Stat, wrote: bool, by: Option<Payer>, torn: bool) {
        let mut writers = self.writers.lock();
        let Some(written) = writers.get_mut(&key_of(stat)) else { return };
        written.handles -= 1;
        if wrote {
            (written.torn, written.by) = (torn, by);
        }
        if written.handles > 0 {
            return;
        }
        // The content is marked as torn before the file is marked as closed: the watch may read it at once.
        if written.torn {
            let mut torn = self.torn.lock();
            if torn.len() >= TORN_FILES {
                torn.pop_front();
            }
            torn.push_back((key_of(stat), stamp_of(stat)));
        }
        // The same holds for the user that wrote it.
        if let Some(payer) = written.by.take() {
            self.remember(key_of(stat), stamp_of(stat), payer);
        }
        writers.remove(&key_of(stat));
    }

    /// Notes that this payer made the content of a file without opening it.
    pub(super) fn wrote(&self, task: &TaskId, payer: Payer) {
        if let Ok(stat) = statat(self.directory(), file_of(task), AtFlags::SYMLINK_NOFOLLOW) {
            self.remember(key_of(&stat), stamp_of(&stat), payer);
        }
    }

    fn remember(&self, file: FileKey, stamp: FileStamp, payer: Payer) {
        let mut written = self.written.lock();
        written.retain(|(known, ..)| *known != file);
        if written.len() >= WRITERS_REMEMBERED {
            written.pop_front();
        }
        written.push_back((file, stamp, payer));
    }

    /// The payer of publishing this content: the user that wrote it through the mount, else the owner of the file.
    fn payer(&self, task: &TaskId, file: Option<FileKey>, stamp: &FileStamp) -> Payer {
        let is_it =
            |known: &&(FileKey, FileStamp, Payer)| Some(known.0) == file && known.1.is_content_of(stamp);
        if let Some((.., payer)) = self.written.lock().iter().find(is_it) {
            return payer.clone();
        }
        let stat = statat(self.directory(), file_of(task), AtFlags::SYMLINK_NOFOLLOW);
        Payer { worker: None, uid: stat.map_or(0, |stat| stat.st_uid), operator: false }
    }

    /// Whether a file is open for writing through the desk.
    pub(super) fn is_written(&self, stat: &Stat) -> bool {
        self.writers.lock().contains_key(&key_of(stat))
    }

    /// The task cannot be claimed until it is published again.
    ///
    /// The engine checks at the moment of the decision that the file is still open for writing. A task that was published meanwhile would
    /// otherwise be held back for ever.
    pub(super) fn hold_back(self: &Arc<Self>, task: &TaskId) {
        let (publisher, id) = (self.clone(), task.clone());
        let written = move || publisher.is_open(&id);
        self.engine.submit(Submission::from(Command::OpenFile { task: task.clone() }).checked(written));
    }

    /// Whether a task's file is open for writing, through the desk or beneath it.
    fn is_open(&self, task: &TaskId) -> bool {
        let stat = statat(self.directory(), file_of(task), AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| self.is_written(&stat)) || self.is_written_beneath(task) == Some(true)
    }

    /// Reads a task's file as it is now, and publishes it. `done` gets the outcome. A file that is open for writing is published when it is
    /// closed.
    pub(super) fn publish(
        self: &Arc<Self>,
        task: &TaskId,
        done: impl FnOnce(std::result::Result<Outcome, Failure>) + Send + 'static,
    ) {
        let state = self.engine.state();
        match self.look(task, state.task(task.as_str()).map(|known| &**known)) {
            FileLook::Gone => {
                let (publisher, id) = (self.clone(), task.clone());
                let gone = move || !publisher.has_file(&id);
                let submission = Submission::from(Command::FileGone { task: task.clone() }).checked(gone);
                self.engine.submit(submission).on_durable(unless_it_changed(done));
            }
            FileLook::Open => {
                self.hold_back(task);
                done(Ok(Outcome::Done));
            }
            FileLook::There(file, stamp, manifest) => {
                let (writers, payer) = (self.writers.clone(), self.payer(task, file, &stamp));
                // The engine checks once more at the moment of the decision that the file is not open for writing: it may have been
                // opened during the read.
                let whole = move || file.is_none_or(|file| !writers.lock().contains_key(&file));
                let command = Command::Publish { task: task.clone(), manifest, stamp };
                let submission = Submission::from(command).checked(whole).paid_by(payer);
                self.engine.submit(submission).on_durable(unless_it_changed(done));
            }
        }
    }

    /// `known` is the task as the queue shows it. The queue may have newer events, such as that the file was opened. So an unchanged
    /// content is reported, too.
    fn look(&self, task: &TaskId, known: Option<&Task>) -> FileLook {
        let file = file_of(task);
        // An older crewfs published this name as a task.
        if task_of(file.as_ref()).is_none() {
            return FileLook::Gone;
        }
        let problem = |message: String| Manifest::Problem(Arc::new(Problem { line: 0, message }));
        let opened = match self.open(task) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return FileLook::Gone,
            // Another process has a lease on it, and may write to it without an event.
            Err(Errno::AGAIN) => return FileLook::Open,
            // A symbolic link could lead anywhere, and its target could change without an event.
            Err(Errno::LOOP) => {
                let link =
                    format!("{file} is a symbolic link; write the instructions into a file of that name");
                return FileLook::There(None, FileStamp::default(), problem(link));
            }
            Err(error) => {
                let why = format!("{file} cannot be read: {error}");
                return FileLook::There(None, FileStamp::default(), problem(why));
            }
        };
        let stat = match rustix::fs::fstat(&opened) {
            Ok(stat) => stat,
            Err(error) => {
                let why = format!("{file} cannot be read: {error}");
                return FileLook::There(None, FileStamp::default(), problem(why));
            }
        };
        let (mut stamp, key) = (stamp_of(&stat), key_of(&stat));
        stamp.readers = match access_of(&opened) {
            // A task that was private is published as readable by every user.
            Ok(access) if access.is_for_everybody() && known.is_none_or(|it| it.stamp.readers.is_none()) => {
                None
            }
            Ok(access) => Some(Arc::new(access)),
            Err(error) => {
                let why = format!("{file} cannot be read: {error}");
                return FileLook::There(None, FileStamp::default(), problem(why));
            }
        };
        if self.is_written(&stat) {
            return FileLook::Open;
        }
        if let Some(known) = known.filter(|known| known.has_whole_file() && known.stamp == stamp) {
            return FileLook::There(Some(key), stamp, known.manifest.clone());
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            let not_regular = problem(format!("{file} is not a regular file"));
            return FileLook::There(Some(key), stamp, not_regular);
        }
        if self.is_torn(key, &stamp) {
            let torn = problem("its writer was killed before it was done; write it again".into());
            return FileLook::There(Some(key), stamp, torn);
        }
        if stamp.size > INSTRUCTIONS_BYTES {
            let size = stamp.size;
            let why = format!("{file} has {size} bytes; instructions may have {INSTRUCTIONS_BYTES}");
            let large = problem(format!("{why}: put data into other files and name them"));
            return FileLook::There(Some(key), stamp, large);
        }
        let manifest = match read_from(&opened, 0, INSTRUCTIONS_BYTES as u32 + 1) {
            Ok(content) => self.with_warnings(parse_instructions(task, &content, &self.roots)),
            Err(error) => {
                let why = std::io::Error::from_raw_os_error(error.errno());
                problem(format!("{file} cannot be read: {why}"))
            }
        };
        FileLook::There(Some(key), stamp, manifest)
    }

    /// Whether this content was left behind by a killed writer. Any other content of the file is whole again.
    fn is_torn(&self, file: FileKey, stamp: &FileStamp) -> bool {
        let mut torn = self.torn.lock();
        torn.retain(|(known, left)| *known != file || left.is_content_of(stamp));
        torn.iter().any(|(known, _)| *known == file)
    }

    /// Whether a task's file is at its place, complete or not.
    pub(super) fn has_file(&self, task: &TaskId) -> bool {
        // A name that only an older crewfs took for a task has no file.
        let file = file_of(task);
        task_of(file.as_ref()).is_some() && statat(self.directory(), file, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The manifest, with a warning for each context path that does not exist.
    fn with_warnings(&self, manifest: Manifest) -> Manifest {
        let Manifest::Spec(spec) = manifest else { return manifest };
        let warnings: Vec<String> = spec.context.iter().filter_map(|path| self.warning(path)).collect();
        if warnings.is_empty() {
            return Manifest::Spec(spec);
        }
        let mut spec = Arc::unwrap_or_clone(spec);
        spec.warnings.extend(bounded_warnings(warnings));
        Manifest::Spec(spec.into())
    }

    fn warning(&self, path: &str) -> Option<String> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.project, path, flags, Mode::empty(), within) {
            Ok(_) => None,
            Err(Errno::NOENT | Errno::NOTDIR) => Some(format!("context: {path} does not exist")),
            Err(Errno::XDEV) => Some(format!("context: {path} leads out of the project")),
            Err(error) => Some(format!("context: {path} cannot be found: {error}")),
        }
    }

    /// Whether a process has a task's file open for writing beneath the mount, or a lease on it, under which it may write unnoticed;
    /// `None` if the filesystem cannot tell.
    pub(super) fn is_written_beneath(&self, task: &TaskId) -> Option<bool> {
        if !self.files.keeps_births(ROOT) {
            return None;
        }
        match self.open(task) {
            Err(Errno::AGAIN) => Some(true),
            file => crate::sys::is_open_for_writing(&file.ok()?),
        }
    }

    /// Opens a task's file to read it.
    ///
    /// # Errors
    /// EAGAIN when another process has a lease on it; the task is in [`Publisher::take_leased`] then. Otherwise those of open(2).
    fn open(&self, task: &TaskId) -> std::result::Result<OwnedFd, Errno> {
        // O_NONBLOCK: neither a pipe of that name nor a lease may block the queue.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let opened = openat(self.directory(), file_of(task), flags, Mode::empty());
        if matches!(opened, Err(Errno::AGAIN)) {
            self.leased.lock().insert(task.clone());
        }
        opened
    }

    /// Whether [`Publisher::take_leased`] has tasks.
    pub(super) fn has_leased(&self) -> bool {
        !self.leased.lock().is_empty()
    }

    /// The tasks whose file had a lease. The caller publishes them again.
    pub(super) fn take_leased(&self) -> BTreeSet<TaskId> {
        std::mem::take(&mut self.leased.lock())
    }

    /// The directory of the files.
    pub(super) fn directory(&self) -> Arc<OwnedFd> {
        self.files.root()
    }

    /// Compares the directory with the one that the project has by this name now, and switches to that one if it is another.
    ///
    /// # Errors
    /// ENOENT while the project has no such directory; and those of open(2).
    pub(super) fn follow(&self, name: &str) -> std::result::Result<DirectoryState, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let there = openat(&self.project, name, flags, Mode::empty())?;
        let (now, before) = (rustix::fs::fstat(&there)?, rustix::fs::fstat(self.directory())?);
        if key_of(&now) == key_of(&before) {
            return Ok(DirectoryState::Same);
        }
        let replaced = self.files.replace_root(there);
        replaced.map(|()| DirectoryState::Another).map_err(|error| Errno::from_raw_os_error(error.errno()))
    }

    /// Makes the directory again, with the owner and mode of the project's directory.
    pub(super) fn make_directory(&self, name: &str) -> std::result::Result<(), Errno> {
        crate::fs::files::make_directory_like(&self.project, name)
    }
}

/// A file that changed during the read is read again anyway, so that is no failure.
fn unless_it_changed(
    done: impl FnOnce(std::result::Result<Outcome, Failure>) + Send + 'static,
) -> impl FnOnce(std::result::Result<Outcome, Failure>) + Send + 'static {
    move |outcome| {
        done(match outcome {
            Err(Failure::Check) => Ok(Outcome::Done),
            outcome => outcome,
        });
    }
}

/// The state of the directory of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DirectoryState {
    /// The directory is at its place.
    Same,
    /// Another directory was at its place, and is used from now on.
    Another,
}

enum FileLook {
    /// There is no such file.
    Gone,
    /// It is open for writing.
    Open,
    /// It says this. The key tells which file it is, where that is known.
    There(Option<FileKey>, FileStamp, Manifest),
}

fn key_of(stat: &Stat) -> FileKey {
    (stat.st_dev, stat.st_ino)
}

/// What distinguishes this content of a file from another.
pub(super) fn stamp_of(stat: &Stat) -> FileStamp {
    FileStamp {
        ino: stat.st_ino,
        size: stat.st_size as u64,
        mtime_ns: stat.st_mtime.wrapping_mul(1_000_000_000).wrapping_add(stat.st_mtime_nsec as i64),
        readers: None,
    }
}

/// Handles of instruction files that were closed once and may be about to be published.
pub(super) struct Settling {
    may_wait: usize,
    count: AtomicUsize,
    closed: Mutex<Closed>,
    settled: Condvar,
}

#[derive(Default)]
struct Closed {
    /// The worker that closed each handle, and until when readers wait for it.
    handles: HashMap<u64, (Option<WorkerName>, Instant)>,
    waiting: usize,
}

impl Settling {
    fn new(may_wait: usize) -> Settling {
        let (closed, settled) = (Mutex::default(), Condvar::new());
        Settling { may_wait, count: AtomicUsize::new(0), closed, settled }
    }

    /// Notes that a descriptor of this handle was closed. It may have been the last.
    pub(super) fn begin(&self, fh: u64, by: Option<WorkerName>) {
        let mut closed = self.closed.lock();
        closed.handles.insert(fh, (by, Instant::now() + Duration::from_millis(SETTLE_MS)));
        self.count.store(closed.handles.len(), Ordering::Release);
    }

    /// Notes that it was the last: the file is being published.
    pub(super) fn is_last(&self, fh: u64) {
        if let Some((_, end)) = self.closed.lock().handles.get_mut(&fh) {
            *end = Instant::now() + Duration::from_millis(PUBLISH_MS);
        }
    }

    /// Notes that the file of this handle is published.
    pub(super) fn end(&self, fh: u64) {
        let mut closed = self.closed.lock();
        closed.handles.remove(&fh);
        self.count.store(closed.handles.len(), Ordering::Release);
        self.settled.notify_all();
    }

    /// Whether no file is being published. Costs nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Waits until all files that were just closed are published, which takes about one commit. If all threads waited, none could receive
    /// the close that they wait for. So one thread never waits, and a worker that waits for its own file has priority.
    pub(super) fn wait(&self, worker: &WorkerName) {
        let mut closed = self.closed.lock();
        loop {
            // A handle with another open descriptor delays readers only for a moment.
            let now = Instant::now();
            closed.handles.retain(|_, (_, end)| *end > now);
            self.count.store(closed.handles.len(), Ordering::Release);
            let own = closed.handles.values().any(|(by, _)| by.as_ref() == Some(worker));
            let room = if own { self.may_wait } else { self.may_wait / 2 };
            let next = closed.handles.values().map(|(_, end)| *end).min();
            let Some(next) = next.filter(|_| closed.waiting < room) else { return };
            closed.waiting += 1;
            self.settled.wait_until(&mut closed, next);
            closed.waiting -= 1;
        }
    }
}
