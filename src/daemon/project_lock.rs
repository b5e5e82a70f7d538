//! A locked project: its directory and its state directory are locked, so that no other daemon serves it.
//!
//! May assume: nothing about the directories. An operator may name any.
//! Must never: start with an empty queue where there is a full one, or change a directory that it refuses.
//!
//! The project's directory is locked first, then the state directory. The first lock keeps a second daemon from the project, the second
//! lock keeps it from the log, whichever state directories the two daemons were given.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::error::{StartError, cannot};
use super::state_place::{check_owner, check_rescued, check_unused};
use crate::log::{LogError, SqliteLog};
use crate::mountpoint::open_without_links;
use crate::state_directory::{self, LOCK, LOCK_BYTES, StateDirectory, plain};

/// A locked project, reached by descriptors.
pub struct Project {
    root: OwnedFd,
    _lock: Locked,
    state: Arc<StateDirectory>,
}

/// The daemon that serves a project: the content of the lock file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LockOwner {
    /// The daemon's process.
    pub pid: u32,
    /// Where the project is mounted.
    pub mountpoint: PathBuf,
}

/// Why a project cannot be locked.
#[derive(Debug, Error)]
pub enum TakeError {
    /// Another process has it locked.
    #[error("this project is served already{}", .0.as_ref().map_or_else(String::new, |owner| {
        format!(": process {} has it mounted at {}", owner.pid, owner.mountpoint.display())
    }))]
    Held(Option<LockOwner>),
    /// Another reason.
    #[error(transparent)]
    Other(#[from] StartError),
}

impl Project {
    /// Lock the project in `source`. Its state is in `state`, or in the project if `None`. No other daemon serves it while the returned
    /// value lives. With `create`, the state directory is made.
    ///
    /// # Errors
    /// Which daemon serves it, or what is wrong and what to do.
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
            Err(Errno::WOULDBLOCK) => return Err(TakeError::Held(owner(&place, true))),
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

    /// The last daemon that has served it, running or not.
    pub fn last_owner(source: &Path, state: Option<&Path>) -> Option<LockOwner> {
        owner(&state.map_or_else(|| source.join(state_directory::NAME), Path::to_path_buf), false)
    }

    /// Whether no daemon has it locked, as far as can be seen without locking it.
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

    /// Open the event log.
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

    /// Write into the lock file where the project is mounted.
    pub(super) fn announce(&self, mountpoint: &Path) -> io::Result<()> {
        let owner = LockOwner { pid: std::process::id(), mountpoint: mountpoint.to_path_buf() };
        self.state.announce(serde_json::to_vec(&owner)?)
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
    /// Closing alone might be too late, as for the lock of the state directory: a program that is starting may have a copy.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// The daemon in the lock file of the state directory at this place. With `has_it_still`, only if the file is locked.
fn owner(place: &Path, has_it_still: bool) -> Option<LockOwner> {
    let file = plain::look_at(plain::look_into(place).ok()?, LOCK).ok()?;
    if has_it_still && flock(&file, FlockOperation::NonBlockingLockShared) != Err(Errno::WOULDBLOCK) {
        return None;
    }
    let mut said = Vec::new();
    file.take(LOCK_BYTES).read_to_end(&mut said).ok()?;
    serde_json::from_slice(&said).ok()
}

fn not_taken(
    source: &Path,
    place: &Path,
    is_chosen: bool,
    error: state_directory::StateDirectoryError,
) -> TakeError {
    use state_directory::StateDirectoryError as Why;
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

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;
    use crate::daemon::state_place::OWNER;

    /// A project, and room beside it.
    pub(in crate::daemon) fn project() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("p")).unwrap();
        (dir, root.join("p"), root.join("state"))
    }

    /// The message of a project that cannot be taken.
    pub(in crate::daemon) fn why(outcome: Result<Project, TakeError>) -> String {
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
        // As a service manager makes the directory, and as the message says.
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
        // Restored from a backup: another directory at the known path.
        fs::rename(&other, &source).unwrap();
        fs::create_dir(&other).unwrap();
        drop(Project::take(&other, Some(&state), true).unwrap());
        why(Project::take(&dir.path().canonicalize().unwrap().join("p/../p"), Some(&state), true));
        fs::remove_file(state.join(OWNER)).unwrap();
        Project::take(&source, Some(&state), true).unwrap();
    }
}
