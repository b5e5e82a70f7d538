//! `crewfs doctor`: what keeps this machine from mounting, or a mount from being as fast, as fresh or as safe as it could
//! be; and what to do. One file for each concern.
//!
//! May assume: nothing; a machine that lacks something is what it is for.
//! Must never: change anything, wait for a mount in the process that reports, or say what is wrong without saying how to
//! mend it.

mod clock;
mod dead;
mod disk;
mod errand;
mod hooks;
mod kernel;
mod keys;
mod look;
mod machine;
mod mount;
mod remote;
mod rights;
mod sshd;
mod state;
mod units;

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::failure::Failure;
use super::out::say;
use super::paths::mount_place;
use super::served::Served;
use super::settings::{self, Settings};
use crate::mounts::{self, Mount};
use crate::state_directory;

#[derive(Args)]
pub(super) struct Arguments {
    /// Where a project is mounted, or a project's directory: also tell what is in force there, and how its state and its
    /// disk do.
    mountpoint: Option<PathBuf>,
    /// Do something for another crewfs, which does not wait for it for ever.
    #[arg(long, hide = true)]
    errand: Option<Errand>,
}

/// What is done in a process of its own, because it may never end or cannot be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Errand {
    /// Touch a mount.
    Look,
    /// Go into namespaces of a user.
    Namespaces,
    /// Look at the hooks of a project.
    Hooks,
    /// Mount something that is seen nowhere else.
    Mount,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    /// As it should be.
    Good(String),
    /// It works, but slower, later or not for everybody.
    Warning(String),
    /// Something does not work, or is not safe.
    Problem(String),
}

use Finding::{Good, Problem, Warning};

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match (arguments.errand, &arguments.mountpoint) {
        (Some(Errand::Look), Some(place)) => return look::errand(place),
        (Some(Errand::Namespaces), _) => return remote::errand(),
        (Some(Errand::Hooks), Some(place)) => return hooks::errand(place),
        (Some(Errand::Mount), _) => return kernel::errand(),
        _ => {}
    }
    let named = arguments.mountpoint.as_deref().map(Named::find).transpose()?;
    let mut findings = machine::findings();
    findings.extend(kernel::findings());
    findings.extend(rights::findings());
    findings.push(clock::finding());
    findings.extend(dead::findings(named.as_ref().and_then(|named| named.mounted_at.as_deref())));
    findings.extend(units::findings());
    findings.extend(remote::findings());
    if let Some(Named { mounted_at, source }) = &named {
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
        1 => Err(Failure::failed("one problem is to be solved first")),
        n => Err(Failure::failed(format!("{n} problems are to be solved first"))),
    }
}

/// The project that was asked for.
struct Named {
    mounted_at: Option<PathBuf>,
    source: PathBuf,
}

impl Named {
    fn find(path: &Path) -> Result<Named, Failure> {
        let place = mount_place(path)?;
        let ours = mounts::ours().map_err(Failure::failed)?;
        // The mount at this place, or else one that shows what is there.
        let at = mounts::at(&place).map_err(Failure::failed)?;
        if let Some(mount) = at.or_else(|| ours.into_iter().rev().find(|mount| mount.source == place)) {
            return Ok(Named { mounted_at: Some(mount.mountpoint), source: mount.source });
        }
        let is_project = place.join(state_directory::NAME).is_dir()
            || Settings::state_of(&place).is_some()
            || Served::find(&place).is_some();
        if is_project {
            Ok(Named { mounted_at: None, source: place })
        } else {
            Err(Failure::not_mounted(&place))
        }
    }
}

/// Whether the daemon of a mount is gone. A daemon that hangs does not hold this up.
///
/// # Errors
/// The sentence on a mount that gives no answer.
pub(super) fn is_dead(mount: &Mount) -> Result<bool, Failure> {
    match look::Look::begin(&mount.mountpoint).map_err(Failure::failed)?.seen() {
        look::Seen::Dead => Ok(true),
        look::Seen::Alive(_) => Ok(false),
        look::Seen::Silent => Err(Failure::failed(dead::silent(&mount.mountpoint, &mount.source))),
    }
}

/// The names of the projects that are configured on this machine.
fn configured() -> Vec<String> {
    let entries = fs::read_dir(settings::DIRECTORY).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_string());
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort();
    names
}

/// A number that the kernel shows in a file.
fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A program, where a shell would find it or where only root looks.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file())
}
