//! Who has a file of the tree open for writing, or mapped: read from `/proc`, which is the only place that knows.
//!
//! May assume: `/proc` is that of the pid namespace in which the daemon runs.
//! Must never: follow a link in `/proc/<pid>/fd`: that would ask our own mount. And [`Descriptors::mappers`] must never be
//! called by a thread that serves the kernel: it waits for the memory locks of other processes, which may wait for us.

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;

use parking_lot::Mutex;

use crate::fs::Ino;

/// A device number: major and minor.
pub type Device = (u32, u32);

/// What was seen of a process and a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// It has the file open for writing.
    Writing,
    /// It has not, or is gone.
    Done,
    /// It may not be looked at.
    Hidden,
}

/// Looks at the descriptors of other processes.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    /// The device of the tree's mount.
    device: OnceLock<Device>,
    /// Which mounts, by their ids, are mounts of that device: ours, and bind mounts of it.
    mounts: Mutex<HashMap<u64, bool>>,
}

impl Descriptors {
    /// The tree is mounted now, as this device.
    pub(super) fn mounted(&self, device: Device) {
        let _ = self.device.set(device);
    }

    /// Whether a process has a file open for writing.
    pub(super) fn sight(&self, process: u32, ino: Ino) -> Sight {
        let mut writing = false;
        match self.open_for_writing(process, &mut |open| writing |= open == ino) {
            Ok(()) if writing => Sight::Writing,
            Ok(()) => Sight::Done,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Sight::Hidden,
            Err(_) => Sight::Done,
        }
    }

    /// All files of the tree that are open for writing, with the processes that have them open.
    pub(super) fn writers(&self) -> HashMap<Ino, Vec<u32>> {
        let mut writers: HashMap<Ino, Vec<u32>> = HashMap::new();
        for process in processes() {
            let _ = self.open_for_writing(process, &mut |ino| {
                let known = writers.entry(ino).or_default();
                if known.last() != Some(&process) {
                    known.push(process);
                }
            });
        }
        writers
    }

    /// The processes that have a file mapped so that what they store reaches it.
    pub(super) fn mappers(&self, ino: Ino) -> Vec<u32> {
        let Some((major, minor)) = self.device.get() else { return Vec::new() };
        let device = format!("{major:02x}:{minor:02x}");
        let maps = |process: &u32| {
            fs::read_to_string(format!("/proc/{process}/maps")).is_ok_and(|maps| {
                maps.lines().any(|line| {
                    // Address, permissions, offset, device, inode number, path.
                    let mut fields = line.split_ascii_whitespace().skip(1);
                    let shared =
                        fields.next().is_some_and(|bits| bits.get(1..2) == Some("w") && bits.ends_with('s'));
                    shared
                        && fields.nth(1) == Some(device.as_str())
                        && fields.next().and_then(|number| number.parse().ok()) == Some(ino)
                })
            })
        };
        processes().filter(maps).collect()
    }

    /// Whether a thread of the process waits where nothing can wake it: for a lock in the kernel, or for a disk.
    pub(super) fn is_stuck(&self, process: u32) -> bool {
        let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
        threads.flatten().any(|thread| {
            let stat = fs::read(thread.path().join("stat")).unwrap_or_default();
            let after = stat.iter().rposition(|byte| *byte == b')').unwrap_or(stat.len());
            stat.get(after + 2) == Some(&b'D')
        })
    }

    fn open_for_writing(&self, process: u32, found: &mut dyn FnMut(Ino)) -> io::Result<()> {
        if process == 0 {
            return Err(ErrorKind::PermissionDenied.into());
        }
        for descriptor in fs::read_dir(format!("/proc/{process}/fd"))? {
            let descriptor = descriptor?;
            // The bits of the link itself tell how the file is open.
            let writable =
                descriptor.path().symlink_metadata().is_ok_and(|link| link.permissions().mode() & 0o200 != 0);
            if !writable {
                continue;
            }
            let number = descriptor.file_name();
            let info = format!("/proc/{process}/fdinfo/{}", number.to_string_lossy());
            // Closed meanwhile, if this fails.
            let Ok(info) = fs::read_to_string(info) else { continue };
            let field = |name: &str| -> Option<u64> {
                info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
            };
            if let (Some(mount), Some(ino)) = (field("mnt_id:"), field("ino:"))
                && self.is_ours(process, mount)
            {
                found(ino);
            }
        }
        Ok(())
    }

    /// Whether a mount is one of our device. Asked of the process, which may have mounts that we do not see.
    fn is_ours(&self, process: u32, mount: u64) -> bool {
        if let Some(known) = self.mounts.lock().get(&mount) {
            return *known;
        }
        let Some(device) = self.device.get() else { return false };
        let Ok(table) = fs::read_to_string(format!("/proc/{process}/mountinfo")) else { return false };
        let mut mounts = self.mounts.lock();
        // Numbers are used again; what is read now is as true as what is known.
        for line in table.lines() {
            let mut fields = line.split(' ');
            let id = fields.next().and_then(|id| id.parse().ok());
            let (major, minor) = fields.nth(1).and_then(|pair| pair.split_once(':')).unwrap_or_default();
            if let (Some(id), Ok(major), Ok(minor)) = (id, major.parse(), minor.parse()) {
                mounts.insert(id, (major, minor) == *device);
            }
        }
        *mounts.entry(mount).or_insert(false)
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
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
        let descriptors = Descriptors::default();
        descriptors.mounted(device);
        let me = std::process::id();
        let sight = || descriptors.sight(me, meta.ino());

        let reading = fs::File::open(&path).unwrap();
        assert_eq!(sight(), Sight::Done);
        let writing = fs::File::options().append(true).open(&path).unwrap();
        let _another = fs::File::create(&other).unwrap();
        assert_eq!(sight(), Sight::Writing);
        assert_eq!(descriptors.writers().get(&meta.ino()), Some(&vec![me]));
        drop(writing);
        assert_eq!(sight(), Sight::Done);
        drop(reading);
        assert_eq!(descriptors.sight(0, meta.ino()), Sight::Hidden);
        assert_eq!(descriptors.sight(u32::MAX >> 2, meta.ino()), Sight::Done);
    }

    #[test]
    fn files_of_another_device_are_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("f")).unwrap();
        let descriptors = Descriptors::default();
        descriptors.mounted((999, 999));
        assert_eq!(descriptors.sight(std::process::id(), file.metadata().unwrap().ino()), Sight::Done);
    }
}
