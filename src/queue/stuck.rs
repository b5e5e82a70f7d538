//! What does not move, and why: the part of the summary that asks for a step of an operator or a coordinator.
//!
//! May assume: as the summary does, it is told the time, and what is wrong beside the queue.
//! Must never: name a thing without saying why it is stuck.

use std::collections::BTreeMap;

use serde::Serialize;

use super::summary::{MINUTE_MS, Misname, SummaryInput, is_zero};
use super::task::Finish;
use super::why::{WITHHELD, named};
use super::{Claim, LossReason, Phase, Span, State, Task, TaskId, TaskState, Wall, WorkerName, lease};

/// How long no worker was heard of before ready tasks count as left alone.
const NOBODY: Span = Span(5 * MINUTE_MS);
/// How often a task must have been given back before that says something about the task.
const GIVEN_BACK: usize = 3;

/// Why something does not move. Worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StuckKind {
    /// Nothing can be changed, as the log does not work.
    Log,
    /// No new work is accepted, as the disk is full.
    Disk,
    /// Nobody may claim.
    Paused,
    /// There is work, and nobody is there.
    Nobody,
    /// A file is no task.
    Rejected,
    /// A file is no task because of its name.
    Misnamed,
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
    /// A task is given back by everybody who claims it.
    GivenBack,
}

/// Something that does not move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stuck {
    /// What sort of thing.
    pub kind: StuckKind,
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

/// All that does not move, in no order. `causes` are what blocked tasks wait for in vain, with how many they are.
pub(super) fn all(state: &State, sight: &SummaryInput<'_>, causes: &BTreeMap<&TaskId, usize>) -> Vec<Stuck> {
    let now = sight.now;
    let tasks = sight.tasks;
    let mut stuck = Vec::new();
    if let Some(since) = state.paused() {
        stuck.push(Stuck {
            kind: StuckKind::Paused,
            task: None,
            worker: None,
            since: since.at,
            why: "the queue is paused, nobody may claim anything".into(),
            holds_up: 0,
            next: Some(format!("rm {tasks}/paused")),
        });
    }
    stuck.extend(nobody(state, sight));
    stuck.extend(out_of_order(state, sight));
    for (id, holds_up) in causes.iter().filter(|(id, _)| state.task(id.as_str()).is_none()) {
        stuck.push(missing(state, id, *holds_up, tasks));
    }
    let shown = |id: &TaskId, task: &Task| state.shows(id, task, sight.eyes);
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
                let why = if shown(id, task) { problem.to_string() } else { WITHHELD.into() };
                add(StuckKind::Rejected, None, task.changed.at, why, Some(next));
            }
            Phase::Failed(finish) => {
                let next = format!("mv {tasks}/failed/{id} {tasks}/ready/");
                let why = if shown(id, task) { reason(finish) } else { WITHHELD.into() };
                add(StuckKind::Failed, finish.worker.as_ref(), finish.when.at, why, Some(next));
            }
            Phase::Claimed(claim) => {
                if let Some((since, why)) = silence(state, task, claim, sight) {
                    let next = format!("rm {tasks}/claim/{id}");
                    add(StuckKind::Lease, Some(&claim.worker), since, why, Some(next));
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
            add(StuckKind::Overdue, worker, deadline, why, None);
        }
        if let Some(last) = task.losses.iter().rfind(|loss| loss.reason.counts_as_attempt()) {
            let lost = task.losses.iter().filter(|loss| loss.reason.counts_as_attempt()).count();
            let allowed = task.spec.attempts;
            let why = format!(
                "{lost} of {allowed} attempts are used up; the last was {}'s: {}",
                last.worker, last.reason
            );
            add(StuckKind::LostClaims, worker, last.at, why, None);
        }
        let given_back = || task.losses.iter().filter(|loss| loss.reason == LossReason::GivenBack);
        if let Some(last) = given_back().next_back().filter(|_| task.is_open()) {
            let times = given_back().count();
            if times >= GIVEN_BACK {
                let why = format!("it was given back {times} times, the last time by {}", last.worker);
                let next = format!("read what the workers said, and mend {tasks}/{id}.md");
                add(StuckKind::GivenBack, None, last.at, why, Some(next));
            }
        }
    }
    stuck
}

/// There is work, and nobody to do it.
fn nobody(state: &State, sight: &SummaryInput<'_>) -> Option<Stuck> {
    let ready = state.count(TaskState::Ready);
    let alone = ready > 0
        && state.paused().is_none()
        && state.count(TaskState::Claimed) == 0
        && sight.workers.iter().all(|(_, heard)| sight.now.instant.since(*heard) >= NOBODY);
    // With nobody about, nothing has happened either, unless somebody published.
    let since = state.last_at();
    let waited = sight.now.wall.0.saturating_sub(since.0).max(0) as u64;
    (alone && waited >= NOBODY.0).then(|| Stuck {
        kind: StuckKind::Nobody,
        task: None,
        worker: None,
        since,
        why: format!("{ready} ready, and no worker was heard of for {}", in_minutes(Span(waited))),
        holds_up: 0,
        next: Some("start a worker".into()),
    })
}

/// What is wrong beside the tasks.
fn out_of_order(state: &State, sight: &SummaryInput<'_>) -> Vec<Stuck> {
    let stuck = |kind, since, why, next| Stuck {
        kind,
        task: None,
        worker: None,
        since,
        why,
        holds_up: 0,
        next: Some(next),
    };
    let tasks = sight.tasks;
    let misnamed = sight.misnamed.iter().map(|Misname { name, why, better, since }| {
        let next = format!("rename it to {tasks}/{better}");
        stuck(StuckKind::Misnamed, *since, format!("{name:?} is no task: {why}"), next)
    });
    let mut all: Vec<Stuck> = misnamed.collect();
    // The time of these is not kept. The last event is the last of which it is known that it worked.
    let since = state.last_at();
    if let Some(why) = &sight.broken_log {
        let why = format!("the event log does not work, so nothing can be changed: {why}");
        all.push(stuck(StuckKind::Log, since, why, "read the log of crewfs, and run crewfs doctor".into()));
    }
    if sight.disk_full {
        let why = "the disk is full: claims can be finished, new work is not accepted".into();
        all.push(stuck(StuckKind::Disk, since, why, "free some space on the disk of the project".into()));
    }
    all
}

fn missing(state: &State, id: &TaskId, holds_up: usize, tasks: &str) -> Stuck {
    let needing: Vec<&TaskId> = state.waiting_for(id).collect();
    let named = named(&needing.iter().map(|id| id.as_str()).collect::<Vec<_>>());
    let since = needing.iter().filter_map(|id| Some(state.task(id.as_str())?.changed.at)).min();
    Stuck {
        kind: StuckKind::Missing,
        task: Some(id.clone()),
        worker: None,
        since: since.unwrap_or(state.last_at()),
        why: format!("it does not exist, and is needed by {named}"),
        holds_up,
        next: Some(format!("write {tasks}/{id}.md, or take it out of their needs")),
    }
}

/// Of a claim whose holder is silent for more than half of its lease: since when, and what comes of it.
fn silence(state: &State, task: &Task, claim: &Claim, sight: &SummaryInput<'_>) -> Option<(Wall, String)> {
    let found = sight.workers.binary_search_by(|(name, _)| name.cmp(&claim.worker)).ok()?;
    let heard = sight.workers[found].1;
    let (now, lease) = (sight.now, lease::of(state, task, sight.default_lease));
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
