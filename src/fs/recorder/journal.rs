//! The journal: what the recorder must know again after the daemon's death.
//!
//! May assume: lines that were written are there after the death of the daemon. After the death of the machine the last ones may be missing
//! or torn.
//! Must never: sync, or be trusted beyond its first damaged line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, openat, renameat};

use super::records::Line;

/// The name of the journal in its directory.
const FILE: &str = "journal";
/// The name of the next journal while it is incomplete.
const UNFINISHED: &str = "journal.new";

/// The open journal.
pub(super) struct Journal {
    file: File,
    lines: usize,
}

impl Journal {
    /// The lines of the journal in this directory.
    pub(super) fn read(directory: impl AsFd) -> Vec<Line> {
        // Nothing there is trusted to be a file: a pipe must not be waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat(directory, FILE, flags, Mode::empty()) else { return Vec::new() };
        let lines = BufReader::new(File::from(file)).split(b'\n').map_while(io::Result::ok);
        lines.map_while(|line| serde_json::from_slice(&line).ok()).collect()
    }

    /// Begin a journal with these lines. It replaces the one in the directory.
    ///
    /// # Errors
    /// Those of writing; the earlier journal is still there then.
    pub(super) fn begin(directory: impl AsFd, lines: &[Line]) -> io::Result<Journal> {
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::TRUNC
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        let file = openat(&directory, UNFINISHED, flags, Mode::from(0o600))?;
        let mut journal = Journal { file: file.into(), lines: 0 };
        journal.append(lines)?;
        renameat(&directory, UNFINISHED, &directory, FILE)?;
        Ok(journal)
    }

    /// Append lines, in one write.
    ///
    /// # Errors
    /// Those of write(2). A torn line is the last one then.
    pub(super) fn append(&mut self, lines: &[Line]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        self.lines += lines.len();
        self.file.write_all(&text)
    }

    /// How many lines it has.
    pub(super) fn len(&self) -> usize {
        self.lines
    }
}
