//! stress-ng's stressors of filesystems: calls in great number, with odd arguments, and with verified results.

use std::fs;
use std::time::Duration;

use crate::sides::{Known, Outcomes, Side, Sides, long, needs};

/// A stressor, its number of operations, and arguments that keep its files small.
type Stressor = (&'static str, u64, &'static [&'static str]);

/// Stressors of files in a directory. Left out are those that need another device or namespace, affect the whole system (`io`,
/// `getdent`, `bind-mount`), or use no file.
const STRESSORS: [Stressor; 45] = [
    ("access", 200, &[]),
    ("aio", 1000, &[]),
    ("aiol", 200, &[]),
    ("chattr", 10, &[]),
    ("chdir", 1, &["--chdir-dirs", "256"]),
    ("chmod", 40, &[]),
    ("chown", 200, &[]),
    ("copy-file", 8, &["--copy-file-bytes", "8M"]),
    ("dentry", 512, &["--dentries", "256"]),
    ("dir", 512, &["--dir-dirs", "256"]),
    ("dirdeep", 60, &["--dirdeep-inodes", "500"]),
    ("dirmany", 500, &[]),
    ("dnotify", 40, &[]),
    ("dup", 20, &[]),
    ("fallocate", 2, &["--fallocate-bytes", "8M"]),
    ("fanotify", 400, &[]),
    ("fcntl", 500, &[]),
    ("fiemap", 200, &["--fiemap-bytes", "4M"]),
    ("file-ioctl", 300, &[]),
    ("filename", 40, &[]),
    ("flock", 10_000, &[]),
    ("fpunch", 50, &[]),
    ("fsize", 10, &[]),
    ("handle", 5000, &[]),
    ("hdd", 500, &["--hdd-bytes", "8M"]),
    ("inotify", 2, &[]),
    ("iomix", 300, &["--iomix-bytes", "8M"]),
    ("lease", 50, &[]),
    ("link", 1, &[]),
    ("locka", 5000, &[]),
    ("lockf", 1000, &[]),
    ("lockofd", 5000, &[]),
    ("mknod", 300, &[]),
    ("mmap", 2, &["--mmap-file", "--mmap-bytes", "2M"]),
    ("msync", 40, &["--msync-bytes", "4M"]),
    ("open", 1000, &[]),
    ("readahead", 200, &["--readahead-bytes", "8M"]),
    ("rename", 300, &[]),
    ("revio", 500, &["--revio-bytes", "8M"]),
    ("seek", 200, &["--seek-size", "8M"]),
    ("sendfile", 200, &[]),
    ("sync-file", 2, &["--sync-file-bytes", "4M"]),
    ("touch", 200, &[]),
    ("utime", 200, &[]),
    ("xattr", 6, &[]),
];

const KNOWN: [Known; 1] = [(
    "fiemap",
    "asks the disk where a file's blocks are, by an ioctl that FUSE does not pass on; the stressor skips itself",
)];

/// How a stressor ended, and the files that it left.
fn outcome(sides: &Sides, side: Side, (stressor, operations, more): Stressor) -> String {
    let operations = if long() { operations * 40 } else { operations };
    let option = |end: &str| format!("--{stressor}{end}");
    let directory = sides.at(side).join(stressor);
    fs::create_dir(&directory).unwrap();
    let mut args = vec!["--temp-path".to_string(), directory.display().to_string(), option("")];
    args.extend(["1".to_string(), option("-ops"), operations.to_string()]);
    args.extend(
        ["--verify", "--no-rand-seed", "--timeout", if long() { "120" } else { "15" }].map(String::from),
    );
    args.extend(more.iter().map(|word| word.to_string()));
    let ran = sides.run(side, "stress-ng", args);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    let left = fs::read_dir(sides.beneath(side).join(stressor)).unwrap().count();
    let what = match ran.code {
        Some(0) if said.contains("skipping stressor") => "skipped itself".to_string(),
        Some(0) => "well".to_string(),
        code => format!("{code:?}: {said}"),
    };
    if left == 0 { what } else { format!("{what}, leaving {left} files") }
}

#[test]
fn stress_ng_is_told_the_same_on_both_sides() {
    needs!("stress-ng");
    let limit = if long() { Duration::from_secs(7200) } else { Duration::from_secs(240) };
    let Some(sides) = Sides::new(limit) else { return };
    let (mut disk, mut mount) = (Outcomes::new(), Outcomes::new());
    for stressor in STRESSORS {
        disk.insert(stressor.0.to_string(), outcome(&sides, Side::Disk, stressor));
        mount.insert(stressor.0.to_string(), outcome(&sides, Side::Mount, stressor));
    }
    let well = disk.values().filter(|outcome| *outcome == "well").count();
    assert!(well >= STRESSORS.len() - 8, "the suite does not work here: {disk:#?}");
    sides.compare(&disk, &mount, &KNOWN);
}
