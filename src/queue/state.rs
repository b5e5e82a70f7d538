//! The state of the queue, and what each event makes of it.
//!
//! May assume: events come in the order of the log.
//! Must never: judge. [`State::apply`] is total: an event that makes no sense here changes nothing.
//!
//! All maps are persistent: a clone costs nothing, so a reader keeps a consistent picture for as long as it likes while
//! the writer goes on. Every operation is O(log n) in the number of tasks.

use std::fmt;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::task::{
    Claim, Finish, Loss, Manifest, Moment, Note, Phase, Priority, Problem, Spec, Task, TextRef,
};
use super::{Content, Ending, Event, LossReason, Record, Seq, TaskId, Wall, WorkerName};
use crate::limits::{LOSSES_KEPT, NAMED_IN_A_SENTENCE, RESULT_HEAD_BYTES};

/// The state of a task as users know it (C12). Each has a directory of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Claimable now.
    Ready,
    /// Waits for something.
    Blocked,
    /// Somebody works on it.
    Claimed,
    /// Done.
    Completed,
    /// Given up.
    Failed,
    /// Its file is not a task.
    Rejected,
}

impl TaskState {
    /// All six.
    pub const ALL: [TaskState; 6] = [
        TaskState::Ready,
        TaskState::Blocked,
        TaskState::Claimed,
        TaskState::Completed,
        TaskState::Failed,
        TaskState::Rejected,
    ];
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskState::Ready => "ready",
            TaskState::Blocked => "blocked",
            TaskState::Claimed => "claimed",
            TaskState::Completed => "completed",
            TaskState::Failed => "failed",
            TaskState::Rejected => "rejected",
        })
    }
}

/// What the queue knows of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Whom the name belongs to.
    pub uid: u32,
    /// When it was first used.
    pub joined: Moment,
    /// When anything about it changed last.
    pub changed: Moment,
    /// Whether it may claim nothing more.
    #[serde(default)]
    pub draining: bool,
    /// What it holds, oldest claim first.
    #[serde(default)]
    pub claims: Vec<TaskId>,
    /// How many tasks it completed.
    #[serde(default)]
    pub completed: u64,
    /// How many tasks it gave up.
    #[serde(default)]
    pub failed: u64,
    /// When its last claim ended, if one has.
    #[serde(default)]
    pub last_claim_ended: Option<Wall>,
    /// The last claim that it lost, but did not give back.
    #[serde(default)]
    pub lost: Option<Lost>,
}

/// A claim as whoever lost it remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The task.
    pub task: TaskId,
    /// When it was lost.
    pub at: Wall,
    /// Why.
    pub reason: LossReason,
}

/// Where a ready task stands in line: most urgent first, then oldest.
type Rank = (Priority, Seq, TaskId);

/// Everything that is so. Written to disk as what cannot be derived; the indexes are rebuilt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Facts", into = "Facts")]
pub struct State {
    tail: Seq,
    last_at: Wall,
    tasks: OrdMap<TaskId, Arc<Task>>,
    workers: OrdMap<WorkerName, Arc<Worker>>,
    paused: Option<Moment>,
    /// Completed tasks whose file is gone: they still satisfy whoever needs them.
    archived: OrdSet<TaskId>,
    /// Names that shall drain from their first use on.
    draining_early: OrdSet<WorkerName>,

    // Derived from the above.
    ready: OrdSet<Rank>,
    others: OrdMap<TaskState, OrdSet<TaskId>>,
    /// From a need to the tasks whose newest content names it, met or not: a completed task may be retried.
    needed_by: OrdMap<TaskId, OrdSet<TaskId>>,
    /// Tasks rejected for a cycle: what may be mended by a change of another file.
    cyclic: OrdSet<TaskId>,
}

/// What of the state cannot be derived.
#[derive(Serialize, Deserialize)]
struct Facts {
    tail: Seq,
    last_at: Wall,
    tasks: OrdMap<TaskId, Arc<Task>>,
    workers: OrdMap<WorkerName, Arc<Worker>>,
    paused: Option<Moment>,
    archived: OrdSet<TaskId>,
    #[serde(default)]
    draining_early: OrdSet<WorkerName>,
}

impl From<State> for Facts {
    fn from(state: State) -> Facts {
        let State { tail, last_at, tasks, workers, paused, archived, draining_early, .. } = state;
        Facts { tail, last_at, tasks, workers, paused, archived, draining_early }
    }
}

impl From<Facts> for State {
    fn from(facts: Facts) -> State {
        let Facts { tail, last_at, tasks, workers, paused, archived, draining_early } = facts;
        let mut state =
            State { tail, last_at, workers, paused, archived, draining_early, ..State::default() };
        for (id, task) in &tasks {
            state.index(id, task);
        }
        state.tasks = tasks;
        state
    }
}

impl State {
    /// The state that a whole log makes.
    pub fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> State {
        let mut state = State::default();
        for record in records {
            state.apply(record);
        }
        state
    }

    /// The position of the last event.
    pub fn tail(&self) -> Seq {
        self.tail
    }

    /// The time of the last event. The next one is never before it.
    pub fn last_at(&self) -> Wall {
        self.last_at
    }

    /// The last change of anything.
    pub fn changed(&self) -> Moment {
        Moment { seq: self.tail, at: self.last_at }
    }

    /// A task.
    pub fn task(&self, id: &str) -> Option<&Arc<Task>> {
        self.tasks.get(id)
    }

    /// All tasks, by id.
    pub fn tasks(&self) -> impl Iterator<Item = (&TaskId, &Arc<Task>)> {
        self.tasks.iter()
    }

    /// How many tasks there are.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there are no tasks.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// A worker.
    pub fn worker(&self, name: &str) -> Option<&Arc<Worker>> {
        self.workers.get(name)
    }

    /// All workers, by name.
    pub fn workers(&self) -> impl Iterator<Item = (&WorkerName, &Arc<Worker>)> {
        self.workers.iter()
    }

    /// Whether a worker may claim nothing more. It can be told so before it is known.
    pub fn is_draining(&self, name: &str) -> bool {
        self.workers.get(name).map_or_else(|| self.draining_early.contains(name), |worker| worker.draining)
    }

    /// Since when all claiming is stopped, if it is.
    pub fn paused(&self) -> Option<Moment> {
        self.paused
    }

    /// The state of a task.
    pub fn state_of(&self, task: &Task) -> TaskState {
        match &task.phase {
            Phase::Open if task.unmet.is_empty() => TaskState::Ready,
            Phase::Open => TaskState::Blocked,
            Phase::Claimed(_) => TaskState::Claimed,
            Phase::Completed(_) => TaskState::Completed,
            Phase::Failed(_) => TaskState::Failed,
            Phase::Rejected(_) => TaskState::Rejected,
        }
    }

    /// The ids of all tasks in a state: ready ones best first, others by id.
    pub fn listed(&self, state: TaskState) -> Box<dyn Iterator<Item = &TaskId> + '_> {
        match state {
            TaskState::Ready => Box::new(self.ready.iter().map(|(_, _, id)| id)),
            _ => Box::new(self.others.get(&state).into_iter().flatten()),
        }
    }

    /// How many tasks are in a state.
    pub fn count(&self, state: TaskState) -> usize {
        match state {
            TaskState::Ready => self.ready.len(),
            _ => self.others.get(&state).map_or(0, OrdSet::len),
        }
    }

    /// The task that goes first, if any is ready.
    pub fn best_ready(&self) -> Option<&TaskId> {
        self.ready.get_min().map(|(_, _, id)| id)
    }

    /// Whether a need of this name is met.
    pub fn is_met(&self, need: &TaskId) -> bool {
        match self.tasks.get(need) {
            Some(task) => matches!(task.phase, Phase::Completed(_)),
            None => self.archived.contains(need),
        }
    }

    /// Whether the newest content of some task names this one as a need.
    pub fn is_needed(&self, id: &TaskId) -> bool {
        self.needed_by.contains_key(id)
    }

    /// The blocked tasks that wait for this one, or for a task of this name.
    pub fn waiting_for(&self, need: &TaskId) -> impl Iterator<Item = &TaskId> {
        let waits = |id: &&TaskId| self.tasks.get(*id).is_some_and(|task| task.unmet.contains(need));
        self.needed_by.get(need).into_iter().flatten().filter(waits)
    }

    /// The tasks that are rejected for a cycle.
    pub fn in_cycles(&self) -> impl Iterator<Item = &TaskId> {
        self.cyclic.iter()
    }

    /// Why an open task is not ready, in one sentence without a full stop; empty when it is.
    pub fn why_blocked(&self, task: &Task) -> String {
        let named = task.unmet.iter().take(NAMED_IN_A_SENTENCE).map(|need| match self.tasks.get(need) {
            None => format!("{need}, which does not exist"),
            Some(other) => format!("{need}, which is {}", self.state_of(other)),
        });
        let mut why = named.collect::<Vec<_>>().join("; ");
        if task.unmet.len() > NAMED_IN_A_SENTENCE {
            why += &format!("; and {} more", task.unmet.len() - NAMED_IN_A_SENTENCE);
        }
        if why.is_empty() { why } else { format!("it needs {why}") }
    }

    /// Where a task stands, in the words for somebody who had it and lost it.
    pub fn standing(&self, task: &Task) -> String {
        match &task.phase {
            Phase::Claimed(claim) => format!("{} holds it since {}", claim.worker, claim.since.at),
            Phase::Completed(Finish { worker: Some(worker), .. })
            | Phase::Failed(Finish { worker: Some(worker), .. }) => {
                format!("{worker} has {} it", self.state_of(task))
            }
            _ => format!("it is {}", self.state_of(task)),
        }
    }

    /// Make one event part of the state.
    pub fn apply(&mut self, record: &Record) {
        let moment = Moment { seq: record.seq, at: record.at };
        self.tail = record.seq;
        self.last_at = record.at;
        let met = |state: &State| record.event.task().is_some_and(|task| state.is_met(task));
        let before = met(self);
        self.apply_event(&record.event, moment);
        if let Some(task) = record.event.task()
            && before != met(self)
        {
            self.tell_dependents(task, moment);
        }
    }

    fn apply_event(&mut self, event: &Event, moment: Moment) {
        match event {
            Event::Published { task, manifest, stamp, cycle } => {
                self.archived.remove(task);
                let before = self.tasks.get(task).cloned();
                let mut after = before.as_deref().cloned().unwrap_or_else(|| Task::new(task, moment));
                after.manifest = manifest.clone();
                after.stamp = *stamp;
                after.cycle = cycle.clone();
                self.put(task, before, after, moment);
            }
            Event::CycleBroken { task } => self.change(task, moment, |t| t.cycle.clear()),
            Event::Withdrawn { task } => self.withdraw(task, moment),
            Event::Claimed { task, worker } => {
                let claim = Claim { worker: worker.clone(), since: moment, note: None };
                self.change(task, moment, |t| t.phase = Phase::Claimed(claim));
            }
            Event::Noted { task, text } => self.change(task, moment, |t| {
                if let Phase::Claimed(claim) = &mut t.phase {
                    claim.note = Some(Note { text: text.clone(), at: moment.at });
                }
            }),
            Event::Completed { task, worker, text } => {
                self.finish(task, worker, text, moment, Ending::Completed);
            }
            Event::Failed { task, worker, text } => {
                self.finish(task, worker, text, moment, Ending::Failed);
            }
            Event::Reported { task, text } => self.change(task, moment, |t| {
                if let Phase::Completed(finish) | Phase::Failed(finish) = &mut t.phase {
                    finish.text = Some(TextRef::to(text, moment));
                }
            }),
            Event::Returned { task, worker, reason } => {
                self.change(task, moment, |t| {
                    let epoch = t.claim().map_or(0, Claim::epoch);
                    t.lose(Loss { worker: worker.clone(), epoch, at: moment.at, reason: reason.clone() });
                    t.phase = Phase::Open;
                });
                if *reason != LossReason::GivenBack {
                    let lost = Lost { task: task.clone(), at: moment.at, reason: reason.clone() };
                    self.change_worker(worker, moment, |w| w.lost = Some(lost));
                }
            }
            Event::Retried { task, .. } => self.change(task, moment, |t| {
                t.losses.clear();
                t.phase = Phase::Open;
            }),
            Event::Joined { worker, uid } => {
                let draining = self.draining_early.remove(worker).is_some();
                self.workers.insert(worker.clone(), Arc::new(Worker::new(*uid, draining, moment)));
            }
            Event::Drained { worker, draining } => match (self.workers.contains_key(worker), draining) {
                (true, _) => self.change_worker(worker, moment, |w| w.draining = *draining),
                (false, true) => drop(self.draining_early.insert(worker.clone())),
                (false, false) => drop(self.draining_early.remove(worker)),
            },
            Event::Paused { paused, .. } => self.paused = paused.then_some(moment),
        }
    }

    fn finish(
        &mut self,
        task: &TaskId,
        worker: &Option<WorkerName>,
        text: &Option<Content>,
        moment: Moment,
        ending: Ending,
    ) {
        self.change(task, moment, |t| {
            let epoch = t.claim().map_or(moment.seq, Claim::epoch);
            let text = text.as_ref().map(|text| TextRef::to(text, moment));
            let finish = Finish { worker: worker.clone(), epoch, when: moment, text };
            t.phase = match ending {
                Ending::Completed => Phase::Completed(finish),
                Ending::Failed => Phase::Failed(finish),
            };
        });
        if let Some(worker) = worker {
            self.change_worker(worker, moment, |w| match ending {
                Ending::Completed => w.completed += 1,
                Ending::Failed => w.failed += 1,
            });
        }
    }

    /// `need` was met and is no longer, or the opposite: open tasks that need it change with it.
    fn tell_dependents(&mut self, need: &TaskId, moment: Moment) {
        for id in self.needed_by.get(need).cloned().into_iter().flatten() {
            if self.tasks.get(&id).is_some_and(|task| matches!(task.phase, Phase::Open)) {
                self.change(&id, moment, |_| ());
            }
        }
    }

    fn withdraw(&mut self, id: &TaskId, moment: Moment) {
        let Some(task) = self.tasks.remove(id) else { return };
        self.unindex(id, &task);
        match &task.phase {
            Phase::Completed(_) => {
                self.archived.insert(id.clone());
            }
            Phase::Claimed(claim) => self.claim_ended(&claim.worker, id, moment),
            Phase::Open | Phase::Failed(_) | Phase::Rejected(_) => {}
        }
    }

    fn change(&mut self, id: &TaskId, moment: Moment, change: impl FnOnce(&mut Task)) {
        let Some(before) = self.tasks.get(id).cloned() else { return };
        let mut after = (*before).clone();
        change(&mut after);
        self.put(id, Some(before), after, moment);
    }

    /// Store a changed task, settled, with its indexes and its workers' lists.
    fn put(&mut self, id: &TaskId, before: Option<Arc<Task>>, mut after: Task, moment: Moment) {
        after.changed = moment;
        self.settle(&mut after);
        let holder = |task: &Task| task.claim().map(|claim| claim.worker.clone());
        let (old, new) = (before.as_deref().and_then(holder), holder(&after));
        if let Some(before) = &before {
            self.unindex(id, before);
        }
        self.index(id, &after);
        self.tasks.insert(id.clone(), Arc::new(after));
        if old != new {
            if let Some(worker) = old {
                self.claim_ended(&worker, id, moment);
            }
            if let Some(worker) = new {
                self.change_worker(&worker, moment, |w| w.claims.push(id.clone()));
            }
        }
    }

    /// An open or rejected task is what the newest content of its file makes of it; any other keeps what is in force.
    fn settle(&self, task: &mut Task) {
        if !matches!(task.phase, Phase::Open | Phase::Rejected(_)) {
            task.unmet = OrdSet::new();
            return;
        }
        let problem = match &task.manifest {
            Manifest::Problem(problem) => Some(problem.clone()),
            Manifest::Spec(spec) => {
                task.spec = spec.clone();
                (!task.cycle.is_empty()).then(|| Arc::new(Problem::cycle(&task.cycle)))
            }
        };
        (task.phase, task.unmet) = match problem {
            Some(problem) => (Phase::Rejected(problem), OrdSet::new()),
            None => {
                let unmet = task.spec.needs.iter().filter(|need| !self.is_met(need));
                (Phase::Open, unmet.cloned().collect())
            }
        };
    }

    fn claim_ended(&mut self, worker: &WorkerName, id: &TaskId, moment: Moment) {
        self.change_worker(worker, moment, |w| {
            w.claims.retain(|held| held != id);
            w.last_claim_ended = Some(moment.at);
        });
    }

    fn change_worker(&mut self, name: &WorkerName, moment: Moment, change: impl FnOnce(&mut Worker)) {
        let Some(worker) = self.workers.get(name) else { return };
        let mut worker = (**worker).clone();
        change(&mut worker);
        worker.changed = moment;
        self.workers.insert(name.clone(), Arc::new(worker));
    }

    fn index(&mut self, id: &TaskId, task: &Task) {
        match self.state_of(task) {
            TaskState::Ready => {
                self.ready.insert((task.spec.priority, task.published.seq, id.clone()));
            }
            other => {
                self.others.entry(other).or_default().insert(id.clone());
            }
        }
        for need in task.declared_needs() {
            self.needed_by.entry(need.clone()).or_default().insert(id.clone());
        }
        if !task.cycle.is_empty() {
            self.cyclic.insert(id.clone());
        }
    }

    fn unindex(&mut self, id: &TaskId, task: &Task) {
        self.cyclic.remove(id);
        match self.state_of(task) {
            TaskState::Ready => {
                self.ready.remove(&(task.spec.priority, task.published.seq, id.clone()));
            }
            other => {
                if let Some(set) = self.others.get_mut(&other) {
                    set.remove(id);
                    if set.is_empty() {
                        self.others.remove(&other);
                    }
                }
            }
        }
        for need in task.declared_needs() {
            if let Some(set) = self.needed_by.get_mut(need) {
                set.remove(id);
                if set.is_empty() {
                    self.needed_by.remove(need);
                }
            }
        }
    }
}

impl Task {
    fn new(id: &TaskId, moment: Moment) -> Task {
        let spec = Arc::new(Spec::titled(id.as_str()));
        Task {
            manifest: Manifest::Spec(spec.clone()),
            spec,
            cycle: Vec::new(),
            stamp: Default::default(),
            published: moment,
            changed: moment,
            phase: Phase::Open,
            unmet: OrdSet::new(),
            losses: Vec::new(),
        }
    }

    /// Remember a lost claim. The oldest is forgotten for it if need be, but never one that counts as an attempt.
    fn lose(&mut self, loss: Loss) {
        let harmless = |loss: &Loss| !loss.reason.counts_as_attempt();
        if self.losses.len() >= LOSSES_KEPT
            && let Some(oldest) = self.losses.iter().position(harmless)
        {
            self.losses.remove(oldest);
        }
        self.losses.push(loss);
    }
}

impl Worker {
    fn new(uid: u32, draining: bool, moment: Moment) -> Worker {
        Worker {
            uid,
            joined: moment,
            changed: moment,
            draining,
            claims: Vec::new(),
            completed: 0,
            failed: 0,
            last_claim_ended: None,
            lost: None,
        }
    }
}

impl Problem {
    fn cycle(cycle: &[TaskId]) -> Problem {
        let named = cycle.iter().take(NAMED_IN_A_SENTENCE).map(|id| format!("{id} → "));
        let more = match cycle.len().saturating_sub(NAMED_IN_A_SENTENCE) {
            0 => String::new(),
            more => format!("{more} more → "),
        };
        let path = named.chain([more]).chain(cycle.first().map(TaskId::to_string)).collect::<String>();
        Problem {
            line: 0,
            message: format!("its needs form a cycle, so none of these could ever run: {path}"),
        }
    }
}

impl TextRef {
    fn to(content: &Content, moment: Moment) -> TextRef {
        let text = String::from_utf8_lossy(&content.0);
        let mut head = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("").to_string();
        let fits = (0..=RESULT_HEAD_BYTES.min(head.len())).rev().find(|at| head.is_char_boundary(*at));
        head.truncate(fits.unwrap_or(0));
        TextRef { seq: moment.seq, size: content.0.len() as u64, head, at: moment.at }
    }
}
