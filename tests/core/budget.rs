//! The limits of what one worker and one user may add to the log (C35). Each step that can be repeated reaches the limit, and a worker
//! over the limit can still complete the tasks that it holds.

use std::sync::Arc;

use crewfs::engine::{Config, Engine, Failure, Submission};
use crewfs::limits::{LOG_BURST_SECONDS, LOG_SHARES_OF_A_USER};
use crewfs::log::MemoryLog;
use crewfs::queue::{
    Actor, Budget, ClaimForm, Command, Content, Ending, Eyes, FileStamp, Manifest, Outcome, Payer, Refusal,
    Span, Spec,
};

use crate::engine::config;
use crate::lease::FakeClock;
use crate::{actor, claim_next, complete, publish, task, worker};

const BUDGET: Budget = Budget { bytes: 64 << 10, events: 1, owner: 0 };
/// The number of events that may be written at once.
const AT_ONCE: u64 = LOG_BURST_SECONDS;

fn engine(budget: Budget) -> (FakeClock, Arc<Engine>) {
    let clock = FakeClock::default();
    let config = Config { budget, clock: clock.clock(), ..config() };
    (clock, Engine::start(Box::new(MemoryLog::default()), config).unwrap())
}

fn is_over(answer: &Result<Outcome, Failure>) -> bool {
    matches!(answer, Err(Failure::Refused(Refusal::OverBudget { .. })))
}

/// Repeat a step until the budget refuses it. Returns how many events the log has gained.
fn until_over(engine: &Engine, mut step: impl FnMut(u64) -> Result<Outcome, Failure>) -> u64 {
    let before = engine.decided();
    for n in 0..10 * AT_ONCE * LOG_SHARES_OF_A_USER {
        match step(n) {
            answer if is_over(&answer) => return engine.decided() - before,
            Ok(_) => {}
            Err(failure) => panic!("{n}: {failure}"),
        }
    }
    panic!("it goes on for ever: {} events", engine.decided() - before);
}

fn report(engine: &Engine, name: &str, text: impl Into<Vec<u8>>) -> Result<Outcome, Failure> {
    let finish = engine.state().task(name).unwrap().finish().unwrap().when.seq;
    engine.call(Command::Report { task: task(name), finish, by: actor("w"), text: Content::new(text) })
}

fn claim(name: &str) -> Command {
    Command::Claim { task: task(name), by: actor("w"), eyes: Eyes::All, form: ClaimForm::Any }
}

fn release(name: &str) -> Command {
    Command::Release { task: task(name), by: actor("w") }
}

fn note(engine: &Engine, name: &str, text: String) -> Result<Outcome, Failure> {
    let epoch = engine.state().task(name).unwrap().claim().unwrap().epoch();
    engine.call(Command::Note { task: task(name), epoch, by: actor("w"), text })
}

#[test]
fn c35_every_step_that_can_be_repeated_ends_at_the_budget() {
    type Step = fn(&Engine, u64) -> Result<Outcome, Failure>;
    let steps: [(&str, Step); 7] = [
        ("a result written anew", |engine, n| report(engine, "done", format!("{n}"))),
        ("a note", |engine, n| note(engine, "held", format!("{n}"))),
        ("drained and not", |engine, n| {
            engine.call(Command::Drain { worker: worker("w"), by: actor("w"), draining: n % 2 == 0 })
        }),
        ("capabilities", |engine, n| {
            engine.call(Command::Equip { worker: worker("w"), by: actor("w"), words: vec![format!("w{n}")] })
        }),
        ("claimed and given back", |engine, n| {
            engine.call(if n % 2 == 0 { claim("open") } else { release("open") })
        }),
        ("done again and again", |engine, n| match n % 3 {
            0 => engine.call(Command::Retry { task: task("done"), by: actor("w") }),
            1 => engine.call(claim("done")),
            _ => engine.call(complete("done", "w")),
        }),
        ("one name after another", |engine, n| {
            let by = Actor { worker: worker(&format!("name-{n}")), ..actor("w") };
            let name = by.worker.clone();
            engine.call(Command::Drain { worker: name, by, draining: false })
        }),
    ];
    for (what, step) in steps {
        let (clock, engine) = engine(BUDGET);
        for name in ["done", "held", "open"] {
            engine.call(publish(name)).unwrap();
        }
        engine.call(claim("done")).unwrap();
        engine.call(complete("done", "w")).unwrap();
        report(&engine, "done", "first").unwrap();
        engine.call(claim("held")).unwrap();
        let made = until_over(&engine, |n| step(&engine, n));
        let most = if what.starts_with("one name") { AT_ONCE * LOG_SHARES_OF_A_USER } else { AT_ONCE };
        assert!((most / 2..=most + 3).contains(&made), "{what}: {made}");

        // The worker can complete and give back the tasks that it holds.
        engine.call(complete("held", "w")).unwrap_or_else(|failure| panic!("{what}: {failure}"));
        report(&engine, "held", vec![b'x'; 1 << 20]).unwrap_or_else(|failure| panic!("{what}: {failure}"));
        if engine.state().task("open").unwrap().claim().is_some() {
            engine.call(release("open")).unwrap();
        }
        // The limit applies neither to an operator nor to another user.
        let operator = Actor { operator: true, ..actor("joe") };
        engine.call(Command::Pause { by: operator, paused: true }).unwrap();
        let other = Actor { uid: 1_001, ..actor("other") };
        engine.call(Command::Drain { worker: worker("other"), by: other, draining: true }).unwrap();
        // The budget refills with time.
        clock.forward(Span(2 * LOG_BURST_SECONDS * 1_000));
        report(&engine, "held", "at last").unwrap_or_else(|failure| panic!("{what}: {failure}"));
        engine.stop();
    }
}

#[test]
fn c35_a_worker_who_does_one_task_after_the_other_never_meets_it() {
    let (_clock, engine) = engine(Budget { bytes: 1 << 20, ..BUDGET });
    for n in 0..10 * AT_ONCE {
        let name = format!("t{n}");
        engine.call(publish(&name)).unwrap();
        engine.call(claim_next("w")).unwrap();
        engine.call(complete(&name, "w")).unwrap();
        report(&engine, &name, format!("done {n}")).unwrap();
    }
    engine.stop();
}

#[test]
fn c35_bytes_count_as_events_do() {
    let (_clock, engine) = engine(Budget { events: 1_000_000, ..BUDGET });
    engine.call(publish("done")).unwrap();
    engine.call(claim_next("w")).unwrap();
    engine.call(complete("done", "w")).unwrap();
    let mebibyte = |n: u64| [n.to_string().into_bytes(), vec![b'x'; 1 << 20]].concat();
    let made = until_over(&engine, |n| report(&engine, "done", mebibyte(n)));
    assert!((16..=17).contains(&made), "{made}: 64 KiB a second for {LOG_BURST_SECONDS} seconds");
    engine.stop();
}

#[test]
fn c35_what_a_user_publishes_is_its_own_expense() {
    let (clock, engine) = engine(BUDGET);
    let payer = Payer { worker: Some(worker("w")), uid: 1_000, operator: false };
    let publish_for = |payer: &Payer, n: u64| {
        let stamp = FileStamp { size: n, ..FileStamp::default() };
        let manifest = Manifest::Spec(Spec::titled("t").into());
        let command = Command::Publish { task: task("t"), manifest, stamp };
        engine.call(Submission::from(command).paid_by(payer.clone()))
    };
    let made = until_over(&engine, |n| publish_for(&payer, n));
    assert!((AT_ONCE / 2 - 1..=AT_ONCE).contains(&made), "{made}");
    assert!(engine.spend(&payer, 1).is_err());
    publish_for(&Payer { uid: 1_001, worker: None, ..payer.clone() }, 70_000).unwrap();
    clock.forward(Span(10_000));
    publish_for(&payer, 70_001).unwrap();
    assert_eq!(engine.counters().events.all().find(|(name, _)| *name == "published").unwrap().1, made + 2);
    engine.stop();
}

#[test]
fn c35_a_claim_that_ends_by_itself_is_paid_by_its_holder() {
    let (clock, engine) = engine(BUDGET);
    engine.call(publish_poison("t")).unwrap();
    engine.call(claim("t")).unwrap();
    for n in 0.. {
        let epoch = engine.state().task("t").unwrap().claim().unwrap().epoch();
        engine.call(Command::Expire { task: task("t"), epoch, silent: Span(1) }).unwrap();
        match engine.call(claim("t")) {
            answer if is_over(&answer) => {
                assert!((AT_ONCE / 4..=AT_ONCE).contains(&n), "{n}");
                break;
            }
            answer => drop(answer.unwrap()),
        }
        if engine.state().task("t").unwrap().losses.len() > 90 {
            let by = Actor { operator: true, ..actor("joe") };
            engine
                .call(Command::Finish {
                    task: task("t"),
                    by: by.clone(),
                    ending: Ending::Failed,
                    text: None,
                    exclusive: false,
                })
                .unwrap();
            engine.call(Command::Retry { task: task("t"), by }).unwrap();
            engine.call(claim("t")).unwrap();
        }
        clock.forward(Span(0));
    }
    engine.stop();
}

fn publish_poison(name: &str) -> Command {
    crate::publish_spec(name, Spec { attempts: 100, ..Spec::titled(name) })
}
