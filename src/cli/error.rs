//! Why a command fails: the message and the exit code (C70): 1 refused or failed, 2 wrong usage, 3 not mounted.
//!
//! Must never: print. `main` does, once.

use std::path::Path;

/// Why a command failed, and its exit code.
#[derive(Debug)]
pub(super) struct CliError {
    pub(super) code: u8,
    pub(super) message: String,
}

impl CliError {
    /// The command was refused, or it failed.
    pub(super) fn failed(message: impl std::fmt::Display) -> CliError {
        CliError { code: 1, message: message.to_string() }
    }

    /// The arguments are wrong.
    pub(super) fn usage(message: impl std::fmt::Display) -> CliError {
        CliError { code: 2, message: message.to_string() }
    }

    /// Nothing of crewfs is mounted there.
    pub(super) fn not_mounted(place: &Path) -> CliError {
        let place = place.display();
        CliError {
            code: 3,
            message: format!("{place} is not a mount of crewfs; what is: findmnt -t fuse.crewfs"),
        }
    }
}

/// The message about a mount whose daemon is gone.
pub(super) fn dead_mount(place: &Path) -> String {
    let shown = place.display();
    format!("{shown} is a dead mount, its daemon is gone; clear it: crewfs umount {shown}")
}
