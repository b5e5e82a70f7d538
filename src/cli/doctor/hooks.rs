//! Whether others than their owner can change the hooks of a project, and the settings of agent programs that name commands.
//!
//! Must never: look at the project but in [`probe`]: it may lie in a mount that hangs.

use std::path::Path;
use std::time::Duration;

use super::finding::Finding::{self, Problem, Warning};
use super::probe::{self, Probe, ProbeProcess};
use crate::cli::error::CliError;
use crate::cli::{init, out};
use crate::limits::DOCTOR_SILENT_MS;

const SHARED: &str = "shared ";

/// What is to be said of the project that is shown here; nothing if it does not answer, which is said elsewhere.
pub(super) fn findings(place: &Path) -> Vec<Finding> {
    let asked = probe::command(Probe::Hooks).and_then(|mut command| {
        command.arg(place);
        ProbeProcess::start(command)
    });
    let said = asked.ok().and_then(|query| query.answer(Duration::from_millis(DOCTOR_SILENT_MS)));
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    // A path may hold a line end.
    said.split_terminator('\0')
        .map(|finding| match finding.strip_prefix(SHARED) {
            // Projects are shared on purpose, with people who trust each other.
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
