//! The event log: where what happened is kept, behind a small trait.
//!
//! May assume: one writer at a time.
//! Must never: judge an event, or answer that it is written before it is.
//!
//! # What every engine promises
//!
//! - **L1 dense.** The events of a log are numbered 1, 2, 3, … without gaps.
//! - **L2 whole.** After a crash, a batch is there with all its events or with none.
//! - **L3 durable.** When [`Log::append`] answers Ok, the batch survives a power cut.
//! - **L4 quiet.** A reader never sees an event whose append was not answered Ok, except after a failed append and
//!   [`Log::reopen`], which settles what is there.
//! - **L5 compared.** An append that expects another tail than there is changes nothing and says what the tail is.
//! - **L6 honest.** A torn end is dropped; damage before the end is an error that names the place.
//! - **L7 alone.** A log that one process has open for writing cannot be opened by another.
//! - **L8 stable.** The bytes of an event, once written, never change: `events.jsonl` is their concatenation.
//! - **L9 in its place.** When [`Log::append`] answers Ok, the batch is where the next process will look for the log. A log
//!   whose files were taken away puts them back first, with all that was in them, or fails and keeps what it has.
//! - **L10 beside.** A text of more than [`TEXT_IN_LINE_BYTES`] lies beside the line of its event. [`Log::drop_texts`] takes away just
//!   the texts that it names, all or none, also over a crash; it changes no position, no line and no other text.

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
    /// The position of the last event; 0 when there is none.
    pub seq: Seq,
    /// The length of all events, written as one JSON object a line, in bytes.
    pub bytes: u64,
}

/// Why a log does not do what it should.
#[derive(Debug, Error)]
pub enum LogError {
    /// Another writer appended first, or `expected` is wrong.
    #[error("the log ends at event {}, not at {expected}", tail.seq)]
    Conflict {
        /// What the caller expected.
        expected: Seq,
        /// What is.
        tail: Tail,
    },
    /// The disk is full. Nothing was written.
    #[error("the disk is full")]
    Full,
    /// The disk refused. After an append, whether the batch is there is unknown until [`Log::reopen`].
    #[error("the log cannot be written or read: {0}")]
    Io(String),
    /// Something in the middle is not what was written.
    #[error("the log is damaged at event {seq}: {why}")]
    Damaged {
        /// The first position that is wrong.
        seq: Seq,
        /// What is wrong.
        why: String,
    },
    /// Another process has it.
    #[error("the log is in use by another process")]
    InUse,
    /// Its files were taken away, and cannot be put back. The log has what was in them, and can be read.
    #[error("the state directory was taken away, and cannot be put back: {0}")]
    Astray(String),
    /// It was written by a newer crewfs.
    #[error("the log has format {found}; this crewfs knows formats up to {known}: use a newer crewfs")]
    Newer {
        /// The format of the file.
        found: i64,
        /// The newest format that this program knows.
        known: i64,
    },
}

/// An append-only sequence of events. See the module for what is promised.
pub trait Log: Send {
    /// Where the log ends, as this process has seen it: what others append shows after a [`LogError::Conflict`].
    fn tail(&self) -> Tail;

    /// Append `batch`, whose first event must be numbered `expected + 1`, if the log ends at `expected`.
    ///
    /// # Errors
    /// [`LogError::Conflict`] and [`LogError::Full`] change nothing. After any other error the outcome is unknown, and
    /// every call but [`Log::reopen`] fails.
    fn append(&mut self, expected: Seq, batch: &[Record]) -> Result<Tail, LogError>;

    /// Up to `limit` events after position `after`, in order. Texts that lie beside their events stay there.
    fn read(&mut self, after: Seq, limit: usize) -> Result<Vec<Record>, LogError>;

    /// Reads of this log for another thread, also after it was opened anew.
    fn reader(&self) -> Arc<dyn LogReader>;

    /// The events after position `after` beside which texts lie; up to `limit`, in order.
    fn texts(&mut self, after: Seq, limit: usize) -> Result<Vec<Seq>, LogError>;

    /// Let go of the texts beside these events; those that carry none, or one in their line, stay as they are.
    ///
    /// # Errors
    /// [`LogError::Full`] changes nothing. After any other error the outcome is unknown, and every call but [`Log::reopen`] fails.
    fn drop_texts(&mut self, of: &[Seq]) -> Result<(), LogError>;

    /// Start over after an error, and settle what is there.
    fn reopen(&mut self) -> Result<Tail, LogError>;

    /// See that the log is where the next process will look for it, and put it back there if not.
    ///
    /// # Errors
    /// [`LogError::Astray`] when that cannot be. Only [`Log::reopen`] tries again.
    fn stay(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    /// Tidy up while nobody waits. May take a few milliseconds.
    fn idle(&mut self) -> Result<(), LogError>;
}

/// Reads of a log beside its writer. An append waits for a piece of a read at most.
pub trait LogReader: Send + Sync {
    /// The events as lines, whole ones, that have something of the `length` bytes from byte `offset` on; and where the first of them
    /// begins.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when a line is not where it was; [`LogError::Io`] while the log does not work.
    fn read_lines(&self, offset: u64, length: usize) -> Result<(u64, Vec<u8>), LogError>;

    /// Up to `length` bytes from byte `offset` of the events as lines; fewer only at the end.
    ///
    /// # Errors
    /// Those of [`LogReader::read_lines`].
    fn read_bytes(&self, offset: u64, length: usize) -> Result<Vec<u8>, LogError> {
        self.read_lines(offset, length).map(|lines| part(lines, offset, length))
    }

    /// The text that event `seq` carries, wherever it lies; `None` if it was dropped.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when the event carries none, or is not there.
    fn text(&self, seq: Seq) -> Result<Option<Vec<u8>>, LogError>;
}

/// What is asked for of the lines that have some of it.
pub fn part((start, lines): (u64, Vec<u8>), offset: u64, length: usize) -> Vec<u8> {
    let from = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX).min(lines.len());
    let to = from.saturating_add(length).min(lines.len());
    lines[from..to].to_vec()
}

/// A record as its line of `events.jsonl`, newline included.
pub fn line(record: &Record) -> String {
    shown::json(record) + "\n"
}

/// A record as the line that is kept of it, and the text that is kept beside that.
fn parts(record: &Record) -> (String, Option<&[u8]>) {
    let text = record.event.text();
    match text.and_then(Content::whole).filter(|text| text.len() > TEXT_IN_LINE_BYTES) {
        Some(beside) => {
            let known = text.map(Content::without_text).expect("it has a text");
            (line(&Record { event: record.event.with_text(known), ..*record }), Some(beside))
        }
        None => (line(record), None),
    }
}

/// The text of a record: of its line, or what was found beside it.
fn text_of(record: &Record, beside: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, LogError> {
    let damaged = |why: &str| LogError::Damaged { seq: record.seq, why: why.into() };
    let text = record.event.text().ok_or_else(|| damaged("it carries no text"))?;
    if let Some(text) = text.whole() {
        return Ok(Some(text.to_vec()));
    }
    let is_it = |beside: &Vec<u8>| beside.len() as u64 == text.digest().bytes;
    if !beside.iter().all(is_it) {
        return Err(damaged("another text lies beside it"));
    }
    Ok(beside)
}

/// The record that a line means; `seq` is where it stands.
fn parse_line(seq: Seq, line: &str) -> Result<Record, LogError> {
    let record: Record =
        serde_json::from_str(line).map_err(|error| LogError::Damaged { seq, why: error.to_string() })?;
    if record.seq != seq {
        return Err(LogError::Damaged { seq, why: format!("its line says that it is event {}", record.seq) });
    }
    Ok(record)
}

/// The events that `expected` allows in `batch`: numbered without gaps from there on.
fn check_batch(tail: Tail, expected: Seq, batch: &[Record]) -> Result<(), LogError> {
    let dense = batch.iter().zip(expected + 1..).all(|(record, seq)| record.seq == seq);
    if tail.seq != expected || !dense {
        return Err(LogError::Conflict { expected, tail });
    }
    Ok(())
}
