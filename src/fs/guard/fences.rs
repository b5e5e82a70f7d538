//! Connections that may no longer write a file, because a younger connection of the same worker has changed it (C42). Pure: it reads no
//! file and no process.
//!
//! May assume: a fence is raised only for a connection that has the file open, and lowered when the connection has closed it.
//! Must never: fence a connection that does not have the file open.
//!
//! All connections of a worker are one worker and no rivals. But the client of one connection may be gone without a sign, and requests that
//! it sent may arrive after the worker has changed the file again through its next connection. An SFTP client opens one file through one
//! connection at a time. So when a younger connection changes a file that an older one has open, the older one may no longer write
//! through that open file.

use std::collections::HashMap;

use crate::fs::Ino;
use crate::limits::LOCKED_FILES;

/// The processes that may no longer change a file, by file.
#[derive(Debug, Default)]
pub(super) struct Fences {
    raised: HashMap<Ino, Vec<u32>>,
}

impl Fences {
    /// Fence a process: a younger connection has changed the file that it has open.
    pub(super) fn raise(&mut self, ino: Ino, process: u32) {
        if !self.is_fenced(ino, process)
            && (self.raised.len() < LOCKED_FILES || self.raised.contains_key(&ino))
        {
            self.raised.entry(ino).or_default().push(process);
        }
    }

    /// Whether the process is fenced from the file.
    pub(super) fn is_fenced(&self, ino: Ino, process: u32) -> bool {
        self.raised.get(&ino).is_some_and(|fenced| fenced.contains(&process))
    }

    /// Lower the fence: the process has closed the file.
    pub(super) fn lower(&mut self, ino: Ino, process: u32) {
        let Some(fenced) = self.raised.get_mut(&ino) else { return };
        fenced.retain(|other| *other != process);
        if fenced.is_empty() {
            self.raised.remove(&ino);
        }
    }

    /// Remove all fences of a removed file.
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
        assert!(!fences.is_fenced(7, 100));
        fences.raise(7, 100);
        fences.raise(7, 100);
        fences.raise(8, 100);
        assert!(fences.is_fenced(7, 100) && !fences.is_fenced(7, 200) && fences.is_fenced(8, 100));
        assert_eq!(fences.all().len(), 2);
        fences.lower(7, 100);
        assert!(!fences.is_fenced(7, 100) && fences.is_fenced(8, 100));
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
