//! Decisions that are not on disk yet: the commands of the next commit.
//!
//! May assume: its callers hold the lock around it.
//! Must never: touch the log, or settle a ticket. It returns the slots, and the caller settles them without the lock.
//!
//! Deciding and writing are two steps. The kernel holds the lock of a directory while it waits for the answer to a CREATE. If that answer
//! waited for the disk, the claims would follow one after the other. So the thread that submits a command judges it at once, against the
//! state as it will be. The writer takes all these decisions to the disk.

use std::sync::mpsc::SyncSender;

use super::ticket::TicketSlot;
use super::{Failure, Submission};
use crate::clock::Stopwatch;
use crate::limits::COMMANDS_IN_A_BATCH;
use crate::queue::{
    Accounts, Budget, Command, Cost, Event, Now, Outcome, Payer, Record, Refusal, Seq, State, cost_of, decide,
};

/// A decided command. Its events are among the records.
pub(super) struct PendingCommand {
    submission: Submission,
    submitted: Stopwatch,
    slot: TicketSlot,
    /// Whether the command makes a claim, whose duration is counted.
    is_claim: bool,
}

impl PendingCommand {
    /// The time since the command was submitted, if the command makes a claim.
    pub(super) fn claim(&self) -> Option<&Stopwatch> {
        self.is_claim.then_some(&self.submitted)
    }

    pub(super) fn into_slot(self) -> TicketSlot {
        self.slot
    }
}

/// A command that waits until the log works again.
pub(super) struct Deferred {
    pub(super) submission: Submission,
    pub(super) submitted: Stopwatch,
    pub(super) slot: TicketSlot,
}

/// The content of the next commit.
pub(super) struct Batch {
    pub(super) entries: Vec<PendingCommand>,
    pub(super) records: Vec<Record>,
    /// The state after the last record.
    pub(super) state: State,
    /// Senders that are dropped when the batch is on disk or lost.
    pub(super) barriers: Vec<SyncSender<()>>,
    pub(super) deferred: Vec<Deferred>,
}

/// See the module.
pub(super) struct Pending {
    /// The state as it will be when all decisions are on disk.
    working: State,
    /// The accounts of workers and users. Decisions that are lost stay paid.
    accounts: Accounts,
    entries: Vec<PendingCommand>,
    records: Vec<Record>,
    /// How many entries have events.
    changes: usize,
    /// Whether the writer is committing a batch.
    is_committing: bool,
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
            is_committing: false,
            barriers: Vec::new(),
            deferred: Vec::new(),
            stopping: false,
        }
    }

    /// Judges a command and adds its events to the next commit. `submitted` is when the caller submitted it.
    ///
    /// # Errors
    /// The slot, and the outcome with which to settle it at once: a refusal, or a success if nothing has to be written and the whole
    /// working state is on disk.
    pub(super) fn enter(
        &mut self,
        submission: Submission,
        now: Now,
        submitted: Stopwatch,
        slot: TicketSlot,
    ) -> Result<(), (TicketSlot, Result<Outcome, Failure>)> {
        self.pass_time(now);
        let (outcome, events) = match self.judge(&submission, now) {
            Ok(decision) => decision,
            Err(failure) => return Err((slot, Err(failure))),
        };
        if events.is_empty() && self.entries.is_empty() && !self.is_committing {
            return Err((slot, Ok(outcome)));
        }
        self.push(PendingCommand { submission, submitted, slot, is_claim: false }, outcome, events, now);
        Ok(())
    }

    fn judge(&mut self, submission: &Submission, now: Now) -> Result<(Outcome, Vec<Event>), Failure> {
        let Submission { command, payer, .. } = submission;
        let decision = decide(&self.working, command)?;
        let charge = match decision.events.is_empty() {
            true => None,
            false => cost_of(&self.working, command, &decision, payer.as_ref()),
        };
        if let Some((payer, cost)) = &charge
            && !cost.is_due
        {
            self.accounts.check(payer, now.instant)?;
        }
        submission.check()?;
        if let Some((payer, cost)) = &charge {
            self.accounts.charge(payer, cost, now.instant);
        }
        Ok((decision.outcome, decision.events))
    }

    fn push(&mut self, mut entry: PendingCommand, outcome: Outcome, events: Vec<Event>, now: Now) {
        self.changes += usize::from(!events.is_empty());
        entry.is_claim = !events.is_empty() && matches!(outcome, Outcome::Claimed { .. });
        events.into_iter().for_each(|event| self.add_event(event, now));
        entry.slot.decide(outcome);
        // A decision without events may depend on events that are not on disk yet. So it waits for the same commit.
        self.entries.push(entry);
    }

    /// Judges the commands of a batch and later ones again, after another writer appended first. `state` is the state of the log now.
    /// Returns the new batch, and the commands that are refused now.
    pub(super) fn rejudge(
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
            // The command has already been charged.
            let decision = decide(&self.working, &entry.submission.command).map_err(Failure::from);
            match decision.and_then(|decision| entry.submission.check().map(|()| decision)) {
                Ok(decision) => self.push(entry, decision.outcome, decision.events, now),
                Err(failure) => refused.push((entry.slot, failure)),
            }
        }
        (self.take(), refused)
    }

    /// Enters a command of the engine itself. No caller waits for it.
    pub(super) fn enter_own(&mut self, command: Command, now: Now) {
        let (slot, _) = TicketSlot::new();
        // A command that no longer applies is no error.
        let _ = self.enter(command.into(), now, Stopwatch::start(), slot);
    }

    /// Charges a payer for events that will follow from an operation on a file, if its balance is positive.
    pub(super) fn spend(&mut self, payer: &Payer, events: u64, now: Now) -> Result<(), Refusal> {
        self.accounts.check(payer, now.instant)?;
        self.accounts.charge(payer, &Cost { events, ..Cost::default() }, now.instant);
        Ok(())
    }

    /// Applies the changes that are due before a command is judged. So a claim finds the tasks that are ready now.
    pub(super) fn pass_time(&mut self, now: Now) {
        let at = now.wall.max(self.working.last_at());
        if self.working.next_due().is_some_and(|due| due <= at) {
            self.add_event(Event::TimePassed, now);
        }
    }

    /// Numbers an event and applies it to the working state.
    fn add_event(&mut self, event: Event, now: Now) {
        let at = now.wall.max(self.working.last_at());
        let record = Record { seq: self.working.tail() + 1, at, event };
        self.working.apply(&record);
        self.records.push(record);
    }

    /// Adds a sender to drop when all commands that were submitted before are on disk or lost.
    pub(super) fn wait_with(&mut self, barrier: SyncSender<()>) {
        self.barriers.push(barrier);
    }

    pub(super) fn defer(&mut self, deferred: Deferred) {
        self.deferred.push(deferred);
    }

    /// The state as it will be when all decisions are on disk.
    pub(super) fn working(&self) -> &State {
        &self.working
    }

    /// The position of the last decided event.
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

    /// Whether so many decisions wait for the disk that callers must wait.
    pub(super) fn is_full(&self) -> bool {
        self.changes >= COMMANDS_IN_A_BATCH && !self.stopping
    }

    /// Takes all that has gathered. The result of the commit is unknown until [`Pending::end_commit`].
    pub(super) fn take(&mut self) -> Batch {
        self.changes = 0;
        self.is_committing = true;
        Batch {
            entries: std::mem::take(&mut self.entries),
            records: std::mem::take(&mut self.records),
            state: self.working.clone(),
            barriers: std::mem::take(&mut self.barriers),
            deferred: std::mem::take(&mut self.deferred),
        }
    }

    /// Notes that the taken batch is on disk or lost.
    pub(super) fn end_commit(&mut self) {
        self.is_committing = false;
    }

    /// Continues from the state of the log. Decisions that are not written are lost; returns their slots, which the caller must settle.
    pub(super) fn reset(&mut self, state: State) -> Vec<TicketSlot> {
        self.working = state;
        self.records.clear();
        self.changes = 0;
        std::mem::take(&mut self.entries).into_iter().map(PendingCommand::into_slot).collect()
    }

    /// Takes the commands that still wait for the log, when the engine stops.
    pub(super) fn take_deferred(&mut self) -> Vec<Deferred> {
        std::mem::take(&mut self.deferred)
    }
}
