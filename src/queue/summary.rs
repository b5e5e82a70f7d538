//! The queue at a glance: how far it is, how fast, when it will be done, and what is stuck and why.
//!
//! May assume: it is told the time, and when each worker was last heard of.
//! Must never: cost more than one look at each task. Whoever watches the crew asks for it every few seconds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet, VecDeque};

use serde::Serialize;

use super::task::Finish;
use super::why::named;
use super::{Claim, Instant, Now, Phase, Seq, Span, State, Task, TaskId, TaskState, Wall, WorkerName, lease};
use crate::limits::STUCK_SHOWN;

/// Over which time throughput is measured: sixty times a minute.
const MINUTES: usize = 60;
const MINUTE_MS: u64 = 60_000;
/// Steps in the history of open tasks.
const STEPS: usize = 60;
/// How long nobody must have been heard of before ready tasks count as left alone.
const NOBODY: Span = Span(5 * MINUTE_MS);

/// What the summary is made from besides the state.
pub struct Sight<'a> {
    /// The time.
    pub now: Now,
    /// The lease of a task that names none.
    pub default_lease: Span,
    /// Everybody who is known, by name, and when each was last heard of.
    pub workers: &'a [(WorkerName, Instant)],
    /// What the directory of tasks is called.
    pub tasks: &'a str,
}

/// All of it; `tasks/summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// When it was made.
    pub at: Wall,
    /// The last event that it knows.
    pub seq: Seq,
    /// How many tasks are in which state.
    pub tasks: Tasks,
    /// How many workers do what.
    pub workers: Workers,
    /// Since when nobody may claim, while that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Wall>,
    /// How fast it goes.
    pub throughput: Throughput,
    /// Tasks that can still be done: ready, claimed, and blocked ones that are not held up.
    pub remaining: usize,
    /// Blocked tasks that wait, directly or not, for what failed, is rejected or does not exist.
    pub held_up: usize,
    /// When the remaining tasks will be done if it goes on like this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<Wall>,
    /// The history; nothing without tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burn_down: Option<BurnDown>,
    /// What does not move, worst first.
    pub stuck: Vec<Stuck>,
    /// How many more there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub stuck_more: usize,
}

/// How many tasks are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tasks {
    /// All of them.
    pub total: usize,
    /// Claimable.
    pub ready: usize,
    /// Waiting for something.
    pub blocked: usize,
    /// Being worked on.
    pub claimed: usize,
    /// Done.
    pub completed: usize,
    /// Given up.
    pub failed: usize,
    /// No tasks, as their files are.
    pub rejected: usize,
}

/// How many workers do what. Each is in one of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Workers {
    /// All who are known.
    pub total: usize,
    /// Who hold a task.
    pub working: usize,
    /// Who hold none.
    pub idle: usize,
    /// Who may claim nothing more, whether or not they hold a task.
    pub draining: usize,
}

/// How fast it goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Throughput {
    /// Tasks completed in the last hour.
    pub completed: usize,
    /// Tasks given up in the last hour.
    pub failed: usize,
    /// Completed in each minute of that hour, oldest first.
    pub by_minute: Vec<u32>,
    /// Completions an hour, measured from the first one of the last hour; nothing as long as there are fewer than two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<f64>,
}

/// How many tasks were published and not finished, over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BurnDown {
    /// When the first of the tasks was published.
    pub from: Wall,
    /// How many were open, at moments evenly spread from then until now.
    pub open: Vec<usize>,
}

/// Why something does not move. Worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nobody may claim.
    Paused,
    /// There is work, and nobody is there.
    Nobody,
    /// A file is no task.
    Rejected,
    /// Tasks need what does not exist.
    Missing,
    /// A task was given up.
    Failed,
    /// A worker is silent, and will lose its claim.
    Lease,
    /// The deadline is over.
    Overdue,
    /// Claims of a task were lost.
    LostClaims,
}

/// Something that does not move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stuck {
    /// What sort of thing.
    pub kind: Kind,
    /// The task that it is about, existing or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Who has to do with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerName>,
    /// Since when.
    pub since: Wall,
    /// Why, in one sentence without a full stop.
    pub why: String,
    /// How many blocked tasks wait for it. A task that waits for several such things is counted once.
    #[serde(skip_serializing_if = "is_zero")]
    pub holds_up: usize,
    /// What can be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Summary {
    /// The queue as it is.
    pub fn of(state: &State, sight: &Sight<'_>) -> Summary {
        let now = sight.now.wall;
        let count = |of| state.count(of);
        let tasks = Tasks {
            total: state.len(),
            ready: count(TaskState::Ready),
            blocked: count(TaskState::Blocked),
            claimed: count(TaskState::Claimed),
            completed: count(TaskState::Completed),
            failed: count(TaskState::Failed),
            rejected: count(TaskState::Rejected),
        };
        let paused = state.paused().map(|since| since.at);
        let causes = causes(state);
        let held_up: usize = causes.values().sum();
        let remaining = tasks.ready + tasks.claimed + tasks.blocked - held_up;
        let throughput = throughput(state, now);
        let eta = throughput.per_hour.filter(|_| paused.is_none() && remaining > 0).map(|pace| {
            let ms = remaining as f64 / pace * (MINUTES as u64 * MINUTE_MS) as f64;
            Wall(now.0.saturating_add(ms as i64))
        });
        let mut stuck = stuck(state, sight, &causes);
        stuck.sort_by(|a, b| {
            let key = |stuck: &Stuck| (stuck.kind, Reverse(stuck.holds_up), stuck.since);
            key(a).cmp(&key(b))
        });
        let stuck_more = stuck.len().saturating_sub(STUCK_SHOWN);
        stuck.truncate(STUCK_SHOWN);
        Summary {
            at: now,
            seq: state.tail(),
            tasks,
            workers: workers(state, sight),
            paused,
            throughput,
            remaining,
            held_up,
            eta,
            burn_down: burn_down(state, now),
            stuck,
            stuck_more,
        }
    }
}

fn workers(state: &State, sight: &Sight<'_>) -> Workers {
    let mut workers = Workers { total: sight.workers.len(), ..Workers::default() };
    for (name, _) in sight.workers {
        let holds = state.worker(name.as_str()).is_some_and(|worker| !worker.claims.is_empty());
        match (state.is_draining(name.as_str()), holds) {
            (true, _) => workers.draining += 1,
            (false, true) => workers.working += 1,
            (false, false) => workers.idle += 1,
        }
    }
    workers
}

/// What no time will mend: tasks that failed or are rejected, and names that do not exist, with how many blocked tasks
/// wait for each.
fn causes(state: &State) -> BTreeMap<&TaskId, usize> {
    let hopeless = |need: &TaskId| {
        let task = state.task(need.as_str());
        task.is_none_or(|task| matches!(task.phase, Phase::Failed(_) | Phase::Rejected(_)))
    };
    let mut causes = BTreeMap::new();
    for id in state.listed(TaskState::Blocked) {
        let task = state.task(id.as_str());
        let needs = task.into_iter().flat_map(|task| &task.unmet);
        causes.extend(needs.filter(|need| hopeless(need)).map(|need| (need, 0)));
    }
    // From all of them at once, so that each waiting task is met once, by what is nearest.
    let mut held: HashSet<&TaskId> = HashSet::new();
    let mut front: VecDeque<(&TaskId, &TaskId)> = causes.keys().map(|cause| (*cause, *cause)).collect();
    while let Some((cause, need)) = front.pop_front() {
        for id in state.waiting_for(need) {
            if held.insert(id) {
                *causes.entry(cause).or_default() += 1;
                front.push_back((cause, id));
            }
        }
    }
    causes
}

fn throughput(state: &State, now: Wall) -> Throughput {
    let hour = MINUTES as u64 * MINUTE_MS;
    let age = |finish: &Finish| now.0.saturating_sub(finish.when.at.0).max(0) as u64;
    let mut throughput = Throughput { completed: 0, failed: 0, by_minute: vec![0; MINUTES], per_hour: None };
    let mut oldest = 0;
    for (_, task) in state.tasks() {
        match &task.phase {
            Phase::Completed(finish) if age(finish) < hour => {
                throughput.completed += 1;
                throughput.by_minute[MINUTES - 1 - (age(finish) / MINUTE_MS) as usize] += 1;
                oldest = oldest.max(age(finish));
            }
            Phase::Failed(finish) if age(finish) < hour => throughput.failed += 1,
            _ => {}
        }
    }
    // The first one only says when the others began.
    if throughput.completed > 1 && oldest > 0 {
        let pace = (throughput.completed - 1) as f64 * hour as f64 / oldest as f64;
        throughput.per_hour = Some((pace * 10.0).round() / 10.0).filter(|pace| *pace > 0.0);
    }
    throughput
}

/// Made from the tasks that there are: one that was withdrawn never was, and one that is tried again was never finished.
fn burn_down(state: &State, now: Wall) -> Option<BurnDown> {
    let from = state.tasks().map(|(_, task)| task.published.at).min()?;
    let span = now.0.saturating_sub(from.0).max(1) as i128;
    // The first step at which something that happened then is known.
    let step = |at: Wall| {
        let since = i128::from(at.0.saturating_sub(from.0).max(0));
        ((since * STEPS as i128 + span - 1) / span).min(STEPS as i128) as usize
    };
    let mut change = vec![0_i64; STEPS + 1];
    for (_, task) in state.tasks() {
        change[step(task.published.at)] += 1;
        if let Some(finish) = task.finish() {
            change[step(finish.when.at)] -= 1;
        }
    }
    let mut open = 0;
    let sum = |change| {
        open += change;
        usize::try_from(open).unwrap_or(0)
    };
    Some(BurnDown { from, open: change.into_iter().map(sum).collect() })
}

fn stuck(state: &State, sight: &Sight<'_>, causes: &BTreeMap<&TaskId, usize>) -> Vec<Stuck> {
    let now = sight.now;
    let tasks = sight.tasks;
    let mut stuck = Vec::new();
    if let Some(since) = state.paused() {
        stuck.push(Stuck {
            kind: Kind::Paused,
            task: None,
            worker: None,
            since: since.at,
            why: "the queue is paused, nobody may claim anything".into(),
            holds_up: 0,
            next: Some(format!("rm {tasks}/paused")),
        });
    }
    stuck.extend(nobody(state, sight));
    for (id, holds_up) in causes.iter().filter(|(id, _)| state.task(id.as_str()).is_none()) {
        stuck.push(missing(state, id, *holds_up, tasks));
    }
    for (id, task) in state.tasks() {
        let mut add = |kind, worker: Option<&WorkerName>, since, why, next: Option<String>| {
            let holds_up = causes.get(id).copied().unwrap_or(0);
            stuck.push(Stuck {
                kind,
                task: Some(id.clone()),
                worker: worker.cloned(),
                since,
                why,
                holds_up,
                next,
            });
        };
        match &task.phase {
            Phase::Rejected(problem) => {
                let next = format!("mend {tasks}/{id}.md");
                add(Kind::Rejected, None, task.changed.at, problem.to_string(), Some(next));
            }
            Phase::Failed(finish) => {
                let next = format!("mv {tasks}/failed/{id} {tasks}/ready/");
                add(Kind::Failed, finish.worker.as_ref(), finish.when.at, reason(finish), Some(next));
            }
            Phase::Claimed(claim) => {
                if let Some((since, why)) = silence(task, claim, sight) {
                    let next = format!("rm {tasks}/claim/{id}");
                    add(Kind::Lease, Some(&claim.worker), since, why, Some(next));
                }
            }
            Phase::Open | Phase::Completed(_) => {}
        }
        if !task.is_unfinished() {
            continue;
        }
        let worker = task.claim().map(|claim| &claim.worker);
        if let Some(deadline) = task.deadline()
            && deadline < now.wall
        {
            let why = format!("it is {}, and was to be done before {deadline}", state.state_of(task));
            add(Kind::Overdue, worker, deadline, why, None);
        }
        if let Some(last) = task.losses.iter().rfind(|loss| loss.reason.counts_as_attempt()) {
            let lost = task.losses.iter().filter(|loss| loss.reason.counts_as_attempt()).count();
            let allowed = task.spec.attempts;
            let why = format!(
                "{lost} of {allowed} attempts are used up; the last was {}'s: {}",
                last.worker, last.reason
            );
            add(Kind::LostClaims, worker, last.at, why, None);
        }
    }
    stuck
}

/// There is work, and nobody to do it.
fn nobody(state: &State, sight: &Sight<'_>) -> Option<Stuck> {
    let ready = state.count(TaskState::Ready);
    let alone = ready > 0
        && state.paused().is_none()
        && state.count(TaskState::Claimed) == 0
        && sight.workers.iter().all(|(_, heard)| sight.now.instant.since(*heard) >= NOBODY);
    // With nobody about, nothing has happened either, unless somebody published.
    let since = state.last_at();
    let waited = sight.now.wall.0.saturating_sub(since.0).max(0) as u64;
    (alone && waited >= NOBODY.0).then(|| Stuck {
        kind: Kind::Nobody,
        task: None,
        worker: None,
        since,
        why: format!("{ready} ready, and no worker was heard of for {}", in_minutes(Span(waited))),
        holds_up: 0,
        next: Some("start a worker".into()),
    })
}

fn missing(state: &State, id: &TaskId, holds_up: usize, tasks: &str) -> Stuck {
    let needing: Vec<&TaskId> = state.waiting_for(id).collect();
    let named = named(&needing.iter().map(|id| id.as_str()).collect::<Vec<_>>());
    let since = needing.iter().filter_map(|id| Some(state.task(id.as_str())?.changed.at)).min();
    Stuck {
        kind: Kind::Missing,
        task: Some(id.clone()),
        worker: None,
        since: since.unwrap_or(state.last_at()),
        why: format!("it does not exist, and is needed by {named}"),
        holds_up,
        next: Some(format!("write {tasks}/{id}.md, or take it out of their needs")),
    }
}

/// Of a claim whose holder is silent for more than half of its lease: since when, and what comes of it.
fn silence(task: &Task, claim: &Claim, sight: &Sight<'_>) -> Option<(Wall, String)> {
    let found = sight.workers.binary_search_by(|(name, _)| name.cmp(&claim.worker)).ok()?;
    let heard = sight.workers[found].1;
    let (now, lease) = (sight.now, lease::of(task, sight.default_lease));
    let silent = now.instant.since(heard);
    (silent.0 > lease.0 / 2).then(|| {
        let left = Span(lease.0.saturating_sub(silent.0));
        let since = Wall(now.wall.0.saturating_sub_unsigned(silent.0));
        let (silent, left) = (in_seconds(silent), in_seconds(left));
        (since, format!("{} was not heard of for {silent}; its claim ends in {left}", claim.worker))
    })
}

fn reason(finish: &Finish) -> String {
    match (&finish.text, &finish.worker) {
        (Some(text), _) if !text.head.is_empty() => text.head.clone(),
        (_, Some(worker)) => format!("{worker} gave no reason"),
        (_, None) => "no reason was given".into(),
    }
}

fn in_seconds(span: Span) -> Span {
    Span(span.0 / 1_000 * 1_000)
}

fn in_minutes(span: Span) -> Span {
    Span(span.0 / MINUTE_MS * MINUTE_MS)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::queue::When;
    use crate::queue::{Content, Event, LossReason, Manifest, Record, Spec};

    const MINUTE: i64 = MINUTE_MS as i64;

    /// A queue that is told what happens, minute by minute.
    #[derive(Default)]
    struct Story {
        records: Vec<Record>,
        workers: Vec<(WorkerName, Instant)>,
    }

    fn id(text: &str) -> TaskId {
        TaskId::parse(text).unwrap()
    }

    fn name(text: &str) -> WorkerName {
        WorkerName::parse(text).unwrap()
    }

    impl Story {
        fn at(&mut self, minute: i64, event: Event) -> &mut Story {
            let seq = self.records.len() as u64 + 1;
            self.records.push(Record { seq, at: Wall(minute * MINUTE), event });
            self
        }

        fn published(&mut self, minute: i64, task: &str, needs: &[&str]) -> &mut Story {
            let needs = needs.iter().map(|need| id(need)).collect();
            let spec =
                Spec { needs, deadline: Some(When::After(Span(90 * MINUTE_MS))), ..Spec::titled(task) };
            let manifest = Manifest::Spec(Arc::new(spec));
            let (stamp, cycle) = (Default::default(), Vec::new());
            self.at(minute, Event::Published { task: id(task), manifest, stamp, cycle })
        }

        fn claimed(&mut self, minute: i64, task: &str, worker: &str) -> &mut Story {
            self.at(minute, Event::Claimed { task: id(task), worker: name(worker) })
        }

        fn completed(&mut self, minute: i64, task: &str) -> &mut Story {
            self.at(minute, Event::Completed { task: id(task), worker: None, text: None })
        }

        fn failed(&mut self, minute: i64, task: &str, why: &str) -> &mut Story {
            let text = Some(Content(why.as_bytes().to_vec()));
            self.at(minute, Event::Failed { task: id(task), worker: None, text })
        }

        /// The summary at a minute, with leases of 30 minutes.
        fn summary(&self, minute: i64) -> Summary {
            let now = Now { wall: Wall(minute * MINUTE), instant: Instant(minute as u64 * MINUTE_MS) };
            let default_lease = Span(30 * MINUTE_MS);
            let sight = Sight { now, default_lease, workers: &self.workers, tasks: "tasks" };
            Summary::of(&State::replay(&self.records), &sight)
        }
    }

    fn kinds(summary: &Summary) -> Vec<(Kind, String, usize)> {
        let kind = |stuck: &Stuck| {
            (stuck.kind, stuck.task.as_ref().map(TaskId::to_string).unwrap_or_default(), stuck.holds_up)
        };
        summary.stuck.iter().map(kind).collect()
    }

    #[test]
    fn an_empty_queue_has_nothing_to_say() {
        let summary = Story::default().summary(5);
        assert_eq!((summary.tasks.total, summary.remaining, summary.held_up), (0, 0, 0));
        assert_eq!((summary.eta, summary.burn_down, summary.stuck), (None, None, Vec::new()));
        assert_eq!(summary.throughput.by_minute, vec![0; 60]);
    }

    #[test]
    fn the_time_that_is_left_follows_from_the_pace() {
        let mut story = Story::default();
        for n in 0..8 {
            story.published(0, &format!("t{n}"), &[]);
        }
        story.completed(10, "t0");
        assert_eq!(story.summary(20).eta, None, "one says nothing of the pace");
        story.completed(15, "t1").completed(20, "t2");
        let summary = story.summary(20);
        // Two in ten minutes.
        assert_eq!(summary.throughput.per_hour, Some(12.0));
        assert_eq!((summary.remaining, summary.throughput.completed), (5, 3));
        assert_eq!(summary.eta, Some(Wall(45 * MINUTE)));
        let minutes = &summary.throughput.by_minute;
        assert_eq!((minutes[49], minutes[54], minutes[59], minutes.iter().sum()), (1, 1, 1, 3_u32));
        // While nothing happens, the pace falls.
        assert_eq!(story.summary(50).throughput.per_hour, Some(3.0));
        assert_eq!(story.summary(81).throughput.completed, 0, "what is an hour ago does not count");
        story.at(30, Event::Paused { paused: true, by: name("operator") });
        let paused = story.summary(30);
        assert_eq!((paused.eta, paused.paused), (None, Some(Wall(30 * MINUTE))));
        assert!(paused.throughput.per_hour.is_some());
        assert_eq!(kinds(&paused)[0].0, Kind::Paused);
    }

    #[test]
    fn what_waits_for_the_hopeless_is_counted_once_and_is_not_in_the_way_of_the_end() {
        let mut story = Story::default();
        story.published(0, "a", &[]).published(0, "b", &["a"]).published(0, "c", &["b"]);
        story.published(0, "d", &["c", "ghost"]).published(0, "e", &["ghost"]).published(0, "f", &[]);
        let before = story.summary(1);
        assert_eq!((before.held_up, before.remaining), (2, 4), "{before:?}");
        assert_eq!(kinds(&before), [(Kind::Missing, "ghost".into(), 2)]);
        assert_eq!(before.stuck[0].why, "it does not exist, and is needed by d, e");
        story.failed(2, "a", "no compiler\nand more");
        let after = story.summary(3);
        assert_eq!((after.held_up, after.remaining, after.tasks.blocked), (4, 1, 4));
        let [ghost, a] = &after.stuck[..] else { panic!("{after:?}") };
        assert_eq!((ghost.holds_up, a.holds_up), (2, 2));
        assert_eq!(a.why, "no compiler");
        assert_eq!(a.next.as_deref(), Some("mv tasks/failed/a tasks/ready/"));
        let what_is_needed_by_a_ring = story.published(4, "x", &["x"]).summary(5);
        assert_eq!(what_is_needed_by_a_ring.held_up, 4, "who waits for itself is no cause");
    }

    #[test]
    fn a_silent_worker_shows_before_its_claim_ends() {
        let workers = vec![(name("w1"), Instant(10 * MINUTE_MS)), (name("w2"), Instant(29 * MINUTE_MS))];
        let mut story = Story { workers, ..Story::default() };
        for worker in ["w1", "w2"] {
            story.at(0, Event::Joined { worker: name(worker), uid: 0 });
            story.published(0, worker, &[]).claimed(1, worker, worker);
        }
        assert_eq!(kinds(&story.summary(25)), []);
        let summary = story.summary(30);
        assert_eq!(kinds(&summary), [(Kind::Lease, "w1".into(), 0)]);
        assert_eq!(summary.stuck[0].why, "w1 was not heard of for 20m; its claim ends in 10m");
        assert_eq!(summary.stuck[0].since, Wall(10 * MINUTE));
        assert_eq!((summary.workers.working, summary.workers.idle), (2, 0));
    }

    #[test]
    fn lost_claims_deadlines_and_work_without_workers_show() {
        let mut story = Story::default();
        story.published(0, "a", &[]);
        for minute in [1, 41] {
            let reason = LossReason::LeaseExpired { silent: Span(30 * MINUTE_MS) };
            story.claimed(minute, "a", "w1");
            story.at(minute + 35, Event::Returned { task: id("a"), worker: name("w1"), reason });
        }
        let summary = story.summary(77);
        assert_eq!(kinds(&summary), [(Kind::LostClaims, "a".into(), 0)]);
        let why = "2 of 3 attempts are used up; the last was w1's: its lease ran out after 30m of silence";
        assert_eq!(summary.stuck[0].why, why);
        let summary = story.summary(100);
        let expected = [
            (Kind::Nobody, String::new(), 0),
            (Kind::Overdue, "a".into(), 0),
            (Kind::LostClaims, "a".into(), 0),
        ];
        assert_eq!(kinds(&summary), expected);
        assert_eq!(summary.stuck[0].why, "1 ready, and no worker was heard of for 24m");
        story.completed(101, "a");
        assert_eq!(kinds(&story.summary(200)), []);
    }

    #[test]
    fn the_history_begins_with_the_first_task_and_ends_with_what_is_open() {
        let mut story = Story::default();
        story.published(0, "a", &[]).published(0, "b", &[]).published(30, "c", &[]);
        story.completed(40, "a").failed(60, "b", "");
        let BurnDown { from, open } = story.summary(60).burn_down.unwrap();
        assert_eq!((from, open.len()), (Wall(0), 61));
        assert_eq!((open[0], open[29], open[30], open[39], open[40], open[60]), (2, 2, 3, 3, 2, 1));
        let at_once = story.summary(0).burn_down.unwrap();
        assert_eq!(at_once.open[60], 1, "however the clock was set");
    }

    #[test]
    fn of_very_many_stuck_tasks_the_worst_are_named() {
        let mut story = Story::default();
        for n in 0..STUCK_SHOWN + 5 {
            story.published(0, &format!("t{n:03}"), &[]).failed(1, &format!("t{n:03}"), "no");
        }
        story.published(2, "waits", &["t100"]);
        let summary = story.summary(3);
        assert_eq!((summary.stuck.len(), summary.stuck_more), (STUCK_SHOWN, 5));
        assert_eq!(kinds(&summary)[0], (Kind::Failed, "t100".into(), 1));
    }
}
