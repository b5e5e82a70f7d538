//! How agent programs write. Two of them write one file at the same time: one is refused on every fallback that it tries, and no byte
//! of the other is lost (C50, C54).

use super::{Agent, two};
use crate::harness::{Mounted, project};
use crate::process::{some_of, until};

/// Each program as a sequence of steps, between which another program may run. `text` is the content to write. A refused step is
/// followed by the program's own fallback, if it has one.
const PROGRAMS: &str = r#"
def claude(path, text):
    directory = os.open(os.path.dirname(path) or '.', os.O_PATH | os.O_DIRECTORY)
    beside = f'/proc/self/fd/{directory}/{os.path.basename(path)}'
    temporary = f'{beside}.tmp.{os.getpid()}.0123456789ab'
    try:
        out = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        yield
        os.write(out, text.encode()); os.fchmod(out, 0o644); os.fsync(out); os.close(out)
        yield
        try:
            os.rename(temporary, beside)
        except OSError as first:
            if first.errno not in (errno.EXDEV, errno.EPERM, errno.EEXIST, errno.EBUSY):
                raise
            for flags in (os.O_RDWR, os.O_WRONLY):
                try:
                    out = os.open(path, flags)
                    try:
                        if flags == os.O_RDWR:
                            # A copy, to put it back if the writing fails.
                            os.pread(out, os.fstat(out).st_size, 0)
                        os.write(out, text.encode()); os.ftruncate(out, len(text)); os.fsync(out)
                        return
                    finally:
                        os.close(out)
                except OSError:
                    pass
            raise first
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.close(directory)

def codex(path, text):
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        yield
        os.write(out, text.encode())
        yield
    finally:
        os.close(out)

def opencode(path, text):
    out = os.open(path, os.O_RDWR)
    try:
        yield
        os.write(out, text.encode())
        yield
        os.ftruncate(out, len(text))
        yield
    finally:
        os.close(out)

def sed(path, text):
    temporary = f'{os.path.dirname(path) or "."}/sed{os.getpid()}'
    try:
        out = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        yield
        os.write(out, text.encode()); os.fchmod(out, 0o644); os.close(out)
        yield
        os.rename(temporary, path)
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)

def again_by_steps(path, text):
    os.unlink(path)
    yield
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        yield
        os.write(out, text.encode())
        yield
    finally:
        os.close(out)

PROGRAMS = {'claude': claude, 'codex': codex, 'gemini': codex, 'opencode': opencode, 'sed': sed, 'again': again_by_steps}

def step():
    try:
        next(run)
        return 'more'
    except StopIteration:
        return 'done'
"#;

const NAMES: [&str; 6] = ["claude", "codex", "gemini", "opencode", "sed", "again"];

fn prepared(mounted: &Mounted) -> (Agent, Agent) {
    let (mut one, mut two) = two(mounted);
    one.ok(PROGRAMS);
    two.ok(PROGRAMS);
    (one, two)
}

/// Run a step: more to do, done, or an errno.
fn step(who: &mut Agent) -> String {
    who.tell("step()").map_or_else(|errno| errno, |said| said.as_str().unwrap().to_string())
}

#[test]
fn c50_of_two_programs_that_write_one_file_one_is_refused() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = prepared(&mounted);
    let (ones, twos) = ("what one has written", "two");
    for first in NAMES {
        for second in NAMES {
            // Every interleaving of the two programs' steps, up to four steps of each.
            for order in some_of(1 << 6) {
                // An open that may not have returned yet counts as open for a moment.
                let anew = "os.path.exists('f') and get('f'); new('f', 'from the beginning')";
                until("nobody holds it", || one.tell(anew).is_ok());
                one.ok(&format!("get('f'); run = PROGRAMS[{first:?}]('f', {ones:?})"));
                two.ok(&format!("get('f'); run = PROGRAMS[{second:?}]('f', {twos:?})"));
                let mut came = ["more".to_string(), "more".to_string()];
                let mut taken = 0;
                while came.iter().any(|came| came == "more") {
                    let mut turn = (order >> taken.min(31) & 1) as usize;
                    if came[turn] != "more" {
                        turn = 1 - turn;
                    }
                    came[turn] = step(if turn == 0 { &mut one } else { &mut two });
                    taken += 1;
                }
                let what = format!("{first} and {second} in order {order:06b}: {came:?}");
                let content = one.tell("get('f')");
                let is = |text: &str| content.as_ref().is_ok_and(|content| content == text);
                match (&*came[0], &*came[1]) {
                    ("done", "done") => panic!("one has overwritten the other unnoticed: {what}"),
                    ("done", refused) => assert!(is(ones) && allowed(refused), "{what}: {content:?}"),
                    (refused, "done") => assert!(is(twos) && allowed(refused), "{what}: {content:?}"),
                    (first, second) => assert!(allowed(first) && allowed(second), "{what}"),
                }
                let left = one.ok("[n for n in os.listdir('.') if n.startswith('sed') or '.tmp.' in n]");
                assert_eq!(left.as_array().unwrap().len(), 0, "{what}: {left}");
            }
        }
    }
}

/// The errors that the loser may get: busy, or the POSIX error for a name that was removed or made anew.
fn allowed(errno: &str) -> bool {
    ["EBUSY", "ENOENT", "EEXIST"].contains(&errno)
}

#[test]
fn c54_the_refused_one_reads_and_then_writes() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = prepared(&mounted);
    one.ok("new('f', 'from the beginning')");
    for program in NAMES {
        let run = |text: &str| format!("run = PROGRAMS[{program:?}]('f', {text:?}); [None for _ in run]");
        one.ok("get('f')");
        one.ok(&run("one"));
        two.busy(&run("two"));
        assert_eq!(two.ok("get('f')"), "one", "{program}");
        two.ok(&run("two"));
        assert_eq!(one.tell(&run("blind")), Err("EBUSY".into()), "{program}");
        assert_eq!(one.ok("get('f')"), "two", "{program}");
    }
}
