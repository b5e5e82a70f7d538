//! Differences between two versions of a file, as `diff -u` shows them.
//!
//! Must never: print bytes that steer a terminal to a terminal.

use std::path::Path;

use git2::Patch;

use super::out;
use crate::shown;

/// How many lines two versions of a file differ in: added, removed. `None` if one of the two is binary.
pub(super) fn line_counts(before: Option<&[u8]>, after: Option<&[u8]>) -> Option<(usize, usize)> {
    let patch =
        Patch::from_buffers(before.unwrap_or_default(), None, after.unwrap_or_default(), None, None).ok()?;
    if patch.delta().flags().is_binary() {
        return None;
    }
    let (_, added, removed) = patch.line_stats().ok()?;
    Some((added, removed))
}

/// The difference between two versions of the file at a path. `None` is no file.
pub(super) fn patch(path: &Path, before: Option<&[u8]>, after: Option<&[u8]>) -> Vec<u8> {
    let text = || {
        let name = |version: Option<&[u8]>| version.map(|_| path);
        let (old, new) = (before.unwrap_or_default(), after.unwrap_or_default());
        let mut patch = Patch::from_buffers(old, name(before), new, name(after), None).ok()?;
        Some(patch.to_buf().ok()?.to_vec())
    };
    text().unwrap_or_default()
}

/// Print text that came from files. Returns whether more can be printed.
pub(super) fn print(text: &[u8]) -> bool {
    if out::is_terminal() {
        out::write(shown::lines(&String::from_utf8_lossy(text)).as_bytes())
    } else {
        out::write(text)
    }
}
