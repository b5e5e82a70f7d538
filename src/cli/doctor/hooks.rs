//! Checks whether users other than the owner can change a project's hooks, and settings of agent programs that name commands.
//!
//! Must never: touch the project outside of [`probe`]. It may be in a mount that hangs.

use std::path::Path;
use std::time::Duration;

use super::finding::Finding::{self, Problem, Warning};
use super::probe::{self, Probe, ProbeProcess};
use crate::cli::error::CliError;
use crate::cli::{init, out};
use crate::limits::DOCTOR_SILENT_MS;

const SHARED: &str = "shared ";

/// The findings about the project at this place. Empty if it does not answer, which another check reports.
pub(super) fn findings(place: &Path) -> Vec<Finding> {
    let asked = probe::command(Probe::Hooks).and_then(|mut command| {
        command.arg(place);
        ProbeProcess::start(command)
    });
    let said = asked.ok().and_then(|query| query.answer(Duration::from_millis(DOCTOR_SILENT_MS)));
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    // A path may contain a line end.
    said.split_terminator('\0')
        .map(|finding| match finding.strip_prefix(SHARED) {
            // Projects are shared on purpose, among people that trust each other.
            Some(shared) => Warning(shared.to_string()),
            None => Problem(finding.to_string()),
        })
        .collect()
}

/// The child's part.
pub(super) fn probe(place: &Path) -> Result<(), CliError> {
    for exposed in init::exposed(place)? {
        let shared = if exposed.is_shared { SHARED } else { "" };
        out::write(format!("{shared}{}: {}\0", exposed.path.display(), exposed.why).as_bytes());
    }
    Ok(())
}
