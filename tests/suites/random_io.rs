//! fsx: random reads, writes, mappings, lengths, holes and copies of one file, each read checked against what was written.

use std::fs;
use std::time::Duration;

use crate::sides::{Side, Sides, long, needs};

/// Each way of using a file has faults of its own: all calls mixed, whole pages, small and unaligned accesses, and no mappings.
const MIXTURES: [(&str, &str); 4] = [
    ("everything", ""),
    ("whole pages", "[opsize]\nmin = 4096\nmax = 65536\nalign = 4096\n"),
    ("small pieces", "[opsize]\nmin = 1\nmax = 700\nalign = 1\n"),
    ("a large file, not mapped", "flen = 4194304\n[opsize]\nmin = 0\nmax = 1048576\nalign = 1\n"),
];

const WEIGHTS: &str = "
[weights]
close_open = 2
invalidate = 2
read = 10
write = 10
truncate = 5
fsync = 1
fdatasync = 1
punch_hole = 3
sendfile = 3
posix_fadvise = 2
copy_file_range = 5
";

#[test]
fn fsx_reads_what_it_wrote_and_leaves_the_same_file_on_both_sides() {
    needs!("fsx");
    let limit = if long() { Duration::from_secs(3600) } else { Duration::from_secs(180) };
    let Some(sides) = Sides::new(limit) else { return };
    let (seeds, operations) = if long() { (10, "50000") } else { (4, "4000") };
    for (mixture, sizes) in MIXTURES {
        let maps = if mixture.ends_with("not mapped") { 0 } else { 10 };
        // Rounded to whole pages, fsx would sometimes reserve zero bytes, which every filesystem refuses.
        let reserves = if mixture == "whole pages" { 0 } else { 3 };
        let configuration = sides.project.dir().join("fsx.toml");
        let more = format!("mapread = {maps}\nmapwrite = {maps}\nposix_fallocate = {reserves}\n");
        fs::write(&configuration, format!("{sizes}{WEIGHTS}{more}")).unwrap();
        for seed in 1..=seeds {
            let seed: String = format!("{seed}");
            let (disk, mount) = sides.both(|side: Side| {
                let file = sides.at(side).join("file");
                let _ = fs::remove_file(&file);
                let configuration = configuration.display().to_string();
                let artifacts = sides.project.dir().display().to_string();
                let args = ["-f", &configuration, "-N", operations, "-S", &seed, "-P", &artifacts, "file"];
                let ran = sides.run(side, "fsx", args);
                assert_eq!(ran.code, Some(0), "{mixture}, seed {seed}, {side:?}: {ran:#?}");
                fs::read(sides.beneath(side).join("file")).unwrap()
            });
            // Mapped data reaches the disk by itself, at the latest when the file is closed or synced.
            assert!(disk == mount, "{mixture}, seed {seed}: the files differ");
        }
    }
}
