//! `crewfs init`: makes a project ready for a crew, and undoes that.
//!
//! `kit` has what is installed, `plan` the changes of the project's files, `record` what was installed where.
//!
//! Must never: overwrite a user's text, or write anything before everything is decided.

mod disabled;
mod exposed;
mod json;
mod kit;
mod plan;
mod record;
mod text;

use std::path::{Path, PathBuf};

use clap::Args;

pub(super) use self::exposed::Exposed;
use self::kit::{Client, InstallMethod, Merged, PARTS, PLUGIN, Part};
use self::plan::{ChangePlan, FileContent, TASKS};
use self::record::{InstallRecord, InstalledFile, RECORD};
use super::error::CliError;
use super::out::say;
use super::paths::mount_place;

#[derive(Args)]
pub(super) struct Arguments {
    /// The project's directory, mounted or not.
    directory: PathBuf,
    /// The agent programs whose hooks are installed: a list with commas. [default: those installed before; else those whose
    /// traces are in the project or whose program is in PATH; else claude]
    #[arg(long, value_delimiter = ',')]
    client: Vec<Client>,
    /// Write the Claude Code plugin into the directory instead: the same hooks, and skills for working and coordinating.
    #[arg(long, conflicts_with = "client")]
    plugin: bool,
    /// Renew what an older crewfs installed, unless it was changed since.
    #[arg(long)]
    update: bool,
    /// Take out again what was installed. What was changed since stays.
    #[arg(long, conflicts_with_all = ["client", "plugin", "update"])]
    remove: bool,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let shown = arguments.directory.display();
    // A mistyped path would become a new project.
    if arguments.directory.metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Err(CliError::failed(format!(
            "{shown} does not exist; mend the path, or make it first: mkdir -p {shown}"
        )));
    }
    let directory = mount_place(&arguments.directory)?;
    let mut plan = ChangePlan::at(directory.clone())?;
    let record = InstallRecord::read(&plan)?;
    let mut report = ChangeReport::default();
    let end = if arguments.remove {
        let Some(record) = record else {
            say!("crewfs is not installed in {shown}: there is no {RECORD}; nothing was changed");
            return Ok(());
        };
        remove(&record, &mut plan, &mut report)?;
        format!("what crewfs had installed is taken out of {shown}")
    } else if arguments.plugin {
        let mut record = record.unwrap_or_default();
        install(PLUGIN, &[], &mut record, arguments.update, &mut plan, &mut report)?;
        format!(
            "{shown} is a plugin; install it: claude plugin marketplace add {shown}; claude plugin install crewfs@crewfs"
        )
    } else {
        let clients = clients(arguments, record.as_ref(), &plan);
        let names: Vec<&str> = clients.iter().map(|client| client.name()).collect();
        let mut record = record.unwrap_or_default();
        record.clients = names.iter().map(|name| name.to_string()).collect();
        if !plan.has(TASKS) {
            plan.make_directory(TASKS, &mut record.directories);
            report.change("made", "tasks/", "");
        }
        install(PARTS, &clients, &mut record, arguments.update, &mut plan, &mut report)?;
        let whom = if names.is_empty() { String::new() } else { format!(" for {}", names.join(", ")) };
        report.report_disabled_hooks(&clients, &plan);
        format!("{shown} is ready{whom}; mount it: crewfs mount {shown}")
    };
    if !arguments.dry_run {
        for (path, why) in plan.carry_out()? {
            report.line("left", &path.display().to_string(), why);
        }
    }
    if !arguments.remove {
        // Files from before, and directories above. Files that are installed here have closed modes.
        for exposed in exposed(&directory)? {
            report.line("open", &exposed.path.display().to_string(), &exposed.why);
        }
    }
    let nothing = if report.changes == 0 { "; nothing was changed" } else { "" };
    let ChangeReport { refused, disabled, .. } = report;
    if refused > 0 {
        return Err(CliError::failed(format!(
            "{refused} of the files could not be changed; what to add to them by hand is said above"
        )));
    }
    if !disabled.is_empty() {
        return Err(CliError::failed(format!(
            "the hooks will not run for {}; what is in their way is said above",
            disabled.join(", ")
        )));
    }
    if arguments.dry_run {
        say!("this was a dry run: nothing was changed");
    } else {
        say!("{end}{nothing}");
    }
    Ok(())
}

/// Prints what is done, line by line.
#[derive(Default)]
struct ChangeReport {
    changes: usize,
    refused: usize,
    /// The agent programs whose hooks are disabled.
    disabled: Vec<&'static str>,
}

impl ChangeReport {
    fn line(&self, what: &str, path: &str, more: &str) {
        let colon = if more.is_empty() { "" } else { ": " };
        say!("{what:8} {path}{colon}{more}");
    }

    fn change(&mut self, what: &str, path: &str, more: &str) {
        self.changes += 1;
        self.line(what, path, more);
    }

    /// A registered hook does not run if the settings of its program disable hooks.
    fn report_disabled_hooks(&mut self, clients: &[Client], plan: &ChangePlan) {
        for client in clients {
            if let Some((file, why)) = disabled::reason(*client, plan) {
                self.line("off", &file, &why);
                self.disabled.push(client.name());
            }
        }
    }
}

/// The clients that the hooks are for.
fn clients(arguments: &Arguments, record: Option<&InstallRecord>, plan: &ChangePlan) -> Vec<Client> {
    let of = |wanted: &dyn Fn(&Client) -> bool| -> Vec<Client> {
        Client::ALL.into_iter().filter(|client| wanted(client)).collect()
    };
    let recorded =
        |client: &Client| record.is_some_and(|record| record.clients.iter().any(|n| n == client.name()));
    if record.is_some() || !arguments.client.is_empty() {
        return of(&|client| recorded(client) || arguments.client.contains(client));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = of(&|client| {
        let (program, traces) = client.traces();
        traces.iter().any(|trace| plan.has(trace)) || directories.iter().any(|at| at.join(program).is_file())
    });
    if found.is_empty() { vec![Client::Claude] } else { found }
}

/// Put all parts into their files, and record that.
fn install(
    parts: &[Part],
    clients: &[Client],
    record: &mut InstallRecord,
    update: bool,
    plan: &mut ChangePlan,
    report: &mut ChangeReport,
) -> Result<(), CliError> {
    for part in parts {
        if part.is_for(clients, |path| plan.has(path)) {
            put(part, record, update, plan, report)?;
        }
    }
    record.write(plan)
}

/// The files that agents run in this directory and that users other than the owner can change.
pub(super) fn exposed(directory: &Path) -> Result<Vec<Exposed>, CliError> {
    ChangePlan::at(directory.to_path_buf()).map(|plan| exposed::all(&plan))
}

/// Put one part into its file, unless it is there.
fn put(
    part: &Part,
    record: &mut InstallRecord,
    update: bool,
    plan: &mut ChangePlan,
    report: &mut ChangeReport,
) -> Result<(), CliError> {
    let (found, created) = match plan.find(part.path)? {
        FileContent::Text(text) => (text, false),
        FileContent::Missing => (part.empty().to_string(), true),
        FileContent::Unfit(why) => {
            refuse(part, &why, report);
            return Ok(());
        }
    };
    if let Some(why) = part.ambiguity(&found) {
        refuse(part, &why, report);
        return Ok(());
    }
    let recorded = record.of(part.path);
    let merged = part.merge(&found);
    if merged.as_ref().is_ok_and(|merged| merged.pieces.is_empty()) {
        return Ok(());
    }
    let (base, created, renewed) = if !created && part.marks(&found) {
        let older = recorded.and_then(|known| Some((part.unmerge(&found, &known.pieces)?, known.created)));
        match older {
            Some((base, created)) if update => (base, created, true),
            Some(_) => {
                report.line(
                    "left",
                    part.path,
                    "it is as another version of crewfs made it; to renew it: --update",
                );
                return Ok(());
            }
            None if recorded.is_none() && part.is_json() => {
                refuse(part, "it has hooks of crewfs that are not these", report);
                return Ok(());
            }
            None => {
                let why = if recorded.is_some() { "it was changed since" } else { "it is there and differs" };
                report.line("left", part.path, why);
                return Ok(());
            }
        }
    } else {
        (found, created, false)
    };
    match part.merge(&base) {
        Err(why) => refuse(part, &why, report),
        Ok(Merged { text, pieces, kept }) => {
            plan.write(part.path, text, part.method == InstallMethod::Script, &mut record.directories)?;
            record.note(InstalledFile { path: part.path.to_string(), created, pieces });
            let (what, more) = match part.method {
                _ if renewed => ("renewed", ""),
                _ if created => ("wrote", ""),
                InstallMethod::Section(_) => ("added to", "a section at its end"),
                _ => ("added to", "the hooks of crewfs"),
            };
            let kept = match kept.as_slice() {
                [] => more.to_string(),
                kept => format!("{more}; its own {} stays", kept.join(", ")),
            };
            report.change(what, part.path, &kept);
        }
    }
    Ok(())
}

/// Report why a file is not touched, and what the user can add.
fn refuse(part: &Part, why: &str, report: &mut ChangeReport) {
    if matches!(part.method, InstallMethod::Whole | InstallMethod::Script) {
        return report.line("left", part.path, why);
    }
    report.refused += 1;
    report.line("refused", part.path, &format!("{why}; add this by hand:"));
    for line in part.text.lines() {
        say!("    {line}");
    }
}

fn remove(record: &InstallRecord, plan: &mut ChangePlan, report: &mut ChangeReport) -> Result<(), CliError> {
    for installed in record.files.iter().rev() {
        let Some(part) = PARTS.iter().chain(PLUGIN).find(|part| part.path == installed.path) else {
            report.line("left", &installed.path, "this crewfs does not know it; remove it by hand");
            continue;
        };
        let text = match plan.find(part.path)? {
            FileContent::Missing => continue,
            FileContent::Text(text) => text,
            FileContent::Unfit(why) => {
                report.line("left", part.path, &why);
                continue;
            }
        };
        match part.unmerge(&text, &installed.pieces) {
            Some(rest) if installed.created && part.is_nothing(&rest) => {
                plan.remove(part.path)?;
                report.change("removed", part.path, "");
            }
            Some(rest) => {
                plan.write(part.path, rest, false, &mut Vec::new())?;
                report.change("restored", part.path, "without what crewfs had added");
            }
            None if part.marks(&text) => report.line("left", part.path, "it was changed since"),
            None => {}
        }
    }
    plan.remove(RECORD)?;
    report.changes += 1;
    for directory in record.directories.iter().rev() {
        plan.remove_directory(directory);
    }
    Ok(())
}
