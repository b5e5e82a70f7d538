//! The open files of the desk.
//!
//! Must never: drop a text that a worker wrote before it is on disk or refused.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::super::identity::callers::Caller;
use super::super::{Fault, FileKind, FsError, Ino, Result};
use super::misuse::Misuse;
use crate::engine::Ticket;
use crate::limits::{
    CAPABILITIES_BYTES, NOTE_BYTES, OPEN_BYTES_OF_A_USER, OPEN_TEXTS_OF_A_USER, RESULT_BYTES,
};
use crate::queue::{Eyes, Payer, Seq, TaskId, WorkerName};

/// One open file or directory.
pub(super) enum OpenHandle {
    /// A document as it was at open (C1). If it could be opened for writing, writes to it succeed and have no effect.
    Document(Arc<[u8]>),
    /// A claim that is open for writing: the text becomes the progress note.
    Note(Mutex<NoteHandle>),
    /// A text that goes to the queue at close.
    Draft(Arc<Caller>, Arc<Mutex<Draft>>),
    /// A temporary file.
    Scratch(u64),
    /// `events.jsonl`, which grows while it is open, as these eyes see it.
    Events(Eyes),
    /// A real file of the project.
    Plain(Plain),
    /// A directory that is listed from memory.
    Listing(Mutex<Vec<ListingLine>>),
}

pub(super) struct NoteHandle {
    /// The claim that the note is about.
    pub(super) claim: Ticket,
    pub(super) caller: Arc<Caller>,
    /// The document as it was at open.
    pub(super) shown: Arc<[u8]>,
    /// The data written since, in the order of writing. Offsets mean nothing for a note.
    pub(super) written: Vec<u8>,
}

impl NoteHandle {
    /// The note with `data` added to it.
    pub(super) fn add(&mut self, data: &[u8]) -> Result<String> {
        if self.written.len() + data.len() > NOTE_BYTES {
            return Err(Misuse::NoteTooLong.into());
        }
        self.written.extend_from_slice(data);
        Ok(String::from_utf8_lossy(&self.written).into_owned())
    }
}

/// What a draft is about.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// The result or reason of this finish of a task.
    Result(TaskId, Ticket),
    /// The capabilities of a worker.
    Capabilities(WorkerName),
}

impl Subject {
    /// Whether both are about the same text.
    fn is(&self, other: &Subject) -> bool {
        match (self, other) {
            (Subject::Result(task, finish), Subject::Result(other_task, other_finish)) => {
                task == other_task && finish.finish() == other_finish.finish()
            }
            (Subject::Capabilities(worker), Subject::Capabilities(other)) => worker == other,
            (Subject::Result(..), Subject::Capabilities(_))
            | (Subject::Capabilities(_), Subject::Result(..)) => false,
        }
    }

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
    /// The text at the first open.
    before: Vec<u8>,
    /// Whether the text is newer than the one on disk.
    pub(super) dirty: bool,
    /// Whether it was truncated, and neither written nor closed since.
    pub(super) emptied: bool,
    /// Whether a write was refused and a part of the text would be useless. No more of it is accepted.
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

    /// Writes into it. A result that is too long is kept up to the limit (C26). Capabilities that are too long leave the old ones in force.
    pub(super) fn write(&mut self, offset: u64, data: &[u8], append: bool) -> Result<()> {
        let limit = self.of.limit();
        let written = if self.void {
            Err(Misuse::TextTooLong { limit }.into())
        } else {
            put(&mut self.text, offset, data, append, limit)
        };
        (self.dirty, self.emptied) = (true, false);
        if written.is_err() && matches!(self.of, Subject::Capabilities(_)) {
            self.void = true;
            self.text.clone_from(&self.before);
        }
        written
    }

    /// Truncates it to nothing.
    pub(super) fn empty(&mut self) {
        self.emptied = !self.text.is_empty();
        self.dirty |= self.emptied;
        self.text.clear();
    }

    /// Sets its length.
    pub(super) fn resize(&mut self, size: u64) -> Result<()> {
        let size = usize::try_from(size).ok().filter(|size| *size <= self.of.limit());
        let size = size.ok_or(Fault::TooLarge)?;
        self.dirty |= self.text.len() != size;
        self.text.resize(size, 0);
        Ok(())
    }
}

/// Puts `data` into `text` as `pwrite(2)` does; with `append`, at its end.
pub(super) fn put(text: &mut Vec<u8>, offset: u64, data: &[u8], append: bool, limit: usize) -> Result<()> {
    let offset = if append { text.len() } else { usize::try_from(offset).unwrap_or(usize::MAX) };
    let end = offset.saturating_add(data.len());
    if end > limit {
        return Err(Misuse::TextTooLong { limit }.into());
    }
    if text.len() < end {
        text.resize(end, 0);
    }
    text[offset..end].copy_from_slice(data);
    Ok(())
}

/// Up to `size` bytes of `content` from `offset`.
pub(super) fn slice(content: &[u8], offset: u64, size: u32) -> Vec<u8> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    let end = start.saturating_add(size as usize).min(content.len());
    content[start..end].to_vec()
}

/// A handle that has a file of the project open for writing. The file may hold the instructions of a task, now or by the time it is closed.
pub(super) struct Writing {
    /// The worker that opened it, if it has a name.
    pub(super) by: Option<Payer>,
    /// Whether the process serves SFTP. It closes files that its client has finished, and dies with the others open.
    pub(super) is_sftp: bool,
    /// The length of the file when it was opened.
    pub(super) size: i64,
    /// Whether anything was written through it, or the file was made with it.
    pub(super) wrote: AtomicBool,
    /// Whether the process that wrote last was killed, which closed the file.
    pub(super) torn: AtomicBool,
}

/// An open file of the project.
pub(super) struct Plain {
    pub(super) file: Arc<OwnedFd>,
    /// Of a handle for writing.
    pub(super) writing: Option<Writing>,
}

/// One line of a listing.
pub(super) struct ListingLine {
    pub(super) ino: Ino,
    pub(super) kind: FileKind,
    pub(super) name: OsString,
}

/// All open handles.
#[derive(Default)]
pub(super) struct Handles {
    last: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    handles: HashMap<u64, (u32, Arc<OpenHandle>)>,
    /// Open texts in memory by their address: how many handles have each open, how many bytes it has, and which user it counts for.
    texts: HashMap<usize, (usize, usize, u32)>,
    /// For each user, how many handles it has, and how many bytes of memory they hold.
    users: HashMap<u32, (usize, usize)>,
    /// Contents of the log and of files, as long as they are open.
    shared: HashMap<Source, Weak<[u8]>>,
}

/// The source of a text that several handles may share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// This event.
    Log(Seq),
    /// The file of this task.
    File(TaskId),
}

impl OpenHandle {
    /// The address of its text in memory, and how long it is or may become.
    fn text(&self) -> Option<(usize, usize)> {
        match self {
            OpenHandle::Document(bytes) => Some((bytes.as_ptr() as usize, bytes.len())),
            OpenHandle::Note(note) => {
                let note = note.lock();
                Some((note.shown.as_ptr() as usize, note.shown.len()))
            }
            OpenHandle::Draft(_, draft) => Some((Arc::as_ptr(draft) as usize, draft.lock().of.limit())),
            OpenHandle::Scratch(_)
            | OpenHandle::Events(_)
            | OpenHandle::Plain(_)
            | OpenHandle::Listing(_) => None,
        }
        .filter(|(_, bytes)| *bytes > 0)
    }
}

impl Handles {
    /// Refuses one more open text of so many bytes to a user that has very many.
    pub(super) fn admit(&self, uid: u32, bytes: usize) -> Result<()> {
        let (handles, held) = self.open.lock().users.get(&uid).copied().unwrap_or_default();
        if handles < OPEN_TEXTS_OF_A_USER && held + bytes <= OPEN_BYTES_OF_A_USER {
            return Ok(());
        }
        Err(Misuse::TooMuchOpen { uid }.into())
    }

    pub(super) fn insert(&self, uid: u32, handle: OpenHandle) -> u64 {
        self.insert_shared(uid, &mut self.open.lock(), handle)
    }

    fn insert_shared(&self, uid: u32, open: &mut Open, handle: OpenHandle) -> u64 {
        let fh = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let user = open.users.entry(uid).or_default();
        user.0 += 1;
        if let Some((at, bytes)) = handle.text() {
            let text = open.texts.entry(at).or_insert_with(|| {
                user.1 += bytes;
                (0, bytes, uid)
            });
            text.0 += 1;
        }
        open.handles.insert(fh, (uid, Arc::new(handle)));
        fh
    }

    pub(super) fn get(&self, fh: u64) -> Result<Arc<OpenHandle>> {
        let open = self.open.lock();
        open.handles.get(&fh).map(|(_, handle)| handle.clone()).ok_or(FsError::Plain(Fault::NoHandle))
    }

    pub(super) fn remove(&self, fh: u64) -> Option<Arc<OpenHandle>> {
        let mut open = self.open.lock();
        let (uid, handle) = open.handles.remove(&fh)?;
        open.let_go(uid, 1, 0);
        if let Some((at, _)) = handle.text()
            && let Some(text) = open.texts.get_mut(&at)
        {
            text.0 -= 1;
            if let (0, bytes, uid) = *text {
                open.texts.remove(&at);
                open.let_go(uid, 0, bytes);
            }
        }
        Some(handle)
    }

    /// A text that is open already.
    pub(super) fn shared(&self, source: &Source) -> Option<Arc<[u8]>> {
        self.open.lock().shared.get(source)?.upgrade()
    }

    /// A text that was just read. All its readers share one copy in memory.
    pub(super) fn share(&self, source: Source, text: Vec<u8>) -> Arc<[u8]> {
        let mut open = self.open.lock();
        if let Some(known) = open.shared.get(&source).and_then(Weak::upgrade).filter(|known| **known == text)
        {
            return known;
        }
        // Closed texts are dropped when their number has doubled.
        if open.shared.len().is_power_of_two() {
            open.shared.retain(|_, text| text.strong_count() > 0);
        }
        let text: Arc<[u8]> = text.into();
        open.shared.insert(source, Arc::downgrade(&text));
        text
    }

    /// Opens a text for writing. It is one file: all its handles share one text, which begins as `text` at the first open.
    pub(super) fn insert_draft(&self, caller: &Arc<Caller>, of: Subject, text: Vec<u8>) -> u64 {
        let mut open = self.open.lock();
        let shared = draft_in(&open, &of).unwrap_or_else(|| Arc::new(Mutex::new(Draft::new(of, text))));
        self.insert_shared(caller.actor.uid, &mut open, OpenHandle::Draft(caller.clone(), shared))
    }

    /// The text, if a handle has it open.
    pub(super) fn draft(&self, of: &Subject) -> Option<Arc<Mutex<Draft>>> {
        draft_in(&self.open.lock(), of)
    }
}

impl Open {
    fn let_go(&mut self, uid: u32, handles: usize, bytes: usize) {
        if let Some(user) = self.users.get_mut(&uid) {
            *user = (user.0.saturating_sub(handles), user.1.saturating_sub(bytes));
            if *user == (0, 0) {
                self.users.remove(&uid);
            }
        }
    }
}

fn draft_in(open: &Open, of: &Subject) -> Option<Arc<Mutex<Draft>>> {
    open.handles.values().find_map(|(_, handle)| match &**handle {
        OpenHandle::Draft(_, draft) => draft.lock().of.is(of).then(|| draft.clone()),
        _ => None,
    })
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
            assert_eq!(put(&mut text, offset, b"y", false, RESULT_BYTES).unwrap_err().errno(), libc::EFBIG);
        }
        assert_eq!(text, before);
        put(&mut text, RESULT_BYTES as u64 - 1, b"y", false, RESULT_BYTES).unwrap();
    }

    #[test]
    fn a_text_is_one_in_memory_and_counts_once() {
        let handles = Handles::default();
        let document = |text: &str| OpenHandle::Document(handles.share(Source::Log(7), text.into()));
        let first = handles.insert(1, document("a text"));
        let second = handles.insert(2, document("a text"));
        assert!(handles.shared(&Source::Log(7)).is_some() && handles.shared(&Source::Log(8)).is_none());
        assert_eq!(handles.open.lock().users, HashMap::from([(1, (1, 6)), (2, (1, 0))]));
        handles.remove(first);
        assert_eq!(handles.open.lock().users, HashMap::from([(1, (0, 6)), (2, (1, 0))]), "it is open still");
        handles.remove(second);
        let open = handles.open.lock();
        assert!(
            open.users.is_empty()
                && open.texts.is_empty()
                && open.shared[&Source::Log(7)].upgrade().is_none()
        );
    }

    #[test]
    fn a_user_has_so_much_open_and_no_more() {
        let handles = Handles::default();
        let large = || OpenHandle::Document(vec![0; RESULT_BYTES].into());
        let mut last = 0;
        while handles.admit(1, RESULT_BYTES).is_ok() {
            last = handles.insert(1, large());
        }
        assert_eq!(handles.open.lock().handles.len(), OPEN_BYTES_OF_A_USER / RESULT_BYTES);
        assert_eq!(handles.admit(1, RESULT_BYTES).unwrap_err().errno(), libc::ENFILE);
        assert!(handles.admit(1, 0).is_ok() && handles.admit(2, RESULT_BYTES).is_ok());
        handles.remove(last);
        assert!(handles.admit(1, RESULT_BYTES).is_ok());
        for _ in 0..OPEN_TEXTS_OF_A_USER {
            handles.insert(3, OpenHandle::Listing(Mutex::default()));
        }
        assert!(handles.admit(3, 0).is_err() && handles.admit(2, 0).is_ok());
    }

    #[test]
    fn slices_end_where_the_content_does() {
        assert_eq!(slice(b"abc", 1, 10), b"bc");
        assert_eq!(slice(b"abc", 3, 1), b"");
        assert_eq!(slice(b"abc", u64::MAX, u32::MAX), b"");
    }
}
