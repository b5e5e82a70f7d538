//! Shared by the benchmarks: waiting, servers and mounts that always end, a directory on the disk, and figures.

pub(crate) mod figures;
pub(crate) mod mount;
pub(crate) mod scratch;
pub(crate) mod server;
pub(crate) mod wait;

use std::error::Error;

/// A result whose error is a sentence for the user.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;
