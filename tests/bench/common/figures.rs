//! Medians, rounding, and the machine that the figures depend on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor, statfs};

use super::Outcome;

/// `f_type` of a filesystem in memory, where a sync has no effect.
const TMPFS: u64 = 0x0102_1994;

/// The median; `None` if there are no values.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (lower, upper) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some((lower + upper) / 2.0)
}

/// The value with two or three significant digits.
pub(crate) fn short(value: f64) -> String {
    let decimals = match value {
        value if value < 0.1 => 3,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// The machine that the figures depend on, in half a line. Fails for a directory in memory.
pub(crate) fn machine(dir: &Path) -> Outcome<String> {
    if statfs(dir)?.f_type as u64 == TMPFS {
        return Err(format!("{} is in memory; name a directory on a disk with --dir", dir.display()).into());
    }
    let device = fs::metadata(dir)?.dev();
    let device = format!("{}:{}", major(device), minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let kind = mounts
        .lines()
        .filter(|line| line.split(' ').nth(2) == Some(&device))
        .find_map(|line| {
            let mut words = line.split_once(" - ")?.1.split(' ');
            let (kind, discards) =
                (words.next()?, words.nth(1)?.split(',').any(|option| option == "discard"));
            // With discard, every removal waits for the disk and may take a hundred times as long.
            Some(format!("{kind}{}", if discards { " with discard" } else { "" }))
        })
        .unwrap_or_else(|| "an unknown filesystem".to_owned());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(format!(
        "Linux {}, {} CPUs, {kind}, load {} at the start",
        // The part after the numbers names the builder.
        kernel.trim().split('-').next().unwrap_or_default(),
        std::thread::available_parallelism()?,
        load.split(' ').next().unwrap_or("unknown"),
    ))
}
