//! The processes that have a file of the tree open for writing, or mapped. Only `/proc` has this information.
//!
//! May assume: `/proc` is that of the pid namespace in which the daemon runs.
//! Must never: follow a link in `/proc/<pid>/fd` on a thread that anything depends on: a process in the middle of execve(2) can block such
//! a thread for as long as it likes, so a looker follows the link ([`Callers::look_now`]). Must never let such a link's filesystem be asked
//! about its file: that may be our own mount. Must never read the descriptors of all processes: the duration depends on the machine, and
//! a change would wait for it. Must never call [`maps`] on a thread that anything depends on: it waits for the memory lock of a process,
//! which the process's owner may hold for ever.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::clock::Clock;
use crate::fs::Ino;
use crate::fs::identity::callers::Callers;
use crate::limits::{MAPPINGS_READ, UNSEEN_LOCK_MS};
use crate::queue::{Instant, Span};

/// A device number: major and minor.
pub type DeviceNumber = (u32, u32);

/// How long a wait of a thread is kept after it was last seen.
const WAIT_KEPT_MS: u64 = 1_000;

/// How a process has a file open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenState {
    /// It has the file open for writing.
    Writing,
    /// It has the file open for writing, but only to append (O_APPEND).
    Appending,
    /// It does not have the file open for writing, or it is gone.
    Done,
    /// The daemon may not read its descriptors, or no reading of them ends in time.
    Hidden,
    /// A reading of its descriptors is under way.
    Awaited,
}

impl OpenState {
    /// The state for a process whose descriptors could not be read.
    pub(super) fn of_error(error: &io::Error) -> OpenState {
        match error.kind() {
            ErrorKind::PermissionDenied => OpenState::Hidden,
            ErrorKind::WouldBlock => OpenState::Awaited,
            _ => OpenState::Done,
        }
    }
}

/// The files that a process has open for writing.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenForWriting {
    /// The files of the tree, and whether each is open only to append.
    pub(super) files: HashMap<Ino, bool>,
    /// The start of the reading, if it was too late for the request that started it and later readings were too late as well.
    began: Option<Instant>,
}

impl OpenForWriting {
    /// Whether this is what the process had open after this moment.
    pub(super) fn is_newer_than(&self, moment: Instant) -> bool {
        self.began.is_none_or(|began| began > moment)
    }
}

/// Reads the descriptors of other processes.
#[derive(Default)]
pub(super) struct OpenFiles {
    /// The device of the tree's mount.
    device: OnceLock<DeviceNumber>,
    /// The lookers. Without them, the calling thread reads the descriptors itself.
    lookers: Option<(Arc<Callers>, Clock)>,
    late: Arc<Mutex<LateLooks>>,
    /// Waits of threads in the kernel: when each was first seen, and when last.
    waits: Mutex<HashMap<(OsString, Wait), (Instant, Instant)>>,
}

/// One wait of a thread, by the number of its earlier waits.
type Wait = u64;

/// The uninterruptible wait of a thread in the kernel, from its status; `None` if it is in no such wait.
fn uninterruptible_wait(status: &str) -> Option<Wait> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
    let is_waiting = field("State:")?.starts_with('D');
    field("voluntary_ctxt_switches:")?.parse().ok().filter(|_| is_waiting)
}

/// Readings that took longer than a request waits for them. On a slow machine, or for a process with very many descriptors, no reading ends
/// in time. So the result of a late one counts, for a file that the process has not changed since that reading began.
#[derive(Default)]
struct LateLooks {
    /// The readings that are still under way, by process, and their start. Each process has one at a time, so that the user's lookers are
    /// free for other processes.
    under_way: HashMap<u32, (Weak<()>, Instant)>,
    /// The last late result. A lock of a hidden process ends UNSEEN_LOCK_MS after its last change, so an older result is of no use.
    found: HashMap<u32, OpenForWriting>,
}

impl LateLooks {
    /// The start of the reading that is under way.
    fn under_way(&self, process: u32) -> Option<Instant> {
        self.under_way.get(&process).filter(|(look, _)| look.strong_count() > 0).map(|(_, began)| *began)
    }

    fn begin(&mut self, process: u32, look: Weak<()>, began: Instant) {
        self.under_way.retain(|_, (look, _)| look.strong_count() > 0);
        self.under_way.insert(process, (look, began));
    }

    fn found(&mut self, process: u32, now: Instant) -> Option<OpenForWriting> {
        self.found.retain(|_, open| open.began.is_some_and(|began| now.since(began) < Span(UNSEEN_LOCK_MS)));
        self.found.get(&process).cloned()
    }
}

impl OpenFiles {
    pub(super) fn new(callers: Arc<Callers>, clock: Clock) -> OpenFiles {
        OpenFiles { lookers: Some((callers, clock)), ..OpenFiles::default() }
    }

    /// The tree is mounted as this device.
    pub(super) fn mounted(&self, device: DeviceNumber) {
        let _ = self.device.set(device);
    }

    /// The device of the tree's mount, once it is mounted.
    pub(super) fn device(&self) -> Option<DeviceNumber> {
        self.device.get().copied()
    }

    /// Whether a process exists; also yes if its number is unknown.
    pub(super) fn exists(&self, process: u32) -> bool {
        process == 0 || Path::new(&format!("/proc/{process}")).exists()
    }

    /// How a process has a file open for writing. A reading that began at `since` or earlier does not count.
    pub(super) fn open_state(&self, process: u32, ino: Ino, since: Instant) -> OpenState {
        match self.open_for_writing(process) {
            Ok(open) if !open.is_newer_than(since) => OpenState::Hidden,
            Ok(open) => match open.files.get(&ino) {
                Some(true) => OpenState::Appending,
                Some(false) => OpenState::Writing,
                None => OpenState::Done,
            },
            Err(error) => OpenState::of_error(&error),
        }
    }

    /// Since when a thread of the process is in an uninterruptible wait, for a lock in the kernel or for a disk: the time at which that
    /// wait was first seen. Reading `status` takes no lock of the process. Reading `stat` may wait for a process in the middle of
    /// execve(2), which may itself wait for the daemon.
    pub(super) fn stuck_since(&self, process: u32, now: Instant) -> Option<Instant> {
        let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let mut waits = self.waits.lock();
        let seen = threads.filter_map(|thread| {
            let status = fs::read_to_string(thread.path().join("status")).ok()?;
            let wait = (thread.file_name(), uninterruptible_wait(&status)?);
            let (since, last) = waits.entry(wait).or_insert((now, now));
            *last = now;
            Some(*since)
        });
        let longest = seen.min();
        waits.retain(|_, (_, last)| now.since(*last) < Span(WAIT_KEPT_MS));
        longest
    }

    /// The files that a process has open for writing.
    ///
    /// # Errors
    /// EACCES if its descriptors may not, or cannot, be read; EAGAIN while a reading is under way that took too long.
    pub(super) fn open_for_writing(&self, process: u32) -> io::Result<OpenForWriting> {
        if process == 0 {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let device = self.device();
        let Some((callers, clock)) = &self.lookers else {
            return Ok(OpenForWriting { files: open_for_writing(process, device)?, began: None });
        };
        let began = clock().instant;
        if self.late.lock().under_way(process).is_some() {
            return self.late_look(process, began);
        }
        let (under_way, late) = (Arc::new(()), self.late.clone());
        let token = Arc::downgrade(&under_way);
        let look = move || {
            let found = open_for_writing(process, device);
            if let Ok(files) = &found {
                let open = OpenForWriting { files: files.clone(), began: Some(began) };
                late.lock().found.insert(process, open);
            }
            drop(under_way);
            found
        };
        match callers.look_now(process, look) {
            Ok(found) => {
                // The reading was in time.
                self.late.lock().found.remove(&process);
                Ok(OpenForWriting { files: found?, began: None })
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.late.lock().begin(process, token, began);
                self.late_look(process, began)
            }
            Err(error) => Err(error),
        }
    }

    fn late_look(&self, process: u32, now: Instant) -> io::Result<OpenForWriting> {
        let mut late = self.late.lock();
        if let Some(found) = late.found(process, now) {
            return Ok(found);
        }
        let is_awaited = late.under_way(process).is_some_and(|began| now.since(began) < Span(UNSEEN_LOCK_MS));
        Err(if is_awaited { ErrorKind::WouldBlock } else { ErrorKind::PermissionDenied }.into())
    }
}

fn open_for_writing(process: u32, device: Option<DeviceNumber>) -> io::Result<HashMap<Ino, bool>> {
    let mut found = HashMap::new();
    if open_by(&format!("/proc/{process}/fd"), device, &mut found)? {
        return Ok(found);
    }
    // The first thread may have ended before the others. The other threads then still have the descriptors.
    for thread in fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
        let _ = open_by(&format!("{}/fd", thread.path().display()), device, &mut found);
    }
    Ok(found)
}

/// Whether a directory of `/proc` has any descriptors. Writable descriptors of our files are added to `found`.
fn open_by(
    directory: &str,
    device: Option<DeviceNumber>,
    found: &mut HashMap<Ino, bool>,
) -> io::Result<bool> {
    let mut any = false;
    for descriptor in fs::read_dir(directory)? {
        let link = descriptor?.path();
        any = true;
        // The mode bits of the link itself show how the file is open.
        let writable = link.symlink_metadata().is_ok_and(|link| link.permissions().mode() & 0o200 != 0);
        if !writable {
            continue;
        }
        // The kernel answers this without a request to the filesystem, which may be ours. A mount id would not identify the
        // device: sandboxes reuse mount ids within seconds.
        let (flags, wanted) = (AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT, StatxFlags::INO);
        // An error means that the descriptor was closed meanwhile.
        if let Ok(stat) = statx(CWD, &link, flags, wanted)
            && device == Some((stat.stx_dev_major, stat.stx_dev_minor))
        {
            *found.entry(stat.stx_ino).or_insert(true) &= appends(&link);
        }
    }
    Ok(any)
}

/// Whether a process has a writable shared mapping of a file.
pub(super) fn maps(process: u32, (major, minor): DeviceNumber, ino: Ino) -> bool {
    let device = format!("{major:02x}:{minor:02x}");
    let Ok(maps) = File::open(format!("/proc/{process}/maps")) else { return false };
    BufReader::new(maps.take(MAPPINGS_READ)).lines().map_while(io::Result::ok).any(|line| {
        // Address, permissions, offset, device, inode number, path.
        let mut fields = line.split_ascii_whitespace().skip(1);
        let shared = fields.next().is_some_and(|bits| bits.get(1..2) == Some("w") && bits.ends_with('s'));
        shared
            && fields.nth(1) == Some(device.as_str())
            && fields.next().and_then(|number| number.parse().ok()) == Some(ino)
    })
}

/// Whether a descriptor in `/proc` was opened with O_APPEND. If it was closed meanwhile, the answer is no, which refuses more.
fn appends(link: &Path) -> bool {
    let info = link.to_string_lossy().replacen("/fd/", "/fdinfo/", 1);
    let info = fs::read_to_string(info).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0) & libc::O_APPEND != 0
}

/// All processes but the daemon itself, which has no file of the tree open, and may have very many others.
pub(super) fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|process| *process != std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn open_files_are_seen_by_how_they_are_open() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("f"), dir.path().join("g"));
        fs::write(&path, "").unwrap();
        let meta = fs::metadata(&path).unwrap();
        let device = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
        let descriptors = OpenFiles::default();
        descriptors.mounted(device);
        let me = std::process::id();
        let state = || descriptors.open_state(me, meta.ino(), Instant::default());

        let reading = fs::File::open(&path).unwrap();
        assert_eq!(state(), OpenState::Done);
        let appending = fs::File::options().append(true).open(&path).unwrap();
        let _another = fs::File::create(&other).unwrap();
        assert_eq!(state(), OpenState::Appending);
        let writing = fs::File::options().write(true).open(&path).unwrap();
        assert_eq!(state(), OpenState::Writing);
        drop(writing);
        assert_eq!(state(), OpenState::Appending);
        drop(appending);
        assert_eq!(state(), OpenState::Done);
        drop(reading);
        assert_eq!(descriptors.open_state(0, meta.ino(), Instant::default()), OpenState::Hidden);
        assert_eq!(descriptors.open_state(u32::MAX >> 2, meta.ino(), Instant::default()), OpenState::Done);
    }

    #[test]
    fn a_thread_is_in_one_wait_until_it_waits_again() {
        let status = |state: &str, waits: u32| {
            format!(
                "Name:\tx\nState:\t{state}\nvoluntary_ctxt_switches:\t{waits}\nnonvoluntary_ctxt_switches:\t7\n"
            )
        };
        assert_eq!(uninterruptible_wait(&status("D (disk sleep)", 3)), Some(3));
        assert_eq!(uninterruptible_wait(&status("D (disk sleep)", 4)), Some(4));
        assert_eq!(uninterruptible_wait(&status("S (sleeping)", 4)), None);
        assert_eq!(uninterruptible_wait(&status("R (running)", 4)), None);
        assert_eq!(OpenFiles::default().stuck_since(std::process::id(), Instant(1)), None);
    }

    #[test]
    fn files_of_another_device_are_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("f")).unwrap();
        let descriptors = OpenFiles::default();
        descriptors.mounted((999, 999));
        assert_eq!(
            descriptors.open_state(std::process::id(), file.metadata().unwrap().ino(), Instant::default()),
            OpenState::Done
        );
    }
}
