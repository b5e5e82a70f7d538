//! Looking at a mount, in a process of its own: a call on a mount whose daemon hangs cannot be ended, not even by killing
//! who made it, and a thread that made it would keep the whole program from ending.
//!
//! Must never: touch the mount anywhere but in [`errand`].

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Errand;
use super::errand::{Asked, ask, send};
use crate::cli::failure::Failure;
use crate::cli::out;
use crate::fs::tree::SESSION;
use crate::limits::DOCTOR_SILENT_MS;
use crate::mounts;

/// A look that is under way.
pub(super) struct Look(Asked);

/// What was seen.
#[derive(Debug, PartialEq)]
pub(super) enum Seen {
    /// It answers; what it says is in force, if it says that.
    Alive(Option<Value>),
    /// Its daemon is gone.
    Dead,
    /// Nobody answers.
    Silent,
}

const DEAD: &str = "dead";

impl Look {
    /// Begin to look at a mount of ours.
    pub(super) fn begin(place: &Path) -> io::Result<Look> {
        let mut command = send(Errand::Look)?;
        command.arg(place);
        ask(command).map(Look)
    }

    /// What there is to be seen, within the time that a mount has to answer.
    pub(super) fn seen(self) -> Seen {
        match self.0.answer(Duration::from_millis(DOCTOR_SILENT_MS)) {
            None => Seen::Silent,
            Some(said) if said.stdout == DEAD.as_bytes() => Seen::Dead,
            Some(said) => Seen::Alive(serde_json::from_slice(&said.stdout).ok()),
        }
    }
}

/// The child's part.
pub(super) fn errand(place: &Path) -> Result<(), Failure> {
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
