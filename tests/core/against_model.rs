//! The real queue against the naive model: thousands of short histories, compared after every step. Few tasks and few workers make the
//! commands collide.
//!
//! The seed is always the same, so that a failure repeats; `PROPTEST_CASES=100000` explores with a new seed.

use std::collections::{HashMap, HashSet};

use crewfs::queue::{
    Actor, ClaimForm, Command, Content, Decision, Ending, Event, Eyes, FileStamp, FileState, LossReason,
    Manifest, Outcome, Phase, Priority, Problem, ProcessEnding, Record, Refusal, Rules, Seq, Span, Spec,
    State, Task, TaskId, TaskState, Wall, When, WorkerName, decide,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::model::{Class, File, Item, Model, Said, Stage};

/// A command in small numbers. They are resolved to tasks and workers when the command is executed.
#[derive(Debug, Clone)]
enum Wish {
    Publish {
        task: u8,
        front: Front,
        stamp: u64,
    },
    OpenFile {
        task: u8,
    },
    RemoveFile {
        task: u8,
        by: Who,
    },
    FileGone {
        task: u8,
    },
    Withdraw {
        task: u8,
    },
    Forget {
        task: u8,
        by: Who,
    },
    Claim {
        task: u8,
        by: Who,
        form: ClaimForm,
    },
    ClaimNext {
        by: Who,
        form: ClaimForm,
    },
    Note {
        task: u8,
        by: Who,
        age: u64,
    },
    Finish {
        task: u8,
        by: Who,
        completed: bool,
        text: bool,
        exclusive: bool,
    },
    Report {
        task: u8,
        by: Who,
        age: u64,
    },
    Release {
        task: u8,
        by: Who,
    },
    Retry {
        task: u8,
        by: Who,
    },
    Expire {
        task: u8,
        age: u64,
    },
    Depart {
        worker: u8,
        task: u8,
        age: u64,
    },
    Drain {
        worker: u8,
        by: Who,
        draining: bool,
    },
    Equip {
        worker: u8,
        by: Who,
        words: Vec<&'static str>,
    },
    Pause {
        by: Who,
        paused: bool,
    },
    /// No command for this many minutes.
    Wait {
        minutes: i64,
    },
}

/// The front matter of a task file.
#[derive(Debug, Clone)]
struct Front {
    needs: Vec<u8>,
    problem: bool,
    priority: u8,
    attempts: u32,
    requires: Vec<&'static str>,
    owns: Vec<&'static str>,
    deadline: Option<u64>,
    not_before: Option<u64>,
}

#[derive(Debug, Clone)]
struct Who {
    worker: u8,
    uid: u32,
    operator: bool,
}

fn who(workers: u8) -> impl Strategy<Value = Who> {
    let uid = prop_oneof![12 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(7))];
    (0..workers, uid, prop::bool::weighted(0.15)).prop_map(|(worker, uid, operator)| Who {
        worker,
        uid: uid.unwrap_or(1_000 + u32::from(worker)),
        operator,
    })
}

/// A history with few tasks and workers. In the smallest ones, each task goes through many states.
fn history() -> impl Strategy<Value = Vec<Wish>> {
    (1..=5u8, 1..=3u8).prop_flat_map(|(tasks, workers)| prop::collection::vec(wish(tasks, workers), 1..60))
}

fn wish(tasks: u8, workers: u8) -> impl Strategy<Value = Wish> {
    let task = move || 0..tasks;
    let who = move || who(workers);
    let often = || prop::bool::weighted(0.85);
    // How many events a remembered position is behind the newest one; usually none.
    let age = || prop_oneof![5 => Just(0u64), 1 => 1..6u64];
    let words = || prop_oneof![3 => Just(vec![]), 2 => Just(vec!["x"]), 1 => Just(vec!["y", "x", "y"])];
    prop_oneof![
        8 => (task(), front(tasks), 0..3u64).prop_map(|(task, front, stamp)| Wish::Publish { task, front, stamp }),
        2 => (0..workers, who(), words()).prop_map(|(worker, by, words)| Wish::Equip { worker, by, words }),
        4 => (0..90i64).prop_map(|minutes| Wish::Wait { minutes }),
        1 => task().prop_map(|task| Wish::OpenFile { task }),
        2 => (task(), who()).prop_map(|(task, by)| Wish::RemoveFile { task, by }),
        1 => task().prop_map(|task| Wish::FileGone { task }),
        2 => task().prop_map(|task| Wish::Withdraw { task }),
        2 => (task(), who()).prop_map(|(task, by)| Wish::Forget { task, by }),
        5 => (task(), who(), form()).prop_map(|(task, by, form)| Wish::Claim { task, by, form }),
        5 => (who(), form()).prop_map(|(by, form)| Wish::ClaimNext { by, form }),
        2 => (task(), who(), age()).prop_map(|(task, by, age)| Wish::Note { task, by, age }),
        7 => (task(), who(), often(), any::<bool>(), any::<bool>()).prop_map(
            |(task, by, completed, text, exclusive)| Wish::Finish { task, by, completed, text, exclusive }
        ),
        2 => (task(), who(), age()).prop_map(|(task, by, age)| Wish::Report { task, by, age }),
        2 => (task(), who()).prop_map(|(task, by)| Wish::Release { task, by }),
        2 => (task(), who()).prop_map(|(task, by)| Wish::Retry { task, by }),
        3 => (task(), age()).prop_map(|(task, age)| Wish::Expire { task, age }),
        2 => (0..workers, task(), age()).prop_map(|(worker, task, age)| Wish::Depart { worker, task, age }),
        1 => (0..workers, who(), any::<bool>()).prop_map(|(worker, by, draining)| Wish::Drain { worker, by, draining }),
        1 => (who(), prop::bool::weighted(0.3)).prop_map(|(by, paused)| Wish::Pause { by, paused }),
    ]
}

fn form() -> impl Strategy<Value = ClaimForm> {
    prop_oneof![Just(ClaimForm::Any), Just(ClaimForm::Exclusive), Just(ClaimForm::Text)]
}

fn front(tasks: u8) -> impl Strategy<Value = Front> {
    let span = || prop::option::weighted(0.3, 0..120u64);
    let requires = prop_oneof![4 => Just(vec![]), 1 => Just(vec!["x"]), 1 => Just(vec!["x", "y"])];
    let owns = prop_oneof![
        3 => Just(vec![]),
        1 => Just(vec!["/a"]),
        1 => Just(vec!["/b"]),
        1 => Just(vec!["/a", "/b"]),
        1 => Just(vec!["*"]),
    ];
    let needs = prop::collection::vec(0..=tasks, 0..3);
    let needs = prop_oneof![1 => Just(vec![]), 1 => needs];
    (needs, prop::bool::weighted(0.1), 0..5u8, 1..4u32, requires, owns, span(), span()).prop_map(
        |(needs, problem, priority, attempts, requires, owns, deadline, not_before)| Front {
            needs,
            problem,
            priority,
            attempts,
            requires,
            owns,
            deadline,
            not_before,
        },
    )
}

fn task_id(n: u8) -> TaskId {
    TaskId::parse(&format!("t{n}")).unwrap()
}

fn worker_name(n: u8) -> WorkerName {
    WorkerName::parse(&format!("w{n}")).unwrap()
}

fn actor(who: Who) -> Actor {
    Actor { worker: worker_name(who.worker), uid: who.uid, operator: who.operator }
}

fn text() -> Content {
    Content::new("all of it")
}

fn manifest(front: &Front) -> Manifest {
    if front.problem {
        return Manifest::Problem(Problem { line: 3, message: "no".into() }.into());
    }
    let texts = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
    let minutes = |n: Option<u64>| n.map(|n| When::After(Span(n * 60_000)));
    let mut spec = Spec::titled("x");
    spec.needs = front.needs.iter().map(|need| task_id(*need)).collect();
    spec.needs.sort();
    spec.needs.dedup();
    spec.priority = Priority::ALL[usize::from(front.priority)].0;
    spec.attempts = front.attempts;
    (spec.requires, spec.owns) = (texts(&front.requires), texts(&front.owns));
    (spec.deadline, spec.not_before) = (minutes(front.deadline), minutes(front.not_before));
    Manifest::Spec(spec.into())
}

/// The command that a wish stands for at this point of the history, if there is one.
fn command(model: &Model, wish: Wish) -> Option<Command> {
    let epoch = |task: u8, age: u64| match model.find(&task_id(task)).map(|item| &item.stage) {
        Some(Stage::Claimed { epoch, .. }) => epoch.saturating_sub(age),
        _ => age,
    };
    let finish = |task: u8, age: u64| match model.find(&task_id(task)).map(|item| &item.stage) {
        Some(Stage::Ended { finish, .. }) => finish.saturating_sub(age),
        _ => age,
    };
    Some(match wish {
        Wish::Wait { .. } => return None,
        Wish::Publish { task, front, stamp } => Command::Publish {
            task: task_id(task),
            manifest: manifest(&front),
            stamp: FileStamp { ino: stamp, size: 1, mtime_ns: 1, readers: None },
        },
        Wish::OpenFile { task } => Command::OpenFile { task: task_id(task) },
        Wish::RemoveFile { task, by } => Command::RemoveFile { task: task_id(task), by: actor(by) },
        Wish::FileGone { task } => Command::FileGone { task: task_id(task) },
        Wish::Withdraw { task } => Command::Withdraw { task: task_id(task) },
        Wish::Forget { task, by } => Command::Forget { task: task_id(task), by: actor(by) },
        Wish::Claim { task, by, form } => {
            Command::Claim { task: task_id(task), by: actor(by), form, eyes: Eyes::All }
        }
        Wish::ClaimNext { by, form } => Command::ClaimNext { by: actor(by), form, eyes: Eyes::All },
        Wish::Note { task, by, age } => Command::Note {
            task: task_id(task),
            epoch: epoch(task, age),
            by: actor(by),
            text: format!("note {age}"),
        },
        Wish::Finish { task, by, completed, text: with, exclusive } => Command::Finish {
            task: task_id(task),
            by: actor(by),
            ending: if completed { Ending::Completed } else { Ending::Failed },
            text: with.then(text),
            exclusive,
        },
        Wish::Report { task, by, age } => Command::Report {
            task: task_id(task),
            finish: finish(task, age),
            by: actor(by),
            text: Content::new("in the end"),
        },
        Wish::Release { task, by } => Command::Release { task: task_id(task), by: actor(by) },
        Wish::Retry { task, by } => Command::Retry { task: task_id(task), by: actor(by) },
        Wish::Expire { task, age } => {
            Command::Expire { task: task_id(task), epoch: epoch(task, age), silent: Span(9) }
        }
        Wish::Depart { worker, task, age } => Command::Depart {
            worker: worker_name(worker),
            epoch: epoch(task, age),
            reason: LossReason::ConnectionEnded { away: Span(9) },
        },
        Wish::Drain { worker, by, draining } => {
            Command::Drain { worker: worker_name(worker), by: actor(by), draining }
        }
        Wish::Equip { worker, by, words } => Command::Equip {
            worker: worker_name(worker),
            by: actor(by),
            words: words.into_iter().map(str::to_string).collect(),
        },
        Wish::Pause { by, paused } => Command::Pause { by: actor(by), paused },
    })
}

/// The real queue, with everything that must agree with it.
#[derive(Default)]
struct Real {
    now: Wall,
    state: State,
    records: Vec<Record>,
    /// The state made of the same events, each of them written as a log line and read back.
    follower: State,
    /// The newest epoch that each task ever had.
    epochs: HashMap<TaskId, Seq>,
}

impl Real {
    fn under(rules: Rules) -> Real {
        Real {
            state: State::default().under(rules),
            follower: State::default().under(rules),
            ..Real::default()
        }
    }

    fn record(&mut self, event: Event) {
        let record = Record { seq: self.state.tail() + 1, at: self.now, event };
        self.state.apply(&record);
        let line = serde_json::to_string(&record).unwrap();
        self.follower.apply(&serde_json::from_str(&line).unwrap());
        self.records.push(record);
    }

    /// Advance the time, and record the step if it changes the state.
    fn pass_time(&mut self, now: Wall) {
        self.now = now;
        if self.state.next_due().is_some_and(|due| due <= now) {
            self.record(Event::TimePassed);
        }
        assert!(self.state.next_due().is_none_or(|due| due > now), "something is still due");
    }

    fn step(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        let before = self.state.clone();
        let decision = decide(&self.state, command);
        assert_eq!(decision, decide(&rebuilt(&self.state), command), "a rebuilt state judges otherwise");
        let Decision { events, outcome } = decision.inspect_err(|_| assert_eq!(self.state, before))?;
        for event in events {
            self.record(event);
        }
        if let Outcome::Claimed { task, epoch } = &outcome {
            let last = self.epochs.insert(task.clone(), *epoch).unwrap_or(0);
            let known = before.task(task.as_str()).and_then(|t| t.claim()).map(|claim| claim.epoch());
            assert!(known == Some(*epoch) || *epoch > last.max(before.tail()), "epochs must rise");
        }
        Ok(outcome)
    }
}

/// The state after it was written to a snapshot and loaded.
fn rebuilt(state: &State) -> State {
    let state_again: State = serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap();
    state_again.under(*state.rules())
}

/// Assert what holds in every state.
fn check_sound(state: &State) {
    assert_eq!(rebuilt(state), *state, "a snapshot is not the state");
    let mut listed = 0;
    for kind in TaskState::ALL {
        let ids: Vec<_> = state.listed(kind).collect();
        assert_eq!(ids.len(), state.count(kind));
        listed += ids.len();
        for id in ids {
            assert_eq!(state.state_of(state.task(id.as_str()).unwrap()), kind, "{id}");
        }
    }
    assert_eq!(listed, state.len(), "each task is listed once");
    let unsettled = state.tasks().filter(|(_, task)| match task.file {
        FileState::Present => false,
        FileState::Open(_) => true,
        FileState::Missing(_) => task.finish().is_none(),
    });
    assert!(state.unsettled().eq(unsettled.map(|(id, _)| id)), "tasks whose file is away or open");
    let ready: Vec<_> = state.listed(TaskState::Ready).collect();
    for n in (0..3).map(worker_name) {
        let can = |id: &&&TaskId| state.missing(state.task(id.as_str()).unwrap(), n.as_str()).is_empty();
        assert_eq!(
            state.best_for(Some(n.as_str()), &Eyes::All),
            ready.iter().find(can).copied(),
            "the best for {n}"
        );
    }
    for (id, task) in state.tasks() {
        if matches!(task.phase, Phase::Open) {
            let unmet: Vec<_> = task.declared_needs().iter().filter(|need| !state.is_met(need)).collect();
            assert_eq!(task.unmet.iter().count(), unmet.len(), "{id}");
            assert!(unmet.iter().all(|need| task.unmet.contains(*need)), "{id}");
        }
    }
}

fn check_same(state: &State, model: &Model) {
    assert_eq!(state.len(), model.items.len());
    for item in &model.items {
        check_task(state, model, item);
    }
    assert_eq!(state.listed(TaskState::Ready).cloned().collect::<Vec<_>>(), model.ready());
    assert_eq!(state.paused().is_some(), model.paused);
    for n in (0..3).map(worker_name) {
        assert_eq!(
            state.best_for(Some(n.as_str()), &Eyes::All),
            model.best_for(&n).as_ref(),
            "the best for {n}"
        );
        let words = model.capabilities.get(&n).into_iter().flatten().cloned();
        assert_eq!(state.capabilities(n.as_str()), words.collect::<Vec<_>>(), "what {n} can do");
    }
    assert_eq!(state.workers().count(), model.names.len());
    for (name, worker) in state.workers() {
        assert_eq!(Some(&worker.uid), model.names.get(name));
        assert_eq!(worker.claims, model.claims(name), "claims of {name}");
        assert_eq!(worker.draining, model.draining.contains(name), "draining of {name}");
        assert_eq!(worker.ousted, model.ousted.contains(name), "the last claim of {name}");
        let endings = model.endings.get(name).copied().unwrap_or_default();
        assert_eq!((worker.completed, worker.failed), endings, "endings of {name}");
    }
}

fn check_task(state: &State, model: &Model, item: &Item) {
    let id = &item.id;
    let task = state.task(id.as_str()).unwrap_or_else(|| panic!("{id} is missing"));
    assert_eq!(state.state_of(task), model.state(item), "state of {id}");
    assert_eq!(task.waits_since, item.waits_since, "the patience of {id}");
    let file = match task.file {
        FileState::Present => File::Whole,
        FileState::Open(_) => File::BeingWritten,
        FileState::Missing(_) => File::Gone,
    };
    assert_eq!(file, item.file, "the file of {id}");
    assert_eq!(task.ousted.iter().cloned().collect::<HashSet<_>>(), item.ousted, "who lost {id}");
    if task.is_open() {
        assert_eq!(
            state.why_blocked(task, &Eyes::All).is_empty(),
            model.state(item) == TaskState::Ready,
            "{id}"
        );
    }
    assert_eq!(task.manifest, item.newest, "newest content of {id}");
    if let Some(spec) = &item.in_force
        && matches!(model.state(item), TaskState::Ready | TaskState::Blocked | TaskState::Claimed)
    {
        assert_eq!(*task.spec, *spec, "what is in force of {id}");
    }
    match &item.stage {
        Stage::Open => assert!(task.claim().is_none() && task.finish().is_none()),
        Stage::Claimed { worker, epoch, note } => {
            let claim = task.claim().unwrap();
            assert_eq!((&claim.worker, claim.epoch()), (worker, *epoch));
            assert_eq!(claim.note.as_ref().map(|note| &note.text), note.as_ref());
        }
        Stage::Ended { worker, finish, text, .. } => {
            let found = task.finish().unwrap();
            assert_eq!((&found.worker, found.when.seq), (worker, *finish));
            assert_eq!(found.text.is_some(), text.is_some());
        }
    }
}

fn run(rules: Rules, wishes: Vec<Wish>) {
    let (mut real, mut model) = (Real::under(rules), Model { rules, ..Model::default() });
    for wish in wishes {
        let before = real.state.clone();
        let pause = if let Wish::Wait { minutes } = &wish { minutes * 60_000 } else { 10 };
        let now = Wall(model.now.0 + pause);
        real.pass_time(now);
        model.pass_time(now);
        check_same(&real.state, &model);
        check_changes_show(&before, &real.state);
        let Some(command) = command(&model, wish) else { continue };
        let before = real.state.clone();
        let outcome = real.step(&command);
        let token = match &outcome {
            Ok(Outcome::Claimed { epoch, .. }) => *epoch,
            Ok(Outcome::Finished { finish }) => *finish,
            _ => before.tail() + 1,
        };
        let said = outcome.map(|outcome| match outcome {
            Outcome::Claimed { task, .. } => Said::Claimed(task),
            Outcome::Finished { .. } => Said::Finished,
            Outcome::Done => Said::Done,
        });
        let expected = model.step(&command, token);
        assert_eq!(
            said.as_ref().map_err(Class::of),
            expected.as_ref().map_err(|class| *class),
            "{command:?}: {said:?}"
        );
        check_same(&real.state, &model);
        check_sound(&real.state);
        assert_eq!(real.follower, real.state, "a replay is not the state");
        check_changes_show(&before, &real.state);
        check_claims(&before, &real.state);
    }
    let mut replayed = State::default().under(rules);
    real.records.iter().for_each(|record| replayed.apply(record));
    assert_eq!(replayed, real.state);
    // The rules change no record on the disk.
    let (other, mine) = (State::replay(&real.records), serde_json::to_value(&real.state).unwrap());
    assert_eq!(serde_json::to_value(&other).unwrap(), mine);
    assert_eq!(other.under(rules), real.state);
}

/// Assert that no worker claims a task that it may not have, and that no two claimed tasks own the same files.
fn check_claims(before: &State, after: &State) {
    let mut owned: Vec<String> = Vec::new();
    for (name, worker) in after.workers() {
        for id in &worker.claims {
            let task = after.task(id.as_str()).unwrap();
            let epoch = |task: &Task| task.claim().map(|claim| claim.epoch());
            if before.task(id.as_str()).and_then(|old| epoch(old)) != epoch(task) {
                assert!(before.missing(task, name.as_str()).is_empty(), "{name} has claimed {id}");
            }
            let new = |glob: &String| owned.iter().all(|o| o != glob && o != "*" && (glob != "*"));
            assert!(owned.is_empty() || task.spec.owns.iter().all(new), "{id} owns what others own");
            owned.extend(task.spec.owns.iter().cloned());
        }
        let limit = after.rules().claims_per_worker;
        assert!(limit.is_none_or(|limit| worker.claims.len() <= limit), "{name} holds too much");
    }
}

/// C1: if the appearance of a task changes, its time of change does too. If the appearance depends on other tasks, the time of change
/// of the queue counts.
fn check_changes_show(before: &State, after: &State) {
    for (id, task) in after.tasks() {
        let Some(old) = before.task(id.as_str()) else { continue };
        let overdue =
            |state: &State, task: &Task| task.deadline().is_some_and(|wall| wall <= state.last_at());
        if overdue(before, old) != overdue(after, task) && task.is_unfinished() {
            assert!(task.changed.seq > old.changed.seq, "{id} is overdue, but its time is the same");
        }
        if before.state_of(old) != after.state_of(task) {
            let at = if old.is_open() && task.is_open() {
                (after.tail(), before.tail())
            } else {
                (task.changed.seq, old.changed.seq)
            };
            assert!(at.0 > at.1, "{id} changed, but its time did not");
        }
    }
}

fn config(cases: u32) -> ProptestConfig {
    let explore = std::env::var_os("PROPTEST_CASES").is_some();
    let cases = if explore { ProptestConfig::default().cases } else { cases };
    let rng_seed = if explore { RngSeed::Random } else { RngSeed::Fixed(1) };
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(5_000))]

    #[test]
    fn the_queue_is_what_the_contract_says(rules in rules(), wishes in history()) {
        run(rules, wishes);
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    let ageing = prop_oneof![Just(10u64), Just(60), Just(1_000)];
    let claims_per_worker = prop::option::weighted(0.3, 1..3usize);
    (ageing, claims_per_worker).prop_map(|(minutes, claims_per_worker)| Rules {
        ageing: Span(minutes * 60_000),
        claims_per_worker,
        ..Rules::default()
    })
}

/// Events in an order that the rules would not produce.
fn event() -> impl Strategy<Value = Event> {
    let task = || (0..4u8).prop_map(task_id);
    let worker = || (0..2u8).prop_map(worker_name);
    let cycle = prop::collection::vec(task(), 0..2);
    let process = |ending| LossReason::ProcessEnded { program: "p".into(), pid: 1, ending };
    let loss = prop_oneof![
        Just(LossReason::GivenBack),
        Just(LossReason::LeaseExpired { silent: Span(1) }),
        Just(process(ProcessEnding::Killed(9))),
    ];
    let content = prop::option::of(Just(text()));
    let published = (task(), front(3), cycle).prop_map(|(task, front, cycle)| Event::Published {
        task,
        manifest: manifest(&front),
        stamp: FileStamp::default(),
        cycle,
    });
    let words = prop::collection::vec(Just("x".to_string()), 0..2);
    prop_oneof![
        4 => published,
        1 => task().prop_map(|task| Event::CycleBroken { task }),
        1 => task().prop_map(|task| Event::FileOpened { task }),
        2 => task().prop_map(|task| Event::FileMissing { task }),
        1 => task().prop_map(|task| Event::Withdrawn { task }),
        1 => (task(), worker()).prop_map(|(task, by)| Event::Forgotten { task, by }),
        4 => (task(), worker()).prop_map(|(task, worker)| Event::Claimed { task, worker }),
        1 => task().prop_map(|task| Event::Noted { task, text: Content::new("n") }),
        3 => (task(), prop::option::of(worker()), content.clone())
            .prop_map(|(task, worker, text)| Event::Completed { task, worker, by: None, text }),
        2 => (task(), prop::option::of(worker()), content)
            .prop_map(|(task, worker, text)| Event::Failed { task, worker, by: None, text }),
        1 => task().prop_map(|task| Event::Reported { task, text: text() }),
        2 => (task(), worker(), loss).prop_map(|(task, worker, reason)| Event::Returned { task, worker, reason }),
        1 => (task(), worker()).prop_map(|(task, by)| Event::Retried { task, by }),
        1 => worker().prop_map(|worker| Event::Joined { worker, uid: 1 }),
        1 => (worker(), words).prop_map(|(worker, words)| Event::Capable { worker, words }),
        2 => Just(Event::TimePassed),
        1 => (worker(), any::<bool>()).prop_map(|(worker, draining)| Event::Drained { worker, draining }),
        1 => (worker(), any::<bool>()).prop_map(|(by, paused)| Event::Paused { paused, by }),
    ]
}

proptest! {
    #![proptest_config(config(1_000))]

    #[test]
    fn any_log_makes_a_sound_state(events in prop::collection::vec((event(), 0..60i64), 1..60)) {
        let mut state = State::default();
        let mut at = Wall(0);
        for ((event, minutes), seq) in events.into_iter().zip(1..) {
            at = at.after(Span(minutes as u64 * 60_000));
            state.apply(&Record { seq, at, event });
            check_sound(&state);
        }
    }
}
