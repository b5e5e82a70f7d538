//! Which process a claim ends with, and which connection may end a claim (C31, C42).

use super::{Caller, Callers};
use crate::fs::identity::process::age;
use crate::fs::identity::process_watch::{AnchorKind, LiveProcess};
use crate::limits::SURELY_BEFORE_MS;
use crate::queue::{ClaimFate, Now, Seq, Span, Standing, State, Task};

impl Callers {
    /// Watch the process of a worker that holds a task: after a restart of the daemon, or when another process of the worker appears.
    pub(super) fn resume_watching(&self, caller: &Caller, state: &State, now: Now) {
        let (Some(anchor), worker) = (&caller.anchor, &caller.actor.worker) else { return };
        let claims = state.worker(worker.as_str()).map_or(&[][..], |known| &known.claims);
        let claim = claims.last().and_then(|id| state.task(id.as_str())?.claim());
        let Some(claim) = claim.filter(|_| !self.process_watch.watches(worker, anchor)) else { return };
        // A process that started later may be a command that has nothing to do with the claim.
        let held = Span(now.wall.0.saturating_sub(claim.since.at.0).max(0) as u64 + SURELY_BEFORE_MS);
        if (anchor.kind != AnchorKind::Program || age(anchor.started).is_some_and(|age| age > held))
            && let Some(process) = self.alive(caller)
        {
            self.process_watch.watch(worker, process, claim.epoch());
        }
    }

    /// Let the claim that was just made end with this process.
    pub fn claimed(&self, caller: &Caller, process: LiveProcess, epoch: Seq) {
        self.process_watch.watch(&caller.actor.worker, process, epoch);
    }

    /// The process whose end ends the caller. For a claim, it is taken before the decision.
    pub fn alive(&self, caller: &Caller) -> Option<LiveProcess> {
        self.process_watch.hold(&caller.actor.worker, caller.anchor.as_ref()?)
    }

    /// Why a connection may not end a claim of its own worker, if it may not: its own claim of that task has ended, and another connection
    /// of the worker has claimed the task again. Requests that it still sends, perhaps long after its client is gone, belong to the ended
    /// claim.
    pub fn superseded(&self, caller: &Caller, task: &Task) -> Option<ClaimFate> {
        let worker = &caller.actor.worker;
        let anchor = caller.anchor.as_ref().filter(|anchor| anchor.kind == AnchorKind::Connection)?;
        let claim = task.claim().filter(|claim| claim.worker == *worker)?;
        let last = self.process_watch.last_claim(worker, anchor).filter(|last| *last < claim.epoch())?;
        let lost = task.losses.iter().rev().find(|loss| loss.worker == *worker && loss.epoch <= last)?;
        Some(ClaimFate { ended: Some((lost.at, lost.reason.clone())), now: Standing::ClaimedElsewhere })
    }
}
