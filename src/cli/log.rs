//! `crewfs log`: the event log as JSON lines, from the mount if there is one, else from the disk.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, absolute, out};
use crate::daemon::{Project, TakeError};
use crate::limits::REPLAY_EVENTS;
use crate::log::{Log, line};
use crate::mounts;

#[derive(Args)]
pub(super) struct Arguments {
    /// The project's directory, or where it is mounted.
    source: PathBuf,
}

/// How much is printed at once, in bytes. A reader that has seen enough (`crewfs log … | head`) ends the listing there.
const PART: usize = 64 << 10;

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let source = absolute(&arguments.source)?;
    // Over a mount in place the state directory cannot be seen: the mount itself tells.
    if let Some(desk) = mounts::desk_of(&source).map_err(Failure::failed)? {
        return copy(&desk.mountpoint);
    }
    match Project::take(&source, false) {
        Ok(project) => print(&project),
        Err(TakeError::Held(Some(holder))) => {
            let desk = mounts::desk_of(&holder.mountpoint).map_err(Failure::failed)?;
            copy(&desk.ok_or_else(|| Failure::not_mounted(&holder.mountpoint))?.mountpoint)
        }
        Err(error) => Err(Failure::failed(error)),
    }
}

fn copy(desk: &Path) -> Result<(), Failure> {
    let events = desk.join("events.jsonl");
    let failed = |error: io::Error| Failure::failed(format!("{}: {error}", events.display()));
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

fn print(project: &Project) -> Result<(), Failure> {
    let mut log = project.open_log().map_err(Failure::failed)?;
    let (mut part, mut at) = (String::new(), 0);
    loop {
        let records = log.read(at, REPLAY_EVENTS).map_err(Failure::failed)?;
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
