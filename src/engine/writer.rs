//! The writer: the only thread that writes the log.
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

/// The longest sleep of the writer, and the interval at which it checks leases, the disk and the snapshot. It does not check them after
/// every batch, because a check of all leases costs O(n) in the number of claims.
const TICK: Span = Span(1_000);

pub(super) struct Writer {
    log: Box<dyn Log>,
    shared: Arc<EngineShared>,
    config: Config,
    reserve: Option<Reserve>,
    snapshots: Option<Snapshots>,
    superseded: Superseded,
    last_tick: Instant,
    /// How often the state directory had been restored at the last check.
    restorations: u64,
}

impl Writer {
    pub(super) fn new(
        log: Box<dyn Log>,
        shared: Arc<EngineShared>,
        config: Config,
        snapshot_at: Seq,
    ) -> Writer {
        let reserve = config.directory.clone().map(Reserve::take);
        let last_tick = (config.clock)().instant;
        let superseded = Superseded::since(&shared.published.read());
        let snapshots = config.directory.clone().map(|directory| Snapshots::new(directory, snapshot_at));
        let writer =
            Writer { log, shared, config, reserve, snapshots, superseded, last_tick, restorations: 0 };
        writer.publish_space();
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
                    self.maintain_log();
                }
                self.tick();
                pending = self.shared.pending.lock();
                stopping = pending.is_stopping();
                pending.take()
            };
            self.shared.room.notify_all();
            self.work(batch);
        }
        // The last check that the log is in its place. Later changes are no longer noticed.
        if self.shared.broken.read().is_some() {
            self.recover();
        } else if let Err(error) = self.log.ensure_in_place() {
            self.fail(error, Vec::new());
        }
        // Dropping the commands that still wait settles their tickets with `Stopping`.
        let unanswered = self.shared.pending.lock().take_deferred();
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

    /// Processes one batch: append, publish, settle.
    fn work(&mut self, batch: Batch) {
        if self.shared.broken.read().is_some() {
            self.recover();
        }
        let Batch { entries, records, state, barriers, deferred } = batch;
        for Deferred { submission, submitted, slot } in deferred {
            // If the command has events, the next batch takes them to the disk.
            self.shared.enter(self.shared.pending.lock(), submission, submitted, slot);
        }
        self.commit(entries, records, state);
        drop(barriers);
        if self.superseded.is_over_limit() {
            self.drop_superseded();
        }
    }

    /// Appends the decisions and settles their tickets. If another writer appended first, the commands are judged again.
    fn commit(&mut self, mut entries: Vec<PendingCommand>, mut records: Vec<Record>, mut state: State) {
        loop {
            match self.append(&records) {
                Ok(tail) => {
                    entries
                        .iter()
                        .filter_map(PendingCommand::claim)
                        .for_each(|submitted| self.shared.counters.count_claim(submitted.elapsed()));
                    self.advance(state, tail, &records);
                    self.shared.pending.lock().end_commit();
                    return entries.into_iter().for_each(|entry| entry.into_slot().settle_as_decided());
                }
                Err(LogError::Conflict { .. }) => match self.publish_foreign_events() {
                    Ok(()) => {
                        let (state_now, now) = ((*self.state()).clone(), (self.shared.clock)());
                        let (batch, refused) = self.shared.pending.lock().rejudge(state_now, entries, now);
                        refused.into_iter().for_each(|(slot, failure)| slot.settle(Err(failure)));
                        (entries, records, state) = (batch.entries, batch.records, batch.state);
                        // Barriers and deferred commands wait for the next batch.
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

    /// Reads and publishes the events that other writers have appended.
    fn publish_foreign_events(&mut self) -> Result<(), LogError> {
        let mut state = (*self.state()).clone();
        let mut foreign = Vec::new();
        catch_up(&mut *self.log, &mut state, |records| foreign.extend_from_slice(records))?;
        self.advance(state, self.log.tail(), &foreign);
        Ok(())
    }

    /// Drops some texts that the state no longer shows. A reader that opened such a text has already read it.
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

    /// Does the periodic work, whether or not commands wait.
    fn tick(&mut self) {
        let now = (self.shared.clock)();
        if self.shared.broken.read().is_some() || now.instant < self.last_tick.after(TICK) {
            return;
        }
        self.last_tick = now.instant;
        if let Err(error) = self.log.ensure_in_place() {
            return self.fail(error, Vec::new());
        }
        self.handle_restored_directory();
        self.retake_reserve();
        self.shared.pending.lock().pass_time(now);
        self.expire(now);
        self.drop_superseded();
        let (state, is_full) = (self.state(), self.is_full());
        if let Some(snapshots) = self.snapshots.as_mut().filter(|_| !is_full) {
            snapshots.begin(state, EVENTS_BEFORE_SNAPSHOT);
        }
    }

    /// Handles a restored state directory. The log restores itself; the snapshot and the reserve must be written again.
    fn handle_restored_directory(&mut self) {
        let Some(directory) = &self.config.directory else { return };
        let restorations = directory.restored();
        if restorations != std::mem::replace(&mut self.restorations, restorations) {
            self.snapshots.iter_mut().for_each(Snapshots::mark_missing);
            if let Some(reserve) = &mut self.reserve {
                reserve.mark_missing();
                reserve.retake();
            }
        }
    }

    /// Ends the claims whose lease ran out.
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
            // Nothing was written. Without the reserve, the same batch may fit.
            Err(LogError::Full) if self.reserve.as_mut().is_some_and(Reserve::give_up) => {
                self.publish_space();
                log::error!("the disk is full: no new work is accepted until there is space again");
                self.log.append(first.seq - 1, records)
            }
            other => other,
        }
    }

    /// Publishes a state with records that are in the log, of this engine or of another writer.
    fn advance(&mut self, state: State, tail: Tail, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        let at = (self.shared.clock)().instant;
        self.shared.log_bytes.store(tail.bytes, Ordering::Release);
        self.shared.counters.count_commit(records);
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
        self.call_observer();
    }

    fn call_observer(&self) {
        if let Some(observer) = self.shared.observer.get() {
            observer();
        }
    }

    /// Fails all decisions since the last commit: `entries`, which this commit should have written, and the later ones that were decided on
    /// top of them.
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
            pending.end_commit();
            pending.reset((*self.state()).clone())
        };
        self.shared.room.notify_all();
        let lost = entries.into_iter().map(PendingCommand::into_slot).chain(later);
        lost.for_each(|slot| slot.settle(Err(failure.clone())));
    }

    /// Opens the log again after a failure, and publishes what is in it.
    fn recover(&mut self) {
        match self.log.reopen().and_then(|_| self.publish_foreign_events()) {
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

    /// Publishes whether there is space for new work.
    fn publish_space(&self) {
        let has_space = self.reserve.as_ref().is_none_or(Reserve::held);
        self.shared.has_space.store(has_space, Ordering::Release);
    }

    /// Maintains the log while no command waits.
    fn maintain_log(&mut self) {
        if let Err(error) = self.log.idle() {
            log::warn!("the log could not be tidied: {error}");
        }
    }

    /// Takes the reserve again if there is space. This must not wait for an idle moment, because on a full disk refused callers may try
    /// again without a pause.
    fn retake_reserve(&mut self) {
        if let Some(reserve) = &mut self.reserve
            && !reserve.held()
            && reserve.retake()
        {
            log::warn!("there is space on the disk again: new work is accepted");
        }
        self.publish_space();
    }

    /// Whether the disk is full. The last space is for finishing tasks, not for a snapshot.
    fn is_full(&self) -> bool {
        self.reserve.as_ref().is_some_and(|reserve| !reserve.held())
    }
}

/// Applies the events of the log that the state does not have. `each` gets the records as they are read.
pub(super) fn catch_up(
    log: &mut dyn Log,
    state: &mut State,
    mut each: impl FnMut(&[Record]),
) -> Result<(), LogError> {
    let reader = log.reader();
    loop {
        let mut records = log.read(state.tail(), REPLAY_EVENTS)?;
        for record in &mut records {
            // The state keeps whole notes. A note whose text was dropped is superseded by a later event.
            if let Event::Noted { text, .. } = &mut record.event
                && text.whole().is_none()
                && let Some(whole) = reader.text(record.seq)?
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
