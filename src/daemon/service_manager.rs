//! What the service manager is told: that we are ready, how things stand, and that the engine goes round (sd_notify(3)).
//!
//! May assume: nothing. Where no manager asked to be told (`NOTIFY_SOCKET`), nothing is said.
//! Must never: say that all is well while the engine's writer stands still, or no thread of a session is left to serve the kernel.

use sd_notify::NotifyState;

use crate::engine::Engine;
use crate::queue::TaskState;

/// What was told so far.
pub(super) struct ServiceManager {
    /// Whether the manager waits for signs of life.
    watched: bool,
    turns: u64,
    status: String,
}

impl ServiceManager {
    /// Everything is mounted and answers.
    pub(super) fn ready() -> ServiceManager {
        say(&[NotifyState::Ready]);
        ServiceManager { watched: sd_notify::watchdog_enabled().is_some(), turns: 0, status: String::new() }
    }

    /// To be called about once a second, with whether both mounts are served: the writer looks around as often, whether or not it has anything to do.
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

    /// The end begins.
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
