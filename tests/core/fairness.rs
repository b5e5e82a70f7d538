//! Order over hours: no task waits for ever, deadlines that can be met are met, and tasks that own many files get their turn (C13).
//!
//! The tests set the queue's time, so hours take milliseconds. The longest waits are printed
//! (`cargo test --test core fairness -- --nocapture`).

use std::collections::BTreeMap;

use crewfs::queue::{
    ClaimForm, Command, Event, Eyes, Obstacle, Outcome, Priority, Record, Refusal, Rules, Seq, Span, Spec,
    State, TaskState, Wall, When, decide,
};

use crate::{actor, claim_next, complete, publish_spec, task};

const MINUTE: i64 = 60_000;

/// A queue with a clock.
struct World {
    now: Wall,
    state: State,
}

impl World {
    fn new() -> World {
        World { now: Wall(1_767_225_600_000), state: State::default() }
    }

    fn record(&mut self, event: Event) {
        self.state.apply(&Record { seq: self.state.tail() + 1, at: self.now, event });
    }

    fn forward(&mut self, span: i64) {
        self.now.0 += span;
        if self.state.next_due().is_some_and(|due| due <= self.now) {
            self.record(Event::TimePassed);
        }
    }

    fn perform(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        let decision = decide(&self.state, command)?;
        decision.events.into_iter().for_each(|event| self.record(event));
        Ok(decision.outcome)
    }

    fn publish(&mut self, name: &str, change: impl FnOnce(&mut Spec)) {
        let mut spec = Spec::titled(name);
        change(&mut spec);
        self.perform(&publish_spec(name, spec)).unwrap();
    }

    /// Claim the best task for a worker, if there is one.
    fn claim(&mut self, worker: &str) -> Option<String> {
        match self.perform(&claim_next(worker)) {
            Ok(Outcome::Claimed { task, .. }) => Some(task.as_str().to_string()),
            Err(Refusal::NothingReady { .. }) => None,
            other => panic!("{other:?}"),
        }
    }

    fn complete(&mut self, name: &str, worker: &str) {
        self.perform(&complete(name, worker)).unwrap();
    }

    fn published(&self, name: &str) -> (Seq, Wall) {
        let published = self.state.task(name).unwrap().published;
        (published.seq, published.at)
    }
}

fn minutes(n: i64) -> When {
    When::After(Span((n * MINUTE) as u64))
}

/// Nine submitters publish urgent tasks with near deadlines, and one publishes tasks of low priority; together more than is worked off.
/// A task that has waited for as many ageing spans as its level is ripe: no task published later goes first. So the wait is bounded by
/// these spans and by the tasks that were there before.
#[test]
fn nobody_is_passed_for_longer_than_the_ageing_allows() {
    let ageing = Rules::default().ageing.0 as i64;
    let mut world = World::new();
    let mut longest: BTreeMap<Priority, i64> = BTreeMap::new();
    let mut number = 0;
    for minute in 0..24 * 60 {
        world.forward(MINUTE);
        for submitter in 0..10 {
            // Each of the nine publishes every 10 minutes, the tenth every hour.
            let (every, priority) = match submitter {
                9 => (60, [Priority::Background, Priority::Low][(minute / 60) % 2]),
                n => (10, Priority::ALL[n % 3].0),
            };
            if minute % every == submitter % every {
                number += 1;
                world.publish(&format!("t{number}"), |spec| {
                    spec.priority = priority;
                    spec.deadline = (priority < Priority::Low).then(|| minutes(5));
                });
            }
        }
        // Tasks are completed a little more slowly than they come.
        if minute % 10 == 0 {
            continue;
        }
        let best = world.claim("w");
        let Some(name) = best else { continue };
        let spec = world.state.task(&name).unwrap().spec.clone();
        let (mine, at) = world.published(&name);
        let waited = world.now.0 - at.0;
        let wait = longest.entry(spec.priority).or_default();
        *wait = waited.max(*wait);
        // A ripe task goes before every task that was published later. So no ripe task that is left is older than the claimed one.
        let level = |priority: Priority| priority as i64 + 1;
        for id in world.state.listed(TaskState::Ready) {
            let other = world.state.task(id.as_str()).unwrap();
            let ripe = world.now.0 - other.waits_since.unwrap().0 >= level(other.spec.priority) * ageing;
            assert!(!ripe || mine < other.published.seq, "{name} has passed {id}, which is ripe");
        }
        world.complete(&name, "w");
    }
    let left = world.state.count(TaskState::Ready) as i64;
    for (priority, wait) in &longest {
        println!("{priority:?}: longest wait {} min", wait / MINUTE);
        // Nine older tasks are worked off in ten minutes.
        let bound = (*priority as i64 + 1) * ageing + (left + 10) * MINUTE * 10 / 9;
        assert!(*wait <= bound, "{priority:?} waited {} min", wait / MINUTE);
    }
    println!("{number} tasks came, {left} are left");
    assert!(longest.contains_key(&Priority::Background) && longest.contains_key(&Priority::Low));
}

/// Earliest deadline first meets all deadlines if any order can. Here one can: each task takes one minute, and every span has time for
/// all tasks that are due in it.
#[test]
fn deadlines_are_met_when_they_can_be() {
    let mut world = World::new();
    // Published in the worst order: the latest deadline first.
    let last = 50;
    for n in (1..=last).rev() {
        world.publish(&format!("t{n:02}"), |spec| spec.deadline = Some(minutes(n)));
    }
    for n in 0..5 {
        world.publish(&format!("some-time-{n}"), |_| ());
    }
    let mut done = 0;
    while let Some(name) = world.claim("w") {
        world.forward(MINUTE);
        done += 1;
        let task = world.state.task(&name).unwrap();
        match task.deadline() {
            Some(wall) => assert!(world.now <= wall, "{name} is late"),
            None => assert!(done > last, "{name} went before a deadline"),
        }
        world.complete(&name, "w");
    }
    assert_eq!(done, last + 5);
}

#[test]
fn who_owns_much_is_not_passed_for_ever_by_those_who_own_little() {
    const WORKERS: i64 = 4;
    let mut world = World::new();
    let mut number = 0;
    let mut held: Vec<Option<(String, i64)>> = vec![None; WORKERS as usize];
    let mut wide_begun = None;
    for minute in 0..6 * 60 {
        world.forward(MINUTE);
        if minute == 5 {
            world.publish("wide", |spec| spec.owns = vec!["src/**".into()]);
        }
        // There are always more narrow tasks than workers. Each takes some minutes, and they never all end at once.
        while world.state.count(TaskState::Ready) < WORKERS as usize && number < 2_000 {
            let before = world.state.count(TaskState::Ready);
            number += 1;
            world.publish(&format!("n{number}"), |spec| {
                spec.priority = Priority::Critical;
                spec.owns = vec![format!("src/part{number}/**")];
            });
            if world.state.count(TaskState::Ready) == before {
                break;
            }
        }
        for (n, held) in held.iter_mut().enumerate() {
            let worker = format!("w{n}");
            if let Some((name, until)) = held
                && *until <= minute
            {
                world.complete(name, &worker);
                *held = None;
            }
            if held.is_none()
                && let Some(name) = world.claim(&worker)
            {
                if name == "wide" {
                    wide_begun = Some(minute);
                }
                *held = Some((name, minute + 3 + n as i64));
            }
        }
        let wide = held.iter().flatten().any(|(name, _)| name == "wide");
        assert!(!wide || held.iter().flatten().count() == 1, "somebody works beside it");
    }
    let level = Priority::Normal as i64 + 1;
    let begun = wide_begun.expect("it is never begun");
    println!("wide: begun after {} min, ripe after {} min", begun - 5, level * 60);
    assert!(begun - 5 <= level * 60 + 3 + WORKERS, "{begun}");
}

#[test]
fn a_task_that_only_others_can_do_holds_up_nobody() {
    let mut world = World::new();
    world.publish("special", |spec| {
        spec.priority = Priority::Critical;
        spec.requires = vec!["gpu".into()];
    });
    let refused = world.perform(&claim_next("w")).unwrap_err();
    assert_eq!(refused, Refusal::NothingForWorker { worker: actor("w").worker, missing: vec!["gpu".into()] });
    world.publish("plain", |_| ());
    assert_eq!(world.claim("w").as_deref(), Some("plain"));
    world.complete("plain", "w");
    let claim =
        Command::Claim { task: task("special"), by: actor("w"), form: ClaimForm::Any, eyes: Eyes::All };
    assert!(matches!(world.perform(&claim), Err(Refusal::Incapable { .. })));
    let equip = Command::Equip {
        worker: actor("w").worker,
        by: actor("w"),
        words: vec!["rust".into(), "gpu".into(), "gpu".into()],
    };
    world.perform(&equip).unwrap();
    assert_eq!(world.claim("w").as_deref(), Some("special"));
}

#[test]
fn what_is_not_to_be_begun_yet_waits_and_then_ages() {
    let mut world = World::new();
    world.publish("later", |spec| spec.not_before = Some(minutes(30)));
    world.publish("now", |_| ());
    let later = world.state.task("later").unwrap();
    assert_eq!(
        world.state.why_blocked(later, &Eyes::All),
        [Obstacle::NotBefore(later.not_before().unwrap())]
    );
    world.forward(30 * MINUTE - 1);
    assert_eq!(world.state.count(TaskState::Blocked), 1);
    world.forward(1);
    assert_eq!(world.state.count(TaskState::Ready), 2);
    assert_eq!(world.state.task("later").unwrap().waits_since, Some(world.now));
    // `now` is older, but `later` has waited for longer, and is a level higher for half an hour.
    let first = |world: &World| world.state.best_for(None, &Eyes::All).unwrap().to_string();
    assert_eq!(first(&world), "later");
    world.forward(30 * MINUTE);
    assert_eq!(first(&world), "now");
    world.forward(30 * MINUTE);
    assert_eq!(first(&world), "later");
}
