//! Tickets: what becomes of a command, at once as it looks, and for good when it is on disk.
//!
//! May assume: each command is decided at most once at a time.
//! Must never: answer twice, or answer never. A ticket whose command is dropped answers that the engine has stopped.

use std::sync::Arc;

use parking_lot::Mutex;

use super::Failure;
use crate::queue::{Outcome, Seq, TaskId};

/// Called once, with what a command came to.
type Answer = Box<dyn FnOnce(Result<Outcome, Failure>) + Send>;

/// What becomes of a command. Copies are of the same command.
#[derive(Clone)]
pub struct Ticket(Arc<Mutex<TicketState>>);

enum TicketState {
    /// It is not on disk yet. It is decided as soon as the log works, and may be decided anew if another writer was first.
    Pending { decided: Option<Outcome>, waiting: Vec<Answer> },
    /// This is final.
    Final(Result<Outcome, Failure>),
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ticket").field(&self.decided()).finish()
    }
}

impl Ticket {
    /// What is known already, and on disk.
    pub fn known(outcome: Outcome) -> Ticket {
        Ticket::of(Ok(outcome))
    }

    /// That of a command for which this is final.
    pub(super) fn of(outcome: Result<Outcome, Failure>) -> Ticket {
        Ticket(Arc::new(Mutex::new(TicketState::Final(outcome))))
    }

    /// What the command comes to as it looks now. Before it is on disk, no other caller may hear of it. `None` while the log does not
    /// work: then it is not decided yet.
    pub fn decided(&self) -> Option<Result<Outcome, Failure>> {
        match &*self.0.lock() {
            TicketState::Pending { decided, .. } => decided.clone().map(Ok),
            TicketState::Final(outcome) => Some(outcome.clone()),
        }
    }

    /// Have `answer` called with what the command came to: at once if that is final, else by the writer when it is on disk, or
    /// refused, or lost.
    pub fn on_durable(&self, answer: impl FnOnce(Result<Outcome, Failure>) + Send + 'static) {
        let outcome = match &mut *self.0.lock() {
            TicketState::Pending { waiting, .. } => return waiting.push(Box::new(answer)),
            TicketState::Final(outcome) => outcome.clone(),
        };
        answer(outcome);
    }

    /// Task and epoch of the claim that was made, as it looks now.
    pub fn claim(&self) -> Option<(TaskId, Seq)> {
        match self.decided() {
            Some(Ok(Outcome::Claimed { task, epoch })) => Some((task, epoch)),
            _ => None,
        }
    }

    /// The position of the finish that was made, as it looks now.
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
    /// Of a command that is not decided yet.
    pub(super) fn new() -> (TicketSlot, Ticket) {
        let ticket =
            Ticket(Arc::new(Mutex::new(TicketState::Pending { decided: None, waiting: Vec::new() })));
        (TicketSlot(ticket.clone()), ticket)
    }

    /// The command is decided; that is not on disk yet.
    pub(super) fn decide(&self, outcome: Outcome) {
        if let TicketState::Pending { decided, .. } = &mut *self.0.0.lock() {
            *decided = Some(outcome);
        }
    }

    /// What was decided is on disk.
    pub(super) fn keep(self) {
        let decided = self.0.decided().unwrap_or(Err(Failure::Stopping));
        self.settle(decided);
    }

    /// This is final. Not to be called while the engine's locks are held: it answers.
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
