//! Finds the daemon of a project: the process that has open its directory, and a state directory with the lock file in it.
//!
//! May assume: `/proc`. Processes that this user may not inspect are not found.
//! Must never: follow a name through a mount. The daemon's files are reached by its descriptors.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::processes;
use crate::state_directory::LOCK;

/// A running daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunningDaemon {
    pub(super) pid: u32,
    /// Leads to the state directory on the disk, also if a mount covers it or it was removed.
    pub(super) state: PathBuf,
    /// The path of the state directory, or its last one.
    pub(super) state_named: PathBuf,
}

impl RunningDaemon {
    /// The daemon of the project with this directory, whichever state directory it has.
    pub(super) fn find(source: &Path) -> Option<RunningDaemon> {
        let source = source.to_path_buf();
        let found = processes::scan(move |process| {
            let pid = process.file_name()?.to_str()?.parse().ok()?;
            let open = fs::read_dir(process.join("fd")).ok()?.flatten();
            let open: Vec<(PathBuf, PathBuf)> =
                open.filter_map(|fd| Some((fd.path(), last_path(fs::read_link(fd.path()).ok()?)))).collect();
            let leads_to = |path: &Path| open.iter().find(|(_, to)| to == path);
            leads_to(&source)?;
            let locks = open.iter().filter(|(_, to)| to.file_name() == Some(LOCK.as_ref()));
            let (state, named) = locks.filter_map(|(_, lock)| leads_to(lock.parent()?)).next()?;
            Some(RunningDaemon { pid, state: state.join("."), state_named: named.clone() })
        });
        found.into_iter().next()
    }

    /// Send it SIGTERM, if it is a process of this user.
    pub(super) fn end(&self, user: u32) {
        let Some(pid) = Pid::from_raw(self.pid as i32) else { return };
        // By descriptor, because the pid may be reused at any moment.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if self.is_of(user) {
            let _ = pidfd_send_signal(process, Signal::TERM);
        }
    }

    /// Whether it is a process of this user.
    pub(super) fn is_of(&self, user: u32) -> bool {
        fs::metadata(format!("/proc/{}", self.pid)).is_ok_and(|process| process.uid() == user)
    }

    /// Whether it is stopped by a signal.
    pub(super) fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The command is in parentheses, and may contain some itself.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
    }
}

/// The last path of a descriptor's file. The kernel appends a word to the path of a removed file.
fn last_path(to: PathBuf) -> PathBuf {
    let shown = to.to_str().and_then(|shown| shown.strip_suffix(" (deleted)"));
    shown.map(PathBuf::from).unwrap_or(to)
}
