//! The writer: the only thread that changes anything.
//!
//! May assume: it has the log to itself.
//! Must never: publish a state that is not in the log, or wait for anything but its inbox and its disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use super::reserve::Reserve;
use super::{Config, Failure, Job, Owed, Query, Shared, snapshot};
use crate::limits::{
    COMMANDS_IN_A_BATCH, EVENTS_BEFORE_SNAPSHOT, EVENTS_BEFORE_SNAPSHOT_AT_STOP, REPLAY_EVENTS,
};
use crate::log::{Log, LogError, Tail};
use crate::queue::{Command, Event, Instant, Now, Outcome, Record, Seq, Span, State, decide, lease};

/// The longest that the writer sleeps, and how often it looks at leases, at the disk and at the snapshot: not at every
/// batch, because the first look costs as much as there are claims.
const TICK: Span = Span(1_000);

pub(super) struct Writer {
    log: Box<dyn Log>,
    inbox: Receiver<Job>,
    shared: Arc<Shared>,
    config: Config,
    reserve: Option<Reserve>,
    snapshot_at: Seq,
    ticked: Instant,
}

/// One command of a batch that was judged: who waits for which answer.
struct Judged {
    answer: Owed,
    outcome: Result<Outcome, Failure>,
}

impl Writer {
    pub(super) fn new(
        log: Box<dyn Log>,
        inbox: Receiver<Job>,
        shared: Arc<Shared>,
        config: Config,
        snapshot_at: Seq,
    ) -> Writer {
        let reserve = config.directory.clone().map(Reserve::take);
        let ticked = (config.clock)().instant;
        Writer { log, inbox, shared, config, reserve, snapshot_at, ticked }
    }

    pub(super) fn run(mut self) {
        let mut stopping = false;
        while !stopping {
            let mut jobs = Vec::new();
            match self.inbox.recv_timeout(TICK.to_std()) {
                Ok(job) => jobs.push(job),
                Err(RecvTimeoutError::Timeout) => self.tidy(),
                Err(RecvTimeoutError::Disconnected) => stopping = true,
            }
            // What queued up while the last batch was written shares the next one.
            jobs.extend(self.inbox.try_iter().take(COMMANDS_IN_A_BATCH - jobs.len()));
            stopping |= jobs.iter().any(|job| matches!(job, Job::Stop));
            self.work(jobs);
        }
        self.save_snapshot(EVENTS_BEFORE_SNAPSHOT_AT_STOP);
        if let Some(reserve) = &mut self.reserve {
            reserve.give_up();
        }
    }

    fn state(&self) -> Arc<State> {
        self.shared.published.read().clone()
    }

    /// One batch: judge, append, publish, answer.
    fn work(&mut self, jobs: Vec<Job>) {
        let now = (self.shared.clock)();
        self.recover();
        let mut state = (*self.state()).clone();
        let mut records = Vec::new();
        let mut judged = Vec::new();
        let mut queries = Vec::new();
        let tick = self.shared.broken.read().is_none() && now.instant >= self.ticked.after(TICK);
        if tick {
            self.ticked = now.instant;
            self.retake_reserve();
            for command in self.expired(&state, now.instant) {
                // A lease that somebody ended in the meantime is not an error.
                if let Ok(decision) = decide(&state, &command) {
                    adopt(&mut state, &mut records, decision.events, now);
                }
            }
        }
        for job in jobs {
            match job {
                Job::Submit { command, step, answer } => {
                    let outcome = self.admit(&command).and_then(|()| {
                        let decision = decide(&state, &command)?;
                        step.map_or(Ok(()), |step| step().map_err(|errno| Failure::Step { errno }))?;
                        adopt(&mut state, &mut records, decision.events, now);
                        Ok(decision.outcome)
                    });
                    judged.push(Judged { answer, outcome });
                }
                Job::Query(query) => queries.push(query),
                Job::Stop => {}
            }
        }
        let judged = match self.append(&records) {
            Ok(tail) => {
                self.publish(state, tail, &records, now.instant);
                judged
            }
            Err(error) => self.fail(judged, error),
        };
        for Judged { answer, outcome } in judged {
            answer.pay(outcome);
        }
        self.ask(queries);
        if tick {
            self.save_snapshot(EVENTS_BEFORE_SNAPSHOT);
        }
    }

    fn expired(&self, state: &State, now: Instant) -> Vec<Command> {
        let heard = |worker: &_| self.shared.roster.last_heard(worker);
        lease::expired(state, self.config.default_lease, now, heard)
    }

    /// Whether a command of this kind is taken at present.
    fn admit(&self, command: &Command) -> Result<(), Failure> {
        if let Some(why) = &*self.shared.broken.read() {
            return Err(Failure::ReadOnly(why.clone()));
        }
        let new_work =
            matches!(command, Command::Publish { .. } | Command::Claim { .. } | Command::ClaimNext { .. });
        if new_work && self.reserve.as_ref().is_some_and(|reserve| !reserve.held()) {
            return Err(Failure::DiskFull);
        }
        Ok(())
    }

    fn append(&mut self, records: &[Record]) -> Result<Tail, LogError> {
        let Some(first) = records.first() else { return Ok(self.log.tail()) };
        match self.log.append(first.seq - 1, records) {
            // Nothing was written. With the reserve given up, the same batch may fit.
            Err(LogError::Full) if self.reserve.as_mut().is_some_and(Reserve::give_up) => {
                log::error!("the disk is full: no new work is accepted until there is space again");
                self.log.append(first.seq - 1, records)
            }
            other => other,
        }
    }

    fn publish(&mut self, state: State, tail: Tail, records: &[Record], at: Instant) {
        if records.is_empty() {
            return;
        }
        self.shared.log_bytes.store(tail.bytes, Ordering::Release);
        let before = std::mem::replace(&mut *self.shared.published.write(), Arc::new(state));
        for record in records {
            let holder = match &record.event {
                Event::Completed { worker, .. } | Event::Failed { worker, .. } => worker.as_ref(),
                Event::Returned { worker, .. } => Some(worker),
                Event::Withdrawn { task } => {
                    before.task(task.as_str()).and_then(|t| Some(&t.claim()?.worker))
                }
                _ => None,
            };
            if let Some(worker) = holder {
                self.shared.roster.claim_ended(worker, at);
            }
        }
    }

    /// Nothing of the batch is acknowledged, not even its refusals: they were judged on a state that is not to be.
    fn fail(&mut self, judged: Vec<Judged>, error: LogError) -> Vec<Judged> {
        let failure = match &error {
            LogError::Full => Failure::DiskFull,
            other => {
                log::error!("the event log failed: {other}; nothing can be changed until it works again");
                *self.shared.broken.write() = Some(other.to_string());
                Failure::Log(other.to_string())
            }
        };
        let spoil = |judged: Judged| Judged { outcome: Err(failure.clone()), ..judged };
        judged.into_iter().map(spoil).collect()
    }

    /// After a failure: open the log again, and make public what is really in it.
    fn recover(&mut self) {
        if self.shared.broken.read().is_none() {
            return;
        }
        let mut state = (*self.state()).clone();
        match self.log.reopen().and_then(|_| catch_up(&mut *self.log, &mut state)) {
            Ok(()) => {
                self.shared.log_bytes.store(self.log.tail().bytes, Ordering::Release);
                *self.shared.published.write() = Arc::new(state);
                *self.shared.broken.write() = None;
                log::warn!("the event log works again");
            }
            Err(error) => *self.shared.broken.write() = Some(error.to_string()),
        }
    }

    fn ask(&mut self, queries: Vec<Query>) {
        for query in queries {
            query(&mut *self.log);
        }
    }

    /// What can be done while nobody waits.
    fn tidy(&mut self) {
        if let Err(error) = self.log.idle() {
            log::warn!("the log could not be tidied: {error}");
        }
    }

    /// Not only while nobody waits: on a full disk, those who are refused ask again and again.
    fn retake_reserve(&mut self) {
        if let Some(reserve) = &mut self.reserve
            && !reserve.held()
            && reserve.retake()
        {
            log::warn!("there is space on the disk again: new work is accepted");
        }
    }

    fn save_snapshot(&mut self, events: u64) {
        let state = self.state();
        // A snapshot costs as much as there are tasks: it must be worth as many events.
        let worth = events.max(state.len() as u64 / 4);
        let Some(directory) = &self.config.directory else { return };
        // On a full disk, the last space is for work to be finished.
        let full = self.reserve.as_ref().is_some_and(|reserve| !reserve.held());
        if full || state.tail() - self.snapshot_at < worth {
            return;
        }
        match snapshot::save(directory, &state) {
            Ok(()) => self.snapshot_at = state.tail(),
            Err(error) => log::warn!("no snapshot could be written, a start will take longer: {error}"),
        }
    }
}

/// Number the events of one decision, and make them part of the state as it will be.
fn adopt(state: &mut State, records: &mut Vec<Record>, events: Vec<Event>, now: Now) {
    for event in events {
        let record = Record { seq: state.tail() + 1, at: now.wall.max(state.last_at()), event };
        state.apply(&record);
        records.push(record);
    }
}

/// Apply what the log has and the state has not.
pub(super) fn catch_up(log: &mut dyn Log, state: &mut State) -> Result<(), LogError> {
    loop {
        let records = log.read(state.tail(), REPLAY_EVENTS)?;
        for record in &records {
            state.apply(record);
        }
        if records.len() < REPLAY_EVENTS {
            break;
        }
    }
    match log.tail().seq {
        tail if tail == state.tail() => Ok(()),
        tail => Err(LogError::Damaged {
            seq: tail + 1,
            why: format!("events up to {} are missing", state.tail()),
        }),
    }
}

/// The text that an event carries.
pub(super) fn text_of(log: &mut dyn Log, seq: Seq) -> Result<Vec<u8>, LogError> {
    let record = match seq.checked_sub(1) {
        Some(before) => log.read(before, 1)?.pop(),
        None => None,
    };
    match record.map(|record| record.event) {
        Some(Event::Reported { text, .. })
        | Some(Event::Completed { text: Some(text), .. } | Event::Failed { text: Some(text), .. }) => {
            Ok(text.0)
        }
        _ => Err(LogError::Damaged { seq, why: "it carries no text".into() }),
    }
}
