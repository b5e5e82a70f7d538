//! Finds the history of a project: by the daemon that serves it, or in its state directory.
//!
//! Must never: read the history before the daemon has recorded what was changed until now, or lock a project that is served.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use serde::Deserialize;

use super::error::{CliError, dead_mount};
use super::find_daemon::RunningDaemon;
use super::options::Options;
use super::out;
use super::paths::canonical;
use super::settings::Settings;
use crate::daemon::{Project, TakeError};
use crate::fs::tree::HISTORY;
use crate::history::{REPOSITORY, Repository};
use crate::mounts::{self, Mount};

/// The project whose history is wanted.
#[derive(Args)]
pub(super) struct ProjectArguments {
    /// The project's directory, or where it is mounted.
    project: PathBuf,
    /// Where the state of a project is that is not mounted, if neither in the project nor where a file in /etc/crewfs says: state=DIR.
    #[arg(short, value_name = "OPTION[,OPTION…]")]
    options: Vec<String>,
}

/// The history of a project.
pub(super) struct FoundHistory {
    /// It; `None` if nothing was ever recorded.
    pub(super) repository: Option<Repository>,
    /// Its path, for messages.
    pub(super) shown: PathBuf,
    /// The project's directory.
    pub(super) source: PathBuf,
    /// The mount of the project, if it is mounted.
    pub(super) mount: Option<Mount>,
}

/// What the attribute [`HISTORY`] of a mount's root says.
#[derive(Debug, Deserialize)]
struct Recorded {
    /// Its path; `None` with `-o history=off`.
    repository: Option<PathBuf>,
    off: bool,
}

impl ProjectArguments {
    /// Find the history. Everything that was changed until now is in it.
    pub(super) fn find(&self) -> Result<FoundHistory, CliError> {
        let place = canonical(&self.project)?;
        match tree_of(&place)? {
            Some(tree) => mounted(tree),
            None => unmounted(place, &self.options),
        }
    }
}

impl FoundHistory {
    /// Let the daemon record what was changed since it was found.
    pub(super) fn record(&self) {
        if let Some(mount) = &self.mount {
            let _ = recorded(&mount.mountpoint);
        }
    }

    /// A path as a user names it, from the root of the project on.
    pub(super) fn path(&self, named: &Path) -> Result<PathBuf, CliError> {
        let mountpoint = self.mount.as_ref().map(|mount| &mount.mountpoint);
        let roots = mountpoint.into_iter().chain([&self.source]);
        let inner = match roots.into_iter().find_map(|root| named.strip_prefix(root).ok()) {
            Some(inner) => inner,
            None if named.is_absolute() => {
                let (named, source) = (named.display(), self.source.display());
                return Err(CliError::usage(format!(
                    "{named} is not in {source}; name a path in the project"
                )));
            }
            None => named,
        };
        let parts: PathBuf =
            inner.components().filter(|part| *part != std::path::Component::CurDir).collect();
        match parts.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
            true => Ok(parts),
            false => {
                let named = named.display();
                Err(CliError::usage(format!(
                    "{named} leads out of the project; name it from the project's root on"
                )))
            }
        }
    }
}

/// The tree that is mounted at a place, or of the project at a place.
fn tree_of(place: &Path) -> Result<Option<Mount>, CliError> {
    if let Some(tree) = mounts::at(place).map_err(CliError::failed)? {
        return Ok(Some(tree));
    }
    Ok(mounts::of_project(place).map_err(CliError::failed)?.pop())
}

fn mounted(tree: Mount) -> Result<FoundHistory, CliError> {
    let recorded = recorded(&tree.mountpoint)?;
    if recorded.off {
        let shown = tree.mountpoint.display();
        out::complain(format_args!(
            "crewfs: {shown} is mounted with -o history=off, so nothing is recorded now"
        ));
    }
    // By the daemon's descriptor, because a mount in place covers the state directory.
    let daemon = RunningDaemon::find(&tree.source);
    let place = daemon.map(|daemon| (daemon.state.join(REPOSITORY), daemon.state_named.join(REPOSITORY)));
    let named = recorded.repository.unwrap_or_default();
    let (place, shown) = place.unwrap_or((named.clone(), named));
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match rustix::fs::open(&place, flags, Mode::empty()) {
        Ok(directory) => Some(directory),
        Err(_) if recorded.off => None,
        Err(_) => return Err(not_for_you(&tree)),
    };
    let repository = found.map(|directory| Repository::open(directory, false)).transpose();
    let repository = repository.map_err(CliError::failed)?;
    Ok(FoundHistory { repository, shown, source: tree.source.clone(), mount: Some(tree) })
}

/// Let the daemon record everything that was changed until now.
fn recorded(mountpoint: &Path) -> Result<Recorded, CliError> {
    let shown = mountpoint.display();
    let mut value = vec![0; 1 << 16];
    match rustix::fs::getxattr(mountpoint, HISTORY, &mut value[..]) {
        Ok(length) => serde_json::from_slice(&value[..length]).map_err(|error| {
            CliError::failed(format!("{shown} says something about its history that cannot be read: {error}"))
        }),
        Err(error) if mounts::is_of_dead(error.raw_os_error()) => {
            Err(CliError::failed(dead_mount(mountpoint)))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Err(CliError::failed(format!(
            "the daemon of {shown} keeps no history; it is of an older crewfs: unmount and mount the project again"
        ))),
        Err(error) => {
            Err(CliError::failed(format!("the daemon of {shown} cannot record what was changed: {error}")))
        }
    }
}

fn not_for_you(tree: &Mount) -> CliError {
    let (place, user) = (tree.mountpoint.display(), tree.user);
    CliError::failed(format!(
        "the history of {place} is for user {user} and root alone, because it holds files of all users; run this as one of them, or \
         read what one task changed, as far as you may read its files: cat {place}/tasks/changes/TASK"
    ))
}

fn unmounted(source: PathBuf, options: &[String]) -> Result<FoundHistory, CliError> {
    let defaults = Options::defaults(false, 1);
    let options = options.iter().try_fold(defaults, |options, list| options.apply(list))?;
    let state = options.state.or_else(|| Settings::state_of(&source));
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |state: &OwnedFd| match openat(state, REPOSITORY, flags, Mode::empty()) {
        Ok(directory) => Repository::open(directory, false).map(Some).map_err(CliError::failed),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(CliError::failed(format!("the history cannot be opened: {error}"))),
    };
    match Project::take(&source, state.as_deref(), false) {
        Ok(project) => {
            let repository = open(&project.state().descriptor())?;
            let shown = project.state().shown().join(REPOSITORY);
            Ok(FoundHistory { repository, shown, source, mount: None })
        }
        // The daemon is in another mount namespace, or its mount is detached.
        Err(TakeError::Held(holder)) => {
            let daemon =
                RunningDaemon::find(&source).ok_or_else(|| CliError::failed(TakeError::Held(holder)))?;
            let failed = |error: Errno| CliError::failed(format!("the history cannot be opened: {error}"));
            let state = rustix::fs::open(&daemon.state, flags, Mode::empty()).map_err(failed)?;
            let shown = daemon.state_named.join(REPOSITORY);
            Ok(FoundHistory { repository: open(&state)?, shown, source, mount: None })
        }
        Err(error) => Err(CliError::failed(error)),
    }
}
