//! Why a worker lost a claim.
//!
//! Must never: rename a kind. The log contains these names.

use serde::{Deserialize, Serialize};

use super::{Span, WorkerName};

/// Why a claim ended without the task being finished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LossReason {
    /// The holder gave it back.
    GivenBack,
    /// An operator took it away.
    TakenAway {
        /// The operator.
        by: WorkerName,
    },
    /// The holder was silent for longer than its lease.
    LeaseExpired {
        /// How long it was silent, in milliseconds.
        silent: Span,
    },
    /// The last process of the holder ended.
    ProcessEnded {
        /// The program that it ran.
        program: String,
        /// Its number.
        pid: u32,
        /// How it ended.
        ending: ProcessEnding,
    },
    /// The holder's connection ended, and it did not come back.
    ConnectionEnded {
        /// How long it stayed away, in milliseconds.
        away: Span,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessEnding {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// The daemon could not find out.
    Unknown,
}

impl std::fmt::Display for ProcessEnding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ProcessEnding::Exited(code) => write!(f, "ended with exit code {code}"),
            ProcessEnding::Killed(signal) => write!(f, "was killed by signal {signal}"),
            ProcessEnding::Unknown => f.write_str("ended"),
        }
    }
}

impl LossReason {
    /// The name of each kind in the log.
    pub const NAMES: [&str; 5] =
        ["given_back", "taken_away", "lease_expired", "process_ended", "connection_ended"];

    /// The name of its kind in the log.
    pub fn name(&self) -> &'static str {
        match self {
            LossReason::GivenBack => "given_back",
            LossReason::TakenAway { .. } => "taken_away",
            LossReason::LeaseExpired { .. } => "lease_expired",
            LossReason::ProcessEnded { .. } => "process_ended",
            LossReason::ConnectionEnded { .. } => "connection_ended",
        }
    }

    /// Whether the task is at fault as much as the worker: such a loss counts as an attempt (C32).
    pub fn counts_as_attempt(&self) -> bool {
        match self {
            LossReason::LeaseExpired { .. }
            | LossReason::ProcessEnded { .. }
            | LossReason::ConnectionEnded { .. } => true,
            LossReason::GivenBack | LossReason::TakenAway { .. } => false,
        }
    }
}

impl std::fmt::Display for LossReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LossReason::GivenBack => f.write_str("given back"),
            LossReason::TakenAway { by } => write!(f, "taken away by {by}"),
            LossReason::LeaseExpired { silent } => write!(f, "its lease ran out after {silent} of silence"),
            LossReason::ProcessEnded { program, pid, ending } => {
                write!(f, "its process ({program}, {pid}) {ending}")
            }
            LossReason::ConnectionEnded { away } => {
                write!(f, "its connection ended and did not come back for {away}")
            }
        }
    }
}
