//! The writer: the only thread that touches the log.
//!
//! May assume: it has the log to itself.
//! Must never: publish a state that is not in the log, or settle a ticket while it holds a lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::pending::{Batch, Deferred, PendingCommand};
use super::reserve::Reserve;
use super::snapshot::Snapshots;
use super::superseded::Superseded;
use super::{Config, EngineShared, Failure};
use crate::limits::{EVENTS_BEFORE_SNAPSHOT, EVENTS_BEFORE_SNAPSHOT_AT_STOP, REPLAY_EVENTS};
use crate::log::{Log, LogError, Tail};
use crate::queue::{Command, Content, Event, Instant, Now, Record, Seq, Span, State, lease};

/// The longest that the writer sleeps, and how often it looks at leases, at the disk and at the snapshot: not at every
/// batch, because the first look costs as much as there are claims.
const TICK: Span = Span(1_000);

pub(super) struct Writer {
    log: Box<dyn Log>,
    shared: Arc<EngineShared>,
    config: Config,
    reserve: Option<Reserve>,
    snapshots: Option<Snapshots>,
    superseded: Superseded,
    ticked: Instant,
    /// How often the state directory had been restored when this was last looked at.
    restored: u64,
}

impl Writer {
    pub(super) fn new(
        log: Box<dyn Log>,
        shared: Arc<EngineShared>,
        config: Config,
        snapshot_at: Seq,
    ) -> Writer {
        let reserve = config.directory.clone().map(Reserve::take);
        let ticked = (config.clock)().instant;
        let superseded = Superseded::since(&shared.published.read());
        let snapshots = config.directory.clone().map(|directory| Snapshots::new(directory, snapshot_at));
        let writer = Writer { log, shared, config, reserve, snapshots, superseded, ticked, restored: 0 };
        writer.note_space();
        writer
    }

    pub(super) fn run(mut self) {
        let mut stopping = false;
        while !stopping {
            self.shared.turns.fetch_add(1, Ordering::Relaxed);
            let batch = {
                let mut pending = self.shared.pending.lock();
                let idle =
                    !pending.has_work() && self.shared.work.wait_for(&mut pending, TICK.to_std()).timed_out();
                drop(pending);
                if idle {
                    self.tidy();
                }
                self.tick();
                pending = self.shared.pending.lock();
                stopping = pending.is_stopping();
                pending.take()
            };
            self.shared.room.notify_all();
            self.work(batch);
        }
        // The last look at the log's place: it stays as this leaves it.
        if self.shared.broken.read().is_some() {
            self.recover();
        } else if let Err(error) = self.log.stay() {
            self.fail(error, Vec::new());
        }
        // The tickets of what still waits are settled by what is dropped here: that the engine stops.
        let unanswered = self.shared.pending.lock().give_up();
        drop(unanswered);
        let lost = self.shared.pending.lock().reset((*self.state()).clone());
        drop(lost);
        let (state, is_full) = (self.state(), self.is_full());
        if let Some(snapshots) = self.snapshots.as_mut().filter(|_| !is_full) {
            snapshots.end(&state, EVENTS_BEFORE_SNAPSHOT_AT_STOP);
        }
        if let Some(reserve) = &mut self.reserve {
            reserve.give_up();
        }
    }

    fn state(&self) -> Arc<State> {
        self.shared.published.read().clone()
    }

    /// One batch: append, publish, settle.
    fn work(&mut self, batch: Batch) {
        if self.shared.broken.read().is_some() {
            self.recover();
        }
        let Batch { entries, records, state, barriers, deferred } = batch;
        for Deferred { submission, asked, slot } in deferred {
            // What is granted goes to the disk with the next batch.
            self.shared.enter(self.shared.pending.lock(), submission, asked, slot);
        }
        self.commit(entries, records, state);
        drop(barriers);
        if self.superseded.presses() {
            self.drop_superseded();
        }
    }

    /// Append what was decided, and settle its tickets. If another writer was first, it is decided again.
    fn commit(&mut self, mut entries: Vec<PendingCommand>, mut records: Vec<Record>, mut state: State) {
        loop {
            match self.append(&records) {
                Ok(tail) => {
                    entries
                        .iter()
                        .filter_map(PendingCommand::claim)
                        .for_each(|asked| self.shared.counters.claimed(asked.elapsed()));
                    self.advance(state, tail, &records);
                    self.shared.pending.lock().landed();
                    return entries.into_iter().for_each(|entry| entry.into_slot().keep());
                }
                Err(LogError::Conflict { .. }) => match self.take_over() {
                    Ok(()) => {
                        let (state_now, now) = ((*self.state()).clone(), (self.shared.clock)());
                        let (batch, refused) =
                            self.shared.pending.lock().judge_again(state_now, entries, now);
                        refused.into_iter().for_each(|(slot, failure)| slot.settle(Err(failure)));
                        (entries, records, state) = (batch.entries, batch.records, batch.state);
                        // What is not decided by this comes with the next batch.
                        let mut pending = self.shared.pending.lock();
                        batch.barriers.into_iter().for_each(|barrier| pending.wait_with(barrier));
                        batch.deferred.into_iter().for_each(|deferred| pending.defer(deferred));
                    }
                    Err(error) => return self.fail(error, entries),
                },
                Err(error) => return self.fail(error, entries),
            }
        }
    }

    /// Make public what others have appended.
    fn take_over(&mut self) -> Result<(), LogError> {
        let mut state = (*self.state()).clone();
        let mut others = Vec::new();
        catch_up(&mut *self.log, &mut state, |records| others.extend_from_slice(records))?;
        self.advance(state, self.log.tail(), &others);
        Ok(())
    }

    /// Let go of some texts that nothing shows any more. A reader that opened them has read them.
    fn drop_superseded(&mut self) {
        if self.shared.broken.read().is_some() {
            return;
        }
        match self.superseded.step(&mut *self.log) {
            Ok(()) => {}
            Err(LogError::Full) => log::warn!("the disk is full: texts that were overwritten stay for now"),
            Err(error) => self.fail(error, Vec::new()),
        }
    }

    /// What is due every now and then, whether or not anybody waits.
    fn tick(&mut self) {
        let now = (self.shared.clock)();
        if self.shared.broken.read().is_some() || now.instant < self.ticked.after(TICK) {
            return;
        }
        self.ticked = now.instant;
        if let Err(error) = self.log.stay() {
            return self.fail(error, Vec::new());
        }
        self.follow_restoring();
        self.retake_reserve();
        self.shared.pending.lock().pass_time(now);
        self.expire(now);
        self.drop_superseded();
        let (state, is_full) = (self.state(), self.is_full());
        if let Some(snapshots) = self.snapshots.as_mut().filter(|_| !is_full) {
            snapshots.begin(state, EVENTS_BEFORE_SNAPSHOT);
        }
    }

    /// What lay beside the log went with it, and only the log comes back by itself.
    fn follow_restoring(&mut self) {
        let Some(directory) = &self.config.directory else { return };
        let restored = directory.restored();
        if restored != std::mem::replace(&mut self.restored, restored) {
            self.snapshots.iter_mut().for_each(Snapshots::forget);
            if let Some(reserve) = &mut self.reserve {
                reserve.forget();
                reserve.retake();
            }
        }
    }

    /// End the claims of those who were silent for too long.
    fn expire(&self, now: Now) {
        let mut pending = self.shared.pending.lock();
        for command in self.expired(pending.working(), now.instant) {
            pending.enter_own(command, now);
        }
    }

    fn expired(&self, state: &State, now: Instant) -> Vec<Command> {
        let heard = |worker: &_| self.shared.roster.last_heard(worker);
        lease::expired(state, self.config.default_lease, now, heard)
    }

    fn append(&mut self, records: &[Record]) -> Result<Tail, LogError> {
        let Some(first) = records.first() else { return Ok(self.log.tail()) };
        match self.log.append(first.seq - 1, records) {
            // Nothing was written. With the reserve given up, the same batch may fit.
            Err(LogError::Full) if self.reserve.as_mut().is_some_and(Reserve::give_up) => {
                self.note_space();
                log::error!("the disk is full: no new work is accepted until there is space again");
                self.log.append(first.seq - 1, records)
            }
            other => other,
        }
    }

    /// Make records that are in the log part of the published state, this engine's own and others' alike.
    fn advance(&mut self, state: State, tail: Tail, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        let at = (self.shared.clock)().instant;
        self.shared.log_bytes.store(tail.bytes, Ordering::Release);
        self.shared.counters.committed(records);
        self.shared.recent.add(records);
        self.superseded.note(&self.state(), records, &state);
        *self.shared.published.write() = Arc::new(state);
        for record in records {
            let holder = match &record.event {
                Event::Completed { worker, .. } | Event::Failed { worker, .. } => worker.as_ref(),
                Event::Returned { worker, .. } => Some(worker),
                _ => None,
            };
            if let Some(worker) = holder {
                self.shared.roster.claim_ended(worker, at);
            }
        }
        self.tell_observer();
    }

    fn tell_observer(&self) {
        if let Some(observer) = self.shared.observer.get() {
            observer();
        }
    }

    /// Nothing that was decided since the last commit happened: not these entries, which the commit was to hold, and not what was decided
    /// on top of them in the meantime.
    fn fail(&mut self, error: LogError, entries: Vec<PendingCommand>) {
        let failure = match &error {
            LogError::Full => Failure::DiskFull,
            other => {
                log::error!("the event log failed: {other}; nothing can be changed until it works again");
                *self.shared.broken.write() = Some(other.to_string());
                Failure::Log(other.to_string())
            }
        };
        let later = {
            let mut pending = self.shared.pending.lock();
            pending.landed();
            pending.reset((*self.state()).clone())
        };
        self.shared.room.notify_all();
        let lost = entries.into_iter().map(PendingCommand::into_slot).chain(later);
        lost.for_each(|slot| slot.settle(Err(failure.clone())));
    }

    /// After a failure: open the log again, and make public what is really in it.
    fn recover(&mut self) {
        match self.log.reopen().and_then(|_| self.take_over()) {
            Ok(()) => {
                let state = self.state();
                let lost = self.shared.pending.lock().reset((*state).clone());
                self.superseded = Superseded::since(&state);
                *self.shared.broken.write() = None;
                drop(lost);
                log::warn!("the event log works again");
            }
            Err(error) => *self.shared.broken.write() = Some(error.to_string()),
        }
    }

    /// Tell those who decide whether new work is accepted.
    fn note_space(&self) {
        let has_space = self.reserve.as_ref().is_none_or(Reserve::held);
        self.shared.has_space.store(has_space, Ordering::Release);
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
        self.note_space();
    }

    /// On a full disk, the last space is for work to be finished, and not for a snapshot.
    fn is_full(&self) -> bool {
        self.reserve.as_ref().is_some_and(|reserve| !reserve.held())
    }
}

/// Apply what the log has and the state has not.
/// `each` sees the records as they come.
pub(super) fn catch_up(
    log: &mut dyn Log,
    state: &mut State,
    mut each: impl FnMut(&[Record]),
) -> Result<(), LogError> {
    loop {
        let mut records = log.read(state.tail(), REPLAY_EVENTS)?;
        for record in &mut records {
            // The state keeps notes whole. One that was dropped is shown by nothing in the end.
            if let Event::Noted { text, .. } = &mut record.event
                && text.whole().is_none()
                && let Some(whole) = log.reader().text(record.seq)?
            {
                *text = Content::new(whole);
            }
            state.apply(record);
        }
        each(&records);
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
