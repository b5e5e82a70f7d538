//! Connections that were superseded at a file (C42). Pure: it is told what was seen, and looks at nothing.
//!
//! May assume: whoever raises a fence has seen that the connection has the file open, and lowers it when that is over.
//! Must never: stand in the way of a connection that does not have the file open.
//!
//! All connections of a worker are one worker, and no rivals. But one may be dead without anybody knowing: its client is gone,
//! and what that sent arrives later, when the worker has changed the file again through its next connection. An SFTP client
//! opens one file through one connection at a time. So when a younger connection changes what an older one has open, the older
//! one may not write any more through what it has opened.

use std::collections::HashMap;

use crate::fs::Ino;
use crate::limits::LOCKED_FILES;

/// Which process may not change which file any more.
#[derive(Debug, Default)]
pub(super) struct Fences {
    raised: HashMap<Ino, Vec<u32>>,
}

impl Fences {
    /// A younger connection has changed what this process has open.
    pub(super) fn raise(&mut self, ino: Ino, process: u32) {
        if !self.stands(ino, process) && (self.raised.len() < LOCKED_FILES || self.raised.contains_key(&ino))
        {
            self.raised.entry(ino).or_default().push(process);
        }
    }

    /// Whether the process is kept from the file.
    pub(super) fn stands(&self, ino: Ino, process: u32) -> bool {
        self.raised.get(&ino).is_some_and(|fenced| fenced.contains(&process))
    }

    /// The process has the file open no longer.
    pub(super) fn lower(&mut self, ino: Ino, process: u32) {
        let Some(fenced) = self.raised.get_mut(&ino) else { return };
        fenced.retain(|other| *other != process);
        if fenced.is_empty() {
            self.raised.remove(&ino);
        }
    }

    /// The file is gone.
    pub(super) fn forget(&mut self, ino: Ino) {
        self.raised.remove(&ino);
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(Ino, u32)> {
        let pairs = |(ino, fenced): (&Ino, &Vec<u32>)| {
            fenced.iter().map(|process| (*ino, *process)).collect::<Vec<_>>()
        };
        self.raised.iter().flat_map(pairs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_keeps_one_process_from_one_file_until_it_is_lowered() {
        let mut fences = Fences::default();
        assert!(!fences.stands(7, 100));
        fences.raise(7, 100);
        fences.raise(7, 100);
        fences.raise(8, 100);
        assert!(fences.stands(7, 100) && !fences.stands(7, 200) && fences.stands(8, 100));
        assert_eq!(fences.all().len(), 2);
        fences.lower(7, 100);
        assert!(!fences.stands(7, 100) && fences.stands(8, 100));
        fences.forget(8);
        assert_eq!(fences.all(), []);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut fences = Fences::default();
        (0..2 * LOCKED_FILES as u64).for_each(|ino| fences.raise(ino, 1));
        assert_eq!(fences.all().len(), LOCKED_FILES);
    }
}
