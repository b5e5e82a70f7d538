//! The watch: instruction files that come, change or go behind the mount's back (C10).
//!
//! May assume: the kernel tells of most changes (inotify); where it cannot, the directory is read every two seconds.
//! Must never: touch the directory through a mount of ours.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::publish::{Publisher, stamp_of};
use super::table::{file_of, task_of};
use crate::engine::{Engine, Failure};
use crate::limits::RESCAN_MS;
use crate::queue::TaskId;

/// A thread that keeps the queue in step with the directory.
pub struct Watch {
    stop: OwnedFd,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Watcher {
    engine: Arc<Engine>,
    publisher: Arc<Publisher>,
    inotify: Option<OwnedFd>,
    stopped: OwnedFd,
    /// Set when a publishing failed for a reason that may pass: everything is looked at again.
    again: Arc<AtomicBool>,
}

impl Watch {
    /// Bring the queue in step with the directory as it is, and keep it so.
    pub(super) fn start(engine: Arc<Engine>, publisher: Arc<Publisher>) -> std::io::Result<Watch> {
        let inotify = watch_directory(&publisher);
        if let Err(error) = &inotify {
            log::warn!(
                "the kernel cannot tell of changes in the tasks directory ({error}); it is read every 2 s"
            );
        }
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let again = Arc::default();
        let watcher = Watcher { engine, publisher, inotify: inotify.ok(), stopped, again };
        watcher.scan()?;
        let thread = std::thread::Builder::new().name("watch".into()).spawn(move || watcher.run())?;
        Ok(Watch { stop, thread: Mutex::new(Some(thread)) })
    }

    /// End the thread.
    pub fn stop(&self) {
        let _ = rustix::io::write(&self.stop, b"x");
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

fn watch_directory(publisher: &Publisher) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsFd;
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let directory = publisher.directory();
    let path = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    let changes = WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO;
    inotify::add_watch(&inotify, path, changes | WatchFlags::ONLYDIR)?;
    Ok(inotify)
}

impl Watcher {
    fn run(self) {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let rescan =
            Timespec { tv_sec: (RESCAN_MS / 1000) as i64, tv_nsec: (RESCAN_MS % 1000) as i64 * 1_000_000 };
        loop {
            let mut fds = vec![PollFd::new(&self.stopped, PollFlags::IN)];
            fds.extend(self.inotify.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let ready = poll(&mut fds, Some(&rescan));
            if !fds[0].revents().is_empty() {
                return;
            }
            let scan = match (&self.inotify, ready) {
                (Some(inotify), Ok(1..)) => self.follow(inotify, &mut buffer),
                (Some(_), _) => self.again.swap(false, Ordering::AcqRel),
                (None, _) => true,
            };
            if scan && let Err(error) = self.scan() {
                log::warn!("the tasks directory cannot be read: {error}");
                self.again.store(true, Ordering::Release);
            }
        }
    }

    /// Look at every file that the kernel names. Whether it lost count, so that everything has to be looked at.
    fn follow(&self, inotify: &OwnedFd, buffer: &mut [MaybeUninit<u8>]) -> bool {
        let mut reader = inotify::Reader::new(inotify, buffer);
        let mut changed = BTreeSet::new();
        // Until there is nothing more to read: EAGAIN.
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                return true;
            }
            let Some(task) = event.file_name().and_then(|name| task_of(OsStr::from_bytes(name.to_bytes())))
            else {
                continue;
            };
            // A regular file that was just made is not complete before it is closed, unless it is another name of one
            // that was complete before.
            if !event.events().contains(ReadFlags::CREATE) || self.is_complete(&task) {
                changed.insert(task);
            }
        }
        changed.iter().for_each(|task| self.publish(task));
        false
    }

    fn is_complete(&self, task: &TaskId) -> bool {
        let stat = statat(self.publisher.directory(), file_of(task), AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1
        })
    }

    fn publish(&self, task: &TaskId) {
        if self.publisher.is_being_written(task) {
            return;
        }
        let (again, task_name) = (self.again.clone(), task.clone());
        self.publisher.publish(task, move |outcome| match outcome {
            Ok(_) | Err(Failure::Stopping) => {}
            Err(failure) => {
                log::warn!("{task_name} is not published yet: {failure}");
                again.store(true, Ordering::Release);
            }
        });
    }

    /// Compare the directory with the queue, file by file.
    fn scan(&self) -> std::io::Result<()> {
        let directory = openat(
            self.publisher.directory(),
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let state = self.engine.state();
        let (mut there, mut changed) = (BTreeSet::new(), Vec::new());
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let Some(task) = task_of(OsStr::from_bytes(entry.file_name().to_bytes())) else { continue };
            let stat = statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
            let known = state.task(task.as_str()).map(|task| task.stamp);
            if let Ok(stamp) = stat.map(|stat| stamp_of(&stat))
                && known != Some(stamp)
            {
                changed.push((stamp.mtime_ns, task.clone()));
            }
            there.insert(task);
        }
        // A directory has no order; the older file is the older task (C13).
        changed.sort();
        changed.iter().for_each(|(_, task)| self.publish(task));
        for (id, _) in state.tasks().filter(|(id, _)| !there.contains(*id)) {
            self.publish(id);
        }
        Ok(())
    }
}
