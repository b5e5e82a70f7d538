//! Why a task does not move: one sentence for whoever asks, without a full stop.
//!
//! May assume: nothing; a sentence is made from the state as it is.
//! Must never: show what moves by itself, or spell out more names than a sentence bears.

use super::task::{FileState, Phase, Problem, Task};
use super::{Eyes, Refusal, State, TaskId, TaskState, WorkerName};
use crate::limits::NAMED_IN_A_SENTENCE;

/// What stands for a text that the caller may not see.
pub const WITHHELD: &str = "why is said to users who may read its file";

impl State {
    /// Why a task does not move; empty when it does. Whether it could be claimed depends on who asks; where nobody is
    /// named, only what holds for all workers counts. Of other tasks it says what these eyes may see.
    pub fn why(&self, task: &Task, caller: Option<&str>, eyes: &Eyes) -> String {
        match &task.phase {
            Phase::Open if self.state_of(task) == TaskState::Blocked => self.why_blocked(task, eyes),
            Phase::Open => self.why_unclaimed(task, caller),
            Phase::Claimed(claim) => {
                let gone =
                    State::why_no_instructions(task).map_or_else(String::new, |why| format!("; {why}"));
                format!("{} works on it since {}{gone}", claim.worker, claim.since.at)
            }
            Phase::Rejected(problem) => problem.to_string(),
            Phase::Failed(finish) => match (&finish.worker, &finish.text) {
                (_, Some(text)) => text.head.clone(),
                (Some(worker), None) => format!("{worker} gave no reason"),
                (None, None) => String::new(),
            },
            Phase::Completed(_) => String::new(),
        }
    }

    /// Why a ready task is not claimed.
    fn why_unclaimed(&self, task: &Task, caller: Option<&str>) -> String {
        if let Some(since) = self.paused() {
            return format!("the queue is paused since {}", since.at);
        }
        let Some(caller) = caller else {
            let required = &task.spec.requires;
            let nobody = !required.is_empty() && self.who_has(required).next().is_none();
            return if nobody { format!("no worker has {}", named(required)) } else { String::new() };
        };
        if self.is_draining(caller) {
            return format!("{caller} is draining");
        }
        let missing = self.missing(task, caller);
        if !missing.is_empty() {
            let others = self.others_who_have(&task.spec.requires);
            return format!("it requires {}, which {caller} lacks; {others}", named(&missing));
        }
        match self.held_and_limit(caller) {
            Some((held, limit)) => format!("{caller} holds as many tasks as it may ({held} of {limit})"),
            None => String::new(),
        }
    }

    /// What has become of the instructions of a task that a worker holds, if they are gone.
    pub fn why_no_instructions(task: &Task) -> Option<String> {
        let FileState::Missing(since) = task.file else { return None };
        Some(format!(
            "its instructions were withdrawn at {}: the file is gone; unless it comes back, the task goes when this \
             claim ends",
            since.at
        ))
    }

    /// Why an open task is not ready; empty when it is.
    pub fn why_blocked(&self, task: &Task, eyes: &Eyes) -> String {
        let mut why = Vec::new();
        match task.file {
            FileState::Present => {}
            FileState::Open(_) => why.push("its file is being written".into()),
            FileState::Missing(_) => why.push("its file is being replaced".into()),
        }
        if !task.unmet.is_empty() {
            let spelled = task.unmet.iter().take(NAMED_IN_A_SENTENCE).map(|need| self.unmet(need, eyes));
            let more = task.unmet.len().saturating_sub(NAMED_IN_A_SENTENCE);
            let more = (more > 0).then(|| format!("and {more} more"));
            why.push(format!("it needs {}", spelled.chain(more).collect::<Vec<_>>().join("; ")));
        }
        if let Some(wall) = task.not_before().filter(|wall| *wall > self.last_at()) {
            why.push(format!("it is not to be begun before {wall}"));
        }
        if let Some(other) = self.barred_by(task) {
            let claim = self.task(other.as_str()).and_then(|other| other.claim());
            why.push(match claim {
                Some(claim) => format!(
                    "it owns files that {other} owns, too, which {} works on since {}",
                    claim.worker, claim.since.at
                ),
                None => {
                    format!("it owns files that {other} owns, too, which goes first: it has waited longest")
                }
            });
        }
        why.join("; ")
    }

    /// A need that is not met, and what can be done about it.
    fn unmet(&self, need: &TaskId, eyes: &Eyes) -> String {
        let Some(other) = self.task(need.as_str()) else { return format!("{need}, which does not exist") };
        let why = || match self.why(other, None, eyes) {
            why if why.is_empty() || !self.shows(need, other, eyes) => String::new(),
            why => format!(" ({why})"),
        };
        match self.state_of(other) {
            TaskState::Failed => {
                format!("{need}, which failed{}: move it to ready/, or take it out of needs", why())
            }
            TaskState::Rejected => format!("{need}, which is rejected{}", why()),
            state => format!("{need}, which is {state}"),
        }
    }

    /// What is wrong with a task's file, in a sentence that others may read too.
    pub(super) fn said(&self, task: &TaskId, problem: &Problem) -> String {
        match self.shows_history(task, &Eyes::ANYBODY) {
            true => problem.to_string(),
            false => format!("what is wrong is said in tasks/rejected/{task}"),
        }
    }

    /// The words that a task requires and a worker lacks.
    pub fn missing(&self, task: &Task, worker: &str) -> Vec<String> {
        let has = self.capabilities(worker);
        task.spec.requires.iter().filter(|word| !has.contains(word)).cloned().collect()
    }

    fn who_has<'a>(&'a self, required: &'a [String]) -> impl Iterator<Item = &'a WorkerName> {
        self.capable()
            .filter(|(_, words)| required.iter().all(|word| words.contains(word)))
            .map(|(name, _)| name)
    }

    /// Who has all these words, as the end of a sentence.
    fn others_who_have(&self, required: &[String]) -> String {
        let names: Vec<_> =
            self.who_has(required).take(NAMED_IN_A_SENTENCE).map(WorkerName::as_str).collect();
        match names.as_slice() {
            [] => "nobody has all that it requires".into(),
            names => format!("it is for {}", names.join(", ")),
        }
    }

    /// How much a worker holds and how much it may, if that is no more.
    pub(super) fn held_and_limit(&self, worker: &str) -> Option<(usize, usize)> {
        let held = self.worker(worker).map_or(0, |worker| worker.claims.len());
        self.rules().claims_per_worker.filter(|limit| held >= *limit).map(|limit| (held, limit))
    }

    /// The refusal of a task for which a worker lacks something.
    pub(super) fn incapable(&self, id: &TaskId, task: &Task, worker: &WorkerName) -> Option<Refusal> {
        let missing = self.missing(task, worker.as_str());
        if missing.is_empty() {
            return None;
        }
        let others = self.others_who_have(&task.spec.requires);
        let (task, worker, missing) = (id.clone(), worker.clone(), named(&missing));
        Some(Refusal::Incapable { task, worker, missing, others })
    }

    /// The refusal when there is nothing for a worker.
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
        Refusal::NothingForWorker { worker: worker.clone(), missing: named(&missing) }
    }
}

/// Some words, not too many.
pub(super) fn named(words: &[impl AsRef<str>]) -> String {
    let some = words.iter().take(NAMED_IN_A_SENTENCE).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    match words.len().saturating_sub(NAMED_IN_A_SENTENCE) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}
