//! The `O_PATH` descriptors by which nodes are reached, whatever happens to their names.
//!
//! May assume: the caller holds the lock around it.
//! Must never: close a descriptor of a node under that lock. Descriptors to close are returned to the caller.
//!
//! A file that a process has open must stay reachable after it was renamed, replaced or removed beneath the mount. So a node gets a
//! descriptor when the kernel learns of the node.
//!
//! Where the kernel reports opens, an open file has a descriptor of its own, and those of nodes only save a walk: the least recently
//! used one makes room. Where the kernel does not, any node may be open, and each keeps its descriptor until the kernel forgets
//! the node. The least recently used ones wait in [`parcels`](super::parcels). A new node goes without a descriptor only when the
//! number that all tables may hold is reached.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::fstat;

use super::lru::Lru;
use super::parcels::{PARCEL_MAX, Parcel};
use crate::fs::Ino;

/// The number of least recently used nodes to search for one whose file has a name.
const LOOKED_AT: usize = 16;
/// A parcel holds at most this part of the descriptors at hand, since unpacking brings all of them back at once.
const PARCEL_PART: usize = 8;

/// What happens to the descriptors for which there is no room at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// The kernel reports opens to the daemon. The descriptors are closed.
    Reported,
    /// The kernel does not report opens. The descriptors wait in parcels. At most this many nodes have one, at hand or in a parcel.
    Unreported(usize),
}

/// A parcel, and the nodes of its descriptors.
struct Packed {
    parcel: Parcel,
    /// In the order of the parcel, each with whether it is a directory; `None` for a node that was removed.
    nodes: Vec<Option<(Ino, bool)>>,
}

impl Packed {
    fn is_waste(&self) -> bool {
        self.nodes.iter().all(Option::is_none)
    }
}

/// A descriptor at hand.
struct AtHand {
    fd: Arc<OwnedFd>,
    is_directory: bool,
}

/// `O_PATH` descriptors, by node. See the module's documentation.
pub(super) struct Paths {
    at_hand: Lru<AtHand>,
    /// The largest number at hand.
    most: usize,
    opens: Opens,
    /// The number of the parcel in which the descriptor of a node waits.
    packed: HashMap<Ino, u64>,
    parcels: HashMap<u64, Packed>,
    next: u64,
}

/// Descriptors that the caller closes after it has released the lock.
pub(super) type Out = Vec<Arc<OwnedFd>>;

impl Paths {
    /// No descriptors yet, and never more than `most` at hand.
    pub(super) fn new(opens: Opens, most: usize) -> Paths {
        let (at_hand, packed, parcels) = (Lru::new(usize::MAX), HashMap::new(), HashMap::new());
        Paths { at_hand, most, opens, packed, parcels, next: 0 }
    }

    /// The descriptor of a node, if it has one.
    ///
    /// # Errors
    /// EMFILE when the process has no room for it and the others of its parcel.
    pub(super) fn get(&mut self, ino: Ino, out: &mut Out) -> io::Result<Option<Arc<OwnedFd>>> {
        if self.at_hand.get(ino).is_none()
            && let Some(number) = self.packed.get(&ino)
        {
            self.open_parcel(*number, out)?;
        }
        Ok(self.at_hand.get(ino).map(|at_hand| at_hand.fd.clone()))
    }

    /// Whether a node has a descriptor, at hand or in a parcel.
    pub(super) fn has(&self, ino: Ino) -> bool {
        self.at_hand.contains(ino) || self.packed.contains_key(&ino)
    }

    /// Keep a descriptor of a node, unless it has one. The answer is whether the node has one afterwards.
    #[must_use = "a node without a descriptor needs another way"]
    pub(super) fn insert(&mut self, ino: Ino, fd: Arc<OwnedFd>, is_directory: bool, out: &mut Out) -> bool {
        if self.at_hand.get(ino).is_some() || self.packed.contains_key(&ino) {
            out.push(fd);
            return true;
        }
        let has_room = match self.opens {
            Opens::Reported => {
                if self.at_hand.len() >= self.most {
                    self.evict(out);
                }
                true
            }
            Opens::Unreported(all) => self.len() < all && (!self.is_full() || self.pack(out)),
        };
        if has_room {
            self.put_at_hand(ino, AtHand { fd, is_directory }, out);
        }
        has_room
    }

    /// Remove a node that the kernel has forgotten.
    pub(super) fn remove(&mut self, ino: Ino, out: &mut Out) {
        out.extend(self.at_hand.remove(ino).map(|at_hand| at_hand.fd));
        if let Some(number) = self.packed.remove(&ino)
            && let Some(packed) = self.parcels.get_mut(&number)
        {
            let mut nodes = packed.nodes.iter_mut();
            if let Some(node) = nodes.find(|node| node.is_some_and(|(packed, _)| packed == ino)) {
                *node = None;
            }
            if packed.is_waste() {
                self.parcels.remove(&number);
            }
        }
    }

    /// Unpack one parcel that holds a descriptor of a removed node; false if there is none. Until then such a descriptor keeps the disk
    /// from freeing the space of a removed file.
    pub(super) fn clear(&mut self, out: &mut Out) -> bool {
        let has_waste = |(_, packed): &(&u64, &Packed)| packed.nodes.iter().any(Option::is_none);
        let Some(number) = self.parcels.iter().find(has_waste).map(|(number, _)| *number) else {
            return false;
        };
        self.open_parcel(number, out).is_ok()
    }

    /// Remove all of them.
    pub(super) fn take_all(&mut self, out: &mut Out) {
        out.extend(self.at_hand.take_if(|_| true).into_iter().map(|at_hand| at_hand.fd));
        self.packed.clear();
        self.parcels.clear();
    }

    /// All that are at hand, with their nodes.
    pub(super) fn all_at_hand(&mut self) -> Vec<(Ino, Arc<OwnedFd>)> {
        let nodes = self.at_hand.oldest(usize::MAX);
        nodes.into_iter().filter_map(|ino| Some((ino, self.at_hand.peek(ino)?.fd.clone()))).collect()
    }

    /// How many nodes have a descriptor.
    pub(super) fn len(&self) -> usize {
        self.at_hand.len() + self.packed.len()
    }

    /// How many of them are in parcels.
    pub(super) fn packed(&self) -> usize {
        self.packed.len()
    }

    /// A parcel takes a descriptor too.
    fn is_full(&self) -> bool {
        self.at_hand.len() + self.parcels.len() >= self.most
    }

    /// Evict the oldest descriptor of a file that has a name. A file without a name can be reached only by its descriptor.
    fn evict(&mut self, out: &mut Out) {
        let oldest = self.at_hand.oldest(LOOKED_AT).into_iter();
        let has_name = |at_hand: &AtHand| fstat(&at_hand.fd).is_ok_and(|stat| stat.st_nlink > 0);
        let mut named = oldest.filter(|ino| self.at_hand.peek(*ino).is_some_and(|at_hand| has_name(at_hand)));
        if let Some(evicted) = named.next() {
            out.extend(self.at_hand.remove(evicted).map(|at_hand| at_hand.fd));
        }
    }

    fn put_at_hand(&mut self, ino: Ino, at_hand: AtHand, out: &mut Out) {
        out.extend(self.at_hand.insert(ino, at_hand).map(|replaced| replaced.fd));
    }

    /// The least recently used nodes that are not directories, if there are any: every lookup in a directory needs its descriptor.
    fn least_used(&mut self) -> Vec<Ino> {
        let count = (self.most / PARCEL_PART).clamp(1, PARCEL_MAX);
        let oldest = self.at_hand.oldest(2 * count);
        let (directories, mut nodes): (Vec<Ino>, Vec<Ino>) =
            oldest.into_iter().partition(|ino| self.at_hand.peek(*ino).is_some_and(|at| at.is_directory));
        if nodes.is_empty() {
            nodes = directories;
        } else {
            // The directories are then no longer the oldest.
            for ino in directories {
                self.at_hand.get(ino);
            }
        }
        nodes.truncate(count);
        nodes
    }

    /// Put the least recently used descriptors into a parcel. The answer is whether that was possible.
    fn pack(&mut self, out: &mut Out) -> bool {
        if self.parcels.len() >= self.most / 2 {
            return false;
        }
        let nodes = self.least_used();
        let taken: Vec<(Ino, AtHand)> =
            nodes.into_iter().filter_map(|ino| Some((ino, self.at_hand.remove(ino)?))).collect();
        let parcel = Parcel::pack(taken.iter().map(|(_, at_hand)| at_hand.fd.as_fd()));
        match parcel {
            Ok(parcel) => {
                let number = self.next;
                self.next += 1;
                self.packed.extend(taken.iter().map(|(ino, _)| (*ino, number)));
                let nodes = taken.iter().map(|(ino, at_hand)| Some((*ino, at_hand.is_directory))).collect();
                self.parcels.insert(number, Packed { parcel, nodes });
                out.extend(taken.into_iter().map(|(_, at_hand)| at_hand.fd));
                true
            }
            Err(error) => {
                log::debug!("descriptors cannot wait in a socket: {error}");
                taken.into_iter().for_each(|(ino, at_hand)| self.put_at_hand(ino, at_hand, out));
                false
            }
        }
    }

    /// Bring all descriptors of a parcel to hand. If there is no room for them, pack others.
    fn open_parcel(&mut self, number: u64, out: &mut Out) -> io::Result<()> {
        let Some(packed) = self.parcels.get(&number) else { return Ok(()) };
        let descriptors = packed.parcel.unpack()?;
        let nodes = self.parcels.remove(&number).into_iter().flat_map(|packed| packed.nodes);
        for (node, fd) in nodes.zip(descriptors.into_iter().map(Arc::new)) {
            match node {
                Some((ino, is_directory)) => {
                    self.packed.remove(&ino);
                    self.put_at_hand(ino, AtHand { fd, is_directory }, out);
                }
                None => out.push(fd),
            }
        }
        while self.is_full() && self.pack(out) {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/dev/null").unwrap().into())
    }

    fn filled(opens: Opens, most: usize, nodes: std::ops::Range<Ino>) -> Paths {
        let mut paths = Paths::new(opens, most);
        for ino in nodes {
            let _had_room = paths.insert(ino, fd(), false, &mut Out::new());
        }
        paths
    }

    fn kept(paths: &Paths, nodes: std::ops::Range<Ino>) -> Vec<Ino> {
        nodes.filter(|ino| paths.has(*ino)).collect()
    }

    #[test]
    fn where_opens_are_reported_the_oldest_file_with_a_name_makes_room() {
        let (mut paths, mut out) = (Paths::new(Opens::Reported, 2), Out::new());
        let nameless = tempfile::tempfile().unwrap();
        assert!(paths.insert(1, Arc::new(nameless.into()), false, &mut out));
        assert!(paths.insert(2, fd(), false, &mut out) && paths.insert(3, fd(), false, &mut out));
        assert_eq!((kept(&paths, 1..4), out.len()), (vec![1, 3], 1));
    }

    #[test]
    fn where_they_are_not_the_oldest_wait_in_parcels_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let (mut paths, mut out) = (Paths::new(Opens::Unreported(500), 100), Out::new());
        let number = |fd: &OwnedFd| fstat(fd).unwrap().st_ino;
        let files: Vec<u64> = (0..200)
            .map(|ino| {
                let file: OwnedFd = std::fs::File::create(dir.path().join(ino.to_string())).unwrap().into();
                let at = number(&file);
                assert!(paths.insert(ino, Arc::new(file), false, &mut out));
                out.clear();
                assert!(paths.at_hand.len() + paths.parcels.len() <= 100 && paths.len() as u64 == ino + 1);
                at
            })
            .collect();
        assert!(paths.packed() >= 100);
        for ino in (0..200).rev().chain(0..200) {
            assert_eq!(number(&paths.get(ino, &mut out).unwrap().unwrap()), files[ino as usize]);
            out.clear();
            assert!(paths.at_hand.len() + paths.parcels.len() <= 100 && paths.len() == 200);
        }
    }

    #[test]
    fn beyond_all_that_may_be_kept_a_node_goes_without() {
        let mut paths = filled(Opens::Unreported(30), 32, 0..40);
        assert_eq!(kept(&paths, 0..40), (0..30).collect::<Vec<Ino>>());
        assert!(paths.get(35, &mut Out::new()).unwrap().is_none());
        paths.remove(3, &mut Out::new());
        assert!(paths.insert(35, fd(), false, &mut Out::new()));
    }

    #[test]
    fn directories_stay_at_hand_as_long_as_there_is_anything_else() {
        let (mut paths, mut out) = (Paths::new(Opens::Unreported(500), 128), Out::new());
        (0..30).for_each(|ino| assert!(paths.insert(ino, fd(), true, &mut out)));
        (30..200).for_each(|ino| assert!(paths.insert(ino, fd(), false, &mut out)));
        assert!((0..30).all(|ino| paths.at_hand.contains(ino)) && paths.packed() > 60);
        (200..300).for_each(|ino| assert!(paths.insert(ino, fd(), true, &mut out)));
        assert_eq!((paths.len(), kept(&paths, 0..300).len()), (300, 300));
    }

    #[test]
    fn what_is_no_more_is_taken_out_of_its_parcel() {
        let (mut paths, mut out) = (Paths::new(Opens::Unreported(100), 32), Out::new());
        let (kept_open, removed) = std::io::pipe().unwrap();
        assert!(paths.insert(0, Arc::new(removed.into()), false, &mut out));
        (1..60).for_each(|ino| assert!(paths.insert(ino, fd(), false, &mut out)));
        out.clear();
        let is_open = || {
            rustix::event::poll(
                &mut [rustix::event::PollFd::new(&kept_open, rustix::event::PollFlags::IN)],
                Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }),
            ) == Ok(0)
        };
        paths.remove(0, &mut out);
        assert!(is_open(), "it waits with others");
        while paths.clear(&mut out) {}
        out.clear();
        assert!(!is_open());
        assert_eq!(kept(&paths, 0..60), (1..60).collect::<Vec<Ino>>());
        (1..60).for_each(|ino| paths.remove(ino, &mut out));
        assert_eq!((paths.len(), paths.parcels.len()), (0, 0));
    }
}
