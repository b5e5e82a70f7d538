//! A directory of this run alone, on the disk to measure.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::Outcome;

/// A directory that does not outlive the run.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A new directory in `dir`, with the name of the benchmark.
    pub(crate) fn new(dir: &Path, benchmark: &str) -> Outcome<Self> {
        fs::create_dir_all(dir)?;
        let path = dir.canonicalize()?.join(format!("{benchmark}-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}

/// Asks ext4 to put each directory made in `dir` elsewhere on the disk.
///
/// Without a journal, ext4 makes files twenty times slower for minutes where many were removed, because it
/// steps around inodes that were freed lately. So nothing must be measured where another run has been. As
/// the place is chosen by a hash of the name, the names of the directories should differ from run to run.
/// Other filesystems refuse the flag and have no need of it.
pub(crate) fn spread_subdirectories(dir: &Path) {
    let set = |dir: File| ioctl_setflags(&dir, ioctl_getflags(&dir)? | IFlags::TOPDIR);
    let _ = File::open(dir).map(set);
}
