//! No acknowledged step is lost: the daemon is killed at any moment, and the log holds exactly the steps that succeeded for each client
//! (C27).

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crewfs::log::Log;
use crewfs::queue::{Content, Digest, Event, LossReason, Record, Seq, State, TaskId, TaskState, WorkerName};
use rustix::fs::{AtFlags, Mode, OFlags, fsync, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::clients::{Client, Clients, worker};
use crate::forms::{Form, create, current, read, touch};
use crate::harness::{Mounted, Project, project};
use crate::process::{LIMIT, crewfs, detach_below, slow};
use crate::random::{Random, number, seed};

const CLIENTS: usize = 8;
/// The longest time that the daemon lives after the clients start.
const LIFE: usize = 500;
const TASKS: &str = "CREWFS_KILL_TASKS";
/// Stands for a task that `claim/next` gave to a client that died before it read the task's id.
const UNKNOWN: &str = "unknown";

fn id(number: usize) -> String {
    format!("t{number:04}")
}

fn task_id(id: &str) -> TaskId {
    TaskId::parse(id).unwrap()
}

#[test]
fn c27_what_was_acknowledged_survives_every_kill() {
    rounds(&project!(), 24, number("CREWFS_KILL_ROUNDS").unwrap_or(8));
}

#[test]
fn c27_what_was_acknowledged_survives_every_kill_with_a_snapshot_and_many_tasks() {
    rounds(&project!(), 3_000, number("CREWFS_KILL_ROUNDS").map_or(4, |rounds| rounds.div_ceil(4)));
}

fn rounds(project: &Project, tasks: usize, rounds: u64) {
    let seed = seed();
    let mut random = Random::new(seed);
    (0..tasks).for_each(|n| project.task(&id(n), &format!("# T{n}\n")));
    // A clean stop. It leaves a snapshot from a thousand events on.
    project.mount(&[]).stop();
    let mut known = Known::default();
    known.learn(from_disk(project, 0));
    assert_eq!(known.state.len(), tasks);

    let (mut counts, mut startups) = (BTreeMap::new(), 0);
    for round in 0..rounds {
        if random.once_in(4) {
            startups += 1;
            kill_at_start(project, Duration::from_millis(random.below(80) as u64));
        }
        let mut mounted = project.mount(&[]);
        known.is_shown_by(&mounted, &mut random);
        if round % 4 == 3 {
            if random.once_in(2) {
                mounted.stop();
            } else {
                kill_at_stop(&mut mounted, Duration::from_millis(random.below(120) as u64));
            }
            // Dropping the old mount clears the mount point for the next one.
            drop(mounted);
            mounted = project.mount(&[]);
        }
        let environment = [(TASKS, tasks.to_string())];
        let seed = seed.wrapping_mul(round + 1);
        let mut clients = Clients::ready(project, &mounted, "kill::client", CLIENTS, seed, &environment);
        clients.go();
        std::thread::sleep(Duration::from_millis(random.below(LIFE) as u64));
        mounted.kill9();
        let reports = clients.reports(LIMIT);
        drop(mounted);

        let tail = known.state.tail();
        let news = if random.once_in(2) {
            from_disk(project, tail)
        } else {
            let mut mounted = project.mount(&[]);
            let news = from_mount(&mounted, tail);
            mounted.kill9();
            news
        };
        let told = known.learn(news);
        for (number, report) in reports.iter().enumerate() {
            let worker = worker(number);
            let nothing = Vec::new();
            let told = told.get(&worker).unwrap_or(&nothing);
            agree(report, told, &mut counts).unwrap_or_else(|why| {
                let log = told.iter().map(|event| short(&serde_json::to_string(event).unwrap()) + "\n");
                let report = report.lines().map(|line| short(line) + "\n").collect::<String>();
                panic!("round {round}, {worker}: {why}\nreport:\n{report}log:\n{}", log.collect::<String>())
            });
        }
    }
    let mounted = project.mount(&[]);
    known.is_shown_by(&mounted, &mut random);
    drop(mounted);
    let all = from_disk(project, 0);
    assert!(State::replay(&all) == known.state, "the log replays to what was learned round by round");
    assert!(all == known.records, "no event changed after it was written");
    println!(
        "{rounds} rounds and {startups} kills at start, {tasks} tasks, {CLIENTS} processes: {} events",
        all.len()
    );
    counts.iter().for_each(|(what, count)| println!("  {what:24} {count:>8}"));
}

/// Kill a daemon before, while or after it mounts.
fn kill_at_start(project: &Project, life: Duration) {
    let mut command = crewfs();
    command.arg("mount").args([project.source(), project.mountpoint()]).arg("-f");
    let mut daemon = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(life);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    detach_below(project.mountpoint());
}

/// Kill a daemon that is stopping: while it unmounts, or while it writes its snapshot.
fn kill_at_stop(mounted: &mut Mounted, life: Duration) {
    kill_process(Pid::from_raw(mounted.pid() as i32).unwrap(), Signal::TERM).unwrap();
    std::thread::sleep(life);
    mounted.kill9();
}

/// The events after a position, from the log on the disk. Reading checks that positions have no gaps.
fn from_disk(project: &Project, after: Seq) -> Vec<Record> {
    let taken = crewfs::daemon::Project::take(project.source(), None, false).unwrap();
    taken.open_log().unwrap().read(after, usize::MAX >> 1).unwrap()
}

/// The events after a position, from the mount.
fn from_mount(mounted: &Mounted, after: Seq) -> Vec<Record> {
    let events = mounted.read("events.jsonl");
    events.lines().skip(after as usize).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The content of the log so far.
#[derive(Default)]
struct Known {
    records: Vec<Record>,
    state: State,
    /// The text of each finished task.
    texts: BTreeMap<TaskId, Digest>,
}

impl Known {
    /// Add new records, assert that they contradict no earlier ones, and group them by the worker that caused them.
    fn learn(&mut self, news: Vec<Record>) -> BTreeMap<String, Vec<Event>> {
        let mut told = BTreeMap::<String, Vec<Event>>::new();
        for record in news {
            assert_eq!(record.seq, self.state.tail() + 1, "positions have no gaps");
            let actor = self.actor(&record.event);
            if let Some(actor) = actor {
                told.entry(actor.as_str().into()).or_default().push(record.event.clone());
            }
            match &record.event {
                Event::Completed { task, text, .. } | Event::Failed { task, text, .. } => {
                    let text = text.as_ref().map_or_else(|| Digest::of(b""), |text| text.digest().clone());
                    self.texts.insert(task.clone(), text);
                }
                Event::Reported { task, text } => {
                    self.texts.insert(task.clone(), text.digest().clone());
                }
                Event::Retried { task, .. } => drop(self.texts.remove(task)),
                _ => {}
            }
            self.state.apply(&record);
            self.records.push(record);
        }
        told
    }

    /// The worker that an event names. Events of files name no worker.
    fn actor(&self, event: &Event) -> Option<WorkerName> {
        let task = event.task().and_then(|id| self.state.task(id.as_str()));
        let holder = task.and_then(|task| Some(task.claim()?.worker.clone()));
        let finisher = task.and_then(|task| task.finish()?.worker.clone());
        match event {
            Event::Published { .. } => {
                assert!(task.is_none(), "published again: {event:?}");
                None
            }
            Event::Joined { .. } => None,
            Event::Claimed { worker, .. } => {
                assert_eq!((holder, finisher), (None, None), "{event:?}");
                Some(worker.clone())
            }
            Event::Completed { worker, .. } | Event::Failed { worker, .. } => {
                assert!(holder.is_some() && holder == *worker, "held by {holder:?}: {event:?}");
                holder
            }
            Event::Returned { worker, reason, .. } => {
                assert_eq!((holder.as_ref(), reason), (Some(worker), &LossReason::GivenBack));
                holder
            }
            Event::Noted { .. } => Some(holder.expect("only what is held has notes")),
            Event::Reported { .. } => Some(finisher.expect("only what is finished has a result")),
            Event::Retried { by, .. } => {
                assert!(finisher.is_some(), "{event:?}");
                Some(by.clone())
            }
            other => panic!("nobody did this: {other:?}"),
        }
    }

    /// Assert that a mount shows the content of the log.
    fn is_shown_by(&self, mounted: &Mounted, random: &mut Random) {
        let shown = mounted.json("queue.json");
        let shown = shown.as_object().unwrap().iter().map(|(id, task)| {
            let of = |key: &str| task[key].as_str().map(str::to_string);
            (id.clone(), of("status").unwrap(), of("worker"))
        });
        let known = self.state.tasks().map(|(id, task)| {
            let worker = task.claim().map(|claim| &claim.worker);
            let worker = worker.or(task.finish().and_then(|finish| finish.worker.as_ref()));
            (id.to_string(), self.state.state_of(task).to_string(), worker.map(|w| w.to_string()))
        });
        assert_eq!(shown.collect::<Vec<_>>(), known.collect::<Vec<_>>());
        for (id, text) in self.texts.iter().filter(|_| self.texts.len() < 20 || random.once_in(20)) {
            let state = self.state.state_of(self.state.task(id.as_str()).unwrap());
            let path = mounted.desk(state.to_string()).join(id.as_str());
            assert!(Digest::of(&std::fs::read(path).unwrap()) == *text, "the text of {id}");
        }
    }
}

/// Whether the steps that a client reported are the steps that the log has of it: same order, none missing, none added.
fn agree(report: &str, told: &[Event], counts: &mut BTreeMap<String, usize>) -> Result<(), String> {
    let mut told = told.iter();
    for line in report.lines() {
        let (outcome, event) = line.split_once('\t').unwrap();
        let event: Option<Event> = serde_json::from_str(event).unwrap();
        let kind = event.as_ref().map_or("nothing".into(), |event| {
            serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_string()
        });
        let mut count = |what: &str| *counts.entry(format!("{kind} {what}")).or_default() += 1;
        match (outcome, event) {
            ("ok", Some(event)) => {
                let found = told.next();
                if !found.is_some_and(|found| is_same(&event, found)) {
                    let found = found.map(|found| short(&serde_json::to_string(found).unwrap()));
                    return Err(format!("{} was acknowledged, the log says {found:?}", short(line)));
                }
                count("ok");
            }
            // The daemon died during this step. The log has the step as intended, or not at all.
            ("lost", Some(event)) => {
                let there = told.clone().next().is_some_and(|found| is_same(&event, found));
                count(if there { "lost, there" } else { "lost, not there" });
                if there {
                    told.next();
                }
            }
            (outcome, _) => count(outcome),
        }
    }
    told.next().map_or(Ok(()), |more| {
        Err(format!("the log has what nobody was told: {}", short(&serde_json::to_string(more).unwrap())))
    })
}

/// A line with most of its text cut.
fn short(line: &str) -> String {
    line.chars().take(150).collect()
}

fn is_same(meant: &Event, found: &Event) -> bool {
    match (meant, found) {
        (Event::Claimed { task, worker }, Event::Claimed { worker: other, .. })
            if task.as_str() == UNKNOWN =>
        {
            worker == other
        }
        // The log stores a long text outside its event.
        _ => without_text(meant) == without_text(found),
    }
}

fn without_text(event: &Event) -> Event {
    event.text().map_or_else(|| event.clone(), |text| event.with_text(text.without_text()))
}

/// Not a test: the body of a client.
#[test]
fn client() {
    if let Some(client) = Client::start() {
        let mut worker = Worker::new(client);
        assert!(worker.work().is_err(), "a worker ends when its daemon does");
    }
}

/// The daemon has died.
struct Gone;

fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOTCONN | Errno::CONNABORTED)
}

/// The outcome of a call that changes nothing.
fn look<T>(outcome: rustix::io::Result<T>) -> Result<T, Gone> {
    outcome.map_err(|errno| {
        assert!(is_gone(errno), "{errno}");
        Gone
    })
}

/// A worker that uses every operation that workers have.
struct Worker {
    client: Client,
    name: WorkerName,
    tasks: usize,
    /// What it holds, oldest claim first.
    held: Vec<String>,
    /// What it completed, and the path of each result.
    finished: Vec<(&'static str, String)>,
    /// How many texts it wrote.
    texts: usize,
}

impl Worker {
    fn new(client: Client) -> Worker {
        let name = WorkerName::parse(&client.worker).unwrap();
        let tasks = number(TASKS).unwrap() as usize;
        Worker { client, name, tasks, held: Vec::new(), finished: Vec::new(), texts: 0 }
    }

    fn work(&mut self) -> Result<(), Gone> {
        self.remember()?;
        let start = Instant::now();
        while start.elapsed() < slow(LIMIT) {
            match self.client.random.below(6) {
                0 | 1 if self.held.len() < 3 => self.claim()?,
                2 if !self.finished.is_empty() => self.retry()?,
                3 if !self.finished.is_empty() => self.rewrite()?,
                _ if self.held.is_empty() => self.claim()?,
                4 if self.client.random.once_in(2) => self.give_back()?,
                4 => self.note()?,
                _ => self.finish()?,
            }
        }
        Ok(())
    }

    /// Report the outcome of a step that means `event`, before the next step starts.
    fn tell<T>(&mut self, event: Option<Event>, outcome: rustix::io::Result<T>) -> Result<Option<T>, Gone> {
        let event = serde_json::to_string(&event).unwrap();
        match outcome {
            Ok(value) => {
                self.client.report_now(format_args!("ok\t{event}"));
                Ok(Some(value))
            }
            Err(errno) if is_gone(errno) => {
                self.client.report_now(format_args!("lost\t{event}"));
                Err(Gone)
            }
            Err(Errno::EXIST | Errno::NOENT | Errno::ACCESS | Errno::BUSY) => {
                self.client.report_now(format_args!("refused\t{event}"));
                Ok(None)
            }
            Err(errno) => panic!("{errno}: {event}"),
        }
    }

    /// The same for a step that the daemon must not refuse.
    fn must<T>(&mut self, event: Event, outcome: rustix::io::Result<T>) -> Result<T, Gone> {
        let errno = outcome.as_ref().err().copied();
        let shown = format!("{event:?}");
        Ok(self.tell(Some(event), outcome)?.unwrap_or_else(|| panic!("{errno:?}: {shown}")))
    }

    /// Learn the state that earlier rounds left.
    fn remember(&mut self) -> Result<(), Gone> {
        let queue: Value = serde_json::from_slice(&look(read(&self.client.desk, "queue.json"))?).unwrap();
        let mut held = Vec::new();
        for (id, task) in queue.as_object().unwrap() {
            if task["worker"] == self.name.as_str() {
                match task["status"].as_str().unwrap() {
                    "claimed" => held.push((task["epoch"].as_u64().unwrap(), id.clone())),
                    "completed" => self.finished.push(("completed", id.clone())),
                    "failed" => self.finished.push(("failed", id.clone())),
                    other => panic!("{id} is {other}"),
                }
            }
        }
        held.sort();
        self.held = held.into_iter().map(|(_, id)| id).collect();
        Ok(())
    }

    fn claim(&mut self) -> Result<(), Gone> {
        if self.client.random.once_in(4) {
            return self.next();
        }
        let id = id(self.client.random.below(self.tasks));
        let form = self.client.random.one_of(&Form::ALL);
        let claimed = form.claim(&self.client.desk, &id);
        let held = self.held.contains(&id);
        let event = Event::Claimed { task: task_id(&id), worker: self.name.clone() };
        if self.tell((!held).then_some(event), claimed)?.is_some() && !held {
            self.held.push(id);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(), Gone> {
        let claimed = if self.client.random.once_in(2) {
            touch(&self.client.desk, "claim/next")
        } else {
            mkdirat(&self.client.desk, "claim/next", Mode::from(0o777))
        };
        if !self.held.is_empty() {
            return self.tell(None, claimed).map(|_| ());
        }
        let id = match claimed {
            Ok(()) => current(&self.client.desk),
            Err(errno) => Err(errno),
        };
        let task = task_id(id.as_deref().unwrap_or(UNKNOWN));
        let event = Event::Claimed { task, worker: self.name.clone() };
        if self.tell(Some(event), claimed)?.is_some() {
            self.held.push(look(id)?);
        }
        Ok(())
    }

    /// A new text, sometimes a long one.
    fn text(&mut self, at_most: usize) -> String {
        self.texts += 1;
        let length = if self.client.random.once_in(10) { self.client.random.below(at_most) } else { 0 };
        let fill = "x".repeat(length);
        format!("{} {} {} {fill}.", self.name, self.texts, self.client.random.below(usize::MAX))
    }

    fn note(&mut self) -> Result<(), Gone> {
        let (at, text) = (self.client.random.below(self.held.len()), self.text(3_000));
        let id = self.held[at].clone();
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = look(openat(&self.client.desk, format!("claim/{id}"), flags, Mode::empty()))?;
        let written = rustix::io::write(&file, format!("{text}\n").as_bytes()).map(drop);
        self.must(Event::Noted { task: task_id(&id), text: Content::new(text) }, written)
    }

    fn give_back(&mut self) -> Result<(), Gone> {
        let at = self.client.random.below(self.held.len());
        let (id, desk) = (self.held[at].clone(), &self.client.desk);
        let claim = format!("claim/{id}");
        let back = match self.client.random.below(3) {
            0 => renameat(desk, &claim, desk, format!("ready/{id}")),
            1 if at + 1 == self.held.len() => unlinkat(desk, "claim/next", AtFlags::empty()),
            _ => unlinkat(desk, &claim, AtFlags::empty()),
        };
        let (task, worker) = (task_id(&id), self.name.clone());
        self.must(Event::Returned { task, worker, reason: LossReason::GivenBack }, back)?;
        self.held.remove(at);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Gone> {
        let at = self.client.random.below(self.held.len());
        let is_last = at + 1 == self.held.len();
        let id = self.held[at].clone();
        let directory = if self.client.random.once_in(5) { "failed" } else { "completed" };
        let path = format!("{directory}/{id}");
        let event = |text: Option<&str>, name: &WorkerName| {
            let (task, worker) = (task_id(&id), Some(name.clone()));
            let text = text.map(Content::new);
            match directory {
                "failed" => Event::Failed { task, worker, by: None, text },
                _ => Event::Completed { task, worker, by: None, text },
            }
        };
        match self.client.random.below(5) {
            // The calls of `mv`.
            0 => {
                let from = if is_last { "claim/next".into() } else { format!("claim/{id}") };
                let moved = renameat(&self.client.desk, from, &self.client.desk, &path);
                self.must(event(None, &self.name), moved)?;
            }
            // The calls of editors.
            1 | 2 => {
                let (scratch, text) = (format!("{directory}/.{id}.{}", self.name), self.text(50_000));
                let file = look(create(&self.client.desk, &scratch, OFlags::EXCL))?;
                look(rustix::io::write(&file, text.as_bytes()))?;
                drop(file);
                let saved = renameat(&self.client.desk, &scratch, &self.client.desk, &path);
                self.must(event(Some(&text), &self.name), saved)?;
            }
            // The calls of the shell.
            _ => {
                let file = create(&self.client.desk, &path, OFlags::TRUNC);
                let file = self.must(event(None, &self.name), file)?;
                self.held.remove(at);
                self.finished.push((directory, id.clone()));
                return self.write(file, &path, &id);
            }
        }
        self.held.remove(at);
        self.finished.push((directory, id));
        Ok(())
    }

    /// Write a result and make sure that it is durable: by fsync(2), or by close and the content that other workers read afterwards.
    fn write(&mut self, file: std::os::fd::OwnedFd, path: &str, id: &str) -> Result<(), Gone> {
        let text = self.text(50_000);
        let mut file = std::fs::File::from(file);
        look(file.write_all(text.as_bytes()).map_err(|e| Errno::from_io_error(&e).unwrap()))?;
        let kept = if self.client.random.once_in(2) {
            fsync(&file)
        } else {
            drop(file);
            read(&self.client.desk, path)
                .map(|found| assert_eq!(String::from_utf8_lossy(&found), text, "{path}"))
        };
        self.must(Event::Reported { task: task_id(id), text: Content::new(text) }, kept)
    }

    /// `> completed/<id>` again: truncated, then written.
    fn rewrite(&mut self) -> Result<(), Gone> {
        let at = self.client.random.below(self.finished.len());
        let (directory, id) = self.finished[at].clone();
        let path = format!("{directory}/{id}");
        // The truncation reaches the disk together with the text that is written next.
        let file = look(create(&self.client.desk, &path, OFlags::TRUNC))?;
        self.write(file, &path, &id)
    }

    fn retry(&mut self) -> Result<(), Gone> {
        let at = self.client.random.below(self.finished.len());
        let (directory, id) = self.finished[at].clone();
        let desk = &self.client.desk;
        let back = renameat(desk, format!("{directory}/{id}"), desk, format!("ready/{id}"));
        self.must(Event::Retried { task: task_id(&id), by: self.name.clone() }, back)?;
        self.finished.remove(at);
        Ok(())
    }
}

/// The check itself detects faults.
#[test]
fn a_report_agrees_only_with_its_own_events() {
    let event =
        |task: &str| Event::Claimed { task: task_id(task), worker: WorkerName::parse("w00").unwrap() };
    let line = |outcome: &str, task: &str| {
        format!("{outcome}\t{}\n", serde_json::to_string(&Some(event(task))).unwrap())
    };
    let check = |report: &str, told: &[Event]| agree(report, told, &mut BTreeMap::new()).is_ok();
    assert!(check(&line("ok", "a"), &[event("a")]));
    assert!(!check(&line("ok", "a"), &[]), "acknowledged and lost");
    assert!(!check(&line("ok", "a"), &[event("b")]));
    assert!(!check("", &[event("a")]), "done and not told");
    assert!(!check(&line("refused", "a"), &[event("a")]), "refused and done");
    assert!(check(&line("lost", "a"), &[event("a")]) && check(&line("lost", "a"), &[]));
    assert!(!check(&line("lost", "a"), &[event("b")]));
    assert!(!check(&line("lost", "a"), &[event("a"), event("a")]), "done twice");
    assert!(check(&line("ok", UNKNOWN), &[event("b")]));
    assert_eq!(TaskState::Completed.to_string(), "completed", "a state is its directory");
}
