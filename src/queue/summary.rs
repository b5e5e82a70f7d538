//! The summary of the queue: its counts, its pace, when it will be done, and its problems.
//!
//! May assume: the caller passes the time, and when each worker was last active.
//! Must never: make more than a few passes over the tasks. Programs that watch the crew ask for the summary every few seconds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet, VecDeque};

use serde::Serialize;

use super::counts::{Tasks, Workers};
use super::pace::{BurnDown, HOUR_MS, Throughput};
use super::stuck::{self, Stuck};
use super::summary_input::SummaryInput;
use super::{Phase, Seq, State, TaskId, TaskState, Wall};
use crate::limits::STUCK_SHOWN;

/// The whole summary. Its JSON does not contain the problems: the filesystem adds them as sentences.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// When the summary was made.
    pub at: Wall,
    /// The position of the last event that the summary includes.
    pub seq: Seq,
    /// How many tasks are in which state.
    pub tasks: Tasks,
    /// How many workers are in which state.
    pub workers: Workers,
    /// Since when claiming is paused, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Wall>,
    /// How fast tasks are completed.
    pub throughput: Throughput,
    /// Tasks that can still be done: ready, claimed, and blocked tasks that are not held up.
    pub remaining: usize,
    /// Blocked tasks that wait, directly or indirectly, for a task that failed, is rejected or does not exist.
    pub held_up: usize,
    /// When the remaining tasks will be done at the current pace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<Wall>,
    /// The burn-down; `None` if there are no tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burn_down: Option<BurnDown>,
    /// The problems, worst first.
    #[serde(skip)]
    pub stuck: Vec<Stuck>,
    /// How many more problems there are.
    #[serde(skip)]
    pub stuck_more: usize,
}

impl Summary {
    /// Makes the summary of a state.
    pub fn of(state: &State, input: &SummaryInput<'_>) -> Summary {
        let now = input.now.wall;
        let tasks = Tasks::of(state);
        let paused = state.paused().map(|since| since.at);
        let causes = causes(state);
        let held_up: usize = causes.values().sum();
        let remaining = tasks.ready + tasks.claimed + tasks.blocked - held_up;
        let throughput = Throughput::of(state, now);
        let eta = throughput.per_hour.filter(|_| paused.is_none() && remaining > 0).map(|pace| {
            let ms = remaining as f64 / pace * HOUR_MS as f64;
            Wall(now.0.saturating_add(ms as i64))
        });
        let mut stuck = stuck::all(state, input, &causes);
        stuck.sort_by(|a, b| {
            let key = |stuck: &Stuck| (stuck.reason.kind(), Reverse(stuck.holds_up), stuck.since);
            key(a).cmp(&key(b))
        });
        let stuck_more = stuck.len().saturating_sub(STUCK_SHOWN);
        stuck.truncate(STUCK_SHOWN);
        Summary {
            at: now,
            seq: state.tail(),
            tasks,
            workers: Workers::of(state, input),
            paused,
            throughput,
            remaining,
            held_up,
            eta,
            burn_down: BurnDown::of(state, now),
            stuck,
            stuck_more,
        }
    }
}

/// Tasks that failed or are rejected, and needs that do not exist, each with how many blocked tasks wait for it in vain.
fn causes(state: &State) -> BTreeMap<&TaskId, usize> {
    let unsatisfiable = |need: &TaskId| {
        let task = state.task(need.as_str());
        task.is_none_or(|task| matches!(task.phase, Phase::Failed(_) | Phase::Rejected(_)))
    };
    let mut causes = BTreeMap::new();
    for id in state.listed(TaskState::Blocked) {
        let task = state.task(id.as_str());
        let needs = task.into_iter().flat_map(|task| &task.unmet);
        causes.extend(needs.filter(|need| unsatisfiable(need)).map(|need| (need, 0)));
    }
    // Breadth-first search from all causes at once. It visits each waiting task once, from its nearest cause.
    let mut visited: HashSet<&TaskId> = HashSet::new();
    let mut queue: VecDeque<(&TaskId, &TaskId)> = causes.keys().map(|cause| (*cause, *cause)).collect();
    while let Some((cause, need)) = queue.pop_front() {
        for id in state.waiting_for(need) {
            if visited.insert(id) {
                *causes.entry(cause).or_default() += 1;
                queue.push_back((cause, id));
            }
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::queue::stuck::{FailureText, StuckKind, StuckReason};
    use crate::queue::summary_input::MINUTE_MS;
    use crate::queue::{Content, Event, Eyes, Instant, Manifest, Misname, Now, Record, Spec};
    use crate::queue::{LossReason, Span, When, WorkerName};

    const MINUTE: i64 = MINUTE_MS as i64;

    /// A queue with its events minute by minute.
    #[derive(Default)]
    struct Story {
        records: Vec<Record>,
        workers: Vec<(WorkerName, Instant)>,
        misnamed: Vec<Misname>,
        disk_full: bool,
        broken_log: Option<String>,
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
            self.at(minute, Event::Completed { task: id(task), worker: None, by: None, text: None })
        }

        fn failed(&mut self, minute: i64, task: &str, why: &str) -> &mut Story {
            let text = Some(Content::new(why));
            self.at(minute, Event::Failed { task: id(task), worker: None, by: None, text })
        }

        /// The summary at a minute, with leases of 30 minutes.
        fn summary(&self, minute: i64) -> Summary {
            let now = Now { wall: Wall(minute * MINUTE), instant: Instant(minute as u64 * MINUTE_MS) };
            let default_lease = Span(30 * MINUTE_MS);
            let input = SummaryInput {
                now,
                default_lease,
                workers: &self.workers,
                eyes: &Eyes::All,
                misnamed: &self.misnamed,
                disk_full: self.disk_full,
                broken_log: self.broken_log.clone(),
            };
            Summary::of(&State::replay(&self.records), &input)
        }
    }

    fn kinds(summary: &Summary) -> Vec<(StuckKind, String, usize)> {
        let kind = |stuck: &Stuck| {
            (
                stuck.reason.kind(),
                stuck.task.as_ref().map(TaskId::to_string).unwrap_or_default(),
                stuck.holds_up,
            )
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
        // The pace falls while no task is completed.
        assert_eq!(story.summary(50).throughput.per_hour, Some(3.0));
        assert_eq!(story.summary(81).throughput.completed, 0, "what is an hour ago does not count");
        story.at(30, Event::Paused { paused: true, by: name("operator") });
        let paused = story.summary(30);
        assert_eq!((paused.eta, paused.paused), (None, Some(Wall(30 * MINUTE))));
        assert!(paused.throughput.per_hour.is_some());
        assert_eq!(kinds(&paused)[0].0, StuckKind::Paused);
    }

    #[test]
    fn tasks_that_wait_in_vain_are_counted_once_and_do_not_remain() {
        let mut story = Story::default();
        story.published(0, "a", &[]).published(0, "b", &["a"]).published(0, "c", &["b"]);
        story.published(0, "d", &["c", "ghost"]).published(0, "e", &["ghost"]).published(0, "f", &[]);
        let before = story.summary(1);
        assert_eq!((before.held_up, before.remaining), (2, 4), "{before:?}");
        assert_eq!(kinds(&before), [(StuckKind::Missing, "ghost".into(), 2)]);
        assert_eq!(
            before.stuck[0].reason,
            StuckReason::Missing { needed_by: vec![id("d"), id("e")], more: 0 }
        );
        story.failed(2, "a", "no compiler\nand more");
        let after = story.summary(3);
        assert_eq!((after.held_up, after.remaining, after.tasks.blocked), (4, 1, 4));
        let [ghost, a] = &after.stuck[..] else { panic!("{after:?}") };
        assert_eq!((ghost.holds_up, a.holds_up), (2, 2));
        assert_eq!(a.reason, StuckReason::Failed(FailureText::Given("no compiler".into())));
        let what_is_needed_by_a_ring = story.published(4, "x", &["x"]).summary(5);
        assert_eq!(what_is_needed_by_a_ring.held_up, 4, "a task that waits for itself is no cause");
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
        assert_eq!(kinds(&summary), [(StuckKind::Lease, "w1".into(), 0)]);
        let (silent, left) = (Span(20 * MINUTE_MS), Span(10 * MINUTE_MS));
        assert_eq!(summary.stuck[0].reason, StuckReason::Lease { worker: name("w1"), silent, left });
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
        assert_eq!(kinds(&summary), [(StuckKind::LostClaims, "a".into(), 0)]);
        let StuckReason::LostClaims { lost: 2, allowed: 3, last } = &summary.stuck[0].reason else {
            panic!("{summary:?}")
        };
        assert_eq!(last.reason, LossReason::LeaseExpired { silent: Span(30 * MINUTE_MS) });
        let summary = story.summary(100);
        let expected = [
            (StuckKind::Nobody, String::new(), 0),
            (StuckKind::Overdue, "a".into(), 0),
            (StuckKind::LostClaims, "a".into(), 0),
        ];
        assert_eq!(kinds(&summary), expected);
        let silent = Span(24 * MINUTE_MS);
        assert_eq!(summary.stuck[0].reason, StuckReason::Nobody { ready: 1, silent });
        story.completed(101, "a");
        assert_eq!(kinds(&story.summary(200)), []);
    }

    #[test]
    fn a_task_that_workers_give_back_shows_until_it_is_claimed() {
        let mut story = Story::default();
        story.published(0, "a", &[]);
        for minute in 1..4 {
            assert_eq!(kinds(&story.summary(minute)), []);
            story.claimed(minute, "a", "w1");
            let reason = LossReason::GivenBack;
            story.at(minute, Event::Returned { task: id("a"), worker: name("w1"), reason });
        }
        let summary = story.summary(4);
        assert_eq!(kinds(&summary), [(StuckKind::GivenBack, "a".into(), 0)]);
        assert_eq!(summary.stuck[0].reason, StuckReason::GivenBack { times: 3, last: name("w1") });
        assert_eq!(summary.stuck[0].since, Wall(3 * MINUTE));
        assert_eq!(kinds(&story.claimed(4, "a", "w2").summary(4)), []);
    }

    #[test]
    fn what_is_wrong_beside_the_tasks_shows_worst_first() {
        let misname = |name: &str, since| Misname {
            name: name.into(),
            why: "why".into(),
            better: "a-b.md".into(),
            since: Wall(since),
        };
        let mut story = Story {
            misnamed: vec![misname("a b.md", 1), misname("a.MD", 2)],
            disk_full: true,
            broken_log: Some("no".into()),
            ..Story::default()
        };
        let stuck = story
            .published(0, "a", &[])
            .at(1, Event::Paused { paused: true, by: name("o") })
            .summary(1)
            .stuck;
        let kinds: Vec<StuckKind> = stuck.iter().map(|one| one.reason.kind()).collect();
        assert_eq!(
            kinds,
            [StuckKind::Log, StuckKind::Disk, StuckKind::Paused, StuckKind::Misnamed, StuckKind::Misnamed]
        );
        assert_eq!(stuck[0].reason, StuckReason::Log("no".into()));
        assert_eq!(stuck[3].reason, StuckReason::Misnamed(misname("a b.md", 1)));
        assert_eq!(serde_json::to_value(stuck[3].reason.kind()).unwrap(), "misnamed");
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
        assert_eq!(kinds(&summary)[0], (StuckKind::Failed, "t100".into(), 1));
    }
}
