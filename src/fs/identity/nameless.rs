//! Why a caller has no name.
//!
//! Must never: name an errno.

use std::sync::Arc;

use thiserror::Error;

/// Why a caller has no name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Nameless {
    /// Its `CREWFS_WORKER` is not a valid name.
    #[error("{0}")]
    Misnamed(Arc<str>),
    /// The daemon could not identify the caller, in time or at all. Such a caller cannot change guarded files either.
    #[error("{0}")]
    Unknown(&'static str),
}
