//! Git's trees: the files of a project at one time.
//!
//! May assume: paths are relative, and consist of plain names.
//! Must never: lose a byte of a name. Git's rules for names that it would not check out are not applied: the history keeps what was there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid};

use super::HistoryError;
use super::objects::Objects;

/// The mode of a directory in a tree.
const DIRECTORY: u32 = 0o040_000;
/// The mode of a file.
pub(super) const FILE: u32 = 0o100_644;
/// The mode of a file that can be executed.
pub(super) const EXECUTABLE: u32 = 0o100_755;
/// The mode of a symbolic link.
pub(super) const LINK: u32 = 0o120_000;

/// A file or a link in a tree, or a tree within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TreeEntry {
    /// Git's mode.
    pub(super) mode: u32,
    /// The object.
    pub(super) id: Oid,
}

impl TreeEntry {
    /// Whether it is a tree.
    pub(super) fn is_tree(self) -> bool {
        self.mode == DIRECTORY
    }
}

type TreeEntries = BTreeMap<Vec<u8>, TreeEntry>;

/// What a tree holds, by name.
fn entries(objects: &Objects, tree: Option<Oid>) -> Result<TreeEntries, HistoryError> {
    let Some(tree) = tree else { return Ok(TreeEntries::new()) };
    let data = objects.read(tree, ObjectType::Tree)?;
    let damaged = || HistoryError::reading(format_args!("the tree {tree} is damaged"));
    let mut found = TreeEntries::new();
    let mut rest = &data[..];
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0).ok_or_else(damaged)?;
        let (head, tail) = (&rest[..end], &rest[end + 1..]);
        let space = head.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
        let mode = std::str::from_utf8(&head[..space]).ok();
        let mode = mode.and_then(|mode| u32::from_str_radix(mode, 8).ok()).ok_or_else(damaged)?;
        let id = tail.get(..20).and_then(|id| Oid::from_bytes(id).ok()).ok_or_else(damaged)?;
        found.insert(head[space + 1..].to_vec(), TreeEntry { mode, id });
        rest = &tail[20..];
    }
    Ok(found)
}

/// What a tree holds, with the paths of it.
pub(super) fn children(
    objects: &Objects,
    tree: Oid,
    path: &Path,
) -> Result<Vec<(PathBuf, TreeEntry)>, HistoryError> {
    let children = entries(objects, Some(tree))?.into_iter();
    Ok(children.map(|(name, entry)| (path.join(OsStr::from_bytes(&name)), entry)).collect())
}

/// Write a tree; `None` if it would be empty.
fn write(objects: &Objects, names: TreeEntries) -> Result<Option<Oid>, HistoryError> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut entries: Vec<(Vec<u8>, TreeEntry)> = names.into_iter().collect();
    // Git orders a directory as if its name ended with a slash.
    let ordered = |name: &[u8], entry: TreeEntry| [name, if entry.is_tree() { b"/" } else { b"" }].concat();
    entries.sort_by_cached_key(|(name, entry)| ordered(name, *entry));
    let mut data = Vec::new();
    for (name, entry) in entries {
        data.extend(format!("{:o} ", entry.mode).as_bytes());
        data.extend(name);
        data.push(0);
        data.extend(entry.id.as_bytes());
    }
    objects.write(ObjectType::Tree, &data).map(Some)
}

/// The tree without any file.
pub(super) fn empty(objects: &Objects) -> Result<Oid, HistoryError> {
    objects.write(ObjectType::Tree, b"")
}

/// What becomes of paths: the new entry, or none.
pub(super) type Edits = BTreeMap<PathBuf, Option<TreeEntry>>;

/// A tree with some paths changed.
///
/// A new entry replaces what is at its path, and files where its parents must be. A removed path that is a directory in the tree stays,
/// with what is beneath it. Directories that become empty go.
pub(super) fn edit(objects: &Objects, tree: Option<Oid>, edits: &Edits) -> Result<Option<Oid>, HistoryError> {
    let edits: Vec<Edit<'_>> =
        edits.iter().map(|(path, entry)| (path.iter().map(OsStrExt::as_bytes).collect(), *entry)).collect();
    edit_below(objects, tree, &edits, 0)
}

/// The names of a path, and what becomes of it.
type Edit<'a> = (Vec<&'a [u8]>, Option<TreeEntry>);

fn edit_below(
    objects: &Objects,
    tree: Option<Oid>,
    edits: &[Edit<'_>],
    depth: usize,
) -> Result<Option<Oid>, HistoryError> {
    let mut names = entries(objects, tree)?;
    // The edits are in the order of their paths, so those below one name follow each other.
    for same_name in edits.chunk_by(|one, other| one.0[depth] == other.0[depth]) {
        let name = same_name[0].0[depth];
        let (of_name, below) = same_name.split_at(usize::from(same_name[0].0.len() == depth + 1));
        let mut entry = names.remove(name);
        if let Some((_, new)) = of_name.first() {
            entry = if new.is_none() { entry.filter(|entry| entry.is_tree()) } else { *new };
        }
        if !below.is_empty() {
            let subtree = entry.filter(|entry| entry.is_tree()).map(|entry| entry.id);
            match edit_below(objects, subtree, below, depth + 1)? {
                Some(id) => entry = Some(TreeEntry { mode: DIRECTORY, id }),
                None => entry = entry.filter(|entry| !entry.is_tree()),
            }
        }
        names.extend(entry.map(|entry| (name.to_vec(), entry)));
    }
    write(objects, names)
}

/// What a tree holds at a path: a file, a link, or a tree.
fn at(objects: &Objects, tree: Option<Oid>, path: &Path) -> Result<Option<TreeEntry>, HistoryError> {
    let mut here = tree.map(|id| TreeEntry { mode: DIRECTORY, id });
    for name in path {
        let Some(directory) = here.filter(|entry| entry.is_tree()) else { return Ok(None) };
        here = entries(objects, Some(directory.id))?.remove(name.as_bytes());
    }
    Ok(here)
}

/// The file or link at a path.
pub(super) fn file_at(
    objects: &Objects,
    tree: Option<Oid>,
    path: &Path,
) -> Result<Option<TreeEntry>, HistoryError> {
    Ok(at(objects, tree, path)?.filter(|entry| !entry.is_tree()))
}

/// Whether two trees hold the same at a path.
pub(super) fn same_at(
    objects: &Objects,
    one: Option<Oid>,
    other: Option<Oid>,
    path: &Path,
) -> Result<bool, HistoryError> {
    Ok(one == other || at(objects, one, path)? == at(objects, other, path)?)
}

/// The files and links at and beneath a path.
pub(super) fn files_beneath(
    objects: &Objects,
    tree: Option<Oid>,
    path: &Path,
) -> Result<Vec<PathBuf>, HistoryError> {
    let mut found = Vec::new();
    let subtree = at(objects, tree, path)?.filter(|entry| entry.is_tree()).map(|entry| entry.id);
    compare(objects, None, subtree, path, &mut |path, _, _| found.push(path))?;
    Ok(found)
}

/// Paths, with what each of two trees holds there.
pub(super) type Differences = BTreeMap<PathBuf, (Option<TreeEntry>, Option<TreeEntry>)>;

/// The files and links that differ.
pub(super) fn differences(
    objects: &Objects,
    before: Option<Oid>,
    after: Option<Oid>,
) -> Result<Differences, HistoryError> {
    let mut found = BTreeMap::new();
    compare(objects, before, after, Path::new(""), &mut |path, before, after| {
        found.insert(path, (before, after));
    })?;
    Ok(found)
}

fn compare(
    objects: &Objects,
    before: Option<Oid>,
    after: Option<Oid>,
    within: &Path,
    found: &mut dyn FnMut(PathBuf, Option<TreeEntry>, Option<TreeEntry>),
) -> Result<(), HistoryError> {
    if before == after {
        return Ok(());
    }
    let (before, mut after) = (entries(objects, before)?, entries(objects, after)?);
    let both = before.into_iter().map(|(name, entry)| {
        let other = after.remove(&name);
        (name, Some(entry), other)
    });
    let both: Vec<_> = both.collect();
    let new = after.into_iter().map(|(name, entry)| (name, None, Some(entry)));
    for (name, before, after) in both.into_iter().chain(new) {
        let path = within.join(OsStr::from_bytes(&name));
        let tree = |entry: Option<TreeEntry>| entry.filter(|entry| entry.is_tree()).map(|entry| entry.id);
        let file = |entry: Option<TreeEntry>| entry.filter(|entry| !entry.is_tree());
        compare(objects, tree(before), tree(after), &path, found)?;
        if file(before) != file(after) {
            found(path, file(before), file(after));
        }
    }
    Ok(())
}
