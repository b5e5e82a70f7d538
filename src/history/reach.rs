//! Which objects the references lead to.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use git2::Oid;

use super::commit::Commit;
use super::objects::Objects;
use super::{HistoryError, trees};

/// Objects, each once and each with a path at which it is found. Newer ones come first.
pub(super) struct Reachable<'a> {
    objects: &'a Objects,
    /// The commits whose parents are no longer there.
    cut: &'a BTreeSet<Oid>,
    /// Whether to take in an object, and what it leads to.
    wanted: &'a dyn Fn(Oid) -> bool,
    seen: HashSet<Oid>,
    pub(super) found: Vec<(Oid, String)>,
}

impl<'a> Reachable<'a> {
    pub(super) fn new(
        objects: &'a Objects,
        cut: &'a BTreeSet<Oid>,
        wanted: &'a dyn Fn(Oid) -> bool,
    ) -> Reachable<'a> {
        Reachable { objects, cut, wanted, seen: HashSet::new(), found: Vec::new() }
    }

    /// Whether an object was found.
    pub(super) fn has(&self, id: Oid) -> bool {
        self.seen.contains(&id)
    }

    /// Take in an object alone.
    pub(super) fn add(&mut self, id: Oid, path: &Path) -> bool {
        let is_new = (self.wanted)(id) && self.seen.insert(id);
        if is_new {
            self.found.push((id, path.to_string_lossy().into_owned()));
        }
        is_new
    }

    /// Take in a commit and what it leads to.
    pub(super) fn add_commits(&mut self, newest: Oid) -> Result<(), HistoryError> {
        let mut next = Some(newest);
        while let Some(id) = next.filter(|id| self.add(*id, Path::new(""))) {
            let commit = Commit::read(self.objects, id)?;
            self.add_tree(commit.tree, Path::new(""))?;
            next = commit.parent.filter(|_| !self.cut.contains(&id));
        }
        Ok(())
    }

    fn add_tree(&mut self, tree: Oid, path: &Path) -> Result<(), HistoryError> {
        if !self.add(tree, path) {
            return Ok(());
        }
        for (path, entry) in trees::children(self.objects, tree, path)? {
            match entry.is_tree() {
                true => self.add_tree(entry.id, &path)?,
                false => drop(self.add(entry.id, &path)),
            }
        }
        Ok(())
    }
}
