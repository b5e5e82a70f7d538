//! One line of the report of `crewfs doctor`.

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing is wrong.
    Good(String),
    /// It works, but slower, later or not for all users.
    Warning(String),
    /// Something does not work, or is not safe.
    Problem(String),
}
