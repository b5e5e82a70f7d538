//! The watch: whatever changes in the project behind the mount's back, the kernel is told to forget.
//!
//! May assume: the kernel tells of all changes in a directory from the moment it is marked (fanotify(7)), but of pages
//! written through a mapping only when the file is closed; what this process did itself went through the mount.
//! Must never: hold a lock while it talks to our own mount's side of the kernel: that waits for requests under way, which
//! need these locks.
//!
//! What the kernel was told is believed for [`LONG`] in a directory that is watched, and for [`SHORT`] elsewhere. A directory
//! is marked when the kernel first hears of it, before its attributes are read for the answer; so nothing that happens after
//! an answer was looked up can stay unheard. When a change is heard, what was answered before it may still be on its way to
//! the kernel. So the first thing is always to ask the kernel to forget a name in that directory: it does so only when all
//! that was begun there is done.

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

/// How long the kernel may believe what it is told as soon as it changes.
pub(super) const LONG: Duration = Duration::from_secs(3600);
/// How long it may believe everything else.
pub(super) const SHORT: Duration = Duration::from_secs(1);

/// A name that no project has. To forget it does nothing but wait for the directory.
const NO_NAME: &str = "\u{1}crewfs";

/// Told of the name of every entry that something happened to; of none, if everything may have changed.
pub(super) type Listener = Box<dyn Fn(Option<&OsStr>) + Send + Sync>;

/// The watch over one project.
pub(super) struct TreeWatch {
    files: Arc<Files>,
    /// The tasks directory in the root. The desk covers it, and to forget its name would take the desk away.
    tasks: OsString,
    /// The marks, or why there are none.
    marks: Result<DirectoryWatch, String>,
    table: RwLock<WatchedDirectories>,
    /// Names that the kernel was told are missing, and may believe so for long.
    missing: Mutex<HashSet<(Ino, OsString)>>,
    kernel: OnceLock<Arc<dyn Kernel>>,
    listener: OnceLock<Listener>,
    thread: Mutex<Option<(OwnedFd, JoinHandle<()>)>>,
    complained: AtomicBool,
    lost: AtomicU64,
    seconds: AtomicU64,
}

/// The directories that the kernel knows.
#[derive(Default)]
struct WatchedDirectories {
    /// With their handles; `None` for those that cannot be watched.
    nodes: HashMap<Ino, Option<FileHandle>>,
    by_handle: HashMap<FileHandle, Ino>,
}

/// What was heard of an entry.
#[derive(Default)]
struct HeardChanges(BTreeMap<(Ino, OsString), bool>);

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
            complained: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            seconds: AtomicU64::new(0),
        };
        watch.add(ROOT);
        watch
    }

    /// Whether all changes in all directories that the kernel knows are heard of.
    pub(super) fn hears_all(&self) -> bool {
        let table = self.table.read();
        self.marks.is_ok() && table.by_handle.len() == table.nodes.len()
    }

    /// Whether all changes in this directory are heard of.
    pub(super) fn covers(&self, directory: Ino) -> bool {
        matches!(self.table.read().nodes.get(&directory), Some(Some(_)))
    }

    /// Watch a directory that the kernel is about to hear of. Whether its attributes have to be read again: what was read
    /// before it was watched may be outdated.
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
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            log::warn!(
                "a directory cannot be watched ({error}); in it, and in others like it, changes behind the mount show only \
                 after a second; crewfs doctor says more"
            );
        }
        marked.ok()
    }

    /// The kernel does not know a directory any more.
    pub(super) fn remove(&self, directory: &Forgotten) {
        let Ok(marks) = &self.marks else { return };
        let mut table = self.table.write();
        // It may have been introduced again, and then is counted on.
        if self.files.knows(directory.ino) {
            return;
        }
        let Some(Some(handle)) = table.nodes.remove(&directory.ino) else { return };
        table.by_handle.remove(&handle);
        // What is found elsewhere by now keeps its mark, and nobody listens to it.
        if let Some(descriptor) = self.files.descriptor_of_forgotten(directory)
            && handle_of(descriptor.as_fd()).is_ok_and(|found| found == handle)
        {
            let _ = marks.remove(descriptor.as_fd());
        }
    }

    /// The kernel is about to be told that a name is missing: for how long may it believe that?
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

    /// From now on, tell the kernel what has changed, also of what happened so far.
    pub(super) fn tell(
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

    /// The kernel, as soon as it can be told anything.
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
            let (mut changes, mut lost) = (HeardChanges::default(), false);
            let heard = marks.read(&mut buffer, &mut |heard| match heard {
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
                self.forget_everything(&**kernel);
            } else {
                self.forget(&changes, &**kernel);
            }
            if self.missing.lock().len() >= limits::MISSING_NAMES_KEPT {
                self.forget_missing(&**kernel, false);
            }
            if changes.0.is_empty() && !lost && heard.unwrap_or(true) {
                let _ = poll(&mut [PollFd::new(stopped, PollFlags::IN)], Some(&rest));
            }
        }
    }

    /// Whether the kernel must not be told to forget a name, and need not.
    fn stays(&self, parent: Ino, name: &OsStr) -> bool {
        parent == ROOT && (name == self.tasks || name == super::HIDDEN)
    }

    fn forget(&self, changes: &HeardChanges, kernel: &dyn Kernel) {
        let mut directories = BTreeMap::new();
        for (_, name) in changes.0.keys() {
            self.listener.get().into_iter().for_each(|heard| heard(Some(name)));
        }
        for ((directory, name), name_changed) in &changes.0 {
            if self.stays(*directory, name) {
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
        // First every node that lost its name, then those that have one now: a file may have moved from here to there. A file
        // that is open goes on without a name, and has a link less.
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

    /// Nobody knows what has changed. It costs a look at every node that the kernel knows, and a word to the kernel.
    fn forget_everything(&self, kernel: &dyn Kernel) {
        self.listener.get().into_iter().for_each(|heard| heard(None));
        let watched: Vec<Ino> = self.table.read().by_handle.values().copied().collect();
        log::info!("more changed behind the mount than the kernel could tell: everything is looked at anew");
        for directory in watched {
            kernel.forget_name(directory, OsStr::new(NO_NAME));
        }
        for (ino, place) in self.files.all_known() {
            // Names that still mean the same stay: forgetting one would take away what is mounted below it.
            if let Some((parent, name)) = place
                && !self.stays(parent, &name)
                && self.files.known_at(parent, &name) != Some(ino)
            {
                kernel.forget_name(parent, &name);
                let _open_perhaps = self.files.lost_beneath(parent, &name);
            }
            kernel.forget_content(ino);
        }
        self.forget_missing(kernel, true);
    }

    /// Have the kernel forget the names of files that were removed where that is not heard of. To be called every second or so.
    pub(super) fn forget_removed(&self) {
        let seconds = self.seconds.fetch_add(1, Ordering::Relaxed);
        let Some(kernel) = self.kernel().filter(|_| seconds.is_multiple_of(limits::REMOVED_SECONDS)) else {
            return;
        };
        for (ino, parent, name) in self.files.removed_beneath() {
            if !self.stays(parent, &name) && !self.covers(parent) {
                kernel.forget_name(parent, &name);
                if self.files.lost_beneath(parent, &name).is_some() {
                    kernel.forget_attributes(ino);
                }
            }
        }
    }

    /// Let the kernel ask again for names that were missing. Of those that are there by now it was told, unless that
    /// was `lost`.
    fn forget_missing(&self, kernel: &dyn Kernel, lost: bool) {
        let missing = std::mem::take(&mut *self.missing.lock());
        for (parent, name) in missing {
            let knows = match self.files.known_at(parent, &name) {
                // As above: what is right stays.
                Some(ino) => self.files.place_is(ino, parent, &name),
                None => !lost && self.files.exists(parent, &name).unwrap_or(false),
            };
            if !knows {
                kernel.forget_name(parent, &name);
            }
        }
    }
}

impl HeardChanges {
    fn note(&mut self, directory: Ino, name: &OsStr, name_changed: bool) {
        *self.0.entry((directory, name.to_owned())).or_insert(false) |= name_changed;
    }
}
