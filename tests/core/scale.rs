//! How the core grows: a claim among 100,000 tasks must cost about as much as one among 100.
//!
//! The numbers are printed (`cargo test --test core scale -- --nocapture --test-threads=1`). The assertions check the shape of the
//! growth, with much room for a busy machine.

use std::time::{Duration, Instant};

use crewfs::limits::{LOSSES_KEPT, NAMED_IN_A_SENTENCE, TASK_ID_BYTES};
use crewfs::queue::{
    Command, Decision, FileStamp, Manifest, Outcome, Phase, Record, Span, Spec, State, TaskState, Wall, When,
    decide,
};

use crate::{actor, claim_next, complete, publish, publish_spec, task};

fn perform(state: &mut State, command: &Command) -> (Vec<Record>, Outcome) {
    let Decision { events, outcome } = decide(state, command).unwrap();
    let mut records = Vec::new();
    for event in events {
        let record = Record { seq: state.tail() + 1, at: Wall(0), event };
        state.apply(&record);
        records.push(record);
    }
    (records, outcome)
}

fn id(n: usize) -> String {
    format!("task-{n:06}")
}

/// A task that needs another one, which may not exist.
fn needing(name: &str, need: &str) -> Command {
    let mut spec = Spec::titled(name);
    spec.needs = vec![task(need)];
    publish_spec(name, spec)
}

/// The fastest of several runs: the cost without disturbance.
fn best<T>(runs: usize, mut run: impl FnMut() -> T) -> Duration {
    let time = |_| {
        let start = Instant::now();
        std::hint::black_box(run());
        start.elapsed()
    };
    (0..runs).map(time).min().unwrap()
}

/// The resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn a_claim_costs_the_same_among_many_tasks() {
    println!("plain tasks");
    costs(4, |i| publish(&id(i)));
}

/// Each task owns a directory of its own. Some also own a file that other tasks own, and some can be done by few workers.
#[test]
fn a_claim_costs_the_same_among_many_tasks_with_all_that_front_matter_can_say() {
    println!("tasks with owns, requires and deadlines");
    costs(8, |i| {
        let mut spec = Spec::titled("t");
        spec.owns = vec![format!("src/part{i}/**")];
        if i % 10 == 0 {
            spec.owns.push(format!("docs/page{}.md", i / 50));
        }
        spec.requires = if i % 3 == 0 { vec![format!("skill{}", i % 9)] } else { vec![] };
        spec.deadline = (i % 2 == 0).then(|| When::After(Span(1_000 * (1 + i as u64 % 1_000))));
        publish_spec(&id(i), spec)
    });
}

/// `growth`: how many times as much a claim among 100,000 tasks may cost. A claim that looked at all tasks would cost a thousand times
/// as much.
fn costs(growth: usize, publish: impl Fn(usize) -> Command) {
    const WORKERS: usize = 50;
    println!(
        "{:>8} {:>10} {:>10} {:>12} {:>9} {:>9}",
        "tasks", "claim ns", "finish ns", "replay ev/s", "save ms", "load ms"
    );
    let mut costs = Vec::new();
    for n in [100, 10_000, 100_000] {
        let mut state = State::default();
        let mut log = Vec::new();
        for i in 0..n {
            log.extend(perform(&mut state, &publish(i)).0);
        }
        let workers: Vec<_> = (0..WORKERS).map(|w| format!("w{w}")).collect();
        let claims: Vec<_> = workers.iter().map(|name| claim_next(name)).collect();
        let (mut claimed, mut finished) = (Duration::MAX, Duration::MAX);
        for _ in 0..30 {
            // A reader that holds an older state makes the writer copy what it changes, as in the engine.
            let mut state = state.clone();
            let mut held = Vec::new();
            claimed = claimed.min(best(1, || {
                for claim in &claims {
                    let reader = state.clone();
                    held.push(perform(&mut state, claim).1);
                    drop(reader);
                }
            }));
            let finishes: Vec<_> = (held.iter().zip(&workers))
                .map(|(outcome, worker)| match outcome {
                    Outcome::Claimed { task, .. } => complete(task.as_str(), worker),
                    other => panic!("{other:?}"),
                })
                .collect();
            finished = finished.min(best(1, || {
                for finish in &finishes {
                    perform(&mut state, finish);
                }
            }));
        }
        let replayed = best(1, || State::replay(&log));
        let body = serde_json::to_vec(&state).unwrap();
        let saved = best(1, || serde_json::to_vec(&state).unwrap());
        let loaded = best(1, || serde_json::from_slice::<State>(&body).unwrap());
        let each = |time: Duration| time.as_nanos() as usize / WORKERS;
        println!(
            "{n:>8} {:>10} {:>10} {:>12.0} {:>9} {:>9}",
            each(claimed),
            each(finished),
            log.len() as f64 / replayed.as_secs_f64(),
            saved.as_millis(),
            loaded.as_millis()
        );
        costs.push(each(claimed));
    }
    assert!(
        costs[2] <= growth * costs[0],
        "a claim among 100,000 tasks costs more than among 100: {costs:?} ns"
    );
}

/// Set in the child: the kind of tasks that it makes.
const KIND: &str = "CREWFS_TEST_MEMORY";

/// Not a test by itself: the body of the child.
#[test]
fn child() {
    const TASKS: usize = 50_000;
    let Ok(kind) = std::env::var(KIND) else { return };
    let mut state = State::default();
    let before = resident();
    for n in 0..TASKS {
        let command = if kind == "ready" { publish(&id(n)) } else { needing(&id(n), &id(n + 1)) };
        perform(&mut state, &command);
    }
    eprint!("{}", (resident() - before) / TASKS);
}

#[test]
fn tasks_are_small() {
    for (kind, limit) in [("ready", 4_000), ("blocked", 8_000)] {
        // A process of its own: this process would reuse memory that other tests have freed.
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "scale::child", "--nocapture"])
            .env(KIND, kind)
            .output()
            .unwrap();
        let bytes = String::from_utf8(child.stderr).unwrap();
        println!("{kind:>8}: {bytes} bytes a task");
        assert!(bytes.parse::<usize>().unwrap() < limit);
    }
}

#[test]
fn new_stamps_on_a_long_chain_are_not_searched_for_cycles() {
    const TASKS: usize = 20_000;
    let mut state = State::default();
    for n in 0..TASKS {
        perform(&mut state, &needing(&id(n), &id(n + 1)));
    }
    assert_eq!(state.count(TaskState::Blocked), TASKS);
    let start = Instant::now();
    for n in 0..TASKS {
        let Command::Publish { task, manifest, .. } = needing(&id(n), &id(n + 1)) else { unreachable!() };
        let stamp = FileStamp { ino: 1, size: 1, mtime_ns: 1, readers: None };
        perform(&mut state, &Command::Publish { task, manifest, stamp });
    }
    println!("{TASKS} new stamps on a chain: {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(5), "a search of the chain for each would take minutes");

    // The end of the chain closes a cycle. The queue finds it without recursion and describes it in one sentence.
    perform(&mut state, &needing(&id(TASKS), &id(0)));
    let last = state.task(&id(TASKS)).unwrap();
    assert_eq!(last.cycle.len(), TASKS + 1);
    let Phase::Rejected(problem) = &last.phase else { panic!("{:?}", last.phase) };
    assert!(problem.message.len() < (NAMED_IN_A_SENTENCE + 3) * TASK_ID_BYTES, "{}", problem.message.len());
    perform(&mut state, &publish(&id(TASKS / 2)));
    assert_eq!(state.count(TaskState::Rejected), 0, "mended elsewhere");
}

#[test]
fn what_everybody_waits_for_is_completed_at_once() {
    const TASKS: usize = 20_000;
    let mut state = State::default();
    for n in 0..TASKS {
        perform(&mut state, &needing(&id(n), "hub"));
    }
    perform(&mut state, &publish("hub"));
    perform(&mut state, &claim_next("w"));
    let start = Instant::now();
    perform(&mut state, &complete("hub", "w"));
    println!("{TASKS} tasks made ready by one: {:?}", start.elapsed());
    assert_eq!(state.count(TaskState::Ready), TASKS);
}

#[test]
fn a_claim_that_is_given_back_for_ever_leaves_a_bounded_trace() {
    let mut state = State::default();
    perform(&mut state, &publish("t"));
    for _ in 0..10 * LOSSES_KEPT {
        perform(&mut state, &claim_next("w"));
        perform(&mut state, &Command::Release { task: task("t"), by: actor("w") });
    }
    let losses = &state.task("t").unwrap().losses;
    assert_eq!(losses.len(), LOSSES_KEPT);
    assert_eq!(losses.last().unwrap().epoch, state.tail() - 1, "the newest are kept");
    assert!(matches!(state.task("t").unwrap().manifest, Manifest::Spec(_)));
}
