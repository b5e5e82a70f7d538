//! Which tasks may not be worked on at the same time, by the files that their `owns` globs match.
//!
//! May assume: each task is added once, as waiting or as claimed, and removed as it was added.
//! Must never: compare a task with all others. Tasks with the same globs are one area, and areas are found by the directories that their
//! globs spell out.
//!
//! A task is *barred* while a claimed task owns some of the same files. A stream of tasks with few files could bar a task with many files
//! for ever. So the first [`RESERVATIONS`] ripe tasks that are barred also *reserve*: a task that is behind one of them in the line, and
//! owns some of the same files, is barred too. There is no deadlock: only a task that a claim bars reserves, claims end, and a reservation
//! does not count for tasks before it in the line.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::TaskId;
use super::overlap::Globs;
use super::rank::{Demand, Rank, Words};
use crate::limits::RESERVATIONS;

/// All tasks with the same globs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Area {
    globs: Globs,
    /// The tasks that wait to be claimed, by what they ask of a worker.
    waiting: OrdMap<Demand, OrdMap<Rank, TaskId>>,
    /// The tasks that are claimed.
    claimed: OrdSet<TaskId>,
    /// Claimed tasks of any area that own some of the same files.
    bars: OrdSet<TaskId>,
    /// Tasks that reserve some of the same files.
    reserved: OrdMap<Rank, TaskId>,
}

/// The first of the ready tasks of an area that ask the same of a worker.
type AreaHead = (Demand, Rank, TaskId);

/// What the indexes outside of an area see of it.
struct AreaView {
    heads: Vec<AreaHead>,
    ready: usize,
    /// The task that would reserve.
    barred: Option<(Rank, TaskId)>,
}

impl Area {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.claimed.is_empty()
    }

    /// Whether a task of this rank in it can be claimed.
    fn admits(&self, rank: Rank) -> bool {
        self.bars.is_empty() && self.reserved.get_min().is_none_or(|(first, _)| rank <= *first)
    }

    fn view(&self) -> AreaView {
        let firsts = self.waiting.iter().filter_map(|(demand, line)| {
            let (rank, id) = line.get_min()?;
            Some((demand.clone(), *rank, id.clone()))
        });
        if !self.bars.is_empty() {
            let first = firsts.min_by_key(|(_, rank, _)| *rank).filter(|(_, rank, _)| rank.is_ripe());
            return AreaView { heads: Vec::new(), ready: 0, barred: first.map(|(_, rank, id)| (rank, id)) };
        }
        let heads = firsts.filter(|(_, rank, _)| self.admits(*rank)).collect();
        let ready = match self.reserved.get_min() {
            None => self.waiting.values().map(OrdMap::len).sum(),
            Some((first, _)) => self.waiting.values().map(|line| line.range(..=*first).count()).sum(),
        };
        AreaView { heads, ready, barred: None }
    }
}

/// A change of the heads.
pub(super) enum HeadChange {
    /// This task is a head now.
    Come(Demand, Rank, TaskId),
    /// The task of this rank is no head any more.
    Gone(Demand, Rank),
}

/// Changes of the heads, in their order.
pub(super) type HeadChanges = Vec<HeadChange>;

/// Areas by the directories that their globs spell out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Roots(OrdMap<String, OrdSet<Words>>);

impl Roots {
    fn enter(&mut self, owns: &Words, globs: &Globs) {
        for root in globs.roots() {
            self.0.entry(root).or_default().insert(owns.clone());
        }
    }

    fn leave(&mut self, owns: &Words, globs: &Globs) {
        for root in globs.roots() {
            if let Some(here) = self.0.get_mut(&root) {
                here.remove(owns);
                if here.is_empty() {
                    self.0.remove(&root);
                }
            }
        }
    }

    /// The areas that may share files with these globs: a directory that one spells out is above one of the other's.
    fn near(&self, globs: &Globs) -> BTreeSet<Words> {
        let mut found = BTreeSet::new();
        for root in globs.roots() {
            let above =
                root.match_indices('/').map(|(slash, _)| &root[..slash + 1]).filter(|dir| *dir != root);
            let above = std::iter::once("").filter(|_| !root.is_empty()).chain(above);
            let above = above.filter_map(|dir| self.0.get(dir));
            let below = self.0.range(root.clone()..).take_while(|(dir, _)| dir.starts_with(&root));
            found.extend(above.chain(below.map(|(_, areas)| areas)).flatten().cloned());
        }
        found
    }
}

/// All areas with a task that waits or is claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Areas {
    areas: OrdMap<Words, Arc<Area>>,
    roots: Roots,
    /// The roots of areas with a claimed task.
    working: Roots,
    /// The first task of each barred area, if it is ripe.
    barred: OrdMap<Rank, (TaskId, Words)>,
    /// The tasks among `barred` that reserve.
    reserving: OrdMap<Rank, (TaskId, Words)>,
    ready: usize,
}

impl Areas {
    /// How many tasks that own files are ready.
    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// The task that bars a waiting one: a claimed task, or one that reserves.
    pub(super) fn barred_by(&self, owns: &[String], rank: Rank) -> Option<&TaskId> {
        let area = self.areas.get(owns)?;
        let reserved = || area.reserved.get_min().filter(|(first, _)| *first < rank).map(|(_, id)| id);
        area.bars.get_min().or_else(reserved)
    }

    /// Add a task that waits.
    pub(super) fn add_waiting(
        &mut self,
        owns: &Words,
        demand: &Demand,
        rank: Rank,
        id: &TaskId,
    ) -> HeadChanges {
        let mut changes = HeadChanges::new();
        self.open(owns);
        self.change(owns, &mut changes, |area| {
            area.waiting.entry(demand.clone()).or_default().insert(rank, id.clone());
        });
        self.settle(&mut changes);
        changes
    }

    /// Remove a task that waits.
    pub(super) fn remove_waiting(&mut self, owns: &Words, demand: &Demand, rank: Rank) -> HeadChanges {
        let mut changes = HeadChanges::new();
        self.change(owns, &mut changes, |area| {
            if let Some(line) = area.waiting.get_mut(demand) {
                line.remove(&rank);
                if line.is_empty() {
                    area.waiting.remove(demand);
                }
            }
        });
        self.settle(&mut changes);
        self.close(owns);
        changes
    }

    /// Add a claimed task.
    pub(super) fn add_claimed(&mut self, owns: &Words, id: &TaskId) -> HeadChanges {
        let mut changes = HeadChanges::new();
        self.open(owns);
        self.change(owns, &mut changes, |area| drop(area.claimed.insert(id.clone())));
        if let Some(area) = self.areas.get(owns) {
            self.working.enter(owns, &area.globs);
        }
        for other in self.overlapping(owns) {
            self.change(&other, &mut changes, |area| drop(area.bars.insert(id.clone())));
        }
        self.settle(&mut changes);
        changes
    }

    /// Remove a claimed task.
    pub(super) fn remove_claimed(&mut self, owns: &Words, id: &TaskId) -> HeadChanges {
        let mut changes = HeadChanges::new();
        for other in self.overlapping(owns) {
            self.change(&other, &mut changes, |area| drop(area.bars.remove(id)));
        }
        self.change(owns, &mut changes, |area| drop(area.claimed.remove(id)));
        if let Some(area) = self.areas.get(owns).filter(|area| area.claimed.is_empty()) {
            self.working.leave(owns, &area.globs);
        }
        self.settle(&mut changes);
        self.close(owns);
        changes
    }

    /// Make the area of these globs, if there is none.
    fn open(&mut self, owns: &Words) {
        if self.areas.contains_key(owns) {
            return;
        }
        let globs = Globs::new(owns);
        self.roots.enter(owns, &globs);
        let mut area = Area {
            globs,
            waiting: OrdMap::new(),
            claimed: OrdSet::new(),
            bars: OrdSet::new(),
            reserved: OrdMap::new(),
        };
        for (rank, (id, by)) in &self.reserving {
            if self.areas.get(by).is_some_and(|other| other.globs.overlap(&area.globs)) {
                area.reserved.insert(*rank, id.clone());
            }
        }
        for other in self.working.near(&area.globs) {
            if let Some(other) = self.areas.get(&other)
                && other.globs.overlap(&area.globs)
            {
                area.bars.extend(other.claimed.iter().cloned());
            }
        }
        self.areas.insert(owns.clone(), Arc::new(area));
    }

    /// Remove an area without tasks.
    fn close(&mut self, owns: &Words) {
        let Some(area) = self.areas.get(owns).filter(|area| area.is_empty()).cloned() else { return };
        self.areas.remove(owns);
        self.roots.leave(owns, &area.globs);
    }

    /// Change one area, and what follows outside of it.
    fn change(&mut self, owns: &Words, changes: &mut HeadChanges, change: impl FnOnce(&mut Area)) {
        let Some(area) = self.areas.get_mut(owns) else { return };
        let before = area.view();
        change(Arc::make_mut(area));
        let after = area.view();
        self.ready = self.ready + after.ready - before.ready;
        if before.barred != after.barred {
            if let Some((rank, _)) = before.barred {
                self.barred.remove(&rank);
            }
            if let Some((rank, id)) = after.barred {
                self.barred.insert(rank, (id, owns.clone()));
            }
        }
        changes.extend(before.heads.into_iter().map(|(demand, rank, _)| HeadChange::Gone(demand, rank)));
        changes.extend(after.heads.into_iter().map(|(demand, rank, id)| HeadChange::Come(demand, rank, id)));
    }

    /// Have the first barred tasks reserve, and no others.
    fn settle(&mut self, changes: &mut HeadChanges) {
        let wanted: OrdMap<Rank, (TaskId, Words)> =
            self.barred.iter().take(RESERVATIONS).map(|(rank, by)| (*rank, by.clone())).collect();
        if wanted == self.reserving {
            return;
        }
        let before = std::mem::replace(&mut self.reserving, wanted.clone());
        for (rank, (_, owns)) in before.iter().filter(|(rank, _)| !wanted.contains_key(*rank)) {
            for other in self.overlapping(owns) {
                self.change(&other, changes, |area| drop(area.reserved.remove(rank)));
            }
        }
        for (rank, (id, owns)) in wanted.iter().filter(|(rank, _)| !before.contains_key(*rank)) {
            for other in self.overlapping(owns) {
                self.change(&other, changes, |area| drop(area.reserved.insert(*rank, id.clone())));
            }
        }
    }

    /// The areas that may match a file that this one matches, itself among them.
    fn overlapping(&self, owns: &Words) -> Vec<Words> {
        let Some(area) = self.areas.get(owns) else { return Vec::new() };
        let near = self.roots.near(&area.globs).into_iter();
        near.filter(|other| self.areas.get(other).is_some_and(|a| a.globs.overlap(&area.globs))).collect()
    }
}
