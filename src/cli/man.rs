//! `crewfs man`: writes the manual pages, one for the program and one for each command, generated from the definition of the commands.
//!
//! Must never: touch other files of the directory.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_mangen::Man;

use super::error::CliError;

#[derive(Args)]
pub(super) struct Arguments {
    /// Where to write crewfs.1, crewfs-mount.1 and the others; read one with: man -l crewfs.1
    directory: PathBuf,
}

pub(super) fn run(arguments: &Arguments, program: Command) -> Result<(), CliError> {
    let directory = &arguments.directory;
    let failed = |error| CliError::failed(format!("{}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(failed)?;
    let mut program = program.disable_help_subcommand(true);
    // This sets the full name of each command.
    program.build();
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    for command in commands.chain([program.clone()]).collect::<Vec<_>>() {
        // crewfs-mount, as its page is called.
        let name = command.get_display_name().unwrap_or(command.get_name()).to_string();
        let mut page = Vec::new();
        Man::new(command).render(&mut page).map_err(failed)?;
        fs::write(directory.join(format!("{name}.1")), page).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_command_has_a_page_that_describes_each_of_its_options() {
        let directory = tempfile::tempdir().unwrap();
        run(&Arguments { directory: directory.path().join("man") }, Cli::command()).unwrap();
        let page =
            |name: &str| fs::read_to_string(directory.path().join("man").join(format!("{name}.1"))).unwrap();
        let plain = |page: &str| {
            page.replace("\\-", "-").replace("\\*(Aq", "'").replace("\\fB", "").replace("\\fR", "")
        };
        let mut program = Cli::command();
        program.build();
        let whole = plain(&page("crewfs"));
        let mut count = 0;
        for command in program.get_subcommands().filter(|command| command.get_name() != "help") {
            count += 1;
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} says nothing about itself");
            assert!(whole.contains(&format!("crewfs-{name}(1)")), "crewfs.1 does not name {name}");
            let page = plain(&page(&format!("crewfs-{name}")));
            assert!(page.contains(&format!("crewfs {name}")), "crewfs-{name}.1 does not say how to call it");
            // clap's text about its own --help depends on the length of the others.
            let own = |option: &&clap::Arg| !option.is_hide_set() && option.get_id() != "help";
            for option in command.get_arguments().filter(own) {
                let help =
                    option.get_help().unwrap_or_else(|| panic!("{name}: {} has no text", option.get_id()));
                let (first, said) = (help.to_string(), page.split_whitespace().collect::<Vec<_>>().join(" "));
                let first: Vec<&str> = first.split_whitespace().take(4).collect();
                assert!(said.contains(&first.join(" ")), "crewfs-{name}.1 lacks {}", option.get_id());
                if let Some(word) = option.get_long() {
                    assert!(page.contains(&format!("--{word}")), "crewfs-{name}.1 lacks --{word}");
                }
            }
        }
        assert!(count >= 8, "only {count} commands were found");
    }
}
