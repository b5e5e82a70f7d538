//! Serving until the end is requested or a mount is gone; then unmounting the desk and the tree, and closing the log.
//!
//! Must never: touch its own mounts while it serves them.

use std::io;
use std::time::Duration;

use super::service_manager::ServiceManager;
use super::start::Daemon;
use crate::limits::REQUEST_HANGS_MS;

/// How often the daemon checks whether its mounts are still there.
const POLL: Duration = Duration::from_millis(100);
/// How long a thread may serve one request before it counts as hanging.
const REQUEST_HANGS: Duration = Duration::from_millis(REQUEST_HANGS_MS);
/// Polls between two upkeeps: the service manager hears of the state, and unused descriptors are closed. A file that stays open for
/// writing could not be executed from the disk.
const POLLS_PER_UPKEEP: u64 = 10;

impl Daemon {
    /// Serve until the mounts are gone or `stopped` is true. Then unmount both, and close the log.
    pub fn serve(self, stopped: impl Fn() -> bool) {
        let mut polls = 0_u64;
        let mut detached = false;
        let mut service_manager = ServiceManager::ready();
        while !(stopped() || self.tree_session.has_ended() && self.desk_session.has_ended()) {
            // One mount without the other would let claims be made that no worker sees. Open files stay open.
            if !detached && (self.tree_session.has_ended() || self.desk_session.has_ended()) {
                detached = true;
                let _ = self.unmount_desk(true).and(self.tree_session.unmount(&self.place, true));
            }
            std::thread::sleep(POLL);
            polls += 1;
            if polls.is_multiple_of(POLLS_PER_UPKEEP) {
                let hangs = self.session_infos.iter().any(|info| info.hangs(REQUEST_HANGS));
                service_manager.beat(&self.engine, !hangs);
                self.tree_files.close_idle();
                self.desk_files.close_idle();
                self.tree.look_around();
            }
        }
        service_manager.stopping();
        let desk = |detach| self.unmount_desk(detach);
        let tree = |detach| self.tree_session.unmount(&self.place, detach);
        for unmount in [&desk as &dyn Fn(bool) -> io::Result<()>, &tree] {
            if unmount(false).is_err()
                && let Err(error) = unmount(true)
            {
                log::error!("{} cannot be unmounted: {error}", self.place.shown().display());
            }
        }
        self.tree.stop();
        self.desk_watch.stop();
        self.process_watch.stop();
        if let Some(recorder) = &self.recorder {
            recorder.stop();
        }
        self.engine.stop();
        log::info!("{} is unmounted", self.place.shown().display());
    }

    fn unmount_desk(&self, detach: bool) -> io::Result<()> {
        if self.desk_session.has_ended() {
            return Ok(());
        }
        self.desk_session.unmount(&self.place.below(self.tree_session.device(), &self.tasks)?, detach)
    }
}
