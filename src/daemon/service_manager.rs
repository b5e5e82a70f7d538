//! Notifies the service manager (sd_notify(3)): the daemon is ready, its status, and a watchdog signal while the engine works.
//!
//! May assume: nothing. Without `NOTIFY_SOCKET` nothing is sent.
//! Must never: send the watchdog signal while the engine's writer stands still, or while no thread of a session is left for the kernel.

use sd_notify::NotifyState;

use crate::engine::Engine;
use crate::queue::TaskState;

/// What was sent so far.
pub(super) struct ServiceManager {
    /// Whether the manager waits for watchdog signals.
    watched: bool,
    turns: u64,
    status: String,
}

impl ServiceManager {
    /// Both mounts answer.
    pub(super) fn ready() -> ServiceManager {
        say(&[NotifyState::Ready]);
        ServiceManager { watched: sd_notify::watchdog_enabled().is_some(), turns: 0, status: String::new() }
    }

    /// Call this about once a second, with whether both mounts are served. The writer makes at least one turn in that time, with or without
    /// work.
    pub(super) fn beat(&mut self, engine: &Engine, serves: bool) {
        let turns = engine.turns();
        if self.watched && turns != std::mem::replace(&mut self.turns, turns) && serves {
            say(&[NotifyState::Watchdog]);
        }
        let status = status(engine);
        if status != self.status {
            say(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// The daemon begins to stop.
    pub(super) fn stopping(self) {
        say(&[NotifyState::Stopping, NotifyState::Status("unmounting")]);
    }
}

fn status(engine: &Engine) -> String {
    if let Some(why) = engine.broken() {
        return format!("the event log does not work, so nothing can be changed: {why}");
    }
    let state = engine.state();
    let count = |of| state.count(of);
    format!(
        "{} ready, {} claimed, {} blocked, {} completed, {} failed, {} rejected",
        count(TaskState::Ready),
        count(TaskState::Claimed),
        count(TaskState::Blocked),
        count(TaskState::Completed),
        count(TaskState::Failed),
        count(TaskState::Rejected)
    )
}

fn say(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        log::debug!("the service manager does not listen: {error}");
    }
}
