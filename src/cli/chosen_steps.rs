//! Which steps of a history a user means: by task, worker, file and time.

use std::path::PathBuf;

use clap::Args;

use super::error::CliError;
use super::find_history::FoundHistory;
use crate::clock;
use crate::history::StepFilter;
use crate::queue::{Span, TaskId, Wall, WorkerName};

/// The arguments that choose steps.
#[derive(Args)]
pub(super) struct ChosenSteps {
    /// The changes for this task.
    pub(super) task: Option<String>,
    /// The changes of this worker.
    #[arg(long, value_name = "NAME")]
    pub(super) worker: Option<String>,
    /// The changes of this file, or in this directory: a path from the project's root on.
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// The changes since this time: a span like 10m or 2h, or a time like 2026-01-01T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(super) since: Option<Wall>,
}

fn since(text: &str) -> Result<Wall, String> {
    let ago = |span: Span| Wall(clock::system()().wall.0.saturating_sub_unsigned(span.0));
    let time = Wall::parse(text).or_else(|| Span::parse(text).map(ago));
    time.ok_or_else(|| {
        "a span such as 10m, 2h or 1d, or a time such as 2026-01-01T12:00:00Z is wanted".to_string()
    })
}

impl ChosenSteps {
    /// The steps of a history that are meant.
    pub(super) fn filter(&self, history: &FoundHistory) -> Result<StepFilter, CliError> {
        let misnamed =
            |what: &str, text: &str| CliError::usage(format!("{text:?} cannot be the name of a {what}"));
        let task = |text: &String| TaskId::parse(text).ok_or_else(|| misnamed("task", text));
        let worker = |text: &String| WorkerName::parse(text).ok_or_else(|| misnamed("worker", text));
        Ok(StepFilter {
            task: self.task.as_ref().map(task).transpose()?,
            worker: self.worker.as_ref().map(worker).transpose()?,
            path: self.file.as_ref().map(|file| history.path(file)).transpose()?,
            since: self.since,
        })
    }
}
