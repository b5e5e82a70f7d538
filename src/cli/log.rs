//! `crewfs log`: prints the event log as JSON lines, from the mount if there is one, otherwise from the disk.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use super::options::Options;
use super::out;
use super::paths::canonical;
use super::settings::Settings;
use crate::daemon::{Project, TakeError};
use crate::limits::REPLAY_EVENTS;
use crate::log::{Log, line};
use crate::mounts;

#[derive(Args)]
pub(super) struct Arguments {
    /// The project's directory, or where it is mounted.
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    source: Option<PathBuf>,
    /// Take the project and the place of its state from this file, as `crewfs mount --config` does.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the state of a project is that is not mounted, if neither in the project nor where a file in /etc/crewfs says: state=DIR.
    #[arg(short, value_name = "OPTION[,OPTION…]")]
    options: Vec<String>,
}

/// How much is printed at once, in bytes. A reader that closes the pipe (`crewfs log … | head`) ends the listing there.
const PART: usize = 64 << 10;

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let mut options = Options::defaults(false, 1);
    let (source, place) = match &arguments.config {
        Some(file) => {
            let settings = Settings::read(file)?;
            options = settings.apply(options)?;
            (canonical(&settings.source)?, settings.mountpoint)
        }
        None => {
            let source = arguments.source.as_deref().expect("clap asks for it when there is no file");
            let source = canonical(source)?;
            (source.clone(), source)
        }
    };
    let options = arguments.options.iter().try_fold(options, |options, list| options.apply(list))?;
    // A mount in place covers the state directory. The mount itself shows the log.
    if let Some(desk) = mounts::desk_of(&place).map_err(CliError::failed)? {
        return copy(&desk.mountpoint);
    }
    let state = options.state.or_else(|| Settings::state_of(&source));
    match Project::take(&source, state.as_deref(), false) {
        Ok(project) => print(&project),
        Err(TakeError::Held(holder)) => {
            let mounted = mounts::ours().map_err(CliError::failed)?.into_iter().find(|m| m.source == source);
            let holder = holder.map(|holder| holder.mountpoint);
            let place = holder.or_else(|| mounted.map(|mount| mount.mountpoint)).unwrap_or(source);
            let desk = mounts::desk_of(&place).map_err(CliError::failed)?;
            copy(&desk.ok_or_else(|| CliError::not_mounted(&place))?.mountpoint)
        }
        Err(error) => Err(CliError::failed(error)),
    }
}

fn copy(desk: &Path) -> Result<(), CliError> {
    let events = desk.join("events.jsonl");
    let failed = |error: io::Error| CliError::failed(format!("{}: {error}", events.display()));
    let mut file = File::open(&events).map_err(failed)?;
    let mut part = vec![0; PART];
    loop {
        match file.read(&mut part) {
            Ok(0) => return Ok(()),
            Ok(length) if out::write(&part[..length]) => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

fn print(project: &Project) -> Result<(), CliError> {
    let mut log = project.open_log().map_err(CliError::failed)?;
    let (mut part, mut at) = (String::new(), 0);
    loop {
        let records = log.read(at, REPLAY_EVENTS).map_err(CliError::failed)?;
        for record in &records {
            part += &line(record);
            if part.len() >= PART {
                if !out::write(part.as_bytes()) {
                    return Ok(());
                }
                part.clear();
            }
        }
        let Some(last) = records.last() else { break };
        at = last.seq;
    }
    out::write(part.as_bytes());
    Ok(())
}
