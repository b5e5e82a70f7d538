//! `crewfs undo`: takes back what a worker did, through the mount, as a change like any other.
//!
//! May assume: the daemon has recorded everything that was changed until now.
//! Must never: touch a file before all of them are held and checked, or leave the work half done when it fails.

mod carry_out;
mod hold;
mod tree;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::carry_out::{CarryOutError, carry_out};
use self::hold::{HoldError, hold, is_touched};
use self::tree::ProjectTree;
use super::chosen_steps::ChosenSteps;
use super::error::CliError;
use super::find_history::{FoundHistory, ProjectArguments};
use super::out::say;
use super::patch::{patch, print};
use crate::clock;
use crate::fs::guard::LOCK_ATTRIBUTE;
use crate::history::undo::{
    ChosenStep, DirectoryUse, PathPlan, UndoOutcome, UndoPlan, VersionSource, plan_undo,
};
use crate::history::{
    ContentId, KeptContent, PathChange, Repository, Step, StepFilter, Version, VersionKind,
};
use crate::mounts::{self, Mount};
use crate::queue::{Span, Wall};
use crate::shown;

#[derive(Args)]
#[command(
    override_usage = "crewfs undo [OPTIONS] PROJECT TASK\n       crewfs undo [OPTIONS] PROJECT --worker NAME --since TIME"
)]
#[command(group = clap::ArgGroup::new("whose").required(true).args(["task", "worker"]))]
pub(super) struct Arguments {
    #[command(flatten)]
    project: ProjectArguments,
    #[command(flatten)]
    chosen: ChosenSteps,
    /// Undo what can be undone, and leave the rest as it is.
    #[arg(long)]
    partial: bool,
    /// Print what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the changes of each file too.
    #[arg(long)]
    diff: bool,
}

/// How often a plan is made anew because files were changed meanwhile.
const TRIES: usize = 3;

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    if arguments.chosen.worker.is_some() && arguments.chosen.since.is_none() {
        return Err(CliError::usage(
            "undo of a worker takes the time since when its changes are to be undone: --since 10m",
        ));
    }
    let history = arguments.project.find()?;
    // Everything until now is in steps that have ended.
    let began = clock::system()().wall.after(Span(1));
    let Some(mount) = &history.mount else { return Err(unmounted(&history)) };
    let filter = arguments.chosen.filter(&history)?;
    let Some(repository) = &history.repository else { return Err(nothing(&filter)) };
    let steps = steps(repository, &filter)?;
    let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(&mount.mountpoint, root, Mode::empty()).map_err(CliError::failed)?;
    let undo =
        Undo { arguments, history: &history, repository, mount, tree: ProjectTree::new(root), filter, steps };
    undo.run(began)
}

fn unmounted(history: &FoundHistory) -> CliError {
    let source = history.source.display();
    let message = format!(
        "{source} is not mounted, and undo works through the mount, where other workers see it; first: crewfs mount {source}"
    );
    CliError { code: 3, message }
}

fn nothing(filter: &StepFilter) -> CliError {
    let whose = match (&filter.task, &filter.worker) {
        (Some(task), _) => format!("for {task}"),
        (_, Some(worker)) => format!("by {worker} since then"),
        _ => String::new(),
    };
    CliError::failed(format!("no change {whose} is in the history; to see what is: crewfs changes PROJECT"))
}

/// All steps from the first chosen one on, oldest first, each with whether it is chosen.
fn steps(repository: &Repository, filter: &StepFilter) -> Result<Vec<(Step, bool)>, CliError> {
    let all = StepFilter::default();
    let chosen = StepFilter { path: None, ..filter.clone() };
    let mut left = repository.steps(chosen.clone()).map_err(CliError::failed)?.count();
    let mut found = Vec::new();
    for step in repository.steps(all).map_err(CliError::failed)? {
        if left == 0 {
            break;
        }
        let step = step.map_err(CliError::failed)?;
        let of_task =
            chosen.task.is_none() || chosen.task.as_ref() == step.claim.as_ref().map(|claim| &claim.task);
        let of_worker = chosen.worker.is_none() || chosen.worker == step.worker;
        let is_chosen = of_task && of_worker && chosen.since.is_none_or(|since| step.at >= since);
        left -= usize::from(is_chosen);
        found.push((step, is_chosen));
    }
    if found.is_empty() {
        return Err(nothing(filter));
    }
    found.reverse();
    Ok(found)
}

/// One undo.
struct Undo<'a> {
    arguments: &'a Arguments,
    history: &'a FoundHistory,
    repository: &'a Repository,
    mount: &'a Mount,
    tree: ProjectTree,
    filter: StepFilter,
    steps: Vec<(Step, bool)>,
}

impl Undo<'_> {
    fn run(&self, began: Wall) -> Result<(), CliError> {
        let mut busy = PathBuf::new();
        for _ in 0..TRIES {
            let (plan, known) = self.plan();
            let touched = plan.paths.iter().filter(|path| is_touched(path)).count();
            let conflicts =
                plan.paths.iter().filter(|path| matches!(path.outcome, UndoOutcome::Conflict(_))).count();
            if plan.paths.is_empty() {
                return Err(nothing(&self.filter));
            }
            let text = self.described(&plan);
            if self.arguments.dry_run || conflicts > 0 && !self.arguments.partial || touched == 0 {
                print(&text);
                return self.conclude_unchanged(touched, conflicts);
            }
            let held = match hold(&self.tree, &plan.paths) {
                Ok(held) => held,
                Err(HoldError::Changed(path)) => {
                    busy = path;
                    continue;
                }
                Err(HoldError::Failed(path, error)) => return Err(self.refused(&path, &error)),
            };
            // A signal would end it in the middle.
            for signal in [SIGHUP, SIGINT, SIGTERM] {
                signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))
                    .map_err(CliError::failed)?;
            }
            let mut content = |version: &Version| self.content(version, &plan, &known);
            carry_out(&self.tree, &plan.paths, held, &mut content)
                .map_err(|failure| self.failed(&failure))?;
            // So that it is a step of its own.
            self.history.record();
            print(&text);
            return self.conclude(touched, conflicts, began);
        }
        let busy = shown::path(&busy);
        Err(CliError::failed(format!(
            "{busy} is changed by others all the time; nothing was undone: try again when they are done"
        )))
    }

    fn plan(&self) -> (UndoPlan, ContentPlaces) {
        let steps: Vec<ChosenStep> =
            self.steps.iter().map(|(step, chosen)| ChosenStep { step, chosen: *chosen }).collect();
        let mut source = UndoSource { tree: &self.tree, repository: self.repository, known: HashMap::new() };
        let plan = plan_undo(&steps, self.filter.path.as_deref(), &mut source);
        (plan, source.known)
    }

    /// The content of a version: merged, of the history, or of the tree.
    fn content(&self, version: &Version, plan: &UndoPlan, known: &ContentPlaces) -> io::Result<Vec<u8>> {
        let KeptContent::Kept(id) = version.content else {
            return Err(io::Error::other("its content is not in the history"));
        };
        if let Some(merged) = merged(plan, Some(*version)) {
            return Ok(merged.to_vec());
        }
        let mut source = UndoSource { tree: &self.tree, repository: self.repository, known: known.clone() };
        source.content(id).map_err(io::Error::other)
    }

    /// What becomes of each path, and then the differences if they are wanted.
    fn described(&self, plan: &UndoPlan) -> Vec<u8> {
        let mut text: Vec<u8> = plan.paths.iter().flat_map(|path| described(path).into_bytes()).collect();
        if !self.arguments.diff {
            return text;
        }
        let mut changes = Vec::new();
        for path in plan.paths.iter().filter(|path| is_touched(path)) {
            let before = match &path.outcome {
                UndoOutcome::MovedFrom(from) => present_at(plan, from),
                _ => path.present,
            };
            // What was merged is in no repository yet.
            match merged(plan, path.wanted) {
                Some(merged) => {
                    let before =
                        before.and_then(|before| self.content(&before, plan, &ContentPlaces::new()).ok());
                    text.extend(patch(&path.path, before.as_deref(), Some(merged)));
                }
                None => changes.push(PathChange {
                    path: path.path.clone(),
                    before: path.present,
                    after: path.wanted,
                }),
            }
        }
        let diff = self.repository.diff(&changes, false);
        text.extend(diff.unwrap_or_else(|error| format!("# {error}\n").into_bytes()));
        text
    }

    /// What to say when nothing was to be changed.
    fn conclude_unchanged(&self, touched: usize, conflicts: usize) -> Result<(), CliError> {
        let paths = counted(touched, "path");
        match (conflicts, self.arguments.dry_run) {
            (0, _) if touched == 0 => say!("nothing is left to undo"),
            (0, true) => say!("{paths} would change; nothing was changed (--dry-run)"),
            (_, true) if self.arguments.partial => {
                say!(
                    "{paths} would change, {} would not; nothing was changed (--dry-run)",
                    counted(conflicts, "conflict")
                );
            }
            _ => {}
        }
        if conflicts == 0 {
            return Ok(());
        }
        Err(self.conflicted(
            conflicts,
            "nothing was changed; undo the rest with --partial, or a single file with --file",
        ))
    }

    fn conclude(&self, touched: usize, conflicts: usize, began: Wall) -> Result<(), CliError> {
        let project = self.mount.mountpoint.display();
        let back = match self.name() {
            Some(name) => {
                format!("; to take that back: crewfs undo {project} --worker {name} --since {began}")
            }
            None => String::new(),
        };
        say!("{} changed{back}", counted(touched, "path"));
        if conflicts == 0 {
            return Ok(());
        }
        Err(self.conflicted(conflicts, "the rest was undone"))
    }

    fn conflicted(&self, conflicts: usize, outcome: &str) -> CliError {
        let (conflicts, repository) = (counted(conflicts, "conflict"), self.history.shown.display());
        CliError::failed(format!(
            "{conflicts}: {outcome}; to see a version of a file: git --git-dir={repository} show ID"
        ))
    }

    /// The name under which the guard and the history know this process.
    fn name(&self) -> Option<String> {
        let desk = mounts::desk_of(&self.mount.mountpoint).ok()??;
        let name = fs::read_link(desk.mountpoint.join("workers/self")).ok()?;
        Some(name.to_string_lossy().into_owned())
    }

    /// The sentence of the guard, if it refused the call.
    fn sentence(&self, path: &Path, error: &io::Error) -> String {
        let why = || {
            let desk = mounts::desk_of(&self.mount.mountpoint).ok()??;
            let why = fs::read_to_string(desk.mountpoint.join("workers/self/why")).ok()?;
            Some(why.trim_end().split_once(' ')?.1.to_string())
        };
        // The desk keeps no refusals of operators. The file tells its holder to every user.
        let holder = || {
            let mut value = vec![0; 1 << 10];
            let file = self.tree.open(path, OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
            let length = rustix::fs::fgetxattr(file, LOCK_ATTRIBUTE, &mut value[..]).ok()?;
            let holder = String::from_utf8_lossy(&value[..length]).into_owned();
            Some(format!("{} is held by {holder}; try again when it is done", shown::path(path)))
        };
        let refused = error.raw_os_error() == Some(Errno::BUSY.raw_os_error());
        let sentence = if refused { why().or_else(holder) } else { None };
        sentence.unwrap_or_else(|| format!("{}: {error}", shown::path(path)))
    }

    fn refused(&self, path: &Path, error: &io::Error) -> CliError {
        CliError::failed(format!("{}; nothing was changed", self.sentence(path, error)))
    }

    fn failed(&self, failure: &CarryOutError) -> CliError {
        let sentence = self.sentence(&failure.path, &failure.error);
        if failure.left.is_empty() {
            return CliError::failed(format!(
                "{sentence}; what was undone until then is put back, so nothing is changed"
            ));
        }
        let left: Vec<String> =
            failure.left.iter().map(|(path, error)| format!("{} ({error})", shown::path(path))).collect();
        let left = left.join(", ");
        CliError::failed(format!(
            "{sentence}; this was undone and could not be put back: {left}; run undo again to finish it"
        ))
    }
}

/// The content of a version that was merged.
fn merged(plan: &UndoPlan, version: Option<Version>) -> Option<&[u8]> {
    match version?.content {
        KeptContent::Kept(id) => plan.merged.get(&id).map(Vec::as_slice),
        KeptContent::NotKept { .. } => None,
    }
}

fn present_at(plan: &UndoPlan, path: &Path) -> Option<Version> {
    plan.paths.iter().find(|it| it.path == path)?.present
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What becomes of a path, as a line.
fn described(path: &PathPlan) -> String {
    let name = shown::path(&path.path);
    let line = match &path.outcome {
        UndoOutcome::AlreadySo => format!("already so  {name}"),
        UndoOutcome::Restored => format!("restored    {name}"),
        UndoOutcome::Merged => format!("merged      {name}: what others changed since stays"),
        UndoOutcome::Removed => format!("removed     {name}"),
        UndoOutcome::MovedAway => format!("moved away  {name}"),
        UndoOutcome::MovedFrom(from) => format!("moved back  {name}, from {}", shown::path(from)),
        UndoOutcome::HeldBack => format!("held back   {name}: it belongs to a conflict"),
        UndoOutcome::Attributes => {
            let mode = |version: Option<Version>| version.map_or(0, |version| version.mode);
            let (present, wanted) = (mode(path.present), mode(path.wanted));
            match present == wanted {
                true => format!("owner       {name}"),
                false => format!("mode        {name}: {present:04o} becomes {wanted:04o}"),
            }
        }
        UndoOutcome::Conflict(reason) => {
            let (now, before) = (named(path.present), named(path.wanted));
            format!("conflict    {name}: {reason}; now {now}, before {before}")
        }
    };
    line + "\n"
}

/// The name of a version: the id of its content.
fn named(version: Option<Version>) -> String {
    match version {
        None => "nothing".to_string(),
        Some(Version { kind: VersionKind::Directory, .. }) => "a directory".to_string(),
        Some(Version { content: KeptContent::Kept(id), .. }) => id.to_string(),
        Some(Version { content: KeptContent::NotKept { bytes }, .. }) => {
            format!("a file of {bytes} bytes that is not kept")
        }
    }
}

/// Where content is in the tree.
type ContentPlaces = HashMap<ContentId, PathBuf>;

/// The versions of the tree and of the history.
struct UndoSource<'a> {
    tree: &'a ProjectTree,
    repository: &'a Repository,
    known: ContentPlaces,
}

impl VersionSource for UndoSource<'_> {
    fn present(&mut self, path: &Path, read: bool) -> Result<Option<Version>, String> {
        let found = self.tree.version(path, read).map_err(|error| error.to_string())?;
        if let Some(Version { content: KeptContent::Kept(id), .. }) = found {
            self.known.insert(id, path.to_path_buf());
        }
        Ok(found)
    }

    fn directory(&mut self, path: &Path, besides: &HashSet<&Path>) -> DirectoryUse {
        self.tree.directory(path, besides)
    }

    fn content(&mut self, id: ContentId) -> Result<Vec<u8>, String> {
        let error = match self.repository.read(id) {
            Ok(content) => return Ok(content),
            Err(error) => error.to_string(),
        };
        let path = self.known.get(&id).ok_or(error)?;
        let content = self.tree.content(path).map_err(|error| error.to_string())?.unwrap_or_default();
        if crate::history::undo::content_id(&content) == id {
            Ok(content)
        } else {
            Err("it was changed meanwhile".to_string())
        }
    }

    fn keeps_owners(&self) -> bool {
        rustix::process::geteuid().is_root()
    }
}

#[cfg(test)]
mod tests;
