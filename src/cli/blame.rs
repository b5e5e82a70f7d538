//! `crewfs blame`: which worker brought each line of a file, when and for which task.
//!
//! Must never: change anything.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use rustix::fs::{Mode, OFlags};

use super::beneath::{self, Links};
use super::error::CliError;
use super::find_history::{FoundHistory, ProjectArguments};
use super::patch::print;
use crate::history::LineOrigin;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    project: ProjectArguments,
    /// The file: a path from the project's root on.
    file: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let history = arguments.project.find()?;
    let path = history.path(&arguments.file)?;
    let present = read(&history, &path).map_err(|error| {
        let path = path.display();
        CliError::failed(format!("{path} cannot be read in the project: {error}"))
    })?;
    let lines = present.split_inclusive(|byte| *byte == b'\n');
    let origins = match &history.repository {
        Some(repository) => repository.blame(&path, &present).map_err(CliError::failed)?,
        None => Vec::new(),
    };
    let origins: Vec<[String; 3]> = origins.iter().map(described).collect();
    let width = |column: usize| origins.iter().map(|parts| parts[column].chars().count()).max().unwrap_or(0);
    let (widths, digits) = ([width(0), width(1), width(2)], lines.clone().count().to_string().len());
    let none = ["-".to_string(), "-".to_string(), "-".to_string()];
    for (number, line) in lines.enumerate() {
        let [at, worker, task] = origins.get(number).unwrap_or(&none);
        let [at_width, worker_width, task_width] = widths;
        let number = number + 1;
        let head = format!("{at:at_width$}  {worker:worker_width$}  {task:task_width$}  {number:digits$}  ");
        let mut text = [head.as_bytes(), line].concat();
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        if !print(&text) {
            break;
        }
    }
    Ok(())
}

/// The file as it is now.
fn read(history: &FoundHistory, path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let root = history.mount.as_ref().map_or(&history.source, |mount| &mount.mountpoint);
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let file =
        beneath::open(&root, path, OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK, Links::Refused)?;
    let mut present = Vec::new();
    File::from(file).read_to_end(&mut present)?;
    Ok(present)
}

/// Time, worker and task.
fn described(origin: &LineOrigin) -> [String; 3] {
    match origin {
        LineOrigin::Step { worker, task, at } => {
            let worker = worker.as_ref().map_or("(outside)", |worker| worker.as_str());
            [at.to_string(), worker.to_string(), task.as_ref().map_or("-", |task| task.as_str()).to_string()]
        }
        LineOrigin::Older => ["(older)", "-", "-"].map(String::from),
        LineOrigin::NotRecorded => ["(not recorded)", "-", "-"].map(String::from),
    }
}
