//! The queue as the contract describes it, in the plainest way: lists that are searched from end to end.
//!
//! It shares the types of the real queue (commands, manifests) and none of its design: no events, no indexes, and no stored value that
//! can be computed. It is simple enough that a reader can check it against the contract.

use std::collections::{BTreeSet, HashMap, HashSet};

use crewfs::queue::{
    Actor, ClaimForm, Command, Ending, FileStamp, Manifest, Priority, Refusal, Rules, Seq, Spec, TaskId,
    TaskState, Wall, When, WorkerName,
};

/// The errors that a caller of the filesystem can tell apart (C22–C24, C41).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The name that the command acts on does not exist.
    NotThere,
    /// Another caller was first, or this caller did it before.
    Exists,
    /// Not possible now.
    Busy,
    /// Not permitted to this caller.
    Denied,
}

impl Class {
    pub fn of(refusal: &Refusal) -> Class {
        match refusal {
            Refusal::Unknown { .. }
            | Refusal::Finished { .. }
            | Refusal::Rejected { .. }
            | Refusal::NothingReady { .. }
            | Refusal::NothingForWorker { .. }
            | Refusal::AllPrivate { .. }
            | Refusal::NoFile { .. }
            | Refusal::NotFinished { .. } => Class::NotThere,
            Refusal::Held { .. } | Refusal::AlreadyYours { .. } | Refusal::AlreadyFinished { .. } => {
                Class::Exists
            }
            Refusal::Blocked { .. }
            | Refusal::InUse { .. }
            | Refusal::Cycle { .. }
            | Refusal::OverBudget { .. } => Class::Busy,
            Refusal::Paused
            | Refusal::Draining { .. }
            | Refusal::Incapable { .. }
            | Refusal::TooMany { .. }
            | Refusal::NotHolder { .. }
            | Refusal::Stale { .. }
            | Refusal::NoNote { .. }
            | Refusal::HasFile { .. }
            | Refusal::NameTaken { .. }
            | Refusal::Private { .. }
            | Refusal::NoMember { .. }
            | Refusal::OperatorOnly { .. } => Class::Denied,
        }
    }
}

/// The result of a command that succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The caller holds this task.
    Claimed(TaskId),
    /// The task has ended.
    Finished,
    /// Done, or nothing to do.
    Done,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    Open,
    Claimed { worker: WorkerName, epoch: Seq, note: Option<String> },
    Ended { how: Ending, worker: Option<WorkerName>, finish: Seq, text: Option<Vec<u8>> },
}

/// The state of a task's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    Whole,
    BeingWritten,
    Gone,
}

#[derive(Debug, Clone)]
pub struct Item {
    pub id: TaskId,
    pub file: File,
    /// Workers whose last claim of this task was ended by another worker, an operator or the lease.
    pub ousted: HashSet<WorkerName>,
    pub newest: Manifest,
    stamp: FileStamp,
    /// The newest content closed a cycle, and the cycle still exists.
    closes_cycle: bool,
    /// The specification in force: the newest content, or while a worker holds the task by older content, that content.
    pub in_force: Option<Spec>,
    /// The place in the order of publishing.
    age: usize,
    /// When the task was first published.
    published: Wall,
    /// Since when only the owned files of other tasks have kept this task from being claimed.
    pub waits_since: Option<Wall>,
    pub stage: Stage,
    /// Claims lost to silence since the task was published or retried.
    silences: u32,
}

impl Item {
    fn needs(&self) -> &[TaskId] {
        match &self.newest {
            Manifest::Spec(spec) => &spec.needs,
            Manifest::Problem(_) => &[],
        }
    }

    /// The claim is lost, not given back. Returns how many events that takes; `token` is the first of them.
    fn lose(&mut self, token: Seq) -> Seq {
        self.silences += 1;
        let holder = self.holder().cloned();
        self.ousted.extend(holder);
        let allowed = self.in_force.as_ref().map_or(3, |spec| spec.attempts);
        if self.silences < allowed {
            self.stage = Stage::Open;
            return 1;
        }
        // The event of the finish follows the event of the loss.
        let finish = token + 1;
        self.stage = Stage::Ended { how: Ending::Failed, worker: None, finish, text: Some(vec![]) };
        2
    }

    fn time(&self, of: impl Fn(&Spec) -> Option<When>) -> Option<Wall> {
        let Manifest::Spec(spec) = &self.newest else { return None };
        of(spec).map(|when| match when {
            When::At(wall) => wall,
            When::After(span) => self.published.after(span),
        })
    }

    /// How many levels above `background` the task is, from its priority and its waiting time.
    fn level(&self, now: Wall, rules: &Rules) -> i64 {
        let Some(since) = self.waits_since else { return i64::MAX };
        let priority = self.in_force.as_ref().map_or(Priority::Normal, |spec| spec.priority);
        let base = 1 + Priority::ALL.iter().position(|(known, ..)| *known == priority).unwrap() as i64;
        (base - (now.0 - since.0) / rules.ageing.0 as i64).max(0)
    }

    /// Letters stand for files, and a star for all files.
    fn shares_files_with(&self, other: &Item) -> bool {
        let of = |item: &Item| item.in_force.as_ref().map_or(vec![], |spec| spec.owns.clone());
        let meets = |a: &String, b: &String| a == b || a == "*" || b == "*";
        of(self).iter().any(|a| of(other).iter().any(|b| meets(a, b)))
    }

    pub fn holder(&self) -> Option<&WorkerName> {
        match &self.stage {
            Stage::Claimed { worker, .. } => Some(worker),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
pub struct Model {
    pub items: Vec<Item>,
    pub now: Wall,
    pub rules: Rules,
    /// The capabilities of each worker.
    pub capabilities: HashMap<WorkerName, BTreeSet<String>>,
    /// The uid that owns each name.
    pub names: HashMap<WorkerName, u32>,
    pub draining: HashSet<WorkerName>,
    pub paused: bool,
    /// Workers whose last claim of any task was ended by another worker, an operator or the lease.
    pub ousted: HashSet<WorkerName>,
    /// Completed tasks that the queue has dropped. Tasks that need them can proceed.
    pub archived: HashSet<TaskId>,
    pub published: usize,
    /// How many tasks each worker completed and failed.
    pub endings: HashMap<WorkerName, (u64, u64)>,
}

impl Model {
    pub fn find(&self, id: &TaskId) -> Option<&Item> {
        self.items.iter().find(|item| item.id == *id)
    }

    fn at(&mut self, id: &TaskId) -> Result<&mut Item, Class> {
        self.items.iter_mut().find(|item| item.id == *id).ok_or(Class::NotThere)
    }

    fn met(&self, need: &TaskId) -> bool {
        match self.find(need) {
            Some(item) => matches!(item.stage, Stage::Ended { how: Ending::Completed, .. }),
            None => self.archived.contains(need),
        }
    }

    pub fn state(&self, item: &Item) -> TaskState {
        match &item.stage {
            Stage::Claimed { .. } => TaskState::Claimed,
            Stage::Ended { how: Ending::Completed, .. } => TaskState::Completed,
            Stage::Ended { how: Ending::Failed, .. } => TaskState::Failed,
            Stage::Open if item.closes_cycle || matches!(item.newest, Manifest::Problem(_)) => {
                TaskState::Rejected
            }
            Stage::Open if !self.waits(item) => TaskState::Blocked,
            Stage::Open if self.is_barred(item) => TaskState::Blocked,
            Stage::Open => TaskState::Ready,
        }
    }

    /// Whether only the owned files of other tasks can keep the task from being claimed.
    fn waits(&self, item: &Item) -> bool {
        item.file == File::Whole && self.is_due(item)
    }

    /// Whether the task could be claimed if its file is whole and no other task bars it.
    fn is_due(&self, item: &Item) -> bool {
        let early = item.time(|spec| spec.not_before).is_some_and(|when| when > self.now);
        let accepted = !item.closes_cycle && matches!(item.newest, Manifest::Spec(_));
        let met = item.needs().iter().all(|need| self.met(need));
        item.stage == Stage::Open && accepted && met && !early
    }

    /// The key of the order in which tasks are handed out (C13).
    fn rank(&self, item: &Item) -> (i64, Option<i64>, usize) {
        let level = item.level(self.now, &self.rules);
        let deadline = item.time(|spec| spec.deadline).filter(|_| level > 0);
        (level, Some(deadline.map_or(i64::MAX, |wall| wall.0)), item.age)
    }

    /// Whether a claimed task owns some of its files, or a task that has waited longest reserves them.
    fn is_barred(&self, item: &Item) -> bool {
        let taken = |item: &Item| {
            self.items.iter().any(|other| other.holder().is_some() && other.shares_files_with(item))
        };
        let reserves =
            |other: &Item| self.waits(other) && other.level(self.now, &self.rules) == 0 && taken(other);
        let first = |other: &Item| self.rank(other) < self.rank(item);
        taken(item) || (self.items.iter()).any(|o| reserves(o) && first(o) && o.shares_files_with(item))
    }

    fn is_capable(&self, worker: &WorkerName, item: &Item) -> bool {
        let required = item.in_force.as_ref().map_or(&[][..], |spec| &spec.requires);
        let has = self.capabilities.get(worker);
        required.iter().all(|word| has.is_some_and(|has| has.contains(word)))
    }

    /// The best task for a worker; a worker that the model does not know has no capabilities.
    pub fn best_for(&self, worker: &WorkerName) -> Option<TaskId> {
        self.ready().into_iter().find(|id| self.find(id).is_some_and(|item| self.is_capable(worker, item)))
    }

    /// Whether a worker may claim a task at all.
    fn may_claim(&self, worker: &WorkerName) -> bool {
        let held = self.claims(worker).len();
        let free = self.rules.claims_per_worker.is_none_or(|limit| held < limit);
        free && !self.paused && !self.draining.contains(worker)
    }

    /// Advance the time, and with it everything that waits for a time.
    pub fn pass_time(&mut self, now: Wall) {
        self.now = now;
        self.settle();
    }

    fn settle(&mut self) {
        let cycles: Vec<bool> = self.items.iter().map(|item| self.in_a_cycle(&item.id)).collect();
        for (item, cycle) in self.items.iter_mut().zip(cycles) {
            item.closes_cycle &= cycle;
            if let (Stage::Open, Manifest::Spec(spec)) = (&item.stage, &item.newest) {
                item.in_force = Some((**spec).clone());
            }
        }
        let waits: Vec<bool> = self.items.iter().map(|item| self.is_due(item)).collect();
        for (item, waits) in self.items.iter_mut().zip(waits) {
            item.waits_since = match &item.stage {
                Stage::Open => waits.then(|| item.waits_since.unwrap_or(self.now)),
                Stage::Claimed { .. } => item.waits_since,
                Stage::Ended { .. } => None,
            };
        }
    }

    /// The ready tasks, best first (C13).
    pub fn ready(&self) -> Vec<TaskId> {
        let mut ready: Vec<_> =
            self.items.iter().filter(|item| self.state(item) == TaskState::Ready).collect();
        ready.sort_by_key(|item| self.rank(item));
        ready.iter().map(|item| item.id.clone()).collect()
    }

    /// The tasks that a worker holds, oldest claim first.
    pub fn claims(&self, worker: &WorkerName) -> Vec<TaskId> {
        let mut held: Vec<_> = (self.items.iter())
            .filter_map(|item| match &item.stage {
                Stage::Claimed { worker: holder, epoch, .. } if holder == worker => {
                    Some((*epoch, item.id.clone()))
                }
                _ => None,
            })
            .collect();
        held.sort();
        held.into_iter().map(|(_, id)| id).collect()
    }

    /// Whether following needs from `id`, over any number of tasks, leads back to `id`. A completed task waits for nothing.
    fn in_a_cycle(&self, id: &TaskId) -> bool {
        let mut reached: Vec<&TaskId> = vec![id];
        let mut next = 0;
        while next < reached.len() {
            for need in self.find(reached[next]).map_or(&[][..], Item::needs) {
                if need == id {
                    return true;
                }
                if !reached.contains(&need) && !self.met(need) {
                    reached.push(need);
                }
            }
            next += 1;
        }
        false
    }

    /// Execute a command. `token` is the position that a claim or finish gets if the command makes one.
    pub fn step(&mut self, command: &Command, token: Seq) -> Result<Said, Class> {
        let said = self.judge(command, token);
        self.settle();
        said
    }

    fn judge(&mut self, command: &Command, token: Seq) -> Result<Said, Class> {
        match command {
            Command::Publish { task, manifest, stamp } => self.publish(task, manifest, stamp),
            Command::OpenFile { task } => {
                if let Ok(item) = self.at(task) {
                    item.file = File::BeingWritten;
                }
            }
            Command::RemoveFile { task, by } => {
                self.own_name(by)?;
                let item = self.at(task)?;
                if item.holder().is_some_and(|holder| *holder != by.worker && !by.operator) {
                    return Err(Class::Busy);
                }
                item.file = File::Gone;
            }
            Command::FileGone { task } => {
                if let Ok(item) = self.at(task) {
                    item.file = File::Gone;
                }
            }
            Command::Withdraw { task } => {
                self.items
                    .retain(|item| item.id != *task || item.file != File::Gone || item.stage != Stage::Open);
            }
            Command::Forget { task, by } => {
                self.own_name(by)?;
                let item = self.at(task)?;
                let (ended, gone) = (matches!(item.stage, Stage::Ended { .. }), item.file == File::Gone);
                match (by.operator, ended, gone) {
                    (false, ..) | (true, true, false) => return Err(Class::Denied),
                    (true, false, _) => return Err(Class::NotThere),
                    (true, true, true) => self.remove(task),
                }
            }
            Command::Claim { task, by, form, eyes: _ } => return self.claim(task, by, *form, token),
            Command::ClaimNext { by, form, eyes: _ } => {
                self.own_name(by)?;
                if let Some(held) = self.claims(&by.worker).pop() {
                    return self.claim(&held, by, *form, token);
                }
                if *form == ClaimForm::Text && self.ousted.contains(&by.worker) {
                    return Err(Class::Denied);
                }
                if !self.may_claim(&by.worker) {
                    return Err(Class::Denied);
                }
                let Some(best) = self.best_for(&by.worker) else { return Err(Class::NotThere) };
                return self.claim(&best, by, *form, token);
            }
            Command::Note { task, epoch: wanted, by, text } => {
                self.own_name(by)?;
                match &mut self.at(task)?.stage {
                    Stage::Claimed { worker, epoch, note }
                        if (*worker == by.worker || by.operator) && epoch == wanted =>
                    {
                        *note = Some(text.clone());
                    }
                    _ => return Err(Class::Denied),
                }
            }
            Command::Finish { task, by, ending, text, exclusive } => {
                self.own_name(by)?;
                let text = text.as_ref().map(|text| text.whole().unwrap().to_vec());
                return self.finish(task, by, *ending, text, *exclusive, token);
            }
            Command::Report { task, finish: wanted, by, text: new } => {
                self.own_name(by)?;
                match &mut self.at(task)?.stage {
                    Stage::Ended { worker, finish, text, .. }
                        if finish == wanted && (worker.as_ref() == Some(&by.worker) || by.operator) =>
                    {
                        *text = new.whole().map(<[u8]>::to_vec);
                    }
                    _ => return Err(Class::Denied),
                }
            }
            Command::Release { task, by } => {
                self.own_name(by)?;
                let item = self.at(task)?;
                match item.holder() {
                    Some(holder) if *holder == by.worker || by.operator => {
                        let holder = holder.clone();
                        item.stage = Stage::Open;
                        self.claim_ended(task, &holder, holder != by.worker);
                    }
                    _ => return Err(Class::Denied),
                }
            }
            Command::Retry { task, by } => {
                self.own_name(by)?;
                let cycle = self.in_a_cycle(task);
                let item = self.at(task)?;
                let Stage::Ended { .. } = item.stage else { return Err(Class::NotThere) };
                if item.file == File::Gone {
                    return Err(Class::NotThere);
                }
                if cycle {
                    return Err(Class::Busy);
                }
                (item.stage, item.silences) = (Stage::Open, 0);
            }
            Command::Expire { task, epoch: wanted, .. } => {
                let item = self.at(task)?;
                let holder = match &item.stage {
                    Stage::Claimed { epoch, worker, .. } if epoch == wanted => worker.clone(),
                    _ => return Ok(Said::Done),
                };
                item.lose(token);
                self.ousted.insert(holder);
            }
            Command::Depart { worker, epoch: last, .. } => {
                let mut token = token;
                for task in self.claims(worker) {
                    let item = self.at(&task)?;
                    if matches!(&item.stage, Stage::Claimed { epoch, .. } if epoch <= last) {
                        token += item.lose(token);
                        self.ousted.insert(worker.clone());
                    }
                }
            }
            Command::Drain { worker, by, draining } => {
                self.own_name(by)?;
                if *worker != by.worker && !by.operator {
                    return Err(Class::Denied);
                }
                if *worker == by.worker {
                    self.names.entry(worker.clone()).or_insert(by.uid);
                }
                match draining {
                    true => self.draining.insert(worker.clone()),
                    false => self.draining.remove(worker),
                };
            }
            Command::Equip { worker, by, words } => {
                self.own_name(by)?;
                if *worker != by.worker && !by.operator {
                    return Err(Class::Denied);
                }
                if *worker == by.worker {
                    self.names.entry(worker.clone()).or_insert(by.uid);
                }
                self.capabilities.insert(worker.clone(), words.iter().cloned().collect());
            }
            Command::Pause { by, paused } => {
                self.own_name(by)?;
                if !by.operator {
                    return Err(Class::Denied);
                }
                self.paused = *paused;
            }
        }
        Ok(Said::Done)
    }

    /// A name belongs to the uid that used it first; root is exempt (C41).
    fn own_name(&self, by: &Actor) -> Result<(), Class> {
        match self.names.get(&by.worker) {
            Some(owner) if *owner != by.uid && by.uid != 0 => Err(Class::Denied),
            _ => Ok(()),
        }
    }

    fn publish(&mut self, task: &TaskId, manifest: &Manifest, stamp: &FileStamp) {
        self.archived.remove(task);
        if self.find(task).is_none() {
            self.published += 1;
            self.items.push(Item {
                id: task.clone(),
                file: File::Whole,
                ousted: HashSet::new(),
                newest: Manifest::Spec(Spec::titled("").into()),
                stamp: stamp.clone(),
                closes_cycle: false,
                in_force: None,
                age: self.published,
                published: self.now,
                waits_since: None,
                stage: Stage::Open,
                silences: 0,
            });
        }
        let item = self.at(task).expect("it is there now");
        let before = item.needs().to_vec();
        (item.newest, item.stamp, item.file) = (manifest.clone(), stamp.clone(), File::Whole);
        // A file with unchanged needs closes no cycle.
        let closes = match item.needs() == before {
            true => item.closes_cycle,
            false => self.in_a_cycle(task),
        };
        self.at(task).expect("it is there").closes_cycle = closes;
    }

    fn remove(&mut self, task: &TaskId) {
        if self.met(task) {
            self.archived.insert(task.clone());
        }
        self.items.retain(|item| item.id != *task);
    }

    /// A claim has ended. `by_another`: the holder did not end it.
    fn claim_ended(&mut self, task: &TaskId, holder: &WorkerName, by_another: bool) {
        self.ousted.remove(holder);
        if by_another {
            self.ousted.insert(holder.clone());
            self.at(task).expect("it is there").ousted.insert(holder.clone());
        }
    }

    fn claim(&mut self, task: &TaskId, by: &Actor, form: ClaimForm, token: Seq) -> Result<Said, Class> {
        self.own_name(by)?;
        let item = self.find(task).ok_or(Class::NotThere)?;
        match self.state(item) {
            TaskState::Completed | TaskState::Failed | TaskState::Rejected => return Err(Class::NotThere),
            TaskState::Blocked => return Err(Class::Busy),
            TaskState::Claimed if item.holder() == Some(&by.worker) && form != ClaimForm::Exclusive => {
                return Ok(Said::Claimed(task.clone()));
            }
            TaskState::Claimed => return Err(Class::Exists),
            TaskState::Ready if form == ClaimForm::Text && item.ousted.contains(&by.worker) => {
                return Err(Class::Denied);
            }
            TaskState::Ready if !self.may_claim(&by.worker) || !self.is_capable(&by.worker, item) => {
                return Err(Class::Denied);
            }
            TaskState::Ready => {}
        }
        self.names.entry(by.worker.clone()).or_insert(by.uid);
        self.ousted.remove(&by.worker);
        let item = self.at(task)?;
        item.ousted.remove(&by.worker);
        item.stage = Stage::Claimed { worker: by.worker.clone(), epoch: token, note: None };
        Ok(Said::Claimed(task.clone()))
    }

    fn finish(
        &mut self,
        task: &TaskId,
        by: &Actor,
        ending: Ending,
        text: Option<Vec<u8>>,
        exclusive: bool,
        token: Seq,
    ) -> Result<Said, Class> {
        let item = self.at(task)?;
        match &mut item.stage {
            Stage::Ended { how, worker, text: old, .. } => {
                if *how != ending || (worker.as_ref() != Some(&by.worker) && !by.operator) {
                    return Err(Class::Denied);
                }
                if exclusive {
                    return Err(Class::Exists);
                }
                if text.is_some() {
                    *old = text;
                }
                return Ok(Said::Finished);
            }
            Stage::Claimed { worker, .. } if *worker != by.worker && !by.operator => {
                return Err(Class::Denied);
            }
            Stage::Open if !by.operator => return Err(Class::Denied),
            Stage::Claimed { .. } | Stage::Open => {}
        }
        let holder = item.holder().cloned();
        // A finish by an operator counts for no worker.
        let worker = holder.clone().filter(|holder| *holder == by.worker);
        item.stage = Stage::Ended { how: ending, worker: worker.clone(), finish: token, text };
        if let Some(holder) = holder {
            self.claim_ended(task, &holder, holder != by.worker);
        }
        if let Some(worker) = worker {
            let (completed, failed) = self.endings.entry(worker).or_default();
            match ending {
                Ending::Completed => *completed += 1,
                Ending::Failed => *failed += 1,
            }
        }
        Ok(Said::Finished)
    }
}
