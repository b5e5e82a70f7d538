//! The command line: parses the arguments and calls the command.
//!
//! Must never: do the work itself. Each command has one file or folder here, which calls the layers below and prints.
//!
//! Exit codes (C70): 0 done, 1 refused or failed, 2 wrong usage, 3 not mounted.

mod beneath;
mod blame;
mod changes;
mod chosen_steps;
mod completions;
mod demo;
mod doctor;
mod error;
mod exit_wait;
mod find_daemon;
mod find_history;
mod init;
mod log;
mod man;
mod mount;
mod options;
mod out;
mod patch;
mod paths;
mod processes;
mod settings;
mod sftp_server;
mod top;
mod umount;
mod undo;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::error::CliError;

/// A filesystem in which many coding agents share one project. The task queue is a directory.
#[derive(Parser)]
#[command(name = "crewfs", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Make a project ready for a crew: the tasks directory, guides, hooks for agent programs; or take that out again.
    Init(init::Arguments),
    /// Mount a project, over itself when no other place is named.
    Mount(mount::Arguments),
    /// Take a mount away.
    Umount(umount::Arguments),
    /// Print the event log of a project as JSON lines, whether or not it is mounted.
    Log(log::Arguments),
    /// What was changed, by which worker and for which task: newest first.
    Changes(changes::Arguments),
    /// Which worker brought each line of a file, when and for which task.
    Blame(blame::Arguments),
    /// Take back what a worker changed, for one task or since a time.
    Undo(undo::Arguments),
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

/// Run the command that the process was started with.
pub fn main() -> ExitCode {
    let parsed = match Cli::try_parse() {
        Ok(parsed) => parsed,
        // --help and --version are among these errors.
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
        CliCommand::Init(arguments) => init::run(&arguments),
        CliCommand::Mount(arguments) => mount::run(arguments),
        CliCommand::Umount(arguments) => umount::run(&arguments),
        CliCommand::Log(arguments) => log::run(&arguments),
        CliCommand::Changes(arguments) => changes::run(&arguments),
        CliCommand::Blame(arguments) => blame::run(&arguments),
        CliCommand::Undo(arguments) => undo::run(&arguments),
        CliCommand::Top(arguments) => top::run(&arguments),
        CliCommand::Doctor(arguments) => doctor::run(&arguments),
        CliCommand::SftpServer(arguments) => sftp_server::run(&arguments),
        CliCommand::Demo(arguments) => demo::run(&arguments),
        CliCommand::Completions(arguments) => completions::run(&arguments, Cli::command()),
        CliCommand::Man(arguments) => man::run(&arguments, Cli::command()),
    })
}

/// Print what failed. The exit code is that of the command, or that of the output if only that failed.
fn exit_code(work: Result<(), CliError>) -> ExitCode {
    let mut code = 0;
    for failure in [work, out::outcome()].into_iter().filter_map(Result::err) {
        out::complain(format_args!("crewfs: {}", failure.message));
        code = if code == 0 { failure.code } else { code };
    }
    ExitCode::from(code)
}
