//! Reads a SQLite log beside its writer, through the writer's connection.
//!
//! May assume: the writer locks the connection from the beginning of a transaction to its end, so that a reader only sees whole batches.
//! Must never: lock the connection for longer than a read of [`LOG_PIECE_BYTES`] takes. A commit may be waiting for it.

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension};

use super::{Shared, usable};
use crate::limits::LOG_PIECE_BYTES;
use crate::log::{LogError, LogReader, parse_line, text_of};
use crate::queue::Seq;

/// The reader of a SQLite log.
pub(super) struct SqliteReader {
    opened: Shared,
    /// Where the last read ended: an event, and the byte at which its line begins. The next read usually continues there.
    last: Mutex<(Seq, u64)>,
}

impl SqliteReader {
    pub(super) fn new(opened: Shared) -> SqliteReader {
        SqliteReader { opened, last: Mutex::new((1, 0)) }
    }

    /// The first event whose line ends after byte `offset`, and the byte at which this line begins.
    fn find(&self, connection: &Connection, offset: u64) -> Result<(Seq, u64), LogError> {
        let mut select = connection.prepare_cached("SELECT end FROM event WHERE seq = ?1")?;
        let mut end_of = |seq: Seq| match seq {
            0 => Ok(Some(0)),
            _ => select
                .query_row([seq as i64], |row| row.get::<_, i64>(0))
                .optional()
                .map(|end| end.map(|end| end as u64)),
        };
        let missing = |seq| LogError::Damaged { seq, why: "it is missing".into() };
        let (seq, start) = *self.last.lock();
        if start == offset && end_of(seq - 1)? == Some(start) {
            return Ok((seq, start));
        }
        // Binary search, because an index on `end` would make every append slower.
        let last =
            connection.query_row("SELECT max(seq) FROM event", [], |row| row.get::<_, Option<i64>>(0))?;
        let (mut low, mut high) = (1, last.unwrap_or(0) as Seq + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if end_of(middle)?.ok_or_else(|| missing(middle))? > offset {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok((low, end_of(low - 1)?.ok_or_else(|| missing(low - 1))?))
    }
}

/// Appends to `lines` the lines from event `seq` on, whose line begins at byte `start`, until byte `last` is reached or the piece is full.
/// Returns where the next piece begins, and whether there is more to read.
fn read_piece(
    connection: &Connection,
    (mut seq, mut start): (Seq, u64),
    last: u64,
    lines: &mut Vec<u8>,
) -> Result<((Seq, u64), bool), LogError> {
    let piece_ends = lines.len() + LOG_PIECE_BYTES;
    let mut select =
        connection.prepare_cached("SELECT seq, end, line FROM event WHERE seq >= ?1 ORDER BY seq")?;
    let mut rows = select.query([seq as i64])?;
    while start < last && lines.len() < piece_ends {
        let Some(row) = rows.next()? else { return Ok(((seq, start), false)) };
        let (found, end, line) =
            (row.get::<_, i64>(0)? as Seq, row.get::<_, i64>(1)? as u64, row.get_ref(2)?);
        let line = line.as_bytes().map_err(rusqlite::Error::from)?;
        if found != seq || end.checked_sub(start) != Some(line.len() as u64) {
            return Err(LogError::Damaged { seq, why: "its line is not where it was".into() });
        }
        lines.extend_from_slice(line);
        (seq, start) = (seq + 1, end);
    }
    Ok(((seq, start), start < last))
}

impl LogReader for SqliteReader {
    fn read_lines(&self, offset: u64, length: usize) -> Result<(u64, Vec<u8>), LogError> {
        let last = offset.saturating_add(length as u64);
        let mut lines = Vec::with_capacity(length.min(1 << 20));
        let first = self.find(usable(&self.opened.lock())?, offset)?;
        let (mut position, mut more) = (first, true);
        while more {
            (position, more) = read_piece(usable(&self.opened.lock())?, position, last, &mut lines)?;
        }
        *self.last.lock() = position;
        Ok((first.1, lines))
    }

    fn text(&self, seq: Seq) -> Result<Option<Vec<u8>>, LogError> {
        let opened = self.opened.lock();
        let connection = usable(&opened)?;
        let mut select = connection.prepare_cached("SELECT line FROM event WHERE seq = ?1")?;
        let line = select.query_row([seq as i64], |row| row.get::<_, String>(0)).optional()?;
        let line = line.ok_or_else(|| LogError::Damaged { seq, why: "there is no such event".into() })?;
        let mut select = connection.prepare_cached("SELECT body FROM text WHERE seq = ?1")?;
        text_of(&parse_line(seq, &line)?, select.query_row([seq as i64], |row| row.get(0)).optional()?)
    }
}
