//! Problems that stop work, as facts: the part of the summary that asks an operator or a coordinator to act.
//!
//! May assume: the caller passes the time and the problems outside of the queue, as for the summary.
//! Must never: report a problem without its reason, or make a sentence.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::summary_input::{MINUTE_MS, Misname, SummaryInput};
use super::task::Finish;
use super::{
    Claim, Loss, LossReason, Phase, Problem, Span, State, Task, TaskId, TaskState, Wall, WorkerName, lease,
};
use crate::limits::NAMED_IN_A_SENTENCE;

/// How long every worker must have no activity before ready tasks count as no_worker_active.
const ABANDONED_AFTER: Span = Span(5 * MINUTE_MS);
/// How often workers must give a task back before that counts as a problem of the task.
const GIVEN_BACK_TIMES: usize = 3;

/// The kinds of problems, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum StuckKind {
    Log,
    Disk,
    Paused,
    Nobody,
    Rejected,
    Misnamed,
    Missing,
    Failed,
    Lease,
    Overdue,
    LostClaims,
    GivenBack,
}

/// The reason of a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StuckReason {
    /// The log does not work, with this error, so the queue cannot change.
    Log(String),
    /// The disk is full, so no new work is accepted.
    Disk,
    /// Claiming is paused.
    Paused,
    /// Tasks are ready, and no worker has any activity.
    Nobody {
        /// How many tasks are ready.
        ready: usize,
        /// How long no worker had any activity.
        silent: Span,
    },
    /// A file is not a valid task; `None` if the user may not see why.
    Rejected(Option<Arc<Problem>>),
    /// A file is not a task because of its name.
    Misnamed(Misname),
    /// Tasks need a task that does not exist.
    Missing {
        /// Some of them; not more than a sentence names.
        needed_by: Vec<TaskId>,
        /// How many more there are.
        more: usize,
    },
    /// A task was given up.
    Failed(FailureText),
    /// A worker has no activity and will lose its claim.
    Lease {
        /// The worker.
        worker: WorkerName,
        /// How long the worker had no activity.
        silent: Span,
        /// How long until the claim ends.
        left: Span,
    },
    /// The deadline has passed.
    Overdue {
        /// The state of the task.
        state: TaskState,
        /// The deadline.
        deadline: Wall,
    },
    /// Claims of a task were lost.
    LostClaims {
        /// How many.
        lost: usize,
        /// How many may be lost before the task fails.
        allowed: u32,
        /// The last one.
        last: Loss,
    },
    /// Every worker that claims the task gives it back.
    GivenBack {
        /// How often.
        times: usize,
        /// The last worker that gave it back.
        last: WorkerName,
    },
}

/// What a worker wrote when it gave up a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FailureText {
    /// The first line of the reason.
    Given(String),
    /// This worker gave no reason.
    NoneBy(WorkerName),
    /// There is no reason, and no worker gave the task up.
    None,
    /// The user may not see the reason.
    Withheld,
}

impl StuckReason {
    /// Its kind.
    pub fn kind(&self) -> StuckKind {
        match self {
            StuckReason::Log(_) => StuckKind::Log,
            StuckReason::Disk => StuckKind::Disk,
            StuckReason::Paused => StuckKind::Paused,
            StuckReason::Nobody { .. } => StuckKind::Nobody,
            StuckReason::Rejected(_) => StuckKind::Rejected,
            StuckReason::Misnamed(_) => StuckKind::Misnamed,
            StuckReason::Missing { .. } => StuckKind::Missing,
            StuckReason::Failed(_) => StuckKind::Failed,
            StuckReason::Lease { .. } => StuckKind::Lease,
            StuckReason::Overdue { .. } => StuckKind::Overdue,
            StuckReason::LostClaims { .. } => StuckKind::LostClaims,
            StuckReason::GivenBack { .. } => StuckKind::GivenBack,
        }
    }
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The reason.
    pub reason: StuckReason,
    /// The task that the problem is about. The task may not exist.
    pub task: Option<TaskId>,
    /// The worker that the problem is about.
    pub worker: Option<WorkerName>,
    /// When the problem began.
    pub since: Wall,
    /// How many blocked tasks wait for the task. A task that waits for several such tasks is counted once.
    pub holds_up: usize,
}

impl Stuck {
    /// A problem that is about no task and no worker.
    fn general(reason: StuckReason, since: Wall) -> Stuck {
        Stuck { reason, task: None, worker: None, since, holds_up: 0 }
    }
}

/// All problems, in no order. `causes` are the tasks for which blocked tasks wait in vain, each with how many tasks wait.
pub(super) fn all(state: &State, input: &SummaryInput<'_>, causes: &BTreeMap<&TaskId, usize>) -> Vec<Stuck> {
    let now = input.now;
    let mut stuck = Vec::new();
    stuck.extend(state.paused().map(|since| Stuck::general(StuckReason::Paused, since.at)));
    stuck.extend(no_worker_active(state, input));
    stuck.extend(outside_problems(state, input));
    for (id, holds_up) in causes.iter().filter(|(id, _)| state.task(id.as_str()).is_none()) {
        stuck.push(missing(state, id, *holds_up));
    }
    let shown = |id: &TaskId, task: &Task| state.shows(id, task, input.eyes);
    for (id, task) in state.tasks() {
        let mut add = |reason, worker: Option<&WorkerName>, since| {
            let holds_up = causes.get(id).copied().unwrap_or(0);
            stuck.push(Stuck { reason, task: Some(id.clone()), worker: worker.cloned(), since, holds_up });
        };
        match &task.phase {
            Phase::Rejected(problem) => {
                let problem = shown(id, task).then(|| problem.clone());
                add(StuckReason::Rejected(problem), None, task.changed.at);
            }
            Phase::Failed(finish) => {
                let text = if shown(id, task) { failure_text(finish) } else { FailureText::Withheld };
                add(StuckReason::Failed(text), finish.worker.as_ref(), finish.when.at);
            }
            Phase::Claimed(claim) => {
                if let Some((since, reason)) = expiring_claim(state, task, claim, input) {
                    add(reason, Some(&claim.worker), since);
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
            add(StuckReason::Overdue { state: state.state_of(task), deadline }, worker, deadline);
        }
        if let Some(last) = task.losses.iter().rfind(|loss| loss.reason.counts_as_attempt()) {
            let lost = task.losses.iter().filter(|loss| loss.reason.counts_as_attempt()).count();
            let reason = StuckReason::LostClaims { lost, allowed: task.spec.attempts, last: last.clone() };
            add(reason, worker, last.at);
        }
        let given_back = || task.losses.iter().filter(|loss| loss.reason == LossReason::GivenBack);
        if let Some(last) = given_back().next_back().filter(|_| task.is_open()) {
            let times = given_back().count();
            if times >= GIVEN_BACK_TIMES {
                add(StuckReason::GivenBack { times, last: last.worker.clone() }, None, last.at);
            }
        }
    }
    stuck
}

/// The problem that tasks are ready and no worker is active.
fn no_worker_active(state: &State, input: &SummaryInput<'_>) -> Option<Stuck> {
    let ready = state.count(TaskState::Ready);
    let inactive = ready > 0
        && state.paused().is_none()
        && state.count(TaskState::Claimed) == 0
        && input
            .workers
            .iter()
            .all(|(_, last_active)| input.now.instant.since(*last_active) >= ABANDONED_AFTER);
    // While no worker is active, the queue changes only if a user publishes a task.
    let since = state.last_at();
    let silent = Span(input.now.wall.0.saturating_sub(since.0).max(0) as u64);
    (inactive && silent >= ABANDONED_AFTER)
        .then(|| Stuck::general(StuckReason::Nobody { ready, silent }, since))
}

/// Problems of file names, the log and the disk.
fn outside_problems(state: &State, input: &SummaryInput<'_>) -> Vec<Stuck> {
    let misnamed = input
        .misnamed
        .iter()
        .map(|misname| Stuck::general(StuckReason::Misnamed(misname.clone()), misname.since));
    let mut all: Vec<Stuck> = misnamed.collect();
    // The times of these two problems are not kept. The log still worked at the last event.
    let since = state.last_at();
    all.extend(input.broken_log.iter().map(|error| Stuck::general(StuckReason::Log(error.clone()), since)));
    if input.disk_full {
        all.push(Stuck::general(StuckReason::Disk, since));
    }
    all
}

fn missing(state: &State, id: &TaskId, holds_up: usize) -> Stuck {
    let dependents: Vec<&TaskId> = state.waiting_for(id).collect();
    let since = dependents.iter().filter_map(|id| Some(state.task(id.as_str())?.changed.at)).min();
    let needed_by = dependents.iter().take(NAMED_IN_A_SENTENCE).map(|id| (*id).clone()).collect();
    let more = dependents.len().saturating_sub(NAMED_IN_A_SENTENCE);
    Stuck {
        reason: StuckReason::Missing { needed_by, more },
        task: Some(id.clone()),
        worker: None,
        since: since.unwrap_or(state.last_at()),
        holds_up,
    }
}

/// The problem of a holder without activity for more than half of its lease, and since when.
fn expiring_claim(
    state: &State,
    task: &Task,
    claim: &Claim,
    input: &SummaryInput<'_>,
) -> Option<(Wall, StuckReason)> {
    let found = input.workers.binary_search_by(|(name, _)| name.cmp(&claim.worker)).ok()?;
    let last_active = input.workers[found].1;
    let (now, lease) = (input.now, lease::of(state, task, input.default_lease));
    let silent = now.instant.since(last_active);
    (silent.0 > lease.0 / 2).then(|| {
        let left = Span(lease.0.saturating_sub(silent.0));
        let since = Wall(now.wall.0.saturating_sub_unsigned(silent.0));
        (since, StuckReason::Lease { worker: claim.worker.clone(), silent, left })
    })
}

fn failure_text(finish: &Finish) -> FailureText {
    match (&finish.text, &finish.worker) {
        (Some(text), _) if !text.head.is_empty() => FailureText::Given(text.head.clone()),
        (_, Some(worker)) => FailureText::NoneBy(worker.clone()),
        (_, None) => FailureText::None,
    }
}
