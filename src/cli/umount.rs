//! `crewfs umount`: unmounts the desk and the tree, and returns when the daemon has released the project.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use rustix::io::Errno;

use super::doctor;
use super::error::CliError;
use super::find_daemon::RunningDaemon;
use super::paths::mount_place;
use super::processes;
use super::settings::Settings;
use crate::daemon::Project;
use crate::mountpoint::{self, MountPoint, unmount_by_helper};
use crate::mounts::{self, Mount};
use crate::shown;

#[derive(Args)]
pub(super) struct Arguments {
    /// Where the project is mounted, or the project itself.
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    mountpoint: Option<PathBuf>,
    /// Take the place from this file, as `crewfs mount --config` does.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Unmount although the mount is in use: processes keep their open files, no other process finds the mount, and the project is
    /// free when the last of them is done.
    #[arg(short, long)]
    lazy: bool,
}

/// How long the daemon may take to write its last snapshot.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);
/// How long that takes as a rule.
const USUAL_SHUTDOWN: Duration = Duration::from_secs(3);

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let said = match &arguments.config {
        Some(file) => mount_place(&Settings::read(file)?.mountpoint)?,
        None => {
            mount_place(arguments.mountpoint.as_deref().expect("clap asks for it when there is no file"))?
        }
    };
    // The caller's own directory may be in the mount. All paths are absolute by now.
    let _ = std::env::set_current_dir("/");
    let tree = match mounts::at(&said).map_err(CliError::failed)? {
        Some(tree) => tree,
        // A file of settings names one place. Other mounts of the project do not count.
        None if arguments.config.is_some() => return Err(CliError::not_mounted(&said)),
        None => mount_of(&said)?,
    };
    let mountpoint = tree.mountpoint.clone();
    if arguments.lazy || doctor::is_dead(&tree)? {
        // Detaching unmounts the desk too. A dead tree could not be asked for it.
        unmount(&tree, true)?;
        if arguments.lazy {
            return Ok(());
        }
    } else {
        // The kernel refuses to unmount a tree in use, but only after the desk is unmounted. So its users are checked first.
        let users = users_of(&tree);
        if !users.is_empty() {
            return Err(in_use(&mountpoint, &format!("by {}", users.join(", "))));
        }
        if let Some(desk) = desk_of(&mountpoint) {
            unmount(&desk, false)?;
        }
        match unmount(&tree, false) {
            // The daemon unmounts the tree when the desk is gone.
            Err(_) if gone_within(&mountpoint, Duration::from_secs(2)) => {}
            outcome => outcome?,
        }
    }
    wait_for_daemon(&tree)
}

/// The only mount of a project.
fn mount_of(project: &Path) -> Result<Mount, CliError> {
    let mut trees = mounts::of_project(project).map_err(CliError::failed)?;
    if trees.len() > 1 {
        let places: Vec<_> = trees.iter().map(|tree| tree.mountpoint.display().to_string()).collect();
        let (project, places) = (project.display(), places.join(", "));
        return Err(CliError::failed(format!("{project} is mounted at several places; say which: {places}")));
    }
    trees.pop().ok_or_else(|| CliError::not_mounted(project))
}

fn desk_of(mountpoint: &Path) -> Option<Mount> {
    mounts::desk_of(mountpoint).ok().flatten()
}

fn in_use(mountpoint: &Path, by: &str) -> CliError {
    let shown = mountpoint.display();
    CliError::failed(format!(
        "{shown} is in use {by}; end that, or take it away all the same: crewfs umount --lazy {shown}"
    ))
}

/// The processes with a directory or an open file in the mount, each once, as far as this user may see.
fn users_of(tree: &Mount) -> Vec<String> {
    let mountpoint = &tree.mountpoint;
    let ours = [Some(tree.device), desk_of(mountpoint).map(|desk| desk.device)];
    // By name first, because other filesystems may not answer. Then by device, because the daemon has files below the mount open.
    let place = mountpoint.to_path_buf();
    let uses = move |link: &Path| {
        let named = std::fs::read_link(link).is_ok_and(|to| to.starts_with(&place));
        named && mountpoint::device_at(link).is_ok_and(|device| ours.contains(&Some(device)))
    };
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path());
    let is_user = move |process: &Path| {
        [process.join("cwd"), process.join("root"), process.join("exe")]
            .into_iter()
            .chain(entries(&process.join("fd")))
            .any(|l| uses(&l))
    };
    let name = move |process: &Path| {
        // Links such as self lead to a process that is listed anyway.
        let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
        if !is_user(process) {
            return None;
        }
        if pid == std::process::id() {
            return Some("this command itself, whose program, input or output is there".to_string());
        }
        let command = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
        Some(format!("{} (process {pid})", shown::line(command.trim_end())))
    };
    processes::scan(name)
}

/// Unmount one mount. With `detach` also if it is in use or does not answer. Another mount at its place is not touched.
pub(super) fn unmount(mount: &Mount, detach: bool) -> Result<(), CliError> {
    let shown = mount.mountpoint.display();
    let is_there = || mounts::ours().is_ok_and(|mounts| mounts.iter().any(|other| other.id == mount.id));
    match MountPoint::at(&mount.mountpoint).and_then(|place| place.unmount(mount.device, detach)) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(in_use(&mount.mountpoint, "by a process that cannot be seen from here")),
        // It was unmounted meanwhile.
        Err(_) if !is_there() => Ok(()),
        Err(Errno::INVAL) => Err(CliError::failed(format!(
            "{shown} shows something else than the mount of crewfs that is there: it is covered, or its directory was moved; see: findmnt"
        ))),
        // An ordinary user unmounts its own mounts by fusermount3.
        Err(Errno::PERM) => {
            unmount_by_helper(&mount.mountpoint, detach).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    CliError::failed(format!("fusermount3 cannot be run: {error}; install fuse3"))
                }
                _ => CliError::failed(format!("{shown}: {error}")),
            })
        }
        Err(error) => Err(CliError::failed(format!("{shown} cannot be unmounted: {error}"))),
    }
}

fn gone_within(mountpoint: &Path, limit: Duration) -> bool {
    within(limit, || mounts::at(mountpoint).is_ok_and(|mount| mount.is_none()))
}

/// Wait until the project is unlocked. Then it can be mounted again, moved or backed up.
fn wait_for_daemon(tree: &Mount) -> Result<(), CliError> {
    let source = &tree.source;
    let free = || Project::is_free(source);
    if within(USUAL_SHUTDOWN, free) {
        return Ok(());
    }
    if let Some(served) = RunningDaemon::find(source) {
        // Any user can mount something with another user's project as its source.
        if !served.is_of(tree.user) {
            return Ok(());
        }
        // A copy of the mount in another mount namespace keeps it served. Here it is unmounted, as requested.
        served.end(tree.user);
    }
    if within(SHUTDOWN_LIMIT, free) {
        return Ok(());
    }
    Err(CliError::failed(format!("the mount is gone, but its daemon still holds {}", source.display())))
}

fn within(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
