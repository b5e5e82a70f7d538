//! The journal: what the recorder must know again after the daemon's death.
//!
//! May assume: lines that were written are there after the death of the daemon. After the death of the machine the last ones may be missing
//! or torn.
//! Must never: sync, or be trusted beyond its first damaged line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, openat, renameat};
use serde::{Deserialize, Serialize};

use super::table::{Author, Item, Snapshot, Source, StepId};

/// The name of the journal in its directory.
const FILE: &str = "journal";
/// The name of the next journal while it is incomplete.
const UNFINISHED: &str = "journal.new";

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    /// A step, and its author.
    Step { step: StepId, author: Author },
    /// A path has an entry of this step; it replaces an earlier one.
    Open {
        #[serde(with = "path_text")]
        path: PathBuf,
        step: StepId,
        before: Option<Snapshot>,
    },
    /// A path has no entry any more.
    Left {
        #[serde(with = "path_text")]
        path: PathBuf,
    },
    /// The repository is to record this.
    Queued(Item),
    /// The repository has recorded so many items.
    Recorded { count: usize },
    /// The repository has the content of a file of the spool.
    Stored { spooled: u64, source: Source },
}

/// The open journal.
pub(super) struct Journal {
    file: File,
    lines: usize,
}

impl Journal {
    /// The lines of the journal in this directory.
    pub(super) fn read(directory: impl AsFd) -> Vec<Line> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
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

/// Paths as text: `\xHH` for a byte that is not part of UTF-8 text, and `\\` for a backslash.
pub(super) mod path_text {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::fs::recorder) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        for part in path.as_os_str().as_bytes().utf8_chunks() {
            text += &part.valid().replace('\\', "\\\\");
            part.invalid().iter().for_each(|byte| text += &format!("\\x{byte:02x}"));
        }
        to.serialize_str(&text)
    }

    pub(in crate::fs::recorder) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(from)?;
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, others)) = rest.split_first() {
            rest = others;
            if *first != b'\\' {
                bytes.push(*first);
            } else if let Some(others) = rest.strip_prefix(b"\\") {
                bytes.push(b'\\');
                rest = others;
            } else {
                let digits =
                    rest.get(1..3).filter(|_| rest[0] == b'x').and_then(|it| std::str::from_utf8(it).ok());
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                bytes.push(byte.ok_or_else(|| D::Error::custom("a path with an unknown escape"))?);
                rest = &rest[3..];
            }
        }
        Ok(std::ffi::OsString::from_vec(bytes).into())
    }
}
