//! What a daemon serves, and how.

use std::path::PathBuf;

use crate::fs::desk;
use crate::fs::guard;
use crate::fs::identity::names;
use crate::queue::{Budget, Rules, Span};

/// What to serve, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// The project's directory, absolute.
    pub source: PathBuf,
    /// Where to mount it, absolute; the same as `source` to mount in place.
    pub mountpoint: PathBuf,
    /// Where the state is kept, absolute; in the project when that is not said.
    pub state: Option<PathBuf>,
    /// The name of the tasks directory.
    pub tasks: String,
    /// The lease of a task that names none.
    pub lease: Span,
    /// In which order tasks go to workers, how many to one, and for how long at most.
    pub rules: Rules,
    /// The users who may change the queue whatever the rights of the tasks directory are.
    pub workers: desk::Users,
    /// How much each worker and user may add to the event log.
    pub budget: Budget,
    /// How long a worker without work is kept.
    pub idle_timeout: Span,
    /// How long a task outlives its instruction file before it is withdrawn.
    pub file_grace: Span,
    /// How long a worker may be without its connection.
    pub remote_grace: Span,
    /// Whether other users may use the mount.
    pub allow_other: bool,
    /// How many threads serve each of the two mounts.
    pub threads: usize,
    /// Whom names belong to, and who are operators.
    pub names: names::Config,
    /// How changes of the project's files are let through.
    pub guard: guard::Config,
}
