//! Look-ups in other processes. A look-up may block for ever, so it runs on a thread that may hang for ever.
//!
//! Reading a process's memory (its environment, its arguments, its mappings) takes locks of that process. Its owner can hold them
//! for ever: with a page of a filesystem that does not answer, or in the middle of execve(2).
//!
//! May assume: a look-up holds plain data and opens nothing that outlives it.
//! Must never: let a thread that serves the kernel wait; let one user's processes delay look-ups for another user; or let more
//! threads hang for one user than [`LOOKERS`].
//!
//! Each user has a lane of its own, with looker threads that make look-ups and runner threads that continue with the results. A looker
//! has its own, empty descriptor table. So when the daemon ends, or is killed, while a looker hangs, the mounts still end and the project
//! is free.
//!
//! A look-up that takes longer than the lane's patience is late: its request continues without a result. After a late look-up the lane is
//! wary for a while: its patience is short, and requests wait for few of its look-ups. The reason is that a waiting request keeps a
//! directory locked in the kernel, and other requests wait for that lock.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::clock::Stopwatch;
use crate::limits::{
    LATE_LOOKUPS_A_SECOND, LOOKERS, LOOKUP_LONGEST_MS, LOOKUP_MS, LOOKUP_WARY_MS, LOOKUPS_QUEUED, WARY_MS,
};
use crate::sys;

/// How long a thread without work waits before it ends.
const IDLE: Duration = Duration::from_secs(5);
/// The deadline thread's round while anything is under way.
const ROUND: Duration = Duration::from_millis(1);
/// Rounds without work after which the deadline thread sleeps until it is woken.
const ROUNDS_IDLE: u32 = 1_000;
const SECOND: Duration = Duration::from_secs(1);

/// The processes whose look-ups share threads and patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// The processes of a user.
    User(u32),
    /// All processes in other user namespaces, where one user may have many thousand uids.
    ForeignNamespaces,
}

impl Lane {
    /// The lane of a process of this user.
    pub(super) fn of(process: u32, uid: u32) -> Lane {
        let map = |process: &str| fs::read(format!("/proc/{process}/uid_map")).ok();
        if map(&process.to_string()) == map("self") { Lane::User(uid) } else { Lane::ForeignNamespaces }
    }
}

/// An event of a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookupEvent {
    /// It is done.
    Done,
    /// It takes too long. It may still be done later.
    Late,
    /// It will not be made.
    Dropped,
}

/// The answer to [`Lookups::ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookupPromise {
    /// The look-up is made, and its first event will come soon.
    Awaited,
    /// The look-up is made, but the caller must not wait: enough look-ups of this lane were late.
    Unawaited,
    /// The look-up is not made: too many of this lane hang.
    Refused,
}

/// Work for a thread that may wait.
pub(super) type Job = Box<dyn FnOnce() + Send>;
/// Called with the events of a look-up. It returns the work that follows.
type EventHandler = Arc<dyn Fn(LookupEvent) -> Vec<Job> + Send + Sync>;

/// The lanes.
#[derive(Default)]
pub(super) struct Lookups(Arc<LookupShared>);

#[derive(Default)]
struct LookupShared {
    lanes: Mutex<HashMap<Lane, Arc<LaneThreads>>>,
    deadlines: Mutex<DeadlineThread>,
    wake: Condvar,
}

#[derive(Default)]
struct DeadlineThread {
    started: bool,
    sleeps: bool,
}

/// The threads of a lane.
#[derive(Default)]
struct LaneThreads {
    state: Mutex<LaneState>,
    to_look: Condvar,
    to_run: Condvar,
}

#[derive(Default)]
struct LaneState {
    next: u64,
    queued: VecDeque<QueuedLookup>,
    running: Vec<Running>,
    jobs: VecDeque<Job>,
    lookers: Threads,
    runners: Threads,
    /// The time since the last late look-up.
    last_late: Option<Stopwatch>,
    /// The late look-ups of the last second.
    late: VecDeque<Stopwatch>,
}

#[derive(Default)]
struct Threads {
    all: usize,
    /// How many of them wait for work.
    idle: usize,
}

struct QueuedLookup {
    work: Box<dyn FnOnce() + Send>,
    handler: EventHandler,
}

struct Running {
    number: u64,
    thread: i32,
    since: Stopwatch,
    handler: EventHandler,
    late: bool,
    /// The wait in which the thread was last seen, by its number, and since when.
    wait: Option<(u64, Stopwatch)>,
}

impl LaneState {
    fn is_wary(&self) -> bool {
        self.last_late.is_some_and(|late| late.elapsed() < Duration::from_millis(WARY_MS))
    }

    /// How long a look-up may take if it is blocked, and how long if it makes progress.
    fn patience(&self) -> (Duration, Duration) {
        let (most, most_at_work) =
            if self.is_wary() { (LOOKUP_WARY_MS, LOOKUP_MS) } else { (LOOKUP_MS, LOOKUP_LONGEST_MS) };
        (Duration::from_millis(most), Duration::from_millis(most_at_work))
    }

    /// Whether as many threads hang as there may be, so that none can make another look-up.
    fn is_stuck(&self) -> bool {
        self.running.iter().filter(|running| running.late).count() >= LOOKERS
    }
}

impl Lookups {
    /// Make `look`, and call `on_event` with its events and its result. A thread that may wait calls `on_event`.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        lane: Lane,
        look: impl FnOnce() -> T + Send + 'static,
        on_event: impl Fn(LookupEvent, Option<T>) -> Vec<Job> + Send + Sync + 'static,
    ) -> LookupPromise {
        let found = Arc::new(Mutex::new(None));
        let slot = found.clone();
        let work = Box::new(move || {
            let came = look();
            *slot.lock() = Some(came);
        });
        let handler = Arc::new(move |event| {
            let found = if event == LookupEvent::Done { found.lock().take() } else { None };
            on_event(event, found)
        });
        let threads = self.threads_of(lane);
        let promise = {
            let mut state = threads.state.lock();
            state.late.retain(|late| late.elapsed() < SECOND);
            let has_delayed_enough = state.is_wary() && state.late.len() >= LATE_LOOKUPS_A_SECOND;
            if state.is_stuck() || state.queued.len() >= LOOKUPS_QUEUED {
                return LookupPromise::Refused;
            }
            state.queued.push_back(QueuedLookup { work, handler });
            threads.start_looker(&mut state);
            threads.start_runner(&mut state);
            if has_delayed_enough { LookupPromise::Unawaited } else { LookupPromise::Awaited }
        };
        threads.to_look.notify_one();
        self.wake_deadline_thread();
        promise
    }

    /// Make a look-up and wait for its result; `None` if it is late. For threads that do not serve the kernel.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        lane: Lane,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(2);
        let promise = self.ask(lane, look, move |_, found| {
            let _ = sender.try_send(found);
            Vec::new()
        });
        if promise == LookupPromise::Awaited { receiver.recv().ok().flatten() } else { None }
    }

    /// Run a job on a thread of this lane.
    pub(super) fn run(&self, lane: Lane, job: Job) {
        let threads = self.threads_of(lane);
        let mut state = threads.state.lock();
        state.jobs.push_back(job);
        threads.start_runner(&mut state);
        threads.to_run.notify_one();
        drop(state);
        self.wake_deadline_thread();
    }

    fn threads_of(&self, lane: Lane) -> Arc<LaneThreads> {
        self.0.lanes.lock().entry(lane).or_default().clone()
    }

    fn wake_deadline_thread(&self) {
        let mut deadlines = self.0.deadlines.lock();
        if !deadlines.started {
            let shared = self.0.clone();
            let thread = std::thread::Builder::new().name("lookups".into());
            deadlines.started = thread.spawn(move || shared.run_deadlines()).is_ok();
        } else if deadlines.sleeps {
            deadlines.sleeps = false;
            self.0.wake.notify_one();
        }
    }
}

impl LookupShared {
    fn run_deadlines(&self) {
        let mut idle = 0;
        loop {
            let lanes: Vec<Arc<LaneThreads>> = self.lanes.lock().values().cloned().collect();
            let busy = lanes.iter().filter(|threads| threads.check_deadlines()).count() > 0;
            idle = if busy { 0 } else { idle + 1 };
            let mut deadlines = self.deadlines.lock();
            if idle < ROUNDS_IDLE {
                self.wake.wait_for(&mut deadlines, ROUND);
            } else {
                deadlines.sleeps = true;
                self.wake.wait(&mut deadlines);
                idle = 0;
            }
        }
    }
}

// Only threads with the daemon's descriptors start others, never a looker: a new thread shares the descriptor table of its creator.
impl LaneThreads {
    fn start_looker(self: &Arc<LaneThreads>, state: &mut LaneState) {
        if state.lookers.idle < state.queued.len() && state.lookers.all < LOOKERS {
            let threads = self.clone();
            let thread =
                std::thread::Builder::new().name("looker".into()).spawn(move || threads.run_lookups());
            state.lookers.all += usize::from(thread.is_ok());
        }
    }

    fn start_runner(self: &Arc<LaneThreads>, state: &mut LaneState) {
        if state.runners.idle <= state.jobs.len() && state.runners.all < LOOKERS {
            let threads = self.clone();
            let thread =
                std::thread::Builder::new().name("asked-for".into()).spawn(move || threads.run_jobs());
            state.runners.all += usize::from(thread.is_ok());
        }
    }

    fn run_lookups(&self) {
        // From here on this thread may drop nothing that owns a descriptor of the daemon: its number is invalid in this table.
        let _ = sys::unshare_descriptors();
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let mut state = self.state.lock();
        loop {
            let Some(QueuedLookup { work, handler }) = state.queued.pop_front() else {
                state.lookers.idle += 1;
                let timed_out = self.to_look.wait_for(&mut state, IDLE).timed_out();
                state.lookers.idle -= 1;
                if timed_out && state.queued.is_empty() {
                    state.lookers.all -= 1;
                    return;
                }
                continue;
            };
            state.next += 1;
            let (number, since) = (state.next, Stopwatch::start());
            state.running.push(Running { number, thread, since, handler, late: false, wait: None });
            drop(state);
            work();
            state = self.state.lock();
            if let Some(index) = state.running.iter().position(|running| running.number == number) {
                let Running { handler, .. } = state.running.swap_remove(index);
                self.report(&mut state, handler, LookupEvent::Done);
            }
        }
    }

    fn run_jobs(&self) {
        let mut state = self.state.lock();
        loop {
            let Some(job) = state.jobs.pop_front() else {
                state.runners.idle += 1;
                let timed_out = self.to_run.wait_for(&mut state, IDLE).timed_out();
                state.runners.idle -= 1;
                if timed_out && state.jobs.is_empty() {
                    state.runners.all -= 1;
                    return;
                }
                continue;
            };
            drop(state);
            job();
            state = self.state.lock();
        }
    }

    fn report(&self, state: &mut LaneState, handler: EventHandler, event: LookupEvent) {
        state.jobs.push_back(Box::new(move || handler(event).into_iter().for_each(|job| job())));
        self.to_run.notify_one();
    }

    /// Report late look-ups, and start threads where work waits for one. The answer is whether anything is under way.
    fn check_deadlines(self: &Arc<LaneThreads>) -> bool {
        let mut state = self.state.lock();
        let patience = state.patience();
        let mut late = Vec::new();
        for running in state.running.iter_mut().filter(|running| !running.late) {
            running.late = running.is_late(patience);
            if running.late {
                late.push(running.handler.clone());
            }
        }
        for handler in late {
            let now = Stopwatch::start();
            state.last_late = Some(now);
            state.late.push_back(now);
            self.report(&mut state, handler, LookupEvent::Late);
        }
        if state.is_stuck() {
            for QueuedLookup { handler, .. } in std::mem::take(&mut state.queued) {
                self.report(&mut state, handler, LookupEvent::Dropped);
            }
        }
        self.start_looker(&mut state);
        if !state.jobs.is_empty() {
            self.start_runner(&mut state);
        }
        let is_running = state.running.iter().any(|running| !running.late);
        is_running || !state.queued.is_empty() || !state.jobs.is_empty()
    }
}

impl Running {
    fn is_late(&mut self, (most, most_at_work): (Duration, Duration)) -> bool {
        let elapsed = self.since.elapsed();
        elapsed >= most_at_work || elapsed >= most && self.is_blocked()
    }

    /// Whether the thread is blocked, and has been in that same wait for a while. A thread that only waits for a processor is not
    /// blocked. Nor is one that waits again and again for locks that are held briefly: on a busy machine that takes long, but it ends.
    fn is_blocked(&mut self) -> bool {
        let status =
            fs::read_to_string(format!("/proc/self/task/{}/status", self.thread)).unwrap_or_default();
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
        let wait = field("voluntary_ctxt_switches:").and_then(|count| count.parse().ok());
        let wait = wait.filter(|_| !field("State:").is_some_and(|state| state.starts_with('R')));
        if self.wait.map(|(known, _)| known) != wait {
            self.wait = wait.map(|wait| (wait, Stopwatch::start()));
        }
        self.wait.is_some_and(|(_, since)| since.elapsed() >= Duration::from_millis(LOOKUP_WARY_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const A: Lane = Lane::User(1);
    const B: Lane = Lane::User(2);

    /// A look-up that hangs until the other end is dropped.
    fn hang(lookups: &Lookups, lane: Lane, sender: &Sender<LookupEvent>) -> (LookupPromise, Sender<()>) {
        let (release, released) = channel::<()>();
        let sender = sender.clone();
        let promise = lookups.ask(
            lane,
            move || {
                let _ = released.recv();
            },
            move |event, _| {
                sender.send(event).unwrap();
                Vec::new()
            },
        );
        (promise, release)
    }

    fn all<T>(receiver: &Receiver<T>, count: usize) -> Vec<T> {
        (0..count).map(|_| receiver.recv_timeout(Duration::from_secs(30)).unwrap()).collect()
    }

    #[test]
    fn a_look_up_that_hangs_is_late_and_reported_when_it_is_done() {
        let (lookups, (sender, receiver)) = (Lookups::default(), channel());
        let (promise, release) = hang(&lookups, A, &sender);
        assert_eq!((promise, all(&receiver, 1)), (LookupPromise::Awaited, vec![LookupEvent::Late]));
        drop(release);
        assert_eq!(all(&receiver, 1), [LookupEvent::Done]);
    }

    #[test]
    fn a_look_up_that_makes_progress_is_waited_for() {
        let (lookups, start) = (Lookups::default(), Stopwatch::start());
        let look = move || {
            while start.elapsed() < Duration::from_millis(3 * LOOKUP_MS) {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        assert_eq!(lookups.wait(A, look), Some(()), "it waits often, and never for long");
    }

    #[test]
    fn no_more_threads_hang_for_a_user_than_there_may_and_another_s_are_free() {
        let (lookups, (sender, receiver)) = (Lookups::default(), channel());
        let hanging: Vec<_> = (0..LOOKERS).map(|_| hang(&lookups, A, &sender).1).collect();
        let (_, behind) = hang(&lookups, A, &sender);
        // Several threads report the events, in any order.
        let events = all(&receiver, LOOKERS + 1);
        let count = |of: LookupEvent| events.iter().filter(|event| **event == of).count();
        assert_eq!(
            (count(LookupEvent::Late), count(LookupEvent::Dropped)),
            (LOOKERS, 1),
            "nothing can look at the last: {events:?}"
        );
        assert_eq!(hang(&lookups, A, &sender).0, LookupPromise::Refused);
        assert_eq!(lookups.wait(B, || 7), Some(7));
        assert_eq!(lookups.wait(A, || 7), None);
        drop((hanging, behind));
        assert!(all(&receiver, LOOKERS).iter().all(|event| *event == LookupEvent::Done));
        assert_eq!(
            lookups.ask(A, || (), |_, _| Vec::new()),
            LookupPromise::Unawaited,
            "it has made others wait enough"
        );
    }

    #[test]
    fn a_looker_has_none_of_the_daemon_s_descriptors() {
        let file = fs::File::open("/proc/self/status").unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&file);
        let is_open = move || fs::metadata(format!("/proc/thread-self/fd/{number}")).is_ok();
        assert!(is_open());
        assert_eq!(Lookups::default().wait(A, is_open), Some(false));
        assert!(is_open(), "the daemon's own stays");
    }
}
