//! System calls that the suites leave out, each made on both sides (`calls.py`, `set_gid.py`).

use std::time::Duration;

use crate::process::Ran;
use crate::sides::{Known, Outcomes, Sides, needs};

const CALLS: &str =
    concat!(include_str!("probes.py"), include_str!("calls.py"), include_str!("set_gid.py"), "\nrun_all()\n");

/// The known differences for root. Root may do more, so more calls can differ.
const KNOWN: [Known; 14] = [
    ("open_tmpfile", "fuser does not know FUSE_TMPFILE"),
    ("fallocate_collapse", "the kernel's FUSE passes on allocating, punching and zeroing only"),
    ("fallocate_insert", "as collapsing"),
    ("preadv2_nowait", "the kernel's FUSE has no reads that do not wait"),
    ("ioctl_fiemap", "where a file's blocks are is the disk's affair; the kernel has no FUSE request for it"),
    ("ioctl_get_flags", "ioctls are not passed on, so neither lsattr nor chattr work"),
    ("ioctl_get_version", "as ioctl_get_flags"),
    ("ioctl_get_xattr", "as ioctl_get_flags"),
    ("set_id_program_runs_as_its_owner", "mounted nosuid, on purpose"),
    ("device_opens", "mounted nodev, on purpose"),
    ("mount_flags", "nosuid and nodev"),
    ("limit_links", "the C library knows this by the kind of filesystem, and has no number for FUSE"),
    ("limit_file_bits", "as limit_links"),
    ("time_of_birth", "fuser does not know FUSE_STATX"),
];

fn outcomes(ran: Ran) -> Outcomes {
    let said = ran.ok();
    let lines = said.lines().map(|line| line.split_once(": ").unwrap_or_else(|| panic!("{line}")));
    lines.map(|(call, result)| (call.to_string(), result.to_string())).collect()
}

#[test]
fn single_calls_answer_the_same_on_both_sides_but_for_these() {
    needs!("python3");
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: this test needs root");
    }
    let Some(sides) = Sides::new(Duration::from_secs(60)) else { return };
    let (disk, mount) = sides.both(|side| outcomes(sides.run(side, "python3", ["-c", CALLS])));
    assert!(disk.len() > 180, "{disk:#?}");
    sides.compare(&disk, &mount, &KNOWN);
}
