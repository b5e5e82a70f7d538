//! What is open on the desk.
//!
//! Must never: let go of what a worker wrote before it is on disk or refused.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::super::caller::Caller;
use super::super::{FsError, Ino, Kind, Result};
use crate::limits::{CAPABILITIES_BYTES, NOTE_BYTES, RESULT_BYTES, SCRATCH_FILES};
use crate::queue::{Eyes, Payer, Seq, TaskId, Wall, WorkerName};

/// One open file or directory.
pub(super) enum Handle {
    /// A document as it was at open (C1). Writing to it is accepted where opening it for writing was, and has no effect.
    Document(Vec<u8>),
    /// A claim, open for writing: what is written is the progress note.
    Note(Mutex<Note>),
    /// A text that is given to the queue when it is closed.
    Draft(Arc<Caller>, Arc<Mutex<Draft>>),
    /// A temporary file.
    Scratch(u64),
    /// `events.jsonl`, which grows while it is open, as these eyes see it.
    Events(Eyes),
    /// A real file of the project.
    Plain(Plain),
    /// A directory that is listed from memory.
    Listing(Mutex<Vec<Line>>),
}

pub(super) struct Note {
    pub(super) task: TaskId,
    pub(super) epoch: Seq,
    pub(super) caller: Arc<Caller>,
    /// The document as it was at open.
    pub(super) shown: Vec<u8>,
    /// What was written since, in the order of writing: offsets mean nothing for a note.
    pub(super) written: Vec<u8>,
}

impl Note {
    /// The note with `data` added to it.
    pub(super) fn add(&mut self, data: &[u8]) -> Result<String> {
        if self.written.len() + data.len() > NOTE_BYTES {
            return Err(FsError::because(
                libc::EFBIG,
                format!("a progress note has at most {NOTE_BYTES} bytes"),
            ));
        }
        self.written.extend_from_slice(data);
        Ok(String::from_utf8_lossy(&self.written).into_owned())
    }
}

/// What a draft is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// The result or reason of this finish of a task.
    Result(TaskId, Seq),
    /// What a worker can do.
    Capabilities(WorkerName),
}

impl Subject {
    /// How long the text may be, in bytes (C26).
    pub(super) fn limit(&self) -> usize {
        match self {
            Subject::Result(..) => RESULT_BYTES,
            Subject::Capabilities(_) => CAPABILITIES_BYTES,
        }
    }
}

/// A text that is being written.
pub(super) struct Draft {
    pub(super) of: Subject,
    pub(super) text: Vec<u8>,
    /// What the text was when it was opened first.
    before: Vec<u8>,
    /// Whether the text is newer than what is on disk.
    pub(super) dirty: bool,
    /// Whether it was emptied, and nothing was written or closed since.
    pub(super) emptied: bool,
    /// Whether a write was refused whose text is worth nothing in part: nothing more of it is taken.
    void: bool,
}

impl Draft {
    fn new(of: Subject, text: Vec<u8>) -> Draft {
        let before = match of {
            Subject::Capabilities(_) => text.clone(),
            Subject::Result(..) => Vec::new(),
        };
        Draft { of, text, before, dirty: false, emptied: false, void: false }
    }

    /// Write into it. A result that is too long is kept up to the limit (C26); of words that are too many, the old ones stand.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], append: bool) -> Result<()> {
        let limit = self.of.limit();
        let written =
            if self.void { Err(too_long(limit)) } else { put(&mut self.text, offset, data, append, limit) };
        (self.dirty, self.emptied) = (true, false);
        if written.is_err() && matches!(self.of, Subject::Capabilities(_)) {
            self.void = true;
            self.text.clone_from(&self.before);
        }
        written
    }

    /// Take all of it away.
    pub(super) fn empty(&mut self) {
        self.emptied = !self.text.is_empty();
        self.dirty |= self.emptied;
        self.text.clear();
    }

    /// Give it another length.
    pub(super) fn resize(&mut self, size: u64) -> Result<()> {
        let size = usize::try_from(size).ok().filter(|size| *size <= self.of.limit());
        let size = size.ok_or(FsError::new(libc::EFBIG))?;
        self.dirty |= self.text.len() != size;
        self.text.resize(size, 0);
        Ok(())
    }
}

/// Put `data` into `text` as `pwrite(2)` does; with `append`, at its end.
pub(super) fn put(text: &mut Vec<u8>, offset: u64, data: &[u8], append: bool, limit: usize) -> Result<()> {
    let offset = if append { text.len() } else { usize::try_from(offset).unwrap_or(usize::MAX) };
    let end = offset.saturating_add(data.len());
    if end > limit {
        return Err(too_long(limit));
    }
    if text.len() < end {
        text.resize(end, 0);
    }
    text[offset..end].copy_from_slice(data);
    Ok(())
}

fn too_long(limit: usize) -> FsError {
    FsError::because(libc::EFBIG, format!("this text has at most {limit} bytes; it is kept as it was"))
}

/// Up to `size` bytes of `content` from `offset`.
pub(super) fn slice(content: &[u8], offset: u64, size: u32) -> Vec<u8> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    let end = start.saturating_add(size as usize).min(content.len());
    content[start..end].to_vec()
}

/// What is known of a handle that a file of the project is open by for writing. The file may hold the instructions of a task,
/// now or by the time it is closed.
pub(super) struct Writing {
    /// Who opened it, unless its name is none.
    pub(super) by: Option<Payer>,
    /// Whether the process serves SFTP: it closes what its client has finished, and dies with what its client has not.
    pub(super) is_sftp: bool,
    /// The length of the file when it was opened.
    pub(super) size: i64,
    /// Whether anything was written through it, or the file was made with it.
    pub(super) wrote: AtomicBool,
    /// Whether the process that wrote last was killed, and closed it by that.
    pub(super) torn: AtomicBool,
}

/// An open file of the project.
pub(super) struct Plain {
    pub(super) file: Arc<OwnedFd>,
    /// Of a handle for writing.
    pub(super) writing: Option<Writing>,
}

/// One line of a listing.
pub(super) struct Line {
    pub(super) ino: Ino,
    pub(super) kind: Kind,
    pub(super) name: OsString,
}

/// All that is open.
#[derive(Default)]
pub(super) struct Handles {
    last: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Handle>>>,
}

impl Handles {
    pub(super) fn insert(&self, handle: Handle) -> u64 {
        let fh = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.lock().insert(fh, Arc::new(handle));
        fh
    }

    pub(super) fn get(&self, fh: u64) -> Result<Arc<Handle>> {
        self.open.lock().get(&fh).cloned().ok_or(FsError::new(libc::EBADF))
    }

    pub(super) fn remove(&self, fh: u64) -> Option<Arc<Handle>> {
        self.open.lock().remove(&fh)
    }

    /// Open a text for writing. It is one file: all who have it open see one text, which is `text` for the first of them.
    pub(super) fn insert_draft(&self, caller: &Arc<Caller>, of: Subject, text: Vec<u8>) -> u64 {
        let fh = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut open = self.open.lock();
        let shared = draft_in(&open, &of).unwrap_or_else(|| Arc::new(Mutex::new(Draft::new(of, text))));
        open.insert(fh, Arc::new(Handle::Draft(caller.clone(), shared)));
        fh
    }

    /// The text, if anybody has it open.
    pub(super) fn draft(&self, of: &Subject) -> Option<Arc<Mutex<Draft>>> {
        draft_in(&self.open.lock(), of)
    }
}

fn draft_in(open: &HashMap<u64, Arc<Handle>>, of: &Subject) -> Option<Arc<Mutex<Draft>>> {
    open.values().find_map(|handle| match &**handle {
        Handle::Draft(_, draft) => (draft.lock().of == *of).then(|| draft.clone()),
        _ => None,
    })
}

/// A temporary file in `completed/` or `failed/` (C25). It lives in memory: a crash between writing and renaming it loses
/// what no worker was told is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch {
    pub(super) content: Vec<u8>,
    pub(super) at: Wall,
    /// The user who made it.
    pub(super) uid: u32,
}

/// All temporary files, by number, with the place of those that have a name.
#[derive(Default)]
pub(super) struct Scratches(Mutex<ScratchTable>);

#[derive(Default)]
struct ScratchTable {
    last: u64,
    places: HashMap<(Ino, OsString), u64>,
    files: HashMap<u64, Scratch>,
}

impl Scratches {
    /// A new empty file at a place that has none.
    pub(super) fn create(&self, parent: Ino, name: OsString, file: Scratch) -> Result<u64> {
        let mut table = self.0.lock();
        if table.files.len() >= SCRATCH_FILES {
            return Err(FsError::because(libc::ENOSPC, "too many temporary files here; remove some"));
        }
        table.last += 1;
        let number = table.last;
        table.places.insert((parent, name), number);
        table.files.insert(number, file);
        Ok(number)
    }

    /// The file at a place.
    pub(super) fn at(&self, parent: Ino, name: &std::ffi::OsStr) -> Option<u64> {
        self.0.lock().places.get(&(parent, name.to_os_string())).copied()
    }

    /// All names in a directory.
    pub(super) fn names(&self, parent: Ino) -> Vec<(OsString, u64)> {
        let table = self.0.lock();
        let here = table.places.iter().filter(|((place, _), _)| *place == parent);
        here.map(|((_, name), number)| (name.clone(), *number)).collect()
    }

    /// Look at, or change, a file.
    pub(super) fn with<T>(&self, number: u64, f: impl FnOnce(&mut Scratch) -> T) -> Result<T> {
        self.0.lock().files.get_mut(&number).map(f).ok_or(FsError::new(libc::ENOENT))
    }

    /// Remove the file at a place. Who has it open keeps nothing: temporary files are renamed, not shared.
    pub(super) fn remove(&self, parent: Ino, name: &std::ffi::OsStr) -> Result<Scratch> {
        let mut table = self.0.lock();
        let number = table.places.remove(&(parent, name.to_os_string())).ok_or(FsError::new(libc::ENOENT))?;
        Ok(table.files.remove(&number).unwrap_or_default())
    }

    /// Give the file at a place another name.
    pub(super) fn rename(&self, from: (Ino, &std::ffi::OsStr), to: (Ino, &std::ffi::OsStr)) -> Result<()> {
        let mut table = self.0.lock();
        let place = (from.0, from.1.to_os_string());
        let number = table.places.remove(&place).ok_or(FsError::new(libc::ENOENT))?;
        if let Some(replaced) = table.places.insert((to.0, to.1.to_os_string()), number) {
            table.files.remove(&replaced);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_written_like_a_file_up_to_its_limit() {
        let mut text = b"hello".to_vec();
        put(&mut text, 7, b"x", false, RESULT_BYTES).unwrap();
        assert_eq!(text, b"hello\0\0x");
        put(&mut text, 0, b"!", true, RESULT_BYTES).unwrap();
        assert_eq!(text.last(), Some(&b'!'));
        let before = text.clone();
        for offset in [RESULT_BYTES as u64, u64::MAX] {
            assert_eq!(put(&mut text, offset, b"y", false, RESULT_BYTES).unwrap_err().errno, libc::EFBIG);
        }
        assert_eq!(text, before);
        put(&mut text, RESULT_BYTES as u64 - 1, b"y", false, RESULT_BYTES).unwrap();
    }

    #[test]
    fn slices_end_where_the_content_does() {
        assert_eq!(slice(b"abc", 1, 10), b"bc");
        assert_eq!(slice(b"abc", 3, 1), b"");
        assert_eq!(slice(b"abc", u64::MAX, u32::MAX), b"");
    }
}
