//! What a daemon serves, and how.

use std::path::PathBuf;

use crate::fs::desk;
use crate::fs::guard;
use crate::fs::identity::names;
use crate::fs::recorder::RecorderConfig;
use crate::queue::{Budget, Rules, Span};

/// The configuration of a daemon.
#[derive(Debug, Clone)]
pub struct Config {
    /// The project's directory, absolute.
    pub source: PathBuf,
    /// Where to mount it, absolute; the same as `source` to mount in place.
    pub mountpoint: PathBuf,
    /// The state directory, absolute. In the project if `None`.
    pub state: Option<PathBuf>,
    /// The name of the tasks directory.
    pub tasks: String,
    /// The lease of a task that names none.
    pub lease: Span,
    /// The order of tasks, and the limits of claims and leases.
    pub rules: Rules,
    /// Users that may change the queue whatever the mode of the tasks directory is.
    pub workers: desk::Users,
    /// How much each worker and each user may add to the event log.
    pub budget: Budget,
    /// How long a worker without work is kept.
    pub idle_timeout: Span,
    /// How long a task outlives its instruction file before it is withdrawn.
    pub file_grace: Span,
    /// How long a remote worker may be without a connection.
    pub remote_grace: Span,
    /// Whether other users may use the mount.
    pub allow_other: bool,
    /// Threads that serve each of the two mounts.
    pub threads: usize,
    /// Which users are operators, and which user remote workers log in as.
    pub names: names::Config,
    /// The settings of the guard.
    pub guard: guard::Config,
    /// What is kept of changes; `None`: nothing.
    pub history: Option<RecorderConfig>,
}
