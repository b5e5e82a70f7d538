//! Undo, as a plan: which path gets which version when the changes of chosen steps are taken back.
//!
//! May assume: the steps come oldest first, with every later step of the same paths among them.
//! Must never: touch a file, or plan anything for a path whose result would be a guess. It asks a [`VersionSource`] for versions and
//! content, and nothing else.
//!
//! The changes of the chosen steps are taken back from the last to the first. Where a path still is as a step left it, it becomes what it
//! was before; where others changed it since, the two changes are merged. Paths that a chosen step renamed into one another form a
//! [`Family`]: they are undone together, or not at all.

mod family;
mod same;
mod take_back;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use self::family::{Family, families};
use self::same::are_alike;
use self::take_back::{Recognized, Slot, TakeBack, recognize};
use super::{ContentId, KeptContent, Step, Version, VersionKind, merge};

/// The program of the steps that an undo makes.
pub const UNDO_PROGRAM: &str = "crewfs";

/// What the planner asks for.
pub trait VersionSource {
    /// What is at a path now; `None` if nothing is, or a directory that is not empty. Without `read`, the content of a file counts as not
    /// kept.
    ///
    /// # Errors
    /// Why that cannot be said.
    fn present(&mut self, path: &Path, read: bool) -> Result<Option<Version>, String>;

    /// The directory at a path, by what it holds besides these paths and directories of them.
    fn directory(&mut self, path: &Path, besides: &HashSet<&Path>) -> DirectoryUse;

    /// The content with this id, from the history or from the tree.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn content(&mut self, id: ContentId) -> Result<Vec<u8>, String>;

    /// Whether files can be given to other owners.
    fn keeps_owners(&self) -> bool;
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a directory is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryUse {
    /// There is none.
    Missing,
    /// It holds nothing else.
    Free,
    /// It holds something else.
    InUse,
}

/// The id that the history gives this content.
///
/// # Panics
/// If there is no memory.
pub fn content_id(content: &[u8]) -> ContentId {
    git2::Oid::hash_object(git2::ObjectType::Blob, content).expect("memory for a hash").into()
}

/// What becomes of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UndoOutcome {
    /// It is as it should be already.
    AlreadySo,
    /// It gets a version of the history.
    Restored,
    /// It gets a version of the history, merged with what others changed since.
    Merged,
    /// It gets other rights or another owner only.
    Attributes,
    /// It is removed.
    Removed,
    /// The file at this path moves to another one, which has an outcome of its own.
    MovedAway,
    /// The file that is now at another path moves here.
    MovedFrom(PathBuf),
    /// Nothing is planned for it.
    Conflict(ConflictReason),
    /// Nothing is planned for it, because a path that belongs to it conflicts.
    HeldBack,
}

/// Why a path cannot be undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConflictReason {
    /// Others changed the same part of it.
    ChangedSince,
    /// It was made, and others changed it.
    ChangedSinceMade,
    /// Others changed its rights.
    AttributesSince,
    /// Others removed it.
    RemovedSince,
    /// Others made something else at this path.
    MadeSince,
    /// A version that undo needs is not in the history.
    NotKept,
    /// It cannot be read.
    Unreadable(String),
}

impl fmt::Display for ConflictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConflictReason::ChangedSince => f.write_str("it was changed since, in the same lines"),
            ConflictReason::ChangedSinceMade => f.write_str("it was changed since it was made"),
            ConflictReason::AttributesSince => f.write_str("its mode was changed since"),
            ConflictReason::RemovedSince => f.write_str("it was removed since"),
            ConflictReason::MadeSince => f.write_str("there is another file since"),
            ConflictReason::NotKept => f.write_str("its content is not in the history"),
            ConflictReason::Unreadable(why) => f.write_str(why),
        }
    }
}

/// The plan for a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPlan {
    /// The path from the root of the project.
    pub path: PathBuf,
    /// What is there now.
    pub present: Option<Version>,
    /// What is to be there. Of a conflict: what was there before the change that cannot be taken back.
    pub wanted: Option<Version>,
    /// What becomes of it.
    pub outcome: UndoOutcome,
}

/// The plan of an undo.
#[derive(Debug, Default)]
pub struct UndoPlan {
    /// Every path of the chosen steps, in order.
    pub paths: Vec<PathPlan>,
    /// The content of merged files, which is in no history yet.
    pub merged: HashMap<ContentId, Vec<u8>>,
}

impl UndoPlan {
    /// Whether a path conflicts.
    pub fn has_conflicts(&self) -> bool {
        self.paths.iter().any(|path| matches!(path.outcome, UndoOutcome::Conflict(_)))
    }
}

/// A step, and whether it is to be taken back.
#[derive(Debug, Clone, Copy)]
pub struct ChosenStep<'a> {
    /// The step.
    pub step: &'a Step,
    /// Whether its changes are to be taken back.
    pub chosen: bool,
}

/// Plan to take back the changes of the chosen steps, oldest first. With `within`, only those of this path and the paths below it, and of
/// the paths that they were renamed from or to.
pub fn plan_undo(
    steps: &[ChosenStep<'_>],
    within: Option<&Path>,
    source: &mut dyn VersionSource,
) -> UndoPlan {
    let mut plan = UndoPlan::default();
    let mut contents = KnownContents { source, made: HashMap::new() };
    for family in families(steps, &mut contents) {
        if within.is_none_or(|within| family.paths.iter().any(|path| path.starts_with(within))) {
            plan.paths.extend(plan_family(&family, &mut contents));
        }
    }
    plan.paths.sort_by(|a, b| a.path.cmp(&b.path));
    plan.merged = contents.made;
    plan
}

/// The contents of a source, and those that were merged from them.
struct KnownContents<'a> {
    source: &'a mut dyn VersionSource,
    made: HashMap<ContentId, Vec<u8>>,
}

impl KnownContents<'_> {
    fn get(&mut self, id: ContentId) -> Result<Vec<u8>, String> {
        self.made.get(&id).cloned().map_or_else(|| self.source.content(id), Ok)
    }

    /// The content of a file or link, if it is kept and can be read.
    fn of(&mut self, version: Option<Version>) -> Option<Vec<u8>> {
        match version?.content {
            KeptContent::Kept(id) if version?.kind != VersionKind::Directory => self.get(id).ok(),
            _ => None,
        }
    }

    fn merge(
        &mut self,
        base: ContentId,
        ours: ContentId,
        theirs: ContentId,
    ) -> Result<Option<ContentId>, String> {
        let (base, ours, theirs) = (self.get(base)?, self.get(ours)?, self.get(theirs)?);
        let Some(merged) = merge(&base, &ours, &theirs) else { return Ok(None) };
        let id = content_id(&merged);
        self.made.insert(id, merged);
        Ok(Some(id))
    }
}

fn plan_family(family: &Family, contents: &mut KnownContents<'_>) -> Vec<PathPlan> {
    let mut present = Vec::with_capacity(family.paths.len());
    let mut unreadable = None;
    for (index, path) in family.paths.iter().enumerate() {
        present.push(contents.source.present(path, !family.is_not_kept(index)).unwrap_or_else(|why| {
            unreadable.get_or_insert((index, ConflictReason::Unreadable(why), None));
            None
        }));
    }
    // A directory that was empty before a step may hold something again.
    for (index, path) in family.paths.iter().enumerate() {
        if present[index].is_none()
            && contents.source.directory(path, &HashSet::new()) != DirectoryUse::Missing
        {
            present[index] = family.empty_directory(index);
        }
    }
    let outcome = match unreadable {
        Some(conflict) => Err(conflict),
        None => undo_family(family, &present, contents),
    };
    let outcome = outcome.and_then(|slots| check_directories(family, slots, contents));
    let slots = match outcome {
        Ok(slots) => slots,
        Err((index, reason, wanted)) => {
            let held_back = |(other, path): (usize, &PathBuf)| PathPlan {
                path: path.clone(),
                present: present[other],
                wanted: if other == index { wanted } else { present[other] },
                outcome: if other == index {
                    UndoOutcome::Conflict(reason.clone())
                } else {
                    UndoOutcome::HeldBack
                },
            };
            return family.paths.iter().enumerate().map(held_back).collect();
        }
    };
    let outcome = |index: usize| {
        let (now, slot) = (present[index], &slots[index]);
        let is_moved_away =
            slots.iter().enumerate().any(|(to, slot)| to != index && slot.origin == Some(index));
        match (now, slot.version) {
            (_, Some(_)) if slot.origin.is_some_and(|from| from != index) => {
                UndoOutcome::MovedFrom(family.paths[slot.origin.unwrap_or(index)].clone())
            }
            (now, wanted) if are_alike(now, wanted) && !owner_differs(now, wanted) => UndoOutcome::AlreadySo,
            (Some(_), None) if is_moved_away => UndoOutcome::MovedAway,
            (Some(_), None) => UndoOutcome::Removed,
            (Some(now), Some(wanted)) if now.kind == wanted.kind && now.content == wanted.content => {
                UndoOutcome::Attributes
            }
            _ if slot.is_merged => UndoOutcome::Merged,
            _ => UndoOutcome::Restored,
        }
    };
    let planned = |(index, path): (usize, &PathBuf)| PathPlan {
        path: path.clone(),
        present: present[index],
        wanted: slots[index].version,
        outcome: outcome(index),
    };
    family.paths.iter().enumerate().map(planned).collect()
}

fn owner_differs(now: Option<Version>, wanted: Option<Version>) -> bool {
    now.zip(wanted).is_some_and(|(now, wanted)| (now.uid, now.gid) != (wanted.uid, wanted.gid))
}

/// A conflict: at which path, why, and what was to be there.
type FamilyConflict = (usize, ConflictReason, Option<Version>);

/// What each path of a family is to be.
fn undo_family(
    family: &Family,
    present: &[Option<Version>],
    contents: &mut KnownContents<'_>,
) -> Result<Vec<Slot>, FamilyConflict> {
    let mut attempt = |recognized: Recognize| {
        let pending = pending(family, present, recognized, contents);
        let mut slots: Vec<Slot> =
            present.iter().enumerate().map(|(n, version)| Slot::found(n, *version)).collect();
        for step in pending.iter().rev() {
            step.take_back(&mut slots, contents)?;
        }
        write_what_cannot_move(family, &mut slots, present)?;
        Ok(slots)
    };
    // Another worker's step may have removed the changes by accident, and a later one brought them back.
    attempt(Recognize::Undos).or_else(|_| attempt(Recognize::All))
}

/// Which later steps may have taken changes back already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recognize {
    /// Those that an undo made.
    Undos,
    /// All.
    All,
}

/// The changes that still have to be taken back. What an earlier undo took back is left out, unless that undo was taken back itself.
fn pending(
    family: &Family,
    present: &[Option<Version>],
    recognized: Recognize,
    contents: &mut KnownContents<'_>,
) -> Vec<TakeBack> {
    let mut at: Vec<Option<Version>> = family.first_versions();
    let mut pending: Vec<TakeBack> = Vec::new();
    let mut undone: Vec<(Vec<TakeBack>, TakeBack)> = Vec::new();
    for step in &family.steps {
        step.changes.iter().for_each(|change| at[change.path] = change.before);
        let mut next = at.clone();
        step.changes.iter().for_each(|change| next[change.path] = change.after);
        if step.chosen {
            pending.push(TakeBack::of(step));
        } else if step.is_undo || recognized == Recognize::All {
            match recognize(&at, &next, &pending, contents) {
                Recognized::Undo(rest) => {
                    undone.push((std::mem::take(&mut pending), TakeBack::between(&at, &next)));
                    pending.extend(rest);
                }
                Recognized::Other => {
                    let redone = undone.last().is_some_and(|(_, undo)| {
                        let undo = std::slice::from_ref(undo);
                        matches!(recognize(&at, &next, undo, contents), Recognized::Undo(_))
                    });
                    if redone && let Some((before, _)) = undone.pop() {
                        pending.splice(..0, before);
                    }
                }
            }
        }
        at = next;
    }
    // An undo that was not recorded yet.
    if let Recognized::Undo(rest) = recognize(&at, present, &pending, contents) {
        return rest.into_iter().collect();
    }
    pending
}

/// Files that would have to move in a circle, or into a directory that is a file until then, are written anew instead.
fn write_what_cannot_move(
    family: &Family,
    slots: &mut [Slot],
    present: &[Option<Version>],
) -> Result<(), FamilyConflict> {
    let is_nested = |path: &Path| {
        let others = family.paths.iter().filter(|other| **other != *path);
        others.into_iter().any(|other| path.starts_with(other) || other.starts_with(path))
    };
    for start in 0..slots.len() {
        let Some(from) = slots[start].origin.filter(|from| *from != start) else { continue };
        let (mut at, mut steps, mut turns) = (from, 0, false);
        while let Some(next) = slots[at].origin.filter(|next| *next != at && steps < slots.len()) {
            turns |= next == start;
            (at, steps) = (next, steps + 1);
        }
        if !turns && !is_nested(&family.paths[start]) && !is_nested(&family.paths[from]) {
            continue;
        }
        let version = slots[start].version;
        if version.is_none_or(|version| matches!(version.content, KeptContent::NotKept { .. })) {
            return Err((start, ConflictReason::NotKept, version));
        }
        slots[start].origin = present[start].map(|_| start);
    }
    Ok(())
}

/// Where a file or a link is to be, a directory must hold nothing that stays.
fn check_directories(
    family: &Family,
    slots: Vec<Slot>,
    contents: &mut KnownContents<'_>,
) -> Result<Vec<Slot>, FamilyConflict> {
    let gone = family.paths.iter().zip(&slots).filter(|(_, slot)| slot.version.is_none());
    let gone: HashSet<&Path> = gone.map(|(path, _)| &**path).collect();
    for (index, slot) in slots.iter().enumerate() {
        let is_leaf = slot.version.is_some_and(|version| version.kind != VersionKind::Directory);
        if is_leaf && contents.source.directory(&family.paths[index], &gone) == DirectoryUse::InUse {
            return Err((index, ConflictReason::MadeSince, slot.version));
        }
    }
    Ok(slots)
}

#[cfg(test)]
mod tests;
