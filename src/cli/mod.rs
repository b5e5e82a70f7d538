//! The command line: what was typed, checked and called.
//!
//! Must never: do the work itself. Each command is one file here that calls one thing below and prints.
//!
//! Exit codes (C70): 0 done, 1 refused or failed, 2 wrong usage, 3 not mounted.

mod beneath;
mod completions;
mod demo;
mod doctor;
mod ending;
mod init;
mod log;
mod man;
mod mount;
mod options;
mod out;
mod processes;
mod served;
mod settings;
mod sftp_server;
mod top;
mod umount;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::mounts;

/// A filesystem in which many coding agents share one project. The task queue is a directory.
#[derive(Parser)]
#[command(name = "crewfs", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a project ready for a crew: the tasks directory, guides, hooks for agent programs; or take that out again.
    Init(init::Arguments),
    /// Mount a project, over itself when no other place is named.
    Mount(mount::Arguments),
    /// Take a mount away.
    Umount(umount::Arguments),
    /// Print the event log of a project as JSON lines, whether or not it is mounted.
    Log(log::Arguments),
    /// Watch the crew at work, live in a terminal: tasks, workers, pace, and what is stuck.
    Top(top::Arguments),
    /// What is wrong on this machine or with a mount, and what to do about it.
    Doctor(doctor::Arguments),
    /// Serve a remote worker, as the forced command of its ssh key: the client cannot choose its name.
    SftpServer(sftp_server::Arguments),
    /// The whole story in a minute: a coordinator, three workers, progress, a result.
    Demo(demo::Arguments),
    /// Print what makes a shell complete the commands of crewfs.
    Completions(completions::Arguments),
    /// Write the manual pages into a directory.
    Man(man::Arguments),
}

/// Why a command failed, and how it exits.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// It was refused or went wrong.
    fn failed(message: impl std::fmt::Display) -> Failure {
        Failure { code: 1, message: message.to_string() }
    }

    /// It was asked for in a wrong way.
    fn usage(message: impl std::fmt::Display) -> Failure {
        Failure { code: 2, message: message.to_string() }
    }

    /// There is no such mount.
    fn not_mounted(place: &Path) -> Failure {
        let place = place.display();
        Failure {
            code: 3,
            message: format!("{place} is not a mount of crewfs; what is: findmnt -t fuse.crewfs"),
        }
    }
}

/// Run the command that the process was started with.
pub fn main() -> ExitCode {
    let parsed = match Cli::try_parse() {
        Ok(parsed) => parsed,
        // Among them is what --help and --version print.
        Err(error) if error.use_stderr() => {
            let _ = error.print();
            return ExitCode::from(2);
        }
        Err(error) => {
            out::attempt(|| error.print());
            return exit_code(Ok(()));
        }
    };
    exit_code(match parsed.command {
        Command::Init(arguments) => init::run(&arguments),
        Command::Mount(arguments) => mount::run(arguments),
        Command::Umount(arguments) => umount::run(&arguments),
        Command::Log(arguments) => log::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::SftpServer(arguments) => sftp_server::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    })
}

/// Say what went wrong. The code is that of the work; where only the printing failed, that of the printing.
fn exit_code(work: Result<(), Failure>) -> ExitCode {
    let mut code = 0;
    for failure in [work, out::outcome()].into_iter().filter_map(Result::err) {
        out::complain(format_args!("crewfs: {}", failure.message));
        code = if code == 0 { failure.code } else { code };
    }
    ExitCode::from(code)
}

/// A path as it is without links and relative parts. Not for mount points that may be dead: asking them would fail.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let shown = path.display();
    path.canonicalize().map_err(|error| match error.raw_os_error() {
        Some(error) if mounts::is_of_dead(error) => Failure::failed(dead_mount(path)),
        _ => Failure::failed(format!("{shown}: {error}")),
    })
}

/// The sentence on a mount whose daemon is gone.
fn dead_mount(place: &Path) -> String {
    let shown = place.display();
    format!("{shown} is a dead mount, its daemon is gone; clear it: crewfs umount {shown}")
}

/// The place that a path names, although what is mounted there may not answer: only its parent is asked.
fn place(path: &Path) -> Result<PathBuf, Failure> {
    let full = std::path::absolute(path).map_err(Failure::failed)?;
    match (full.parent(), full.file_name()) {
        (Some(parent), Some(name)) => {
            let full = absolute(parent)?.join(name);
            // A link leads to the place; whatever else it is, dead or alive, is the place.
            if std::fs::read_link(&full).is_ok() { absolute(&full) } else { Ok(full) }
        }
        _ => absolute(path),
    }
}
