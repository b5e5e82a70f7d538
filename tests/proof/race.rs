//! One winner: many processes claim the same tasks in every form, and each task has one holder (C20, C21, C22).

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use rustix::fs::{Dir, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use serde_json::Value;

use crate::clients::{Client, Clients, worker};
use crate::forms::{Form, create, current, touch};
use crate::harness::project;
use crate::random::{number, seed};

const CLIENTS: usize = 64;
const TASKS: &str = "CREWFS_RACE_TASKS";
/// Tasks that need a task which never exists.
const STUCK: usize = 5;
/// In every second window of tasks, all clients claim in the same order; in the others, each client has its own order.
const WINDOW: usize = 10;
/// The pace of the clients: all claim the next task together, unless one cannot keep up.
const BEAT: Duration = Duration::from_millis(10);

fn tasks() -> usize {
    number(TASKS).unwrap_or(500) as usize
}

/// The tasks, and the task that each one needs.
fn plan() -> Vec<(String, Option<String>)> {
    let id = |n: usize| format!("t{n:05}");
    let all = (0..tasks()).map(|n| (id(n), (n % 10 == 9).then(|| id(n - 1))));
    all.chain((0..STUCK).map(|n| (format!("stuck{n}"), Some("never".into())))).collect()
}

#[test]
fn c20_c22_every_task_has_one_winner_and_every_loser_is_told_so() {
    let project = project!();
    let (seed, plan) = (seed(), plan());
    for (id, needs) in &plan {
        let needs = needs.as_ref().map_or(String::new(), |need| format!("---\nneeds: [{need}]\n---\n"));
        project.task(id, &format!("{needs}# {id}\n"));
    }
    let mounted = project.mount(&[]);
    let mut clients = Clients::ready(&project, &mounted, "race::client", CLIENTS, seed, &[]);
    let start = Instant::now();
    clients.go();
    let limit = Duration::from_secs(number("CREWFS_TEST_LIMIT").unwrap_or(50));
    let reports = clients.reports(limit);
    let took = start.elapsed();

    let waits: BTreeMap<&str, bool> = plan.iter().map(|(id, needs)| (id.as_str(), needs.is_some())).collect();
    let log = project.log();
    let mut counts = BTreeMap::<(String, String), usize>::new();
    for (number, report) in reports.iter().enumerate() {
        let (mut claims, mut ends) = (Vec::new(), Vec::new());
        for line in report.lines() {
            let [step, id, outcome] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
            *counts.entry((step.into(), outcome.into())).or_default() += 1;
            match (step, outcome) {
                ("complete", "ok") => ends.push(id),
                (_, "ok") => claims.push(id),
                _ => assert!(is_allowed(step, outcome, waits.get(id) == Some(&true)), "{line}"),
            }
        }
        // A process makes one call at a time, so its events are in the order of its answers.
        let worker = worker(number);
        assert_eq!(claims, tasks_of(&log, "claimed", Some(&worker)), "claimed by {worker}");
        assert_eq!(ends, tasks_of(&log, "completed", Some(&worker)), "completed by {worker}");
    }
    for event in ["claimed", "completed"] {
        let mut once = tasks_of(&log, event, None);
        once.sort_unstable();
        let all = plan.iter().map(|(id, _)| id.as_str()).filter(|id| !id.starts_with("stuck"));
        assert!(once.iter().copied().eq(all), "every task is {event} once: {once:?}");
    }
    assert_eq!(tasks_of(&log, "returned", None), Vec::<&str>::new());

    let calls: usize = counts.values().sum();
    let rate = calls as f64 / took.as_secs_f64();
    println!("{CLIENTS} processes, {} tasks: {calls} calls in {took:.1?}, {rate:.0} a second", tasks());
    counts.iter().for_each(|((step, outcome), count)| println!("  {step:16} {outcome:12} {count:>8}"));
    let won = |step: &str| counts.contains_key(&(step.into(), "ok".into()));
    Form::ALL.iter().for_each(|form| assert!(won(&format!("{form:?}")), "nobody won by {form:?}"));
}

/// The tasks of all events of a kind, in log order.
fn tasks_of<'a>(log: &'a str, event: &str, worker: Option<&str>) -> Vec<&'a str> {
    let kind = format!("\"event\":\"{event}\"");
    let events = log.lines().filter(|line| line.contains(&kind));
    events
        .filter(|line| worker.is_none_or(|worker| line.contains(&format!("\"worker\":\"{worker}\""))))
        .map(|line| line.split_once("\"task\":\"").unwrap().1.split_once('"').unwrap().0)
        .collect()
}

fn is_allowed(step: &str, outcome: &str, waits: bool) -> bool {
    let allowed: &[Errno] = match step {
        // Only the holder may complete a task (C24).
        "trespass" => &[Errno::ACCESS],
        // A held claim exists, and while no task is ready, `claim/next` finds none.
        "again-mkdir" => &[Errno::EXIST],
        "next-touch" | "next-mkdir" => &[Errno::NOENT],
        _ => match Form::ALL.iter().find(|form| format!("{form:?}") == step) {
            Some(form) => form.allowed(waits),
            None => &[],
        },
    };
    // Claiming a task that the caller already holds is no new claim.
    (step, outcome) == ("again-touch", "same") || allowed.iter().any(|errno| said(Err(*errno)) == outcome)
}

fn said(outcome: Result<(), Errno>) -> String {
    let names = [
        (Errno::ACCESS, "EACCES"),
        (Errno::BUSY, "EBUSY"),
        (Errno::EXIST, "EEXIST"),
        (Errno::NOENT, "ENOENT"),
    ];
    let name = |errno| match names.iter().find(|(known, _)| *known == errno) {
        Some((_, name)) => name.to_string(),
        None => errno.raw_os_error().to_string(),
    };
    outcome.map_or_else(name, |()| "ok".into())
}

/// Not a test: the body of a client.
#[test]
fn client() {
    if let Some(client) = Client::start() {
        Racer { client, held: Vec::new(), completed: HashSet::new() }.race();
    }
}

struct Racer {
    client: Client,
    /// What it holds, oldest claim first.
    held: Vec<String>,
    completed: HashSet<String>,
}

impl Racer {
    fn race(mut self) {
        // `claim/next` takes the oldest task. Claims by id start at the newest one, so that both meet in the middle.
        let mut ids: Vec<String> = plan().into_iter().map(|(id, _)| id).rev().collect();
        ids.chunks_mut(WINDOW).step_by(2).for_each(|window| self.client.random.shuffle(window));
        let start = Instant::now();
        for (id, beat) in ids.into_iter().zip(1..) {
            if self.client.random.once_in(150) {
                self.next();
            }
            std::thread::sleep((BEAT * beat).saturating_sub(start.elapsed()));
            let form = self.client.random.one_of(&Form::ALL);
            let won = self.tell(&format!("{form:?}"), &id, form.claim(&self.client.desk, &id));
            if won {
                self.held.push(id);
                if self.client.random.once_in(2) {
                    self.complete();
                }
            } else if self.client.random.once_in(32)
                && !self.held.contains(&id)
                && !self.completed.contains(&id)
            {
                let tried = create(&self.client.desk, &format!("completed/{id}"), OFlags::empty());
                assert!(!self.tell("trespass", &id, tried.map(drop)), "{id} is not ours");
            }
        }
        while self.is_more_to_do() {
            self.next();
            self.complete_all();
        }
    }

    fn tell(&mut self, step: &str, id: &str, outcome: Result<(), Errno>) -> bool {
        self.client.report(format_args!("{step} {id} {}", said(outcome)));
        outcome.is_ok()
    }

    /// Whether a task is ready or may still become ready.
    fn is_more_to_do(&mut self) -> bool {
        self.complete_all();
        let names = |directory: &str| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = openat(&self.client.desk, directory, flags, Mode::empty()).unwrap();
            let names = Dir::new(directory).unwrap().map(|entry| entry.unwrap().file_name().to_owned());
            names.filter(|name| !name.to_bytes().starts_with(b".")).count()
        };
        // Tasks move from blocked to ready, never back, so blocked is counted first.
        names("blocked") > STUCK || names("ready") > 0
    }

    /// Claim the best task.
    fn next(&mut self) {
        if self.client.random.once_in(2) {
            self.complete_all();
        }
        let by_mkdir = self.client.random.once_in(2);
        let desk = &self.client.desk;
        let claimed =
            if by_mkdir { mkdirat(desk, "claim/next", Mode::from(0o777)) } else { touch(desk, "claim/next") };
        let form = if by_mkdir { "mkdir" } else { "touch" };
        match (self.held.last().cloned(), claimed) {
            (None, Ok(())) => {
                let id = current(&self.client.desk).unwrap();
                self.tell(&format!("next-{form}"), &id, Ok(()));
                self.held.push(id);
                self.complete();
            }
            (None, refused) => {
                self.tell(&format!("next-{form}"), "-", refused);
            }
            (Some(id), Ok(())) => {
                assert_eq!(current(&self.client.desk).unwrap(), id, "the youngest claim");
                assert!(!by_mkdir, "mkdir makes claim/next, which is there: {id} is held");
                self.client.report(format_args!("again-touch {id} same"));
            }
            (Some(id), refused) => {
                self.tell(&format!("again-{form}"), &id, refused);
            }
        }
    }

    fn complete_all(&mut self) {
        while !self.held.is_empty() {
            self.complete();
        }
    }

    /// Complete the newest claim.
    fn complete(&mut self) {
        let id = self.held.pop().unwrap();
        let completed = create(&self.client.desk, &format!("completed/{id}"), OFlags::TRUNC);
        assert!(self.tell("complete", &id, completed.map(drop)), "{id} is ours");
        self.completed.insert(id);
    }
}

/// The counts match what the clients wrote, and the parser reads their lines as intended.
#[test]
fn events_are_found_in_the_log() {
    let log = r#"{"seq":1,"at":"-","event":"claimed","task":"a","worker":"w01"}"#;
    assert!(serde_json::from_str::<Value>(log).is_ok());
    assert_eq!(tasks_of(log, "claimed", Some("w01")), ["a"]);
    assert_eq!(tasks_of(log, "claimed", Some("w0")), Vec::<&str>::new());
}
