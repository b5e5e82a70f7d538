//! The engine: one writer thread that makes decisions durable, and the state that all other threads read.
//!
//! May assume: a log that keeps its promises, and a clock.
//! Must never: report that something happened before the log has it; make a reader wait for the disk.
//!
//! A caller submits a command and gets a [`Ticket`]. The thread of the caller judges the command at once against the state as it will be
//! ([`pending`]). The writer takes all commands that were submitted during the last sync and appends their events with one sync. Then it
//! publishes the new state and settles the tickets in order. So one sync serves any number of callers: 64 claims share one. If another
//! writer appended first, this writer applies the events of the other one and judges its own commands again. So the final outcome of a
//! ticket may differ from its first one.
//!
//! Lock order: `pending`, then `published`, then a ticket. `pending` is held for one decision; `published` is held to copy a pointer. The
//! callbacks of tickets run while no lock is held.

mod counters;
mod event_tail;
mod heartbeat;
mod pending;
mod reader;
mod reserve;
mod snapshot;
mod superseded;
mod ticket;
mod writer;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, ThreadId};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use thiserror::Error;

pub use counters::{Counted, Counters, Histogram, Tally};
use event_tail::EventTail;
pub use heartbeat::{Heartbeat, Roster};
use pending::{Deferred, Pending};
use reader::ReaderThread;
pub use reserve::FILE as RESERVE_FILE;
pub use snapshot::FILE as SNAPSHOT_FILE;
pub use ticket::Ticket;
use ticket::TicketSlot;

use crate::clock::{Clock, Stopwatch};
use crate::limits::EVENTS_SHOWN;
use crate::log::{Log, LogError, part};
use crate::queue::{Budget, Command, Outcome, Payer, Record, Refusal, Rules, Seq, Span, State};
use crate::state_directory::StateDirectory;

/// Why a command had no effect.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The queue refuses the command.
    #[error("the queue refuses it: {}", .0.name())]
    Refused(Refusal),
    /// The log could not be written. The caller cannot know whether the command took effect; the state shows it.
    #[error("the event log could not be written, so nothing is acknowledged: {0}")]
    Log(String),
    /// The log failed at an earlier command and does not work yet.
    #[error("the event log does not work, so nothing can be changed: {0}")]
    ReadOnly(String),
    /// The disk is full. Claimed tasks can be finished, but no new work is accepted.
    #[error("the disk is full: claims can be finished, new work cannot be accepted; free some space")]
    DiskFull,
    /// The condition of the command was false when the command was decided.
    #[error("a file of the project changed before this was decided; try again")]
    Check,
    /// The engine has stopped.
    #[error("crewfs is stopping")]
    Stopping,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        Failure::Refused(refusal)
    }
}

/// A condition outside of the queue that must be true when a command is decided. The engine calls it while it holds its lock, so it must be
/// brief and may not call the engine.
pub type Check = Box<dyn Fn() -> bool + Send>;

/// A command with its condition and its payer.
pub struct Submission {
    command: Command,
    check: Option<Check>,
    payer: Option<Payer>,
}

impl From<Command> for Submission {
    fn from(command: Command) -> Submission {
        Submission { command, check: None, payer: None }
    }
}

impl Submission {
    /// The same command, under this condition.
    pub fn checked(self, check: impl Fn() -> bool + Send + 'static) -> Submission {
        Submission { check: Some(Box::new(check)), ..self }
    }

    /// Fails if the condition is false.
    fn check(&self) -> Result<(), Failure> {
        match &self.check {
            Some(check) if !check() => Err(Failure::Check),
            Some(_) | None => Ok(()),
        }
    }

    /// The same command, paid by this payer if the command names no caller.
    pub fn paid_by(self, payer: Payer) -> Submission {
        Submission { payer: Some(payer), ..self }
    }
}

/// The configuration of the engine.
pub struct Config {
    /// The lease of a task that names none.
    pub default_lease: Span,
    /// The rules that mount options set.
    pub rules: Rules,
    /// How much each worker and user may add to the log.
    pub budget: Budget,
    /// The clock.
    pub clock: Clock,
    /// The directory of the snapshot and the reserve; `None` if neither is kept.
    pub directory: Option<Arc<StateDirectory>>,
}

/// A handle on the writer and on the published state.
pub struct Engine {
    shared: Arc<EngineShared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    reader: ReaderThread,
}

/// The data that the writer shares with all other threads.
struct EngineShared {
    pending: Mutex<Pending>,
    /// The writer waits here for work.
    work: Condvar,
    /// Callers wait here while too many decisions are not on disk.
    room: Condvar,
    published: RwLock<Arc<State>>,
    log_bytes: AtomicU64,
    roster: Roster,
    counters: Counters,
    recent: EventTail,
    clock: Clock,
    /// The error of the log, if it does not work.
    broken: RwLock<Option<String>>,
    /// Whether the disk has space for new work.
    has_space: AtomicBool,
    /// How often the writer has checked for work.
    turns: AtomicU64,
    /// The thread of the writer.
    writer: OnceLock<ThreadId>,
    /// The function that is called after each new state.
    observer: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl EngineShared {
    /// Refuses a command if the log does not work, or if the disk has no space for new work.
    fn admit(&self, command: &Command) -> Result<(), Failure> {
        if let Some(why) = &*self.broken.read() {
            return Err(Failure::ReadOnly(why.clone()));
        }
        let new_work =
            matches!(command, Command::Publish { .. } | Command::Claim { .. } | Command::ClaimNext { .. });
        if new_work && !self.has_space.load(Ordering::Acquire) {
            return Err(Failure::DiskFull);
        }
        Ok(())
    }

    /// Judges a command if it is admitted. Settles its ticket at once if nothing has to be written to disk.
    fn enter(
        &self,
        mut pending: MutexGuard<'_, Pending>,
        submission: Submission,
        submitted: Stopwatch,
        slot: TicketSlot,
    ) {
        let entered = match self.admit(&submission.command) {
            Ok(()) => pending.enter(submission, (self.clock)(), submitted, slot),
            Err(failure) => Err((slot, Err(failure))),
        };
        let has_work = entered.is_ok();
        drop(pending);
        if let Err((slot, outcome)) = entered {
            // A refusal does not depend on the disk, so it does not wait for it.
            slot.settle(outcome);
        }
        if has_work {
            self.work.notify_one();
        }
    }
}

impl Engine {
    /// Rebuilds the state from the log, and starts the writer.
    ///
    /// # Errors
    /// Those of the log, including damage that the replay finds.
    pub fn start(mut log: Box<dyn Log>, config: Config) -> Result<Arc<Engine>, LogError> {
        let loaded = config.directory.as_ref().and_then(|dir| snapshot::load(dir, log.tail().seq));
        let loaded = loaded.filter(|state| snapshot::matches_log(state, &mut *log));
        let mut state = loaded.unwrap_or_default().under(config.rules);
        let snapshot_at = state.tail();
        writer::catch_up(&mut *log, &mut state, |_| ())?;
        let shared = Arc::new(EngineShared {
            pending: Mutex::new(Pending::new(state.clone(), config.budget)),
            work: Condvar::new(),
            room: Condvar::new(),
            log_bytes: AtomicU64::new(log.tail().bytes),
            published: RwLock::new(Arc::new(state)),
            roster: Roster::new((config.clock)().instant),
            counters: Counters::default(),
            recent: EventTail::default(),
            clock: config.clock.clone(),
            broken: RwLock::new(None),
            has_space: AtomicBool::new(true),
            turns: AtomicU64::new(0),
            writer: OnceLock::new(),
            observer: OnceLock::new(),
        });
        shared.recent.add(&log.read(log.tail().seq.saturating_sub(EVENTS_SHOWN as u64), EVENTS_SHOWN)?);
        let reader = ReaderThread::start(log.reader()).map_err(|error| LogError::Io(error.to_string()))?;
        let writer = writer::Writer::new(log, shared.clone(), config, snapshot_at);
        let thread = std::thread::Builder::new().name("writer".into());
        let writer = thread.spawn(move || writer.run()).map_err(|e| LogError::Io(e.to_string()))?;
        let _ = shared.writer.set(writer.thread().id());
        Ok(Arc::new(Engine { shared, writer: Mutex::new(Some(writer)), reader }))
    }

    /// The state after the last acknowledged event. It does not change while the caller holds it.
    pub fn state(&self) -> Arc<State> {
        self.shared.published.read().clone()
    }

    /// The position of the last decided event, whether or not it is on disk.
    pub fn decided(&self) -> Seq {
        self.shared.pending.lock().tail()
    }

    /// The length of the lines of all acknowledged events, in bytes.
    pub fn log_bytes(&self) -> u64 {
        self.shared.log_bytes.load(Ordering::Acquire)
    }

    /// The active workers.
    pub fn roster(&self) -> &Roster {
        &self.shared.roster
    }

    /// The counters since the start.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The last events, oldest first, with the first lines of their texts.
    pub fn recent(&self) -> Vec<Record> {
        self.shared.recent.all()
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// The error of the log, if it does not work.
    pub fn broken(&self) -> Option<String> {
        self.shared.broken.read().clone()
    }

    /// Whether the disk has space for new work.
    pub fn has_space(&self) -> bool {
        self.shared.has_space.load(Ordering::Acquire)
    }

    /// How often the writer has checked for work. It does so at least about once a second, unless it is stuck.
    pub fn turns(&self) -> u64 {
        self.shared.turns.load(Ordering::Relaxed)
    }

    /// Sets the function that is called after each new state is published, before the tickets of its commit are settled. It runs on the
    /// writer's thread, so it must be brief. Only the first call of `observe` has an effect.
    pub fn observe(&self, observer: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.observer.set(Box::new(observer));
    }

    /// Submits a command. A refusal is final at once; any other outcome is final when it is on disk. The call waits while too many
    /// decisions are not on disk.
    pub fn submit(&self, submission: impl Into<Submission>) -> Ticket {
        let (submission, submitted) = (submission.into(), Stopwatch::start());
        let mut pending = self.shared.pending.lock();
        // Only the writer makes room. If a callback on the writer's thread submits a command, it must not wait for itself.
        let is_writer = self.shared.writer.get() == Some(&std::thread::current().id());
        while !is_writer && pending.is_full() {
            self.shared.room.wait(&mut pending);
        }
        if pending.is_stopping() {
            return Ticket::of(Err(Failure::Stopping));
        }
        let (slot, ticket) = TicketSlot::new();
        if self.shared.broken.read().is_some() {
            // This command makes the writer try to open the log again. Only the writer can do that.
            pending.defer(Deferred { submission, submitted, slot });
            self.shared.work.notify_one();
        } else {
            self.shared.enter(pending, submission, submitted, slot);
        }
        ticket
    }

    /// Charges a payer for events that will follow from its operation on a file. The caller must do this before the operation, so that it
    /// can be refused.
    pub fn spend(&self, payer: &Payer, events: u64) -> Result<(), Refusal> {
        self.shared.pending.lock().spend(payer, events, (self.shared.clock)())
    }

    /// Submits a command and waits for its outcome. Threads that serve the kernel must not call this.
    pub fn call(&self, submission: impl Into<Submission>) -> Result<Outcome, Failure> {
        let (sender, receiver) = sync_channel(1);
        self.submit(submission).on_durable(move |outcome| {
            let _ = sender.send(outcome);
        });
        receiver.recv().unwrap_or(Err(Failure::Stopping))
    }

    /// Waits until all commands that were submitted before are settled. Returns at once when the engine stops. Threads that
    /// serve the kernel must not call this.
    pub fn barrier(&self) {
        let (sender, receiver) = sync_channel::<()>(1);
        {
            let mut pending = self.shared.pending.lock();
            if pending.is_stopping() {
                return;
            }
            pending.wait_with(sender);
        }
        self.shared.work.notify_one();
        let _ = receiver.recv();
    }

    /// Reads the text of event `seq`, a result or a reason; `None` if another text has replaced it.
    pub fn read_text(
        &self,
        seq: Seq,
        answer: impl FnOnce(Result<Option<Vec<u8>>, LogError>) + Send + 'static,
    ) {
        let shared = self.shared.clone();
        self.reader.ask(move |log| {
            let text = log.text(seq);
            // The state is read after the log, so it is not older than the text.
            let state = shared.published.read().clone();
            let is_shown = || state.tasks().any(|(_, task)| task.texts().any(|(text, _)| text == seq));
            answer(match text {
                Ok(None) if is_shown() => Err(LogError::Damaged { seq, why: "its text is missing".into() }),
                text => text,
            });
        });
    }

    /// Reads bytes of `events.jsonl`. `show` may replace bytes of the lines, but may not change their number.
    pub fn read_events(
        &self,
        offset: u64,
        length: usize,
        show: impl FnOnce(&mut [u8]) + Send + 'static,
        answer: impl FnOnce(Result<Vec<u8>, LogError>) + Send + 'static,
    ) {
        // A reader must not see committed events that are not acknowledged yet.
        let acknowledged = usize::try_from(self.log_bytes().saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(acknowledged);
        self.reader.ask(move |log| {
            let lines = log.read_lines(offset, length).map(|(start, mut lines)| {
                show(&mut lines);
                (start, lines)
            });
            answer(lines.map(|lines| part(lines, offset, length)));
        });
    }

    /// Settles all submitted commands, writes a snapshot, and ends the writer. Later commands get [`Failure::Stopping`].
    pub fn stop(&self) {
        self.shared.pending.lock().stop();
        self.shared.work.notify_one();
        self.shared.room.notify_all();
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            log::error!("the writer ended by a panic; the log is as it was at the last answer");
        }
        self.reader.stop();
    }
}
