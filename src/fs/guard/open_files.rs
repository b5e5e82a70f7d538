//! Who has a file of the tree open for writing, or mapped: read from `/proc`, which is the only place that knows.
//!
//! May assume: `/proc` is that of the pid namespace in which the daemon runs.
//! Must never: follow a link in `/proc/<pid>/fd` on a thread that anything depends on: a process in the midst of execve(2) keeps it waiting
//! for as long as it likes, so a looker does it ([`Callers::look_now`]), and who cannot be looked at in time is hidden. Have a filesystem asked about what a link in `/proc/<pid>/fd` leads to: that may be our own mount. Look at the
//! descriptors of all processes: how long that takes depends on the machine, and a change would wait for it. And [`maps`] must be
//! called by no thread that anything depends on: it waits for the memory lock of a process, which its owner may keep for ever.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::fs::Ino;
use crate::fs::identity::callers::Callers;
use crate::limits::MAPPINGS_READ;

/// A device number: major and minor.
pub type DeviceNumber = (u32, u32);

/// What was seen of a process and a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenState {
    /// It has the file open for writing.
    Writing,
    /// It has, but only to append (O_APPEND).
    Appending,
    /// It has not, or is gone.
    Done,
    /// It may not be looked at.
    Hidden,
}

/// Looks at the descriptors of other processes.
#[derive(Default)]
pub(super) struct OpenFiles {
    /// The device of the tree's mount.
    device: OnceLock<DeviceNumber>,
    /// Has lookers; without it, a thread looks itself.
    callers: Option<Arc<Callers>>,
}

impl OpenFiles {
    pub(super) fn new(callers: Arc<Callers>) -> OpenFiles {
        OpenFiles { device: OnceLock::new(), callers: Some(callers) }
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

    /// How a process has a file open for writing.
    pub(super) fn sight(&self, process: u32, ino: Ino) -> OpenState {
        match self.open_for_writing(process) {
            Ok(open) => match open.iter().filter(|(open, _)| *open == ino).map(|(_, appends)| *appends).min()
            {
                Some(true) => OpenState::Appending,
                Some(false) => OpenState::Writing,
                None => OpenState::Done,
            },
            Err(error) if error.kind() == ErrorKind::PermissionDenied => OpenState::Hidden,
            Err(_) => OpenState::Done,
        }
    }

    /// Whether a thread of the process waits where nothing can wake it: for a lock in the kernel, or for a disk. `status` tells
    /// that without any lock of the process; `stat` may wait for one that is in the midst of execve(2), and that one for us.
    pub(super) fn is_stuck(&self, process: u32) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
        threads.flatten().any(|thread| {
            let status = fs::read(thread.path().join("status")).unwrap_or_default();
            let state = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"State:"));
            state.is_some_and(|state| state.trim_ascii_start().first() == Some(&b'D'))
        })
    }

    /// The files of the tree that a process has open for writing, and whether only to append.
    ///
    /// # Errors
    /// EACCES where it may not, or cannot, be looked at.
    pub(super) fn open_for_writing(&self, process: u32) -> io::Result<Vec<(Ino, bool)>> {
        if process == 0 {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let device = self.device();
        match &self.callers {
            Some(callers) => callers.look_now(process, move || open_for_writing(process, device))?,
            None => open_for_writing(process, device),
        }
    }
}

fn open_for_writing(process: u32, device: Option<DeviceNumber>) -> io::Result<Vec<(Ino, bool)>> {
    let mut found = Vec::new();
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
fn open_by(directory: &str, device: Option<DeviceNumber>, found: &mut Vec<(Ino, bool)>) -> io::Result<bool> {
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
            found.push((stat.stx_ino, appends(&link)));
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
        let sight = || descriptors.sight(me, meta.ino());

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
        assert_eq!(descriptors.sight(0, meta.ino()), OpenState::Hidden);
        assert_eq!(descriptors.sight(u32::MAX >> 2, meta.ino()), OpenState::Done);
    }

    #[test]
    fn files_of_another_device_are_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("f")).unwrap();
        let descriptors = OpenFiles::default();
        descriptors.mounted((999, 999));
        assert_eq!(descriptors.sight(std::process::id(), file.metadata().unwrap().ino()), OpenState::Done);
    }
}
