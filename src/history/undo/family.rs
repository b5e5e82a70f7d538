//! Families: paths that must be undone together, because a chosen step renamed one into another.
//!
//! May assume: a path occurs once in a step.
//! Must never: pair a removed path with a created one because both are empty.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::{ChosenStep, KnownContents, UNDO_PROGRAM, content_id};
use crate::history::{KeptContent, PathChange, Version, VersionKind};
use crate::limits::SIMILAR_PAIRS;

/// What a step did to a path of a family.
#[derive(Debug, Clone)]
pub(super) struct FamilyChange {
    /// The path's place in [`Family::paths`].
    pub(super) path: usize,
    pub(super) before: Option<Version>,
    pub(super) after: Option<Version>,
}

/// What a step did to a family.
#[derive(Debug, Clone)]
pub(super) struct FamilyStep {
    pub(super) chosen: bool,
    /// Whether an undo made it.
    pub(super) is_undo: bool,
    pub(super) changes: Vec<FamilyChange>,
    /// Renames: the places of the old path and the new path.
    pub(super) renames: Vec<(usize, usize)>,
}

/// Paths that are undone together.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) paths: Vec<PathBuf>,
    /// The steps that changed them, oldest first.
    pub(super) steps: Vec<FamilyStep>,
}

impl Family {
    /// What each path was before the first of the steps.
    pub(super) fn first_versions(&self) -> Vec<Option<Version>> {
        let first =
            |path| self.steps.iter().flat_map(|step| &step.changes).find(|change| change.path == path);
        (0..self.paths.len()).map(|path| first(path).and_then(|change| change.before)).collect()
    }

    /// Whether the content that the last step left at a path is not in the history.
    pub(super) fn is_not_kept(&self, path: usize) -> bool {
        let mut changes = self.steps.iter().flat_map(|step| &step.changes).filter(|it| it.path == path);
        let last = changes.next_back().and_then(|change| change.after);
        last.is_some_and(|last| matches!(last.content, KeptContent::NotKept { .. }))
    }

    /// The path as an empty directory, if it was one before a step.
    pub(super) fn empty_directory(&self, path: usize) -> Option<Version> {
        let changes = self.steps.iter().flat_map(|step| &step.changes).filter(|change| change.path == path);
        changes.filter_map(|change| change.before).find(|before| before.kind == VersionKind::Directory)
    }
}

/// All families of the paths that chosen steps changed.
pub(super) fn families(steps: &[ChosenStep<'_>], contents: &mut KnownContents<'_>) -> Vec<Family> {
    let renames: Vec<Vec<(&Path, &Path)>> = steps
        .iter()
        .map(|it| if it.chosen { renames(&it.step.changes, contents) } else { Vec::new() })
        .collect();
    let mut unions = Unions::default();
    for it in steps.iter().filter(|it| it.chosen) {
        it.step.changes.iter().for_each(|change| _ = unions.number(&change.path));
    }
    renames.iter().flatten().for_each(|(old, new)| unions.join(old, new));
    unions.join_nested(steps);

    let mut families: Vec<Family> = Vec::new();
    // The family of a path, and the path's place in it.
    let mut places: HashMap<&Path, (usize, usize)> = HashMap::new();
    let mut of_root: HashMap<usize, usize> = HashMap::new();
    for (path, number) in unions.numbers.clone() {
        let family = *of_root.entry(unions.root(number)).or_insert_with(|| {
            families.push(Family { paths: Vec::new(), steps: Vec::new() });
            families.len() - 1
        });
        places.insert(path, (family, families[family].paths.len()));
        families[family].paths.push(path.to_path_buf());
    }
    for (it, renames) in steps.iter().zip(&renames) {
        let mut parts: BTreeMap<usize, FamilyStep> = BTreeMap::new();
        for change in &it.step.changes {
            let Some(&(family, path)) = places.get(&*change.path) else { continue };
            let part = parts.entry(family).or_insert_with(|| FamilyStep {
                chosen: it.chosen,
                is_undo: it.step.program.as_deref() == Some(UNDO_PROGRAM),
                changes: Vec::new(),
                renames: Vec::new(),
            });
            part.changes.push(FamilyChange { path, before: change.before, after: change.after });
        }
        for (old, new) in renames {
            let (family, old) = places[old];
            parts.entry(family).and_modify(|part| part.renames.push((old, places[new].1)));
        }
        parts.into_iter().for_each(|(family, part)| families[family].steps.push(part));
    }
    families
}

/// Numbered paths, joined into sets.
#[derive(Default)]
struct Unions<'a> {
    numbers: BTreeMap<&'a Path, usize>,
    above: Vec<usize>,
}

impl<'a> Unions<'a> {
    fn number(&mut self, path: &'a Path) -> usize {
        let next = self.above.len();
        let number = *self.numbers.entry(path).or_insert(next);
        if number == next {
            self.above.push(next);
        }
        number
    }

    fn root(&self, mut number: usize) -> usize {
        while self.above[number] != number {
            number = self.above[number];
        }
        number
    }

    fn join(&mut self, one: &'a Path, other: &'a Path) {
        let (one, other) = (self.number(one), self.number(other));
        let (one, other) = (self.root(one), self.root(other));
        self.above[other] = one;
    }

    /// Join each path that was a file or a link with the paths that lay below it at another time.
    fn join_nested(&mut self, steps: &[ChosenStep<'a>]) {
        let is_leaf = |version: Option<Version>| version.is_some_and(|it| it.kind != VersionKind::Directory);
        let chosen = steps.iter().filter(|it| it.chosen).flat_map(|it| &it.step.changes);
        let leaves = chosen.filter(|change| is_leaf(change.before) || is_leaf(change.after));
        let leaves: BTreeSet<&'a Path> = leaves.map(|change| &*change.path).collect();
        let paths: Vec<&'a Path> = self.numbers.keys().copied().collect();
        for path in paths {
            let above = path.ancestors().skip(1).filter(|above| leaves.contains(above));
            above.for_each(|above| self.join(above, path));
        }
    }
}

/// The renames of a step: a path that it removed, and one that it created with the same or similar content.
fn renames<'a>(changes: &'a [PathChange], contents: &mut KnownContents<'_>) -> Vec<(&'a Path, &'a Path)> {
    let is_movable = |version: &Version| version.kind != VersionKind::Directory;
    let mut removed: Vec<(&Path, Version)> = Vec::new();
    let mut created: Vec<(&Path, Version)> = Vec::new();
    for change in changes {
        match (change.before, change.after) {
            (Some(before), None) if is_movable(&before) => removed.push((&change.path, before)),
            (None, Some(after)) if is_movable(&after) => created.push((&change.path, after)),
            _ => {}
        }
    }
    if removed.is_empty() || created.is_empty() {
        return Vec::new();
    }
    let mut found = same(&mut removed, &mut created);
    found.extend(similar(&removed, &created, contents));
    found
}

/// Pairs with the same content. What is paired leaves the lists.
fn same<'a>(
    removed: &mut Vec<(&'a Path, Version)>,
    created: &mut Vec<(&'a Path, Version)>,
) -> Vec<(&'a Path, &'a Path)> {
    let empty = KeptContent::Kept(content_id(b""));
    // In reverse, because the last one of a list is taken first.
    let mut by_content: HashMap<_, Vec<&'a Path>> = HashMap::new();
    let kinds: HashMap<&Path, Version> = removed.iter().copied().collect();
    let key = |content: KeptContent| match content {
        KeptContent::Kept(id) => (Some(id), 0),
        KeptContent::NotKept { bytes } => (None, bytes),
    };
    for (path, version) in removed.iter().rev() {
        by_content.entry(key(version.content)).or_default().push(path);
    }
    let mut found = Vec::new();
    // Files that kept their names are paired first.
    for keeps_name in [true, false] {
        created.retain(|(new, version)| {
            let Some(olds) = by_content.get_mut(&key(version.content)) else { return true };
            let at = olds.iter().rposition(|old| {
                kinds[old].kind == version.kind
                    && if keeps_name { old.file_name() == new.file_name() } else { version.content != empty }
            });
            let Some(at) = at else { return true };
            found.push((olds.remove(at), *new));
            false
        });
    }
    let paired: HashSet<&Path> = found.iter().map(|(old, _)| *old).collect();
    removed.retain(|(path, _)| !paired.contains(path));
    found
}

/// Pairs of files of which at least half of the lines are the same, the most similar first.
fn similar<'a>(
    removed: &[(&'a Path, Version)],
    created: &[(&'a Path, Version)],
    contents: &mut KnownContents<'_>,
) -> Vec<(&'a Path, &'a Path)> {
    if removed.len() * created.len() > SIMILAR_PAIRS {
        return Vec::new();
    }
    let mut lines = |(path, version): &(&'a Path, Version)| {
        let content = (version.kind == VersionKind::File).then(|| contents.of(Some(*version))).flatten()?;
        Some((*path, lines(&content)))
    };
    let removed: Vec<_> = removed.iter().filter_map(&mut lines).collect();
    let created: Vec<_> = created.iter().filter_map(&mut lines).collect();
    let mut scored = Vec::new();
    for (old, old_lines) in &removed {
        for (new, new_lines) in &created {
            let score = likeness(old_lines, new_lines);
            if score >= 50 {
                scored.push((score, old.file_name() == new.file_name(), *old, *new));
            }
        }
    }
    scored.sort_by_key(|(score, keeps_name, ..)| std::cmp::Reverse((*score, *keeps_name)));
    let mut found: Vec<(&Path, &Path)> = Vec::new();
    for (_, _, old, new) in scored {
        if !found.iter().any(|(o, n)| *o == old || *n == new) {
            found.push((old, new));
        }
    }
    found
}

/// How often each line occurs.
fn lines(content: &[u8]) -> HashMap<Vec<u8>, usize> {
    let mut lines = HashMap::new();
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        *lines.entry(line.to_vec()).or_default() += 1;
    }
    lines
}

/// The share of lines that two files have in common, in percent.
fn likeness(one: &HashMap<Vec<u8>, usize>, other: &HashMap<Vec<u8>, usize>) -> usize {
    let all = one.values().sum::<usize>().max(other.values().sum());
    let common = one.iter().map(|(line, count)| *count.min(other.get(line).unwrap_or(&0)));
    (common.sum::<usize>() * 100).checked_div(all).unwrap_or(0)
}
