//! `crewfs changes`: what was changed, by which worker and for which task. Newest first, as `git log` shows it.
//!
//! Must never: change anything.

use clap::Args;
use serde::Serialize;

use super::chosen_steps::ChosenSteps;
use super::error::CliError;
use super::find_history::ProjectArguments;
use super::out;
use super::patch::{line_counts, print};
use crate::history::{KeptContent, PathChange, Repository, Step, Version, VersionKind};
use crate::queue::Wall;
use crate::shown;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    project: ProjectArguments,
    #[command(flatten)]
    chosen: ChosenSteps,
    /// Print the differences too, as a patch.
    #[arg(long, conflicts_with = "json")]
    diff: bool,
    /// Print each step as one line of JSON, for programs.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let history = arguments.project.find()?;
    let filter = arguments.chosen.filter(&history)?;
    let Some(repository) = &history.repository else { return Ok(()) };
    let steps = repository.steps(filter).map_err(CliError::failed)?;
    let mut first = true;
    for step in steps {
        let step = step.map_err(CliError::failed)?;
        let text = if arguments.json {
            format!("{}\n", shown::json(&json(repository, &step))).into_bytes()
        } else {
            let space = if first { "" } else { "\n" };
            let mut text = format!("{space}{}", listed(repository, &step)).into_bytes();
            if arguments.diff {
                text.push(b'\n');
                // Where it is kept, a program can apply it.
                let diff = repository.diff(&step.changes, !out::is_terminal());
                text.extend(diff.unwrap_or_else(|error| format!("# {error}\n").into_bytes()));
            }
            text
        };
        if !print(&text) {
            break;
        }
        first = false;
    }
    Ok(())
}

/// A step as a block of lines.
fn listed(repository: &Repository, step: &Step) -> String {
    let worker = step.worker.as_ref().map_or("outside of the mount", |worker| worker.as_str());
    let mut text = format!("{}  {worker}", step.at);
    if let Some(claim) = &step.claim {
        text += &format!("  {}: {}", claim.task, shown::line(&claim.title));
    }
    if let Some(program) = &step.program {
        text += &format!("  (by {})", shown::line(program));
    }
    text.push('\n');
    if let Some(end) = &step.end {
        let said = end.text.lines().next().unwrap_or_default();
        text += &format!("    {}: {}\n", shown::line(&end.how), shown::line(said)).replace(": \n", "\n");
    }
    for change in &step.changes {
        text += &format!("  {}\n", of_path(repository, change));
    }
    text
}

/// A changed path as a line: added, modified or removed; lines added and removed.
fn of_path(repository: &Repository, change: &PathChange) -> String {
    let letter = match (change.before, change.after) {
        (None, _) => 'A',
        (_, None) => 'D',
        _ => 'M',
    };
    let mut notes = Vec::new();
    if let (Some(before), Some(after)) = (change.before, change.after) {
        if before.mode != after.mode && before.kind == after.kind {
            notes.push(format!("mode {:04o} to {:04o}", before.mode, after.mode));
        }
        if before.kind != after.kind {
            notes.push(format!("{} to {}", kind(before), kind(after)));
        }
        if (before.uid, before.gid) != (after.uid, after.gid) {
            notes.push(format!("owner {}:{} to {}:{}", before.uid, before.gid, after.uid, after.gid));
        }
    } else {
        notes.extend(
            change
                .before
                .or(change.after)
                .filter(|it| it.kind != VersionKind::File)
                .map(|it| kind(it).to_string()),
        );
    }
    let versions = [("before", change.before), ("after", change.after)];
    for (which, version) in versions {
        if let Some(bytes) = not_kept(version) {
            notes.push(format!("the {bytes} bytes {which} are not kept"));
        }
    }
    let counts = counts(repository, change).map_or(String::new(), |(added, removed)| {
        let part =
            |sign: char, count: usize| if count > 0 { format!("{sign}{count}") } else { String::new() };
        format!("{} {}", part('+', added), part('-', removed)).trim().to_string()
    });
    let notes = if notes.is_empty() { String::new() } else { format!("  ({})", notes.join(", ")) };
    format!("{letter} {counts:>9}  {}{notes}", shown::path(&change.path))
}

fn kind(version: Version) -> &'static str {
    match version.kind {
        VersionKind::File => "file",
        VersionKind::Symlink => "symbolic link",
        VersionKind::Directory => "directory",
    }
}

/// The length of a version whose content is not in the history.
fn not_kept(version: Option<Version>) -> Option<u64> {
    match version? {
        Version { kind: VersionKind::Directory, .. } => None,
        Version { content: KeptContent::NotKept { bytes }, .. } => Some(bytes),
        _ => None,
    }
}

/// The content of a version. That of nothing, and of a directory, is nothing.
fn content(repository: &Repository, version: Option<Version>) -> Option<Option<Vec<u8>>> {
    match version {
        None | Some(Version { kind: VersionKind::Directory, .. }) => Some(None),
        Some(Version { content: KeptContent::Kept(id), .. }) => repository.read(id).ok().map(Some),
        Some(_) => None,
    }
}

fn counts(repository: &Repository, change: &PathChange) -> Option<(usize, usize)> {
    let before = content(repository, change.before)?;
    line_counts(before.as_deref(), content(repository, change.after)?.as_deref())
}

/// A step for programs.
#[derive(Serialize)]
struct StepJson<'a> {
    at: Wall,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<&'a str>,
    changes: Vec<ChangeJson>,
}

#[derive(Serialize)]
struct ChangeJson {
    path: String,
    before: Option<VersionJson>,
    after: Option<VersionJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<usize>,
}

#[derive(Serialize)]
struct VersionJson {
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    /// The id of the content, if it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// The length of content that is not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_kept: Option<u64>,
}

fn json<'a>(repository: &Repository, step: &'a Step) -> StepJson<'a> {
    let version = |version: Version| VersionJson {
        kind: match version.kind {
            VersionKind::File => "file",
            VersionKind::Symlink => "symlink",
            VersionKind::Directory => "directory",
        },
        mode: format!("{:04o}", version.mode),
        uid: version.uid,
        gid: version.gid,
        content: match version.content {
            KeptContent::Kept(id) => Some(id.to_string()),
            KeptContent::NotKept { .. } => None,
        },
        not_kept: not_kept(Some(version)),
    };
    let change = |change: &PathChange| {
        let counts = counts(repository, change);
        ChangeJson {
            path: change.path.to_string_lossy().into_owned(),
            before: change.before.map(version),
            after: change.after.map(version),
            added: counts.map(|(added, _)| added),
            removed: counts.map(|(_, removed)| removed),
        }
    };
    StepJson {
        at: step.at,
        worker: step.worker.as_ref().map(|worker| worker.as_str()),
        task: step.claim.as_ref().map(|claim| claim.task.as_str()),
        epoch: step.claim.as_ref().map(|claim| claim.epoch),
        program: step.program.as_deref(),
        end: step.end.as_ref().map(|end| &*end.how),
        changes: step.changes.iter().map(change).collect(),
    }
}
