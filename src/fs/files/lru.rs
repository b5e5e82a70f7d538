//! A map with a fixed capacity: the least recently used entry makes room for a new one.
//!
//! May assume: nothing.
//! Must never: drop a value itself when it evicts one, because a drop may make a system call under the caller's lock.

use std::collections::HashMap;

use crate::fs::Ino;

/// "No slot", at either end of the list.
const NONE: usize = usize::MAX;

struct LruSlot<V> {
    key: Ino,
    value: V,
    newer: usize,
    older: usize,
}

/// A bounded map from nodes to `V`. The cost of an operation does not depend on the number of entries.
pub(super) struct Lru<V> {
    capacity: usize,
    index: HashMap<Ino, usize>,
    /// Always as long as `index`: the last slot moves into the place of a removed one.
    slots: Vec<LruSlot<V>>,
    newest: usize,
    oldest: usize,
}

impl<V> Lru<V> {
    pub(super) fn new(capacity: usize) -> Lru<V> {
        assert!(capacity > 0);
        Lru { capacity, index: HashMap::new(), slots: Vec::new(), newest: NONE, oldest: NONE }
    }

    /// The value, which becomes the most recently used one.
    pub(super) fn get(&mut self, key: Ino) -> Option<&mut V> {
        let slot = *self.index.get(&key)?;
        if self.newest != slot {
            self.unlink(slot);
            self.link_newest(slot);
        }
        Some(&mut self.slots[slot].value)
    }

    /// Insert a value. The answer is the value that it replaced or evicted.
    #[must_use = "drop it after the lock is let go"]
    pub(super) fn insert(&mut self, key: Ino, value: V) -> Option<V> {
        if self.get(key).is_some() {
            return Some(std::mem::replace(&mut self.slots[self.newest].value, value));
        }
        let evicted = if self.slots.len() == self.capacity { self.pop_oldest() } else { None };
        let slot = self.slots.len();
        self.slots.push(LruSlot { key, value, newer: NONE, older: NONE });
        self.index.insert(key, slot);
        self.link_newest(slot);
        evicted
    }

    #[must_use = "drop it after the lock is let go"]
    pub(super) fn remove(&mut self, key: Ino) -> Option<V> {
        let slot = self.index.remove(&key)?;
        self.unlink(slot);
        let removed = self.slots.swap_remove(slot);
        if let Some(moved) = self.slots.get(slot) {
            let (key, newer, older) = (moved.key, moved.newer, moved.older);
            self.index.insert(key, slot);
            match newer {
                NONE => self.newest = slot,
                newer => self.slots[newer].older = slot,
            }
            match older {
                NONE => self.oldest = slot,
                older => self.slots[older].newer = slot,
            }
        }
        Some(removed.value)
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is an entry. This does not count as a use.
    pub(super) fn contains(&self, key: Ino) -> bool {
        self.index.contains_key(&key)
    }

    /// The entry. This does not count as a use.
    pub(super) fn peek(&mut self, key: Ino) -> Option<&mut V> {
        let slot = *self.index.get(&key)?;
        Some(&mut self.slots[slot].value)
    }

    /// The least recently used entries, the oldest first.
    pub(super) fn oldest(&self, count: usize) -> Vec<Ino> {
        let oldest = self.slots.get(self.oldest);
        let newer = |slot: &&LruSlot<V>| self.slots.get(slot.newer);
        std::iter::successors(oldest, newer).map(|slot| slot.key).take(count).collect()
    }

    /// Remove the older half.
    #[must_use = "drop it after the lock is let go"]
    pub(super) fn take_half(&mut self) -> Vec<V> {
        let count = self.slots.len().div_ceil(2);
        std::iter::from_fn(|| self.pop_oldest()).take(count).collect()
    }

    /// Remove every entry that is `unwanted`. This visits all entries.
    #[must_use = "drop it after the lock is let go"]
    pub(super) fn take_if(&mut self, mut unwanted: impl FnMut(&mut V) -> bool) -> Vec<V> {
        let chosen = self.slots.iter_mut().filter_map(|slot| unwanted(&mut slot.value).then_some(slot.key));
        let keys: Vec<Ino> = chosen.collect();
        keys.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    fn pop_oldest(&mut self) -> Option<V> {
        let key = self.slots.get(self.oldest)?.key;
        self.remove(key)
    }

    fn unlink(&mut self, slot: usize) {
        let LruSlot { newer, older, .. } = self.slots[slot];
        match newer {
            NONE => self.newest = older,
            newer => self.slots[newer].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.slots[older].newer = newer,
        }
    }

    fn link_newest(&mut self, slot: usize) {
        self.slots[slot].newer = NONE;
        self.slots[slot].older = self.newest;
        match self.newest {
            NONE => self.oldest = slot,
            newest => self.slots[newest].newer = slot,
        }
        self.newest = slot;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys_newest_first(lru: &Lru<u64>) -> Vec<Ino> {
        let mut keys = Vec::new();
        let mut slot = lru.newest;
        while slot != NONE {
            keys.push(lru.slots[slot].key);
            slot = lru.slots[slot].older;
        }
        keys
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut lru = Lru::new(2);
        assert_eq!(lru.insert(1, 10), None);
        assert_eq!(lru.insert(2, 20), None);
        assert_eq!(lru.get(1), Some(&mut 10));
        assert_eq!(lru.insert(3, 30), Some(20));
        assert_eq!(lru.get(2), None);
        assert_eq!(keys_newest_first(&lru), [3, 1]);
    }

    #[test]
    fn a_replaced_value_is_given_back() {
        let mut lru = Lru::new(2);
        assert_eq!(lru.insert(1, 10), None);
        assert_eq!(lru.insert(1, 11), Some(10));
        assert_eq!(lru.get(1), Some(&mut 11));
    }

    #[test]
    fn half_is_taken_from_the_old_end() {
        let mut lru = Lru::new(8);
        for key in 1..=5 {
            assert_eq!(lru.insert(key, key), None);
        }
        assert_eq!(lru.take_half(), [1, 2, 3]);
        assert_eq!(keys_newest_first(&lru), [5, 4]);
    }

    #[test]
    fn the_oldest_come_first_and_to_look_is_no_use() {
        let mut lru = Lru::new(8);
        for key in 1..=4 {
            assert_eq!(lru.insert(key, key), None);
        }
        assert_eq!(lru.get(1), Some(&mut 1));
        assert_eq!(lru.peek(2), Some(&mut 2));
        assert_eq!((lru.oldest(2), lru.oldest(9), lru.len()), (vec![2, 3], vec![2, 3, 4, 1], 4));
    }

    #[test]
    fn the_unwanted_are_taken_whatever_their_age() {
        let mut lru = Lru::new(8);
        for key in 1..=5 {
            assert_eq!(lru.insert(key, key), None);
        }
        assert_eq!(lru.take_if(|value| *value % 2 == 1), [1, 3, 5]);
        assert_eq!(keys_newest_first(&lru), [4, 2]);
    }

    #[test]
    fn it_agrees_with_a_list_kept_in_order() {
        let mut lru = Lru::new(5);
        let mut model: Vec<Ino> = Vec::new();
        let mut random = 1_u64;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (random >> 33) % 9;
            let known = model.iter().position(|&k| k == key);
            match (random >> 50) % 3 {
                0 => {
                    assert_eq!(lru.get(key).copied(), known.map(|_| key));
                    if let Some(at) = known {
                        model.remove(at);
                        model.insert(0, key);
                    }
                }
                1 => {
                    assert_eq!(lru.remove(key), known.map(|at| model.remove(at)));
                }
                _ => {
                    let gone = match known {
                        Some(at) => Some(model.remove(at)),
                        None if model.len() == 5 => model.pop(),
                        None => None,
                    };
                    model.insert(0, key);
                    assert_eq!(lru.insert(key, key), gone);
                }
            }
            assert_eq!(keys_newest_first(&lru), model);
        }
    }
}
