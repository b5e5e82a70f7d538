//! Who has a file of the tree open for writing, or mapped: read from `/proc`, which is the only place that knows.
//!
//! May assume: `/proc` is that of the pid namespace in which the daemon runs.
//! Must never: follow a link in `/proc/<pid>/fd` on a thread that anything depends on. A process in the midst of execve(2) keeps such a
//! thread waiting for as long as it likes, so a looker follows it ([`Callers::look_now`]). Have a filesystem asked about what such a link
//! leads to: that may be our own mount. Look at the descriptors of all processes: how long that takes depends on the machine, and a change
//! would wait for it. Call [`maps`] on a thread that anything depends on: it waits for the memory lock of a process, which its owner may
//! keep for ever.

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

/// How long a wait of a thread is known that was not seen again.
const WAIT_KEPT_MS: u64 = 1_000;

/// What was seen of a process and a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenState {
    /// It has the file open for writing.
    Writing,
    /// It has, but only to append (O_APPEND).
    Appending,
    /// It has not, or is gone.
    Done,
    /// It may not be looked at, or no look comes to an end.
    Hidden,
    /// A look at it is under way.
    Awaited,
}

impl OpenState {
    /// That of a process that could not be looked at.
    pub(super) fn without_look(error: &io::Error) -> OpenState {
        match error.kind() {
            ErrorKind::PermissionDenied => OpenState::Hidden,
            ErrorKind::WouldBlock => OpenState::Awaited,
            _ => OpenState::Done,
        }
    }
}

/// What a process has open for writing.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenForWriting {
    /// The files of the tree, and whether only to append.
    pub(super) files: HashMap<Ino, bool>,
    /// When the look began that found it, if that look was too late for the request that asked for it. A later look was too late again.
    began: Option<Instant>,
}

impl OpenForWriting {
    /// Whether it is what the process has open after this moment.
    pub(super) fn is_newer_than(&self, moment: Instant) -> bool {
        self.began.is_none_or(|began| began > moment)
    }
}

/// Looks at the descriptors of other processes.
#[derive(Default)]
pub(super) struct OpenFiles {
    /// The device of the tree's mount.
    device: OnceLock<DeviceNumber>,
    /// Has lookers; without it, a thread looks itself.
    lookers: Option<(Arc<Callers>, Clock)>,
    late: Arc<Mutex<LateLooks>>,
    /// Waits of threads in the kernel: when each was seen first, and last.
    waits: Mutex<HashMap<(OsString, Wait), (Instant, Instant)>>,
}

/// One wait of a thread: how often it had waited before.
type Wait = u64;

/// The wait of a thread in the kernel where nothing can wake it, by its status; none if it is elsewhere.
fn wait_of(status: &str) -> Option<Wait> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
    let waits = field("State:")?.starts_with('D');
    field("voluntary_ctxt_switches:")?.parse().ok().filter(|_| waits)
}

/// Looks that took longer than a request waits for them. On a slow machine, or at a process with very many descriptors, no other look
/// comes to an end. So what such a look found counts, for a file that the process has not changed since the look began.
#[derive(Default)]
struct LateLooks {
    /// Those that are still under way, by process, and when they began. There is one at a time, so that a user's lookers are left for other
    /// processes.
    under_way: HashMap<u32, (Weak<()>, Instant)>,
    /// What the last one found. Where no look is of use, a lock ends that long after the last change, and an older look is of none.
    found: HashMap<u32, OpenForWriting>,
}

impl LateLooks {
    /// When the look began that is under way.
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

    /// The tree is mounted now, as this device.
    pub(super) fn mounted(&self, device: DeviceNumber) {
        let _ = self.device.set(device);
    }

    /// The device of the tree's mount, once it is mounted.
    pub(super) fn device(&self) -> Option<DeviceNumber> {
        self.device.get().copied()
    }

    /// Whether there is such a process, as far as can be seen.
    pub(super) fn exists(&self, process: u32) -> bool {
        process == 0 || Path::new(&format!("/proc/{process}")).exists()
    }

    /// How a process has a file open for writing. What it had open at this moment, or before, does not count.
    pub(super) fn sight(&self, process: u32, ino: Ino, since: Instant) -> OpenState {
        match self.open_for_writing(process) {
            Ok(open) if !open.is_newer_than(since) => OpenState::Hidden,
            Ok(open) => match open.files.get(&ino) {
                Some(true) => OpenState::Appending,
                Some(false) => OpenState::Writing,
                None => OpenState::Done,
            },
            Err(error) => OpenState::without_look(&error),
        }
    }

    /// Since when a thread of the process waits where nothing can wake it, for a lock in the kernel or for a disk: when that wait was seen
    /// first. `status` tells it without any lock of the process. `stat` may wait for a process in the midst of execve(2), and that process
    /// for us.
    pub(super) fn stuck_since(&self, process: u32, now: Instant) -> Option<Instant> {
        let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let mut waits = self.waits.lock();
        let seen = threads.filter_map(|thread| {
            let status = fs::read_to_string(thread.path().join("status")).ok()?;
            let wait = (thread.file_name(), wait_of(&status)?);
            let (since, last) = waits.entry(wait).or_insert((now, now));
            *last = now;
            Some(*since)
        });
        let longest = seen.min();
        waits.retain(|_, (_, last)| now.since(*last) < Span(WAIT_KEPT_MS));
        longest
    }

    /// What a process has open for writing.
    ///
    /// # Errors
    /// EACCES where it may not, or cannot, be looked at; EAGAIN where a look is under way that took too long.
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
                // It came in time.
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
    // The first thread may have ended before the others: then its descriptors are with them.
    for thread in fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
        let _ = open_by(&format!("{}/fd", thread.path().display()), device, &mut found);
    }
    Ok(found)
}

/// Whether there are any descriptors in a directory of `/proc`; those that are ours are added to `found`.
fn open_by(
    directory: &str,
    device: Option<DeviceNumber>,
    found: &mut HashMap<Ino, bool>,
) -> io::Result<bool> {
    let mut any = false;
    for descriptor in fs::read_dir(directory)? {
        let link = descriptor?.path();
        any = true;
        // The bits of the link itself tell how the file is open.
        let writable = link.symlink_metadata().is_ok_and(|link| link.permissions().mode() & 0o200 != 0);
        if !writable {
            continue;
        }
        // What the kernel knows by itself: no filesystem is asked, least of all ours. Numbers of mounts would not do for
        // the device: they are used again, by sandboxes within seconds.
        let (flags, wanted) = (AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT, StatxFlags::INO);
        // Closed meanwhile, if this fails.
        if let Ok(stat) = statx(CWD, &link, flags, wanted)
            && device == Some((stat.stx_dev_major, stat.stx_dev_minor))
        {
            *found.entry(stat.stx_ino).or_insert(true) &= appends(&link);
        }
    }
    Ok(any)
}

/// Whether a process has a file mapped so that what it stores reaches it.
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

/// Whether a descriptor in `/proc` was opened with O_APPEND. Of one that was closed meanwhile the worse is assumed.
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
        let sight = || descriptors.sight(me, meta.ino(), Instant::default());

        let reading = fs::File::open(&path).unwrap();
        assert_eq!(sight(), OpenState::Done);
        let appending = fs::File::options().append(true).open(&path).unwrap();
        let _another = fs::File::create(&other).unwrap();
        assert_eq!(sight(), OpenState::Appending);
        let writing = fs::File::options().write(true).open(&path).unwrap();
        assert_eq!(sight(), OpenState::Writing);
        drop(writing);
        assert_eq!(sight(), OpenState::Appending);
        drop(appending);
        assert_eq!(sight(), OpenState::Done);
        drop(reading);
        assert_eq!(descriptors.sight(0, meta.ino(), Instant::default()), OpenState::Hidden);
        assert_eq!(descriptors.sight(u32::MAX >> 2, meta.ino(), Instant::default()), OpenState::Done);
    }

    #[test]
    fn a_thread_is_in_one_wait_until_it_waits_again() {
        let status = |state: &str, waits: u32| {
            format!(
                "Name:\tx\nState:\t{state}\nvoluntary_ctxt_switches:\t{waits}\nnonvoluntary_ctxt_switches:\t7\n"
            )
        };
        assert_eq!(wait_of(&status("D (disk sleep)", 3)), Some(3));
        assert_eq!(wait_of(&status("D (disk sleep)", 4)), Some(4));
        assert_eq!(wait_of(&status("S (sleeping)", 4)), None);
        assert_eq!(wait_of(&status("R (running)", 4)), None);
        assert_eq!(OpenFiles::default().stuck_since(std::process::id(), Instant(1)), None);
    }

    #[test]
    fn files_of_another_device_are_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("f")).unwrap();
        let descriptors = OpenFiles::default();
        descriptors.mounted((999, 999));
        assert_eq!(
            descriptors.sight(std::process::id(), file.metadata().unwrap().ino(), Instant::default()),
            OpenState::Done
        );
    }
}
