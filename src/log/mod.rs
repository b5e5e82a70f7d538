//! The event log behind a small trait.
//!
//! May assume: one writer at a time.
//! Must never: judge an event, or report an event as written before it is.
//!
//! # Promises of every engine
//!
//! - **L1 dense.** The events of a log are numbered 1, 2, 3, … without gaps.
//! - **L2 whole.** After a crash, a batch is there with all its events or with none.
//! - **L3 durable.** When [`Log::append`] returns Ok, the batch survives a power cut.
//! - **L4 quiet.** A reader never sees an event whose append did not return Ok, except after a failed append and [`Log::reopen`], which
//!   settles what is in the log.
//! - **L5 compared.** An append that expects the wrong tail changes nothing and returns the tail.
//! - **L6 honest.** A torn end is dropped. Damage before the end is an error that names the position.
//! - **L7 alone.** While one process has a log open for writing, no other process can open it.
//! - **L8 stable.** The bytes of a written event never change: `events.jsonl` is their concatenation.
//! - **L9 in its place.** When [`Log::append`] returns Ok, the batch is where the next process will look for the log. If the files of a log
//!   were removed, the log first restores them with their whole content, or fails and keeps what it has.
//! - **L10 beside.** A text of more than [`TEXT_IN_LINE_BYTES`] is stored beside the line of its event. [`Log::drop_texts`] removes exactly
//!   the texts that it names, all or none, even in a crash. It changes no position, no line and no other text.

mod memory;
mod sqlite;

#[cfg(test)]
mod conformance;

pub use memory::MemoryLog;
pub use sqlite::{FILE as LOG_FILE, HEADER_BYTES as LOG_HEADER_BYTES, SqliteLog, check_header};

use std::sync::Arc;

use thiserror::Error;

use crate::limits::TEXT_IN_LINE_BYTES;
use crate::queue::{Content, Record, Seq};
use crate::shown;

/// The end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tail {
    /// The position of the last event; 0 if there is none.
    pub seq: Seq,
    /// The length of the lines of all events, in bytes. Each event is one line of JSON.
    pub bytes: u64,
}

/// Why an operation of a log failed.
#[derive(Debug, Error)]
pub enum LogError {
    /// Another writer appended first, or `expected` is wrong.
    #[error("the log ends at event {}, not at {expected}", tail.seq)]
    Conflict {
        /// The tail that the caller expected.
        expected: Seq,
        /// The tail of the log.
        tail: Tail,
    },
    /// The disk is full. Nothing was written.
    #[error("the disk is full")]
    Full,
    /// The disk returned an error. After an append, it is unknown whether the batch is there until [`Log::reopen`].
    #[error("the log cannot be written or read: {0}")]
    Io(String),
    /// The log is not as it was written.
    #[error("the log is damaged at event {seq}: {why}")]
    Damaged {
        /// The first wrong position.
        seq: Seq,
        /// What is wrong.
        why: String,
    },
    /// Another process has the log open.
    #[error("the log is in use by another process")]
    InUse,
    /// The files of the log were removed and cannot be restored. The log still has their content and can be read.
    #[error("the state directory was taken away, and cannot be put back: {0}")]
    Displaced(String),
    /// A newer crewfs wrote the log.
    #[error("the log has format {found}; this crewfs knows formats up to {known}: use a newer crewfs")]
    Newer {
        /// The format of the file.
        found: i64,
        /// The newest format that this program knows.
        known: i64,
    },
}

/// An append-only sequence of events. The module lists its promises.
pub trait Log: Send {
    /// The end of the log, as this process knows it. It includes the events of other writers that a [`LogError::Conflict`] has named or
    /// a read has returned.
    fn tail(&self) -> Tail;

    /// Appends `batch` if the log ends at `expected`. The first event must have the number `expected + 1`.
    ///
    /// # Errors
    /// [`LogError::Conflict`] and [`LogError::Full`] change nothing. After any other error the result is unknown, and every call but
    /// [`Log::reopen`] fails.
    fn append(&mut self, expected: Seq, batch: &[Record]) -> Result<Tail, LogError>;

    /// Up to `limit` events after position `after`, in order, without the texts that are stored beside them.
    fn read(&mut self, after: Seq, limit: usize) -> Result<Vec<Record>, LogError>;

    /// A reader of this log for another thread. It stays valid after [`Log::reopen`].
    fn reader(&self) -> Arc<dyn LogReader>;

    /// Up to `limit` events after position `after` that have a text stored beside them, in order.
    fn texts(&mut self, after: Seq, limit: usize) -> Result<Vec<Seq>, LogError>;

    /// Drops the texts beside these events. An event without a text, or with its text in the line, does not change.
    ///
    /// # Errors
    /// [`LogError::Full`] changes nothing. After any other error the result is unknown, and every call but [`Log::reopen`] fails.
    fn drop_texts(&mut self, of: &[Seq]) -> Result<(), LogError>;

    /// Opens the log again after an error, and settles what is in it.
    fn reopen(&mut self) -> Result<Tail, LogError>;

    /// Checks that the log is where the next process will look for it, and restores it there if it is not.
    ///
    /// # Errors
    /// [`LogError::Displaced`] if it cannot be restored. Only [`Log::reopen`] tries again.
    fn ensure_in_place(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    /// Maintains the log while no caller waits. This may take a few milliseconds.
    fn idle(&mut self) -> Result<(), LogError>;
}

/// Reads a log beside its writer. An append waits for at most one piece of a read.
pub trait LogReader: Send + Sync {
    /// The whole lines of all events that overlap the `length` bytes from byte `offset` on, and the byte at which the first line begins.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if a line is not at its position; [`LogError::Io`] while the log does not work.
    fn read_lines(&self, offset: u64, length: usize) -> Result<(u64, Vec<u8>), LogError>;

    /// Up to `length` bytes of the lines of all events, from byte `offset` on; fewer only at the end.
    ///
    /// # Errors
    /// Those of [`LogReader::read_lines`].
    fn read_bytes(&self, offset: u64, length: usize) -> Result<Vec<u8>, LogError> {
        self.read_lines(offset, length).map(|lines| part(lines, offset, length))
    }

    /// The text of event `seq`, in its line or beside it; `None` if the text was dropped.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if the event does not exist or carries no text.
    fn text(&self, seq: Seq) -> Result<Option<Vec<u8>>, LogError>;
}

/// The requested bytes of the lines that [`LogReader::read_lines`] returned.
pub fn part((start, lines): (u64, Vec<u8>), offset: u64, length: usize) -> Vec<u8> {
    let from = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX).min(lines.len());
    let to = from.saturating_add(length).min(lines.len());
    lines[from..to].to_vec()
}

/// The line of a record in `events.jsonl`, with its newline.
pub fn line(record: &Record) -> String {
    shown::json(record) + "\n"
}

/// The line of a record as stored, and the text that is stored beside it.
fn parts(record: &Record) -> (String, Option<&[u8]>) {
    let text = record.event.text();
    match text.and_then(Content::whole).filter(|text| text.len() > TEXT_IN_LINE_BYTES) {
        Some(beside) => {
            let digest = text.map(Content::without_text).expect("it has a text");
            (line(&Record { event: record.event.with_text(digest), ..*record }), Some(beside))
        }
        None => (line(record), None),
    }
}

/// The text of a record, from its line or from `beside`.
fn text_of(record: &Record, beside: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, LogError> {
    let damaged = |why: &str| LogError::Damaged { seq: record.seq, why: why.into() };
    let text = record.event.text().ok_or_else(|| damaged("it carries no text"))?;
    if let Some(text) = text.whole() {
        return Ok(Some(text.to_vec()));
    }
    let has_length = |beside: &Vec<u8>| beside.len() as u64 == text.digest().bytes;
    if !beside.iter().all(has_length) {
        return Err(damaged("another text lies beside it"));
    }
    Ok(beside)
}

/// Parses the line at position `seq`.
fn parse_line(seq: Seq, line: &str) -> Result<Record, LogError> {
    let record: Record =
        serde_json::from_str(line).map_err(|error| LogError::Damaged { seq, why: error.to_string() })?;
    if record.seq != seq {
        return Err(LogError::Damaged { seq, why: format!("its line says that it is event {}", record.seq) });
    }
    Ok(record)
}

/// Refuses a batch if the log does not end at `expected`, or if the batch is not numbered without gaps from `expected + 1` on.
fn check_batch(tail: Tail, expected: Seq, batch: &[Record]) -> Result<(), LogError> {
    let dense = batch.iter().zip(expected + 1..).all(|(record, seq)| record.seq == seq);
    if tail.seq != expected || !dense {
        return Err(LogError::Conflict { expected, tail });
    }
    Ok(())
}
