//! Who serves a project: the process that has its state directory and the lock in it open.
//!
//! May assume: `/proc`. Of processes that this user may not look into, nothing is found.
//! Must never: follow a name through a mount; what the daemon has open is reached by its descriptor.

use std::fs;
use std::path::{Path, PathBuf};

use crate::daemon::{LOCK, STATE_DIRECTORY};

/// A daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) pid: u32,
    /// Leads to the state directory on the disk, also where a mount covers it.
    pub(super) state: PathBuf,
}

impl Served {
    /// The daemon of the project with this directory.
    pub(super) fn find(source: &Path) -> Option<Served> {
        let state = source.join(STATE_DIRECTORY);
        let lock = state.join(LOCK);
        fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let open = fs::read_dir(process.path().join("fd")).ok()?.flatten();
            let open: Vec<(PathBuf, PathBuf)> =
                open.filter_map(|fd| Some((fd.path(), fs::read_link(fd.path()).ok()?))).collect();
            let (to_state, _) = open.iter().find(|(_, to)| *to == state)?;
            open.iter().any(|(_, to)| *to == lock).then(|| Served { pid, state: to_state.clone() })
        })
    }

    /// Whether a signal has stopped it.
    pub(super) fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The command stands in brackets and may hold some itself.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
    }
}
