//! Changes as git's unified diff.
//!
//! May assume: the content of every kept version is there.
//! Must never: write to the repository.
//!
//! What git's format cannot say stands first, in lines that begin with `#`. `git apply` skips them.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use git2::{Config, Diff, DiffFindOptions, DiffFormat, DiffOptions, Index, IndexEntry, IndexTime, Oid};

use super::commit_text::quote;
use super::record::entry;
use super::repository::Repository;
use super::{HistoryError, KeptContent, PathChange, Version, VersionKind};

impl Repository {
    /// The unified diff of changes, renames found. With `binary` it holds binary content in full, so that `git apply` can apply it.
    ///
    /// # Errors
    /// Why a content cannot be read.
    pub fn diff(&self, changes: &[PathChange], binary: bool) -> Result<Vec<u8>, HistoryError> {
        let mut text = Vec::new();
        let (mut before, mut after) = (index()?, index()?);
        for change in changes {
            text.extend(beside(change).bytes());
            let sides = [(&mut before, change.before), (&mut after, change.after)];
            let refused =
                sides.into_iter().any(|(index, version)| add(index, &change.path, version).is_err());
            if refused {
                let _ = before.remove_path(&change.path);
                text.extend(line(&change.path, "git does not take a file of this name").bytes());
            }
        }
        patch(self, &before, &after, binary, &mut text)
            .map_err(|error| HistoryError::reading(error.message()))?;
        Ok(text)
    }
}

fn index() -> Result<Index, HistoryError> {
    Index::new().map_err(|error| HistoryError::reading(error.message()))
}

/// Add a version to one side.
fn add(index: &mut Index, path: &Path, version: Option<Version>) -> Result<(), git2::Error> {
    let Some(entry) = entry(version.as_ref()) else { return Ok(()) };
    let never = IndexTime::new(0, 0);
    index.add(&IndexEntry {
        ctime: never,
        mtime: never,
        dev: 0,
        ino: 0,
        mode: entry.mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id: entry.id,
        flags: 0,
        flags_extended: 0,
        path: path.as_os_str().as_bytes().to_vec(),
    })
}

fn patch(
    repository: &Repository,
    before: &Index,
    after: &Index,
    binary: bool,
    text: &mut Vec<u8>,
) -> Result<(), git2::Error> {
    let git = git2::Repository::from_odb(repository.objects.database()?)?;
    // Otherwise libgit2 reads the settings of the user and of the machine.
    git.set_config(&Config::new()?)?;
    let mut options = DiffOptions::new();
    let whole_id = u16::try_from(2 * Oid::ZERO_SHA1.as_bytes().len()).unwrap_or_default();
    options.show_binary(binary).id_abbrev(whole_id);
    let mut diff: Diff<'_> = git.diff_index_to_index(before, after, Some(&mut options))?;
    diff.find_similar(Some(DiffFindOptions::new().renames(true)))?;
    diff.print(DiffFormat::Patch, |_, _, line| {
        if matches!(line.origin(), '+' | '-' | ' ') {
            text.push(line.origin() as u8);
        }
        text.extend(line.content());
        true
    })
}

/// What git's format cannot say about a change.
fn beside(change: &PathChange) -> String {
    let mut text = String::new();
    let mut say = |what: &str| text.push_str(&line(&change.path, what));
    let not_kept = |side: Option<Version>| match side {
        Some(Version {
            kind: VersionKind::File | VersionKind::Symlink,
            content: KeptContent::NotKept { bytes },
            ..
        }) => Some(bytes),
        _ => None,
    };
    for (side, when) in [(change.before, "before"), (change.after, "after")] {
        if let Some(bytes) = not_kept(side) {
            say(&format!("the content {when} is not kept ({bytes} bytes)"));
        }
    }
    let is_directory =
        |side: Option<Version>| side.is_some_and(|version| version.kind == VersionKind::Directory);
    match (is_directory(change.before), is_directory(change.after)) {
        (false, true) => say("becomes an empty directory"),
        (true, false) => say("is no longer an empty directory"),
        _ => {}
    }
    if let (Some(before), Some(after)) = (change.before, change.after) {
        // Git's mode says no more than whether the owner may execute a file.
        let in_patch =
            entry(Some(&before)).map(|entry| entry.mode) != entry(Some(&after)).map(|entry| entry.mode);
        if before.mode != after.mode
            && !(in_patch && [before.mode, after.mode].iter().all(|mode| is_usual(*mode)))
        {
            say(&format!("mode {:04o} becomes {:04o}", before.mode, after.mode));
        }
        if (before.uid, before.gid) != (after.uid, after.gid) {
            say(&format!("owner {}:{} becomes {}:{}", before.uid, before.gid, after.uid, after.gid));
        }
    }
    text
}

fn is_usual(mode: u32) -> bool {
    matches!(mode, 0o644 | 0o755)
}

fn line(path: &Path, what: &str) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "# {}: {what}", quote(path.as_os_str().as_bytes()));
    text
}
