//! `crewfs completions`: what makes a shell complete the commands, made from their own definition.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::{Cli, Failure, out};

#[derive(Args)]
pub(super) struct Arguments {
    /// Which shell. For bash: crewfs completions bash > /etc/bash_completion.d/crewfs
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut text = Vec::new();
    generate(arguments.shell, &mut Cli::command(), "crewfs", &mut text);
    out::write(&text);
    Ok(())
}
