//! The watch: instruction files that come, change or go beneath the mount (C10), and tasks whose file stays away (C14).
//!
//! May assume: inotify reports most changes. Where it cannot, the watch reads the directory every two seconds.
//! Must never: access the directory through a mount of crewfs, or withdraw a task whose file is at its place.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

use super::file_names::{file_of, task_of};
use super::publish::{DirectoryState, Publisher, stamp_of};
use crate::engine::{Engine, Failure};
use crate::fs::permissions::is_for_everybody;
use crate::limits::{RESCAN_MS, SETTLE_MS, UNSETTLED_MS};
use crate::queue::{Command, FileState, Seq, Span, Task, TaskId};

/// The settings of the watch.
pub(super) struct DeskWatchConfig {
    /// The name of the directory in the project.
    pub(super) name: String,
    /// How long a task outlives its file (C14).
    pub(super) grace: Span,
}

/// The thread that keeps the queue up to date with the directory.
pub struct DeskWatch {
    stop: OwnedFd,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Watcher {
    engine: Arc<Engine>,
    publisher: Arc<Publisher>,
    terms: DeskWatchConfig,
    inotify: Option<OwnedFd>,
    stopped: OwnedFd,
    /// Set when publishing failed for a reason that may pass: the watch reads the whole directory again.
    again: Arc<AtomicBool>,
    /// When the watch first saw each missing file missing, by this daemon's clock, and the position of its `file_missing` event. A file
    /// that came back and went again has another position.
    missing: BTreeMap<(TaskId, Seq), Instant>,
    /// When the watch first saw that the project has no directory of this name.
    homeless: Option<Instant>,
}

/// The changes that the kernel reported.
#[derive(Default)]
struct DirectoryEvents {
    /// Files that are complete, or gone.
    changed: BTreeSet<TaskId>,
    /// Files whose attributes were changed.
    marked: BTreeSet<TaskId>,
    /// Files that were written to and may not be complete.
    modified: BTreeSet<TaskId>,
    /// The kernel dropped events.
    lost_count: bool,
    /// The directory itself was moved or removed.
    moved: bool,
}

impl DeskWatch {
    /// Publishes the directory as it is, and starts the thread.
    pub(super) fn start(
        engine: Arc<Engine>,
        publisher: Arc<Publisher>,
        terms: DeskWatchConfig,
    ) -> std::io::Result<DeskWatch> {
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (again, missing, homeless) = (Arc::default(), BTreeMap::new(), None);
        let mut watcher =
            Watcher { engine, publisher, terms, inotify: None, stopped, again, missing, homeless };
        watcher.watch_directory();
        watcher.scan()?;
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || watcher.run())?;
        Ok(DeskWatch { stop, thread: Mutex::new(Some(thread)) })
    }

    /// Ends the thread.
    pub fn stop(&self) {
        let _ = rustix::io::write(&self.stop, b"x");
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

fn watch(publisher: &Publisher) -> Result<OwnedFd, Errno> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let directory = publisher.directory();
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let changes = WatchFlags::CLOSE_WRITE
        | WatchFlags::ATTRIB
        | WatchFlags::MODIFY
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF;
    inotify::add_watch(&inotify, path, changes | WatchFlags::ONLYDIR)?;
    Ok(inotify)
}

impl Watcher {
    fn watch_directory(&mut self) {
        self.inotify = match watch(&self.publisher) {
            Ok(inotify) => Some(inotify),
            Err(error) => {
                log::warn!(
                    "the kernel cannot tell of changes in the tasks directory ({error}); it is read every 2 s"
                );
                None
            }
        };
    }

    fn run(mut self) {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        // The queue shows an event when it is on disk. The watch reads the file once more then.
        let mut soon = false;
        loop {
            let pause = if soon { Duration::from_millis(SETTLE_MS) } else { self.pause() };
            let pause = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) };
            let mut fds = vec![PollFd::new(&self.stopped, PollFlags::IN)];
            fds.extend(self.inotify.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let _ = poll(&mut fds, Some(&pause));
            if !fds[0].revents().is_empty() {
                return;
            }
            let news = self.inotify.as_ref().map(|inotify| self.hear(inotify, &mut buffer));
            let mut scan = self.again.swap(false, Ordering::AcqRel);
            scan |= news.as_ref().is_none_or(|news| news.lost_count);
            scan |= self.follow(news.as_ref().is_some_and(|news| news.moved));
            if scan && let Err(error) = self.scan() {
                log::warn!("the tasks directory cannot be read: {error}");
                self.again.store(true, Ordering::Release);
            }
            soon = news.as_ref().is_some_and(|news| !news.changed.is_empty());
            if let Some(news) = news {
                news.modified.iter().for_each(|task| self.look_while_written(task));
                news.marked.iter().for_each(|task| self.look_at_rights(task));
                news.changed.iter().for_each(|task| self.publish(task));
            }
            self.settle();
        }
    }

    /// How long the watch may sleep.
    fn pause(&self) -> Duration {
        let grace = self.terms.grace.to_std();
        let due =
            self.missing.values().map(|since| (*since + grace).saturating_duration_since(Instant::now()));
        let unsettled = self.engine.state().unsettled().next().is_some()
            || self.publisher.has_leased()
            || self.homeless.is_some();
        let longest = Duration::from_millis(if unsettled { UNSETTLED_MS } else { RESCAN_MS });
        due.min().map_or(longest, |due| due.min(longest))
    }

    /// Reads all events that the kernel has queued.
    fn hear(&self, inotify: &OwnedFd, buffer: &mut [MaybeUninit<u8>]) -> DirectoryEvents {
        let mut reader = inotify::Reader::new(inotify, buffer);
        let mut news = DirectoryEvents::default();
        // EAGAIN: the queue is empty.
        while let Ok(event) = reader.next() {
            let events = event.events();
            news.lost_count |= events.contains(ReadFlags::QUEUE_OVERFLOW);
            news.moved |=
                events.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED);
            let Some(name) = event.file_name() else { continue };
            let name = OsStr::from_bytes(name.to_bytes());
            let Some(task) = task_of(name) else {
                match events.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
                    true => self.publisher.misnamed.gone(name),
                    false => self.publisher.misnamed.seen(name),
                }
                continue;
            };
            if events.contains(ReadFlags::ATTRIB) {
                news.marked.insert(task);
            } else if events.contains(ReadFlags::MODIFY) {
                news.modified.insert(task);
            } else if !events.contains(ReadFlags::CREATE) || self.is_complete(&task) {
                // A new regular file is not complete before it is closed, unless it is a new name of a complete file.
                news.changed.insert(task);
            }
        }
        news
    }

    fn is_complete(&self, task: &TaskId) -> bool {
        let stat = statat(self.publisher.directory(), file_of(task), AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1
        })
    }

    /// Handles a file that was written to: its task is held back while a process has the file open for writing. Where that cannot be
    /// known, the kernel reports the close.
    fn look_while_written(&self, task: &TaskId) {
        let directory = self.publisher.directory();
        let stat = statat(directory, file_of(task), AtFlags::SYMLINK_NOFOLLOW);
        let state = self.engine.state();
        let known = state.task(task.as_str()).filter(|known| known.has_whole_file());
        let is_known = |stat: &Stat| known.is_some_and(|known| known.stamp.is_content_of(&stamp_of(stat)));
        // A file that is written through the mount is published at its close.
        if stat.is_ok_and(|stat| is_known(&stat) || self.publisher.is_written(&stat)) {
            return;
        }
        match self.publisher.is_written_beneath(task) {
            Some(true) => self.publisher.hold_back(task),
            Some(false) => self.publish(task),
            None => {}
        }
    }

    /// Handles a change of attributes, such as the right to read the file. A file that is not published yet is read when it is.
    fn look_at_rights(&self, task: &TaskId) {
        let stat = statat(self.publisher.directory(), file_of(task), AtFlags::SYMLINK_NOFOLLOW);
        let state = self.engine.state();
        let known = state.task(task.as_str()).filter(|known| known.has_whole_file());
        if let (Ok(stat), Some(known)) = (stat, known)
            && known.stamp.is_content_of(&stamp_of(&stat))
        {
            self.publish(task);
        }
    }

    fn publish(&self, task: &TaskId) {
        let (again, task_name) = (self.again.clone(), task.clone());
        self.publisher.publish(task, move |outcome| match outcome {
            Ok(_) | Err(Failure::Stopping) => {}
            Err(failure) => {
                match failure {
                    Failure::Refused(_) => log::debug!("{task_name} is not published yet: {failure}"),
                    _ => log::warn!("{task_name} is not published yet: {failure}"),
                }
                again.store(true, Ordering::Release);
            }
        });
    }

    /// Checks the tasks whose file is missing, leased or open for writing: whether the file is back, complete, or still missing.
    fn settle(&mut self) {
        // The queue does not know a task before its file could be read once.
        self.publisher.take_leased().iter().for_each(|id| self.publish(id));
        let state = self.engine.state();
        let grace = self.terms.grace.to_std();
        let mut missing = BTreeMap::new();
        for id in state.unsettled() {
            let Some(task) = state.task(id.as_str()) else { continue };
            if self.publisher.has_file(id) {
                self.look_while_written(id);
                continue;
            }
            // A claimed task waits for its file without a limit.
            let FileState::Missing(since) = task.file else {
                self.publish(id);
                continue;
            };
            if task.claim().is_some() {
                continue;
            }
            let key = (id.clone(), since.seq);
            let seen = self.missing.get(&key).copied().unwrap_or_else(Instant::now);
            if seen.elapsed() >= grace {
                self.engine.submit(Command::Withdraw { task: id.clone() });
            }
            missing.insert(key, seen);
        }
        self.missing = missing;
    }

    /// Switches to the directory that the project has now. Returns whether the whole directory must be read.
    fn follow(&mut self, moved: bool) -> bool {
        match self.publisher.follow(&self.terms.name) {
            Ok(DirectoryState::Same) => {
                self.homeless = None;
                false
            }
            Ok(DirectoryState::Another) => {
                log::warn!("the tasks directory was replaced beneath the mount; the new one is served");
                self.homeless = None;
                self.watch_directory();
                true
            }
            Err(error) => {
                let since = *self.homeless.get_or_insert_with(|| {
                    log::warn!(
                        "the tasks directory is gone beneath the mount ({error}); it is made again if it stays away"
                    );
                    Instant::now()
                });
                // Another process may be about to move the directory to its place, and a new one would be in its way.
                if error == Errno::NOENT && since.elapsed() >= self.terms.grace.to_std() {
                    self.homeless = Some(Instant::now());
                    match self.publisher.make_directory(&self.terms.name) {
                        Ok(()) => log::warn!("the tasks directory was made again, empty"),
                        Err(error) => log::warn!("the tasks directory cannot be made again: {error}"),
                    }
                }
                moved
            }
        }
    }

    /// Compares the directory with the queue, file by file.
    fn scan(&self) -> std::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(self.publisher.directory(), ".", flags, Mode::empty())?;
        let state = self.engine.state();
        let (mut there, mut changed, mut others) = (BTreeSet::new(), Vec::new(), Vec::new());
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let Some(task) = task_of(name) else {
                others.push(name.to_owned());
                continue;
            };
            let stat = statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
            let known = state.task(task.as_str()).filter(|task| task.has_whole_file());
            if let Ok(stamp) = stat.map(|stat| stamp_of(&stat))
                && known.is_none_or(|task| !task.stamp.is_content_of(&stamp) || self.is_for_some(task, name))
            {
                changed.push((stamp.mtime_ns, task.clone()));
            }
            there.insert(task);
        }
        self.publisher.misnamed.replace(others.iter().map(OsString::as_os_str));
        // A directory has no order; the older file is the older task (C13).
        changed.sort();
        changed.iter().for_each(|(_, task)| self.publish_if_complete(task));
        for (id, _) in state.tasks().filter(|(id, task)| !there.contains(*id) && !task.file_is_missing()) {
            self.publish(id);
        }
        Ok(())
    }

    /// Whether some users may not read a file, or the queue has it as private. Its rights are then read in full.
    fn is_for_some(&self, task: &Task, name: &OsStr) -> bool {
        task.stamp.readers.is_some() || !is_for_everybody(self.publisher.directory(), name)
    }

    /// Handles a file that was found without an event: it may be open for writing.
    fn publish_if_complete(&self, task: &TaskId) {
        if self.publisher.is_written_beneath(task) == Some(true) {
            self.publisher.hold_back(task);
        } else {
            self.publish(task);
        }
    }
}
