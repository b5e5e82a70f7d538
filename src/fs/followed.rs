//! The processes by which workers are known: a worker whose last one ends loses its claims (C31).
//!
//! May assume: the kernel tells when a process ends (pidfd_open(2)). Where it does not, leases alone end claims.
//! Must never: make a thread wait that serves the kernel; or end a claim that was not made yet when the process ended.
//!
//! A process is followed from the claim on that was made through it, or from when a worker that holds one is seen again.
//! There is one lock, of the table. While it is held nothing is asked of the engine, which may answer at once.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::process::{self, Stat};
use crate::engine::{Engine, Failure};
use crate::limits::{DEPARTURE_RETRY_MS, FOLLOWED_PROCESSES};
use crate::queue::{Command, Instant, LossReason, ProcessEnding, Seq, Span, WorkerName};
use crate::sys;

/// A process that a worker is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Its number.
    pub pid: u32,
    /// When it began, in ticks: with the number, this tells it from every other.
    pub started: u64,
    /// The program that it ran when it was found.
    pub program: String,
    /// What its end means.
    pub kind: Kind,
}

/// What the end of a process means for the claims of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An agent: they end with it.
    Agent,
    /// Some program, which may have been there just to claim: they end with it if it did not end well.
    Program,
    /// Serves a connection: they end if no other connection comes for a while.
    Connection,
}

/// A process that was there when it was looked for.
#[derive(Debug)]
pub struct Alive {
    anchor: Anchor,
    pidfd: OwnedFd,
}

/// The number in epoll that ends the thread.
const STOP: u64 = 0;
/// Ends of processes that are heard of at once.
const EVENTS: usize = 64;

/// Follows processes.
pub struct Follower {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    engine: Arc<Engine>,
    /// How long a worker may be without a connection.
    grace: Span,
    epoll: OwnedFd,
    stop: OwnedFd,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    workers: HashMap<WorkerName, Vec<Followed>>,
    /// Whose process each number in epoll stands for.
    numbers: HashMap<u64, WorkerName>,
    last_number: u64,
    /// Counts claims.
    turn: u64,
    /// Workers who are gone, or are taken to be so later.
    departures: HashMap<WorkerName, Departure>,
    /// Whether it was said that more should be followed than can be.
    complained: bool,
}

struct Followed {
    number: u64,
    process: Alive,
    /// The last claim that was made through it.
    epoch: Seq,
    /// When that was.
    turn: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Departure {
    at: Instant,
    epoch: Seq,
    reason: LossReason,
}

impl Follower {
    /// Nobody is followed yet. A worker may be without a connection for `grace`.
    pub fn start(engine: Arc<Engine>, grace: Span) -> std::io::Result<Arc<Follower>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP), EventFlags::IN)?;
        let table = Mutex::new(Table { last_number: STOP, ..Table::default() });
        let shared = Arc::new(Shared { engine, grace, epoll, stop, table });
        let following = shared.clone();
        let thread = std::thread::Builder::new().name("follower".into()).spawn(move || following.run())?;
        Ok(Arc::new(Follower { shared, thread: Mutex::new(Some(thread)) }))
    }

    /// Whether a worker's process is followed.
    pub fn follows(&self, worker: &WorkerName, anchor: &Anchor) -> bool {
        self.shared.table.lock().find(worker, anchor).is_some()
    }

    /// A hold on a process, if it is still there. Taken before a claim and kept until that is decided, it makes sure that an
    /// end in between is heard of.
    pub fn hold(&self, worker: &WorkerName, anchor: &Anchor) -> Option<Alive> {
        let known = |followed: &mut Followed| followed.process.pidfd.try_clone().ok();
        let known = self.shared.table.lock().find(worker, anchor).and_then(known);
        let pidfd = known.or_else(|| open(anchor))?;
        Some(Alive { anchor: anchor.clone(), pidfd })
    }

    /// From now on, the claims of this worker up to `epoch` end with this process, if it is the worker's last.
    pub fn follow(&self, worker: &WorkerName, process: Alive, epoch: Seq) {
        let mut table = self.shared.table.lock();
        table.turn += 1;
        let turn = table.turn;
        if let Some(known) = table.find(worker, &process.anchor) {
            (known.epoch, known.turn) = (known.epoch.max(epoch), turn);
            return;
        }
        if table.numbers.len() >= FOLLOWED_PROCESSES {
            self.shared.drop_oldest(&mut table);
        }
        table.last_number += 1;
        let number = table.last_number;
        let data = EventData::new_u64(number);
        if let Err(error) = epoll::add(&self.shared.epoll, &process.pidfd, data, EventFlags::IN) {
            return log::warn!("process {} cannot be followed: {error}", process.anchor.pid);
        }
        table.numbers.insert(number, worker.clone());
        let followed = Followed { number, process, epoch, turn };
        table.workers.entry(worker.clone()).or_default().push(followed);
    }

    /// Follow nobody any more.
    pub fn stop(&self) {
        let _ = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Table {
    fn find(&mut self, worker: &WorkerName, anchor: &Anchor) -> Option<&mut Followed> {
        let same = |known: &&mut Followed| {
            (known.process.anchor.pid, known.process.anchor.started) == (anchor.pid, anchor.started)
        };
        self.workers.get_mut(worker)?.iter_mut().find(same)
    }

    /// Take a process out; and the worker, if this was its last.
    fn take(&mut self, number: u64) -> Option<(WorkerName, Followed, bool)> {
        let worker = self.numbers.remove(&number)?;
        let processes = self.workers.get_mut(&worker)?;
        let at = processes.iter().position(|followed| followed.number == number)?;
        let taken = processes.swap_remove(at);
        // Those that are left stand for its claims too.
        processes.iter_mut().for_each(|other| other.epoch = other.epoch.max(taken.epoch));
        let was_last = processes.is_empty();
        if was_last {
            self.workers.remove(&worker);
        }
        Some((worker, taken, was_last))
    }
}

impl Shared {
    fn run(self: &Arc<Shared>) {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            let wait = self.next_departure().map(|span| Timespec {
                tv_sec: (span.0 / 1000) as i64,
                // A moment more, so that it is due then.
                tv_nsec: (span.0 % 1000 * 1_000_000) as i64 + 999_999,
            });
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return log::error!("processes are not followed any more: {error}"),
            }
            for event in &events {
                match event.data.u64() {
                    STOP => return,
                    number => self.ended(number),
                }
            }
            self.depart();
        }
    }

    /// How long it is until somebody is gone for good.
    fn next_departure(&self) -> Option<Span> {
        let first = self.table.lock().departures.values().map(|departure| departure.at).min()?;
        Some(first.since((self.engine.clock())().instant))
    }

    /// A process ended.
    fn ended(&self, number: u64) {
        let Some((worker, followed, was_last)) = self.table.lock().take(number) else { return };
        self.forget(&followed);
        if !was_last {
            return;
        }
        let Alive { anchor, pidfd } = followed.process;
        let now = (self.engine.clock())().instant;
        let (at, reason) = match (anchor.kind, ending(&anchor, &pidfd)) {
            (Kind::Connection, _) => {
                (now.after(self.grace), LossReason::ConnectionEnded { away: self.grace })
            }
            // It claimed and went, as a command does, or may have; silence will tell.
            (Kind::Program, ProcessEnding::Exited(0) | ProcessEnding::Unknown) => return,
            (Kind::Program | Kind::Agent, ending) => {
                (now, LossReason::ProcessEnded { program: anchor.program, pid: anchor.pid, ending })
            }
        };
        let mut table = self.table.lock();
        let earlier = table.departures.get(&worker).map_or(0, |departure| departure.epoch);
        let departure = Departure { at, epoch: followed.epoch.max(earlier), reason };
        table.departures.insert(worker, departure);
    }

    /// End the claims of those who are gone by now.
    fn depart(self: &Arc<Shared>) {
        let now = (self.engine.clock())().instant;
        let mut due = Vec::new();
        {
            let mut table = self.table.lock();
            let Table { workers, departures, .. } = &mut *table;
            departures.retain(|worker, departure| {
                let is_due = departure.at <= now;
                let is_away = matches!(departure.reason, LossReason::ConnectionEnded { .. });
                if is_due && is_away && workers.contains_key(worker) {
                    return false;
                }
                if is_due {
                    // Until the log has it, this is tried again.
                    departure.at = now.after(Span(DEPARTURE_RETRY_MS));
                    due.push((worker.clone(), departure.clone()));
                }
                true
            });
        }
        for (worker, departure) in due {
            let Departure { epoch, reason, .. } = departure.clone();
            log::debug!("{worker} is gone: {reason}");
            let shared = self.clone();
            let command = Command::Depart { worker: worker.clone(), epoch, reason };
            self.engine.submit(command, move |outcome| {
                if !matches!(outcome, Err(Failure::Log(_) | Failure::ReadOnly(_) | Failure::DiskFull)) {
                    let departures = &mut shared.table.lock().departures;
                    if departures.get(&worker) == Some(&departure) {
                        departures.remove(&worker);
                    }
                }
            });
        }
    }

    /// Leave the process that claimed least lately to its lease.
    fn drop_oldest(&self, table: &mut Table) {
        let oldest = table.workers.values().flatten().min_by_key(|followed| followed.turn);
        let Some((_, followed, _)) = oldest.map(|oldest| oldest.number).and_then(|oldest| table.take(oldest))
        else {
            return;
        };
        self.forget(&followed);
        if !std::mem::replace(&mut table.complained, true) {
            log::warn!(
                "more than {FOLLOWED_PROCESSES} processes hold claims; the first are left to their leases"
            );
        }
    }

    /// Hear of a process no longer, whoever else has a copy of its descriptor.
    fn forget(&self, followed: &Followed) {
        let _ = epoll::delete(&self.epoll, &followed.process.pidfd);
    }
}

/// A descriptor of the process, if it is still there.
fn open(anchor: &Anchor) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(anchor.pid as i32)?, PidfdFlags::empty()).ok()?;
    // Only now the number can no longer become that of another process.
    let (_, stat) = Stat::open(anchor.pid)?;
    (stat.image.started == anchor.started && !has_ended(&pidfd)).then_some(pidfd)
}

fn has_ended(pidfd: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now)) != Ok(0)
}

/// How a process ended. Its parent may wait for it at any moment: before that `/proc` tells, and after it the descriptor.
fn ending(anchor: &Anchor, pidfd: &OwnedFd) -> ProcessEnding {
    let told = || sys::status_of(pidfd.as_fd()).map(process::ending);
    let seen = || process::ending_of(anchor.pid, anchor.started);
    told().or_else(seen).or_else(told).unwrap_or(ProcessEnding::Unknown)
}
