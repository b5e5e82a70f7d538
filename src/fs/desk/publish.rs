//! Publishing: from an instruction file on the disk to a task in the queue (C10).
//!
//! May assume: the directory of the files is reached by a descriptor.
//! Must never: offer a file that somebody still writes.
//!
//! A file is complete at the *last* close of the descriptor that wrote it. The kernel tells of that without waiting for an
//! answer, so that whoever writes a task and looks for it at once could come too early. [`Settling`] closes that gap:
//! between the close that the writer waits for and the publishing, readers of the queue wait, for a bounded time.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, openat2};
use rustix::io::Errno;

use super::misnamed::Misnamed;
use super::table::{file_of, task_of};
use crate::engine::{Engine, Failure};
use crate::fs::files::read_from;
use crate::limits::{INSTRUCTIONS_BYTES, PUBLISH_MS, SETTLE_MS};
use crate::queue::{
    Command, FileStamp, Manifest, Outcome, Problem, TaskId, WorkerName, bounded_warnings, parse_instructions,
};

/// Reads instruction files and hands them to the queue.
pub(super) struct Publisher {
    engine: Arc<Engine>,
    directory: OwnedFd,
    /// Where paths in front matter begin.
    project: OwnedFd,
    /// The absolute paths by which the project is reached.
    roots: Vec<String>,
    /// Files that look like tasks and are none.
    pub(super) misnamed: Misnamed,
    /// How many handles each file is being written through.
    writers: Mutex<HashMap<TaskId, usize>>,
    pub(super) settling: Settling,
}

impl Publisher {
    /// `directory` is where the instruction files are, `project` where the paths in them begin.
    /// So many threads may wait for it at once that another one is left to hear of a close.
    pub(super) fn new(
        engine: Arc<Engine>,
        directory: OwnedFd,
        project: OwnedFd,
        may_wait: usize,
        roots: Vec<String>,
    ) -> Publisher {
        let (writers, settling) = (Mutex::default(), Settling::new(may_wait));
        let misnamed = Misnamed::new(engine.clock().clone());
        Publisher { engine, directory, project, roots, misnamed, writers, settling }
    }

    /// Somebody opened a task's file for writing through the desk: it is not complete.
    pub(super) fn opened(&self, task: &TaskId) {
        *self.writers.lock().entry(task.clone()).or_default() += 1;
    }

    /// One of those who wrote it is done.
    pub(super) fn closed(&self, task: &TaskId) {
        let mut writers = self.writers.lock();
        if let Some(count) = writers.get_mut(task) {
            *count -= 1;
            if *count == 0 {
                writers.remove(task);
            }
        }
    }

    /// Whether somebody writes a task's file through the desk. It is published when that one is done.
    pub(super) fn is_being_written(&self, task: &TaskId) -> bool {
        self.writers.lock().contains_key(task)
    }

    /// Look at a task's file as it is now, and tell the queue. `done` learns what came of it.
    pub(super) fn publish(
        &self,
        task: &TaskId,
        done: impl FnOnce(std::result::Result<Outcome, Failure>) + Send + 'static,
    ) {
        let known = self.engine.state().task(task.as_str()).map(|task| task.stamp);
        match self.look(task, known) {
            Look::Same => done(Ok(Outcome::Done)),
            Look::Gone => self.engine.submit(Command::Missing { task: task.clone() }, done),
            Look::New(stamp, manifest) => {
                self.engine.submit(Command::Publish { task: task.clone(), manifest, stamp }, done);
            }
        }
    }

    fn look(&self, task: &TaskId, known: Option<FileStamp>) -> Look {
        let file = file_of(task);
        // It was one for an older crewfs.
        if task_of(file.as_ref()).is_none() {
            return Look::Gone;
        }
        let problem = |message: String| Manifest::Problem(Arc::new(Problem { line: 0, message }));
        // Not blocking: a pipe of that name must not stop the queue.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let opened = match rustix::fs::openat(&self.directory, &file, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Look::Gone,
            // A symbolic link could lead anywhere, and change without anybody noticing.
            Err(Errno::LOOP) => {
                let link =
                    format!("{file} is a symbolic link; write the instructions into a file of that name");
                return Look::New(FileStamp::default(), problem(link));
            }
            Err(error) => {
                return Look::New(FileStamp::default(), problem(format!("{file} cannot be read: {error}")));
            }
        };
        let stat = match rustix::fs::fstat(&opened) {
            Ok(stat) => stat,
            Err(error) => {
                return Look::New(FileStamp::default(), problem(format!("{file} cannot be read: {error}")));
            }
        };
        let stamp = stamp_of(&stat);
        if known == Some(stamp) {
            return Look::Same;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Look::New(stamp, problem(format!("{file} is not a regular file")));
        }
        if stamp.size > INSTRUCTIONS_BYTES {
            let size = stamp.size;
            let why = format!("{file} has {size} bytes; instructions may have {INSTRUCTIONS_BYTES}");
            return Look::New(stamp, problem(format!("{why}: put data into other files and name them")));
        }
        match read_from(&opened, 0, INSTRUCTIONS_BYTES as u32 + 1) {
            Ok(content) => {
                Look::New(stamp, self.with_warnings(parse_instructions(task, &content, &self.roots)))
            }
            Err(error) => {
                let why = std::io::Error::from_raw_os_error(error.errno);
                Look::New(stamp, problem(format!("{file} cannot be read: {why}")))
            }
        }
    }

    /// What was understood, with a warning for each path to be read first that is not there.
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

    /// The directory of the files.
    pub(super) fn directory(&self) -> impl AsFd {
        &self.directory
    }
}

enum Look {
    /// As the queue knows it.
    Same,
    /// There is no such file.
    Gone,
    /// It says this.
    New(FileStamp, Manifest),
}

/// What tells this content of a file from another.
pub(super) fn stamp_of(stat: &Stat) -> FileStamp {
    FileStamp {
        ino: stat.st_ino,
        size: stat.st_size as u64,
        mtime_ns: stat.st_mtime.wrapping_mul(1_000_000_000).wrapping_add(stat.st_mtime_nsec as i64),
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
    /// Who closed each handle, and until when its publishing is waited for.
    handles: HashMap<u64, (Option<WorkerName>, Instant)>,
    waiting: usize,
}

impl Settling {
    fn new(may_wait: usize) -> Settling {
        let (closed, settled) = (Mutex::default(), Condvar::new());
        Settling { may_wait, count: AtomicUsize::new(0), closed, settled }
    }

    /// A descriptor of this handle was closed; it may have been the last.
    pub(super) fn begin(&self, fh: u64, by: Option<WorkerName>) {
        let mut closed = self.closed.lock();
        closed.handles.insert(fh, (by, Instant::now() + Duration::from_millis(SETTLE_MS)));
        self.count.store(closed.handles.len(), Ordering::Release);
    }

    /// It was the last: publishing is under way.
    pub(super) fn is_last(&self, fh: u64) {
        if let Some((_, end)) = self.closed.lock().handles.get_mut(&fh) {
            *end = Instant::now() + Duration::from_millis(PUBLISH_MS);
        }
    }

    /// What this handle wrote is published.
    pub(super) fn end(&self, fh: u64) {
        let mut closed = self.closed.lock();
        closed.handles.remove(&fh);
        self.count.store(closed.handles.len(), Ordering::Release);
        self.settled.notify_all();
    }

    /// Whether nobody publishes at present. Costs nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Wait until everything that was just closed is published: for as long as a commit takes. If all threads
    /// waited, none could hear of the close that they wait for: so not all do, and this worker, if it looks for what it
    /// wrote itself, comes first.
    pub(super) fn wait(&self, worker: &WorkerName) {
        let mut closed = self.closed.lock();
        loop {
            // A handle that was closed once and is still open somewhere does not hold up anybody for long.
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
