//! The engine: one writer that turns commands into durable events, and the state that everybody reads.
//!
//! May assume: a log that keeps its promises, and a clock.
//! Must never: answer that something happened before the log says so; make a reader wait for the disk.
//!
//! A caller hands in a command *and what to do with the answer*, and goes away. The writer takes whatever queued up while
//! it waited for the last sync, judges each against the state as it would be, appends all events with one sync, makes
//! the new state public, and answers in order. So the number of callers bounds nothing, and 64 claims share one sync.
//!
//! Lock order: none. `published` is held for the time of a pointer's copy, and never while anything else is taken.

mod presence;
mod reserve;
mod snapshot;
mod writer;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use thiserror::Error;

pub use presence::{Presence, Roster};

use crate::clock::Clock;
use crate::limits::COMMANDS_WAITING;
use crate::log::{Log, LogError};
use crate::queue::{Command, Outcome, Refusal, Seq, Span, State};

/// Why a command did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// It may not.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The log could not be written. Whether the command happened is unknown to the caller; the state tells.
    #[error("the event log could not be written, so nothing is acknowledged: {0}")]
    Log(String),
    /// The log has not worked since an earlier command.
    #[error("the event log does not work, so nothing can be changed: {0}")]
    ReadOnly(String),
    /// The disk is full; what is being worked on can be finished, but nothing new is accepted.
    #[error("the disk is full: claims can be finished, new work cannot be accepted; free some space")]
    DiskFull,
    /// The step outside of the queue that belongs to the command failed, with this errno.
    #[error("{}", std::io::Error::from_raw_os_error(*errno))]
    Step {
        /// The errno of the step.
        errno: i32,
    },
    /// The engine has stopped.
    #[error("crewfs is stopping")]
    Stopping,
}

/// What is done with an answer. It runs on the writer's thread: be brief.
pub type Answer = Box<dyn FnOnce(Result<Outcome, Failure>) + Send>;
/// A step outside of the queue that must happen if, and only if, the command is granted: before it is written down, and
/// with nothing in between. Fails with an errno.
pub type Step = Box<dyn FnOnce() -> Result<(), i32> + Send>;
/// A look into the log, on the writer's thread.
type Query = Box<dyn FnOnce(&mut dyn Log) + Send>;

/// An answer that is owed. Whoever drops it, for whatever reason, answers that the engine has stopped.
struct Owed(Option<Answer>);

impl Owed {
    fn new(answer: impl FnOnce(Result<Outcome, Failure>) + Send + 'static) -> Owed {
        Owed(Some(Box::new(answer)))
    }

    fn pay(mut self, outcome: Result<Outcome, Failure>) {
        if let Some(answer) = self.0.take() {
            answer(outcome);
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(Failure::Stopping));
        }
    }
}

enum Job {
    Submit { command: Command, step: Option<Step>, answer: Owed },
    Query(Query),
    Stop,
}

/// What the engine needs to know.
pub struct Config {
    /// The lease of a task that names none.
    pub default_lease: Span,
    /// Tells the time.
    pub clock: Clock,
    /// Where the snapshot and the reserve are kept; `None` keeps neither.
    pub directory: Option<Arc<OwnedFd>>,
}

/// A handle on the writer and on the state that it publishes.
pub struct Engine {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer and its readers share.
struct Shared {
    published: RwLock<Arc<State>>,
    log_bytes: AtomicU64,
    roster: Roster,
    clock: Clock,
    /// Why nothing can be changed, while that is so.
    broken: RwLock<Option<String>>,
    /// Who else wants to know of a new state.
    observer: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Engine {
    /// Rebuild the state from the log, and start the writer.
    ///
    /// # Errors
    /// Those of the log, among them damage that replaying finds.
    pub fn start(mut log: Box<dyn Log>, config: Config) -> Result<Arc<Engine>, LogError> {
        let loaded = config.directory.as_ref().and_then(|dir| snapshot::load(dir, log.tail().seq));
        let loaded = loaded.filter(|state| snapshot::fits(state, &mut *log));
        let mut state = loaded.unwrap_or_default();
        let snapshot_at = state.tail();
        writer::catch_up(&mut *log, &mut state)?;
        let shared = Arc::new(Shared {
            log_bytes: AtomicU64::new(log.tail().bytes),
            published: RwLock::new(Arc::new(state)),
            roster: Roster::new((config.clock)().instant),
            clock: config.clock.clone(),
            broken: RwLock::new(None),
            observer: OnceLock::new(),
        });
        let (jobs, inbox) = sync_channel(COMMANDS_WAITING);
        let writer = writer::Writer::new(log, inbox, shared.clone(), config, snapshot_at);
        let thread = std::thread::Builder::new().name("writer".into());
        let writer = thread.spawn(move || writer.run()).map_err(|e| LogError::Io(e.to_string()))?;
        Ok(Arc::new(Engine { jobs, shared, writer: Mutex::new(Some(writer)) }))
    }

    /// The state as of the last acknowledged event. It stays as it is while the caller holds it.
    pub fn state(&self) -> Arc<State> {
        self.shared.published.read().clone()
    }

    /// The length of all acknowledged events as lines, in bytes.
    pub fn log_bytes(&self) -> u64 {
        self.shared.log_bytes.load(Ordering::Acquire)
    }

    /// Who is here.
    pub fn roster(&self) -> &Roster {
        &self.shared.roster
    }

    /// The time.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Why nothing can be changed at present, if that is so.
    pub fn broken(&self) -> Option<String> {
        self.shared.broken.read().clone()
    }

    /// Have `observer` called whenever a new state is public, before anybody is answered. It runs on the writer's thread:
    /// be brief. There is one; a second is not taken.
    pub fn observe(&self, observer: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.observer.set(Box::new(observer));
    }

    /// Hand in a command. `answer` is called once, on another thread, when the outcome is on disk.
    pub fn submit(&self, command: Command, answer: impl FnOnce(Result<Outcome, Failure>) + Send + 'static) {
        self.send(Job::Submit { command, step: None, answer: Owed::new(answer) });
    }

    /// Hand in a command with a step that must happen with it. See [`Step`].
    pub fn submit_with(
        &self,
        command: Command,
        step: impl FnOnce() -> Result<(), i32> + Send + 'static,
        answer: impl FnOnce(Result<Outcome, Failure>) + Send + 'static,
    ) {
        self.send(Job::Submit { command, step: Some(Box::new(step)), answer: Owed::new(answer) });
    }

    /// Hand in a command and wait for its outcome. Not for threads that serve the kernel.
    pub fn call(&self, command: Command) -> Result<Outcome, Failure> {
        let (sender, receiver) = sync_channel(1);
        self.submit(command, move |outcome| {
            let _ = sender.send(outcome);
        });
        receiver.recv().unwrap_or(Err(Failure::Stopping))
    }

    /// Wait until everything that was handed in before is done. Not for threads that serve the kernel.
    pub fn barrier(&self) {
        let (sender, receiver) = sync_channel::<()>(1);
        self.send(Job::Query(Box::new(move |_| drop(sender))));
        let _ = receiver.recv();
    }

    /// The text that event `seq` carries: a result or a reason.
    pub fn read_text(&self, seq: Seq, answer: impl FnOnce(Result<Vec<u8>, LogError>) + Send + 'static) {
        self.send(Job::Query(Box::new(move |log| answer(writer::text_of(log, seq)))));
    }

    /// Bytes of `events.jsonl`.
    pub fn read_events(
        &self,
        offset: u64,
        length: usize,
        answer: impl FnOnce(Result<Vec<u8>, LogError>) + Send + 'static,
    ) {
        self.send(Job::Query(Box::new(move |log| answer(log.read_bytes(offset, length)))));
    }

    fn send(&self, job: Job) {
        // What cannot be sent is dropped: a command answers by that, and a query drops its reply, which answers the kernel.
        let _ = self.jobs.send(job);
    }

    /// Finish what was handed in, write a snapshot, and end the writer. Later commands are answered `Stopping`.
    pub fn stop(&self) {
        self.send(Job::Stop);
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            log::error!("the writer ended by a panic; the log is as it was at the last answer");
        }
    }
}
