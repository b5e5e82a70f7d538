//! The engine: one writer that makes decisions durable, and the state that everybody reads.
//!
//! May assume: a log that keeps its promises, and a clock.
//! Must never: answer that something happened before the log says so; make a reader wait for the disk.
//!
//! A caller submits a command and gets a [`Ticket`]. The command is judged at once against the state as it will be ([`pending`]); the
//! writer takes what has gathered while it waited for the last sync, appends it with one sync, makes the new state public, and
//! settles the tickets in order. So the number of callers bounds nothing, and 64 claims share one sync. Where another writer has
//! appended first, the writer takes over what that wrote, and judges the commands again: a ticket may come to something else
//! than it looked like.
//!
//! Lock order: `pending`, then `published`, then a ticket. `pending` is held for the time of one decision; `published` for that of
//! a pointer's copy. Answers are given while none is held.

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

/// Why a command did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The queue refuses it.
    #[error("the queue refuses it: {}", .0.name())]
    Refused(Refusal),
    /// The log could not be written. Whether the command happened is unknown to the caller; the state tells.
    #[error("the event log could not be written, so nothing is acknowledged: {0}")]
    Log(String),
    /// The log has not worked since an earlier command.
    #[error("the event log does not work, so nothing can be changed: {0}")]
    ReadOnly(String),
    /// The disk is full; what is being worked on can be finished, but nothing new is accepted.
    #[error("the disk is full: claims can be finished, new work cannot be accepted; free some space")]
    DiskFull,
    /// The condition of the command did not hold when it was decided.
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

/// A condition outside of the queue that must hold at the moment when a command is decided. The engine calls it under its lock: it must
/// be brief, and may not call the engine.
pub type Check = Box<dyn Fn() -> bool + Send>;

/// A command, and what belongs to it.
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
    /// The same, on this condition.
    pub fn checked(self, check: impl Fn() -> bool + Send + 'static) -> Submission {
        Submission { check: Some(Box::new(check)), ..self }
    }

    /// Fails if the condition does not hold.
    fn holds(&self) -> Result<(), Failure> {
        match &self.check {
            Some(check) if !check() => Err(Failure::Check),
            Some(_) | None => Ok(()),
        }
    }

    /// The same, for the one whose doing it is, if the command names no caller.
    pub fn paid_by(self, payer: Payer) -> Submission {
        Submission { payer: Some(payer), ..self }
    }
}

/// What the engine needs to know.
pub struct Config {
    /// The lease of a task that names none.
    pub default_lease: Span,
    /// What else the one who mounts chooses.
    pub rules: Rules,
    /// How much each may add to the log.
    pub budget: Budget,
    /// Tells the time.
    pub clock: Clock,
    /// Where the snapshot and the reserve are kept; `None` keeps neither.
    pub directory: Option<Arc<StateDirectory>>,
}

/// A handle on the writer and on the state that it publishes.
pub struct Engine {
    shared: Arc<EngineShared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    reader: ReaderThread,
}

/// What the writer and everybody else share.
struct EngineShared {
    pending: Mutex<Pending>,
    /// The writer waits here for work.
    work: Condvar,
    /// Callers wait here while too much is decided and not on disk.
    room: Condvar,
    published: RwLock<Arc<State>>,
    log_bytes: AtomicU64,
    roster: Roster,
    counters: Counters,
    recent: EventTail,
    clock: Clock,
    /// Why nothing can be changed, while that is so.
    broken: RwLock<Option<String>>,
    /// Whether the disk has space for new work.
    has_space: AtomicBool,
    /// How often the writer has looked for work.
    turns: AtomicU64,
    /// The writer's thread.
    writer: OnceLock<ThreadId>,
    /// Who else wants to know of a new state.
    observer: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl EngineShared {
    /// Whether a command of this kind is taken at present.
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

    /// Judge a command if it is taken at present, and settle it at once if nothing of it goes to the disk.
    fn enter(
        &self,
        mut pending: MutexGuard<'_, Pending>,
        submission: Submission,
        asked: Stopwatch,
        slot: TicketSlot,
    ) {
        let entered = match self.admit(&submission.command) {
            Ok(()) => pending.enter(submission, (self.clock)(), asked, slot),
            Err(failure) => Err((slot, Err(failure))),
        };
        let wakes = entered.is_ok();
        drop(pending);
        if let Err((slot, outcome)) = entered {
            // A refusal promises nothing, so it waits for nothing.
            slot.settle(outcome);
        }
        if wakes {
            self.work.notify_one();
        }
    }
}

impl Engine {
    /// Rebuild the state from the log, and start the writer.
    ///
    /// # Errors
    /// Those of the log, among them damage that replaying finds.
    pub fn start(mut log: Box<dyn Log>, config: Config) -> Result<Arc<Engine>, LogError> {
        let loaded = config.directory.as_ref().and_then(|dir| snapshot::load(dir, log.tail().seq));
        let loaded = loaded.filter(|state| snapshot::fits(state, &mut *log));
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

    /// The state as of the last acknowledged event. It stays as it is while the caller holds it.
    pub fn state(&self) -> Arc<State> {
        self.shared.published.read().clone()
    }

    /// The position of the last event that is decided, on disk or not.
    pub fn decided(&self) -> Seq {
        self.shared.pending.lock().tail()
    }

    /// The length of all acknowledged events as lines, in bytes.
    pub fn log_bytes(&self) -> u64 {
        self.shared.log_bytes.load(Ordering::Acquire)
    }

    /// Who is here.
    pub fn roster(&self) -> &Roster {
        &self.shared.roster
    }

    /// What has happened since the start.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The last events, oldest first, with the beginning of their texts.
    pub fn recent(&self) -> Vec<Record> {
        self.shared.recent.all()
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Why nothing can be changed at present, if that is so.
    pub fn broken(&self) -> Option<String> {
        self.shared.broken.read().clone()
    }

    /// Whether the disk has space for new work.
    pub fn has_space(&self) -> bool {
        self.shared.has_space.load(Ordering::Acquire)
    }

    /// How often the writer has looked for work: about once a second at least, unless it is stuck.
    pub fn turns(&self) -> u64 {
        self.shared.turns.load(Ordering::Relaxed)
    }

    /// Have `observer` called whenever a new state is public, before anybody is answered. It runs on the writer's thread:
    /// be brief. There is one; a second is not taken.
    pub fn observe(&self, observer: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.observer.set(Box::new(observer));
    }

    /// Hand in a command. A refusal is final at once; anything else when it is on disk. It waits while very much is under way.
    pub fn submit(&self, submission: impl Into<Submission>) -> Ticket {
        let (submission, asked) = (submission.into(), Stopwatch::start());
        let mut pending = self.shared.pending.lock();
        // The writer makes room: where it submits what follows from an answer, it does not wait for itself.
        let is_writer = self.shared.writer.get() == Some(&std::thread::current().id());
        while !is_writer && pending.is_full() {
            self.shared.room.wait(&mut pending);
        }
        if pending.is_stopping() {
            return Ticket::of(Err(Failure::Stopping));
        }
        let (slot, ticket) = TicketSlot::new();
        if self.shared.broken.read().is_some() {
            // A change is a reason to try the log again; only the writer can.
            pending.defer(Deferred { submission, asked, slot });
            self.shared.work.notify_one();
        } else {
            self.shared.enter(pending, submission, asked, slot);
        }
        ticket
    }

    /// Have a caller pay for events that are about to follow from what it does to a file; a refusal is to come before it does.
    pub fn spend(&self, payer: &Payer, events: u64) -> Result<(), Refusal> {
        self.shared.pending.lock().spend(payer, events, (self.shared.clock)())
    }

    /// Hand in a command and wait for its outcome. Not for threads that serve the kernel.
    pub fn call(&self, submission: impl Into<Submission>) -> Result<Outcome, Failure> {
        let (sender, receiver) = sync_channel(1);
        self.submit(submission).on_durable(move |outcome| {
            let _ = sender.send(outcome);
        });
        receiver.recv().unwrap_or(Err(Failure::Stopping))
    }

    /// Wait until everything that was handed in before is done. Not for threads that serve the kernel.
    pub fn barrier(&self) {
        let (sender, receiver) = sync_channel::<()>(1);
        self.shared.pending.lock().wait_with(sender);
        self.shared.work.notify_one();
        let _ = receiver.recv();
    }

    /// The text that event `seq` carries: a result or a reason; `None` if another one has taken its place meanwhile.
    pub fn read_text(
        &self,
        seq: Seq,
        answer: impl FnOnce(Result<Option<Vec<u8>>, LogError>) + Send + 'static,
    ) {
        let shared = self.shared.clone();
        self.reader.ask(move |log| {
            let text = log.text(seq);
            // Judged by a state that is not older than what was read.
            let state = shared.published.read().clone();
            let is_shown = || state.tasks().any(|(_, task)| task.texts().any(|(text, _)| text == seq));
            answer(match text {
                Ok(None) if is_shown() => Err(LogError::Damaged { seq, why: "its text is missing".into() }),
                text => text,
            });
        });
    }

    /// Bytes of `events.jsonl`. `show` may put other bytes in the place of a line's, as many.
    pub fn read_events(
        &self,
        offset: u64,
        length: usize,
        show: impl FnOnce(&mut [u8]) + Send + 'static,
        answer: impl FnOnce(Result<Vec<u8>, LogError>) + Send + 'static,
    ) {
        // What is committed and not acknowledged yet is not there for a reader.
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

    /// Finish what was handed in, write a snapshot, and end the writer. Later commands are answered `Stopping`.
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
