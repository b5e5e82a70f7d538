//! Why a daemon does not start.

use std::fmt::Display;

use thiserror::Error;

/// Why the daemon does not start, and what to do next.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct StartError(pub(super) String);

pub(super) fn cannot(what: impl Display, error: impl Display) -> StartError {
    StartError(format!("{what}: {error}"))
}
