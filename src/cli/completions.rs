//! `crewfs completions`: the completion script of a shell, generated from the definition of the commands.

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::error::CliError;
use super::out;

#[derive(Args)]
pub(super) struct Arguments {
    /// Which shell. For bash: crewfs completions bash > /etc/bash_completion.d/crewfs
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments, mut program: Command) -> Result<(), CliError> {
    let mut text = Vec::new();
    generate(arguments.shell, &mut program, "crewfs", &mut text);
    out::write(&text);
    Ok(())
}
