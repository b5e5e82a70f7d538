//! The order in which tasks are claimed, and the indexes that find the next one (C13).
//!
//! May assume: a task is removed with the same entry with which it was added.
//! Must never: look at all tasks. A claim costs one look-up for each set of words that some ready task requires.
//!
//! Tasks are ordered by *level*, then by deadline, then by age. The level is the priority, from 1 for `critical` to 5 for `background`,
//! less one for each span of ageing that the task has waited. A task at level 0 is *ripe*: only age counts. So no task that was published
//! later, however urgent, is claimed before a ripe one.

use imbl::OrdMap;

use super::areas::{Areas, HeadChange, HeadChanges};
use super::rank::{Demand, Rank, ReadyPlace, Words};
use super::task::Task;
use super::{Eyes, Span, TaskId, Wall};

/// Rules that mount options set. The log does not have them, so the next mount may have others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long a task waits until it goes up one level.
    pub ageing: Span,
    /// How many tasks a worker may hold at one time; `None` means any number.
    pub claims_per_worker: Option<usize>,
    /// The longest lease. A task that names a longer one has this one.
    pub lease_max: Span,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { ageing: Span(3_600_000), claims_per_worker: None, lease_max: Span(24 * 3_600_000) }
    }
}

/// The place of a task at the time `now`.
pub(super) fn place_of(task: &Task, now: Wall, rules: &Rules) -> ReadyPlace {
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

/// A task that waits to be claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WaitingTask {
    pub(super) id: TaskId,
    owns: Option<Words>,
}

/// What the indexes know of a task; the same value removes it.
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

/// All tasks that wait to be claimed, and what finds the first that a worker may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ReadyIndex {
    /// All of them by rank, ready or barred.
    line: OrdMap<Rank, WaitingTask>,
    /// Ready tasks by what they ask of a worker: all that own no files, and the first of each area.
    claimable: OrdMap<Demand, OrdMap<Rank, TaskId>>,
    areas: Areas,
    /// How many ready tasks own no files.
    ready: usize,
}

impl ReadyIndex {
    /// How many tasks wait to be claimed, ready or barred.
    pub(super) fn waiting(&self) -> usize {
        self.line.len()
    }

    /// How many tasks can be claimed now.
    pub(super) fn ready(&self) -> usize {
        self.ready + self.areas.ready()
    }

    /// All ready tasks, or all barred ones, by rank.
    pub(super) fn listed(&self, ready: bool) -> impl Iterator<Item = &TaskId> {
        let wanted = move |(rank, waiting): &(&Rank, &WaitingTask)| {
            let barred = waiting.owns.as_ref().and_then(|owns| self.areas.barred_by(owns, **rank));
            barred.is_none() == ready
        };
        self.line.iter().filter(wanted).map(|(_, waiting)| &waiting.id)
    }

    /// The task that bars this one, if it is barred.
    pub(super) fn barred_by(&self, task: &Task) -> Option<&TaskId> {
        match task.place.rank {
            Some(rank) if !task.spec.owns.is_empty() => self.areas.barred_by(&task.spec.owns, rank),
            _ => None,
        }
    }

    /// The first ready task for a worker that has these words and may read these files.
    pub(super) fn first(&self, has: impl Fn(&str) -> bool, eyes: &Eyes) -> Option<&TaskId> {
        let mine = self.claimable.iter().filter(|((words, readers), _)| {
            words.iter().all(|word| has(word)) && eyes.may_read(readers.as_deref())
        });
        mine.filter_map(|(_, line)| line.get_min()).min_by_key(|(rank, _)| *rank).map(|(_, id)| id)
    }

    /// What the ready tasks ask of a worker, each once.
    pub(super) fn demands(&self) -> impl Iterator<Item = &Demand> {
        self.claimable.keys()
    }

    /// Add a task.
    pub(super) fn enter(&mut self, id: &TaskId, entry: &IndexEntry) {
        let changes = match entry {
            IndexEntry::Waits { rank, demand, owns } => {
                self.line.insert(*rank, WaitingTask { id: id.clone(), owns: owns.clone() });
                match owns {
                    Some(owns) => self.areas.add_waiting(owns, demand, *rank, id),
                    None => {
                        self.ready += 1;
                        vec![HeadChange::Come(demand.clone(), *rank, id.clone())]
                    }
                }
            }
            IndexEntry::Claimed { owns: Some(owns) } => self.areas.add_claimed(owns, id),
            IndexEntry::Claimed { owns: None } | IndexEntry::Neither => return,
        };
        self.follow(changes);
    }

    /// Remove a task.
    pub(super) fn leave(&mut self, id: &TaskId, entry: &IndexEntry) {
        let changes = match entry {
            IndexEntry::Waits { rank, demand, owns } => {
                self.line.remove(rank);
                match owns {
                    Some(owns) => self.areas.remove_waiting(owns, demand, *rank),
                    None => {
                        self.ready -= 1;
                        vec![HeadChange::Gone(demand.clone(), *rank)]
                    }
                }
            }
            IndexEntry::Claimed { owns: Some(owns) } => self.areas.remove_claimed(owns, id),
            IndexEntry::Claimed { owns: None } | IndexEntry::Neither => return,
        };
        self.follow(changes);
    }

    fn follow(&mut self, changes: HeadChanges) {
        for change in changes {
            match change {
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
