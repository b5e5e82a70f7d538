//! A way to know that the daemon has invalidated everything in the kernel's caches that changed beneath the mount so far.
//!
//! A marker is a name that the kernel has cached as missing. The kernel keeps that entry for an hour unless the daemon invalidates it.
//! The daemon receives all changes in their order. When the first marker becomes visible, the daemon has received it along with earlier
//! changes, but may not yet have invalidated all of them. The second marker is created only then, so the daemon receives it later. When
//! the second marker is visible, everything that was received along with the first one has been invalidated.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::process::{LIMIT, slow};

/// A directory of markers.
pub(crate) struct Markers {
    seen: PathBuf,
    beneath: PathBuf,
    count: usize,
    /// The kernel keeps the entries of a directory that is open.
    _open: File,
}

impl Markers {
    /// For a project: its path through the mount, and its path beneath.
    pub(crate) fn new(seen: &Path, beneath: &Path) -> Markers {
        let (seen, beneath) = (seen.join("markers"), beneath.join("markers"));
        fs::create_dir(&seen).unwrap();
        Markers { _open: File::open(&seen).unwrap(), seen, beneath, count: 0 }
    }

    /// Wait until all changes beneath so far have been invalidated; false after the time limit.
    pub(crate) fn barrier(&mut self) -> bool {
        (0..2).all(|_| {
            self.count += 1;
            let [seen, beneath] =
                [&self.seen, &self.beneath].map(|directory| directory.join(self.count.to_string()));
            assert!(!seen.exists(), "a marker is there before it is made");
            fs::write(beneath, "").unwrap();
            let start = Instant::now();
            while !seen.exists() {
                if start.elapsed() > slow(LIMIT) {
                    return false;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            true
        })
    }
}
