//! `crewfs log`: the event log as JSON lines, from the mount if there is one, else from the disk.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, absolute};
use crate::daemon::{Project, TakeError};
use crate::limits::REPLAY_EVENTS;
use crate::log::{Log, line};
use crate::mounts;

#[derive(Args)]
pub(super) struct Arguments {
    /// The project's directory, or where it is mounted.
    source: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let source = absolute(&arguments.source)?;
    // Over a mount in place the state directory cannot be seen: the mount itself tells.
    if let Some(desk) = mounts::desk_of(&source).map_err(Failure::failed)? {
        return copy(&desk.mountpoint);
    }
    match Project::take(&source, None, false) {
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
    quiet_when_closed(io::copy(&mut file, &mut io::stdout().lock()).map(|_| ()))
}

fn print(project: &Project) -> Result<(), Failure> {
    let mut log = project.open_log().map_err(Failure::failed)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut at = 0;
    loop {
        let records = log.read(at, REPLAY_EVENTS).map_err(Failure::failed)?;
        let Some(last) = records.last() else { return quiet_when_closed(out.flush()) };
        at = last.seq;
        for record in &records {
            if let Err(error) = out.write_all(line(record).as_bytes()) {
                return quiet_when_closed(Err(error));
            }
        }
    }
}

/// A reader that has seen enough (`crewfs log … | head`) is no failure.
fn quiet_when_closed(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.map_err(Failure::failed),
    }
}
