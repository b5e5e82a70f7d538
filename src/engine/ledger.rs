//! The ledger: what is decided, and what of it is not yet on disk.
//!
//! May assume: whoever calls has it to itself.
//! Must never: touch the log, or answer anybody. It tells the caller whom to answer what.
//!
//! Deciding and writing are two steps, because the kernel holds a directory's lock while it waits for the answer to a
//! CREATE: whoever decides only after the disk has answered lets one claim at a time through. So commands are judged at
//! once, against the state as it will be, by the thread that brings them; the writer takes what has gathered to the disk.

use super::{Failure, Owed, Query, Ticket, Wish};
use crate::clock::Stopwatch;
use crate::limits::COMMANDS_IN_A_BATCH;
use crate::queue::{
    Accounts, Budget, Cost, Event, Now, Outcome, Payer, Record, Refusal, Seq, State, cost_of, decide,
};

/// What the next commit takes along.
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    /// Since when each claim among them was asked for.
    pub(super) claims: Vec<Stopwatch>,
    /// The state after the last of them.
    pub(super) state: State,
    pub(super) queries: Vec<Query>,
    /// Commands that came while the log did not work.
    pub(super) backlog: Vec<Deferred>,
}

/// A command that waits for the log to work again.
pub(super) struct Deferred {
    pub(super) asked: Stopwatch,
    pub(super) wish: Wish,
    pub(super) answer: Box<dyn FnOnce(Result<Outcome, Failure>) + Send>,
}

pub(super) struct Ledger {
    /// The state as it will be when all that is decided is on disk.
    working: State,
    /// What each may add to the log. Lost decisions stay paid.
    accounts: Accounts,
    records: Vec<Record>,
    claims: Vec<Stopwatch>,
    /// Commands whose events are in `records`.
    commands: usize,
    /// Who waits until which position is on disk, in the order in which they came.
    waiting: Vec<(Seq, Owed)>,
    queries: Vec<Query>,
    backlog: Vec<Deferred>,
    durable: Seq,
    /// Where the log ended each time that what was decided after it was lost: the number of such times is the generation.
    floors: Vec<Seq>,
    stopping: bool,
}

impl Ledger {
    pub(super) fn new(state: State, budget: Budget) -> Ledger {
        Ledger {
            accounts: Accounts::new(budget),
            durable: state.tail(),
            working: state,
            records: Vec::new(),
            claims: Vec::new(),
            commands: 0,
            waiting: Vec::new(),
            queries: Vec::new(),
            backlog: Vec::new(),
            floors: Vec::new(),
            stopping: false,
        }
    }

    /// Judge a wish that was handed in so long ago, and make its events part of the next commit. Its step is done in between.
    pub(super) fn judge(
        &mut self,
        wish: Wish,
        now: Now,
        asked: Stopwatch,
    ) -> Result<(Outcome, Ticket), Failure> {
        let Wish { command, step, found } = wish;
        self.pass_time(now);
        let decision = decide(&self.working, &command)?;
        let price = match decision.events.is_empty() {
            true => None,
            false => cost_of(&self.working, &command, &decision, found.as_ref()),
        };
        if let Some((payer, cost)) = &price
            && !cost.is_due
        {
            self.accounts.check(payer, now.instant)?;
        }
        step.map_or(Ok(()), |step| step().map_err(|errno| Failure::Step { errno }))?;
        if let Some((payer, cost)) = &price {
            self.accounts.charge(payer, cost, now.instant);
        }
        self.commands += usize::from(!decision.events.is_empty());
        if !decision.events.is_empty() && matches!(decision.outcome, Outcome::Claimed { .. }) {
            self.claims.push(asked);
        }
        for event in decision.events {
            self.adopt(event, now);
        }
        // Even what changes nothing stands on what may not be on disk yet.
        Ok((decision.outcome, Ticket { generation: self.floors.len(), seq: self.working.tail() }))
    }

    /// Have a payer pay for events that a step brings with it, if anything is left to pay with.
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

    /// Whether what a ticket stands for is on disk: `None` while that is not known.
    pub(super) fn settled(&self, ticket: Ticket) -> Option<bool> {
        match self.floors.get(ticket.generation) {
            Some(floor) => Some(ticket.seq <= *floor),
            None if ticket.seq <= self.durable => Some(true),
            None => None,
        }
    }

    /// Have somebody wait for a ticket of this generation.
    pub(super) fn wait(&mut self, ticket: Ticket, owed: Owed) {
        self.waiting.push((ticket.seq, owed));
    }

    pub(super) fn ask(&mut self, query: Query) {
        self.queries.push(query);
    }

    pub(super) fn defer(&mut self, deferred: Deferred) {
        self.backlog.push(deferred);
    }

    /// The state as it will be.
    pub(super) fn working(&self) -> &State {
        &self.working
    }

    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether the writer has something to do.
    pub(super) fn has_work(&self) -> bool {
        !self.records.is_empty() || !self.queries.is_empty() || !self.backlog.is_empty() || self.stopping
    }

    /// Whether so much waits for the disk that callers must, too.
    pub(super) fn is_full(&self) -> bool {
        self.commands >= COMMANDS_IN_A_BATCH && !self.stopping
    }

    /// Everything that has gathered.
    pub(super) fn take(&mut self) -> Batch {
        self.commands = 0;
        Batch {
            records: std::mem::take(&mut self.records),
            claims: std::mem::take(&mut self.claims),
            state: self.working.clone(),
            queries: std::mem::take(&mut self.queries),
            backlog: std::mem::take(&mut self.backlog),
        }
    }

    /// All up to here is on disk: those who can be told so.
    pub(super) fn reached(&mut self, durable: Seq) -> Vec<Owed> {
        self.durable = durable;
        let (told, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(seq, _)| *seq <= durable);
        self.waiting = waiting;
        let told: Vec<(Seq, Owed)> = told;
        told.into_iter().map(|(_, owed)| owed).collect()
    }

    /// What was decided after the last commit is lost: those who must be told so.
    pub(super) fn lost(&mut self) -> Vec<Owed> {
        self.floors.push(self.durable);
        self.records.clear();
        self.claims.clear();
        self.commands = 0;
        std::mem::take(&mut self.waiting).into_iter().map(|(_, owed)| owed).collect()
    }

    /// Go on from what the log says.
    pub(super) fn reset(&mut self, state: State) {
        self.durable = state.tail();
        self.working = state;
        self.records.clear();
        self.claims.clear();
        self.commands = 0;
    }
}
