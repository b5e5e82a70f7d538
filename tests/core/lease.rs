//! Time: a lease ends only by silence, measured on the clock that never jumps (C30–C33).

use std::process::{Command as Program, Stdio};
use std::sync::Arc;

use crewfs::clock::Clock;
use crewfs::engine::{Config, Engine, Failure};
use crewfs::fs::identity::process_watch::{Anchor, AnchorKind, ProcessWatch};
use crewfs::limits::WORKERS_PRESENT;
use crewfs::log::MemoryLog;
use crewfs::queue::{
    Command, Ending, Instant, LossReason, Now, Outcome, ProcessEnding, Span, Spec, State, TaskState, Wall,
};
use parking_lot::Mutex;

use crate::engine::{config, nudge};
use crate::fault::{Control, Fault};
use crate::{actor, claim_next, publish, publish_spec, task, worker};

/// A clock that only the test moves.
#[derive(Clone)]
pub struct FakeClock(Arc<Mutex<Now>>);

impl Default for FakeClock {
    fn default() -> FakeClock {
        FakeClock(Arc::new(Mutex::new(Now { wall: Wall(1_767_225_600_000), instant: Instant(5_000) })))
    }
}

impl FakeClock {
    pub fn clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || *clock.0.lock())
    }

    pub fn now(&self) -> Now {
        *self.0.lock()
    }

    pub fn forward(&self, span: Span) {
        let mut now = self.0.lock();
        now.instant = now.instant.after(span);
        now.wall.0 += span.0 as i64;
    }

    /// Set the time of day, as an administrator does.
    fn set_wall(&self, wall: Wall) {
        self.0.lock().wall = wall;
    }
}

const LEASE: Span = Span(60_000);
const HALF: Span = Span(30_000);

struct World {
    clock: FakeClock,
    control: Control,
    engine: Arc<Engine>,
}

impl World {
    fn start(control: Control) -> World {
        let clock = FakeClock::default();
        let config = Config { default_lease: LEASE, clock: clock.clock(), ..config() };
        World { engine: Engine::start(control.log(), config).unwrap(), clock, control }
    }

    fn new() -> World {
        World::start(Control::new(MemoryLog::default()))
    }

    fn heard(&self, name: &str) {
        self.engine.roster().heard(&worker(name), 1_000, self.clock.now());
    }

    /// The state after this much time.
    fn after(&self, span: Span) -> Arc<State> {
        self.clock.forward(span);
        nudge(&self.engine).unwrap();
        self.engine.state()
    }
}

#[test]
fn silence_ends_a_claim_and_a_sign_of_life_renews_it() {
    let world = World::new();
    world.engine.call(publish("t")).unwrap();
    world.heard("w");
    world.engine.call(claim_next("w")).unwrap();
    for _ in 0..5 {
        world.heard("w");
        assert_eq!(world.after(HALF).count(TaskState::Claimed), 1);
    }
    let state = world.after(HALF);
    assert_eq!(state.count(TaskState::Ready), 1);
    let loss = &state.task("t").unwrap().losses[0];
    assert_eq!((&loss.worker, &loss.reason), (&worker("w"), &LossReason::LeaseExpired { silent: LEASE }));
    assert_eq!(*state, State::replay(&world.control.records()));
}

#[test]
fn a_task_that_is_always_lost_fails() {
    let world = World::new();
    let mut spec = Spec::titled("t");
    (spec.lease, spec.attempts) = (Some(Span(5_000)), 2);
    world.engine.call(publish_spec("t", spec)).unwrap();
    for n in 1..=2 {
        let name = format!("w{n}");
        world.heard(&name);
        world.engine.call(claim_next(&name)).unwrap();
        world.after(Span(5_000));
    }
    let state = world.engine.state();
    assert_eq!(state.count(TaskState::Failed), 1);
    assert_eq!(state.task("t").unwrap().losses.len(), 2, "with its history");
}

#[test]
fn setting_the_time_of_day_ends_nothing() {
    let world = World::new();
    world.engine.call(publish("t")).unwrap();
    world.heard("w");
    world.engine.call(claim_next("w")).unwrap();
    let wall = world.clock.now().wall;
    for jump in [10 * 365 * 86_400_000, -10 * 365 * 86_400_000_i64] {
        world.clock.set_wall(Wall(wall.0 + jump));
        assert_eq!(world.after(Span(1_000)).count(TaskState::Claimed), 1);
        world.engine.call(publish(&format!("jump{}", jump > 0))).unwrap();
    }
    let times: Vec<_> = world.control.records().iter().map(|record| record.at).collect();
    assert!(times.is_sorted(), "the log's times never go back");
}

#[test]
fn a_restart_is_a_sign_of_life() {
    let world = World::new();
    world.engine.call(publish("t")).unwrap();
    world.heard("w");
    world.engine.call(claim_next("w")).unwrap();
    world.after(Span(50_000));
    world.engine.stop();

    let world = World::start(world.control);
    assert_eq!(world.after(Span(59_999)).count(TaskState::Claimed), 1);
    assert_eq!(world.after(Span(1_000)).count(TaskState::Ready), 1);
}

#[test]
fn no_lease_ends_while_the_log_does_not_work() {
    let world = World::new();
    world.engine.call(publish("t")).unwrap();
    world.heard("w");
    world.engine.call(claim_next("w")).unwrap();
    world.control.fail_next(&[Fault::Before]);
    world.control.reopen_fails(true);
    assert!(matches!(world.engine.call(publish("lost")), Err(Failure::Log(_))));
    for _ in 0..3 {
        world.clock.forward(LEASE);
        assert!(matches!(nudge(&world.engine), Err(Failure::ReadOnly(_))));
    }
    assert_eq!(world.engine.state().count(TaskState::Claimed), 1);
    world.control.reopen_fails(false);
    assert_eq!(world.after(Span(0)).count(TaskState::Ready), 1);
}

/// C33 for workers that have ended: the engine retries until the log has the event.
#[test]
fn an_end_is_not_forgotten_while_the_log_does_not_work() {
    let world = World::new();
    let process_watch = ProcessWatch::start(world.engine.clone(), Span(0), None).unwrap();
    let mut child = Program::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let started = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap();
    let anchor = Anchor::new(child.id(), started, "cat".into(), AnchorKind::Agent).unwrap();
    world.engine.call(publish("t")).unwrap();
    let Ok(Outcome::Claimed { epoch, .. }) = world.engine.call(claim_next("w")) else { panic!("no claim") };
    process_watch.watch(&worker("w"), process_watch.hold(&worker("w"), &anchor).unwrap(), epoch);

    world.control.fail_next(&[Fault::Before]);
    world.control.reopen_fails(true);
    assert!(matches!(world.engine.call(publish("lost")), Err(Failure::Log(_))));
    child.kill().unwrap();
    child.wait().unwrap();
    while process_watch.watches(&worker("w"), &anchor) {
        std::thread::yield_now();
    }
    assert_eq!(world.engine.state().count(TaskState::Claimed), 1);
    world.control.reopen_fails(false);
    while world.engine.state().count(TaskState::Claimed) > 0 {
        world.clock.forward(Span(100));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let state = world.engine.state();
    let ending = ProcessEnding::Killed(9);
    let reason = LossReason::ProcessEnded { program: "cat".into(), pid: child.id(), ending };
    assert_eq!(state.task("t").unwrap().losses[0].reason, reason);
    assert_eq!(state.worker("w").unwrap().lost.as_ref().unwrap().reason, reason);
    assert_eq!(*state, State::replay(&world.control.records()));
    process_watch.stop();
}

#[test]
fn a_worker_is_idle_from_the_end_of_its_claim_however_it_ends() {
    let world = World::new();
    let by = || actor("w");
    let ends: [fn(_, _) -> Command; 2] = [
        |task, by| Command::Release { task, by },
        |task, by| Command::Finish { task, by, ending: Ending::Failed, text: None, exclusive: false },
    ];
    for end in ends {
        world.engine.call(publish("t")).unwrap();
        world.heard("w");
        world.engine.call(claim_next("w")).unwrap();
        world.clock.forward(HALF);
        world.heard("w");
        world.engine.call(end(task("t"), by())).unwrap();
        let idle = world.engine.roster().get("w").unwrap().idle_since();
        assert_eq!(idle, world.clock.now().instant);
    }
}

#[test]
fn a_crowd_of_new_names_ends_no_claim_early() {
    let world = World::new();
    world.engine.call(publish("t")).unwrap();
    world.after(Span(59_000));
    world.heard("w");
    world.engine.call(claim_next("w")).unwrap();
    world.clock.forward(Span(1));
    for n in 0..WORKERS_PRESENT {
        world.heard(&format!("new{n}"));
    }
    assert!(world.engine.roster().get("w").is_none(), "w is forgotten");
    assert_eq!(world.after(HALF).count(TaskState::Claimed), 1);
    assert_eq!(world.after(HALF).count(TaskState::Ready), 1);
}
