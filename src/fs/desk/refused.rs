//! What happens to a refusal on its way to the caller: it is counted, and recorded where the worker can read it (C55).
//!
//! Must never: change the error.

use super::super::identity::callers::Caller;
use super::super::{FsError, Result};
use super::DeskCore;
use crate::engine::Failure;
use crate::queue::Outcome;

impl DeskCore {
    /// The outcome of a command for the caller. A refusal is also recorded where the worker can read it.
    pub(super) fn answer(
        &self,
        caller: &Caller,
        outcome: std::result::Result<Outcome, Failure>,
    ) -> Result<Outcome> {
        outcome.map_err(|failure| self.refused(caller, failure.into()))
    }

    /// Counts and records the refusal of a request of this caller.
    pub(super) fn refused(&self, caller: &Caller, error: FsError) -> FsError {
        if let FsError::Queue(refusal) = &error {
            self.view.engine.counters().refusals.count(refusal);
        }
        if let Some(why) = error.sentence(&self.view.config.tasks) {
            let now = (self.view.engine.clock())();
            let presence = self.view.engine.roster().heard(&caller.actor.worker, caller.actor.uid, now);
            presence.refused(now.wall, why);
        }
        error
    }
}
