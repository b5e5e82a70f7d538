//! Texts that were overwritten: writing the same text again is no event, and the log drops texts that nothing shows any more (C36).

use std::sync::Arc;
use std::sync::mpsc::channel;

use crewfs::engine::{Config, Engine};
use crewfs::log::{Log, MemoryLog, SqliteLog};
use crewfs::queue::{Command, Content, Seq, Span, State};

use crate::engine::{config, nudge};
use crate::fault::{Control, Fault};
use crate::lease::FakeClock;
use crate::{actor, claim_next, complete, directory, publish, task};

struct World {
    control: Control,
    clock: FakeClock,
    engine: Arc<Engine>,
}

impl World {
    fn of(log: impl Log + 'static) -> World {
        World::with(Control::new(log))
    }

    fn with(control: Control) -> World {
        let clock = FakeClock::default();
        let with = Config { clock: clock.clock(), ..config() };
        let engine = Engine::start(control.log(), with).unwrap();
        World { control, clock, engine }
    }

    /// A completed task, whose result is written next.
    fn completed(&self, name: &str) -> Seq {
        self.engine.call(publish(name)).unwrap();
        self.engine.call(claim_next("w")).unwrap();
        self.engine.call(complete(name, "w")).unwrap();
        self.engine.state().task(name).unwrap().finish().unwrap().when.seq
    }

    fn report(&self, name: &str, finish: Seq, text: &str) {
        let report = Command::Report { task: task(name), finish, by: actor("w"), text: Content::new(text) };
        self.engine.call(report).unwrap();
    }

    /// The texts in the log when all due work is done.
    fn texts(&self) -> Vec<Seq> {
        self.clock.forward(Span(1_000));
        // The turn of the writer that is under way has not seen the new time, so wait for two.
        (0..2).for_each(|_| drop(nudge(&self.engine)));
        self.control.log().texts(0, 10_000).unwrap()
    }

    fn result(&self, name: &str) -> Option<String> {
        let text = self.engine.state().task(name)?.finish()?.text.clone()?;
        let (sender, receiver) = channel();
        self.engine.read_text(text.seq, move |text| drop(sender.send(text)));
        Some(String::from_utf8(receiver.recv().unwrap().unwrap().unwrap()).unwrap())
    }
}

fn long(n: usize) -> String {
    format!("{n}\n{}", "x".repeat(1_000))
}

fn both(test: impl Fn(World)) {
    test(World::of(MemoryLog::default()));
    let (_dir, fd) = directory();
    test(World::of(SqliteLog::open(fd).unwrap()));
}

#[test]
fn c36_the_same_text_once_more_is_no_event() {
    both(|world| {
        let finish = world.completed("t");
        for text in ["done", "", &long(1)] {
            world.report("t", finish, text);
            let (before, bytes) = (world.engine.decided(), world.engine.log_bytes());
            (0..3).for_each(|_| world.report("t", finish, text));
            assert_eq!((world.engine.decided(), world.engine.log_bytes()), (before, bytes), "{text:?}");
        }
        world.engine.call(publish("u")).unwrap();
        world.engine.call(claim_next("w")).unwrap();
        let epoch = world.engine.state().task("u").unwrap().claim().unwrap().epoch();
        let note = |text: &str| {
            let note = Command::Note { task: task("u"), epoch, by: actor("w"), text: text.into() };
            world.engine.call(note).unwrap();
            world.engine.decided()
        };
        assert_eq!(note("half"), note("half"));
        assert_ne!(note("half"), note("more"));
        world.engine.stop();
    });
}

#[test]
fn c36_a_text_that_nothing_shows_leaves_the_log_and_the_events_stay() {
    both(|world| {
        let finish = world.completed("t");
        (0..700).for_each(|n| world.report("t", finish, &long(n)));
        let other = world.completed("u");
        world.report("u", other, &long(7));
        let shown =
            |name: &str| world.engine.state().task(name).unwrap().finish().unwrap().text.clone().unwrap().seq;
        let wanted = vec![shown("t"), shown("u")];
        // One turn drops a bounded number of texts.
        (0..4).for_each(|_| drop(world.texts()));
        assert_eq!(world.texts(), wanted);
        assert_eq!((world.result("t"), world.result("u")), (Some(long(699)), Some(long(7))));
        let records = world.control.log().read(0, 10_000).unwrap();
        assert_eq!(records.len() as Seq, world.engine.decided());
        assert!(*world.engine.state() == State::replay(&records), "the log makes the same of it");
        // A log line holds at most the beginning of the text.
        assert!(world.engine.log_bytes() < 720 * 300, "{}", world.engine.log_bytes());

        // The text of a task that is retried or removed is not shown any more.
        world.engine.call(Command::Retry { task: task("t"), by: actor("w") }).unwrap();
        world.engine.call(Command::FileGone { task: task("u") }).unwrap();
        let operator = crewfs::queue::Actor { operator: true, ..actor("joe") };
        world.engine.call(Command::Forget { task: task("u"), by: operator }).unwrap();
        assert_eq!(world.texts(), Vec::<Seq>::new());
        world.engine.stop();
    });
}

#[test]
fn c36_notes_leave_the_log_too_and_the_last_one_comes_back_whole() {
    both(|world| {
        world.engine.call(publish("t")).unwrap();
        world.engine.call(claim_next("w")).unwrap();
        let epoch = world.engine.state().task("t").unwrap().claim().unwrap().epoch();
        for n in 0..20 {
            let note = Command::Note { task: task("t"), epoch, by: actor("w"), text: long(n) };
            world.engine.call(note).unwrap();
        }
        let note =
            |world: &World| world.engine.state().task("t").unwrap().claim().unwrap().note.clone().unwrap();
        assert_eq!(world.texts(), [note(&world).seq]);
        let before = world.engine.state();
        world.engine.stop();
        let again = World::with(world.control.clone());
        assert!(*again.engine.state() == *before);
        assert_eq!(note(&again).text, long(19));
        again.engine.call(Command::Release { task: task("t"), by: actor("w") }).unwrap();
        assert_eq!(again.texts(), Vec::<Seq>::new());
        again.engine.stop();
    });
}

#[test]
fn c36_what_a_crash_left_is_swept_after_the_start() {
    both(|world| {
        let finish = world.completed("t");
        (0..5).for_each(|n| world.report("t", finish, &long(n)));
        let seq = world.engine.decided();
        // The engine stops before the work is due.
        world.engine.stop();
        assert_eq!(world.control.log().texts(0, 10).unwrap().len(), 5);
        let again = World::with(world.control.clone());
        assert_eq!(again.texts(), [seq]);
        assert_eq!(again.result("t"), Some(long(4)));
        again.engine.stop();
    });
}

#[test]
fn c36_what_was_not_written_is_not_taken_for_overwritten() {
    for fault in [Fault::Before, Fault::After, Fault::Full] {
        let world = World::of(MemoryLog::default());
        let finish = world.completed("t");
        world.report("t", finish, &long(1));
        world.control.fail_next(&[fault]);
        let text = Content::new(long(2));
        let report = Command::Report { task: task("t"), finish, by: actor("w"), text };
        assert!(world.engine.call(report).is_err());
        let _ = nudge(&world.engine);
        let kept = if fault == Fault::After { long(2) } else { long(1) };
        assert_eq!(world.texts().len(), 1, "{fault:?}");
        assert_eq!(world.result("t"), Some(kept), "{fault:?}");
        world.engine.stop();
    }
}
