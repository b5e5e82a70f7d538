//! Holds the files that undo changes, so that they stay as the plan saw them.
//!
//! A file is held as any worker holds it (C50): by a change, from which on the file is open for writing. The change is one that changes
//! nothing: it reserves the space of the first byte.
//!
//! Must never: change a file before all of them are held and checked.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::tree::{ProjectTree, of_file};
use crate::history::undo::{DirectoryUse, PathPlan, UndoOutcome};
use crate::history::{KeptContent, VersionKind};

/// Open files, by path.
pub(super) type HeldFiles = BTreeMap<PathBuf, OwnedFd>;

/// Why the files cannot be held.
#[derive(Debug)]
pub(super) enum HoldError {
    /// This path is not as the plan saw it.
    Changed(PathBuf),
    /// A call failed.
    Failed(PathBuf, io::Error),
}

/// Whether carrying out the plan touches what is at this path.
pub(super) fn is_touched(path: &PathPlan) -> bool {
    !matches!(path.outcome, UndoOutcome::AlreadySo | UndoOutcome::Conflict(_) | UndoOutcome::HeldBack)
}

/// Open and hold every file that the plan changes, and check that everything is still as the plan saw it.
///
/// # Errors
/// Which path was changed, or is held by another worker. Nothing is held then.
pub(super) fn hold(tree: &ProjectTree, plan: &[PathPlan]) -> Result<HeldFiles, HoldError> {
    let touched = || plan.iter().filter(|path| is_touched(path));
    raise_limit();
    let mut held = HeldFiles::new();
    for path in touched().filter(|it| it.present.is_some_and(|present| present.kind == VersionKind::File)) {
        let failed = |error: Errno| HoldError::Failed(path.path.clone(), error.into());
        match tree.open(&path.path, OFlags::RDWR | OFlags::NONBLOCK) {
            Ok(file) => {
                take_lock(&file).map_err(failed)?;
                held.insert(path.path.clone(), file);
            }
            // A file that may not be written to, or a program that runs. Its name, its mode and its removal need no descriptor.
            Err(Errno::ACCESS | Errno::TXTBSY) => {}
            Err(Errno::NOENT | Errno::ISDIR | Errno::LOOP | Errno::NXIO) => {
                return Err(HoldError::Changed(path.path.clone()));
            }
            Err(error) => return Err(failed(error)),
        }
    }
    for path in touched() {
        let read = path.present.is_some_and(|present| matches!(present.content, KeptContent::Kept(_)));
        let found = match held.get(&path.path) {
            Some(file) => of_file(file, read).map(|(version, _)| Some(version)),
            // The plan knows a directory as the empty one that it was.
            None if is_directory(path)
                && tree.directory(&path.path, &HashSet::new()) != DirectoryUse::Missing =>
            {
                Ok(path.present)
            }
            None => tree.version(&path.path, read),
        };
        match found {
            Ok(found) if found == path.present && leads_to(tree, &path.path, held.get(&path.path)) => {}
            Ok(_) => return Err(HoldError::Changed(path.path.clone())),
            Err(error) => return Err(HoldError::Failed(path.path.clone(), error)),
        }
    }
    Ok(held)
}

fn is_directory(path: &PathPlan) -> bool {
    path.present.is_some_and(|present| present.kind == VersionKind::Directory)
}

/// Whether a path leads to the file that is held for it.
fn leads_to(tree: &ProjectTree, path: &Path, held: Option<&OwnedFd>) -> bool {
    let Some(held) = held else { return true };
    let there = tree.open(path, OFlags::PATH).and_then(rustix::fs::fstat);
    let held = rustix::fs::fstat(held);
    there.is_ok_and(|there| held.is_ok_and(|held| (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)))
}

fn take_lock(file: &OwnedFd) -> rustix::io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, 1) {
        // The disk cannot reserve space. Its guard has judged the call all the same.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOSPC) => Ok(()),
        outcome => outcome,
    }
}

/// As many files as this process may have open.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The directories above these paths, the root left out.
pub(super) fn above<'a>(paths: impl Iterator<Item = &'a Path>) -> HashSet<&'a Path> {
    paths.flat_map(|path| path.ancestors().skip(1)).filter(|path| !path.as_os_str().is_empty()).collect()
}
