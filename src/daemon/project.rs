//! A project that is taken: its directory and its state directory, both locked, so that no other daemon serves it.
//!
//! May assume: nothing about what is there; an operator may name any directory.
//! Must never: start with an empty queue where there is a full one, or change a directory that it refuses.
//!
//! Taken in this order: the project's directory, then the state directory. The first lock keeps a second daemon from the project,
//! the second one from the log, whatever state directories the two were told.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{StartError, cannot};
use crate::log::{LOG_FILE, LOG_HEADER_BYTES, LogError, SqliteLog, check_header};
use crate::mountpoint::open_without_links;
use crate::state_directory::{self, FileId, LOCK, LOCK_BYTES, StateDirectory, plain};

/// The file in a state directory outside of the project that says whose it is.
const OWNER: &str = "project";
const OWNER_UNFINISHED: &str = "project.new";

/// A project that is reached by descriptors, and locked.
pub struct Project {
    root: OwnedFd,
    _lock: Locked,
    state: Arc<StateDirectory>,
}

/// Who serves a project; the content of its lock file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Holder {
    /// The daemon's process.
    pub pid: u32,
    /// Where the project is mounted.
    pub mountpoint: PathBuf,
}

/// Whose a state directory is. It stays theirs as long as one of the two is so: a project that is moved keeps its number, one that
/// is brought back from a backup keeps its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    path: PathBuf,
    directory: FileId,
}

/// Why a project cannot be taken.
#[derive(Debug, Error)]
pub enum TakeError {
    /// Another process has it.
    #[error("this project is served already{}", .0.as_ref().map_or_else(String::new, |holder| {
        format!(": process {} has it mounted at {}", holder.pid, holder.mountpoint.display())
    }))]
    Held(Option<Holder>),
    /// Something else is wrong.
    #[error(transparent)]
    Other(#[from] StartError),
}

impl Project {
    /// Take the project in `source`, whose state is in `state`, or in the project when that is not said: nobody else serves it while
    /// this lives. With `create`, the state directory is made.
    ///
    /// # Errors
    /// Who serves it, or what is wrong and what to do.
    pub fn take(source: &Path, state: Option<&Path>, create: bool) -> Result<Project, TakeError> {
        let shown = source.display();
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |error| match error {
            Errno::NOENT => StartError(format!("{shown} does not exist; make the project's directory first")),
            Errno::NOTDIR => StartError(format!("{shown} is not a directory")),
            error => cannot(format!("{shown} cannot be opened"), error),
        };
        let root = open_without_links(source).map_err(failed)?;
        let lock = openat(&root, ".", flags | OFlags::RDONLY, Mode::empty()).map_err(failed)?;
        let place = state.map_or_else(|| source.join(state_directory::NAME), Path::to_path_buf);
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(TakeError::Held(holder(&place, true))),
            Err(error) => return Err(cannot("the project cannot be locked", error).into()),
        }
        let lock = Locked(lock);
        if create {
            check_rescued(&place)?;
        }
        if state.is_some() && create {
            check_unused(source, &place)?;
        }
        let inside =
            place.parent() == Some(source) && place.file_name() == Some(state_directory::NAME.as_ref());
        let taken = if inside {
            let parent = root.try_clone().map_err(|e| cannot("a descriptor cannot be copied", e))?;
            StateDirectory::take(parent, state_directory::NAME.as_ref(), place.clone(), create)
        } else {
            StateDirectory::at(&place, create)
        };
        let state = taken.map_err(|error| not_taken(source, &place, state.is_some(), error))?;
        if !inside {
            check_owner(&state, source, &root, create)?;
        }
        Ok(Project { root, _lock: lock, state: Arc::new(state) })
    }

    /// The last daemon that has said that it serves it, whether or not it still does.
    pub fn last_holder(source: &Path, state: Option<&Path>) -> Option<Holder> {
        holder(&state.map_or_else(|| source.join(state_directory::NAME), Path::to_path_buf), false)
    }

    /// Whether no daemon has it, as far as can be seen without taking it.
    pub fn is_free(source: &Path) -> bool {
        let is_held = |file: BorrowedFd<'_>| {
            let locked = flock(file, FlockOperation::NonBlockingLockShared);
            let _ = flock(file, FlockOperation::Unlock);
            locked == Err(Errno::WOULDBLOCK)
        };
        let project = plain::look_into(source);
        let lock = plain::look_into(&source.join(state_directory::NAME))
            .and_then(|state| plain::look_at(state, LOCK));
        !(project.is_ok_and(|root| is_held(root.as_fd())) || lock.is_ok_and(|lock| is_held(lock.as_fd())))
    }

    /// The project's log.
    ///
    /// # Errors
    /// Those of the log.
    pub fn open_log(&self) -> Result<SqliteLog, LogError> {
        SqliteLog::open(self.state.clone())
    }

    /// The state directory.
    pub fn state(&self) -> &Arc<StateDirectory> {
        &self.state
    }

    /// The project's directory.
    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Say where it is mounted now.
    pub(super) fn announce(&self, mountpoint: &Path) -> io::Result<()> {
        let holder = Holder { pid: std::process::id(), mountpoint: mountpoint.to_path_buf() };
        self.state.announce(serde_json::to_vec(&holder)?)
    }
}

impl AsFd for Project {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// The project's directory, locked until this is dropped.
struct Locked(OwnedFd);

impl Drop for Locked {
    /// As for the lock of the state directory: closing alone might be too late.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// The daemon that has, or last had, the state directory at this place, if it can be read who that is.
fn holder(place: &Path, has_it_still: bool) -> Option<Holder> {
    let file = plain::look_at(plain::look_into(place).ok()?, LOCK).ok()?;
    if has_it_still && flock(&file, FlockOperation::NonBlockingLockShared) != Err(Errno::WOULDBLOCK) {
        return None;
    }
    let mut said = Vec::new();
    file.take(LOCK_BYTES).read_to_end(&mut said).ok()?;
    serde_json::from_slice(&said).ok()
}

fn not_taken(source: &Path, place: &Path, is_chosen: bool, error: state_directory::TakeError) -> TakeError {
    use state_directory::TakeError as Why;
    let (source, shown) = (source.display(), place.display());
    let error = match error {
        Why::Held(said) => return TakeError::Held(serde_json::from_slice(&said).ok()),
        Why::Missing if is_chosen => StartError(format!("the state directory {shown} does not exist")),
        Why::Missing => StartError(format!(
            "{source} was never mounted: it has no {}; if its state is kept elsewhere, say where: -o state=DIR",
            state_directory::NAME
        )),
        Why::Make(Errno::NOENT) | Why::Open(Errno::NOENT) => StartError(format!(
            "the state directory {shown} cannot be made, because its parent does not exist; make that: mkdir -p {}",
            place.parent().unwrap_or(place).display()
        )),
        Why::Make(error) => cannot(format!("the state directory {shown} cannot be made"), error),
        Why::Open(error) => cannot(format!("the state directory {shown} cannot be opened"), error),
        Why::Distrusted(why) => StartError(why.to_string()),
        Why::OpenLock(error) => cannot(format!("{} cannot be written", place.join(LOCK).display()), error),
        Why::Lock(error) => cannot("the project cannot be locked", error),
    };
    error.into()
}

/// Whether the last daemon had to leave the log beside its place.
fn check_rescued(place: &Path) -> Result<(), StartError> {
    let left = PathBuf::from(state_directory::rescued(place.as_os_str()));
    let has_log = |directory: &Path| fs::symlink_metadata(directory.join(LOG_FILE)).is_ok();
    if has_log(place) || !has_log(&left) {
        return Ok(());
    }
    let (left, place) = (left.display(), place.display());
    Err(StartError(format!(
        "{place} was taken away while it was in use, and its event log was saved as {left}; put it back: mv -T {left} {place}"
    )))
}

/// Whether a state directory that was chosen may be begun with: a queue that the project has already is not left behind, and a
/// directory that holds something else is not taken.
fn check_unused(source: &Path, place: &Path) -> Result<(), StartError> {
    let own = source.join(state_directory::NAME);
    if place == own || fs::symlink_metadata(place.join(LOG_FILE)).is_ok() {
        return Ok(());
    }
    let (shown, own_shown) = (place.display(), own.display());
    if fs::symlink_metadata(own.join(LOG_FILE)).is_ok() {
        return Err(StartError(format!(
            "the queue of this project is in {own_shown}, and {shown} has none; move it, so that nothing is begun anew: \
             mv -T {own_shown} {shown}"
        )));
    }
    let is_ours =
        |entry: fs::DirEntry| [LOCK, OWNER, OWNER_UNFINISHED].iter().any(|name| entry.file_name() == *name);
    if fs::read_dir(place).into_iter().flatten().flatten().all(is_ours) {
        return Ok(());
    }
    Err(StartError(format!(
        "{shown} holds files that are not of crewfs; choose an empty directory, or one that does not exist: -o state=DIR"
    )))
}

/// Whether a state directory outside of the project is this project's; one that belongs to no project becomes so.
fn check_owner(
    state: &StateDirectory,
    source: &Path,
    root: &OwnedFd,
    create: bool,
) -> Result<(), StartError> {
    let directory = FileId::of(root).map_err(|error| cannot("the project cannot be looked at", error))?;
    let owner = Owner { path: source.to_path_buf(), directory };
    let mut said = Vec::new();
    let recorded: Option<Owner> = state
        .open(OWNER, OFlags::RDONLY)
        .map(|file| file.take(LOCK_BYTES).read_to_end(&mut said))
        .ok()
        .and_then(|_| serde_json::from_slice(&said).ok());
    match recorded {
        Some(recorded) if recorded == owner => return Ok(()),
        Some(recorded) if recorded.path != owner.path && recorded.directory != owner.directory => {
            let (of, shown) = (recorded.path.display(), state.shown().display());
            return Err(StartError(format!(
                "{shown} is the state of another project, {of}; choose another directory, or, if that project was moved to {}, \
                 say so: rm {shown}/{OWNER}",
                source.display()
            )));
        }
        _ => {}
    }
    if create {
        let failed = |error: io::Error| {
            cannot(format!("{} cannot be written", state.shown().join(OWNER).display()), error)
        };
        let said = serde_json::to_vec(&owner).map_err(|error| failed(error.into()))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let mut file = state.open(OWNER_UNFINISHED, flags).map_err(|error| failed(error.into()))?;
        file.write_all(&said).and_then(|()| file.sync_data()).map_err(failed)?;
        state.rename(OWNER_UNFINISHED, OWNER).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// Where a state directory that was chosen really is, if it may be there for this project and this mount point.
///
/// # Errors
/// Why it may not.
pub fn state_place(state: &Path, source: &Path, mountpoint: &Path) -> Result<PathBuf, StartError> {
    let shown = state.display();
    let (Some(parent), Some(name)) = (state.parent(), state.file_name()) else {
        return Err(StartError(format!("{shown} cannot be a state directory; choose a directory below it")));
    };
    let parent = parent.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StartError(format!(
            "the state directory {shown} cannot be made, because its parent does not exist; make that: mkdir -p {}",
            parent.display()
        )),
        _ => cannot(format!("the state directory {shown} cannot be opened"), error),
    })?;
    let place = parent.join(name);
    if place == source.join(state_directory::NAME) {
        return Ok(place);
    }
    for (what, directory) in [("the project", source), ("the mount point", mountpoint)] {
        if place.starts_with(directory) {
            return Err(StartError(format!(
                "the state directory {shown} lies in {what} {}; choose one outside of it, or leave the option out",
                directory.display()
            )));
        }
        if directory.starts_with(&place) {
            return Err(StartError(format!(
                "the state directory {shown} contains {what} {}; choose one outside of it, or leave the option out",
                directory.display()
            )));
        }
    }
    if name == state_directory::NAME {
        return Err(StartError(format!(
            "{shown} is the state of another project, {}; choose another directory",
            parent.display()
        )));
    }
    Ok(place)
}

/// Whether a directory is the state of a project, and so neither a project nor a place for a mount.
pub fn is_state(directory: &Path) -> bool {
    if directory.file_name() == Some(state_directory::NAME.as_ref()) {
        return true;
    }
    let Ok(directory) = plain::look_into(directory) else { return false };
    match plain::read(&directory, LOG_FILE, LOG_HEADER_BYTES as u64) {
        // SQLite writes the first page when the first event is written down from the write-ahead file.
        Ok(header) if header.is_empty() => plain::look_at(&directory, LOCK).is_ok(),
        Ok(header) => !matches!(check_header(&header), Err(LogError::Damaged { .. })),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A project, and room beside it.
    fn project() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("p")).unwrap();
        (dir, root.join("p"), root.join("state"))
    }

    fn why(outcome: Result<Project, TakeError>) -> String {
        match outcome {
            Ok(_) => panic!("taken"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_project_is_one_daemons_whatever_state_directories_two_of_them_were_told() {
        let (_dir, source, state) = project();
        for (first, second) in [(None, Some(&*state)), (Some(&*state), None), (None, None)] {
            let taken = Project::take(&source, first, true).unwrap();
            assert!(!Project::is_free(&source));
            assert!(matches!(Project::take(&source, second, true), Err(TakeError::Held(_))));
            drop(taken);
            assert!(Project::is_free(&source));
        }
    }

    #[test]
    fn a_queue_is_not_left_behind() {
        let (_dir, source, state) = project();
        drop(Project::take(&source, None, true).unwrap().open_log().unwrap());
        let said = why(Project::take(&source, Some(&state), true));
        let own = source.join(".crewfs");
        assert!(said.ends_with(&format!("mv -T {} {}", own.display(), state.display())), "{said}");
        assert!(!state.exists(), "nothing is made by a call that is refused");
        // As a service manager makes it, and as the sentence says.
        fs::create_dir(&state).unwrap();
        fs::rename(&own, &state).unwrap();
        Project::take(&source, Some(&state), true).unwrap();
    }

    #[test]
    fn a_state_directory_is_of_one_project_which_may_be_moved() {
        let (dir, source, state) = project();
        drop(Project::take(&source, Some(&state), true).unwrap());
        let other = dir.path().canonicalize().unwrap().join("other");
        fs::create_dir(&other).unwrap();
        let said = why(Project::take(&other, Some(&state), true));
        assert!(said.contains("is the state of another project, ") && said.contains("rm "), "{said}");
        fs::remove_dir(&other).unwrap();
        fs::rename(&source, &other).unwrap();
        drop(Project::take(&other, Some(&state), true).unwrap());
        // Brought back from a backup: another directory, at the path that is known.
        fs::rename(&other, &source).unwrap();
        fs::create_dir(&other).unwrap();
        drop(Project::take(&other, Some(&state), true).unwrap());
        why(Project::take(&dir.path().canonicalize().unwrap().join("p/../p"), Some(&state), true));
        fs::remove_file(state.join(OWNER)).unwrap();
        Project::take(&source, Some(&state), true).unwrap();
    }

    #[test]
    fn a_state_directory_has_its_place() {
        let (_dir, source, state) = project();
        let mountpoint = source.with_file_name("m");
        let place = |path: &Path| state_place(path, &source, &mountpoint).map_err(|error| error.to_string());
        assert_eq!(place(&state), Ok(state.clone()));
        assert_eq!(place(&source.join(".crewfs")), Ok(source.join(".crewfs")));
        for (wrong, part) in [
            (source.join("x"), "lies in the project"),
            (source.clone(), "lies in the project"),
            (source.parent().unwrap().to_path_buf(), "contains the project"),
            (mountpoint.clone(), "lies in the mount point"),
            (source.with_file_name("no").join("x"), "mkdir -p "),
            (source.with_file_name(".crewfs"), "is the state of another project"),
        ] {
            let said = place(&wrong).unwrap_err();
            assert!(said.contains(part), "{said}");
        }
        fs::create_dir(&state).unwrap();
        fs::write(state.join("theirs"), "").unwrap();
        let said = why(Project::take(&source, Some(&state), true));
        assert!(said.contains("holds files that are not of crewfs"), "{said}");
    }

    #[test]
    fn a_state_directory_is_known_by_its_name_and_by_its_log() {
        let (_dir, source, state) = project();
        assert!(!is_state(&source) && is_state(&source.join(".crewfs")));
        drop(Project::take(&source, Some(&state), true).unwrap().open_log().unwrap());
        assert!(is_state(&state));
        fs::write(
            source.join(LOG_FILE),
            "a text that is longer than a header is, so that it is read; ".repeat(9),
        )
        .unwrap();
        assert!(!is_state(&source));
    }
}
