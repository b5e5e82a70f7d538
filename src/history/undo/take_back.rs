//! Takes the changes of one step back, on versions in memory.
//!
//! May assume: the step's changes are of one family.
//! Must never: answer with a version that is in no history and was not merged from such.

use super::family::{FamilyChange, FamilyStep};
use super::same::{are_alike, are_same, seem_one};
use super::{ConflictReason, FamilyConflict, KnownContents};
use crate::history::{KeptContent, Version, VersionKind};

/// What a path is to be.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) version: Option<Version>,
    /// The path at which the file is now that is to be here; `None` if a file has to be made.
    pub(super) origin: Option<usize>,
    /// Whether its content was merged.
    pub(super) is_merged: bool,
}

impl Slot {
    /// A path as it was found.
    pub(super) fn found(path: usize, version: Option<Version>) -> Slot {
        Slot { version, origin: version.map(|_| path), is_merged: false }
    }

    const EMPTY: Slot = Slot { version: None, origin: None, is_merged: false };
}

/// The changes of a step, to be taken back.
#[derive(Debug, Clone)]
pub(super) struct TakeBack {
    changes: Vec<FamilyChange>,
    renames: Vec<(usize, usize)>,
}

impl TakeBack {
    pub(super) fn of(step: &FamilyStep) -> TakeBack {
        TakeBack { changes: step.changes.clone(), renames: step.renames.clone() }
    }

    /// The changes between two states of a family.
    pub(super) fn between(before: &[Option<Version>], after: &[Option<Version>]) -> TakeBack {
        let change = |(path, (before, after)): (usize, (&Option<Version>, &Option<Version>))| FamilyChange {
            path,
            before: *before,
            after: *after,
        };
        let all = before.iter().zip(after).enumerate().map(change);
        TakeBack {
            changes: all.filter(|change| !are_alike(change.before, change.after)).collect(),
            renames: Vec::new(),
        }
    }

    fn before(&self, path: usize) -> Option<Version> {
        self.changes.iter().find(|change| change.path == path)?.before
    }

    fn after(&self, path: usize) -> Option<Version> {
        self.changes.iter().find(|change| change.path == path)?.after
    }

    /// Take the changes back.
    pub(super) fn take_back(
        &self,
        slots: &mut [Slot],
        contents: &mut KnownContents<'_>,
    ) -> Result<(), FamilyConflict> {
        let mut moved = Vec::new();
        for &(old, new) in &self.renames {
            let (Some(before), Some(after)) = (self.before(old), self.after(new)) else { continue };
            match (slots[old].version, slots[new].version) {
                (None, Some(now)) => {
                    let reason = |reason| (new, reason, Some(before));
                    let (version, is_merged) = if seem_one(before, after) && seem_one(after, now) {
                        (now, false)
                    } else {
                        modified(before, after, now, contents).map_err(reason)?
                    };
                    let origin = slots[new].origin;
                    let is_merged = is_merged || slots[new].is_merged;
                    slots[old] = Slot { version: Some(version), origin, is_merged };
                    slots[new] = Slot::EMPTY;
                }
                // It was moved back already.
                (Some(now), None) => {
                    if !are_same(before, now) && !seem_one(before, now) {
                        let reason = |reason| (old, reason, Some(before));
                        let (version, is_merged) = modified(before, after, now, contents).map_err(reason)?;
                        slots[old].version = Some(version);
                        slots[old].is_merged |= is_merged;
                    }
                }
                _ => continue,
            }
            moved.extend([old, new]);
        }
        for change in self.changes.iter().filter(|change| !moved.contains(&change.path)) {
            let slot = &mut slots[change.path];
            let (version, is_merged) = taken_back(change.before, change.after, slot.version, contents)
                .map_err(|reason| (change.path, reason, change.before))?;
            match (slot.version, version) {
                (Some(_), None) | (None, Some(_)) => *slot = Slot { version, ..Slot::EMPTY },
                _ => (slot.version, slot.is_merged) = (version, slot.is_merged | is_merged),
            }
        }
        Ok(())
    }
}

/// A version, and whether it was merged.
type Reverted = (Version, bool);

/// What is at a path when a change is taken back.
fn taken_back(
    before: Option<Version>,
    after: Option<Version>,
    now: Option<Version>,
    contents: &mut KnownContents<'_>,
) -> Result<(Option<Version>, bool), ConflictReason> {
    let is_kept = |version: Version| {
        version.kind == VersionKind::Directory || matches!(version.content, KeptContent::Kept(_))
    };
    match (before, after, now) {
        (None, None, now) => Ok((now, false)),
        (None, Some(_), None) => Ok((None, false)),
        (None, Some(after), Some(now)) if are_same(after, now) => Ok((None, false)),
        (None, Some(after), Some(_)) if !is_kept(after) => Err(ConflictReason::NotKept),
        (None, Some(_), Some(_)) => Err(ConflictReason::ChangedSinceMade),
        (Some(before), None, None) if !is_kept(before) => Err(ConflictReason::NotKept),
        (Some(before), None, None) => Ok((Some(before), false)),
        (Some(before), None, Some(now)) if are_same(before, now) => Ok((Some(now), false)),
        (Some(_), None, Some(_)) => Err(ConflictReason::MadeSince),
        (Some(_), Some(_), None) => Err(ConflictReason::RemovedSince),
        (Some(before), Some(after), Some(now)) => {
            modified(before, after, now, contents).map(|(version, is_merged)| (Some(version), is_merged))
        }
    }
}

/// `now` without the change from `before` to `after`.
fn modified(
    before: Version,
    after: Version,
    now: Version,
    contents: &mut KnownContents<'_>,
) -> Result<Reverted, ConflictReason> {
    let (mut version, is_merged) = content_without(before, after, now, contents)?;
    let same_mode = before.mode == after.mode || now.mode == before.mode;
    version.mode =
        if version.kind == VersionKind::Symlink || version.kind != now.kind || now.mode == after.mode {
            before.mode
        } else if same_mode {
            now.mode
        } else {
            return Err(ConflictReason::AttributesSince);
        };
    let gets_owner = contents.source.keeps_owners() && (now.uid, now.gid) == (after.uid, after.gid);
    let owner = if gets_owner { before } else { now };
    (version.uid, version.gid) = (owner.uid, owner.gid);
    Ok((version, is_merged))
}

/// The same of kind and content alone.
fn content_without(
    before: Version,
    after: Version,
    now: Version,
    contents: &mut KnownContents<'_>,
) -> Result<Reverted, ConflictReason> {
    if are_same(before, now) || are_same(before, after) {
        return Ok((now, false));
    }
    let kept = |version: Version| match version.content {
        KeptContent::Kept(id) => Ok(id),
        KeptContent::NotKept { .. } => Err(ConflictReason::NotKept),
    };
    if are_same(after, now) {
        if before.kind != VersionKind::Directory {
            kept(before)?;
        }
        return Ok((before, false));
    }
    if [before, after, now].iter().any(|version| version.kind != VersionKind::File) {
        return Err(ConflictReason::ChangedSince);
    }
    let (base, ours, theirs) = (kept(after)?, kept(now)?, kept(before)?);
    match contents.merge(base, ours, theirs).map_err(ConflictReason::Unreadable)? {
        Some(merged) => Ok((Version { content: KeptContent::Kept(merged), ..now }, true)),
        None => Err(ConflictReason::ChangedSince),
    }
}

/// What a step proves to be that is not to be taken back.
pub(super) enum Recognized {
    /// It took the pending changes back. If it ended in the middle, the rest of its work is in here.
    Undo(Option<TakeBack>),
    /// It did something else.
    Other,
}

/// Whether a step that led from `at` to `next` took `pending` back.
pub(super) fn recognize(
    at: &[Option<Version>],
    next: &[Option<Version>],
    pending: &[TakeBack],
    contents: &mut KnownContents<'_>,
) -> Recognized {
    let changed: Vec<bool> = at.iter().zip(next).map(|(at, next)| !are_alike(*at, *next)).collect();
    let mut taken_back = pending.iter().flat_map(|step| &step.changes);
    if !taken_back.any(|change| changed[change.path]) {
        return Recognized::Other;
    }
    let found = |(path, version): (usize, &Option<Version>)| Slot::found(path, *version);
    let mut slots: Vec<Slot> = at.iter().enumerate().map(found).collect();
    if pending.iter().rev().any(|step| step.take_back(&mut slots, contents).is_err()) {
        return Recognized::Other;
    }
    let wanted: Vec<Option<Version>> = slots.iter().map(|slot| slot.version).collect();
    for path in (0..at.len()).filter(|path| changed[*path]) {
        if !are_alike(next[path], wanted[path]) && !is_torn(at[path], wanted[path], next[path], contents) {
            return Recognized::Other;
        }
    }
    let rest = TakeBack::between(&wanted, next);
    Recognized::Undo((!rest.changes.is_empty()).then_some(rest))
}

/// Whether `found` is what remains of `old` when a writer is killed in the middle of `wanted`.
fn is_torn(
    old: Option<Version>,
    wanted: Option<Version>,
    found: Option<Version>,
    contents: &mut KnownContents<'_>,
) -> bool {
    let is_file = |version: Option<Version>| version.is_some_and(|version| version.kind == VersionKind::File);
    if !is_file(wanted) || !is_file(found) || !(old.is_none() || is_file(old)) {
        return false;
    }
    if old.zip(found).is_some_and(|(old, found)| are_same(old, found)) {
        return false;
    }
    let old = if old.is_none() { Some(Vec::new()) } else { contents.of(old) };
    let (Some(old), Some(wanted), Some(found)) = (old, contents.of(wanted), contents.of(found)) else {
        return false;
    };
    let written = wanted.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let untouched = old.iter().rev().zip(found.iter().rev()).take_while(|(a, b)| a == b).count();
    written == found.len() || found.len() == old.len() && written + untouched >= found.len()
}
