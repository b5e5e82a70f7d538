//! The descriptors by which nodes are reached, whatever happens to their names.
//!
//! May assume: the lock around it is held for every call.
//! Must never: close a descriptor of a node under that lock. What it lets go of is handed out.
//!
//! A file that a process has open must be reached after it was renamed, replaced or removed beneath the mount. So a node
//! gets a descriptor at the moment at which the kernel hears of it.
//!
//! Where opens are reported, an open file has a descriptor of its own, and those of nodes are only quick ways: the least
//! recently used one makes room. Where they are not, any node may be open, and each keeps its descriptor until the kernel has
//! forgotten it. Those that were used least recently then wait in [`parcels`](super::parcels). Only beyond the number that
//! all tables may hold, a new node goes without.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::fstat;

use super::lru::Lru;
use super::parcels::{PARCEL_MAX, Parcel};
use crate::fs::Ino;

/// How many of the least recently used nodes are looked at to find one that has a name.
const LOOKED_AT: usize = 16;
/// A parcel holds at most this part of the descriptors at hand: as many may come out of it at once.
const PARCEL_PART: usize = 8;

/// What becomes of the descriptors for which there is no room at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// The kernel reports opens to the daemon. The descriptors are closed.
    Reported,
    /// It does not. They wait in parcels; so many nodes have a descriptor at most, at hand or in a parcel.
    Unreported(usize),
}

/// A parcel, and whose descriptors are in it.
struct Packed {
    parcel: Parcel,
    /// In the order of the parcel; nothing for a node that is no more.
    nodes: Vec<Option<Ino>>,
}

impl Packed {
    fn is_waste(&self) -> bool {
        self.nodes.iter().all(Option::is_none)
    }
}

/// Descriptors without content (`O_PATH`), by node. See the top of this file.
pub(super) struct Paths {
    at_hand: Lru<Arc<OwnedFd>>,
    /// How many may be at hand.
    most: usize,
    opens: Opens,
    /// The parcel in which the descriptor of a node waits.
    packed: HashMap<Ino, u64>,
    parcels: HashMap<u64, Packed>,
    next: u64,
}

/// Descriptors to be closed when the lock is let go.
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
    /// EMFILE when the process has no room for it and those that wait with it.
    pub(super) fn get(&mut self, ino: Ino, out: &mut Out) -> io::Result<Option<Arc<OwnedFd>>> {
        if self.at_hand.get(ino).is_none()
            && let Some(number) = self.packed.get(&ino)
        {
            self.open_parcel(*number, out)?;
        }
        Ok(self.at_hand.get(ino).map(|fd| fd.clone()))
    }

    /// Keep a descriptor of a node that has none. The answer is whether there was room.
    #[must_use = "a node without a descriptor needs another way"]
    pub(super) fn insert(&mut self, ino: Ino, fd: Arc<OwnedFd>, out: &mut Out) -> bool {
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
            out.extend(self.at_hand.insert(ino, fd));
        }
        has_room
    }

    /// The node is no more.
    pub(super) fn remove(&mut self, ino: Ino, out: &mut Out) {
        out.extend(self.at_hand.remove(ino));
        if let Some(number) = self.packed.remove(&ino)
            && let Some(packed) = self.parcels.get_mut(&number)
        {
            packed.nodes.iter_mut().filter(|node| **node == Some(ino)).for_each(|node| *node = None);
            if packed.is_waste() {
                self.parcels.remove(&number);
            }
        }
    }

    /// Take one descriptor of a node that is no more out of its parcel, and others with it; false if there is none. Until then it
    /// keeps the disk from giving back the space of a file that was removed.
    pub(super) fn clear(&mut self, out: &mut Out) -> bool {
        let has_waste = |(_, packed): &(&u64, &Packed)| packed.nodes.iter().any(Option::is_none);
        let Some(number) = self.parcels.iter().find(has_waste).map(|(number, _)| *number) else {
            return false;
        };
        self.open_parcel(number, out).is_ok()
    }

    /// Give up all of them.
    pub(super) fn take_all(&mut self, out: &mut Out) {
        out.extend(self.at_hand.take_if(|_| true));
        self.packed.clear();
        self.parcels.clear();
    }

    /// All that are at hand, with their nodes.
    pub(super) fn all_at_hand(&mut self) -> Vec<(Ino, Arc<OwnedFd>)> {
        let nodes = self.at_hand.oldest(usize::MAX);
        nodes.into_iter().filter_map(|ino| Some((ino, self.at_hand.peek(ino)?.clone()))).collect()
    }

    /// How many nodes have a descriptor.
    pub(super) fn len(&self) -> usize {
        self.at_hand.len() + self.packed.len()
    }

    /// How many of them are in parcels.
    pub(super) fn packed(&self) -> usize {
        self.packed.len()
    }

    /// A parcel takes a descriptor, too.
    fn is_full(&self) -> bool {
        self.at_hand.len() + self.parcels.len() >= self.most
    }

    /// A file that lost its name is reached by its descriptor only.
    fn evict(&mut self, out: &mut Out) {
        let oldest = self.at_hand.oldest(LOOKED_AT).into_iter();
        let has_name = |fd: &Arc<OwnedFd>| fstat(fd).is_ok_and(|stat| stat.st_nlink > 0);
        let mut named = oldest.filter(|ino| self.at_hand.peek(*ino).is_some_and(|fd| has_name(fd)));
        if let Some(evicted) = named.next() {
            out.extend(self.at_hand.remove(evicted));
        }
    }

    /// Put the descriptors that were used least recently into a parcel. The answer is whether that was possible.
    fn pack(&mut self, out: &mut Out) -> bool {
        if self.parcels.len() >= self.most / 2 {
            return false;
        }
        let nodes = self.at_hand.oldest((self.most / PARCEL_PART).clamp(1, PARCEL_MAX));
        let taken: Vec<(Ino, Arc<OwnedFd>)> =
            nodes.into_iter().filter_map(|ino| Some((ino, self.at_hand.remove(ino)?))).collect();
        match self.put(&taken) {
            Ok(()) => {
                out.extend(taken.into_iter().map(|(_, fd)| fd));
                true
            }
            Err(error) => {
                log::debug!("descriptors cannot wait in a socket: {error}");
                for (ino, fd) in taken {
                    out.extend(self.at_hand.insert(ino, fd));
                }
                false
            }
        }
    }

    fn put(&mut self, descriptors: &[(Ino, Arc<OwnedFd>)]) -> io::Result<()> {
        let parcel = Parcel::pack(descriptors.iter().map(|(_, fd)| fd.as_fd()))?;
        let number = self.next;
        self.next += 1;
        self.packed.extend(descriptors.iter().map(|(ino, _)| (*ino, number)));
        let nodes = descriptors.iter().map(|(ino, _)| Some(*ino)).collect();
        self.parcels.insert(number, Packed { parcel, nodes });
        Ok(())
    }

    /// Everything that is in a parcel is at hand from now on. If there is no room for that, others go into a parcel.
    fn open_parcel(&mut self, number: u64, out: &mut Out) -> io::Result<()> {
        let Some(packed) = self.parcels.get(&number) else { return Ok(()) };
        let descriptors = packed.parcel.unpack()?;
        let nodes = self.parcels.remove(&number).into_iter().flat_map(|packed| packed.nodes);
        for (node, fd) in nodes.zip(descriptors.into_iter().map(Arc::new)) {
            out.extend(match node {
                Some(ino) => {
                    self.packed.remove(&ino);
                    self.at_hand.insert(ino, fd)
                }
                None => Some(fd),
            });
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
            let _had_room = paths.insert(ino, fd(), &mut Out::new());
        }
        paths
    }

    fn kept(paths: &Paths, nodes: std::ops::Range<Ino>) -> Vec<Ino> {
        nodes.filter(|ino| paths.at_hand.contains(*ino) || paths.packed.contains_key(ino)).collect()
    }

    #[test]
    fn where_opens_are_reported_the_oldest_file_with_a_name_makes_room() {
        let (mut paths, mut out) = (Paths::new(Opens::Reported, 2), Out::new());
        let nameless = tempfile::tempfile().unwrap();
        assert!(paths.insert(1, Arc::new(nameless.into()), &mut out));
        assert!(paths.insert(2, fd(), &mut out) && paths.insert(3, fd(), &mut out));
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
                assert!(paths.insert(ino, Arc::new(file), &mut out));
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
        assert!(paths.insert(35, fd(), &mut Out::new()));
    }

    #[test]
    fn what_is_no_more_is_taken_out_of_its_parcel() {
        let (mut paths, mut out) = (Paths::new(Opens::Unreported(100), 32), Out::new());
        let (kept_open, removed) = std::io::pipe().unwrap();
        assert!(paths.insert(0, Arc::new(removed.into()), &mut out));
        (1..60).for_each(|ino| assert!(paths.insert(ino, fd(), &mut out)));
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
