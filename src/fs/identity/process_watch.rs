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

use super::exits::{ExitWatch, ProcessConnector};
use super::process;
use crate::engine::{Engine, Failure};
use crate::limits::{DEPARTURE_RETRY_MS, EXIT_TOLD_MS, FOLLOWED_PROCESSES};
use crate::queue::{Command, Instant, LossReason, ProcessEnding, Seq, Span, WorkerName};
use crate::sys;

/// A process that a worker is known by, by a descriptor: its number may become that of another one.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// Its number.
    pub pid: u32,
    /// When it began, in ticks: with the number, this tells it from every other.
    pub started: u64,
    /// The program that it ran when it was found.
    pub program: String,
    /// What its end means.
    pub kind: AnchorKind,
    pidfd: Arc<OwnedFd>,
}

impl Anchor {
    /// A process that was seen a moment ago, if it is there still. Numbers are given out in turn, so that one is not used again
    /// within a moment. It waits for nothing: to see whether it is the same would take a lock of that process.
    pub fn new(pid: u32, started: u64, program: String, kind: AnchorKind) -> Option<Anchor> {
        let pidfd = pidfd_open(Pid::from_raw(pid as i32)?, PidfdFlags::empty()).ok()?;
        Some(Anchor { pid, started, program, kind, pidfd: Arc::new(pidfd) })
    }

    /// Whether the process has ended.
    pub(super) fn has_ended(&self) -> bool {
        has_ended(&self.pidfd)
    }
}

/// What the end of a process means for the claims of its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnchorKind {
    /// An agent: they end with it.
    Agent,
    /// Some program, which may have been there just to claim: they end with it if it did not end well.
    Program,
    /// Serves a connection: they end if no other connection comes for a while.
    Connection,
}

/// A process that was there when it was looked for.
#[derive(Debug)]
pub struct LiveProcess {
    anchor: Anchor,
    /// A copy for epoll, which tells descriptors apart by their numbers, too.
    pidfd: OwnedFd,
    /// What tells how it ends, where its descriptor does not.
    exit: Option<ExitWatch>,
}

/// The number in epoll that ends the thread.
const STOP: u64 = 0;
/// The number in epoll of what tells exits.
const EXITS: u64 = 1;
/// Ends of processes that are heard of at once.
const EVENTS: usize = 64;

/// Follows processes.
pub struct ProcessWatch {
    shared: Arc<WatchShared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct WatchShared {
    engine: Arc<Engine>,
    /// How long a worker may be without a connection.
    grace: Span,
    epoll: OwnedFd,
    stop: OwnedFd,
    exits: Option<Arc<ProcessConnector>>,
    table: Mutex<AnchorTable>,
}

#[derive(Default)]
struct AnchorTable {
    workers: HashMap<WorkerName, Vec<WatchedAnchor>>,
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

struct WatchedAnchor {
    number: u64,
    process: LiveProcess,
    /// The last claim that was made through it.
    epoch: Seq,
    /// When that was.
    turn: u64,
}

/// The last process of a worker has ended.
struct AnchorEnd {
    worker: WorkerName,
    followed: WatchedAnchor,
    /// How long it is waited for its exit code.
    until: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Departure {
    at: Instant,
    epoch: Seq,
    reason: LossReason,
}

impl ProcessWatch {
    /// No process is followed yet. A worker may be without a connection for `grace`. `exits` tells how processes end, where their
    /// descriptors do not.
    pub fn start(
        engine: Arc<Engine>,
        grace: Span,
        exits: Option<Arc<ProcessConnector>>,
    ) -> std::io::Result<Arc<ProcessWatch>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOP), EventFlags::IN)?;
        if let Some(exits) = &exits {
            epoll::add(&epoll, exits.socket(), EventData::new_u64(EXITS), EventFlags::IN)?;
        }
        let table = Mutex::new(AnchorTable { last_number: EXITS, ..AnchorTable::default() });
        let shared = Arc::new(WatchShared { engine, grace, epoll, stop, exits, table });
        let following = shared.clone();
        let thread = std::thread::Builder::new().name("follower".into()).spawn(move || following.run())?;
        Ok(Arc::new(ProcessWatch { shared, thread: Mutex::new(Some(thread)) }))
    }

    /// Whether a worker's process is followed.
    pub fn follows(&self, worker: &WorkerName, anchor: &Anchor) -> bool {
        self.shared.table.lock().find(worker, anchor).is_some()
    }

    /// The last claim that a worker made through a process, as far as it is followed.
    pub fn last_claim(&self, worker: &WorkerName, anchor: &Anchor) -> Option<Seq> {
        self.shared.table.lock().find(worker, anchor).map(|known| known.epoch)
    }

    /// A hold on a process, if it is still there, or was followed to its end. Taken before a claim and kept until that is decided, it
    /// makes sure that an end in between is heard of.
    pub fn hold(&self, worker: &WorkerName, anchor: &Anchor) -> Option<LiveProcess> {
        // What ends from here on is heard.
        let exit = self.shared.exits.as_ref().map(|exits| exits.watch(anchor.pid));
        if !self.follows(worker, anchor) && anchor.has_ended() {
            return None;
        }
        Some(LiveProcess { anchor: anchor.clone(), pidfd: anchor.pidfd.try_clone().ok()?, exit })
    }

    /// From now on, the claims of this worker up to `epoch` end with this process, if it is the worker's last.
    pub fn follow(&self, worker: &WorkerName, process: LiveProcess, epoch: Seq) {
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
        let followed = WatchedAnchor { number, process, epoch, turn };
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

impl AnchorTable {
    fn find(&mut self, worker: &WorkerName, anchor: &Anchor) -> Option<&mut WatchedAnchor> {
        let same = |known: &&mut WatchedAnchor| {
            (known.process.anchor.pid, known.process.anchor.started) == (anchor.pid, anchor.started)
        };
        self.workers.get_mut(worker)?.iter_mut().find(same)
    }

    /// Take a process out; and the worker, if this was its last.
    fn take(&mut self, number: u64) -> Option<(WorkerName, WatchedAnchor, bool)> {
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

impl WatchShared {
    fn run(self: &Arc<WatchShared>) {
        let mut events = Vec::with_capacity(EVENTS);
        let mut unsettled = Vec::new();
        loop {
            let waits =
                unsettled.iter().map(|ended: &AnchorEnd| ended.until).chain(self.next_departure()).min();
            let wait = waits.map(|at| at.since((self.engine.clock())().instant)).map(|span| Timespec {
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
                    EXITS => {}
                    number => unsettled.extend(self.ended(number)),
                }
            }
            if let Some(exits) = &self.exits {
                exits.hear();
            }
            unsettled.retain(|ended| !self.settle(ended));
            self.depart();
        }
    }

    /// When the next worker is gone for good.
    fn next_departure(&self) -> Option<Instant> {
        self.table.lock().departures.values().map(|departure| departure.at).min()
    }

    /// A process ended, which was the last of its worker.
    fn ended(&self, number: u64) -> Option<AnchorEnd> {
        let (worker, followed, was_last) = self.table.lock().take(number)?;
        self.forget(&followed);
        let until = (self.engine.clock())().instant.after(Span(EXIT_TOLD_MS));
        was_last.then_some(AnchorEnd { worker, followed, until })
    }

    /// A worker's last process ended: see what that means, when it is known how, or will not be known.
    fn settle(&self, ended: &AnchorEnd) -> bool {
        let AnchorEnd { worker, followed, until } = ended;
        let LiveProcess { anchor, exit, .. } = &followed.process;
        let now = (self.engine.clock())().instant;
        let ending = match ending(anchor, exit.as_ref()) {
            Some(ending) => ending,
            // It is told a moment after the end.
            None if exit.is_some() && now < *until => return false,
            None => ProcessEnding::Unknown,
        };
        let (at, reason) = match (anchor.kind, ending) {
            (AnchorKind::Connection, _) => {
                (now.after(self.grace), LossReason::ConnectionEnded { away: self.grace })
            }
            // It claimed and went, as a command does, or may have; silence will tell.
            (AnchorKind::Program, ProcessEnding::Exited(0) | ProcessEnding::Unknown) => return true,
            (AnchorKind::Program | AnchorKind::Agent, ending) => {
                let program = anchor.program.clone();
                (now, LossReason::ProcessEnded { program, pid: anchor.pid, ending })
            }
        };
        let mut table = self.table.lock();
        let earlier = table.departures.get(worker).map_or(0, |departure| departure.epoch);
        let departure = Departure { at, epoch: followed.epoch.max(earlier), reason };
        table.departures.insert(worker.clone(), departure);
        true
    }

    /// End the claims of those who are gone by now.
    fn depart(self: &Arc<WatchShared>) {
        let now = (self.engine.clock())().instant;
        let mut due = Vec::new();
        {
            let mut table = self.table.lock();
            let AnchorTable { workers, departures, .. } = &mut *table;
            departures.retain(|worker, departure| {
                if departure.at > now {
                    return true;
                }
                // Another process of that name came meanwhile: the claims are its own now.
                if let Some(heir) = workers.get_mut(worker).and_then(|processes| processes.first_mut()) {
                    heir.epoch = heir.epoch.max(departure.epoch);
                    return false;
                }
                // Until the log has it, this is tried again.
                departure.at = now.after(Span(DEPARTURE_RETRY_MS));
                due.push((worker.clone(), departure.clone()));
                true
            });
        }
        for (worker, departure) in due {
            let Departure { epoch, reason, .. } = departure.clone();
            log::debug!("{worker} is gone: {reason}");
            let shared = self.clone();
            let command = Command::Depart { worker: worker.clone(), epoch, reason };
            self.engine.submit(command).on_durable(move |outcome| {
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
    fn drop_oldest(&self, table: &mut AnchorTable) {
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
    fn forget(&self, followed: &WatchedAnchor) {
        let _ = epoll::delete(&self.epoll, &followed.process.pidfd);
    }
}

fn has_ended(pidfd: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now)) != Ok(0)
}

/// How a process ended, as far as that is known. Its parent may wait for it at any moment: before that `/proc` tells, and after it the
/// descriptor, or on older kernels what hears of exits.
fn ending(anchor: &Anchor, exit: Option<&ExitWatch>) -> Option<ProcessEnding> {
    let told = || sys::exit_status(anchor.pidfd.as_fd()).map(process::ending);
    let seen = || process::ending_of(anchor.pid, anchor.started);
    let heard = || exit?.status().map(process::ending);
    told().or_else(heard).or_else(seen).or_else(told)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Stdio};

    use super::super::process::Stat;
    use super::*;
    use crate::clock;
    use crate::engine;
    use crate::log::MemoryLog;
    use crate::queue::{Actor, ClaimForm, Eyes, FileStamp, Manifest, Outcome, Rules, Spec, TaskId};

    /// A process that lives until its input ends.
    fn process() -> (Child, Anchor) {
        let child = std::process::Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let anchor = of(child.id(), AnchorKind::Agent);
        (child, anchor)
    }

    fn of(pid: u32, kind: AnchorKind) -> Anchor {
        let started = Stat::open(pid).unwrap().1.image.started;
        Anchor::new(pid, started, "cat".into(), kind).unwrap()
    }

    fn kill(child: &mut Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn name(n: usize) -> WorkerName {
        WorkerName::parse(&format!("w{n}")).unwrap()
    }

    struct TestProcesses {
        engine: Arc<Engine>,
        follower: Arc<ProcessWatch>,
    }

    impl TestProcesses {
        fn new() -> TestProcesses {
            let config = engine::Config {
                default_lease: Span(3_600_000),
                rules: Rules::default(),
                budget: crate::queue::Budget::default(),
                clock: clock::system(),
                directory: None,
            };
            let engine = Engine::start(Box::new(MemoryLog::default()), config).unwrap();
            let follower = ProcessWatch::start(engine.clone(), Span(1_000), None).unwrap();
            TestProcesses { engine, follower }
        }

        /// Make a task and claim it; the claim's epoch.
        fn claim(&self, task: &str, worker: &WorkerName) -> Seq {
            let id = TaskId::parse(task).unwrap();
            let manifest = Manifest::Spec(Arc::new(Spec::titled(task)));
            let publish = Command::Publish { task: id.clone(), manifest, stamp: FileStamp::default() };
            self.engine.call(publish).unwrap();
            let by = Actor { worker: worker.clone(), uid: 1, operator: false };
            match self
                .engine
                .call(Command::Claim { task: id, by, form: ClaimForm::Any, eyes: Eyes::All })
                .unwrap()
            {
                Outcome::Claimed { epoch, .. } => epoch,
                other => panic!("{other:?}"),
            }
        }

        fn is_held(&self, task: &str) -> bool {
            self.engine.state().task(task).unwrap().claim().is_some()
        }

        fn until_lost(&self, task: &str) {
            while self.is_held(task) {
                std::thread::yield_now();
            }
        }
    }

    impl Drop for TestProcesses {
        fn drop(&mut self) {
            self.follower.stop();
            self.engine.stop();
        }
    }

    #[test]
    fn a_process_is_held_until_it_has_ended() {
        let world = TestProcesses::new();
        let (mut child, anchor) = process();
        assert!(world.follower.hold(&name(1), &anchor).is_some());
        child.kill().unwrap();
        // Ended, and later waited for.
        while !anchor.has_ended() {
            std::thread::yield_now();
        }
        assert!(world.follower.hold(&name(1), &anchor).is_none());
        child.wait().unwrap();
        assert!(world.follower.hold(&name(1), &anchor).is_none());
    }

    #[test]
    fn an_end_between_the_look_and_the_claim_is_heard_of() {
        let world = TestProcesses::new();
        let (mut child, anchor) = process();
        let alive = world.follower.hold(&name(1), &anchor).unwrap();
        kill(&mut child);
        let epoch = world.claim("a", &name(1));
        world.follower.follow(&name(1), alive, epoch);
        world.until_lost("a");
        assert!(!world.follower.follows(&name(1), &anchor));
    }

    #[test]
    fn what_was_not_claimed_through_it_or_before_it_ended_stays() {
        let world = TestProcesses::new();
        let (mut child, anchor) = process();
        let epoch = world.claim("a", &name(1));
        let alive = world.follower.hold(&name(1), &anchor).unwrap();
        world.follower.follow(&name(1), alive, epoch);
        world.claim("younger", &name(1));
        world.claim("other", &name(2));
        kill(&mut child);
        world.until_lost("a");
        assert!(world.is_held("younger") && world.is_held("other"));
    }

    #[test]
    fn the_claims_of_a_process_that_ended_pass_to_the_next_of_its_name() {
        let world = TestProcesses::new();
        let (mut first, (mut second, heir)) = (process(), process());
        first.1.kind = AnchorKind::Connection;
        let epoch = world.claim("a", &name(1));
        let alive = world.follower.hold(&name(1), &first.1).unwrap();
        world.follower.follow(&name(1), alive, epoch);
        kill(&mut first.0);
        while world.follower.shared.table.lock().departures.is_empty() {
            std::thread::yield_now();
        }
        // It knows nothing of that claim.
        let alive = world.follower.hold(&name(1), &heir).unwrap();
        world.follower.follow(&name(1), alive, 0);
        while !world.follower.shared.table.lock().departures.is_empty() {
            std::thread::yield_now();
        }
        assert!(world.is_held("a"));
        kill(&mut second);
        world.until_lost("a");
    }

    #[test]
    fn of_too_many_the_first_are_left_to_their_leases() {
        sys::raise_descriptor_limit();
        let world = TestProcesses::new();
        let me = of(std::process::id(), AnchorKind::Agent);
        let follow = |n| {
            let Some(alive) = world.follower.hold(&name(n), &me) else { return false };
            world.follower.follow(&name(n), alive, 0);
            true
        };
        if !(0..=FOLLOWED_PROCESSES).all(follow) {
            return eprintln!("skipped: too few descriptors");
        }
        assert!(!world.follower.follows(&name(0), &me));
        assert!((1..=FOLLOWED_PROCESSES).all(|n| world.follower.follows(&name(n), &me)));
        assert!(follow(1) && follow(0), "who claims again is young again");
        assert!(!world.follower.follows(&name(2), &me) && world.follower.follows(&name(1), &me));
    }
}
