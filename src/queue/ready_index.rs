//! The order in which tasks go to workers, and the indexes that find the next one (C13).
//!
//! May assume: a task is taken out as it was entered.
//! Must never: look at all tasks. A claim costs a look-up for each set of words that some ready task requires.
//!
//! A task stands in line by its *level*, then by its deadline, then by its age. The level is its priority, from 1 for
//! `critical` to 5 for `background`, less one for each span of ageing that it has waited. At level 0 it is *ripe*:
//! then only age counts. So whoever has waited for as many spans as its level is passed by nobody who was published later,
//! however urgent.

use std::sync::Arc;

use imbl::OrdMap;

use super::areas::{Areas, HeadChange, HeadChanges};
use super::task::Task;
use super::{Access, Eyes, Seq, Span, TaskId, Wall};

/// What the one who mounts chooses, and the log does not know: it may be another next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// After so long a wait a task goes one level up.
    pub ageing: Span,
    /// How many tasks a worker may hold at one time; any number if it is not said.
    pub claims_per_worker: Option<usize>,
    /// The longest lease: a task that names a longer one has this.
    pub lease_max: Span,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { ageing: Span(3_600_000), claims_per_worker: None, lease_max: Span(24 * 3_600_000) }
    }
}

/// A list of words or globs that many tasks may share.
pub(super) type Words = Arc<[String]>;

/// What a task asks of a worker: the words that it requires, and the right to read its file where not every user has it.
pub(super) type Demand = (Words, Option<Arc<Access>>);

/// Where a task stands in line: lower goes first. No two tasks have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    level: u8,
    deadline: Wall,
    age: Seq,
}

impl Rank {
    /// Whether only age counts.
    pub(super) fn is_ripe(self) -> bool {
        self.level == 0
    }
}

/// What follows for a task from the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReadyPlace {
    /// Where it stands in line, if it waits to be claimed.
    pub(super) rank: Option<Rank>,
    /// When something about it changes by itself.
    pub(super) due: Option<Wall>,
}

impl ReadyPlace {
    /// The place of a task at this time.
    pub(super) fn of(task: &Task, now: Wall, rules: &Rules) -> ReadyPlace {
        let mut due = [None; 3];
        if task.is_unfinished() {
            due[0] = task.deadline();
        }
        let rank = task.waits_since.filter(|_| task.is_open() && task.has_whole_file()).map(|since| {
            let waited = u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0) / rules.ageing.0.max(1);
            let base = task.spec.priority as u8 + 1;
            let level = base.saturating_sub(u8::try_from(waited).unwrap_or(u8::MAX));
            let deadline = task.deadline().filter(|_| level > 0).unwrap_or(Wall(i64::MAX));
            due[1] = (level > 0)
                .then(|| since.after(Span(rules.ageing.0.max(1).saturating_mul(waited.saturating_add(1)))));
            Rank { level, deadline, age: task.published.seq }
        });
        if task.is_open() {
            due[2] = task.not_before();
        }
        let due = due.into_iter().flatten().filter(|wall| *wall > now).min();
        ReadyPlace { rank, due }
    }
}

/// Who stands in line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WaitingTask {
    pub(super) id: TaskId,
    owns: Option<Words>,
}

/// What the indexes know of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IndexEntry {
    Waits { rank: Rank, demand: Demand, owns: Option<Words> },
    Claimed { owns: Option<Words> },
    Neither,
}

impl IndexEntry {
    pub(super) fn of(task: &Task) -> IndexEntry {
        let owns = || (!task.spec.owns.is_empty()).then(|| Words::from(&task.spec.owns[..]));
        match (task.place.rank, task.claim()) {
            (Some(rank), _) => {
                let mut requires = task.spec.requires.clone();
                requires.sort();
                requires.dedup();
                let demand = (requires.into(), task.stamp.readers.clone());
                IndexEntry::Waits { rank, demand, owns: owns() }
            }
            (None, Some(_)) => IndexEntry::Claimed { owns: owns() },
            (None, None) => IndexEntry::Neither,
        }
    }
}

/// The line, and what is needed to find the first in it whom somebody may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ReadyIndex {
    /// All that wait to be claimed, ready or barred.
    line: OrdMap<Rank, WaitingTask>,
    /// Ready tasks by what they ask: all that own nothing, and of each area the first.
    claimable: OrdMap<Demand, OrdMap<Rank, TaskId>>,
    areas: Areas,
    /// How many of the ready ones own nothing.
    ready: usize,
}

impl ReadyIndex {
    /// How many wait to be claimed, ready or barred.
    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }

    /// How many can be claimed now.
    pub(super) fn ready(&self) -> usize {
        self.ready + self.areas.ready()
    }

    /// All that wait and are ready, or all that are barred, best first.
    pub(super) fn listed(&self, ready: bool) -> impl Iterator<Item = &TaskId> {
        let wanted = move |(rank, waiting): &(&Rank, &WaitingTask)| {
            let barred = waiting.owns.as_ref().and_then(|owns| self.areas.barred_by(owns, **rank));
            barred.is_none() == ready
        };
        self.line.iter().filter(wanted).map(|(_, waiting)| &waiting.id)
    }

    /// Who bars a task that waits, if anybody does.
    pub(super) fn barred_by(&self, task: &Task) -> Option<&TaskId> {
        match task.place.rank {
            Some(rank) if !task.spec.owns.is_empty() => self.areas.barred_by(&task.spec.owns, rank),
            _ => None,
        }
    }

    /// The first of the ready tasks for a worker that has these words, and these eyes.
    pub(super) fn first(&self, has: impl Fn(&str) -> bool, eyes: &Eyes) -> Option<&TaskId> {
        let mine = self.claimable.iter().filter(|((words, readers), _)| {
            words.iter().all(|word| has(word)) && eyes.may_read(readers.as_deref())
        });
        mine.filter_map(|(_, line)| line.get_min()).min_by_key(|(rank, _)| *rank).map(|(_, id)| id)
    }

    /// What ready tasks ask.
    pub(super) fn demands(&self) -> impl Iterator<Item = &Demand> {
        self.claimable.keys()
    }

    pub(super) fn enter(&mut self, id: &TaskId, standing: &IndexEntry) {
        let turn = match standing {
            IndexEntry::Waits { rank, demand, owns } => {
                self.line.insert(*rank, WaitingTask { id: id.clone(), owns: owns.clone() });
                match owns {
                    Some(owns) => self.areas.waits(owns, demand, *rank, id),
                    None => {
                        self.ready += 1;
                        vec![HeadChange::Come(demand.clone(), *rank, id.clone())]
                    }
                }
            }
            IndexEntry::Claimed { owns: Some(owns) } => self.areas.claimed(owns, id),
            IndexEntry::Claimed { owns: None } | IndexEntry::Neither => return,
        };
        self.follow(turn);
    }

    pub(super) fn leave(&mut self, id: &TaskId, standing: &IndexEntry) {
        let turn = match standing {
            IndexEntry::Waits { rank, demand, owns } => {
                self.line.remove(rank);
                match owns {
                    Some(owns) => self.areas.left(owns, demand, *rank),
                    None => {
                        self.ready -= 1;
                        vec![HeadChange::Gone(demand.clone(), *rank)]
                    }
                }
            }
            IndexEntry::Claimed { owns: Some(owns) } => self.areas.released(owns, id),
            IndexEntry::Claimed { owns: None } | IndexEntry::Neither => return,
        };
        self.follow(turn);
    }

    fn follow(&mut self, turn: HeadChanges) {
        for step in turn {
            match step {
                HeadChange::Come(demand, rank, id) => {
                    self.claimable.entry(demand).or_default().insert(rank, id);
                }
                HeadChange::Gone(demand, rank) => {
                    if let Some(line) = self.claimable.get_mut(&demand) {
                        line.remove(&rank);
                        if line.is_empty() {
                            self.claimable.remove(&demand);
                        }
                    }
                }
            }
        }
    }
}
