//! Temporary names in `completed/` and `failed/`, and the memory that open texts cost the daemon (C29).

use std::fs::File;

use crate::harness::{Mounted, as_root, project};

const MIB: u64 = 1 << 20;

/// The daemon's resident memory in bytes.
fn memory(mounted: &Mounted) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", mounted.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn c29_many_who_read_one_text_share_it() {
    const OPENS: u64 = 800;
    let project = project!();
    project.task("a", &format!("# A\n{}", "x".repeat(MIB as usize - 4)));
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a && head -c 1048576 /dev/zero > tasks/completed/a").ok();
    mounted.sh("w1", "mv tasks/completed/a tasks/ready/").ok();
    for (place, again) in [
        ("ready/a", "touch tasks/claim/a && head -c 1048576 /dev/zero > tasks/completed/a"),
        ("completed/a", "true"),
    ] {
        // One file is opened beforehand: it costs the memory that the later opens share.
        let first = File::open(mounted.desk(place)).unwrap();
        let before = memory(&mounted);
        let open: Vec<File> = (0..OPENS).map(|_| File::open(mounted.desk(place)).unwrap()).collect();
        let grown = memory(&mounted).saturating_sub(before);
        eprintln!("{OPENS} opens of {place}, 1 MiB each: {} MiB more", grown / MIB);
        assert!(grown < 32 * MIB, "{OPENS} opens of {place}: {} MiB more", grown / MIB);
        drop((open, first));
        mounted.sh("w1", again).ok();
    }
}

#[test]
fn c29_one_user_s_temporary_files_leave_room_for_others() {
    as_root!();
    let project = project!();
    project.is_for_everybody();
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    let before = memory(&mounted);
    // In parts, since the time of one command is limited.
    for first in [1, 51, 101, 151] {
        let fill = format!(
            "for n in $(seq {first} {}); do head -c 1048576 /dev/zero > tasks/completed/.$n.tmp || exit; done",
            first + 49
        );
        mounted.sh_as(1_001, "u1", &fill).ok();
    }
    let grown = memory(&mounted).saturating_sub(before);
    eprintln!("200 temporary files of 1 MiB: {} MiB more", grown / MIB);
    assert!(grown < 80 * MIB, "{} MiB more", grown / MIB);
    let left = mounted.list("completed").len() as u64;
    assert!((1..=32).contains(&left), "{left} of them");
    // The newest file exists and the oldest is gone. The number of small files is limited too.
    mounted.sh_as(1_001, "u1", "test -s tasks/completed/.200.tmp && ! test -e tasks/completed/.1.tmp").ok();
    mounted.sh_as(1_001, "u1", "for n in $(seq 1500); do : > tasks/failed/.$n.tmp || exit; done").ok();
    assert_eq!(mounted.list("failed").len() + mounted.list("completed").len(), 128);
    // Another user can save its result as usual.
    mounted.sh_as(1_002, "u2", "touch tasks/claim/a && echo done > tasks/completed/.a.tmp").ok();
    mounted.sh_as(1_001, "u1", "for n in $(seq 200); do : > tasks/failed/.more.$n.tmp || exit; done").ok();
    mounted.sh_as(1_002, "u2", "mv tasks/completed/.a.tmp tasks/completed/a").ok();
    assert_eq!(mounted.read("completed/a"), "done\n");
    // An open file stays.
    let kept = "exec 3> tasks/failed/.kept.tmp; for n in $(seq 200); do : > tasks/failed/.n.$n.tmp || exit; done; echo x >&3 && cat tasks/failed/.kept.tmp";
    assert_eq!(mounted.sh_as(1_001, "u1", kept).ok(), "x\n");
}

#[test]
fn c29_a_temporary_file_belongs_to_its_maker() {
    as_root!();
    let project = project!();
    project.is_for_everybody();
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    let (mine, other) = (
        |script: &str| mounted.sh_as(1_001, "u1", script),
        |script: &str| mounted.sh_as(1_002, "u2", script),
    );
    mine("umask 077; touch tasks/claim/a && echo secret > tasks/completed/.a.tmp").ok();
    mine("umask 022; echo shown > tasks/completed/.b.tmp").ok();
    assert_eq!(mine("stat -c '%a %u %g' tasks/completed/.[ab].tmp").ok(), "600 1001 1001\n644 1001 1001\n");
    other("cat tasks/completed/.a.tmp").refused("Permission denied");
    assert_eq!(other("cat tasks/completed/.b.tmp").ok(), "shown\n");
    mine("chmod 666 tasks/completed/.b.tmp").ok();
    other("echo mine > tasks/completed/.mine.tmp").ok();
    for change in [
        "echo x > tasks/completed/.a.tmp",
        "echo x > tasks/completed/.b.tmp",
        "echo x >> tasks/completed/.b.tmp",
        "truncate -s 0 tasks/completed/.b.tmp",
        "rm -f tasks/completed/.a.tmp",
        "mv tasks/completed/.a.tmp tasks/completed/.c.tmp",
        "mv -f tasks/completed/.mine.tmp tasks/completed/.a.tmp",
        "mv tasks/completed/.a.tmp tasks/completed/a",
    ] {
        other(change).refused("Permission denied");
    }
    other("chmod 600 tasks/completed/.b.tmp").refused("not permitted");
    assert!(
        mounted
            .read("workers/u2/why")
            .contains("this temporary file was made by uid 1001; choose another name")
    );
    mine("chmod 640 tasks/completed/.a.tmp && mv tasks/completed/.a.tmp tasks/completed/a").ok();
    assert_eq!(mounted.read("completed/a"), "secret\n");
    mounted.operator("rm tasks/completed/.b.tmp && echo x > tasks/completed/.mine.tmp").ok();
    assert_eq!(mounted.list("completed").len(), 2);
}
