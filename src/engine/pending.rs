//! What is decided and not yet on disk: the commands of the next commit.
//!
//! May assume: each caller has it to itself.
//! Must never: touch the log, or answer anyone. Slots are handed to the caller, who settles them without the lock.
//!
//! Deciding and writing are two steps, because the kernel holds a directory's lock while it waits for the answer to a
//! CREATE: if that came after the disk's, one claim at a time would get through. So a command is judged at
//! once, against the state as it will be, by the thread that brings it; the writer takes what has gathered to the disk.

use std::sync::mpsc::SyncSender;

use super::ticket::TicketSlot;
use super::{Failure, Submission};
use crate::clock::Stopwatch;
use crate::limits::COMMANDS_IN_A_BATCH;
use crate::queue::{
    Accounts, Budget, Command, Cost, Event, Now, Outcome, Payer, Record, Refusal, Seq, State, cost_of, decide,
};

/// A command that is decided, whose events are among the records.
pub(super) struct PendingCommand {
    submission: Submission,
    asked: Stopwatch,
    slot: TicketSlot,
    /// Whether it claims something, which the counters time.
    claims: bool,
}

impl PendingCommand {
    /// Since when a claim was asked for, if this is one.
    pub(super) fn claim(&self) -> Option<&Stopwatch> {
        self.claims.then_some(&self.asked)
    }

    pub(super) fn into_slot(self) -> TicketSlot {
        self.slot
    }
}

/// A command that waits for the log to work again.
pub(super) struct Deferred {
    pub(super) submission: Submission,
    pub(super) asked: Stopwatch,
    pub(super) slot: TicketSlot,
}

/// What the next commit takes along.
pub(super) struct Batch {
    pub(super) entries: Vec<PendingCommand>,
    pub(super) records: Vec<Record>,
    /// The state after the last of them.
    pub(super) state: State,
    /// Dropped when the batch is on disk.
    pub(super) barriers: Vec<SyncSender<()>>,
    pub(super) deferred: Vec<Deferred>,
}

/// See the module.
pub(super) struct Pending {
    /// The state as it will be when all that is decided is on disk.
    working: State,
    /// What each may add to the log. Decisions that are lost stay paid.
    accounts: Accounts,
    entries: Vec<PendingCommand>,
    records: Vec<Record>,
    /// Entries that have events.
    changes: usize,
    /// Whether the writer has a batch whose fate is not known.
    in_flight: bool,
    barriers: Vec<SyncSender<()>>,
    deferred: Vec<Deferred>,
    stopping: bool,
}

impl Pending {
    pub(super) fn new(state: State, budget: Budget) -> Pending {
        Pending {
            working: state,
            accounts: Accounts::new(budget),
            entries: Vec::new(),
            records: Vec::new(),
            changes: 0,
            in_flight: false,
            barriers: Vec::new(),
            deferred: Vec::new(),
            stopping: false,
        }
    }

    /// Judge a command that was handed in so long ago, and make its events part of the next commit.
    ///
    /// # Errors
    /// Why the command does nothing, and the slot that is to be told so; an outcome instead, when all it stands on is on disk.
    pub(super) fn enter(
        &mut self,
        submission: Submission,
        now: Now,
        asked: Stopwatch,
        slot: TicketSlot,
    ) -> Result<(), (TicketSlot, Result<Outcome, Failure>)> {
        self.pass_time(now);
        let (outcome, events) = match self.judge(&submission, now) {
            Ok(decision) => decision,
            Err(failure) => return Err((slot, Err(failure))),
        };
        if events.is_empty() && self.entries.is_empty() && !self.in_flight {
            return Err((slot, Ok(outcome)));
        }
        self.push(PendingCommand { submission, asked, slot, claims: false }, outcome, events, now);
        Ok(())
    }

    fn judge(&mut self, submission: &Submission, now: Now) -> Result<(Outcome, Vec<Event>), Failure> {
        let Submission { command, payer, .. } = submission;
        let decision = decide(&self.working, command)?;
        let price = match decision.events.is_empty() {
            true => None,
            false => cost_of(&self.working, command, &decision, payer.as_ref()),
        };
        if let Some((payer, cost)) = &price
            && !cost.is_due
        {
            self.accounts.check(payer, now.instant)?;
        }
        submission.holds()?;
        if let Some((payer, cost)) = &price {
            self.accounts.charge(payer, cost, now.instant);
        }
        Ok((decision.outcome, decision.events))
    }

    fn push(&mut self, mut entry: PendingCommand, outcome: Outcome, events: Vec<Event>, now: Now) {
        self.changes += usize::from(!events.is_empty());
        entry.claims = !events.is_empty() && matches!(outcome, Outcome::Claimed { .. });
        events.into_iter().for_each(|event| self.adopt(event, now));
        entry.slot.decide(outcome);
        // What changes nothing stands on what may not be on disk yet: it waits like what does.
        self.entries.push(entry);
    }

    /// Another writer was first. Judge the commands of a batch, and those that came since, in the state that the log has now: the
    /// batch that takes its place. Those that are refused now are to be told so.
    pub(super) fn judge_again(
        &mut self,
        state: State,
        batch: Vec<PendingCommand>,
        now: Now,
    ) -> (Batch, Vec<(TicketSlot, Failure)>) {
        let later = std::mem::take(&mut self.entries);
        self.reset(state);
        self.pass_time(now);
        let mut refused = Vec::new();
        for entry in batch.into_iter().chain(later) {
            // It is paid for.
            let decision = decide(&self.working, &entry.submission.command).map_err(Failure::from);
            match decision.and_then(|decision| entry.submission.holds().map(|()| decision)) {
                Ok(decision) => self.push(entry, decision.outcome, decision.events, now),
                Err(failure) => refused.push((entry.slot, failure)),
            }
        }
        (self.take(), refused)
    }

    /// A command of the engine's own, of which no caller waits to hear.
    pub(super) fn enter_own(&mut self, command: Command, now: Now) {
        let (slot, _) = TicketSlot::new();
        // One that no longer applies is no error.
        let _ = self.enter(command.into(), now, Stopwatch::start(), slot);
    }

    /// Have a payer pay for events that something else brings with it, if anything is left to pay with.
    pub(super) fn spend(&mut self, payer: &Payer, events: u64, now: Now) -> Result<(), Refusal> {
        self.accounts.check(payer, now.instant)?;
        self.accounts.charge(payer, &Cost { events, ..Cost::default() }, now.instant);
        Ok(())
    }

    /// What changes by itself has changed before anything is judged: so a claim finds the tasks of this moment.
    pub(super) fn pass_time(&mut self, now: Now) {
        let at = now.wall.max(self.working.last_at());
        if self.working.next_due().is_some_and(|due| due <= at) {
            self.adopt(Event::TimePassed, now);
        }
    }

    /// Number an event, and make it part of the state as it will be.
    fn adopt(&mut self, event: Event, now: Now) {
        let at = now.wall.max(self.working.last_at());
        let record = Record { seq: self.working.tail() + 1, at, event };
        self.working.apply(&record);
        self.records.push(record);
    }

    /// Drop this when all that was handed in before is on disk or lost.
    pub(super) fn wait_with(&mut self, barrier: SyncSender<()>) {
        self.barriers.push(barrier);
    }

    pub(super) fn defer(&mut self, deferred: Deferred) {
        self.deferred.push(deferred);
    }

    /// The state as it will be.
    pub(super) fn working(&self) -> &State {
        &self.working
    }

    /// The position of the last event that is decided.
    pub(super) fn tail(&self) -> Seq {
        self.working.tail()
    }

    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether the writer has something to do.
    pub(super) fn has_work(&self) -> bool {
        !self.entries.is_empty()
            || !self.records.is_empty()
            || !self.barriers.is_empty()
            || !self.deferred.is_empty()
            || self.stopping
    }

    /// Whether so much waits for the disk that callers must, too.
    pub(super) fn is_full(&self) -> bool {
        self.changes >= COMMANDS_IN_A_BATCH && !self.stopping
    }

    /// Everything that has gathered. Until [`Pending::landed`] its fate is unknown.
    pub(super) fn take(&mut self) -> Batch {
        self.changes = 0;
        self.in_flight = true;
        Batch {
            entries: std::mem::take(&mut self.entries),
            records: std::mem::take(&mut self.records),
            state: self.working.clone(),
            barriers: std::mem::take(&mut self.barriers),
            deferred: std::mem::take(&mut self.deferred),
        }
    }

    /// The batch that was taken is on disk, or lost.
    pub(super) fn landed(&mut self) {
        self.in_flight = false;
    }

    /// Go on from what the log says. What was decided and not written is lost: those to be told so.
    pub(super) fn reset(&mut self, state: State) -> Vec<TicketSlot> {
        self.working = state;
        self.records.clear();
        self.changes = 0;
        std::mem::take(&mut self.entries).into_iter().map(PendingCommand::into_slot).collect()
    }

    /// Commands that still wait for the log, when the engine stops.
    pub(super) fn give_up(&mut self) -> Vec<Deferred> {
        std::mem::take(&mut self.deferred)
    }
}
