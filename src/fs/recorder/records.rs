//! The values that the recorder's table, journal and thread share.
//!
//! Must never: read a file.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::queue::{Seq, TaskId, Wall, WorkerName};

/// Identifies a step while the daemon runs, and in its journal.
pub(super) type StepId = u64;

/// The author of changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Author {
    /// The worker; `None` for changes from outside the mount.
    pub(super) worker: Option<WorkerName>,
    /// The claim: the task and its epoch.
    pub(super) claim: Option<(TaskId, Seq)>,
    /// The program, if it is one that replaces whole trees.
    pub(super) program: Option<String>,
}

impl Author {
    /// The author of all changes from outside the mount.
    pub(super) fn outside() -> Author {
        Author { worker: None, claim: None, program: None }
    }
}

/// Where the content of a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ContentSource {
    /// In the file of this number in the spool.
    Spooled(u64),
    /// In the repository.
    Stored([u8; 20]),
    /// It is not kept. Its length in bytes.
    NotKept(u64),
}

/// The kind of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SnapshotKind {
    File,
    Symlink,
    Directory,
}

/// One version of a path, perhaps not in the repository yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) kind: SnapshotKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) source: ContentSource,
}

/// Tells whether a path was changed since. `None`: there is nothing at the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) is_directory: bool,
    /// The length in bytes; of a directory, whether it has entries.
    pub(super) size: u64,
    pub(super) mtime_ns: i128,
    pub(super) mode: u32,
}

/// What is at a path: its stamp and its snapshot.
pub(super) type Observed = (Option<Stamp>, Option<Snapshot>);

/// Something for the repository to record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Item {
    /// A change of one path.
    Change {
        step: StepId,
        #[serde(with = "path_text")]
        path: PathBuf,
        before: Option<Snapshot>,
        after: Option<Snapshot>,
        at: Wall,
    },
    /// The claim of this step has ended, and all its changes are recorded.
    End { step: StepId },
}

impl Item {
    /// Its step.
    pub(super) fn step(&self) -> StepId {
        match self {
            Item::Change { step, .. } | Item::End { step } => *step,
        }
    }

    /// Whether no snapshot is in the spool.
    pub(super) fn is_stored(&self) -> bool {
        self.spooled().next().is_none()
    }

    /// The numbers of its snapshots in the spool.
    pub(super) fn spooled(&self) -> impl Iterator<Item = u64> + use<> {
        let snapshots = match self {
            Item::Change { before, after, .. } => [*before, *after],
            Item::End { .. } => [None, None],
        };
        snapshots.into_iter().flatten().filter_map(|snapshot| match snapshot.source {
            ContentSource::Spooled(number) => Some(number),
            _ => None,
        })
    }
}

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
    Stored { spooled: u64, source: ContentSource },
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
