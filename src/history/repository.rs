//! The repository: its directory, its references, and the commit that a step becomes.
//!
//! May assume: one process writes it, the daemon. Any number may read it.
//! Must never: reach a file by a path that a mount could cover, or depend on a sync: what was written is there after the death of the
//! daemon, not after that of the machine.
//!
//! Objects are written before the reference that leads to them, and a reference is replaced by a rename. So a daemon that is killed
//! leaves objects that nothing refers to, at worst.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use git2::{ObjectType, Oid};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, fchmod, fsync, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::commit::Commit;
use super::objects::{Objects, make_directory};
use super::task_index::TaskIndex;
use super::{ContentId, HistoryError};

/// The reference of the history.
pub(super) const MAIN: &str = "refs/heads/main";

/// How the references of tasks begin.
pub(super) const TASKS: &str = "refs/tasks/";

/// Git's file for many references.
const PACKED: &str = "packed-refs";

/// Settings for git. Its rules for names and files that it would not check out do not apply: the history keeps what was there.
const CONFIG: &str = "\
[core]
\trepositoryformatversion = 0
\tbare = true
\tfilemode = true
[gc]
\tauto = 0
\tpruneExpire = never
[fsck]
\thasDotgit = ignore
\tgitmodulesBlob = ignore
\tgitmodulesLarge = ignore
\tgitmodulesMissing = ignore
\tgitmodulesName = ignore
\tgitmodulesParse = ignore
\tgitmodulesPath = ignore
\tgitmodulesSymlink = ignore
\tgitmodulesUpdate = ignore
\tgitmodulesUrl = ignore
\tgitattributesBlob = ignore
\tgitattributesLarge = ignore
\tgitattributesLineLength = ignore
\tgitattributesMissing = ignore
\tlargePathname = ignore
";

/// The repository of a project's history.
pub struct Repository {
    directory: OwnedFd,
    pub(super) objects: Objects,
    pub(super) tasks: TaskIndex,
    /// Held while references change. It is taken after `tidying`.
    pub(super) recording: Mutex<()>,
    /// Held while objects are packed or removed.
    pub(super) tidying: Mutex<()>,
}

impl Repository {
    /// The repository in this directory. With `create` it is made if it is not there, and this is the process that writes it. A reader
    /// writes nothing: what it stores is kept in memory.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(directory: OwnedFd, create: bool) -> Result<Repository, HistoryError> {
        if create {
            make(&directory).map_err(HistoryError::writing)?;
        }
        let objects = Objects::open(&directory, create)?;
        let (tasks, recording, tidying) = Default::default();
        let repository = Repository { directory, objects, tasks, recording, tidying };
        if create {
            repository.mend()?;
        }
        Ok(repository)
    }

    /// Keep this content.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub fn store(&self, content: &[u8]) -> Result<ContentId, HistoryError> {
        self.objects.write(ObjectType::Blob, content).map(ContentId::from)
    }

    /// Keep the content of an open file, `bytes` of it from its beginning.
    ///
    /// # Errors
    /// Why it cannot be read or written, or that the file is shorter by now.
    pub fn store_file(&self, file: &File, bytes: u64) -> Result<ContentId, HistoryError> {
        use std::os::unix::fs::FileExt;
        let mut content = vec![0; usize::try_from(bytes).map_err(HistoryError::writing)?];
        file.read_exact_at(&mut content, 0).map_err(HistoryError::writing)?;
        self.store(&content)
    }

    /// The content with this id. It is checked.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn read(&self, id: ContentId) -> Result<Vec<u8>, HistoryError> {
        self.objects.read(id.into(), ObjectType::Blob)
    }

    /// Whether nothing was recorded yet.
    pub fn is_empty(&self) -> bool {
        matches!(self.main(), Ok(None))
    }

    /// The last commit of the history.
    pub(super) fn main(&self) -> Result<Option<Oid>, HistoryError> {
        self.reference(MAIN)
    }

    /// Append a commit to the history.
    pub(super) fn append(&self, commit: &Commit) -> Result<Oid, HistoryError> {
        let id = commit.write(&self.objects)?;
        self.note_head(id)?;
        self.set_reference(MAIN, id)?;
        Ok(id)
    }

    /// What a reference names; `None` if it is not there.
    pub(super) fn reference(&self, name: &str) -> Result<Option<Oid>, HistoryError> {
        let Some(text) = self.text(name)? else { return Ok(self.packed_references()?.remove(name)) };
        let damaged = || HistoryError::reading(format_args!("{name} is damaged: {text:?}"));
        parse_id(text.trim_end()).map(Some).ok_or_else(damaged)
    }

    /// The references of tasks, and the commits that they name.
    pub(super) fn task_references(&self) -> Result<BTreeMap<String, Oid>, HistoryError> {
        let mut found = BTreeMap::new();
        for name in self.task_names()? {
            found.extend(self.reference(&name)?.map(|commit| (name, commit)));
        }
        Ok(found)
    }

    /// The names of the references of tasks.
    pub(super) fn task_names(&self) -> Result<BTreeSet<String>, HistoryError> {
        let packed = self.packed_references()?.into_keys();
        let mut found: BTreeSet<String> = packed.filter(|name| name.starts_with(TASKS)).collect();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match openat(&self.directory, TASKS, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(found),
            opened => opened.map_err(HistoryError::reading)?,
        };
        for entry in Dir::read_from(&directory).map_err(HistoryError::reading)? {
            let name = entry.map_err(HistoryError::reading)?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                found.insert(format!("{TASKS}{name}"));
            }
        }
        Ok(found)
    }

    /// Remove references.
    pub(super) fn remove_references(&self, names: &BTreeSet<String>) -> Result<(), HistoryError> {
        if let Some(packed) = self.text(PACKED)? {
            let is_kept = |line: &&str| line.split_once(' ').is_none_or(|(_, name)| !names.contains(name));
            let kept: String = packed.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
            if kept != packed {
                self.set_text(PACKED, &kept)?;
            }
        }
        for name in names {
            match unlinkat(&self.directory, name.as_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(HistoryError::writing(error)),
            }
        }
        Ok(())
    }

    /// The references that git moved into one file. crewfs does not, but an operator may have run `git gc`.
    fn packed_references(&self) -> Result<BTreeMap<String, Oid>, HistoryError> {
        let text = self.text(PACKED)?.unwrap_or_default();
        let reference = |line: &str| {
            let (commit, name) = line.split_once(' ')?;
            Some((name.to_string(), parse_id(commit)?))
        };
        Ok(text.lines().filter_map(reference).collect())
    }

    /// Let a reference name a commit.
    pub(super) fn set_reference(&self, name: &str, commit: Oid) -> Result<(), HistoryError> {
        self.set_text(name, &format!("{commit}\n"))
    }

    /// A small file of the repository; `None` if it is not there.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, HistoryError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut text = String::new();
        match openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => File::from(file).read_to_string(&mut text).map_err(HistoryError::reading)?,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(HistoryError::reading(error)),
        };
        Ok(Some(text))
    }

    /// Append to a small file of the repository. Returns its length.
    pub(super) fn append_text(&self, name: &str, text: &str) -> Result<u64, HistoryError> {
        let append = || -> std::io::Result<u64> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(&self.directory, name, flags, Mode::from(0o600))?);
            file.write_all(text.as_bytes())?;
            Ok(file.metadata()?.len())
        };
        append().map_err(HistoryError::writing)
    }

    /// Replace a small file of the repository, and wait until it is on the disk.
    pub(super) fn set_text_synced(&self, name: &str, text: &str) -> Result<(), HistoryError> {
        self.set_text(name, text)?;
        let synced =
            openat(&self.directory, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .and_then(fsync);
        synced.map_err(HistoryError::writing)
    }

    /// Replace a small file of the repository.
    pub(super) fn set_text(&self, name: &str, text: &str) -> Result<(), HistoryError> {
        if !self.objects.is_writer() {
            return Err(HistoryError::writing("only the daemon writes it"));
        }
        replace(&self.directory, name, text).map_err(HistoryError::writing)
    }
}

/// Make what is missing of a repository. `HEAD` is last: without it, git does not take the directory for a repository.
fn make(directory: &OwnedFd) -> std::io::Result<()> {
    fchmod_private(directory)?;
    Objects::create(directory)?;
    for name in ["refs", "refs/heads", "refs/tasks"] {
        make_directory(directory, name)?;
    }
    replace(directory, "config", CONFIG)?;
    replace(directory, "HEAD", &format!("ref: {MAIN}\n"))
}

/// Only the owner may enter. The descriptor may be one that cannot be read from.
fn fchmod_private(directory: &OwnedFd) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(fchmod(openat(directory, ".", flags, Mode::empty())?, Mode::from(0o700))?)
}

/// Replace a file at once. No other thread may replace it.
fn replace(directory: &OwnedFd, name: &str, text: &str) -> std::io::Result<()> {
    // Git would take another file below `refs` for a reference.
    let unfinished = format!("unfinished-{}", name.replace('/', "-"));
    let unfinished = unfinished.as_str();
    let _ = unlinkat(directory, unfinished, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, unfinished, flags, Mode::from(0o600))?);
    file.write_all(text.as_bytes())?;
    Ok(renameat(directory, unfinished, directory, name)?)
}

/// An id, in full.
pub(super) fn parse_id(text: &str) -> Option<Oid> {
    // libgit2 takes a shorter text for an id that ends with zeros.
    Oid::from_str(text).ok().filter(|id| id.to_string() == text)
}
