//! Tickets: the outcome of a command, first as decided, and then as final when it is on disk.
//!
//! May assume: no command is decided twice at the same time.
//! Must never: call back twice, or never. If a command is dropped, its ticket is settled with [`Failure::Stopping`].

use std::sync::Arc;

use parking_lot::Mutex;

use super::Failure;
use crate::queue::{Outcome, Seq, TaskId};

/// A callback that is called once, with the final outcome.
type Answer = Box<dyn FnOnce(Result<Outcome, Failure>) + Send>;

/// The outcome of a command. Copies belong to the same command.
#[derive(Clone)]
pub struct Ticket(Arc<Mutex<TicketState>>);

enum TicketState {
    /// The command is not on disk yet. `decided` is `None` while the log does not work. The command may be decided again if another writer
    /// appended first.
    Pending { decided: Option<Outcome>, waiting: Vec<Answer> },
    /// The outcome is final.
    Final(Result<Outcome, Failure>),
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ticket").field(&self.decided()).finish()
    }
}

impl Ticket {
    /// The ticket of an outcome that is already on disk.
    pub fn known(outcome: Outcome) -> Ticket {
        Ticket::of(Ok(outcome))
    }

    /// The ticket of a command with a final outcome.
    pub(super) fn of(outcome: Result<Outcome, Failure>) -> Ticket {
        Ticket(Arc::new(Mutex::new(TicketState::Final(outcome))))
    }

    /// The outcome as decided so far. Until it is on disk, it must not be shown to other callers. `None` while the log does not work,
    /// because then the command is not decided yet.
    pub fn decided(&self) -> Option<Result<Outcome, Failure>> {
        match &*self.0.lock() {
            TicketState::Pending { decided, .. } => decided.clone().map(Ok),
            TicketState::Final(outcome) => Some(outcome.clone()),
        }
    }

    /// Calls `answer` with the final outcome: at once if it is already final; otherwise the writer calls it when the command is on disk,
    /// refused or lost.
    pub fn on_durable(&self, answer: impl FnOnce(Result<Outcome, Failure>) + Send + 'static) {
        let outcome = match &mut *self.0.lock() {
            TicketState::Pending { waiting, .. } => return waiting.push(Box::new(answer)),
            TicketState::Final(outcome) => outcome.clone(),
        };
        answer(outcome);
    }

    /// The task and epoch of the claim, as decided so far.
    pub fn claim(&self) -> Option<(TaskId, Seq)> {
        match self.decided() {
            Some(Ok(Outcome::Claimed { task, epoch })) => Some((task, epoch)),
            _ => None,
        }
    }

    /// The position of the finish, as decided so far.
    pub fn finish(&self) -> Option<Seq> {
        match self.decided() {
            Some(Ok(Outcome::Finished { finish })) => Some(finish),
            _ => None,
        }
    }
}

/// The engine's side of a ticket.
pub(super) struct TicketSlot(Ticket);

impl TicketSlot {
    /// The slot and the ticket of a command that is not decided yet.
    pub(super) fn new() -> (TicketSlot, Ticket) {
        let ticket =
            Ticket(Arc::new(Mutex::new(TicketState::Pending { decided: None, waiting: Vec::new() })));
        (TicketSlot(ticket.clone()), ticket)
    }

    /// Sets the outcome as decided. It is not on disk yet.
    pub(super) fn decide(&self, outcome: Outcome) {
        if let TicketState::Pending { decided, .. } = &mut *self.0.0.lock() {
            *decided = Some(outcome);
        }
    }

    /// Makes the decided outcome final, because it is on disk.
    pub(super) fn settle_as_decided(self) {
        let decided = self.0.decided().unwrap_or(Err(Failure::Stopping));
        self.settle(decided);
    }

    /// Makes an outcome final and calls the waiting callbacks. The caller must not hold a lock of the engine.
    pub(super) fn settle(self, outcome: Result<Outcome, Failure>) {
        self.finish(outcome);
    }

    fn finish(&self, outcome: Result<Outcome, Failure>) {
        let before = std::mem::replace(&mut *self.0.0.lock(), TicketState::Final(outcome.clone()));
        if let TicketState::Pending { waiting, .. } = before {
            waiting.into_iter().for_each(|answer| answer(outcome.clone()));
        }
    }
}

impl Drop for TicketSlot {
    fn drop(&mut self) {
        if matches!(&*self.0.0.lock(), TicketState::Pending { .. }) {
            self.finish(Err(Failure::Stopping));
        }
    }
}
