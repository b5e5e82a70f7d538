//! A way to know that the kernel was told of all that happened beneath the mount so far.
//!
//! A marker is a name that the kernel remembers to be missing, and will for an hour, until the daemon tells of it. All changes
//! are heard of in their order. A marker that is seen was heard of along with what came before it, and perhaps not all of
//! that has been told. A second marker is made only then, so it is heard of later; when it is seen, all that was heard of
//! along with the first one has been told.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::process::{LIMIT, slow};

/// A directory of markers.
pub(crate) struct Markers {
    seen: PathBuf,
    beneath: PathBuf,
    count: usize,
    /// The kernel forgets no directory that is open.
    _open: File,
}

impl Markers {
    /// For a project as it is seen, and as it is beneath.
    pub(crate) fn new(seen: &Path, beneath: &Path) -> Markers {
        let (seen, beneath) = (seen.join("markers"), beneath.join("markers"));
        fs::create_dir(&seen).unwrap();
        Markers { _open: File::open(&seen).unwrap(), seen, beneath, count: 0 }
    }

    /// Wait until all that happened beneath so far has been told; false if it is not in time.
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
