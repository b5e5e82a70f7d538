//! `crewfs doctor`: checks what keeps this machine from mounting, or makes a mount slower, less fresh or less safe, and says what to do.
//! Each concern is a file.
//!
//! May assume: nothing. Machines that lack something are its purpose.
//! Must never: change anything, wait for a mount in the process that reports, or report a problem without its solution.

mod clock;
mod dead;
mod disk;
mod finding;
mod hooks;
mod kernel;
mod keys;
mod liveness;
mod machine;
mod mount;
mod probe;
mod remote;
mod rights;
mod sshd;
mod state;
mod system;
mod units;

use std::path::{Path, PathBuf};

use clap::Args;

pub(super) use self::dead::is_dead;
use self::finding::Finding::{Good, Problem, Warning};
use self::probe::Probe;

use super::error::CliError;
use super::find_daemon::RunningDaemon;
use super::out::say;
use super::paths::mount_place;
use super::settings::Settings;
use crate::mounts;
use crate::state_directory;

#[derive(Args)]
pub(super) struct Arguments {
    /// Where a project is mounted, or a project's directory: also tell what is in force there, and how its state and its
    /// disk do.
    mountpoint: Option<PathBuf>,
    /// Check something for another crewfs doctor, which does not wait without a limit.
    #[arg(long, hide = true)]
    probe: Option<Probe>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    match (arguments.probe, &arguments.mountpoint) {
        (Some(Probe::Liveness), Some(place)) => return liveness::probe(place),
        (Some(Probe::Namespaces), _) => return remote::probe(),
        (Some(Probe::Hooks), Some(place)) => return hooks::probe(place),
        (Some(Probe::TrialMount), _) => return kernel::probe(),
        _ => {}
    }
    let named = arguments.mountpoint.as_deref().map(NamedProject::find).transpose()?;
    let mut findings = machine::findings();
    findings.extend(kernel::findings());
    findings.extend(rights::findings());
    findings.push(clock::finding());
    findings.extend(dead::findings(named.as_ref().and_then(|named| named.mounted_at.as_deref())));
    findings.extend(units::findings());
    findings.extend(remote::findings());
    if let Some(NamedProject { mounted_at, source }) = &named {
        let mut session = None;
        if let Some(place) = mounted_at {
            let (said, of_mount) = mount::findings(place, source);
            findings.extend(of_mount);
            session = said;
        }
        findings.extend(state::findings(source, session.as_ref()));
        findings.extend(hooks::findings(mounted_at.as_deref().unwrap_or(source)));
    }
    for finding in &findings {
        let (word, said) = match finding {
            Good(said) => ("ok", said),
            Warning(said) => ("warning", said),
            Problem(said) => ("problem", said),
        };
        say!("{word:<8} {said}");
    }
    match findings.iter().filter(|finding| matches!(finding, Problem(_))).count() {
        0 => Ok(()),
        1 => Err(CliError::failed("one problem is to be solved first")),
        n => Err(CliError::failed(format!("{n} problems are to be solved first"))),
    }
}

/// The project that the user named.
struct NamedProject {
    mounted_at: Option<PathBuf>,
    source: PathBuf,
}

impl NamedProject {
    fn find(path: &Path) -> Result<NamedProject, CliError> {
        let place = mount_place(path)?;
        let ours = mounts::ours().map_err(CliError::failed)?;
        // The mount at this place, or one of the project at this place.
        let at = mounts::at(&place).map_err(CliError::failed)?;
        if let Some(mount) = at.or_else(|| ours.into_iter().rev().find(|mount| mount.source == place)) {
            return Ok(NamedProject { mounted_at: Some(mount.mountpoint), source: mount.source });
        }
        let is_project = place.join(state_directory::NAME).is_dir()
            || Settings::state_of(&place).is_some()
            || RunningDaemon::find(&place).is_some();
        if is_project {
            Ok(NamedProject { mounted_at: None, source: place })
        } else {
            Err(CliError::not_mounted(&place))
        }
    }
}
