//! The watch: it invalidates what the kernel has cached of files that change beneath the mount.
//!
//! May assume: once a directory is marked (fanotify(7)), the kernel reports all changes in it. It reports pages that a process wrote
//! through a mapping only when the file is closed. This process's own changes went through the mount.
//! Must never: hold a lock while it invalidates caches of our own mount: the kernel then waits for requests under way, which
//! need these locks.
//!
//! The kernel may cache an answer for [`LONG`] in a directory that is watched, and for [`SHORT`] elsewhere. A directory is marked when
//! the kernel first learns of it, before its attributes are read for the answer. So every change after an answer was looked up is
//! reported. When a change is reported, an earlier answer may still be on its way to the kernel. So the watch always invalidates a name
//! in that directory first: the kernel does that only after all lookups begun there have ended.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::fs::files::{Files, Forgotten};
use crate::fs::{Ino, Kernel, ROOT};
use crate::limits;
use crate::sys::{DirectoryEvent, DirectoryWatch, FileHandle, handle_of};

/// How long the kernel may cache an answer that the watch invalidates when it changes.
pub(super) const LONG: Duration = Duration::from_secs(3600);
/// How long the kernel may cache any other answer.
pub(super) const SHORT: Duration = Duration::from_secs(1);

/// A name that no project has. To invalidate it only waits for the directory's lock.
const NO_NAME: &str = "\u{1}crewfs";

/// Called with the name of every changed entry, or with `None` if everything may have changed.
pub(super) type Listener = Box<dyn Fn(Option<&OsStr>) + Send + Sync>;

/// The watch over one project.
pub(super) struct TreeWatch {
    files: Arc<Files>,
    /// The tasks directory in the root. The desk is mounted on it, and invalidating its name would detach that mount.
    tasks: OsString,
    /// The marks, or why there are none.
    marks: Result<DirectoryWatch, String>,
    table: RwLock<WatchedDirectories>,
    /// Missing names that the kernel may cache for [`LONG`].
    missing: Mutex<HashSet<(Ino, OsString)>>,
    kernel: OnceLock<Arc<dyn Kernel>>,
    listener: OnceLock<Listener>,
    thread: Mutex<Option<(OwnedFd, JoinHandle<()>)>>,
    has_warned: AtomicBool,
    lost: AtomicU64,
    seconds: AtomicU64,
}

/// The directories that the kernel knows.
#[derive(Default)]
struct WatchedDirectories {
    /// Each with its handle; `None` for those that cannot be watched.
    nodes: HashMap<Ino, Option<FileHandle>>,
    by_handle: HashMap<FileHandle, Ino>,
}

/// The changed entries, each with whether its name changed.
#[derive(Default)]
struct ChangedEntries(BTreeMap<(Ino, OsString), bool>);

impl TreeWatch {
    pub(super) fn new(files: Arc<Files>, tasks: OsString) -> TreeWatch {
        let marks = if files.keeps_births(ROOT) {
            DirectoryWatch::new().map_err(|error| format!("fanotify is not to be had: {error}"))
        } else {
            Err("on this filesystem not all changes can be heard of".to_owned())
        };
        if let Err(why) = &marks {
            log::warn!("changes behind the mount show only after a second: {why}");
        }
        let watch = TreeWatch {
            files,
            tasks,
            marks,
            table: RwLock::default(),
            missing: Mutex::default(),
            kernel: OnceLock::new(),
            listener: OnceLock::new(),
            thread: Mutex::default(),
            has_warned: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            seconds: AtomicU64::new(0),
        };
        watch.add(ROOT);
        watch
    }

    /// Whether all directories that the kernel knows are watched.
    pub(super) fn watches_all(&self) -> bool {
        let table = self.table.read();
        self.marks.is_ok() && table.by_handle.len() == table.nodes.len()
    }

    /// Whether a directory is watched.
    pub(super) fn covers(&self, directory: Ino) -> bool {
        matches!(self.table.read().nodes.get(&directory), Some(Some(_)))
    }

    /// Watch a directory before the kernel learns of it. The answer is whether its attributes must be read again: what was read before
    /// the mark may be outdated.
    pub(super) fn add(&self, directory: Ino) -> bool {
        let Ok(marks) = &self.marks else { return false };
        if self.table.read().nodes.contains_key(&directory) {
            return false;
        }
        let handle = self.mark(marks, directory);
        let mut table = self.table.write();
        if let Some(handle) = &handle {
            table.by_handle.insert(handle.clone(), directory);
        }
        let marked = handle.is_some();
        table.nodes.insert(directory, handle);
        marked
    }

    fn mark(&self, marks: &DirectoryWatch, directory: Ino) -> Option<FileHandle> {
        if !self.files.keeps_births(directory) {
            return None;
        }
        let descriptor = self.files.descriptor(directory).ok()?;
        let marked = handle_of(descriptor.as_fd()).and_then(|handle| {
            marks.add(descriptor.as_fd())?;
            Ok(handle)
        });
        if let Err(error) = &marked
            && !self.has_warned.swap(true, Ordering::Relaxed)
        {
            log::warn!(
                "a directory cannot be watched ({error}); in it, and in others like it, changes behind the mount show only \
                 after a second; crewfs doctor says more"
            );
        }
        marked.ok()
    }

    /// The kernel has forgotten a directory.
    pub(super) fn remove(&self, directory: &Forgotten) {
        let Ok(marks) = &self.marks else { return };
        let mut table = self.table.write();
        // A lookup may have introduced it again. It then stays watched.
        if self.files.knows(directory.ino) {
            return;
        }
        let Some(Some(handle)) = table.nodes.remove(&directory.ino) else { return };
        table.by_handle.remove(&handle);
        // If it has moved, its mark stays, and its events are ignored.
        if let Some(descriptor) = self.files.descriptor_of_forgotten(directory)
            && handle_of(descriptor.as_fd()).is_ok_and(|found| found == handle)
        {
            let _ = marks.remove(descriptor.as_fd());
        }
    }

    /// How long the kernel may cache that a name is missing.
    pub(super) fn missing(&self, parent: Ino, name: &OsStr) -> Duration {
        if !self.covers(parent) {
            return SHORT;
        }
        let mut missing = self.missing.lock();
        if missing.len() >= limits::MISSING_NAMES_KEPT {
            return SHORT;
        }
        missing.insert((parent, name.to_owned()));
        LONG
    }

    /// From now on, invalidate what has changed, including all changes since the marks were set.
    pub(super) fn start(
        self: &Arc<TreeWatch>,
        kernel: Arc<dyn Kernel>,
        listener: Listener,
    ) -> std::io::Result<()> {
        let _ = self.listener.set(listener);
        if self.kernel.set(kernel).is_err() || self.marks.is_err() {
            return Ok(());
        }
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let watch = self.clone();
        let thread =
            std::thread::Builder::new().name("tree-watch".into()).spawn(move || watch.run(&stopped))?;
        *self.thread.lock() = Some((stop, thread));
        Ok(())
    }

    /// The kernel, once the tree is mounted.
    pub(super) fn kernel(&self) -> Option<&dyn Kernel> {
        self.kernel.get().map(|kernel| &**kernel)
    }

    /// End the thread.
    pub(super) fn stop(&self) {
        if let Some((stop, thread)) = self.thread.lock().take() {
            drop(stop);
            let _ = thread.join();
        }
    }

    /// What is in force, for `crewfs doctor`.
    pub(super) fn shown(&self) -> Value {
        let table = self.table.read();
        let watched = table.by_handle.len();
        json!({
            "by": if self.marks.is_ok() { "fanotify" } else { "nothing" },
            "why": self.marks.as_ref().err(),
            "watched": watched,
            "unwatched": table.nodes.len() - watched,
            "missing_names": self.missing.lock().len(),
            "lost": self.lost.load(Ordering::Relaxed),
            "watched_seconds": LONG.as_secs(),
            "unwatched_seconds": SHORT.as_secs(),
        })
    }

    fn run(&self, stopped: &OwnedFd) {
        let (Ok(marks), Some(kernel)) = (&self.marks, self.kernel.get()) else { return };
        let mut buffer = vec![0; limits::WATCH_BATCH];
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let rest = Timespec { tv_sec: 0, tv_nsec: limits::WATCH_REST_MS * 1_000_000 };
        loop {
            let mut fds = [PollFd::new(stopped, PollFlags::IN), PollFd::new(marks, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&second));
            if !fds[0].revents().is_empty() {
                return;
            }
            let (mut changes, mut lost) = (ChangedEntries::default(), false);
            let has_events = marks.read(&mut buffer, &mut |event| match event {
                DirectoryEvent::Entry { by_us: true, .. } => {}
                DirectoryEvent::Entry { name_changed, directory, name, .. } => {
                    if let Some(directory) = self.table.read().by_handle.get(directory) {
                        changes.note(*directory, name, name_changed);
                    }
                }
                DirectoryEvent::Lost => lost = true,
            });
            if lost {
                self.lost.fetch_add(1, Ordering::Relaxed);
                self.invalidate_all(&**kernel);
            } else {
                self.invalidate(&changes, &**kernel);
            }
            if self.missing.lock().len() >= limits::MISSING_NAMES_KEPT {
                self.invalidate_missing(&**kernel, false);
            }
            if changes.0.is_empty() && !lost && has_events.unwrap_or(true) {
                let _ = poll(&mut [PollFd::new(stopped, PollFlags::IN)], Some(&rest));
            }
        }
    }

    /// Whether a name must not be invalidated, and need not.
    fn is_exempt(&self, parent: Ino, name: &OsStr) -> bool {
        parent == ROOT && (name == self.tasks || name == super::HIDDEN)
    }

    fn invalidate(&self, changes: &ChangedEntries, kernel: &dyn Kernel) {
        let mut directories = BTreeMap::new();
        for (_, name) in changes.0.keys() {
            self.listener.get().into_iter().for_each(|listener| listener(Some(name)));
        }
        for ((directory, name), name_changed) in &changes.0 {
            if self.is_exempt(*directory, name) {
                continue;
            }
            let listing_changed = directories.entry(*directory).or_insert(false);
            *listing_changed |= *name_changed || name == ".";
            if *name_changed {
                self.missing.lock().remove(&(*directory, name.clone()));
                kernel.forget_name(*directory, name);
            }
        }
        for (directory, listing_changed) in directories {
            match listing_changed {
                true => kernel.forget_content(directory),
                false => kernel.forget_name(directory, OsStr::new(NO_NAME)),
            }
        }
        // First every node that lost its name, then those that have one now: a file may have moved from one name to another. An open
        // file goes on without a name, and its link count is lower by one.
        let entries = || changes.0.iter().filter(|((_, name), _)| name != ".");
        for ((directory, name), _) in entries().filter(|(_, name_changed)| **name_changed) {
            if let Some(lost) = self.files.lost_beneath(*directory, name) {
                kernel.forget_attributes(lost);
            }
        }
        for ((directory, name), _) in entries() {
            if let Some(child) = self.files.found_beneath(*directory, name) {
                kernel.forget_content(child);
            }
        }
    }

    /// Invalidate everything, because events were lost. This examines every node that the kernel knows, and sends an invalidation for it.
    fn invalidate_all(&self, kernel: &dyn Kernel) {
        self.listener.get().into_iter().for_each(|listener| listener(None));
        let watched: Vec<Ino> = self.table.read().by_handle.values().copied().collect();
        log::info!("more changed behind the mount than the kernel could tell: everything is looked at anew");
        for directory in watched {
            kernel.forget_name(directory, OsStr::new(NO_NAME));
        }
        for (ino, place) in self.files.all_known() {
            // A name that still leads to the same node stays: its invalidation would detach what is mounted below it.
            if let Some((parent, name)) = place
                && !self.is_exempt(parent, &name)
                && self.files.known_at(parent, &name) != Some(ino)
            {
                kernel.forget_name(parent, &name);
                let _open_perhaps = self.files.lost_beneath(parent, &name);
            }
            kernel.forget_content(ino);
        }
        self.invalidate_missing(kernel, true);
    }

    /// Invalidate the names of removed files in directories that are not watched. The caller runs this about once a second.
    pub(super) fn invalidate_removed(&self) {
        let seconds = self.seconds.fetch_add(1, Ordering::Relaxed);
        let Some(kernel) = self.kernel().filter(|_| seconds.is_multiple_of(limits::REMOVED_SECONDS)) else {
            return;
        };
        for (ino, parent, name) in self.files.removed_beneath() {
            if !self.is_exempt(parent, &name) && !self.covers(parent) {
                kernel.forget_name(parent, &name);
                if self.files.lost_beneath(parent, &name).is_some() {
                    kernel.forget_attributes(ino);
                }
            }
        }
    }

    /// Invalidate the names that the kernel caches as missing. A name that exists by now was reported and already invalidated, unless
    /// events were `lost`.
    fn invalidate_missing(&self, kernel: &dyn Kernel, lost: bool) {
        let missing = std::mem::take(&mut *self.missing.lock());
        for (parent, name) in missing {
            let is_current = match self.files.known_at(parent, &name) {
                // As above: a name that leads to the right node stays.
                Some(ino) => self.files.place_is(ino, parent, &name),
                None => !lost && self.files.exists(parent, &name).unwrap_or(false),
            };
            if !is_current {
                kernel.forget_name(parent, &name);
            }
        }
    }
}

impl ChangedEntries {
    fn note(&mut self, directory: Ino, name: &OsStr, name_changed: bool) {
        *self.0.entry((directory, name.to_owned())).or_insert(false) |= name_changed;
    }
}
