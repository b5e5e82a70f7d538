//! While a worker holds a file, no other worker can change it in any way, and every worker can read it (C50).

use super::{Agent, two};
use crate::harness::{Mounted, project};

/// Ways to become the holder of `file`, which exists with some content and an attribute. Each leaves the same content.
const HOLDERS: [(&str, &str); 6] = [
    ("by write", "fd = os.open('file', os.O_RDWR); os.write(fd, b'held by w1')"),
    ("by O_TRUNC", "fd = os.open('file', os.O_WRONLY | os.O_TRUNC); os.write(fd, b'held by w1')"),
    (
        "by append",
        "os.truncate('file', 0); fd = os.open('file', os.O_WRONLY | os.O_APPEND); os.write(fd, b'held by w1')",
    ),
    ("by ftruncate", "fd = os.open('file', os.O_RDWR); os.write(fd, b'held by w1!'); os.ftruncate(fd, 10)"),
    (
        "by a mapping",
        "fd = os.open('file', os.O_RDWR); m = mmap.mmap(fd, 10); m[:] = b'held by w1'; m.flush()",
    ),
    (
        "by making it",
        "os.unlink('file'); fd = os.open('file', os.O_RDWR | os.O_CREAT | os.O_EXCL); os.write(fd, b'held by w1'); \
         os.setxattr('file', 'user.kept', b'')",
    ),
];

const CLOSE: &str = "os.close(fd); m = None";

/// Everything that is visible of a file, except its holder and the time of the lock.
const SEEN: &str =
    "(lambda s: [get('file'), s.st_mode, s.st_nlink, s.st_mtime_ns, os.listxattr('file')])(os.stat('file'))";

fn prepared(mounted: &Mounted) -> (Agent, Agent) {
    let (mut one, two) = two(mounted);
    one.ok("new('file', '0123456789'); new('other', 'other'); os.setxattr('file', 'user.kept', b'')");
    (one, two)
}

#[test]
fn c50_no_route_leads_to_a_file_that_is_held_and_readers_do_not_notice() {
    for rules in ["stale_writes=refuse", "stale_writes=allow"] {
        let project = project!();
        let mounted = project.mount(&["lock_wait=0", rules]);
        let (mut one, mut two) = prepared(&mounted);
        for (how, hold) in HOLDERS {
            one.ok(hold);
            let before = two.ok(SEEN);
            assert_eq!(before[0], "held by w1", "{how}");
            assert_eq!(two.others_than("EBUSY", "OVERWRITING", "file"), [], "{how}");
            // Appending does not conflict while the holder only appends.
            let mut marking = two.others_than("EBUSY", "MARKING", "file");
            if how == "by append" {
                assert_eq!(marking.remove(0), ("append".into(), "ok".into()));
                one.ok("get('file'); os.ftruncate(fd, 10)");
            }
            assert_eq!(marking, [], "{how}");
            if how != "by append" {
                assert_eq!(two.ok(SEEN), before, "{how}");
            }
            assert_eq!(one.ok("get('file')"), "held by w1", "{how}");
            assert_eq!(two.ok("get('other')"), "other", "{how}");
            assert_eq!(two.ok("read_mapped('file')"), "held by w1", "{how}");
            one.ok(CLOSE);
        }
    }
}

#[test]
fn c50_what_was_stored_through_a_mapping_of_a_held_file_is_dropped() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = prepared(&mounted);
    two.ok("fd = os.open('file', os.O_RDWR); m = mmap.mmap(fd, 10)");
    one.ok("fd = os.open('file', os.O_RDWR); os.write(fd, b'held by w1')");
    two.ok("m[0:4] = b'lost'");
    assert_eq!(two.tell("m.flush()"), Err("EBUSY".into()));
    assert_eq!(one.ok("get('file')"), "held by w1");
    assert_eq!(std::fs::read_to_string(project.behind().join("file")).unwrap(), "held by w1");
    assert!(two.why().contains("file is held by w1 since"), "{}", two.why());
    // When the file is free again, the mapping shows its content and can be written.
    one.ok("os.close(fd)");
    two.ok("get('file')");
    two.ok("m[0:4] = b'HELD'; m.flush()");
    assert_eq!(one.ok("get('file')"), "HELD by w1");
}

#[test]
fn c50_the_holder_does_what_it_likes_and_so_do_its_other_processes() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, _two) = prepared(&mounted);
    let mut other = Agent::new(&mounted, "w1");
    for (table, count) in [("OVERWRITING", 16), ("MARKING", 9)] {
        let routes = one.routes(table);
        assert_eq!(routes.len(), count);
        for route in routes {
            for by_another in [false, true] {
                let prepare = "[os.path.exists(f) and os.unlink(f) for f in ('f', 'f.away', 'f.link')]; new('f', '0123456789')
new('other', 'other'); os.setxattr('f', 'user.kept', b''); fd = os.open('f', os.O_RDWR); os.write(fd, b'x')";
                one.ok(prepare);
                let who = if by_another { &mut other } else { &mut one };
                who.ok(&format!("{table}[{route:?}]('f')"));
                one.ok("os.write(fd, b'and on'); os.close(fd)");
            }
        }
    }
}

#[test]
fn c50_only_the_file_is_held_and_not_its_directory_or_its_neighbours() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = prepared(&mounted);
    one.ok("os.mkdir('d'); fd = os.open('d/f', os.O_CREAT | os.O_WRONLY); os.write(fd, b'x')");
    two.ok(
        "new('d/g', 'x'); os.rename('d/g', 'd/h'); os.link('d/h', 'd/i'); os.unlink('d/h'); os.mkdir('d/e')",
    );
    two.ok("os.symlink('f', 'd/s'); os.chmod('d', 0o700); os.utime('d'); os.setxattr('d', 'user.x', b'')");
    two.ok("os.lchown('d/s', 0, 0) if os.getuid() == 0 else None; os.unlink('d/s')");
    two.busy("os.unlink('d/f')");
    // A held file moves with its directory and stays held at the new path.
    two.ok("os.rename('d', 'moved')");
    two.busy("put('moved/f', 'X')");
    one.ok("os.write(fd, b'y'); os.close(fd)");
    assert_eq!(two.ok("get('moved/f')"), "xy");
    two.ok("put('moved/f', 'X')");
}

#[test]
fn c50_a_held_file_is_held_under_all_its_names() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0", "stale_writes=allow"]);
    let (mut one, mut two) = prepared(&mounted);
    one.ok("os.link('file', 'name'); os.symlink('file', 'soft'); fd = os.open('file', os.O_WRONLY); os.write(fd, b'x')");
    assert_eq!(two.others_than("EBUSY", "OVERWRITING", "name"), []);
    assert_eq!(two.others_than("EBUSY", "MARKING", "name"), []);
    two.busy("put('soft', 'X')");
    two.busy("rename('name', 'soft')");
    two.ok("os.unlink('soft')");
    one.ok("os.close(fd)");
    two.ok("os.unlink('name')");
}

#[test]
fn c50_a_removed_file_that_is_still_open_keeps_nobody_from_its_name() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = prepared(&mounted);
    one.ok("fd = os.open('file', os.O_RDWR); os.write(fd, b'x'); os.unlink('file')");
    two.ok("new('file', 'another')");
    one.ok("os.write(fd, b'y'); os.ftruncate(fd, 1); os.fchmod(fd, 0o600)");
    assert_eq!(one.ok("os.pread(fd, 9, 0).decode()"), "x");
    assert_eq!(two.ok("get('file')"), "another");
}

#[test]
fn c50_who_has_changed_nothing_holds_nothing() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = prepared(&mounted);
    one.ok("new('file', 'x')");
    two.ok("get('file'); fds = [os.open('file', flags) for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND)]");
    one.ok("put('file', 'by one'); os.rename('file', 'file2'); os.rename('file2', 'file'); os.chmod('file', 0o640)");
    // A worker holds the file from its first write through one of the descriptors on.
    two.ok("get('file'); os.write(fds[1], b'BY')");
    one.busy("put('file', 'by one')");
}
