//! Whether a mount answers, checked by a child: a call on a mount whose daemon hangs cannot be ended, not even by killing
//! its process, and a thread that made it would keep the whole program from ending.
//!
//! Must never: touch the mount anywhere but in [`probe`].

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::probe::{self, Probe, ProbeProcess};
use crate::cli::error::CliError;
use crate::cli::out;
use crate::fs::tree::SESSION;
use crate::limits::DOCTOR_SILENT_MS;
use crate::mounts;

/// A check that is under way.
pub(super) struct LivenessCheck(ProbeProcess);

/// The result of a check.
#[derive(Debug, PartialEq)]
pub(super) enum Liveness {
    /// The mount answers. With what is in force there, if the daemon says that.
    Alive(Option<Value>),
    /// Its daemon is gone.
    Dead,
    /// It does not answer.
    Silent,
}

const DEAD: &str = "dead";

impl LivenessCheck {
    /// Start to check a mount of crewfs.
    pub(super) fn start(place: &Path) -> io::Result<LivenessCheck> {
        let mut command = probe::command(Probe::Liveness)?;
        command.arg(place);
        ProbeProcess::start(command).map(LivenessCheck)
    }

    /// Wait for the result, as long as a mount may take to answer.
    pub(super) fn result(self) -> Liveness {
        match self.0.answer(Duration::from_millis(DOCTOR_SILENT_MS)) {
            None => Liveness::Silent,
            Some(output) if output.stdout == DEAD.as_bytes() => Liveness::Dead,
            Some(output) => Liveness::Alive(serde_json::from_slice(&output.stdout).ok()),
        }
    }
}

/// The child's part.
pub(super) fn probe(place: &Path) -> Result<(), CliError> {
    if mounts::is_dead(place) {
        out::write(DEAD.as_bytes());
        return Ok(());
    }
    let mut value = vec![0; 1 << 16];
    if let Ok(length) = rustix::fs::getxattr(place, SESSION, &mut value[..]) {
        out::write(&value[..length]);
    }
    Ok(())
}
