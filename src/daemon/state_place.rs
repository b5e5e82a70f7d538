//! Where the state of a project may be, and which project a state directory outside of it belongs to.
//!
//! Must never: start with an empty queue where there is a full one, or change a directory that it refuses.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::error::{StartError, cannot};
use crate::log::{LOG_FILE, LOG_HEADER_BYTES, LogError, check_header};
use crate::state_directory::{self, InodeId, LOCK, LOCK_BYTES, StateDirectory, plain};

/// The file in a state directory outside of the project that names the project.
pub(super) const OWNER: &str = "project";
const OWNER_UNFINISHED: &str = "project.new";

/// The project that a state directory belongs to. It still does if one of the two fields matches: a project that was moved keeps its
/// inode, one that was restored from a backup keeps its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StateOwner {
    path: PathBuf,
    directory: InodeId,
}

/// Refuse to start if the last daemon had to save the log beside the state directory.
pub(super) fn check_rescued(place: &Path) -> Result<(), StartError> {
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

/// Check a state directory that the operator chose: the project must have no queue elsewhere, and the directory must hold no other
/// files.
pub(super) fn check_unused(source: &Path, place: &Path) -> Result<(), StartError> {
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

/// Check that a state directory outside of the project belongs to this project. One without a project is assigned to it.
pub(super) fn check_owner(
    state: &StateDirectory,
    source: &Path,
    root: &OwnedFd,
    create: bool,
) -> Result<(), StartError> {
    let directory = InodeId::of(root).map_err(|error| cannot("the project cannot be looked at", error))?;
    let owner = StateOwner { path: source.to_path_buf(), directory };
    let mut said = Vec::new();
    let recorded: Option<StateOwner> = state
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

/// The absolute path of a state directory that the operator chose.
///
/// # Errors
/// Why it may not be there for this project and this mount point.
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

/// Whether a directory is a state directory, and so neither a project nor a mount point.
pub(super) fn is_state(directory: &Path) -> bool {
    if directory.file_name() == Some(state_directory::NAME.as_ref()) {
        return true;
    }
    let Ok(directory) = plain::look_into(directory) else { return false };
    match plain::read(&directory, LOG_FILE, LOG_HEADER_BYTES as u64) {
        // SQLite writes the first page at the first checkpoint of the write-ahead log.
        Ok(header) if header.is_empty() => plain::look_at(&directory, LOCK).is_ok(),
        Ok(header) => !matches!(check_header(&header), Err(LogError::Damaged { .. })),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::Project;
    use crate::daemon::project_lock::tests::{project, why};

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
