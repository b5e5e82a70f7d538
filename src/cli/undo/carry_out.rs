//! Carries out the plan of an undo: writes files in place, moves, makes and removes others.
//!
//! A file is written from its beginning, then cut to its length. The planner relies on that order when it finishes an undo that was
//! killed.
//!
//! May assume: the files to be written are held, and are as the plan saw them.
//! Must never: leave a part of the work done when the rest fails. What was done is put back, last first.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, RenameFlags, Uid, chownat, fchmod, fchown, fstat, ftruncate, mkdirat, openat,
    renameat_with, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::hold::{HeldFiles, above, is_touched};
use super::tree::{ProjectTree, of_file};
use crate::history::undo::{PathPlan, UndoOutcome};
use crate::history::{KeptContent, Version, VersionKind};

/// Why the plan was not carried out.
#[derive(Debug)]
pub(super) struct CarryOutError {
    /// The path of the call that failed.
    pub(super) path: PathBuf,
    /// Its error.
    pub(super) error: io::Error,
    /// What could not be put back, and why.
    pub(super) left: Vec<(PathBuf, io::Error)>,
}

/// Returns the content of a version.
pub(super) type ContentReader<'a> = dyn FnMut(&Version) -> io::Result<Vec<u8>> + 'a;

/// Carry out a plan.
///
/// # Errors
/// What failed. Everything is as it was then, but for what the error names.
pub(super) fn carry_out(
    tree: &ProjectTree,
    plan: &[PathPlan],
    held: HeldFiles,
    contents: &mut ContentReader<'_>,
) -> Result<(), CarryOutError> {
    let mut work = Work { tree, held, contents, done: Vec::new() };
    work.run(plan).map_err(|(path, error)| CarryOutError { path, error, left: work.put_back() })
}

/// Something that was done, with what it takes to put it back.
enum Done {
    /// Made, a directory or not.
    Made(PathBuf),
    /// Removed.
    Removed(PathBuf, Version, Vec<u8>),
    /// Moved from the first path to the second.
    Moved(PathBuf, PathBuf),
    /// Written in place or about to be.
    Written(PathBuf, OwnedFd, Vec<u8>),
    /// Given other rights or another owner.
    Attributes(PathBuf, Version),
}

struct Work<'a, 'b> {
    tree: &'a ProjectTree,
    held: HeldFiles,
    contents: &'a mut ContentReader<'b>,
    done: Vec<Done>,
}

type Failed = (PathBuf, io::Error);

impl Work<'_, '_> {
    fn run(&mut self, plan: &[PathPlan]) -> Result<(), Failed> {
        let kept: HashSet<&Path> = plan.iter().filter(|it| it.wanted.is_some()).map(|it| &*it.path).collect();
        let plan: Vec<&PathPlan> = plan.iter().filter(|it| is_touched(it)).collect();
        let leaving: HashSet<&Path> = plan
            .iter()
            .filter_map(
                |it| if let UndoOutcome::MovedFrom(from) = &it.outcome { Some(&**from) } else { None },
            )
            .collect();
        // What stands where something else is to be has to go first.
        let wanted = || plan.iter().filter(|it| it.wanted.is_some());
        let directories = above(wanted().map(|it| &*it.path));
        let leaves: HashSet<&Path> = wanted()
            .filter(|it| it.wanted.is_some_and(|wanted| wanted.kind != VersionKind::Directory))
            .map(|it| &*it.path)
            .collect();
        let is_in_the_way = |it: &PathPlan| {
            let moved_in = matches!(it.outcome, UndoOutcome::MovedFrom(_)) && !leaving.contains(&*it.path);
            let above_or_below = it.wanted.is_none()
                && !leaving.contains(&*it.path)
                && (directories.contains(&*it.path)
                    || it.path.ancestors().skip(1).any(|at| leaves.contains(at)));
            it.present.is_some() && (moved_in || above_or_below)
        };
        let mut gone: Vec<&Path> = Vec::new();
        for it in plan.iter().rev().filter(|it| is_in_the_way(it)) {
            self.at(&it.path, |work| work.remove(it))?;
            self.remove_empty(&it.path, &leaves)?;
            gone.push(&it.path);
        }
        self.move_all(&plan)?;
        for it in &plan {
            self.at(&it.path, |work| work.change(it, leaving.contains(&*it.path)))?;
        }
        for it in
            plan.iter().rev().filter(|it| it.outcome == UndoOutcome::Removed && !gone.contains(&&*it.path))
        {
            self.at(&it.path, |work| work.remove(it))?;
        }
        for it in plan.iter().rev().filter(|it| it.wanted.is_none() && it.present.is_some()) {
            self.remove_empty_above(&it.path, &kept)?;
        }
        Ok(())
    }

    fn at<T>(&mut self, path: &Path, work: impl FnOnce(&mut Self) -> io::Result<T>) -> Result<T, Failed> {
        work(self).map_err(|error| (path.to_path_buf(), error))
    }

    /// Move files to where they are to be, each when its place is free.
    fn move_all(&mut self, plan: &[&PathPlan]) -> Result<(), Failed> {
        let mut left: Vec<(&Path, &Path)> = plan
            .iter()
            .filter_map(|it| match &it.outcome {
                UndoOutcome::MovedFrom(from) => Some((&**from, &*it.path)),
                _ => None,
            })
            .collect();
        while !left.is_empty() {
            let before = left.len();
            let taken: Vec<&Path> = left.iter().map(|(from, _)| *from).collect();
            let (now, later): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, to)| !taken.contains(to));
            for (from, to) in now {
                self.at(to, |work| work.rename(from, to))?;
            }
            if later.len() == before {
                return Err((
                    later[0].1.to_path_buf(),
                    io::Error::other("files would have to move in a circle"),
                ));
            }
            left = later;
        }
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.make_parents(to)?;
        self.rename_only(from, to)?;
        self.done.push(Done::Moved(from.to_path_buf(), to.to_path_buf()));
        if let Some(file) = self.held.remove(from) {
            self.held.insert(to.to_path_buf(), file);
        }
        Ok(())
    }

    fn rename_only(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((old, from), (new, to)) = (self.tree.parent_of(from)?, self.tree.parent_of(to)?);
        Ok(renameat_with(old, from, new, to, RenameFlags::NOREPLACE)?)
    }

    /// Give a path its content and its attributes. `left`: what was there has moved away.
    fn change(&mut self, it: &PathPlan, left: bool) -> io::Result<()> {
        let Some(wanted) = it.wanted else { return Ok(()) };
        let there = match &it.outcome {
            UndoOutcome::MovedFrom(_) => {
                let read = matches!(wanted.content, KeptContent::Kept(_));
                self.tree.version(&it.path, read)?
            }
            _ => it.present.filter(|_| !left),
        };
        match there {
            Some(there) if there.kind == wanted.kind && wanted.kind != VersionKind::Symlink => {
                if there.kind == VersionKind::File && there.content != wanted.content {
                    self.write(&it.path, there, &wanted)?;
                }
                self.set_attributes(&it.path, &wanted)
            }
            Some(there) if there.content == wanted.content && there.kind == wanted.kind => Ok(()),
            Some(_) => {
                self.remove(it)?;
                self.make(&it.path, &wanted)
            }
            None => self.make(&it.path, &wanted),
        }
    }

    /// Write over a file.
    fn write(&mut self, path: &Path, there: Version, wanted: &Version) -> io::Result<()> {
        let content = (self.contents)(wanted)?;
        // Writing clears the set-user-id bit.
        self.done.push(Done::Attributes(path.to_path_buf(), there));
        let file = match self.held.remove(path) {
            Some(file) => file,
            // The owner may write to it all the same.
            None => {
                self.tree.set_mode(path, there.mode | 0o200)?;
                self.tree.open(path, OFlags::RDWR | OFlags::NONBLOCK)?
            }
        };
        let (found, old) = of_file(&file, true)?;
        if found.content != there.content {
            return Err(io::Error::other("it was changed meanwhile"));
        }
        let copy = file.as_fd().try_clone_to_owned()?;
        self.done.push(Done::Written(path.to_path_buf(), file, old.unwrap_or_default()));
        write_over(&copy, &content)
    }

    fn set_attributes(&mut self, path: &Path, wanted: &Version) -> io::Result<()> {
        let now = self.tree.attributes(path, wanted)?;
        let is_root = rustix::process::geteuid().is_root();
        if now == *wanted || now.mode == wanted.mode && !is_root {
            return Ok(());
        }
        self.done.push(Done::Attributes(path.to_path_buf(), now));
        give_attributes(self.tree, path, wanted)
    }

    /// Make what was not there.
    fn make(&mut self, path: &Path, wanted: &Version) -> io::Result<()> {
        let content = match wanted.kind {
            VersionKind::Directory => Vec::new(),
            _ => (self.contents)(wanted)?,
        };
        self.make_parents(path)?;
        let (tree, done) = (self.tree, &mut self.done);
        make_only(tree, path, wanted, &content, || done.push(Done::Made(path.to_path_buf())))
    }

    fn make_parents(&mut self, path: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        let mut at = path.parent();
        while let Some(directory) = at.filter(|directory| !directory.as_os_str().is_empty()) {
            match self.tree.open(directory, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(_) => break,
                Err(Errno::NOENT) => missing.push(directory),
                Err(error) => return Err(error.into()),
            }
            at = directory.parent();
        }
        for directory in missing.into_iter().rev() {
            let (parent, name) = self.tree.parent_of(directory)?;
            mkdirat(parent, name, Mode::from(0o777))?;
            self.done.push(Done::Made(directory.to_path_buf()));
        }
        Ok(())
    }

    /// Remove what is at a path. A directory with something in it stays.
    fn remove(&mut self, it: &PathPlan) -> io::Result<()> {
        let Some(present) = it.present else { return Ok(()) };
        if present.kind == VersionKind::Directory {
            return self.remove_directory(&it.path).map(|_| ());
        }
        let content = self.tree.content(&it.path)?.unwrap_or_default();
        remove_only(self.tree, &it.path)?;
        self.done.push(Done::Removed(it.path.clone(), present, content));
        // The file is no longer there to be held.
        self.held.remove(&it.path);
        Ok(())
    }

    /// Remove a directory if it is empty. Returns whether it was.
    fn remove_directory(&mut self, path: &Path) -> io::Result<bool> {
        let present = match self.tree.version(path, false)? {
            Some(present) if present.kind == VersionKind::Directory => present,
            _ => return Ok(false),
        };
        let (parent, name) = self.tree.parent_of(path)?;
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) => {
                self.done.push(Done::Removed(path.to_path_buf(), present, Vec::new()));
                Ok(true)
            }
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY | Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Remove the directories above a path that are to become files, once they are empty.
    fn remove_empty(&mut self, path: &Path, leaves: &HashSet<&Path>) -> Result<(), Failed> {
        for directory in path.ancestors().skip(1) {
            if !directory.ancestors().any(|at| leaves.contains(at))
                || !self.at(directory, |work| work.remove_directory(directory))?
            {
                break;
            }
        }
        Ok(())
    }

    /// Remove the directories above a removed path that are empty now, as git does.
    fn remove_empty_above(&mut self, path: &Path, kept: &HashSet<&Path>) -> Result<(), Failed> {
        let parents = path.ancestors().skip(1).filter(|directory| !directory.as_os_str().is_empty());
        for directory in parents.take_while(|directory| !kept.contains(directory)) {
            if !self.at(directory, |work| work.remove_directory(directory))? {
                break;
            }
        }
        Ok(())
    }

    /// Put back what was done, last first. Returns what stays.
    fn put_back(&mut self) -> Vec<Failed> {
        let mut left = Vec::new();
        while let Some(done) = self.done.pop() {
            let (path, outcome) = match done {
                Done::Made(path) => {
                    let outcome = remove_only(self.tree, &path);
                    (path, outcome)
                }
                Done::Removed(path, version, content) => {
                    let outcome = make_only(self.tree, &path, &version, &content, || {});
                    (path, outcome)
                }
                Done::Moved(from, to) => {
                    let outcome = self.rename_only(&to, &from);
                    (from, outcome)
                }
                Done::Written(path, file, content) => {
                    let outcome = write_over(&file, &content);
                    (path, outcome)
                }
                Done::Attributes(path, version) => {
                    let outcome = give_attributes(self.tree, &path, &version);
                    (path, outcome)
                }
            };
            left.extend(outcome.err().map(|error| (path, error)));
        }
        left
    }
}

/// Write content over that of an open file.
fn write_over(file: &OwnedFd, content: &[u8]) -> io::Result<()> {
    let file = std::fs::File::from(file.as_fd().try_clone_to_owned()?);
    file.write_all_at(content, 0)?;
    if fstat(&file)?.st_size as u64 > content.len() as u64 {
        ftruncate(&file, content.len() as u64)?;
    }
    Ok(())
}

/// Remove a file, a link or an empty directory.
fn remove_only(tree: &ProjectTree, path: &Path) -> io::Result<()> {
    let (parent, name) = tree.parent_of(path)?;
    match unlinkat(&parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?),
        outcome => Ok(outcome?),
    }
}

/// Make a file, a link or a directory. `made` is called as soon as there is something at the path.
fn make_only(
    tree: &ProjectTree,
    path: &Path,
    version: &Version,
    content: &[u8],
    made: impl FnOnce(),
) -> io::Result<()> {
    let (parent, name) = tree.parent_of(path)?;
    match version.kind {
        VersionKind::Symlink => {
            symlinkat(content, &parent, name)?;
            made();
            if rustix::process::geteuid().is_root() {
                chownat(parent, name, uid(version), gid(version), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Ok(())
        }
        VersionKind::Directory => {
            match mkdirat(&parent, name, Mode::from(0o700)) {
                // It was made for something within it.
                Err(Errno::EXIST) => {}
                outcome => {
                    outcome?;
                    made();
                }
            }
            give_attributes(tree, path, version)
        }
        VersionKind::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(&parent, name, flags, Mode::from(0o600))?;
            made();
            write_over(&file, content)?;
            if rustix::process::geteuid().is_root() {
                fchown(&file, uid(version), gid(version))?;
            }
            Ok(fchmod(&file, Mode::from(version.mode))?)
        }
    }
}

/// Give a file or a directory its mode, and as root its owner.
fn give_attributes(tree: &ProjectTree, path: &Path, version: &Version) -> io::Result<()> {
    let (parent, name) = tree.parent_of(path)?;
    if rustix::process::geteuid().is_root() {
        chownat(&parent, name, uid(version), gid(version), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    tree.set_mode(path, version.mode)
}

fn uid(version: &Version) -> Option<Uid> {
    Some(Uid::from_raw(version.uid))
}

fn gid(version: &Version) -> Option<Gid> {
    Some(Gid::from_raw(version.gid))
}
