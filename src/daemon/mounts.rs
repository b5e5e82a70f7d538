//! The places of the two mounts, and the directory below the desk.
//!
//! May assume: nothing about which users may rename, replace or cover the directories.
//! Must never: resolve a path a second time. What was checked is held by a descriptor.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::config::Config;
use super::error::{StartError, cannot};
use super::state_place::is_state;
use crate::fs::desk::Desk;
use crate::fs::files::make_directory_like;
use crate::fs::tree::DESK;
use crate::mountpoint::{Device, MountPoint, device_of};
use crate::mounts;
use crate::state_directory::InodeId;

/// Check that the mount point is a free directory, outside of the project and of any state directory.
pub fn check_places(config: &Config) -> Result<(), StartError> {
    let (source, place) = (&config.source, &config.mountpoint);
    let shown = place.display();
    if is_state(source) {
        return Err(StartError(format!(
            "{} is the state directory of crewfs, and no project; name the project's directory",
            source.display()
        )));
    }
    if let Ok(Some(mount)) = mounts::at(place) {
        return Err(StartError(if mounts::is_dead(place) {
            format!("{shown} is a dead mount, its daemon is gone; clear it: crewfs umount {shown}")
        } else {
            format!("{shown} is in use: {} is mounted there; crewfs umount {shown}", mount.source.display())
        }));
    }
    match std::fs::metadata(place) {
        Ok(there) if there.is_dir() => {}
        Ok(_) => {
            return Err(StartError(format!("{shown} is not a directory, so nothing can be mounted on it")));
        }
        Err(error) if error.raw_os_error().is_some_and(mounts::is_of_dead) => {
            return Err(StartError(format!(
                "{shown} is a dead mount, its daemon is gone; clear it: umount -l {shown}"
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StartError(format!(
                "the mount point {shown} does not exist; make it: mkdir -p {shown}"
            )));
        }
        Err(error) => return Err(cannot(format!("the mount point {shown} cannot be used"), error)),
    }
    if is_state(place) {
        return Err(StartError(format!(
            "{shown} is the state directory of crewfs, where nothing can be mounted; choose another place"
        )));
    }
    if place != source && place.starts_with(source) {
        return Err(StartError(format!(
            "{shown} lies in the project itself; choose a place outside of {}, or leave the mount point out to mount in place",
            source.display()
        )));
    }
    Ok(())
}

/// The mount point, and the directory there now. To mount in place, that must be the directory that was locked as the project.
pub(super) fn mountpoint(
    path: &Path,
    in_place_of: Option<&OwnedFd>,
) -> Result<(MountPoint, OwnedFd), StartError> {
    let shown = path.display();
    let found = MountPoint::at(path).and_then(|place| place.open().map(|target| (place, target)));
    let (place, target) =
        found.map_err(|error| cannot(format!("the mount point {shown} cannot be used"), error))?;
    if in_place_of.is_some_and(|project| InodeId::of(&target) != InodeId::of(project)) {
        return Err(StartError(format!(
            "{shown} was replaced while it was being mounted; find out who does that, and mount it again"
        )));
    }
    Ok((place, target))
}

/// Find out whether this kernel asks for attributes between a CREATE and the return of open(2), by a CREATE on the desk.
pub(super) fn prove_create(desk: &Desk, place: &MountPoint) {
    let proven = desk.prove_create(|name| {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        openat(place.open()?, Path::new("claim").join(name), flags, Mode::RUSR)?;
        Ok(())
    });
    match proven {
        Err(error) => log::warn!(
            "what this kernel does after a CREATE cannot be seen ({error}), so each one waits for the disk"
        ),
        Ok(()) if desk.create_waits() => {
            log::warn!(
                "this kernel returns from open(2) without asking for attributes, so each CREATE waits for the disk"
            );
        }
        Ok(()) => {}
    }
}

/// The place of the desk, and the directory there. It is looked up by descriptor in the tree that was just mounted, so changes of the
/// project or of the mount point do not matter.
pub(super) fn desk_place(tree: &MountPoint, mount: Device, tasks: &str) -> io::Result<(MountPoint, OwnedFd)> {
    let place = tree.below(mount, tasks)?;
    let target = place.open()?;
    let is_desk = device_of(&target)? == mount && fstat(&target)?.st_ino == DESK;
    if is_desk { Ok((place, target)) } else { Err(io::Error::other("it is not the tree's own directory")) }
}

/// Open the tasks directory. If there is none, it is made, with the owner of the project.
pub(super) fn tasks_directory(root: &OwnedFd, name: &str) -> Result<OwnedFd, StartError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |error: Errno| match error {
        Errno::NOTDIR | Errno::LOOP => StartError(format!(
            "the project has a file named {name}; choose another directory: -o tasks=NAME"
        )),
        error => cannot(format!("the tasks directory {name} cannot be opened or made"), error),
    };
    match openat(root, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            make_directory_like(root, name).map_err(failed)?;
            openat(root, name, flags, Mode::empty()).map_err(failed)
        }
        opened => opened.map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::daemon::Project;

    #[test]
    fn it_is_mounted_in_place_on_the_directory_that_was_taken_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let source = dir.join("source");
        fs::create_dir(&source).unwrap();
        let project = Project::take(&source, None, true).unwrap();
        assert!(mountpoint(&source, Some(project.root())).is_ok());
        let why = |outcome: Result<(MountPoint, OwnedFd), StartError>| outcome.unwrap_err().to_string();
        fs::rename(&source, dir.join("moved")).unwrap();
        std::os::unix::fs::symlink("moved", &source).unwrap();
        assert!(
            why(mountpoint(&source, Some(project.root()))).contains("cannot be used"),
            "a link leads to it"
        );
        fs::remove_file(&source).unwrap();
        fs::create_dir(&source).unwrap();
        assert!(why(mountpoint(&source, Some(project.root()))).contains("was replaced while"));
        assert!(mountpoint(&source, None).is_ok(), "elsewhere, any directory will do");
    }
}
