//! Why the history cannot be read or written.

use std::fmt::Display;

use thiserror::Error;

/// Why the history cannot be read or written.
#[derive(Debug, Error)]
#[error("the history cannot be {what}: {why}")]
pub struct HistoryError {
    what: &'static str,
    why: String,
}

impl HistoryError {
    /// Reading failed.
    pub(super) fn reading(why: impl Display) -> HistoryError {
        HistoryError { what: "read", why: why.to_string() }
    }

    /// Writing failed.
    pub(super) fn writing(why: impl Display) -> HistoryError {
        HistoryError { what: "written", why: why.to_string() }
    }
}
