//! A log in memory, for tests: every promise but L3 and L7, which need a disk.

use super::{Log, LogError, Tail, check_batch, line, parse_line};
use crate::queue::{Record, Seq};

/// A log that ends with its process.
#[derive(Debug, Default)]
pub struct MemoryLog {
    lines: Vec<String>,
    bytes: u64,
}

impl Log for MemoryLog {
    fn tail(&self) -> Tail {
        Tail { seq: self.lines.len() as Seq, bytes: self.bytes }
    }

    fn append(&mut self, expected: Seq, batch: &[Record]) -> Result<Tail, LogError> {
        check_batch(self.tail(), expected, batch)?;
        for record in batch {
            let line = line(record);
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

    fn reopen(&mut self) -> Result<Tail, LogError> {
        Ok(self.tail())
    }

    fn idle(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}
