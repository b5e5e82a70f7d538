//! Temporary files in `completed/` and `failed/`, as editors and agents make them before a rename (C25, C29).
//!
//! May assume: the kernel has checked by the mode of each file who may read it.
//! Must never: let one user's files displace those of all others, or change a file that another user made.
//!
//! They live in memory. A crash between the write and the rename loses only files that no worker was promised. A user that makes more than
//! its share loses the closed file that it has not used for longest.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};

use parking_lot::Mutex;

use super::super::{Fault, FsError, Ino, Request, Result};
use super::handles::{put, slice};
use super::misuse::Misuse;
use crate::limits::{
    RESULT_BYTES, SCRATCH_BYTES, SCRATCH_BYTES_OF_A_USER, SCRATCH_FILES, SCRATCH_FILES_OF_A_USER,
};
use crate::queue::Wall;

/// A temporary file.
#[derive(Debug, Clone)]
pub(super) struct Scratch {
    content: Vec<u8>,
    /// When it was changed.
    at: Wall,
    uid: u32,
    gid: u32,
    mode: u16,
    /// How many handles have it open.
    open: usize,
    /// When it was used last, as a growing number.
    used: u64,
}

/// What `stat(2)` shows of a temporary file.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScratchStat {
    pub(super) size: u64,
    pub(super) at: Wall,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u16,
}

/// The share of all users together, or of one user.
struct ScratchUsage {
    files: usize,
    bytes: usize,
}

const OF_ALL: ScratchUsage = ScratchUsage { files: SCRATCH_FILES, bytes: SCRATCH_BYTES };
const OF_A_USER: ScratchUsage =
    ScratchUsage { files: SCRATCH_FILES_OF_A_USER, bytes: SCRATCH_BYTES_OF_A_USER };

/// All temporary files, by number, with the place of those that have a name.
#[derive(Default)]
pub(super) struct Scratches(Mutex<ScratchTable>);

#[derive(Default)]
struct ScratchTable {
    last: u64,
    clock: u64,
    places: HashMap<(Ino, OsString), u64>,
    files: HashMap<u64, Scratch>,
}

const ABSENT: FsError = FsError::Plain(Fault::Absent);

impl Scratches {
    /// Makes an empty file, open, at a place that has none.
    pub(super) fn create(&self, place: (Ino, &OsStr), req: &Request, mode: u16, at: Wall) -> Result<u64> {
        let mut table = self.0.lock();
        table.make_room(req.uid, 1, 0)?;
        table.last += 1;
        table.clock += 1;
        let (number, used) = (table.last, table.clock);
        if let Some(replaced) = table.places.insert((place.0, place.1.to_os_string()), number) {
            table.files.remove(&replaced);
        }
        let (content, uid, gid) = (Vec::new(), req.uid, req.gid);
        table.files.insert(number, Scratch { content, at, uid, gid, mode, open: 1, used });
        Ok(number)
    }

    /// The file at a place.
    pub(super) fn at(&self, parent: Ino, name: &OsStr) -> Option<u64> {
        self.0.lock().places.get(&(parent, name.to_os_string())).copied()
    }

    /// All names in a directory.
    pub(super) fn names(&self, parent: Ino) -> Vec<(OsString, u64)> {
        let table = self.0.lock();
        let here = table.places.iter().filter(|((place, _), _)| *place == parent);
        here.map(|((_, name), number)| (name.clone(), *number)).collect()
    }

    /// The attributes of a file.
    pub(super) fn stat(&self, number: u64) -> Result<ScratchStat> {
        self.0.lock().file(number).map(|file| ScratchStat {
            size: file.content.len() as u64,
            at: file.at,
            uid: file.uid,
            gid: file.gid,
            mode: file.mode,
        })
    }

    /// A part of its content.
    pub(super) fn read(&self, number: u64, offset: u64, size: u32) -> Result<Vec<u8>> {
        self.0.lock().file(number).map(|file| slice(&file.content, offset, size))
    }

    pub(super) fn write(&self, number: u64, offset: u64, data: &[u8], append: bool, at: Wall) -> Result<()> {
        let mut table = self.0.lock();
        let file = table.file(number)?;
        let start = if append { file.content.len() } else { usize::try_from(offset).unwrap_or(usize::MAX) };
        let more = start.saturating_add(data.len()).min(RESULT_BYTES).saturating_sub(file.content.len());
        let uid = file.uid;
        table.make_room(uid, 0, more)?;
        let file = table.file(number)?;
        file.at = at;
        put(&mut file.content, offset, data, append, RESULT_BYTES)
    }

    pub(super) fn resize(&self, number: u64, size: u64) -> Result<()> {
        let size = usize::try_from(size).ok().filter(|size| *size <= RESULT_BYTES);
        let size = size.ok_or(Fault::TooLarge)?;
        let mut table = self.0.lock();
        let file = table.file(number)?;
        let (uid, more) = (file.uid, size.saturating_sub(file.content.len()));
        table.make_room(uid, 0, more)?;
        let file = table.file(number)?;
        file.content.resize(size, 0);
        file.content.shrink_to_fit();
        Ok(())
    }

    /// Sets the permission bits of a file.
    pub(super) fn set_mode(&self, number: u64, mode: u32) -> Result<()> {
        self.0.lock().file(number)?.mode = (mode & 0o777) as u16;
        Ok(())
    }

    pub(super) fn opened(&self, number: u64) -> Result<()> {
        self.0.lock().file(number).map(|file| file.open += 1)
    }

    pub(super) fn closed(&self, number: u64) {
        if let Ok(file) = self.0.lock().file(number) {
            file.open = file.open.saturating_sub(1);
        }
    }

    /// Removes the file at a place, also for a process that has it open: temporary files are renamed, not shared.
    pub(super) fn remove(&self, parent: Ino, name: &OsStr) -> Result<()> {
        let mut table = self.0.lock();
        let number = table.places.remove(&(parent, name.to_os_string())).ok_or(ABSENT)?;
        table.files.remove(&number);
        Ok(())
    }

    /// Renames the file at a place.
    pub(super) fn rename(&self, from: (Ino, &OsStr), to: (Ino, &OsStr)) -> Result<()> {
        let mut table = self.0.lock();
        let place = (from.0, from.1.to_os_string());
        let number = table.places.remove(&place).ok_or(ABSENT)?;
        if let Some(replaced) = table.places.insert((to.0, to.1.to_os_string()), number)
            && replaced != number
        {
            table.files.remove(&replaced);
        }
        Ok(())
    }
}

impl ScratchTable {
    /// A file that is used now.
    fn file(&mut self, number: u64) -> Result<&mut Scratch> {
        self.clock += 1;
        let file = self.files.get_mut(&number).ok_or(ABSENT)?;
        file.used = self.clock;
        Ok(file)
    }

    /// Makes room for more files of a user: removes closed files, the longest unused first.
    fn make_room(&mut self, uid: u32, files: usize, bytes: usize) -> Result<()> {
        self.make_room_in(&OF_A_USER, |file| file.uid == uid, files, bytes)
            .and_then(|()| self.make_room_in(&OF_ALL, |_| true, files, bytes))
    }

    fn make_room_in(
        &mut self,
        share: &ScratchUsage,
        belongs: impl Fn(&Scratch) -> bool,
        files: usize,
        bytes: usize,
    ) -> Result<()> {
        if files == 0 && bytes == 0 {
            return Ok(());
        }
        loop {
            let theirs = || self.files.iter().filter(|(_, file)| belongs(file));
            let (count, held) = theirs()
                .fold((files, bytes), |(count, held), (_, file)| (count + 1, held + file.content.len()));
            if count <= share.files && held <= share.bytes {
                return Ok(());
            }
            let oldest = theirs().filter(|(_, file)| file.open == 0).min_by_key(|(_, file)| file.used);
            let Some(oldest) = oldest.map(|(number, _)| *number) else {
                return Err(Misuse::TooManyScratches.into());
            };
            self.files.remove(&oldest);
            self.places.retain(|_, number| *number != oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uid: u32) -> Request {
        Request { tid: 0, uid, gid: uid }
    }

    /// Make one with so many bytes, and close it.
    fn make(scratches: &Scratches, uid: u32, name: &str, bytes: usize) -> Result<u64> {
        let number = scratches.create((1, name.as_ref()), &of(uid), 0o600, Wall(0))?;
        let written = scratches.write(number, 0, &vec![b'x'; bytes], false, Wall(0));
        scratches.closed(number);
        written.map(|()| number)
    }

    fn count(scratches: &Scratches, uid: u32) -> usize {
        scratches.0.lock().files.values().filter(|file| file.uid == uid).count()
    }

    #[test]
    fn a_user_who_makes_many_loses_its_own_oldest_ones() {
        let scratches = Scratches::default();
        make(&scratches, 2, "other", 10).unwrap();
        for n in 0..SCRATCH_FILES_OF_A_USER * 3 {
            make(&scratches, 1, &format!(".{n}"), 1).unwrap();
        }
        assert_eq!((count(&scratches, 1), count(&scratches, 2)), (SCRATCH_FILES_OF_A_USER, 1));
        assert!(scratches.at(1, ".0".as_ref()).is_none(), "the oldest went");
        let last = format!(".{}", SCRATCH_FILES_OF_A_USER * 3 - 1);
        assert!(scratches.at(1, last.as_ref()).is_some());
        assert_eq!(scratches.names(1).len(), SCRATCH_FILES_OF_A_USER + 1);
        // As many bytes are too many, too.
        for n in 0..2 * SCRATCH_BYTES_OF_A_USER / RESULT_BYTES {
            make(&scratches, 3, &format!("{n}"), RESULT_BYTES).unwrap();
        }
        assert_eq!(count(&scratches, 3), SCRATCH_BYTES_OF_A_USER / RESULT_BYTES);
    }

    #[test]
    fn what_is_open_stays() {
        let scratches = Scratches::default();
        for n in 0..SCRATCH_FILES_OF_A_USER {
            scratches.create((1, format!(".{n}").as_ref()), &of(1), 0o600, Wall(0)).unwrap();
        }
        assert_eq!(make(&scratches, 1, ".more", 0).unwrap_err().errno(), libc::ENOSPC);
        make(&scratches, 2, ".other", 0).unwrap();
        let used = scratches.at(1, ".7".as_ref()).unwrap();
        scratches.closed(used);
        make(&scratches, 1, ".more", 0).unwrap();
        assert!(scratches.stat(used).is_err() && scratches.at(1, ".8".as_ref()).is_some());
    }

    #[test]
    fn many_users_leave_room_for_one_more() {
        let scratches = Scratches::default();
        for uid in 1..=(SCRATCH_FILES / SCRATCH_FILES_OF_A_USER + 2) as u32 {
            for n in 0..SCRATCH_FILES_OF_A_USER {
                make(&scratches, uid, &format!(".{uid}.{n}"), 0).unwrap();
            }
        }
        assert_eq!(scratches.0.lock().files.len(), SCRATCH_FILES);
        assert!(scratches.at(1, ".1.0".as_ref()).is_none());
    }
}
