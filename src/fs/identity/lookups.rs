//! Looks at other processes that may never come to an end, made by threads that may hang for ever.
//!
//! To read what a process has in its memory (its environment, its arguments, its mappings) takes locks of that process, and its
//! owner can keep these for ever: by a page of a filesystem that does not answer, or in the midst of execve(2).
//!
//! May assume: a look holds plain data and opens nothing that outlives it.
//! Must never: let a thread that serves the kernel wait; let one user's processes delay what another's ask for; or have more
//! threads hang for one user than [`LOOKERS`].
//!
//! Each user has a lane of its own: threads that look, and threads that go on with what was found. A looker has its own, empty table of
//! descriptors. So when the daemon ends, or is killed, while one hangs, the mounts end and the project is free all the same.
//!
//! A look that takes longer than the lane's patience is late: who asked goes on without an answer. After the first one the lane is wary for
//! a while: its patience is short, and few of its looks are waited for at all. For a request that waits keeps a directory locked in the kernel,
//! and others wait for that.

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

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(5);
/// How often the usher looks around while anything is under way.
const ROUND: Duration = Duration::from_millis(1);
/// Rounds without work after which it rests until it is woken.
const ROUNDS_IDLE: u32 = 1_000;
const SECOND: Duration = Duration::from_secs(1);

/// Whose looks share threads and patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// The processes of a user.
    User(u32),
    /// Those in user namespaces, where one user may have many thousand uids.
    Strangers,
}

impl Lane {
    /// That of a process of this user.
    pub(super) fn of(process: u32, uid: u32) -> Lane {
        let map = |process: &str| fs::read(format!("/proc/{process}/uid_map")).ok();
        if map(&process.to_string()) == map("self") { Lane::User(uid) } else { Lane::Strangers }
    }
}

/// What is to be said about a look that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookupEvent {
    /// It is done.
    Done,
    /// It takes too long. It may be done later.
    Late,
    /// It will not be made.
    Dropped,
}

/// What comes of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookupPromise {
    /// News will come soon.
    Soon,
    /// It is looked, but this lane has made others wait enough.
    Sometime,
    /// Nothing is looked at: too much of this lane hangs.
    Never,
}

/// Something to be done by a thread that may wait.
pub(super) type Job = Box<dyn FnOnce() + Send>;
/// Is told what becomes of a look, and answers what is to be done now.
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
    rests: bool,
}

/// The threads of a lane.
#[derive(Default)]
struct LaneThreads {
    inside: Mutex<LaneState>,
    to_look: Condvar,
    to_run: Condvar,
}

#[derive(Default)]
struct LaneState {
    next: u64,
    queued: VecDeque<QueuedLookup>,
    running: Vec<Running>,
    tasks: VecDeque<Job>,
    lookers: Threads,
    runners: Threads,
    /// Since the last look that was late.
    last_late: Option<Stopwatch>,
    /// Those of the last second.
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
    told: EventHandler,
}

struct Running {
    number: u64,
    thread: i32,
    since: Stopwatch,
    told: EventHandler,
    late: bool,
    /// The wait in which it was seen, by its number, and since when.
    waits: Option<(u64, Stopwatch)>,
}

impl LaneState {
    fn is_wary(&self) -> bool {
        self.last_late.is_some_and(|late| late.elapsed() < Duration::from_millis(WARY_MS))
    }

    /// How long a look may take, and how long if it goes on all that time.
    fn patience(&self) -> (Duration, Duration) {
        let (most, most_at_work) =
            if self.is_wary() { (LOOKUP_WARY_MS, LOOKUP_MS) } else { (LOOKUP_MS, LOOKUP_LONGEST_MS) };
        (Duration::from_millis(most), Duration::from_millis(most_at_work))
    }

    /// Whether no thread can look any more, because all that there may be hang.
    fn is_stuck(&self) -> bool {
        self.running.iter().filter(|running| running.late).count() >= LOOKERS
    }
}

impl Lookups {
    /// Have `look` made, and `heard` told of it: that it is late, and what it found. Either is told by a thread that may wait.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        lane: Lane,
        look: impl FnOnce() -> T + Send + 'static,
        heard: impl Fn(LookupEvent, Option<T>) -> Vec<Job> + Send + Sync + 'static,
    ) -> LookupPromise {
        let found = Arc::new(Mutex::new(None));
        let slot = found.clone();
        let work = Box::new(move || {
            let came = look();
            *slot.lock() = Some(came);
        });
        let told = Arc::new(move |news| {
            let found = if news == LookupEvent::Done { found.lock().take() } else { None };
            heard(news, found)
        });
        let crew = self.crew(lane);
        let asked = {
            let mut inside = crew.inside.lock();
            inside.late.retain(|late| late.elapsed() < SECOND);
            let enough = inside.is_wary() && inside.late.len() >= LATE_LOOKUPS_A_SECOND;
            if inside.is_stuck() || inside.queued.len() >= LOOKUPS_QUEUED {
                return LookupPromise::Never;
            }
            inside.queued.push_back(QueuedLookup { work, told });
            crew.begin_looker(&mut inside);
            crew.begin_runner(&mut inside);
            if enough { LookupPromise::Sometime } else { LookupPromise::Soon }
        };
        crew.to_look.notify_one();
        self.keep_time();
        asked
    }

    /// Make a look and wait for what it finds: for threads that do not serve the kernel. Nothing if it is late.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        lane: Lane,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (tell, told) = std::sync::mpsc::sync_channel(2);
        let asked = self.ask(lane, look, move |_, found| {
            let _ = tell.try_send(found);
            Vec::new()
        });
        if asked == LookupPromise::Soon { told.recv().ok().flatten() } else { None }
    }

    /// Go on with something by a thread of this lane.
    pub(super) fn run(&self, lane: Lane, task: Job) {
        let crew = self.crew(lane);
        let mut inside = crew.inside.lock();
        inside.tasks.push_back(task);
        crew.begin_runner(&mut inside);
        crew.to_run.notify_one();
        drop(inside);
        self.keep_time();
    }

    fn crew(&self, lane: Lane) -> Arc<LaneThreads> {
        self.0.lanes.lock().entry(lane).or_default().clone()
    }

    fn keep_time(&self) {
        let mut deadlines = self.0.deadlines.lock();
        if !deadlines.started {
            let shared = self.0.clone();
            let thread = std::thread::Builder::new().name("lookups".into());
            deadlines.started = thread.spawn(move || shared.keep_time()).is_ok();
        } else if deadlines.rests {
            deadlines.rests = false;
            self.0.wake.notify_one();
        }
    }
}

impl LookupShared {
    fn keep_time(&self) {
        let mut idle = 0;
        loop {
            let crews: Vec<Arc<LaneThreads>> = self.lanes.lock().values().cloned().collect();
            let busy = crews.iter().filter(|crew| crew.look_around()).count() > 0;
            idle = if busy { 0 } else { idle + 1 };
            let mut deadlines = self.deadlines.lock();
            if idle < ROUNDS_IDLE {
                self.wake.wait_for(&mut deadlines, ROUND);
            } else {
                deadlines.rests = true;
                self.wake.wait(&mut deadlines);
                idle = 0;
            }
        }
    }
}

// Threads are started by those that have the daemon's descriptors, never by a looker: a thread shares the table of the one that starts it.
impl LaneThreads {
    fn begin_looker(self: &Arc<LaneThreads>, inside: &mut LaneState) {
        if inside.lookers.idle < inside.queued.len() && inside.lookers.all < LOOKERS {
            let crew = self.clone();
            let thread = std::thread::Builder::new().name("looker".into()).spawn(move || crew.look());
            inside.lookers.all += usize::from(thread.is_ok());
        }
    }

    fn begin_runner(self: &Arc<LaneThreads>, inside: &mut LaneState) {
        if inside.runners.idle <= inside.tasks.len() && inside.runners.all < LOOKERS {
            let crew = self.clone();
            let thread = std::thread::Builder::new().name("asked-for".into()).spawn(move || crew.go_on());
            inside.runners.all += usize::from(thread.is_ok());
        }
    }

    fn look(&self) {
        // From here on nothing may be dropped that owns a descriptor of the daemon: its number means nothing here.
        let _ = sys::unshare_descriptors();
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let mut inside = self.inside.lock();
        loop {
            let Some(QueuedLookup { work, told }) = inside.queued.pop_front() else {
                inside.lookers.idle += 1;
                let rested = self.to_look.wait_for(&mut inside, IDLE).timed_out();
                inside.lookers.idle -= 1;
                if rested && inside.queued.is_empty() {
                    inside.lookers.all -= 1;
                    return;
                }
                continue;
            };
            inside.next += 1;
            let (number, since) = (inside.next, Stopwatch::start());
            inside.running.push(Running { number, thread, since, told, late: false, waits: None });
            drop(inside);
            work();
            inside = self.inside.lock();
            if let Some(at) = inside.running.iter().position(|running| running.number == number) {
                let Running { told, .. } = inside.running.swap_remove(at);
                self.tell(&mut inside, told, LookupEvent::Done);
            }
        }
    }

    fn go_on(&self) {
        let mut inside = self.inside.lock();
        loop {
            let Some(task) = inside.tasks.pop_front() else {
                inside.runners.idle += 1;
                let rested = self.to_run.wait_for(&mut inside, IDLE).timed_out();
                inside.runners.idle -= 1;
                if rested && inside.tasks.is_empty() {
                    inside.runners.all -= 1;
                    return;
                }
                continue;
            };
            drop(inside);
            task();
            inside = self.inside.lock();
        }
    }

    fn tell(&self, inside: &mut LaneState, told: EventHandler, news: LookupEvent) {
        inside.tasks.push_back(Box::new(move || told(news).into_iter().for_each(|task| task())));
        self.to_run.notify_one();
    }

    /// Tell of what is late, and start threads where work waits for one. Whether anything is under way.
    fn look_around(self: &Arc<LaneThreads>) -> bool {
        let mut inside = self.inside.lock();
        let patience = inside.patience();
        let mut late = Vec::new();
        for running in inside.running.iter_mut().filter(|running| !running.late) {
            running.late = running.is_late(patience);
            if running.late {
                late.push(running.told.clone());
            }
        }
        for told in late {
            let now = Stopwatch::start();
            inside.last_late = Some(now);
            inside.late.push_back(now);
            self.tell(&mut inside, told, LookupEvent::Late);
        }
        if inside.is_stuck() {
            for QueuedLookup { told, .. } in std::mem::take(&mut inside.queued) {
                self.tell(&mut inside, told, LookupEvent::Dropped);
            }
        }
        self.begin_looker(&mut inside);
        if !inside.tasks.is_empty() {
            self.begin_runner(&mut inside);
        }
        let waits = inside.running.iter().any(|running| !running.late);
        waits || !inside.queued.is_empty() || !inside.tasks.is_empty()
    }
}

impl Running {
    fn is_late(&mut self, (most, most_at_work): (Duration, Duration)) -> bool {
        let elapsed = self.since.elapsed();
        elapsed >= most_at_work || elapsed >= most && self.stands_still()
    }

    /// Whether the thread waits, and has been in that same wait for a while. One that would go on if it had a processor does not, nor does one
    /// that waits again and again, for locks that others keep briefly: on a busy machine that takes long, and comes to its end.
    fn stands_still(&mut self) -> bool {
        let status =
            fs::read_to_string(format!("/proc/self/task/{}/status", self.thread)).unwrap_or_default();
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
        let wait = field("voluntary_ctxt_switches:").and_then(|count| count.parse().ok());
        let wait = wait.filter(|_| !field("State:").is_some_and(|state| state.starts_with('R')));
        if self.waits.map(|(known, _)| known) != wait {
            self.waits = wait.map(|wait| (wait, Stopwatch::start()));
        }
        self.waits.is_some_and(|(_, since)| since.elapsed() >= Duration::from_millis(LOOKUP_WARY_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const A: Lane = Lane::User(1);
    const B: Lane = Lane::User(2);

    /// A look that hangs until the other end is dropped.
    fn hang(lookups: &Lookups, lane: Lane, tell: &Sender<LookupEvent>) -> (LookupPromise, Sender<()>) {
        let (release, released) = channel::<()>();
        let tell = tell.clone();
        let asked = lookups.ask(
            lane,
            move || {
                let _ = released.recv();
            },
            move |news, _| {
                tell.send(news).unwrap();
                Vec::new()
            },
        );
        (asked, release)
    }

    fn all<T>(told: &Receiver<T>, count: usize) -> Vec<T> {
        (0..count).map(|_| told.recv_timeout(Duration::from_secs(30)).unwrap()).collect()
    }

    #[test]
    fn a_look_that_hangs_is_late_and_told_when_it_is_done() {
        let (lookups, (tell, told)) = (Lookups::default(), channel());
        let (asked, release) = hang(&lookups, A, &tell);
        assert_eq!((asked, all(&told, 1)), (LookupPromise::Soon, vec![LookupEvent::Late]));
        drop(release);
        assert_eq!(all(&told, 1), [LookupEvent::Done]);
    }

    #[test]
    fn a_look_that_goes_on_is_waited_for() {
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
        let (lookups, (tell, told)) = (Lookups::default(), channel());
        let hanging: Vec<_> = (0..LOOKERS).map(|_| hang(&lookups, A, &tell).1).collect();
        let (_, behind) = hang(&lookups, A, &tell);
        // Several threads tell of them, in any order.
        let news = all(&told, LOOKERS + 1);
        let count = |of: LookupEvent| news.iter().filter(|news| **news == of).count();
        assert_eq!(
            (count(LookupEvent::Late), count(LookupEvent::Dropped)),
            (LOOKERS, 1),
            "nothing can look at the last: {news:?}"
        );
        assert_eq!(hang(&lookups, A, &tell).0, LookupPromise::Never);
        assert_eq!(lookups.wait(B, || 7), Some(7));
        assert_eq!(lookups.wait(A, || 7), None);
        drop((hanging, behind));
        assert!(all(&told, LOOKERS).iter().all(|news| *news == LookupEvent::Done));
        assert_eq!(
            lookups.ask(A, || (), |_, _| Vec::new()),
            LookupPromise::Sometime,
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
