//! Which step each line of a file comes from.
//!
//! May assume: each version of a path in the history follows from the one before; what came from outside is a step too.

use std::path::{Path, PathBuf};

use git2::{DiffOptions, Patch};

use super::repository::Repository;
use super::steps::StepFilter;
use super::{HistoryError, KeptContent, Step, Version};
use crate::queue::{TaskId, Wall, WorkerName};

/// Where a line comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineOrigin {
    /// It is not in the last version that the history knows.
    NotRecorded,
    /// It was there before the oldest version that the history knows.
    Older,
    /// A step brought it.
    Step {
        /// The worker; `None` for a change from outside.
        worker: Option<WorkerName>,
        /// The task of the worker's claim.
        task: Option<TaskId>,
        /// When the step ended.
        at: Wall,
    },
}

/// How similar the removed file must be that a new file continues, in percent of the new file's lines.
const SIMILAR_PERCENT: usize = 50;

impl Repository {
    /// Where each line of a file comes from. `present` is its content now. A line ends after its `\n`. Renames are followed.
    ///
    /// # Errors
    /// Why the history cannot be read.
    pub fn blame(&self, path: &Path, present: &[u8]) -> Result<Vec<LineOrigin>, HistoryError> {
        let mut open = OpenLines::all(lines(present));
        let mut path = path.to_path_buf();
        let mut steps = self.steps(StepFilter { path: Some(path.clone()), ..StepFilter::default() })?;
        let mut newest = true;
        while let Some(step) = steps.next_whole()? {
            let Some(change) = step.changes.iter().find(|change| change.path == path) else { continue };
            let after = self.content(change.after)?;
            if std::mem::take(&mut newest) {
                open.settle(&unchanged(&after, present)?, &LineOrigin::NotRecorded);
            }
            let before = match change.before {
                None => self.continued(&after, &step)?,
                before => Some((path.clone(), self.content(before)?)),
            };
            let same = match &before {
                Some((_, before)) => unchanged(before, &after)?,
                None => Vec::new(),
            };
            let task = step.claim.as_ref().map(|claim| claim.task.clone());
            open.settle(&same, &LineOrigin::Step { worker: step.worker.clone(), task, at: step.at });
            if open.lines.is_empty() {
                break;
            }
            if let Some((older, _)) = before.filter(|(older, _)| *older != path) {
                path.clone_from(&older);
                steps.follow(older);
            }
        }
        Ok(open.origins)
    }

    /// What can be compared of a version.
    fn content(&self, version: Option<Version>) -> Result<Vec<u8>, HistoryError> {
        match version {
            Some(Version { content: KeptContent::Kept(id), .. }) => self.read(id),
            _ => Ok(Vec::new()),
        }
    }

    /// The removed file that a new file continues: its path and its content.
    fn continued(&self, new: &[u8], step: &Step) -> Result<Option<(PathBuf, Vec<u8>)>, HistoryError> {
        let mut best: Option<(usize, PathBuf, Vec<u8>)> = None;
        for removed in step.changes.iter().filter(|change| change.after.is_none()) {
            let old = self.content(removed.before)?;
            let same = unchanged(&old, new)?.iter().flatten().count();
            if same * 100 >= lines(new).max(1) * SIMILAR_PERCENT
                && best.as_ref().is_none_or(|(most, ..)| same > *most)
            {
                best = Some((same, removed.path.clone(), old));
            }
        }
        Ok(best.map(|(_, path, old)| (path, old)))
    }
}

/// The lines whose origin is not known yet.
struct OpenLines {
    origins: Vec<LineOrigin>,
    /// For each line, its number at present, and in the version that was looked at last.
    lines: Vec<(usize, usize)>,
}

impl OpenLines {
    fn all(count: usize) -> OpenLines {
        OpenLines {
            origins: vec![LineOrigin::Older; count],
            lines: (0..count).map(|line| (line, line)).collect(),
        }
    }

    /// Go on to an older version. `same` has the numbers of its lines; a line that is not in it has this origin.
    fn settle(&mut self, same: &[Option<usize>], origin: &LineOrigin) {
        let OpenLines { origins, lines } = self;
        lines.retain_mut(|(present, line)| match same.get(*line).copied().flatten() {
            Some(older) => {
                *line = older;
                true
            }
            None => {
                origins[*present] = origin.clone();
                false
            }
        });
    }
}

/// How many lines a content has.
fn lines(content: &[u8]) -> usize {
    content.split_inclusive(|byte| *byte == b'\n').count()
}

/// For each line of the new content, which line it was in the old one.
fn unchanged(old: &[u8], new: &[u8]) -> Result<Vec<Option<usize>>, HistoryError> {
    let hunks = || -> Result<Vec<[usize; 4]>, git2::Error> {
        let mut options = DiffOptions::new();
        options.context_lines(0).force_text(true);
        let patch = Patch::from_buffers(old, None, new, None, Some(&mut options))?;
        let hunk = |number| {
            let (hunk, _) = patch.hunk(number)?;
            Ok([hunk.old_start(), hunk.old_lines(), hunk.new_start(), hunk.new_lines()].map(|n| n as usize))
        };
        (0..patch.num_hunks()).map(hunk).collect()
    };
    let hunks = hunks().map_err(|error| HistoryError::reading(error.message()))?;
    let mut found = vec![None; lines(new)];
    let (mut from, mut to) = (0, 0);
    let end = [0, 0, found.len() + 1, 1];
    for [_, old_lines, new_start, new_lines] in hunks.into_iter().chain([end]) {
        // The start of a hunk without lines is the line before it; lines are counted from 1.
        let start = if new_lines == 0 { new_start } else { new_start - 1 };
        while to < start {
            found[to] = Some(from);
            (from, to) = (from + 1, to + 1);
        }
        (from, to) = (from + old_lines, to + new_lines);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::history::{PathChange, TaskClaim, VersionKind};

    #[test]
    fn unchanged_lines_are_found() {
        let same = |old: &str, new: &str| unchanged(old.as_bytes(), new.as_bytes()).unwrap();
        assert_eq!(same("a\nb\nc\n", "a\nb\nc\n"), [Some(0), Some(1), Some(2)]);
        assert_eq!(same("a\nb\nc\n", "a\nc\n"), [Some(0), Some(2)]);
        assert_eq!(same("a\nc\n", "x\na\nb\nc"), [None, Some(0), None, None]);
        assert_eq!(same("", "a\n"), [None]);
        assert_eq!(same("a\n", ""), []);
        assert_eq!(same("\0\na\n", "\0\nb\n"), [Some(0), None]);
    }

    #[test]
    fn lines_are_followed_through_edits_and_renames() {
        let place = crate::history::in_memory().unwrap();
        let repository = Repository::open(OwnedFd::from(File::open(place.path()).unwrap()), true).unwrap();
        let version = |content: &str| {
            let content = KeptContent::Kept(repository.store(content.as_bytes()).unwrap());
            Some(Version { kind: VersionKind::File, mode: 0o644, uid: 0, gid: 0, content })
        };
        let [old, edited, moved, last] =
            ["1\n2\n3\n4\n5\n", "1\n2\nx\n4\n5\n", "1\n2\nx\ny\n5\n", "0\n2\nx\ny\n5\n"].map(version);
        let change = |path: &str, before, after| PathChange { path: path.into(), before, after };
        let claim =
            |task: &str| Some(TaskClaim { task: TaskId::parse(task)?, epoch: 1, title: String::new() });
        let changes = [
            (Some("v"), claim("t"), vec![change("a", old, edited)]),
            (Some("w"), None, vec![change("a", edited, None), change("b", None, moved)]),
            (None, None, vec![change("b", moved, last)]),
        ];
        for (at, (worker, claim, changes)) in changes.into_iter().enumerate() {
            let worker = worker.and_then(WorkerName::parse);
            let step = Step { worker, claim, program: None, at: Wall(at as i64), end: None, changes };
            repository.record(&step).unwrap();
        }
        let origins = repository.blame(Path::new("b"), b"0\n2\nx\ny\n5\nnew\n").unwrap();
        let step = |worker, task, at| LineOrigin::Step {
            worker: Option::and_then(worker, WorkerName::parse),
            task: Option::and_then(task, TaskId::parse),
            at: Wall(at),
        };
        // The first commit brings the file as the first step found it.
        let outside = step(None, None, 0);
        assert_eq!(
            origins,
            [
                step(None, None, 2),
                outside.clone(),
                step(Some("v"), Some("t"), 0),
                step(Some("w"), None, 1),
                outside,
                LineOrigin::NotRecorded
            ]
        );
        assert_eq!(repository.blame(Path::new("none"), b"a\nb").unwrap(), [const { LineOrigin::Older }; 2]);
    }
}
