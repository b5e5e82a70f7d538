//! The inode table: which file of the disk a node number means, and its last known place.
//!
//! May assume: the caller holds the lock around it, and every argument was read from the disk.
//! Must never: open, read or stat a file itself.
//!
//! A node number is the disk's own inode number if that is free, so that `st_ino`, and git's index with it, stays valid over a
//! remount. A file of another device, or a file whose inode number an older node still has, gets a number from [`ALLOCATED`] on.
//!
//! A node lives while the kernel holds references to it, or while it is the parent in a child's last known place.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::hash::BuildHasher;

use crate::fs::{Fault, FileKind, FsError, Ino, ROOT, Result};
use crate::sys::FileHandle;

/// Node numbers from here on are allocated in sequence, and equal no inode number of the disk.
const ALLOCATED: Ino = 1 << 61;

/// The identity of a file: its device, its inode number, and, since the disk reuses numbers, its kind and its birth time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) kind: FileKind,
    /// Nanoseconds since 1970; 0 where the birth time is unknown or can change.
    pub(super) born: i64,
}

/// The last known place of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) parent: Ino,
    pub(super) name: OsString,
}

impl Location {
    pub(super) fn is(&self, parent: Ino, name: &OsStr) -> bool {
        self.parent == parent && self.name == name
    }
}

#[derive(Debug)]
struct Inode {
    id: FileId,
    /// References that the kernel holds.
    lookups: u64,
    /// The number of nodes whose last known place is in this one.
    children: u64,
    /// `None`: the root, or a file whose last known name is gone.
    place: Option<Location>,
    /// Leads to the file by any name. Set when there was no room for a descriptor, where the daemon may open by handle.
    handle: Option<FileHandle>,
}

/// The inode table. See the module's documentation.
pub(super) struct Inodes {
    nodes: HashMap<Ino, Inode>,
    /// By device and inode number, the nodes whose number is not the inode's own. Most files need no entry here.
    numbers: HashMap<(u64, u64), Ino>,
    /// The node that was found last at a place, by the hash of the place. A lookup compares the place with the node's own. If two
    /// places have one hash, the later one has the entry.
    placed: HashMap<u64, Ino>,
    hasher: RandomState,
    root_dev: u64,
    next: Ino,
    removals: u64,
    /// Unreferenced directories that were removed when their last child moved away. The next [`Inodes::forget`] reports them.
    vanished: Vec<Gone>,
}

/// A node that was removed from the table.
pub(super) struct Gone {
    pub(super) ino: Ino,
    pub(super) kind: FileKind,
    /// Its last known place.
    pub(super) place: Option<Location>,
}

impl Inodes {
    pub(super) fn new(root: FileId) -> Inodes {
        let node = Inode { id: root, lookups: 1, children: 0, place: None, handle: None };
        Inodes {
            nodes: HashMap::from([(ROOT, node)]),
            numbers: HashMap::from([((root.dev, root.ino), ROOT)]),
            placed: HashMap::new(),
            hasher: RandomState::new(),
            root_dev: root.dev,
            next: ALLOCATED,
            removals: 0,
            vanished: Vec::new(),
        }
    }

    /// Replace the root directory. Every other node is then found to be stale when it is next opened at its last known place.
    pub(super) fn replace_root(&mut self, id: FileId) {
        if let Some(root) = self.nodes.get_mut(&ROOT) {
            let old = std::mem::replace(&mut root.id, id);
            self.numbers.remove(&(old.dev, old.ino));
            self.numbers.insert((id.dev, id.ino), ROOT);
        }
        self.removals += 1;
    }

    /// How many names were taken away so far. If this changed after the disk was read, what was read may be outdated.
    pub(super) fn removals(&self) -> u64 {
        self.removals
    }

    /// The device of a node.
    pub(super) fn dev(&self, ino: Ino) -> u64 {
        self.nodes.get(&ino).map_or(self.root_dev, |node| node.id.dev)
    }

    /// The number under which an inode of the disk is shown: that of its node, or else its own.
    pub(super) fn shown(&self, dev: u64, ino: u64) -> Ino {
        self.numbers.get(&(dev, ino)).copied().unwrap_or(ino)
    }

    /// The parent of a directory, as shown by `..`.
    pub(super) fn parent(&self, ino: Ino) -> Ino {
        self.place(ino).map_or(ROOT, |place| place.parent)
    }

    /// The last known place of a node.
    pub(super) fn place(&self, ino: Ino) -> Option<&Location> {
        self.nodes.get(&ino)?.place.as_ref()
    }

    /// The kind of a node's file.
    pub(super) fn kind(&self, ino: Ino) -> Result<FileKind> {
        self.nodes.get(&ino).map(|node| node.id.kind).ok_or(FsError::Plain(Fault::Stale))
    }

    /// All nodes and their last known names.
    pub(super) fn places(&self) -> impl Iterator<Item = (Ino, Option<&Location>)> {
        self.nodes.iter().map(|(ino, node)| (*ino, node.place.as_ref()))
    }

    /// The last known place of a node, and the file that must be found there.
    pub(super) fn location(&self, ino: Ino) -> Result<(Location, FileId)> {
        let node = self.nodes.get(&ino).ok_or(Fault::Stale)?;
        node.place.clone().map(|place| (place, node.id)).ok_or(FsError::Plain(Fault::Stale))
    }

    /// The file handle of a node, and the file that it must open.
    pub(super) fn handle(&self, ino: Ino) -> Option<(FileHandle, FileId)> {
        let node = self.nodes.get(&ino)?;
        Some((node.handle.clone()?, node.id))
    }

    /// Store the file handle of a node.
    pub(super) fn set_handle(&mut self, ino: Ino, handle: FileHandle) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.handle = Some(handle);
        }
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node of a file, if this is its last known name.
    fn placed_at(&self, id: FileId, parent: Ino, name: &OsStr) -> Option<Ino> {
        let ino = self.known(id)?;
        self.nodes[&ino].place.as_ref().is_some_and(|place| place.is(parent, name)).then_some(ino)
    }

    /// The file `id` was found as `name` in `parent`, and the daemon is about to answer so to the kernel: count one reference.
    ///
    /// `since` is the [`Inodes::removals`] from before the disk was read. If it is unchanged, the name becomes the last known one.
    /// Otherwise the name may have just been removed: the kernel does not order lookups that revalidate against removals.
    pub(super) fn found(&mut self, id: FileId, parent: Ino, name: &OsStr, since: u64) -> Ino {
        let place = || Some(Location { parent, name: name.to_owned() });
        match self.known(id) {
            Some(ino) => {
                let node = self.nodes.get_mut(&ino).expect("numbers and nodes agree");
                node.lookups += 1;
                let known = node.place.as_ref().is_some_and(|known| known.is(parent, name));
                if since == self.removals && ino != ROOT && !known {
                    self.settle(ino, place());
                }
                ino
            }
            None => {
                let ino = self.allocate(id);
                self.nodes.insert(ino, Inode { id, lookups: 1, children: 0, place: None, handle: None });
                self.settle(ino, place());
                ino
            }
        }
    }

    /// The name was removed.
    pub(super) fn removed(&mut self, id: FileId, parent: Ino, name: &OsStr) {
        self.removals += 1;
        if let Some(ino) = self.placed_at(id, parent, name) {
            self.settle(ino, None);
        }
    }

    /// The file was renamed.
    pub(super) fn moved(&mut self, id: FileId, from: (Ino, &OsStr), to: (Ino, &OsStr)) {
        self.removals += 1;
        if let Some(ino) = self.placed_at(id, from.0, from.1) {
            self.settle(ino, Some(Location { parent: to.0, name: to.1.to_owned() }));
        }
    }

    /// The node whose last known name is this one.
    pub(super) fn named(&self, parent: Ino, name: &OsStr) -> Option<Ino> {
        let ino = *self.placed.get(&self.hash(parent, name))?;
        self.place(ino)?.is(parent, name).then_some(ino)
    }

    /// The name of a node was taken away beneath the mount. The kernel may have forgotten the node meanwhile.
    pub(super) fn lost(&mut self, ino: Ino) {
        self.removals += 1;
        if self.nodes.contains_key(&ino) {
            self.settle(ino, None);
        }
    }

    /// A node was found by this name beneath the mount. If the node has a known name, it keeps that one. The kernel may have forgotten
    /// the node or its directory meanwhile.
    pub(super) fn regained(&mut self, ino: Ino, parent: Ino, name: &OsStr) {
        let is_lost = self.nodes.get(&ino).is_some_and(|node| node.place.is_none());
        if ino != ROOT && is_lost && self.nodes.contains_key(&parent) {
            self.settle(ino, Some(Location { parent, name: name.to_owned() }));
        }
    }

    fn hash(&self, parent: Ino, name: &OsStr) -> u64 {
        self.hasher.hash_one((parent, name))
    }

    /// The kernel drops `count` references. The answer is every node that was removed from the table.
    pub(super) fn forget(&mut self, ino: Ino, count: u64) -> Vec<Gone> {
        let mut gone = std::mem::take(&mut self.vanished);
        if let Some(node) = self.nodes.get_mut(&ino)
            && ino != ROOT
        {
            node.lookups = node.lookups.saturating_sub(count);
            self.drop_unreferenced(ino, &mut gone);
        }
        gone
    }

    fn drop_unreferenced(&mut self, mut ino: Ino, gone: &mut Vec<Gone>) {
        while ino != ROOT && self.nodes.get(&ino).is_some_and(|node| node.lookups == 0 && node.children == 0)
        {
            let node = self.nodes.remove(&ino).expect("just seen");
            let key = (node.id.dev, node.id.ino);
            if self.numbers.get(&key) == Some(&ino) {
                self.numbers.remove(&key);
            }
            self.unplace(ino, node.place.as_ref());
            let parent = node.place.as_ref().map(|place| place.parent);
            gone.push(Gone { ino, kind: node.id.kind, place: node.place });
            let Some(parent) = parent else { return };
            if let Some(parent) = self.nodes.get_mut(&parent) {
                parent.children -= 1;
            }
            ino = parent;
        }
    }

    /// Give a referenced node another place, and update its parents' child counts.
    fn settle(&mut self, ino: Ino, place: Option<Location>) {
        if let Some(place) = &place {
            self.placed.insert(self.hash(place.parent, &place.name), ino);
            if let Some(parent) = self.nodes.get_mut(&place.parent) {
                parent.children += 1;
            }
        }
        let node = self.nodes.get_mut(&ino).expect("a referenced node");
        let Some(before) = std::mem::replace(&mut node.place, place) else { return };
        if self.place(ino) != Some(&before) {
            self.unplace(ino, Some(&before));
        }
        if let Some(parent) = self.nodes.get_mut(&before.parent) {
            parent.children -= 1;
            let mut vanished = std::mem::take(&mut self.vanished);
            self.drop_unreferenced(before.parent, &mut vanished);
            self.vanished = vanished;
        }
    }

    /// Remove the entry that leads from this place to this node. An entry for another node stays.
    fn unplace(&mut self, ino: Ino, place: Option<&Location>) {
        let Some(place) = place else { return };
        let hash = self.hash(place.parent, &place.name);
        if self.placed.get(&hash) == Some(&ino) {
            self.placed.remove(&hash);
        }
    }

    /// The node of a file, if the kernel knows it.
    pub(super) fn known(&self, id: FileId) -> Option<Ino> {
        let own = (id.dev == self.root_dev).then_some(id.ino);
        let ino = self.numbers.get(&(id.dev, id.ino)).copied().or(own)?;
        (self.nodes.get(&ino)?.id == id).then_some(ino)
    }

    /// A number for a file that has no node. An older node of the same inode number belongs to a file that is gone.
    fn allocate(&mut self, id: FileId) -> Ino {
        let own = id.dev == self.root_dev && (ROOT + 1..ALLOCATED).contains(&id.ino);
        if own && !self.nodes.contains_key(&id.ino) {
            self.numbers.remove(&(id.dev, id.ino));
            return id.ino;
        }
        self.next += 1;
        self.numbers.insert((id.dev, id.ino), self.next);
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ino: u64, kind: FileKind) -> FileId {
        FileId { dev: 7, ino, kind, born: 0 }
    }

    fn table() -> Inodes {
        Inodes::new(id(1000, FileKind::Directory))
    }

    fn found(table: &mut Inodes, id: FileId, parent: Ino, name: &str) -> Ino {
        let since = table.removals();
        table.found(id, parent, OsStr::new(name), since)
    }

    fn name(table: &Inodes, ino: Ino) -> Option<String> {
        table.place(ino).map(|place| place.name.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_file_keeps_the_number_of_the_disk() {
        let mut table = table();
        assert_eq!(found(&mut table, id(50, FileKind::File), ROOT, "a"), 50);
        assert_eq!(found(&mut table, id(50, FileKind::File), ROOT, "hard link"), 50);
        assert_eq!(found(&mut table, id(1000, FileKind::Directory), ROOT, "bind mount of the root"), ROOT);
    }

    #[test]
    fn other_devices_and_reserved_numbers_are_counted_apart() {
        let mut table = table();
        let one = found(&mut table, id(ROOT, FileKind::File), ROOT, "inode one");
        let other = found(&mut table, FileId { dev: 8, ..id(50, FileKind::File) }, ROOT, "other device");
        assert!(one > ALLOCATED && other > ALLOCATED && one != other);
    }

    #[test]
    fn a_reused_inode_number_of_another_kind_is_another_node() {
        let mut table = table();
        let file = found(&mut table, id(50, FileKind::File), ROOT, "a");
        let dir = found(&mut table, id(50, FileKind::Directory), ROOT, "d");
        assert_ne!(file, dir);
        table.forget(file, 1);
        assert_eq!(found(&mut table, id(50, FileKind::Directory), ROOT, "d"), dir);
    }

    #[test]
    fn a_reused_inode_number_of_another_birth_is_another_node() {
        let mut table = table();
        let older = found(&mut table, id(50, FileKind::Directory), ROOT, "d");
        let younger = FileId { born: 1, ..id(50, FileKind::Directory) };
        assert_ne!(found(&mut table, younger, ROOT, "d"), older);
    }

    #[test]
    fn references_are_counted() {
        let mut table = table();
        found(&mut table, id(50, FileKind::File), ROOT, "a");
        found(&mut table, id(50, FileKind::File), ROOT, "a");
        assert!(table.forget(50, 1).is_empty());
        assert!(table.location(50).is_ok());
        assert_eq!(table.forget(50, 1).len(), 1);
        assert_eq!(table.location(50).err().map(|e| e.errno()), Some(libc::ESTALE));
    }

    #[test]
    fn a_directory_stays_while_a_child_has_its_place_in_it() {
        let mut table = table();
        found(&mut table, id(50, FileKind::Directory), ROOT, "d");
        found(&mut table, id(51, FileKind::File), 50, "a");
        assert!(table.forget(50, 1).is_empty());
        let gone: Vec<Ino> = table.forget(51, 1).into_iter().map(|gone| gone.ino).collect();
        assert_eq!(gone, [51, 50]);
        assert_eq!(table.nodes[&ROOT].children, 0);
    }

    #[test]
    fn a_file_without_a_name_has_no_way_to_it() {
        let mut table = table();
        found(&mut table, id(50, FileKind::File), ROOT, "a");
        table.removed(id(50, FileKind::File), ROOT, OsStr::new("a"));
        assert_eq!(table.location(50).err().map(|e| e.errno()), Some(libc::ESTALE));
        assert_eq!(table.forget(50, 1).len(), 1);
    }

    #[test]
    fn removing_another_hard_link_changes_nothing() {
        let mut table = table();
        found(&mut table, id(50, FileKind::File), ROOT, "a");
        found(&mut table, id(50, FileKind::File), ROOT, "b");
        table.removed(id(50, FileKind::File), ROOT, OsStr::new("a"));
        assert_eq!(name(&table, 50).as_deref(), Some("b"));
    }

    #[test]
    fn a_hard_link_that_is_found_later_is_a_way_again() {
        let mut table = table();
        found(&mut table, id(50, FileKind::File), ROOT, "a");
        table.removed(id(50, FileKind::File), ROOT, OsStr::new("a"));
        found(&mut table, id(50, FileKind::File), ROOT, "b");
        assert_eq!(name(&table, 50).as_deref(), Some("b"));
    }

    #[test]
    fn a_name_read_before_a_removal_is_ignored_after_it() {
        let mut table = table();
        found(&mut table, id(50, FileKind::File), ROOT, "a");
        let since = table.removals();
        table.removed(id(50, FileKind::File), ROOT, OsStr::new("a"));
        table.found(id(50, FileKind::File), ROOT, OsStr::new("a"), since);
        assert_eq!(name(&table, 50), None);
    }

    #[test]
    fn a_place_leads_to_the_node_that_was_seen_there_last() {
        let mut table = table();
        let (old, new) = (id(50, FileKind::File), id(51, FileKind::File));
        found(&mut table, old, ROOT, "a");
        assert_eq!(table.named(ROOT, OsStr::new("a")), Some(50));
        found(&mut table, new, ROOT, "a");
        assert_eq!(table.named(ROOT, OsStr::new("a")), Some(51));
        table.moved(old, (ROOT, OsStr::new("a")), (ROOT, OsStr::new("b")));
        assert_eq!(table.named(ROOT, OsStr::new("a")), Some(51), "what was replaced takes nothing along");
        assert_eq!(table.named(ROOT, OsStr::new("b")), Some(50));
        table.lost(51);
        assert_eq!((table.named(ROOT, OsStr::new("a")), name(&table, 51)), (None, None));
        table.regained(51, ROOT, OsStr::new("c"));
        table.regained(51, ROOT, OsStr::new("d"));
        assert_eq!(name(&table, 51).as_deref(), Some("c"), "a name that is known stands");
        table.forget(50, 1);
        table.forget(51, 1);
        table.lost(51);
        table.regained(51, ROOT, OsStr::new("c"));
        assert_eq!((table.placed.len(), table.nodes[&ROOT].children), (0, 0));
    }

    #[test]
    fn a_rename_moves_the_place() {
        let mut table = table();
        found(&mut table, id(50, FileKind::Directory), ROOT, "d");
        found(&mut table, id(51, FileKind::File), ROOT, "a");
        table.moved(id(51, FileKind::File), (ROOT, OsStr::new("a")), (50, OsStr::new("b")));
        assert_eq!(table.place(51), Some(&Location { parent: 50, name: "b".into() }));
        assert_eq!((table.nodes[&ROOT].children, table.nodes[&50].children), (1, 1));
    }
}
