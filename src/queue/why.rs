//! Works out why a task waits and how a claim ended.
//!
//! May assume: the state does not change during the call.
//! Must never: make a sentence, or collect more names than a sentence spells out.

use std::sync::Arc;

use super::reasons::{ClaimFate, Obstacle, Standing, UnmetNeed, Why};
use super::task::{FileState, Finish, Phase, Problem, Task};
use super::{Eyes, Refusal, State, TaskId, TaskState, Wall, WorkerName};
use crate::limits::NAMED_IN_A_SENTENCE;

impl State {
    /// Why a task waits; `None` if it does not. The answer for a ready task depends on the caller. Without a caller, only reasons that hold
    /// for all workers count. Facts about other tasks are included only if the user `eyes` may see them.
    pub fn why(&self, task: &Task, caller: Option<&str>, eyes: &Eyes) -> Option<Why> {
        match &task.phase {
            Phase::Open if self.state_of(task) == TaskState::Blocked => {
                Some(Why::Blocked(self.why_blocked(task, eyes)))
            }
            Phase::Open => self.why_unclaimed(task, caller),
            Phase::Claimed(claim) => Some(Why::Claimed {
                worker: claim.worker.clone(),
                since: claim.since.at,
                withdrawn: State::withdrawn_since(task),
            }),
            Phase::Rejected(problem) => Some(Why::Rejected(problem.clone())),
            Phase::Failed(finish) => match (&finish.worker, &finish.text) {
                (_, Some(text)) => Some(text.head.clone()).filter(|head| !head.is_empty()).map(Why::Failed),
                (Some(worker), None) => Some(Why::FailedSilently(worker.clone())),
                (None, None) => None,
            },
            Phase::Completed(_) => None,
        }
    }

    /// Why a ready task is not claimed.
    fn why_unclaimed(&self, task: &Task, caller: Option<&str>) -> Option<Why> {
        if let Some(since) = self.paused() {
            return Some(Why::Paused(since.at));
        }
        let required = &task.spec.requires;
        let Some(caller) = caller else {
            let no_worker = !required.is_empty() && self.workers_with(required).next().is_none();
            return no_worker.then(|| Why::NoWorkerHas(required.clone()));
        };
        let worker = || caller.to_string();
        if self.is_draining(caller) {
            return Some(Why::Draining(worker()));
        }
        let missing = self.missing(task, caller);
        if !missing.is_empty() {
            return Some(Why::Incapable {
                worker: worker(),
                missing,
                others: self.some_workers_with(required),
            });
        }
        let (held, limit) = self.held_and_limit(caller)?;
        Some(Why::HoldsEnough { worker: worker(), held, limit })
    }

    /// When the instructions of a task were withdrawn, if its file is gone.
    pub fn withdrawn_since(task: &Task) -> Option<Wall> {
        match task.file {
            FileState::Missing(since) => Some(since.at),
            FileState::Present | FileState::Open(_) => None,
        }
    }

    /// Why an open task is not ready; empty if it is ready.
    pub fn why_blocked(&self, task: &Task, eyes: &Eyes) -> Vec<Obstacle> {
        let mut why = Vec::new();
        match task.file {
            FileState::Present => {}
            FileState::Open(_) => why.push(Obstacle::FileOpen),
            FileState::Missing(_) => why.push(Obstacle::FileMissing),
        }
        if !task.unmet.is_empty() {
            let unmet = task.unmet.iter().take(NAMED_IN_A_SENTENCE).map(|need| self.unmet(need, eyes));
            let more = task.unmet.len().saturating_sub(NAMED_IN_A_SENTENCE);
            why.push(Obstacle::Needs { unmet: unmet.collect(), more });
        }
        if let Some(wall) = task.not_before().filter(|wall| *wall > self.last_at()) {
            why.push(Obstacle::NotBefore(wall));
        }
        if let Some(other) = self.barred_by(task) {
            let claim = self.task(other.as_str()).and_then(|other| other.claim());
            let claim = claim.map(|claim| (claim.worker.clone(), claim.since.at));
            why.push(Obstacle::SharedFiles { other: other.clone(), claim });
        }
        why
    }

    fn unmet(&self, need: &TaskId, eyes: &Eyes) -> UnmetNeed {
        let Some(other) = self.task(need.as_str()) else { return UnmetNeed::Absent(need.clone()) };
        let why = || self.why(other, None, eyes).filter(|_| self.shows(need, other, eyes)).map(Box::new);
        match self.state_of(other) {
            TaskState::Failed => UnmetNeed::Failed(need.clone(), why()),
            TaskState::Rejected => UnmetNeed::Rejected(need.clone(), why()),
            state => UnmetNeed::Unfinished(need.clone(), state),
        }
    }

    /// The problem of a task's file, if every user may see it.
    pub(super) fn shown_problem(&self, task: &TaskId, problem: &Arc<Problem>) -> Option<Arc<Problem>> {
        self.shows_history(task, &Eyes::ANYBODY).then(|| problem.clone())
    }

    /// The current situation of a task.
    pub fn standing(&self, task: &Task) -> Standing {
        match &task.phase {
            Phase::Claimed(claim) => Standing::Held(claim.worker.clone(), claim.since.at),
            Phase::Completed(Finish { worker: Some(worker), .. })
            | Phase::Failed(Finish { worker: Some(worker), .. })
            | Phase::Completed(Finish { by: Some(worker), .. })
            | Phase::Failed(Finish { by: Some(worker), .. }) => {
                Standing::Finished(worker.clone(), self.state_of(task))
            }
            _ => Standing::Is(self.state_of(task)),
        }
    }

    /// How a worker's claim of a task ended, and the current situation of the task.
    pub(super) fn fate(&self, task: &Task, worker: &WorkerName) -> ClaimFate {
        let loss = task.losses.iter().rev().find(|loss| loss.worker == *worker);
        ClaimFate { ended: loss.map(|loss| (loss.at, loss.reason.clone())), now: self.standing(task) }
    }

    /// The capabilities that a task requires and a worker lacks.
    pub fn missing(&self, task: &Task, worker: &str) -> Vec<String> {
        let has = self.capabilities(worker);
        task.spec.requires.iter().filter(|word| !has.contains(word)).cloned().collect()
    }

    fn workers_with<'a>(&'a self, required: &'a [String]) -> impl Iterator<Item = &'a WorkerName> {
        self.capable()
            .filter(|(_, words)| required.iter().all(|word| words.contains(word)))
            .map(|(name, _)| name)
    }

    /// Workers that have all these capabilities; not more than a sentence names.
    fn some_workers_with(&self, required: &[String]) -> Vec<WorkerName> {
        self.workers_with(required).take(NAMED_IN_A_SENTENCE).cloned().collect()
    }

    /// How many tasks a worker holds and how many it may hold, if it holds as many as it may.
    pub(super) fn held_and_limit(&self, worker: &str) -> Option<(usize, usize)> {
        let held = self.worker(worker).map_or(0, |worker| worker.claims.len());
        self.rules().claims_per_worker.filter(|limit| held >= *limit).map(|limit| (held, limit))
    }

    /// The refusal if a worker lacks a capability that a task requires.
    pub(super) fn incapable(&self, id: &TaskId, task: &Task, worker: &WorkerName) -> Option<Refusal> {
        let missing = self.missing(task, worker.as_str());
        if missing.is_empty() {
            return None;
        }
        let others = self.some_workers_with(&task.spec.requires);
        Some(Refusal::Incapable { task: id.clone(), worker: worker.clone(), missing, others })
    }

    /// The refusal when no task is ready for a worker.
    pub(super) fn nothing_for(&self, worker: &WorkerName, eyes: &Eyes) -> Refusal {
        if self.count(TaskState::Ready) == 0 {
            let (blocked, claimed) = (self.count(TaskState::Blocked), self.count(TaskState::Claimed));
            return Refusal::NothingReady { blocked, claimed };
        }
        let has = self.capabilities(worker.as_str());
        let readable = self.demands().filter(|(_, readers)| eyes.may_read(readers.as_deref()));
        let words = readable.flat_map(|(words, _)| words.iter());
        let mut missing: Vec<String> = words.filter(|word| !has.contains(word)).cloned().collect();
        missing.sort();
        missing.dedup();
        if missing.is_empty() {
            return Refusal::AllPrivate { worker: worker.clone(), count: self.count(TaskState::Ready) };
        }
        Refusal::NothingForWorker { worker: worker.clone(), missing }
    }
}
