//! The inode table: which file of the disk a node number means, and where it was last seen.
//!
//! May assume: the lock around it is held for every call, and every fact told to it was read from the disk.
//! Must never: open, read or look at a file itself.
//!
//! A node number is the disk's own inode number wherever that is free: so `st_ino` stays what it was over a remount,
//! and git's index with it. Files of another device, or whose number still belongs to an older file of the same
//! number, get a number from [`ALLOCATED`] on.
//!
//! A node lives while the kernel holds references to it, or a child has its place in it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::fs::{FsError, Ino, Kind, ROOT, Result};

/// Node numbers from here on are counted up, and mean no number of the disk.
const ALLOCATED: Ino = 1 << 61;

/// What makes a file the same file: its device, its inode number, and, since numbers are used again, its kind and when
/// it was born.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) kind: Kind,
    /// In nanoseconds since 1970; 0 where that is not known, or does not stay the same.
    pub(super) born: i64,
}

/// Where a node was last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) parent: Ino,
    pub(super) name: OsString,
}

impl Place {
    pub(super) fn is(&self, parent: Ino, name: &OsStr) -> bool {
        self.parent == parent && self.name == name
    }
}

#[derive(Debug)]
struct Node {
    id: FileId,
    /// References that the kernel holds.
    lookups: u64,
    /// Nodes whose place is in this one.
    children: u64,
    /// `None`: the root, or a file whose last known name is gone.
    place: Option<Place>,
    /// The one way to a file without a name.
    pinned: Option<Arc<OwnedFd>>,
}

/// What is known of a node that is needed to reach it.
pub(super) enum Way {
    /// By this descriptor.
    Pinned(Arc<OwnedFd>),
    /// By its name, if this file is still found there.
    At(Place, FileId),
}

/// The table. See the top of this file.
pub(super) struct Inodes {
    nodes: HashMap<Ino, Node>,
    /// By device and inode number, where a node's number is not the inode's own: most files cost nothing here.
    numbers: HashMap<(u64, u64), Ino>,
    root_dev: u64,
    next: Ino,
    removals: u64,
    pinned: usize,
    /// Nodes that vanished with what was below them, and that nobody was told of yet.
    vanished: Vec<Gone>,
}

/// A node that is no more.
pub(super) struct Gone {
    pub(super) ino: Ino,
    pub(super) kind: Kind,
    /// Where it was seen last.
    pub(super) place: Option<Place>,
    /// What reached it, to be dropped after the lock.
    pub(super) _pinned: Option<Arc<OwnedFd>>,
}

impl Inodes {
    pub(super) fn new(root: FileId) -> Inodes {
        let node = Node { id: root, lookups: 1, children: 0, place: None, pinned: None };
        Inodes {
            nodes: HashMap::from([(ROOT, node)]),
            numbers: HashMap::from([((root.dev, root.ino), ROOT)]),
            root_dev: root.dev,
            next: ALLOCATED,
            removals: 0,
            pinned: 0,
            vanished: Vec::new(),
        }
    }

    /// The root is another directory now. All other nodes are found to be stale when they are looked for at their places.
    pub(super) fn replace_root(&mut self, id: FileId) {
        if let Some(root) = self.nodes.get_mut(&ROOT) {
            let old = std::mem::replace(&mut root.id, id);
            self.numbers.remove(&(old.dev, old.ino));
            self.numbers.insert((id.dev, id.ino), ROOT);
        }
        self.removals += 1;
    }

    /// How many names were taken away so far. What was read from the disk before this changed may be outdated.
    pub(super) fn removals(&self) -> u64 {
        self.removals
    }

    /// How many nodes are reached by a pinned descriptor.
    pub(super) fn pinned(&self) -> usize {
        self.pinned
    }

    /// The device of a node.
    pub(super) fn dev(&self, ino: Ino) -> u64 {
        self.nodes.get(&ino).map_or(self.root_dev, |node| node.id.dev)
    }

    /// The number that an inode of the disk is shown under: its node's, or else its own.
    pub(super) fn shown(&self, dev: u64, ino: u64) -> Ino {
        self.numbers.get(&(dev, ino)).copied().unwrap_or(ino)
    }

    /// The parent of a directory, as shown by `..`.
    pub(super) fn parent(&self, ino: Ino) -> Ino {
        self.place(ino).map_or(ROOT, |place| place.parent)
    }

    /// Where a node was last seen.
    pub(super) fn place(&self, ino: Ino) -> Option<&Place> {
        self.nodes.get(&ino)?.place.as_ref()
    }

    /// What kind of file a node is.
    pub(super) fn kind(&self, ino: Ino) -> Result<Kind> {
        self.nodes.get(&ino).map(|node| node.id.kind).ok_or(FsError::new(libc::ESTALE))
    }

    /// All nodes and their last known names.
    pub(super) fn places(&self) -> impl Iterator<Item = (Ino, Option<&Place>)> {
        self.nodes.iter().map(|(ino, node)| (*ino, node.place.as_ref()))
    }

    /// How to get to a node.
    pub(super) fn way(&self, ino: Ino) -> Result<Way> {
        let node = self.nodes.get(&ino).ok_or(FsError::new(libc::ESTALE))?;
        match (&node.pinned, &node.place) {
            (Some(fd), _) => Ok(Way::Pinned(fd.clone())),
            (None, Some(place)) => Ok(Way::At(place.clone(), node.id)),
            (None, None) => Err(FsError::new(libc::ESTALE)),
        }
    }

    /// Whether the name `name` in `parent` is the only way to a file that the kernel knows.
    pub(super) fn depends_on(&self, id: FileId, parent: Ino, name: &OsStr) -> bool {
        self.known(id).is_some_and(|ino| {
            let node = &self.nodes[&ino];
            node.pinned.is_none() && node.place.as_ref().is_some_and(|place| place.is(parent, name))
        })
    }

    /// The file `id` was found as `name` in `parent`, and the kernel is about to be told so: one reference more.
    ///
    /// `since` is the [`Inodes::removals`] from before the disk was asked. If it is still the same, the name stands,
    /// and a descriptor pinned for want of one is given back. Otherwise the name may be one just removed: lookups
    /// that revalidate are not ordered against removals by the kernel.
    pub(super) fn found(
        &mut self,
        id: FileId,
        parent: Ino,
        name: &OsStr,
        since: u64,
    ) -> (Ino, Option<Arc<OwnedFd>>) {
        let place = || Some(Place { parent, name: name.to_owned() });
        match self.known(id) {
            Some(ino) => {
                let node = self.nodes.get_mut(&ino).expect("numbers and nodes agree");
                node.lookups += 1;
                let mut unpinned = None;
                if since == self.removals && ino != ROOT {
                    unpinned = node.pinned.take();
                    self.pinned -= usize::from(unpinned.is_some());
                    if !node.place.as_ref().is_some_and(|known| known.is(parent, name)) {
                        self.settle(ino, place());
                    }
                }
                (ino, unpinned)
            }
            None => {
                let ino = self.allocate(id);
                let node = Node { id, lookups: 1, children: 0, place: None, pinned: None };
                self.nodes.insert(ino, node);
                self.settle(ino, place());
                (ino, None)
            }
        }
    }

    /// The name is gone. Whoever had it as last known name is reached through `keep` from now on.
    pub(super) fn removed(&mut self, id: FileId, parent: Ino, name: &OsStr, keep: Option<Arc<OwnedFd>>) {
        self.removals += 1;
        if self.depends_on(id, parent, name) {
            let ino = self.known(id).expect("it depends on a name");
            self.settle(ino, None);
            self.pinned += usize::from(keep.is_some());
            self.nodes.get_mut(&ino).expect("a referenced node").pinned = keep;
        }
    }

    /// The file has moved from one name to another.
    pub(super) fn moved(&mut self, id: FileId, from: (Ino, &OsStr), to: (Ino, &OsStr)) {
        self.removals += 1;
        if self.depends_on(id, from.0, from.1) {
            let ino = self.known(id).expect("it depends on a name");
            self.settle(ino, Some(Place { parent: to.0, name: to.1.to_owned() }));
        }
    }

    /// The kernel gives back `count` references. The answer is every node that is no more, with what it held.
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
            self.pinned -= usize::from(node.pinned.is_some());
            let parent = node.place.as_ref().map(|place| place.parent);
            gone.push(Gone { ino, kind: node.id.kind, place: node.place, _pinned: node.pinned });
            let Some(parent) = parent else { return };
            if let Some(parent) = self.nodes.get_mut(&parent) {
                parent.children -= 1;
            }
            ino = parent;
        }
    }

    /// Give a referenced node another place, and keep the parents' counts true.
    fn settle(&mut self, ino: Ino, place: Option<Place>) {
        if let Some(parent) = place.as_ref().and_then(|place| self.nodes.get_mut(&place.parent)) {
            parent.children += 1;
        }
        let node = self.nodes.get_mut(&ino).expect("a referenced node");
        if let Some(before) = std::mem::replace(&mut node.place, place)
            && let Some(parent) = self.nodes.get_mut(&before.parent)
        {
            parent.children -= 1;
            let mut vanished = std::mem::take(&mut self.vanished);
            self.drop_unreferenced(before.parent, &mut vanished);
            self.vanished = vanished;
        }
    }

    /// The node of a file, if the kernel knows it.
    pub(super) fn known(&self, id: FileId) -> Option<Ino> {
        let own = (id.dev == self.root_dev).then_some(id.ino);
        let ino = self.numbers.get(&(id.dev, id.ino)).copied().or(own)?;
        (self.nodes.get(&ino)?.id == id).then_some(ino)
    }

    /// A number for a file not known yet. Whatever had its inode number before is another file, and not there any more.
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

    fn id(ino: u64, kind: Kind) -> FileId {
        FileId { dev: 7, ino, kind, born: 0 }
    }

    fn table() -> Inodes {
        Inodes::new(id(1000, Kind::Directory))
    }

    fn fd() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/dev/null").unwrap().into())
    }

    fn found(table: &mut Inodes, id: FileId, parent: Ino, name: &str) -> Ino {
        let since = table.removals();
        table.found(id, parent, OsStr::new(name), since).0
    }

    fn name(table: &Inodes, ino: Ino) -> Option<String> {
        table.place(ino).map(|place| place.name.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_file_keeps_the_number_of_the_disk() {
        let mut table = table();
        assert_eq!(found(&mut table, id(50, Kind::File), ROOT, "a"), 50);
        assert_eq!(found(&mut table, id(50, Kind::File), ROOT, "hard link"), 50);
        assert_eq!(found(&mut table, id(1000, Kind::Directory), ROOT, "bind mount of the root"), ROOT);
    }

    #[test]
    fn other_devices_and_reserved_numbers_are_counted_apart() {
        let mut table = table();
        let one = found(&mut table, id(ROOT, Kind::File), ROOT, "inode one");
        let other = found(&mut table, FileId { dev: 8, ..id(50, Kind::File) }, ROOT, "other device");
        assert!(one > ALLOCATED && other > ALLOCATED && one != other);
    }

    #[test]
    fn a_reused_inode_number_of_another_kind_is_another_node() {
        let mut table = table();
        let file = found(&mut table, id(50, Kind::File), ROOT, "a");
        let dir = found(&mut table, id(50, Kind::Directory), ROOT, "d");
        assert_ne!(file, dir);
        table.forget(file, 1);
        assert_eq!(found(&mut table, id(50, Kind::Directory), ROOT, "d"), dir);
    }

    #[test]
    fn a_reused_inode_number_of_another_birth_is_another_node() {
        let mut table = table();
        let older = found(&mut table, id(50, Kind::Directory), ROOT, "d");
        let younger = FileId { born: 1, ..id(50, Kind::Directory) };
        assert_ne!(found(&mut table, younger, ROOT, "d"), older);
    }

    #[test]
    fn references_are_counted() {
        let mut table = table();
        found(&mut table, id(50, Kind::File), ROOT, "a");
        found(&mut table, id(50, Kind::File), ROOT, "a");
        assert!(table.forget(50, 1).is_empty());
        assert!(table.way(50).is_ok());
        assert_eq!(table.forget(50, 1).len(), 1);
        assert_eq!(table.way(50).err().map(|e| e.errno), Some(libc::ESTALE));
    }

    #[test]
    fn a_directory_stays_while_a_child_has_its_place_in_it() {
        let mut table = table();
        found(&mut table, id(50, Kind::Directory), ROOT, "d");
        found(&mut table, id(51, Kind::File), 50, "a");
        assert!(table.forget(50, 1).is_empty());
        let gone: Vec<Ino> = table.forget(51, 1).into_iter().map(|gone| gone.ino).collect();
        assert_eq!(gone, [51, 50]);
        assert_eq!(table.nodes[&ROOT].children, 0);
    }

    #[test]
    fn removing_the_last_known_name_pins() {
        let mut table = table();
        found(&mut table, id(50, Kind::File), ROOT, "a");
        table.removed(id(50, Kind::File), ROOT, OsStr::new("a"), Some(fd()));
        assert!(matches!(table.way(50), Ok(Way::Pinned(_))));
        assert_eq!(table.pinned(), 1);
        assert!(table.forget(50, 1)[0]._pinned.is_some());
        assert_eq!(table.pinned(), 0);
    }

    #[test]
    fn removing_another_hard_link_changes_nothing() {
        let mut table = table();
        found(&mut table, id(50, Kind::File), ROOT, "a");
        found(&mut table, id(50, Kind::File), ROOT, "b");
        table.removed(id(50, Kind::File), ROOT, OsStr::new("a"), Some(fd()));
        assert_eq!(name(&table, 50).as_deref(), Some("b"));
        assert!(matches!(table.way(50), Ok(Way::At(..))));
    }

    #[test]
    fn a_hard_link_found_later_gives_the_descriptor_back() {
        let mut table = table();
        found(&mut table, id(50, Kind::File), ROOT, "a");
        table.removed(id(50, Kind::File), ROOT, OsStr::new("a"), Some(fd()));
        let since = table.removals();
        let (_, unpinned) = table.found(id(50, Kind::File), ROOT, OsStr::new("b"), since);
        assert!(unpinned.is_some());
        assert_eq!(name(&table, 50).as_deref(), Some("b"));
    }

    #[test]
    fn a_name_read_before_a_removal_is_not_believed_after_it() {
        let mut table = table();
        found(&mut table, id(50, Kind::File), ROOT, "a");
        let since = table.removals();
        table.removed(id(50, Kind::File), ROOT, OsStr::new("a"), Some(fd()));
        let (_, unpinned) = table.found(id(50, Kind::File), ROOT, OsStr::new("a"), since);
        assert!(unpinned.is_none());
        assert!(matches!(table.way(50), Ok(Way::Pinned(_))));
    }

    #[test]
    fn a_rename_moves_the_place() {
        let mut table = table();
        found(&mut table, id(50, Kind::Directory), ROOT, "d");
        found(&mut table, id(51, Kind::File), ROOT, "a");
        table.moved(id(51, Kind::File), (ROOT, OsStr::new("a")), (50, OsStr::new("b")));
        assert_eq!(table.place(51), Some(&Place { parent: 50, name: "b".into() }));
        assert_eq!((table.nodes[&ROOT].children, table.nodes[&50].children), (1, 1));
    }
}
