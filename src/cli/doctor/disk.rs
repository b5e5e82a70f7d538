//! Checks the disk under a project: whether claimed tasks can be finished, and new ones accepted.

use std::path::Path;

use super::finding::Finding::{self, Good, Problem, Warning};
use crate::limits::RESERVED_BYTES;

/// Free space below which a disk is soon full, in bytes: a day of a busy crew's logs and results.
const ROOM_GOOD: u64 = 256 * 1024 * 1024;
/// Free inodes below which the disk is soon full.
const FILES_GOOD: u64 = 1_000;

/// What a disk has left.
#[derive(Debug, Clone, Copy)]
struct FreeSpace {
    bytes: u64,
    /// `None` if the filesystem has no limit of files.
    files: Option<u64>,
}

/// The findings about the disk of the state directory. `reserved` if the reserve is allocated.
pub(super) fn findings(shown: &Path, state: &Path, reserved: bool) -> Vec<Finding> {
    match rustix::fs::statvfs(state) {
        Ok(disk) => {
            let bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
            judge(shown, FreeSpace { bytes, files: (disk.f_files > 0).then_some(disk.f_favail) }, reserved)
        }
        Err(error) => vec![Warning(format!(
            "the disk under {} does not tell what is free: {error}; see: df {0}",
            shown.display()
        ))],
    }
}

fn judge(shown: &Path, free: FreeSpace, reserved: bool) -> Vec<Finding> {
    let (shown, bytes) = (shown.display(), free.bytes);
    let mut findings = Vec::new();
    // The reserve is allocated only if it fits twice.
    findings.push(if !reserved && bytes <= 2 * RESERVED_BYTES {
        Problem(format!(
            "the disk under {shown} has {} free, too little for the reserve of {}: no new work is accepted; free some: \
             du -xh {shown} | sort -h | tail",
            size(bytes),
            size(RESERVED_BYTES)
        ))
    } else if bytes < ROOM_GOOD {
        Warning(format!(
            "the disk under {shown} has only {} free, and when it is full no new work is accepted; free some: \
             du -xh {shown} | sort -h | tail",
            size(bytes)
        ))
    } else {
        Good(format!("the disk under {shown} has {} free", size(bytes)))
    });
    match free.files {
        Some(0) => findings.push(Problem(format!(
            "the disk under {shown} can hold no more files; remove some: du -x --inodes {shown} | sort -n | tail"
        ))),
        Some(files) if files < FILES_GOOD => findings.push(Warning(format!(
            "the disk under {shown} can hold only {files} more files; remove some: du -x --inodes {shown} | sort -n | tail"
        ))),
        _ => {}
    }
    findings
}

/// A size in the largest fitting unit.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(bytes: u64, files: Option<u64>, reserved: bool) -> Vec<Finding> {
        judge(Path::new("/p"), FreeSpace { bytes, files }, reserved)
    }

    #[test]
    fn the_reserve_must_fit() {
        assert!(
            matches!(&judged(RESERVED_BYTES, None, false)[..], [Problem(said)] if said.contains("4.0 MiB"))
        );
        // The reserve is allocated, so claimed tasks can be finished.
        assert!(matches!(judged(RESERVED_BYTES, None, true)[..], [Warning(_)]));
        assert!(matches!(&judged(5 << 30, None, false)[..], [Good(said)] if said.contains("5.0 GiB")));
    }

    #[test]
    fn a_disk_can_be_full_of_files() {
        let many = 5 << 30;
        assert!(matches!(judged(many, Some(0), true)[..], [Good(_), Problem(_)]));
        assert!(matches!(judged(many, Some(10), true)[..], [Good(_), Warning(_)]));
        assert!(matches!(judged(many, Some(1_000_000), true)[..], [Good(_)]));
    }
}
