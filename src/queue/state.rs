//! The state of the queue, and how each event changes it.
//!
//! May assume: events come in the order of the log.
//! Must never: judge. [`State::apply`] is total: an event that does not fit the state changes nothing.
//!
//! All maps are persistent. A clone is cheap, so a reader can keep a consistent state while the writer goes on. Every operation is O(log n)
//! in the number of tasks. If tasks own files, it is also O(log n) in the number of sets of globs that overlap.
//!
//! Before an event is applied, the changes that are due by its time are derived. So the state is the same whether it was made event by
//! event or loaded from a snapshot.

use std::fmt;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::rank::{Demand, ReadyPlace};
use super::ready_index::{IndexEntry, ReadyIndex, Rules, place_of};
use super::task::{
    Claim, FileState, Finish, Loss, Manifest, Moment, Note, Phase, Problem, Spec, Task, TextRef,
};
use super::{
    Access, Content, Ending, Event, Eyes, LossReason, Lost, Record, Seq, TaskId, Wall, Worker, WorkerName,
};
use crate::limits::LOSSES_KEPT;

/// The state of a task as users see it (C12). Each state has a directory of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// The task can be claimed now.
    Ready,
    /// The task waits for something.
    Blocked,
    /// A worker holds the task.
    Claimed,
    /// The task is done.
    Completed,
    /// The task is given up.
    Failed,
    /// The file is not a valid task.
    Rejected,
}

impl TaskState {
    /// All states.
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

/// The whole state. Only the facts that cannot be derived are written to disk; the indexes are rebuilt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Facts", into = "Facts")]
pub struct State {
    tail: Seq,
    last_at: Wall,
    tasks: OrdMap<TaskId, Arc<Task>>,
    workers: OrdMap<WorkerName, Arc<Worker>>,
    paused: Option<Moment>,
    /// Completed tasks that were withdrawn or forgotten. They still meet the needs of other tasks.
    archived: OrdSet<TaskId>,
    /// Names of workers that have not joined yet and will drain when they join.
    draining_early: OrdSet<WorkerName>,
    /// The capabilities of workers, including workers that have not joined yet.
    capabilities: OrdMap<WorkerName, Arc<[String]>>,
    /// The rights of the private files that an id has had. A user that may read all of them may see every text of the id.
    pub(super) private: OrdMap<TaskId, Vec<Arc<Access>>>,

    // Set by mount options.
    rules: Rules,

    // Derived from the fields above.
    /// The tasks that wait to be claimed, ready or barred by the files of another task.
    ready_index: ReadyIndex,
    /// All other tasks by state, including blocked tasks that wait for anything but the files of another task.
    by_state: OrdMap<TaskState, OrdSet<TaskId>>,
    /// The times at which a task changes without a command.
    due: OrdSet<(Wall, TaskId)>,
    /// From a need to the tasks whose newest content names it, whether or not the need is met: a completed task may be retried.
    needed_by: OrdMap<TaskId, OrdSet<TaskId>>,
    /// Tasks that are rejected for a cycle. A change of another file may break the cycle.
    cyclic: OrdSet<TaskId>,
    /// Tasks whose file the daemon must check again ([`Task::is_unsettled`]).
    unsettled: OrdSet<TaskId>,
}

/// The facts of the state that cannot be derived.
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
    #[serde(default)]
    capabilities: OrdMap<WorkerName, Arc<[String]>>,
    #[serde(default)]
    private: OrdMap<TaskId, Vec<Arc<Access>>>,
}

impl From<State> for Facts {
    fn from(state: State) -> Facts {
        let State {
            tail,
            last_at,
            tasks,
            workers,
            paused,
            archived,
            draining_early,
            capabilities,
            private,
            ..
        } = state;
        Facts { tail, last_at, tasks, workers, paused, archived, draining_early, capabilities, private }
    }
}

impl From<Facts> for State {
    fn from(facts: Facts) -> State {
        let Facts { tail, last_at, tasks, workers, paused, archived, draining_early, capabilities, private } =
            facts;
        let mut state = State {
            tail,
            last_at,
            workers,
            paused,
            archived,
            draining_early,
            capabilities,
            private,
            ..State::default()
        };
        state.tasks = tasks;
        state.derive();
        state
    }
}

impl State {
    /// Makes the state from a whole log.
    pub fn replay<'a>(records: impl IntoIterator<Item = &'a Record>) -> State {
        let mut state = State::default();
        for record in records {
            state.apply(record);
        }
        state
    }

    /// The same state under other rules.
    pub fn under(self, rules: Rules) -> State {
        // The derived fields are still valid if the rules are the same. Deriving them again costs O(n).
        if self.rules == rules {
            return self;
        }
        let mut state = State { rules, ..self };
        state.derive();
        state
    }

    /// Derives the indexes again.
    fn derive(&mut self) {
        (self.ready_index, self.by_state, self.due) = Default::default();
        (self.needed_by, self.cyclic, self.unsettled) = Default::default();
        for (id, task) in std::mem::take(&mut self.tasks) {
            let mut task = Arc::unwrap_or_clone(task);
            task.place = place_of(&task, self.last_at, &self.rules);
            self.ready_index.enter(&id, &IndexEntry::of(&task));
            self.index(&id, &task);
            self.tasks.insert(id, Arc::new(task));
        }
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The earliest time at which a task changes without a command. An event is due then.
    pub fn next_due(&self) -> Option<Wall> {
        self.due.get_min().map(|(wall, _)| *wall)
    }

    /// The position of the last event.
    pub fn tail(&self) -> Seq {
        self.tail
    }

    /// The time of the last event. The next one is never before it.
    pub fn last_at(&self) -> Wall {
        self.last_at
    }

    /// The position and the time of the last event.
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

    /// Whether a worker may claim nothing more. This can be set before the worker joins.
    pub fn is_draining(&self, name: &str) -> bool {
        self.workers.get(name).map_or_else(|| self.draining_early.contains(name), |worker| worker.draining)
    }

    /// The capabilities of a worker. They can be set before the worker joins.
    pub fn capabilities(&self, name: &str) -> &[String] {
        self.capabilities.get(name).map_or(&[], |words| words)
    }

    /// All workers that have capabilities, sorted by name.
    pub(super) fn capable(&self) -> impl Iterator<Item = (&WorkerName, &Arc<[String]>)> {
        self.capabilities.iter()
    }

    /// Since when all claiming is stopped, if it is.
    pub fn paused(&self) -> Option<Moment> {
        self.paused
    }

    /// The state of a task.
    pub fn state_of(&self, task: &Task) -> TaskState {
        match &task.phase {
            Phase::Open if task.place.rank.is_some() && self.barred_by(task).is_none() => TaskState::Ready,
            Phase::Open => TaskState::Blocked,
            Phase::Claimed(_) => TaskState::Claimed,
            Phase::Completed(_) => TaskState::Completed,
            Phase::Failed(_) => TaskState::Failed,
            Phase::Rejected(_) => TaskState::Rejected,
        }
    }

    /// The ids of all tasks in a state. Ready tasks are sorted by rank, all others by id.
    pub fn listed(&self, state: TaskState) -> Box<dyn Iterator<Item = &TaskId> + '_> {
        let others = self.by_state.get(&state).into_iter().flatten();
        match state {
            TaskState::Ready => Box::new(self.ready_index.listed(true)),
            TaskState::Blocked if self.ready_index.waiting() > self.ready_index.ready() => {
                let mut blocked: Vec<_> = others.chain(self.ready_index.listed(false)).collect();
                blocked.sort();
                Box::new(blocked.into_iter())
            }
            _ => Box::new(others),
        }
    }

    /// How many tasks are in a state.
    pub fn count(&self, state: TaskState) -> usize {
        let others = self.by_state.get(&state).map_or(0, OrdSet::len);
        match state {
            TaskState::Ready => self.ready_index.ready(),
            TaskState::Blocked => others + self.ready_index.waiting() - self.ready_index.ready(),
            _ => others,
        }
    }

    /// The first ready task that a worker can do and `eyes` may read. Without a worker: the first that requires no capability.
    pub fn best_for(&self, worker: Option<&str>, eyes: &Eyes) -> Option<&TaskId> {
        let has = worker.map_or(&[][..], |name| self.capabilities(name));
        self.ready_index.first(|word| has.iter().any(|known| known == word), eyes)
    }

    /// The task that bars this one by owning some of the same files.
    pub(super) fn barred_by(&self, task: &Task) -> Option<&TaskId> {
        self.ready_index.barred_by(task)
    }

    /// The capabilities and rights that ready tasks ask of a worker.
    pub(super) fn demands(&self) -> impl Iterator<Item = &Demand> {
        self.ready_index.demands()
    }

    /// Whether a need of this name is met.
    pub fn is_met(&self, need: &TaskId) -> bool {
        match self.tasks.get(need) {
            Some(task) => matches!(task.phase, Phase::Completed(_)),
            None => self.archived.contains(need),
        }
    }

    /// Whether the newest content of some task names this id as a need.
    pub fn is_needed(&self, id: &TaskId) -> bool {
        self.needed_by.contains_key(id)
    }

    /// The blocked tasks that wait for this id, whether or not a task with this id exists.
    pub fn waiting_for(&self, need: &TaskId) -> impl Iterator<Item = &TaskId> {
        let waits = |id: &&TaskId| self.tasks.get(*id).is_some_and(|task| task.unmet.contains(need));
        self.needed_by.get(need).into_iter().flatten().filter(waits)
    }

    /// The tasks whose file the daemon must check again ([`Task::is_unsettled`]).
    pub fn unsettled(&self) -> impl Iterator<Item = &TaskId> {
        self.unsettled.iter()
    }

    /// The tasks that are rejected for a cycle.
    pub fn in_cycles(&self) -> impl Iterator<Item = &TaskId> {
        self.cyclic.iter()
    }

    /// Applies one event to the state.
    pub fn apply(&mut self, record: &Record) {
        let moment = Moment { seq: record.seq, at: record.at };
        self.tail = record.seq;
        self.pass_time(moment);
        let met = |state: &State| record.event.task().is_some_and(|task| state.is_met(task));
        let before = met(self);
        self.apply_event(&record.event, moment);
        if let Some(task) = record.event.task()
            && before != met(self)
        {
            self.update_dependents(task, moment);
        }
    }

    /// Applies the changes that are due up to this moment.
    fn pass_time(&mut self, moment: Moment) {
        let before = self.last_at;
        self.last_at = before.max(moment.at);
        while let Some((wall, id)) = self.due.get_min().cloned()
            && wall <= self.last_at
        {
            let Some(task) = self.tasks.get(&id).cloned() else {
                self.due.remove(&(wall, id));
                continue;
            };
            // A higher rank does not change what users see of the task.
            let passed = |when: Option<Wall>| when.is_some_and(|when| before < when && when <= self.last_at);
            let is_visible = passed(task.deadline()) || passed(task.not_before());
            let changed = if is_visible { moment } else { task.changed };
            self.put(&id, Some(task.clone()), (*task).clone(), changed);
        }
    }

    fn apply_event(&mut self, event: &Event, moment: Moment) {
        match event {
            Event::Published { task, manifest, stamp, cycle } => {
                self.archived.remove(task);
                let before = self.tasks.get(task).cloned();
                let mut after = before.as_deref().cloned().unwrap_or_else(|| Task::new(task, moment));
                after.manifest = manifest.clone();
                self.update_private(task, before.as_deref().map(|before| &before.stamp), stamp);
                after.stamp = stamp.clone();
                after.file = FileState::Present;
                after.cycle = cycle.clone();
                self.put(task, before, after, moment);
            }
            Event::CycleBroken { task } => self.change(task, moment, |t| t.cycle.clear()),
            Event::FileOpened { task } => self.change(task, moment, |t| t.file = FileState::Open(moment)),
            Event::FileMissing { task } => self.change(task, moment, |t| t.file = FileState::Missing(moment)),
            Event::Withdrawn { task } | Event::Forgotten { task, .. } => self.withdraw(task, moment),
            Event::Claimed { task, worker } => {
                let claim = Claim { worker: worker.clone(), since: moment, note: None };
                self.change(task, moment, |t| {
                    t.phase = Phase::Claimed(claim);
                    t.ousted.remove(worker);
                });
            }
            Event::Noted { task, text } => self.change(task, moment, |t| {
                if let Phase::Claimed(claim) = &mut t.phase {
                    claim.note = Some(Note { seq: moment.seq, text: text.shown(), at: moment.at });
                }
            }),
            Event::Completed { task, worker, by, text } => {
                self.finish(task, (worker, by), text, moment, Ending::Completed);
            }
            Event::Failed { task, worker, by, text } => {
                self.finish(task, (worker, by), text, moment, Ending::Failed);
            }
            Event::Reported { task, text } => self.change(task, moment, |t| {
                if let Phase::Completed(finish) | Phase::Failed(finish) = &mut t.phase {
                    finish.text = Some(TextRef::to(text, moment));
                }
            }),
            Event::Returned { task, worker, reason } => {
                let ousted = *reason != LossReason::GivenBack;
                self.change(task, moment, |t| {
                    let epoch = t.claim().map_or(0, Claim::epoch);
                    t.add_loss(Loss { worker: worker.clone(), epoch, at: moment.at, reason: reason.clone() });
                    t.phase = Phase::Open;
                    if ousted {
                        t.ousted.insert(worker.clone());
                    }
                });
                if ousted {
                    let lost = Lost { task: task.clone(), at: moment.at, reason: reason.clone() };
                    self.change_worker(worker, moment, |w| (w.lost, w.ousted) = (Some(lost), true));
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
            Event::Capable { worker, words } if words.is_empty() => drop(self.capabilities.remove(worker)),
            Event::Capable { worker, words } => {
                self.capabilities.insert(worker.clone(), words.as_slice().into());
            }
            Event::TimePassed => {}
            Event::Paused { paused, .. } => self.paused = paused.then_some(moment),
        }
    }

    fn finish(
        &mut self,
        task: &TaskId,
        (worker, by): (&Option<WorkerName>, &Option<WorkerName>),
        text: &Option<Content>,
        moment: Moment,
        ending: Ending,
    ) {
        self.change(task, moment, |t| {
            let epoch = t.claim().map_or(moment.seq, Claim::epoch);
            let text = text.as_ref().map(|text| TextRef::to(text, moment));
            let finish = Finish { worker: worker.clone(), by: by.clone(), epoch, when: moment, text };
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

    /// Updates the open tasks that need `need`, which is met now and was not before, or the opposite.
    fn update_dependents(&mut self, need: &TaskId, moment: Moment) {
        for id in self.needed_by.get(need).cloned().into_iter().flatten() {
            if self.tasks.get(&id).is_some_and(|task| matches!(task.phase, Phase::Open)) {
                self.change(&id, moment, |_| ());
            }
        }
    }

    fn withdraw(&mut self, id: &TaskId, moment: Moment) {
        let Some(task) = self.tasks.remove(id) else { return };
        self.ready_index.leave(id, &IndexEntry::of(&task));
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

    /// Settles and stores a task that changed at this moment, and updates the indexes and the lists of its workers.
    fn put(&mut self, id: &TaskId, before: Option<Arc<Task>>, mut after: Task, changed: Moment) {
        after.changed = changed;
        self.settle(&mut after);
        after.place = place_of(&after, self.last_at, &self.rules);
        let holder = |task: &Task| task.claim().map(|claim| claim.worker.clone());
        let (old, new) = (before.as_deref().and_then(holder), holder(&after));
        let entries = (before.as_deref().map_or(IndexEntry::Neither, IndexEntry::of), IndexEntry::of(&after));
        if entries.0 != entries.1 {
            self.ready_index.leave(id, &entries.0);
            self.ready_index.enter(id, &entries.1);
        }
        if let Some(before) = &before {
            self.unindex(id, before);
        }
        self.index(id, &after);
        self.tasks.insert(id.clone(), Arc::new(after));
        if old != new {
            if let Some(worker) = old {
                self.claim_ended(&worker, id, changed);
            }
            if let Some(worker) = new {
                self.change_worker(&worker, changed, |w| {
                    w.claims.push(id.clone());
                    w.ousted = false;
                });
            }
        }
    }

    /// The newest content of the file comes into force for an open or rejected task. Any other task keeps the instructions in force.
    fn settle(&self, task: &mut Task) {
        if !matches!(task.phase, Phase::Open | Phase::Rejected(_)) {
            task.unmet = OrdSet::new();
            task.waits_since = task.waits_since.filter(|_| task.is_unfinished());
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
        let early = task.not_before().is_some_and(|when| when > self.last_at);
        let waits = task.is_open() && task.unmet.is_empty() && !early;
        task.waits_since = waits.then(|| task.waits_since.unwrap_or(self.last_at));
    }

    fn claim_ended(&mut self, worker: &WorkerName, id: &TaskId, moment: Moment) {
        self.change_worker(worker, moment, |w| {
            w.claims.retain(|held| held != id);
            w.last_claim_ended = Some(moment.at);
            w.ousted = false;
        });
    }

    fn change_worker(&mut self, name: &WorkerName, moment: Moment, change: impl FnOnce(&mut Worker)) {
        let Some(worker) = self.workers.get(name) else { return };
        let mut worker = (**worker).clone();
        change(&mut worker);
        worker.changed = moment;
        self.workers.insert(name.clone(), Arc::new(worker));
    }

    /// The state under which `by_state` lists a task; `None` if the task is in `ready_index`.
    fn list_of(&self, task: &Task) -> Option<TaskState> {
        match (&task.phase, task.place.rank) {
            (Phase::Open, Some(_)) => None,
            (Phase::Open, None) => Some(TaskState::Blocked),
            _ => Some(self.state_of(task)),
        }
    }

    fn index(&mut self, id: &TaskId, task: &Task) {
        if let Some(list) = self.list_of(task) {
            self.by_state.entry(list).or_default().insert(id.clone());
        }
        for need in task.declared_needs() {
            self.needed_by.entry(need.clone()).or_default().insert(id.clone());
        }
        if !task.cycle.is_empty() {
            self.cyclic.insert(id.clone());
        }
        if task.is_unsettled() {
            self.unsettled.insert(id.clone());
        }
        if let Some(due) = task.place.due {
            self.due.insert((due, id.clone()));
        }
    }

    fn unindex(&mut self, id: &TaskId, task: &Task) {
        if let Some(due) = task.place.due {
            self.due.remove(&(due, id.clone()));
        }
        self.cyclic.remove(id);
        if task.is_unsettled() {
            self.unsettled.remove(id);
        }
        if let Some(list) = self.list_of(task)
            && let Some(set) = self.by_state.get_mut(&list)
        {
            set.remove(id);
            if set.is_empty() {
                self.by_state.remove(&list);
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
            file: FileState::Present,
            published: moment,
            changed: moment,
            phase: Phase::Open,
            unmet: OrdSet::new(),
            waits_since: None,
            losses: Vec::new(),
            ousted: OrdSet::new(),
            place: ReadyPlace::default(),
        }
    }

    /// Adds a lost claim. If there are too many, the oldest that does not count as an attempt is dropped.
    fn add_loss(&mut self, loss: Loss) {
        let is_droppable = |loss: &Loss| !loss.reason.counts_as_attempt();
        if self.losses.len() >= LOSSES_KEPT
            && let Some(oldest) = self.losses.iter().position(is_droppable)
        {
            self.losses.remove(oldest);
        }
        self.losses.push(loss);
    }
}
