//! A log in memory, for tests. It keeps every promise but L3 and L7, which need a disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Log, LogError, LogReader, Tail, check_batch, parse_line, parts, text_of};
use crate::queue::{Record, Seq};

/// A log that is lost when its process ends.
#[derive(Debug, Default)]
pub struct MemoryLog(Arc<Mutex<MemoryLines>>);

#[derive(Debug, Default)]
struct MemoryLines {
    lines: Vec<String>,
    texts: BTreeMap<Seq, Vec<u8>>,
    bytes: u64,
}

impl MemoryLines {
    fn tail(&self) -> Tail {
        Tail { seq: self.lines.len() as Seq, bytes: self.bytes }
    }
}

impl Log for MemoryLog {
    fn tail(&self) -> Tail {
        self.0.lock().tail()
    }

    fn append(&mut self, expected: Seq, batch: &[Record]) -> Result<Tail, LogError> {
        let mut log = self.0.lock();
        check_batch(log.tail(), expected, batch)?;
        for record in batch {
            let (line, text) = parts(record);
            if let Some(text) = text {
                log.texts.insert(record.seq, text.to_vec());
            }
            log.bytes += line.len() as u64;
            log.lines.push(line);
        }
        Ok(log.tail())
    }

    fn read(&mut self, after: Seq, limit: usize) -> Result<Vec<Record>, LogError> {
        let log = self.0.lock();
        let rest = log.lines.iter().zip(1..).skip(after as usize).take(limit);
        rest.map(|(line, seq)| parse_line(seq, line)).collect()
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(MemoryLog(self.0.clone()))
    }

    fn texts(&mut self, after: Seq, limit: usize) -> Result<Vec<Seq>, LogError> {
        Ok(self.0.lock().texts.range(after.saturating_add(1)..).take(limit).map(|(seq, _)| *seq).collect())
    }

    fn drop_texts(&mut self, of: &[Seq]) -> Result<(), LogError> {
        let mut log = self.0.lock();
        of.iter().for_each(|seq| drop(log.texts.remove(seq)));
        Ok(())
    }

    fn reopen(&mut self) -> Result<Tail, LogError> {
        Ok(self.tail())
    }

    fn idle(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}

impl LogReader for MemoryLog {
    fn read_lines(&self, offset: u64, length: usize) -> Result<(u64, Vec<u8>), LogError> {
        let (mut start, mut found) = (0, Vec::new());
        for line in &self.0.lock().lines {
            let end = start + found.len() as u64 + line.len() as u64;
            if end <= offset {
                start = end;
            } else if start + (found.len() as u64) < offset.saturating_add(length as u64) {
                found.extend_from_slice(line.as_bytes());
            }
        }
        Ok((start, found))
    }

    fn text(&self, seq: Seq) -> Result<Option<Vec<u8>>, LogError> {
        let log = self.0.lock();
        let line = seq.checked_sub(1).and_then(|before| log.lines.get(before as usize));
        let line = line.ok_or_else(|| LogError::Damaged { seq, why: "there is no such event".into() })?;
        text_of(&parse_line(seq, line)?, log.texts.get(&seq).cloned())
    }
}
