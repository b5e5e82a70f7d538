//! A directory for this run alone, on the disk to measure.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::Outcome;

/// A directory that is removed at the end of the run.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A new directory in `dir`, with the benchmark's name.
    pub(crate) fn new(dir: &Path, benchmark: &str) -> Outcome<Self> {
        fs::create_dir_all(dir)?;
        let path = dir.canonicalize()?.join(format!("{benchmark}-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// The path of the directory.
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

/// Asks ext4 to place each directory made in `dir` elsewhere on the disk.
///
/// Without a journal, ext4 avoids recently freed inodes, so creating files where many were removed is twenty times slower for minutes.
/// So no point may be measured where another run has been. ext4 chooses the place by a hash of the name, so the names of the
/// directories should differ from run to run. Other filesystems refuse the flag and do not need it.
pub(crate) fn spread_subdirectories(dir: &Path) {
    let set = |dir: File| ioctl_setflags(&dir, ioctl_getflags(&dir)? | IFlags::TOPDIR);
    let _ = File::open(dir).map(set);
}
