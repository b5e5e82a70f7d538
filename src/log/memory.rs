//! A log in memory, for tests: every promise but L3 and L7, which need a disk.

use std::collections::BTreeMap;

use super::{Log, LogError, Tail, check_batch, parse_line, parts, text_of};
use crate::queue::{Record, Seq};

/// A log that ends with its process.
#[derive(Debug, Default)]
pub struct MemoryLog {
    lines: Vec<String>,
    texts: BTreeMap<Seq, Vec<u8>>,
    bytes: u64,
}

impl Log for MemoryLog {
    fn tail(&self) -> Tail {
        Tail { seq: self.lines.len() as Seq, bytes: self.bytes }
    }

    fn append(&mut self, expected: Seq, batch: &[Record]) -> Result<Tail, LogError> {
        check_batch(self.tail(), expected, batch)?;
        for record in batch {
            let (line, text) = parts(record);
            if let Some(text) = text {
                self.texts.insert(record.seq, text.to_vec());
            }
            self.bytes += line.len() as u64;
            self.lines.push(line);
        }
        Ok(self.tail())
    }

    fn read(&mut self, after: Seq, limit: usize) -> Result<Vec<Record>, LogError> {
        let rest = self.lines.iter().zip(1..).skip(after as usize).take(limit);
        rest.map(|(line, seq)| parse_line(seq, line)).collect()
    }

    fn read_lines(&mut self, offset: u64, length: usize) -> Result<(u64, Vec<u8>), LogError> {
        let (mut start, mut found) = (0, Vec::new());
        for line in &self.lines {
            let end = start + found.len() as u64 + line.len() as u64;
            if end <= offset {
                start = end;
            } else if start + (found.len() as u64) < offset.saturating_add(length as u64) {
                found.extend_from_slice(line.as_bytes());
            }
        }
        Ok((start, found))
    }

    fn text(&mut self, seq: Seq) -> Result<Option<Vec<u8>>, LogError> {
        let record = seq.checked_sub(1).map_or(Ok(vec![]), |before| self.read(before, 1))?.pop();
        let record = record.ok_or_else(|| LogError::Damaged { seq, why: "there is no such event".into() })?;
        text_of(&record, self.texts.get(&seq).cloned())
    }

    fn texts(&mut self, after: Seq, limit: usize) -> Result<Vec<Seq>, LogError> {
        Ok(self.texts.range(after.saturating_add(1)..).take(limit).map(|(seq, _)| *seq).collect())
    }

    fn drop_texts(&mut self, of: &[Seq]) -> Result<(), LogError> {
        of.iter().for_each(|seq| drop(self.texts.remove(seq)));
        Ok(())
    }

    fn reopen(&mut self) -> Result<Tail, LogError> {
        Ok(self.tail())
    }

    fn idle(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}
