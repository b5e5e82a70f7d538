//! The engine over a log that fails on demand. After each fault, every acknowledged event is in the log, in order, and readers see the
//! state that the log describes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use crewfs::engine::{Config, Engine, Failure, Submission, Ticket};
use crewfs::limits::{
    COMMANDS_IN_A_BATCH, EVENTS_BEFORE_SNAPSHOT, EVENTS_BEFORE_SNAPSHOT_AT_STOP, EVENTS_SHOWN,
};
use crewfs::log::{MemoryLog, SqliteLog, line};
use crewfs::queue::{
    Budget, ClaimForm, Command, Content, Ending, Event, Eyes, Outcome, Record, Refusal, Rules, Seq, Span,
    State, TaskState, Wall,
};
use parking_lot::Mutex;

use crate::fault::{Control, Fault};
use crate::lease::FakeClock;
use crate::{actor, claim_next, complete, directory, publish, task, worker};

pub fn config() -> Config {
    Config {
        default_lease: Span(60_000),
        rules: Rules::default(),
        budget: Budget::default(),
        clock: FakeClock::default().clock(),
        directory: None,
    }
}

pub fn memory() -> (Control, Arc<Engine>) {
    let control = Control::new(MemoryLog::default());
    let engine = Engine::start(control.log(), config()).unwrap();
    (control, engine)
}

/// Submit a command; the answer arrives over the channel.
fn submit(engine: &Engine, command: Command) -> Receiver<Result<Outcome, Failure>> {
    let (sender, receiver) = channel();
    engine.submit(command).on_durable(move |outcome| drop(sender.send(outcome)));
    receiver
}

/// A command that changes nothing. When it returns, all earlier commands and all due work are done.
pub fn nudge(engine: &Engine) -> Result<Outcome, Failure> {
    let outcome = engine.call(Command::FileGone { task: task("nowhere") });
    engine.barrier();
    outcome
}

fn assert_same_as_log(engine: &Engine, control: &Control) {
    let records = control.records();
    assert!(*engine.state() == State::replay(&records), "the state is not what the log says");
    let bytes: String = records.iter().map(line).collect();
    assert_eq!(engine.log_bytes(), bytes.len() as u64);
}

/// Several threads work off `tasks` tasks. Then compare their answers with the log. The threads share engines, and the engines share a
/// log.
fn crowd(control: Control, tasks: usize, threads: usize, engines: usize) {
    let first = Engine::start(control.log(), config()).unwrap();
    for n in 0..tasks {
        first.call(publish(&format!("t{n}"))).unwrap();
    }
    let others = (1..engines).map(|_| Engine::start(control.log(), config()).unwrap());
    let engines: Vec<_> = [first].into_iter().chain(others).collect();
    let barrier = Barrier::new(threads);
    let told = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for n in 0..threads {
            let (engine, barrier, told) = (&engines[n % engines.len()], &barrier, &told);
            scope.spawn(move || {
                let name = format!("w{n}");
                let mut last = 0;
                barrier.wait();
                loop {
                    let (task, epoch) = match engine.call(claim_next(&name)) {
                        Ok(Outcome::Claimed { task, epoch }) => (task, epoch),
                        Err(Failure::Refused(Refusal::NothingReady { .. })) => break,
                        other => panic!("{other:?}"),
                    };
                    let held = engine.state().task(task.as_str()).unwrap().claim().unwrap().clone();
                    assert_eq!((held.worker, held.since.seq), (worker(&name), epoch), "seen at once");
                    let Ok(Outcome::Finished { finish }) = engine.call(complete(task.as_str(), &name)) else {
                        panic!("{task} could not be completed")
                    };
                    assert!(last < epoch && epoch < finish, "answers in the order of the log");
                    last = finish;
                    told.lock().push((task, worker(&name), epoch, finish));
                }
            });
        }
    });
    let (told, records) = (told.into_inner(), control.records());
    let at = |seq: Seq| &records[seq as usize - 1].event;
    let distinct: BTreeSet<_> = told.iter().map(|(task, ..)| task.clone()).collect();
    assert_eq!((told.len(), distinct.len()), (tasks, tasks), "every task was claimed exactly once");
    for (task, worker, epoch, finish) in told {
        assert_eq!(*at(epoch), Event::Claimed { task: task.clone(), worker: worker.clone() });
        assert_eq!(*at(finish), Event::Completed { task, worker: Some(worker), by: None, text: None });
    }
    for (n, engine) in engines.iter().enumerate() {
        // With its next event, an engine takes over the events that other engines have appended.
        engine.call(publish(&format!("last{n}"))).unwrap();
        assert_same_as_log(engine, &control);
        engine.stop();
    }
}

#[test]
fn every_task_is_claimed_by_one_of_many() {
    crowd(Control::new(MemoryLog::default()), 400, 8, 1);
}

#[test]
fn every_task_is_claimed_by_one_of_many_over_several_engines() {
    crowd(Control::new(MemoryLog::default()), 400, 9, 3);
}

#[test]
fn every_task_is_claimed_by_one_of_many_on_disk() {
    let (_dir, fd) = directory();
    crowd(Control::new(SqliteLog::open(fd).unwrap()), 60, 8, 1);
}

#[test]
fn what_waits_for_the_disk_shares_the_next_commit() {
    let (control, engine) = memory();
    control.hold(true);
    let first = submit(&engine, publish("first"));
    control.await_batches(1);
    let others: Vec<_> = (0..64).map(|n| submit(&engine, publish(&format!("t{n}")))).collect();
    assert!(first.try_recv().is_err(), "answered before it was written");
    assert!(engine.state().is_empty(), "seen before it was written");
    control.hold(false);
    assert_eq!(first.recv().unwrap(), Ok(Outcome::Done));
    for other in others {
        assert_eq!(other.recv().unwrap(), Ok(Outcome::Done));
    }
    assert_eq!(control.batches(), [1, 64]);
    assert_same_as_log(&engine, &control);
}

#[test]
fn a_commit_is_shared_by_no_more_than_the_limit() {
    let (control, engine) = memory();
    control.hold(true);
    let first = submit(&engine, publish("first"));
    control.await_batches(1);
    let submit_all = || -> Vec<_> {
        (0..COMMANDS_IN_A_BATCH + 10).map(|n| submit(&engine, publish(&format!("t{n}")))).collect()
    };
    let answers = std::thread::scope(|scope| {
        // When the queue of commands is full, a caller waits for the commit.
        let others = scope.spawn(submit_all);
        while engine.decided() < 1 + COMMANDS_IN_A_BATCH as Seq {
            std::thread::yield_now();
        }
        assert!(!others.is_finished());
        control.hold(false);
        others.join().unwrap()
    });
    assert!(answers.into_iter().chain([first]).all(|answer| answer.recv().unwrap().is_ok()));
    assert_eq!(control.batches()[..2], [1, COMMANDS_IN_A_BATCH]);
}

#[test]
fn a_failed_write_acknowledges_nothing_and_the_log_settles_what_is_so() {
    for (fault, written) in [(Fault::Before, false), (Fault::After, true)] {
        let (control, engine) = memory();
        engine.call(publish("before")).unwrap();
        control.fail_next(&[fault]);
        control.reopen_fails(true);
        control.hold(true);
        let lost = submit(&engine, publish("lost"));
        control.await_batches(2);
        control.hold(false);
        assert!(matches!(lost.recv().unwrap(), Err(Failure::Log(_))));

        // Readers go on; changes fail.
        for _ in 0..3 {
            assert!(matches!(engine.call(publish("refused")), Err(Failure::ReadOnly(_))));
        }
        assert_eq!(engine.state().len(), 1);
        assert!(engine.broken().is_some());
        assert_eq!(control.batches().len(), 2, "nothing more is tried");

        control.reopen_fails(false);
        engine.call(publish("after")).unwrap();
        assert_eq!(engine.broken(), None);
        assert_eq!(engine.state().task("lost").is_some(), written, "{fault:?}");
        assert_eq!(engine.state().task("refused"), None);
        assert_same_as_log(&engine, &control);
    }
}

#[test]
fn what_was_decided_on_top_of_a_failed_batch_fails_with_it() {
    let (control, engine) = memory();
    engine.call(publish("t")).unwrap();
    control.fail_next(&[Fault::Race, Fault::Before]);
    control.hold(true);
    let raced = submit(&engine, publish("other"));
    control.await_batches(2);
    let claim = |name| Command::Claim {
        task: task("t"),
        by: actor(name),
        form: ClaimForm::Exclusive,
        eyes: Eyes::All,
    };
    let [first, second] = ["w1", "w2"].map(|name| submit(&engine, claim(name)));
    // A refusal makes no promise, so it does not wait for the commit.
    assert!(matches!(second.recv().unwrap(), Err(Failure::Refused(Refusal::Held { .. }))));
    control.hold(false);
    assert!(matches!(raced.recv().unwrap(), Err(Failure::Log(_))), "the second attempt fails");
    assert!(matches!(first.recv().unwrap(), Err(Failure::Log(_))));
    nudge(&engine).unwrap();
    assert!(engine.state().worker("rival").is_some(), "what another writer appended counts");
    assert_eq!(engine.state().count(TaskState::Ready), 1);
    assert_same_as_log(&engine, &control);
}

#[test]
fn what_another_writer_did_first_is_judged_again() {
    let (control, engine) = memory();
    for name in ["a", "b", "c"] {
        engine.call(publish(name)).unwrap();
    }
    control.hold(true);
    let claim = |id: &str, name: &str| Command::Claim {
        task: task(id),
        by: actor(name),
        form: ClaimForm::Exclusive,
        eyes: Eyes::All,
    };
    let next = engine.submit(claim_next("w1"));
    control.await_batches(4);
    // One command in the batch, one that comes during the commit, one that depends on the batch, and one that no conflict affects.
    let later =
        [claim("b", "w2"), complete("a", "w1"), claim("c", "w3")].map(|command| engine.submit(command));
    let claimed = |id: &str, epoch| Some(Ok(Outcome::Claimed { task: task(id), epoch }));
    assert_eq!(next.decided(), claimed("a", 5));
    assert_eq!(later[0].decided(), claimed("b", 7));
    assert!(matches!(later[1].decided(), Some(Ok(Outcome::Finished { finish: 8 }))));
    assert_eq!(later[2].decided(), claimed("c", 10));
    let rival = worker("rival");
    control.append_first(Event::Joined { worker: rival.clone(), uid: 1 });
    for id in ["a", "b"] {
        control.append_first(Event::Claimed { task: task(id), worker: rival.clone() });
    }
    let (sender, told) = channel();
    for (n, ticket) in [&next].into_iter().chain(&later).enumerate() {
        let sender = sender.clone();
        ticket.on_durable(move |outcome| drop(sender.send((n, outcome))));
    }
    control.hold(false);
    let mut told: Vec<_> = (0..4).map(|_| told.recv().unwrap()).collect();
    told.sort_by_key(|(n, _)| *n);
    let told: Vec<_> = told.into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(
        told[0],
        Ok(Outcome::Claimed { task: task("c"), epoch: 8 }),
        "the next one is another one now"
    );
    assert!(matches!(&told[1], Err(Failure::Refused(Refusal::Held { .. }))), "{told:?}");
    assert!(matches!(&told[2], Err(Failure::Refused(Refusal::NotHolder { .. }))), "{told:?}");
    assert!(matches!(&told[3], Err(Failure::Refused(Refusal::Held { .. }))), "{told:?}");
    assert_eq!(next.claim(), Some((task("c"), 8)), "and a handle knows it");
    assert_same_as_log(&engine, &control);
    assert!(engine.recent().iter().any(|record| record.seq == 6), "what another writer appended is shown");
    // A second time, with several conflicts one after the other.
    control.fail_next(&[Fault::Race, Fault::Race, Fault::Race]);
    assert_eq!(engine.call(complete("c", "w1")), Ok(Outcome::Finished { finish: 12 }));
    assert_same_as_log(&engine, &control);
}

#[test]
fn a_full_disk_refuses_new_work_and_lets_work_be_finished() {
    let (_dir, fd) = directory();
    let (clock, control) = (FakeClock::default(), Control::new(MemoryLog::default()));
    let config = Config { directory: Some(fd), clock: clock.clock(), ..config() };
    let engine = Engine::start(control.log(), config).unwrap();
    for name in ["a", "b"] {
        engine.call(publish(name)).unwrap();
    }
    assert_eq!(engine.call(claim_next("w")), Ok(Outcome::Claimed { task: task("a"), epoch: 4 }));
    // The engine frees the reserve and appends again what did not fit.
    control.fail_next(&[Fault::Full]);
    engine.call(Command::Note { task: task("a"), epoch: 4, by: actor("w"), text: "half".into() }).unwrap();
    assert_eq!(engine.call(claim_next("w2")), Err(Failure::DiskFull));
    assert_eq!(engine.call(publish("c")), Err(Failure::DiskFull));
    engine.call(complete("a", "w")).unwrap();

    // There is space again. The engine notices although requests arrive all the time.
    clock.forward(Span(1_000));
    nudge(&engine).unwrap();
    engine.call(claim_next("w2")).unwrap();
    assert_same_as_log(&engine, &control);
}

#[test]
fn a_disk_that_stays_full_breaks_nothing() {
    let (control, engine) = memory();
    engine.call(publish("a")).unwrap();
    control.fail_always(Some(Fault::Full));
    assert_eq!(engine.call(publish("b")), Err(Failure::DiskFull));
    assert_eq!(engine.broken(), None);
    control.fail_always(None);
    engine.call(publish("b")).unwrap();
    assert_same_as_log(&engine, &control);
}

#[test]
fn a_log_that_lost_what_it_acknowledged_is_not_written_to() {
    let (control, engine) = memory();
    engine.call(publish("a")).unwrap();
    control.replace(MemoryLog::default());
    control.fail_next(&[Fault::Before]);
    assert!(matches!(engine.call(publish("b")), Err(Failure::Log(_))));
    for _ in 0..3 {
        assert!(matches!(engine.call(publish("b")), Err(Failure::ReadOnly(_))));
    }
    assert_eq!(engine.state().len(), 1, "what was acknowledged can still be read");
    assert!(control.records().is_empty());
}

#[test]
fn what_must_hold_is_asked_when_a_command_is_granted() {
    let (control, engine) = memory();
    let asked = Arc::new(AtomicUsize::new(0));
    let call = |command: Command, holds: bool| {
        let asked = asked.clone();
        engine.call(Submission::from(command).checked(move || {
            asked.fetch_add(1, Ordering::Relaxed);
            holds
        }))
    };
    assert_eq!(call(publish("a"), false), Err(Failure::Check));
    assert!(engine.state().is_empty());
    assert!(matches!(call(complete("a", "w"), true), Err(Failure::Refused(_))));
    assert_eq!(asked.load(Ordering::Relaxed), 1, "of a refused command nothing is asked");
    assert_eq!(call(publish("a"), true), Ok(Outcome::Done));
    assert_eq!(control.records().len(), 1);
}

#[test]
fn whoever_asks_while_the_engine_stops_is_answered_once() {
    for _ in 0..20 {
        let (control, engine) = memory();
        control.hold(true);
        let first = submit(&engine, publish("first"));
        control.await_batches(1);
        let answers = Arc::new(AtomicUsize::new(0));
        let (ready, go) = channel();
        let stopping = std::thread::spawn({
            let engine = engine.clone();
            move || {
                ready.send(()).unwrap();
                engine.stop();
            }
        });
        go.recv().unwrap();
        let asked = 3 * COMMANDS_IN_A_BATCH;
        for n in 0..asked {
            let answers = answers.clone();
            engine.submit(publish(&format!("t{n}"))).on_durable(move |outcome| {
                assert!(matches!(outcome, Ok(_) | Err(Failure::Stopping)));
                answers.fetch_add(1, Ordering::Relaxed);
            });
        }
        control.hold(false);
        stopping.join().unwrap();
        assert_eq!(first.recv().unwrap(), Ok(Outcome::Done));
        assert_eq!(answers.load(Ordering::Relaxed), asked);
        assert_eq!(engine.call(publish("late")), Err(Failure::Stopping));
        assert_same_as_log(&engine, &control);
    }
}

/// More events than it takes for a snapshot at a stop.
fn busy_hour(engine: &Engine) {
    let command = |n: u64, m: u64| match m {
        0 => publish(&format!("t{n}")),
        1 => claim_next(&format!("w{}", n % 7)),
        _ => complete(&format!("t{n}"), &format!("w{}", n % 7)),
    };
    let tasks = EVENTS_BEFORE_SNAPSHOT_AT_STOP / 2;
    let answers: Vec<_> = (0..tasks)
        .flat_map(|n| (0..3).map(move |m| (n, m)))
        .map(|(n, m)| submit(engine, command(n, m)))
        .collect();
    assert!(answers.into_iter().all(|answer| answer.recv().unwrap().is_ok()));
}

#[test]
fn a_start_with_a_snapshot_is_a_start_without() {
    let (_dir, fd) = directory();
    let control = Control::new(MemoryLog::default());
    let with = || Config { directory: Some(fd.clone()), ..config() };
    let engine = Engine::start(control.log(), with()).unwrap();
    busy_hour(&engine);
    engine.stop();
    let tail = engine.state().tail();
    assert!(tail > EVENTS_BEFORE_SNAPSHOT_AT_STOP);

    let reads = control.reads().len();
    let again = Engine::start(control.log(), with()).unwrap();
    assert!(*again.state() == *engine.state());
    // All except the last events, which are in memory.
    let read = control.reads()[reads..].to_vec();
    assert!(
        read.iter().all(|after| after + EVENTS_SHOWN as u64 >= tail),
        "the log was read all the same: {read:?}"
    );
    again.call(publish("more")).unwrap();
    again.stop();

    // The snapshot is behind the log now, so the missing events come from the log.
    let third = Engine::start(control.log(), with()).unwrap();
    let without = Engine::start(control.log(), config()).unwrap();
    assert!(*third.state() == *without.state());
    assert_eq!(third.state().count(TaskState::Ready), 1);
}

#[test]
fn a_snapshot_is_written_although_somebody_asks_all_the_time() {
    let (dir, fd) = directory();
    let clock = FakeClock::default();
    let budget = Budget { events: EVENTS_BEFORE_SNAPSHOT, ..Budget::default() };
    let with = Config { directory: Some(fd), clock: clock.clock(), budget, ..config() };
    let engine = Engine::start(Box::new(MemoryLog::default()), with).unwrap();
    for n in 0..=EVENTS_BEFORE_SNAPSHOT {
        let drain = Command::Drain { worker: worker("w"), by: actor("w"), draining: n % 2 == 0 };
        engine.submit(drain).on_durable(|outcome| drop(outcome.unwrap()));
    }
    for _ in 0..2 {
        nudge(&engine).unwrap();
        assert!(!dir.path().join("snapshot.json").exists(), "not before its time");
    }
    clock.forward(Span(1_000));
    nudge(&engine).unwrap();
    // A separate thread writes the snapshot.
    while !dir.path().join("snapshot.json").exists() {
        std::thread::yield_now();
    }
}

#[test]
fn a_snapshot_does_not_take_the_last_space() {
    let (dir, fd) = directory();
    let control = Control::new(MemoryLog::default());
    let engine = Engine::start(control.log(), Config { directory: Some(fd), ..config() }).unwrap();
    busy_hour(&engine);
    control.fail_next(&[Fault::Full]);
    engine.call(publish("more")).unwrap();
    engine.stop();
    assert!(!dir.path().join("snapshot.json").exists());
}

#[test]
fn a_snapshot_of_another_log_is_not_used() {
    let (_dir, fd) = directory();
    let with = || Config { directory: Some(fd.clone()), ..config() };
    let engine = Engine::start(Box::new(MemoryLog::default()), with()).unwrap();
    busy_hour(&engine);
    engine.stop();

    let other = Control::new(MemoryLog::default());
    let mut log = other.log();
    let records: Vec<_> = (1..=2 * EVENTS_BEFORE_SNAPSHOT_AT_STOP)
        .map(|seq| {
            let event = Event::Drained { worker: worker("w"), draining: seq % 2 == 0 };
            Record { seq, at: Wall(77_000 + seq as i64), event }
        })
        .collect();
    log.append(0, &records).unwrap();
    let engine = Engine::start(log, with()).unwrap();
    assert!(*engine.state() == State::replay(&records));
}

#[test]
fn texts_and_bytes_come_back_from_the_log() {
    let (_dir, fd) = directory();
    for control in [Control::new(MemoryLog::default()), Control::new(SqliteLog::open(fd).unwrap())] {
        let engine = Engine::start(control.log(), config()).unwrap();
        engine.call(publish("t")).unwrap();
        engine.call(claim_next("w")).unwrap();
        let text = b"gr\xc3\xb6\xc3\x9fer\n\xff\x00".repeat(9_000);
        let finish = Command::Finish {
            task: task("t"),
            by: actor("w"),
            ending: Ending::Failed,
            text: Some(Content::new(text.clone())),
            exclusive: true,
        };
        let Ok(Outcome::Finished { finish }) = engine.call(finish) else { panic!() };
        let reference = engine.state().task("t").unwrap().finish().unwrap().text.clone().unwrap();
        assert_eq!((reference.size, reference.seq), (text.len() as u64, finish));
        let read_text = |seq| {
            let (sender, receiver) = channel();
            engine.read_text(seq, move |text| drop(sender.send(text)));
            receiver.recv_timeout(Duration::from_secs(10)).unwrap()
        };
        assert_eq!(read_text(finish).unwrap(), Some(text));
        for none in [0, 1, finish + 1, Seq::MAX] {
            assert!(read_text(none).is_err(), "{none}");
        }
        let (sender, receiver) = channel();
        engine.read_events(3, usize::MAX >> 1, |_| (), move |bytes| drop(sender.send(bytes)));
        let lines: String = control.records().iter().map(line).collect();
        assert_eq!(receiver.recv().unwrap().unwrap(), &lines.as_bytes()[3..]);
    }
}

#[test]
fn a_read_of_the_log_holds_up_no_commit() {
    let (control, engine) = memory();
    engine.call(publish("t")).unwrap();
    let before = engine.log_bytes();
    control.hold_reads(true);
    let (sender, receiver) = channel();
    engine.read_events(0, usize::MAX >> 1, |_| (), move |bytes| drop(sender.send(bytes)));
    control.await_held_read();
    engine.call(claim_next("w")).unwrap();
    assert!(engine.log_bytes() > before);
    control.hold_reads(false);
    // The events acknowledged at the time of the request, and no later ones.
    assert_eq!(receiver.recv().unwrap().unwrap().len() as u64, before);
    // A request after the stop is dropped, and its channel closes.
    engine.stop();
    let (sender, receiver) = channel();
    engine.read_events(0, 9, |_| (), move |bytes| drop(sender.send(bytes)));
    assert!(receiver.recv().is_err());
}

#[test]
fn a_decision_is_known_at_once_and_safe_when_its_ticket_says_so() {
    let (control, engine) = memory();
    engine.call(publish("t")).unwrap();
    control.hold(true);
    let ticket = engine.submit(claim_next("w1"));
    let claimed = Ok(Outcome::Claimed { task: task("t"), epoch: 3 });
    assert_eq!(ticket.decided(), Some(claimed.clone()));
    let second = engine.submit(claim_next("w2")).decided();
    assert!(matches!(second, Some(Err(Failure::Refused(_)))), "it is gone for everybody else: {second:?}");
    assert_eq!(engine.state().count(TaskState::Ready), 1, "and nobody sees it yet");
    let told = |ticket: &Ticket| {
        let (sender, receiver) = channel();
        ticket.on_durable(move |outcome| drop(sender.send(outcome)));
        receiver
    };
    let safe = told(&ticket);
    control.await_batches(2);
    assert!(safe.try_recv().is_err());
    control.hold(false);
    assert_eq!(safe.recv().unwrap(), claimed);
    assert_eq!(engine.state().count(TaskState::Claimed), 1);

    // The caller of a decision that is lost gets the error, at any time at which it asks.
    control.fail_next(&[Fault::Before]);
    control.hold(true);
    let lost = engine.submit(complete("t", "w1"));
    assert!(lost.decided().is_some_and(|decided| decided.is_ok()));
    control.hold(false);
    engine.barrier();
    nudge(&engine).unwrap();
    for (ticket, kept) in [(lost, false), (ticket, true)] {
        assert_eq!(told(&ticket).recv().unwrap().is_ok(), kept);
    }
    assert_same_as_log(&engine, &control);
}

#[test]
fn a_barrier_of_an_engine_that_has_stopped_waits_for_nothing() {
    let (_control, engine) = memory();
    engine.stop();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        engine.barrier();
        sender.send(())
    });
    receiver.recv_timeout(Duration::from_secs(30)).unwrap();
}
