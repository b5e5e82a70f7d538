//! A request that changes nothing is neither refused nor delayed (C50): lock files as flock(1) uses them, and attributes set to their
//! present values.

use super::{Agent, two};
use crate::harness::{Mounted, project};
use crate::process::run;

/// Counts in a file. The count is correct only if no two workers are in the critical section at once.
fn section(open: &str, lock: &str, rounds: u32) -> String {
    format!(
        "set -e
         for n in $(seq {rounds}); do
             exec 9{open}{lock}; flock 9
             read -r count < count; echo $((count + 1)) > count
             exec 9>&-
         done"
    )
}

/// Several workers count at the same time, under one lock.
#[track_caller]
fn count_together(mounted: &Mounted, open: &str, lock: &str, rounds: u32) {
    mounted.sh("w0", "[ ! -e count ] || cat count; echo 0 > count").ok();
    let script = section(open, lock, rounds);
    std::thread::scope(|scope| {
        let crew: Vec<_> = (0..4)
            .map(|n| {
                let (worker, script) = (format!("w{n}"), &script);
                scope.spawn(move || {
                    let mut command = mounted.worker(&worker);
                    command.arg(script);
                    run(command)
                })
            })
            .collect();
        for ran in crew {
            ran.join().unwrap().ok();
        }
    });
    let count = mounted.sh("w0", "cat count").ok();
    assert_eq!(count.trim(), (4 * rounds).to_string(), "exec 9{open}{lock}");
}

#[test]
fn c50_a_lock_file_serves_several_workers_as_on_the_disk() {
    let project = project!();
    let mounted = project.mount(&[]);
    // The counter file is exempt from the guard: the test is about the lock file.
    std::fs::write(project.behind().join(".gitignore"), "count\n").unwrap();
    for open in [">", ">>", "<>"] {
        // In the first round the workers race to make the lock file.
        for lock in 0..5 {
            count_together(&mounted, open, &format!("lock{lock}.{}", open.len()), 10);
        }
    }
    count_together(&mounted, ">", "lock", 60);
}

#[test]
fn c50_to_set_a_file_to_the_length_that_it_has_changes_nothing() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=20s"]);
    let (mut one, mut two) = two(&mounted);
    let mut three = Agent::new(&mounted, "w3");
    one.ok("new('f', 'text'); fd = os.open('f', os.O_RDWR); os.write(fd, b'TEXT'); os.utime('f', (1, 1))");
    one.ok("empty = os.open('empty', os.O_RDWR | os.O_CREAT, 0o644); os.utime('empty', (1, 1))");
    // This worker has not read the file, and another worker holds it.
    two.ok("os.truncate('f', 4); ftruncate('f', 4)");
    for route in
        ["os.truncate('empty', 0)", "ftruncate('empty', 0)", "opened_for('empty', os.O_WRONLY | os.O_TRUNC)"]
    {
        one.ok("os.utime('empty', (1, 1))");
        two.ok(route);
        // The times are set as on the disk: ftruncate(2) and O_TRUNC set them even when the length stays the same.
        if route != "os.truncate('empty', 0)" {
            assert!(two.ok("os.stat('empty').st_mtime").as_f64().unwrap() > 1.0, "{route}");
        }
    }
    two.busy("os.truncate('f', 3)");
    // The worker does not hold the file by that, and no other worker must read the file again.
    one.ok("os.write(empty, b'1'); os.close(empty); os.close(fd)");
    assert_eq!(one.ok("get('f')"), "TEXT");
    three.ok("get('f')");
    two.ok("os.truncate('f', 4)");
    three.ok("put('f', 'mine')");
    // The request does not count as a read by the worker.
    two.busy("put('f', 'X')");
    assert_eq!(three.ok("get('f')"), "mine");
}

#[test]
fn c50_attributes_may_be_set_to_what_they_are() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=20s"]);
    let (mut one, mut two) = two(&mounted);
    one.ok("fd = os.open('f', os.O_RDWR | os.O_CREAT, 0o644); os.fchmod(fd, 0o640); os.write(fd, b'x')");
    two.ok("os.chmod('f', 0o640); os.chown('f', os.getuid(), os.getgid()); os.chown('f', -1, -1)");
    two.ok("os.chown('f', os.getuid(), -1); get('f')");
    mounted.sh("w2", "chmod u+r f && chmod --reference=f f").ok();
    one.ok("os.write(fd, b'y')");
    assert_eq!(two.ok("get('f')"), "xy");
    drop((one, two, mounted));

    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = super::two(&mounted);
    one.ok("get('f'); fd = os.open('f', os.O_RDWR); os.write(fd, b'x')");
    two.busy("os.chmod('f', 0o600)");
    two.busy("os.utime('f')");
    // chown(2) clears the set-user-ID and set-group-ID bits even when the owner stays.
    one.ok("os.fchmod(fd, 0o6755)");
    two.busy("os.chown('f', os.getuid(), os.getgid())");
    assert_eq!(one.ok("os.stat('f').st_mode & 0o7777"), 0o6755);
}

#[test]
fn c53_what_changes_nothing_is_free_in_owned_files_too() {
    let project = project!();
    project.task("t", "---\nowns: [own]\n---\n# T\n");
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = two(&mounted);
    one.ok("put('tasks/claim/t', '', os.O_CREAT); new('own', '')");
    two.ok("opened_for('own', os.O_WRONLY | os.O_TRUNC); os.chmod('own', 0o644)");
    two.busy("put('own', 'X')");
    two.busy("os.chmod('own', 0o600)");
}
