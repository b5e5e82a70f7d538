//! Who serves a project: the process that has its directory open, and a state directory with the lock in it.
//!
//! May assume: `/proc`. Of processes that this user may not look into, nothing is found.
//! Must never: follow a name through a mount; what the daemon has open is reached by its descriptor.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::processes;
use crate::state_directory::LOCK;

/// A daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunningDaemon {
    pub(super) pid: u32,
    /// Leads to the state directory on the disk, also where a mount covers it, and when it was taken away.
    pub(super) state: PathBuf,
    /// What its path is now, or was last.
    pub(super) state_named: PathBuf,
}

impl RunningDaemon {
    /// The daemon of the project with this directory, wherever its state is.
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

    /// Ask it to end, if it is a process of this user.
    pub(super) fn end(&self, user: u32) {
        let Some(pid) = Pid::from_raw(self.pid as i32) else { return };
        // By descriptor: the number may be another process's at any moment.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if self.is_of(user) {
            let _ = pidfd_send_signal(process, Signal::TERM);
        }
    }

    /// Whether it is a process of this user.
    pub(super) fn is_of(&self, user: u32) -> bool {
        fs::metadata(format!("/proc/{}", self.pid)).is_ok_and(|process| process.uid() == user)
    }

    /// Whether a signal has stopped it.
    pub(super) fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The command stands in brackets and may hold some itself.
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
    }
}

/// Where a file was that a descriptor leads to: the kernel adds a word to the path of one that was removed.
fn last_path(to: PathBuf) -> PathBuf {
    let shown = to.to_str().and_then(|shown| shown.strip_suffix(" (deleted)"));
    shown.map(PathBuf::from).unwrap_or(to)
}
