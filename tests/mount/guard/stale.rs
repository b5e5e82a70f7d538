//! A worker must read another worker's change before it may destroy it (C54), and needs to read no more than that.

use super::{Agent, two};
use crate::harness::{Mounted, as_root, project};
use crate::process::{some_of, until};

/// Ways to read a file that count as a read.
const READS: [&str; 8] = [
    "get('f')",
    "(lambda fd: [os.read(fd, 1), os.close(fd)][0].decode())(os.open('f', 0))",
    "(lambda fd: [os.pread(fd, 1, 2), os.close(fd)][0].decode())(os.open('f', 0))",
    "read_mapped('f')",
    "read_sent('f')",
    "forked(lambda: get('f'))",
    "os.system('cat f > /dev/null')",
    "get('link')",
];

fn prepared(mounted: &Mounted) -> (Agent, Agent) {
    let (mut one, two) = two(mounted);
    one.ok("new('f', '0123456789'); os.link('f', 'link'); new('other', 'other'); os.setxattr('f', 'user.kept', b'')");
    (one, two)
}

/// Creates `f` again, as a change by this worker.
const ANEW: &str = "[get(f) for f in ('f', 'f.away', 'f.link', 'other') if os.path.exists(f)]; [os.path.exists(f) and os.unlink(f) for f in ('f', 'f.away', 'f.link')]
new('f', '0123456789'); new('other', 'other'); os.setxattr('f', 'user.kept', b'')";

#[test]
fn c54_what_was_not_read_is_not_overwritten_by_any_route() {
    let project = project!();
    let mounted = project.mount(&[]);
    let (mut one, mut two) = prepared(&mounted);
    // This holds for the second worker and for a third one that is new to the daemon.
    for worker in ["w2", "w3"] {
        let mut who = Agent::new(&mounted, worker);
        one.ok("os.path.exists('link') and os.unlink('link')\nput('f', 'new')");
        let came = who.others_than("EBUSY", "OVERWRITING", "f");
        assert_eq!(came, [], "{worker}");
        assert_eq!(one.ok("get('f')"), "new3456789");
        assert!(who.why().contains("f was changed by w1 at "), "{}", who.why());
    }
    two.ok("get('f'); put('f', 'two')");
    one.busy("put('f', 'one')");
    assert!(one.why().contains("f was changed by w2 at "), "{}", one.why());
    assert!(one.why().contains("; read it again before you change it"), "{}", one.why());
}

#[test]
fn c54_what_destroys_nothing_needs_no_reading() {
    let project = project!();
    let mounted = project.mount(&[]);
    let (mut one, mut two) = two(&mounted);
    for route in one.routes("MARKING") {
        one.ok(ANEW);
        two.ok(&format!("MARKING[{route:?}]('f')"));
    }
    // A worker may remove one of several names without reading, if another name is left.
    one.ok(ANEW);
    one.ok("os.link('f', 'f.link')");
    two.ok("os.unlink('f.link')");
    two.busy("os.unlink('f')");
}

#[test]
fn c54_one_read_is_enough_whatever_the_route() {
    let project = project!();
    let mounted = project.mount(&[]);
    let (mut one, mut two) = prepared(&mounted);
    for read in READS {
        for route in one.routes("OVERWRITING") {
            // A refused change may be visible for a moment: a worker that looked in that moment must read again.
            one.ok("[get(name) for name in ('f', 'link') if os.path.exists(name)]");
            one.ok("os.path.exists('link') and os.unlink('link')");
            one.ok(ANEW);
            one.ok("os.link('f', 'link')");
            two.busy("put('f', 'X')");
            two.ok("get('other')");
            two.ok(read);
            if let Err(errno) = two.tell(&format!("OVERWRITING[{route:?}]('f')")) {
                panic!("{route} after {read}: {errno}: {}", two.why());
            }
        }
    }
}

/// Ordinary work with the content in both caches: one worker edits, the other reads and edits, and so on. No change by any route is
/// refused after any way of reading.
#[test]
fn c54_who_reads_before_each_edit_is_never_refused() {
    let project = project!();
    let mounted = project.mount(&[]);
    let (mut one, mut two) = prepared(&mounted);
    let mut refused = std::collections::BTreeMap::<String, u32>::new();
    let edits = [
        "put('f', 'X')",
        "put('f', 'X', os.O_TRUNC)",
        "new('f', 'longer than before')",
        "put('f', 'X', os.O_APPEND)",
        "replace('f', 'replaced')",
        "again('f', 'made again')",
        "mapped('f', 'm')",
        "ftruncate('f', 5)",
        "copied_over('f', 'other')",
    ];
    let reads =
        ["get('f')", "read_mapped('f')", "forked(lambda: get('f'))", "[os.stat('f').st_size, get('f')]"];
    two.ok("get('other')");
    for round in 0..some_of(1000).count() {
        let (writer, reader) = if round % 2 == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
        let (edit, read) = (edits[round / 2 % edits.len()], reads[round / 2 / edits.len() % reads.len()]);
        writer.ok("[get('f'), get('f'), os.stat('f').st_size]");
        if writer.tell(edit).is_err() {
            *refused.entry(format!("{edit}: {}", writer.why())).or_default() += 1;
        }
        // The worker that changed the file has the new content in its cache too.
        writer.ok("[get('f'), os.stat('f').st_size, get('f')]");
        reader.ok(read);
        reader.ok(read);
        if reader.tell("put('f', 'Y')").is_err() {
            *refused.entry(format!("after {edit} and {read}: {}", reader.why())).or_default() += 1;
            reader.ok("get('f')");
        }
    }
    assert!(refused.is_empty(), "refused: {refused:#?}");
}

#[test]
fn c54_a_blind_change_is_no_reading() {
    let project = project!();
    let mounted = project.mount(&[]);
    let (mut one, mut two) = prepared(&mounted);
    one.ok("os.unlink('link')");
    for blind in [
        "put('f', 'appended', os.O_APPEND)",
        "os.chmod('f', 0o640)",
        "os.rename('f', 'g'); os.rename('g', 'f')",
        "os.link('f', 'g'); os.unlink('g')",
        "os.utime('f')",
        "os.setxattr('f', 'user.x', b'')",
    ] {
        one.ok("get('f'); new('f', 'written by one')");
        two.ok(blind);
        two.busy("put('f', 'X')");
        two.busy("os.truncate('f', 0)");
        assert!(two.why().contains(" was changed by w1 at"), "{}", two.why());
        two.ok("get('f'); put('f', 'X')");
    }
    // Workers that append in turn know only their own text.
    one.ok("put('f', 'one', os.O_APPEND)");
    two.ok("put('f', 'two', os.O_APPEND)");
    one.ok("put('f', 'one', os.O_APPEND)");
    two.busy("new('f', '')");
    one.busy("new('f', '')");
    one.ok("get('f'); put('f', 'X', os.O_TRUNC)");
}

#[test]
fn c54_an_exchange_changes_what_is_at_both_names() {
    let project = project!();
    let mounted = project.mount(&[]);
    let (mut one, mut two) = prepared(&mounted);
    one.ok("new('a', 'a'); new('b', 'b')");
    two.ok("get('a'); put('a', 'A'); get('b'); put('b', 'B')");
    one.ok("get('a'); get('b'); rename('a', 'b', 2)");
    two.busy("new('a', 'lost')");
    two.busy("new('b', 'lost')");
    assert_eq!(two.ok("get('a') + get('b')"), "BA");
    two.ok("new('a', 'x'); new('b', 'x')");
}

#[test]
fn c54_an_empty_file_holds_nothing_to_be_read() {
    let project = project!();
    let mounted = project.mount(&[]);
    let (mut one, mut two) = prepared(&mounted);
    two.ok("get('f')");
    for route in ["put('e', 'X')", "new('e', 'X')", "replace('e', 'X')", "os.unlink('e')"] {
        one.ok("get('e') if os.path.exists('e') else 0; new('e', '')");
        two.ok("os.stat('e').st_size");
        two.ok(route);
    }
    // The worker saw the file empty. It is no longer empty, so the worker must read it.
    one.ok("new('e', '')");
    two.ok("os.stat('e').st_size");
    one.ok("put('e', 'X')");
    two.busy("new('e', 'Y')");
}

#[test]
fn c54_ends_with_its_window_and_may_be_turned_off() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0,stale_window=1s"]);
    let (mut one, mut two) = prepared(&mounted);
    one.ok("put('f', 'X')");
    two.busy("put('f', 'Y')");
    until("the window is over", || two.tell("put('f', 'Y')").is_ok());
    drop((one, two, mounted));
    let mounted = project.mount(&["stale_writes=allow"]);
    let (mut one, mut two) = super::two(&mounted);
    for route in one.routes("OVERWRITING") {
        one.ok(ANEW);
        two.ok(&format!("OVERWRITING[{route:?}]('f')"));
    }
}

#[test]
fn c54_operators_know_what_they_do() {
    as_root!();
    let project = project!();
    let mounted = project.mount(&[]);
    let (mut one, mut two) = prepared(&mounted);
    one.ok("new('g', 'g')");
    mounted.operator("echo 'by hand' > f && rm g").ok();
    two.busy("put('f', 'X')");
    one.busy("put('f', 'X')");
    // A file that a worker holds is held for operators too.
    one.ok("get('f'); fd = os.open('f', os.O_WRONLY); os.write(fd, b'X')");
    mounted.operator("echo 'by hand' > f").refused("Device or resource busy");
}

#[test]
fn c54_every_worker_reads_for_itself() {
    let project = project!();
    let mounted = project.mount(&[]);
    let mut all: Vec<Agent> = (0..5).map(|n| Agent::new(&mounted, &format!("w{n}"))).collect();
    all[0].ok("new('f', '0')");
    for round in 0..50 {
        let (changer, next) = (round % 5, (round + 2) % 5);
        all[changer].ok("get('f')");
        all[changer].ok(&format!("put('f', '{round}')"));
        for other in (0..5).filter(|other| *other != changer) {
            all[other].busy("put('f', 'blind')");
        }
        all[next].ok("get('f')");
        for other in (0..5).filter(|other| *other != changer && *other != next) {
            all[other].busy("put('f', 'blind')");
        }
        // A refused change may be visible for a moment: a worker that read in that moment must read again.
        all[next].ok("get('f')");
        all[next].ok("put('f', 'seen')");
        all[changer].busy("put('f', 'blind')");
    }
}

#[test]
fn c54_one_who_comes_later_is_refused_once_at_most() {
    let project = project!();
    let mounted = project.mount(&[]);
    let mut one = Agent::new(&mounted, "w1");
    one.ok("new('f', '0')");
    for n in 0..30 {
        one.ok("get('f'); put('f', '1'); [get('f'), os.stat('f').st_size, get('f')]");
        let once = "read -r -N 99 text < f; echo X > f";
        let ran = mounted.sh(&format!("late{n}"), &format!("{once} || {{ {once}; }}"));
        let why = mounted.read(&format!("workers/late{n}/why"));
        assert!(ran.stderr.lines().count() <= 1, "{}{why}", ran.stderr);
        ran.ok();
        one.busy("put('f', '1')");
    }
}

#[test]
fn c54_what_nobody_would_ever_read_is_not_written() {
    let project = project!();
    let mounted = project.mount(&[]);
    let (mut one, mut two) = prepared(&mounted);
    one.ok("os.unlink('link')");
    for taken_away in [
        "replace('f', 'new')",
        "os.unlink('f'); new('f', 'new')",
        "os.rename('other', 'f'); new('other', '')",
    ] {
        two.ok("get('f'); fds = [os.open('f', flags) for flags in (os.O_RDWR, os.O_WRONLY | os.O_APPEND)]");
        one.ok("get('f'); get('other')");
        one.ok(taken_away);
        two.busy("os.write(fds[0], b'lost')");
        two.busy("os.write(fds[1], b'lost')");
        two.busy("os.ftruncate(fds[0], 0)");
        assert!(two.why().contains("f was removed or replaced by w1 at "), "{}", two.why());
        two.ok("[os.close(fd) for fd in fds]");
    }
    // A worker may write to its own unlinked files, to moved files, and to files that have another name left.
    one.ok("get('f'); fd = os.open('f', os.O_RDWR); os.unlink('f'); os.write(fd, b'x'); os.close(fd)");
    one.ok("new('f', 'x'); os.link('f', 'f.link')");
    two.ok("get('f'); fd = os.open('f', os.O_RDWR)");
    one.ok("os.rename('f', 'moved'); os.unlink('moved')");
    two.ok("get('f.link'); os.write(fd, b'y'); os.close(fd)");
    assert_eq!(one.ok("get('f.link')"), "y");
}

#[test]
fn c50_a_worker_reads_what_it_has_written_however_many_others_read() {
    let project = project!();
    let mounted = project.mount(&[]);
    let mut all: Vec<Agent> = (0..8).map(|n| Agent::new(&mounted, &format!("w{n}"))).collect();
    let (writer, readers) = all.split_first_mut().unwrap();
    writer.ok("new('f', '0' * 6)");
    let read = "while get('f') != 'ended!': pass";
    readers.iter_mut().for_each(|reader| reader.begin(read));
    // In place through one descriptor that stays open, and through a new descriptor, in turn.
    let times = some_of(6000).count();
    let write = format!(
        "fd = os.open('f', os.O_RDWR); wrong = []
for n in range({times}):
    text = str(n).zfill(6) + 'x' * (n % 7 * 30)
    os.pwrite(fd, text.encode(), 0) if n % 2 else put('f', text)
    os.ftruncate(fd, len(text))
    seen = get('f')
    if seen != text: wrong.append([text, seen])"
    );
    writer.ok(&write);
    assert_eq!(writer.ok("wrong").as_array().unwrap().len(), 0, "{}", writer.ok("wrong"));
    writer.ok("put('f', 'ended!', os.O_TRUNC)");
    readers.iter_mut().for_each(|reader| drop(reader.end().unwrap()));
}
