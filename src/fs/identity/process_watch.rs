//! The anchors of workers: when the last one of a worker ends, the worker loses its claims (C31).
//!
//! May assume: the kernel reports when a process ends (pidfd_open(2)). Where it does not, only leases end claims.
//! Must never: make a thread wait that serves the kernel; or end a claim that was made after the process had ended.
//!
//! A process is watched from the claim on that was made through it, or from the next request of a worker that holds a claim.
//! There is one lock, of the table. No call to the engine is made under it, because the engine may answer at once.

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

/// A process by which a worker is known, held by a descriptor because its pid may be reused.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// Its pid.
    pub pid: u32,
    /// When it started, in ticks. Pid and start together identify a process.
    pub started: u64,
    /// The program that it ran when it was found.
    pub program: String,
    /// What its end means.
    pub kind: AnchorKind,
    pidfd: Arc<OwnedFd>,
}

impl Anchor {
    /// The anchor for a process that a look-up found a moment ago, if it still exists. The kernel gives out pids in turn, so that none is
    /// reused within a moment. This waits for nothing: to check the process's start would take a lock of that process.
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
    /// Another program, which may have run only to make the claim: they end with it if it did not exit with 0.
    Program,
    /// The process serves a connection: they end if no other connection of the worker appears within the grace time.
    Connection,
}

/// An anchor that was alive when it was checked.
#[derive(Debug)]
pub struct LiveProcess {
    anchor: Anchor,
    /// A copy for epoll, which identifies descriptors also by their numbers.
    pidfd: OwnedFd,
    /// Records how the process ends, where its descriptor does not.
    exit: Option<ExitWatch>,
}

/// The number in epoll of the event that ends the thread.
const STOP: u64 = 0;
/// The number in epoll of the process connector.
const EXITS: u64 = 1;
/// The largest number of events that one wait returns.
const EVENTS: usize = 64;

/// Watches processes.
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
    /// The worker of the process with each number in epoll.
    numbers: HashMap<u64, WorkerName>,
    last_number: u64,
    /// The number of claims so far.
    turn: u64,
    /// Workers without a process, each with the time at which its claims end.
    departures: HashMap<WorkerName, Departure>,
    /// Whether the daemon has warned that there are too many processes to watch.
    has_warned: bool,
}

struct WatchedAnchor {
    number: u64,
    process: LiveProcess,
    /// The last claim that was made through it.
    epoch: Seq,
    /// The count of claims at that time.
    turn: u64,
}

/// The end of a worker's last process.
struct AnchorEnd {
    worker: WorkerName,
    watched: WatchedAnchor,
    /// Until when to wait for its exit code.
    until: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Departure {
    at: Instant,
    epoch: Seq,
    reason: LossReason,
}

impl ProcessWatch {
    /// Start without any process. A worker may be without a connection for `grace`. `exits` gives exit codes where descriptors do not
    /// keep them.
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
        let watching = shared.clone();
        let thread = std::thread::Builder::new().name("follower".into()).spawn(move || watching.run())?;
        Ok(Arc::new(ProcessWatch { shared, thread: Mutex::new(Some(thread)) }))
    }

    /// Whether a worker's process is watched.
    pub fn watches(&self, worker: &WorkerName, anchor: &Anchor) -> bool {
        self.shared.table.lock().find(worker, anchor).is_some()
    }

    /// The last claim that a worker made through a process, if the process is watched.
    pub fn last_claim(&self, worker: &WorkerName, anchor: &Anchor) -> Option<Seq> {
        self.shared.table.lock().find(worker, anchor).map(|known| known.epoch)
    }

    /// A hold on a process, if it is alive or watched. A hold that is taken before a claim and kept until the decision ensures that an end
    /// in between is noticed.
    pub fn hold(&self, worker: &WorkerName, anchor: &Anchor) -> Option<LiveProcess> {
        // From here on its end is recorded.
        let exit = self.shared.exits.as_ref().map(|exits| exits.watch(anchor.pid));
        if !self.watches(worker, anchor) && anchor.has_ended() {
            return None;
        }
        Some(LiveProcess { anchor: anchor.clone(), pidfd: anchor.pidfd.try_clone().ok()?, exit })
    }

    /// From now on, the claims of this worker up to `epoch` end with this process, if it is the worker's last.
    pub fn watch(&self, worker: &WorkerName, process: LiveProcess, epoch: Seq) {
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
        let watched = WatchedAnchor { number, process, epoch, turn };
        table.workers.entry(worker.clone()).or_default().push(watched);
    }

    /// Stop watching.
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

    /// Remove a process; also remove the worker, if this was its last process. The answer is whether it was.
    fn take(&mut self, number: u64) -> Option<(WorkerName, WatchedAnchor, bool)> {
        let worker = self.numbers.remove(&number)?;
        let processes = self.workers.get_mut(&worker)?;
        let at = processes.iter().position(|watched| watched.number == number)?;
        let taken = processes.swap_remove(at);
        // The remaining processes now keep its claims alive too.
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
        let mut undecided = Vec::new();
        loop {
            let deadline =
                undecided.iter().map(|ended: &AnchorEnd| ended.until).chain(self.next_departure()).min();
            let wait = deadline.map(|at| at.since((self.engine.clock())().instant)).map(|span| Timespec {
                tv_sec: (span.0 / 1000) as i64,
                // A millisecond more, so that the time has then passed.
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
                    number => undecided.extend(self.remove_ended(number)),
                }
            }
            if let Some(exits) = &self.exits {
                exits.read_reports();
            }
            undecided.retain(|ended| !self.decide(ended));
            self.end_due_claims();
        }
    }

    /// When the next worker loses its claims.
    fn next_departure(&self) -> Option<Instant> {
        self.table.lock().departures.values().map(|departure| departure.at).min()
    }

    /// Remove a process that has ended. The answer is its end, if it was the last of its worker.
    fn remove_ended(&self, number: u64) -> Option<AnchorEnd> {
        let (worker, watched, was_last) = self.table.lock().take(number)?;
        self.unregister(&watched);
        let until = (self.engine.clock())().instant.after(Span(EXIT_TOLD_MS));
        was_last.then_some(AnchorEnd { worker, watched, until })
    }

    /// Decide what the end of a worker's last process means, once its exit code is known or will not come. The answer is whether it was
    /// decided.
    fn decide(&self, ended: &AnchorEnd) -> bool {
        let AnchorEnd { worker, watched, until } = ended;
        let LiveProcess { anchor, exit, .. } = &watched.process;
        let now = (self.engine.clock())().instant;
        let ending = match ending(anchor, exit.as_ref()) {
            Some(ending) => ending,
            // The exit code is reported a moment after the end.
            None if exit.is_some() && now < *until => return false,
            None => ProcessEnding::Unknown,
        };
        let (at, reason) = match (anchor.kind, ending) {
            (AnchorKind::Connection, _) => {
                (now.after(self.grace), LossReason::ConnectionEnded { away: self.grace })
            }
            // It made a claim and exited, as a command does, or may have. Only the lease can end the claim.
            (AnchorKind::Program, ProcessEnding::Exited(0) | ProcessEnding::Unknown) => return true,
            (AnchorKind::Program | AnchorKind::Agent, ending) => {
                let program = anchor.program.clone();
                (now, LossReason::ProcessEnded { program, pid: anchor.pid, ending })
            }
        };
        let mut table = self.table.lock();
        let earlier = table.departures.get(worker).map_or(0, |departure| departure.epoch);
        let departure = Departure { at, epoch: watched.epoch.max(earlier), reason };
        table.departures.insert(worker.clone(), departure);
        true
    }

    /// End the claims of the workers whose time has come.
    fn end_due_claims(self: &Arc<WatchShared>) {
        let now = (self.engine.clock())().instant;
        let mut due = Vec::new();
        {
            let mut table = self.table.lock();
            let AnchorTable { workers, departures, .. } = &mut *table;
            departures.retain(|worker, departure| {
                if departure.at > now {
                    return true;
                }
                // Another process of that worker has appeared: it takes over the claims.
                if let Some(heir) = workers.get_mut(worker).and_then(|processes| processes.first_mut()) {
                    heir.epoch = heir.epoch.max(departure.epoch);
                    return false;
                }
                // Retry until the event log has it.
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

    /// Stop watching the process with the oldest claim; its claims end by their leases.
    fn drop_oldest(&self, table: &mut AnchorTable) {
        let oldest = table.workers.values().flatten().min_by_key(|watched| watched.turn);
        let Some((_, watched, _)) = oldest.map(|oldest| oldest.number).and_then(|oldest| table.take(oldest))
        else {
            return;
        };
        self.unregister(&watched);
        if !std::mem::replace(&mut table.has_warned, true) {
            log::warn!(
                "more than {FOLLOWED_PROCESSES} processes hold claims; the first are left to their leases"
            );
        }
    }

    /// Remove a process from epoll explicitly, since other copies of its descriptor may be open.
    fn unregister(&self, watched: &WatchedAnchor) {
        let _ = epoll::delete(&self.epoll, &watched.process.pidfd);
    }
}

fn has_ended(pidfd: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now)) != Ok(0)
}

/// How a process ended, if that is known. Its parent may wait for it at any moment: `/proc` shows the status before that, and the
/// descriptor after it, or the process connector on older kernels.
fn ending(anchor: &Anchor, exit: Option<&ExitWatch>) -> Option<ProcessEnding> {
    let from_descriptor = || sys::exit_status(anchor.pidfd.as_fd()).map(process::ending);
    let from_proc = || process::ending_of(anchor.pid, anchor.started);
    let reported = || exit?.status().map(process::ending);
    from_descriptor().or_else(reported).or_else(from_proc).or_else(from_descriptor)
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
        process_watch: Arc<ProcessWatch>,
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
            let process_watch = ProcessWatch::start(engine.clone(), Span(1_000), None).unwrap();
            TestProcesses { engine, process_watch }
        }

        /// Create a task and claim it. The answer is the claim's epoch.
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
            self.process_watch.stop();
            self.engine.stop();
        }
    }

    #[test]
    fn a_process_is_held_until_it_has_ended() {
        let world = TestProcesses::new();
        let (mut child, anchor) = process();
        assert!(world.process_watch.hold(&name(1), &anchor).is_some());
        child.kill().unwrap();
        // First the process has only ended, later its parent has waited for it.
        while !anchor.has_ended() {
            std::thread::yield_now();
        }
        assert!(world.process_watch.hold(&name(1), &anchor).is_none());
        child.wait().unwrap();
        assert!(world.process_watch.hold(&name(1), &anchor).is_none());
    }

    #[test]
    fn an_end_between_the_look_up_and_the_claim_is_noticed() {
        let world = TestProcesses::new();
        let (mut child, anchor) = process();
        let alive = world.process_watch.hold(&name(1), &anchor).unwrap();
        kill(&mut child);
        let epoch = world.claim("a", &name(1));
        world.process_watch.watch(&name(1), alive, epoch);
        world.until_lost("a");
        assert!(!world.process_watch.watches(&name(1), &anchor));
    }

    #[test]
    fn what_was_not_claimed_through_it_or_before_it_ended_stays() {
        let world = TestProcesses::new();
        let (mut child, anchor) = process();
        let epoch = world.claim("a", &name(1));
        let alive = world.process_watch.hold(&name(1), &anchor).unwrap();
        world.process_watch.watch(&name(1), alive, epoch);
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
        let alive = world.process_watch.hold(&name(1), &first.1).unwrap();
        world.process_watch.watch(&name(1), alive, epoch);
        kill(&mut first.0);
        while world.process_watch.shared.table.lock().departures.is_empty() {
            std::thread::yield_now();
        }
        // This process has not made that claim.
        let alive = world.process_watch.hold(&name(1), &heir).unwrap();
        world.process_watch.watch(&name(1), alive, 0);
        while !world.process_watch.shared.table.lock().departures.is_empty() {
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
            let Some(alive) = world.process_watch.hold(&name(n), &me) else { return false };
            world.process_watch.watch(&name(n), alive, 0);
            true
        };
        if !(0..=FOLLOWED_PROCESSES).all(follow) {
            return eprintln!("skipped: too few descriptors");
        }
        assert!(!world.process_watch.watches(&name(0), &me));
        assert!((1..=FOLLOWED_PROCESSES).all(|n| world.process_watch.watches(&name(n), &me)));
        assert!(follow(1) && follow(0), "who claims again is young again");
        assert!(!world.process_watch.watches(&name(2), &me) && world.process_watch.watches(&name(1), &me));
    }
}
