//! The content of a directory, for comparison: everything that a program can see, except what always differs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use crate::process::Ran;
use crate::sides::{Side, Sides};

/// The time limit of one test.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const LONG: Duration = Duration::from_secs(180);

/// Stands for the directory of a side in compared text.
const PLACE: &str = "@PLACE@";

/// Whether modification times are compared: only where the test set them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    Compared,
    Ignored,
}

fn described(path: &Path, name: &str, sides: &Sides, side: Side, times: Times) -> String {
    let metadata = fs::symlink_metadata(path).unwrap();
    let kind = metadata.file_type();
    let content = if kind.is_file() {
        let bytes = fs::read(path).unwrap();
        assert_eq!(bytes.len() as u64, metadata.len(), "{name}");
        replaced(&bytes, sides.at(side).as_os_str().as_bytes())
    } else if kind.is_symlink() {
        replaced(fs::read_link(path).unwrap().as_os_str().as_bytes(), sides.at(side).as_os_str().as_bytes())
    } else {
        Vec::new()
    };
    let what = match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "link",
        () if kind.is_fifo() => "pipe",
        () => "other",
    };
    // A directory's link count only counts the directories in it, which are compared themselves.
    let names = if kind.is_dir() { 0 } else { metadata.nlink() };
    let time = match times {
        Times::Compared => (metadata.mtime(), metadata.mtime_nsec()),
        Times::Ignored => (0, 0),
    };
    let (mode, uid, gid, size) = (metadata.mode(), metadata.uid(), metadata.gid(), content.len());
    let sum = crc(&content);
    format!("{what} {mode:o} {uid}:{gid} {names} names, {size} bytes {sum:016x}, {time:?}")
}

fn replaced(bytes: &[u8], place: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(place.len()).position(|window| window == place) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(PLACE.as_bytes());
        rest = &rest[at + place.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// A checksum, which differs when the bytes do.
fn crc(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// The tree below the directory of a side, read from the disk directly.
pub(crate) fn tree(
    sides: &Sides,
    side: Side,
    times: Times,
    skip: &dyn Fn(&str) -> bool,
) -> BTreeMap<String, String> {
    fn walk(place: &Path, below: &str, each: &mut dyn FnMut(&Path, &str) -> bool) {
        for entry in fs::read_dir(place).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            if each(&entry.path(), &name) && entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{name}/"), each);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&sides.beneath(side), "", &mut |path, name| {
        let kept = !skip(name);
        if kept {
            found.insert(name.to_string(), described(path, name, sides, side, times));
        }
        kept
    });
    found
}

/// Run a script in bash on one side, as the worker.
#[track_caller]
pub(crate) fn script(sides: &Sides, side: Side, text: &str) -> Ran {
    sides.run(side, "bash", ["-c", &format!("set -euo pipefail\n{text}")])
}

/// The output of a script, with its directory replaced.
#[track_caller]
pub(crate) fn said(sides: &Sides, side: Side, text: &str) -> String {
    script(sides, side, text).ok().replace(&sides.at(side).display().to_string(), PLACE)
}

/// Run a script on both sides. Assert that it succeeds, and leaves the same output and the same tree. Returns the output.
#[track_caller]
pub(crate) fn same(sides: &Sides, times: Times, text: &str, skip: &dyn Fn(&str) -> bool) -> String {
    let (disk, mount) = sides.both(|side| said(sides, side, text));
    assert_eq!(disk, mount, "what was said");
    same_trees(sides, times, skip);
    mount
}

/// Assert that both sides have the same tree.
#[track_caller]
pub(crate) fn same_trees(sides: &Sides, times: Times, skip: &dyn Fn(&str) -> bool) {
    let (disk, mount) = sides.both(|side| tree(sides, side, times, skip));
    assert!(!disk.is_empty(), "there is nothing to compare");
    let all = disk.keys().chain(mount.keys());
    let differing: BTreeMap<_, _> = all
        .filter(|name| disk.get(*name) != mount.get(*name))
        .map(|name| (name, (disk.get(name), mount.get(name))))
        .collect();
    assert!(differing.is_empty(), "the trees differ, on the disk and mounted: {differing:#?}");
}

/// Exclude nothing.
pub(crate) fn nothing(_name: &str) -> bool {
    false
}
