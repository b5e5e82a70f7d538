//! A lock ends with the last descriptor through which its holder could write, however that descriptor is closed (C50).

use super::{Agent, two};
use crate::harness::{Mounted, as_root, project};
use crate::process::until;

const HOLD: &str = "fd = os.open('f', os.O_RDWR | os.O_CREAT); os.write(fd, b'x')";

/// Two workers: the first holds `f`, and the second has read it.
fn held(mounted: &Mounted) -> (Agent, Agent) {
    let (mut one, mut two) = two(mounted);
    one.ok(HOLD);
    two.ok("get('f')");
    two.busy("put('f', 'y')");
    (one, two)
}

#[track_caller]
fn free(two: &mut Agent) {
    until("nobody holds it", || {
        two.ok("get('f')");
        two.tell("put('f', 'y')").is_ok()
    });
}

#[test]
fn c50_a_lock_ends_when_the_holder_closes_exits_or_is_killed() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = held(&mounted);
    one.ok("os.close(fd)");
    two.ok("put('f', 'y')");
    one.ok("get('f')");
    one.ok(HOLD);
    two.ok("get('f')");
    two.busy("put('f', 'y')");
    drop(one);
    two.ok("put('f', 'y')");
    for hold in
        [HOLD, "fd = os.open('f', os.O_WRONLY | os.O_TRUNC)", "fd = os.open('g', os.O_WRONLY | os.O_CREAT)"]
    {
        let mut one = Agent::new(&mounted, "w1");
        one.ok("get('f'); os.path.exists('g') and os.unlink('g')");
        one.ok(hold);
        let file = if hold.contains("'g'") { "g" } else { "f" };
        two.busy(&format!("os.utime({file:?})"));
        one.kill9();
        // An open that may not have returned yet counts as open for a moment.
        until("nobody holds it", || two.tell(&format!("os.utime({file:?})")).is_ok());
        two.ok("get('f')");
        two.ok("put('f', 'y')");
    }
}

#[test]
fn c50_a_duplicate_and_a_child_keep_it() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = held(&mounted);
    one.ok("copy = os.dup(fd); os.close(fd)");
    two.busy("put('f', 'y')");
    one.ok("os.close(copy)");
    two.ok("put('f', 'y')");

    // A child that never wrote keeps the file open; its parent closes the file, and then the child ends.
    one.ok("get('f')");
    one.ok(HOLD);
    one.ok("out, into = os.pipe(); child = os.fork()\nif child == 0:\n    os.close(into); os.read(out, 1); os._exit(0)");
    one.ok("os.close(fd)");
    two.ok("get('f')");
    two.busy("put('f', 'y')");
    two.busy("put('f', 'y')");
    one.ok("os.write(into, b'x'); os.waitpid(child, 0)");
    two.ok("put('f', 'y')");

    // Another program inherits the descriptor.
    one.ok("get('f')");
    one.ok(HOLD);
    one.ok("import subprocess; p = subprocess.Popen(['cat'], stdin=subprocess.PIPE, pass_fds=[fd]); os.close(fd)");
    two.ok("get('f')");
    two.busy("put('f', 'y')");
    one.ok("p.stdin.close(); p.wait()");
    two.ok("put('f', 'y')");

    // execve(2) closes a close-on-exec descriptor, and so ends the lock.
    one.ok("get('f')");
    one.ok(HOLD);
    two.ok("get('f')");
    two.busy("put('f', 'y')");
    one.begin("os.execvp('sleep', ['sleep', '1000'])");
    free(&mut two);
}

/// A child that stays until the test ends it. Its own child has `fd`: it writes through `fd` on request and reports the
/// outcome. When this code returns, only the grandchild has `fd` open.
const GENERATIONS: &str = "
end, told_end = os.pipe(); out, into = os.pipe(); back, said = os.pipe()
child = os.fork()
if child == 0:
    os.close(told_end)
    if os.fork() == 0:
        os.close(into)
        os.write(said, b'+')
        while os.read(out, 1):
            try:
                os.write(fd, b'late')
                os.write(said, b'w')
            except OSError as error:
                os.write(said, b'B' if error.errno == errno.EBUSY else b'?')
        os._exit(0)
    os.close(fd); os.close(into)
    os.write(said, b'-')
    os.read(end, 1)
    os._exit(0)
os.close(fd); os.read(back, 1); os.read(back, 1)";
const CHILD_ENDS: &str = "os.close(told_end); os.waitpid(child, 0)";
const LATE_WRITE: &str = "[os.write(into, b'x'), os.read(back, 1).decode()][1]";

#[test]
fn c50_a_descriptor_is_found_with_what_descends_from_a_worker_s_processes() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0,stale_writes=allow"]);
    let (mut one, mut two) = two(&mounted);
    // The parent only opens the file. Its child writes through the descriptor and ends.
    one.ok("new('f', 'x'); fd = os.open('f', os.O_RDWR); forked(lambda: os.write(fd, b'y'))");
    two.ok("get('f')");
    two.busy("put('f', 'z')");
    one.ok("os.close(fd)");
    two.ok("put('f', 'z')");

    // A descendant of the holder has the file open and never wrote itself. Once found, the guard keeps watching it.
    one.ok("get('f')");
    one.ok(HOLD);
    one.ok(GENERATIONS);
    two.ok("get('f')");
    two.busy("put('f', 'z')");
    one.ok(CHILD_ENDS);
    two.ok("get('f')");
    two.busy("put('f', 'z')");
    let late = one.ok(LATE_WRITE);
    assert_eq!(late, "w", "{}", one.why());
    one.ok("os.close(into)");
    free(&mut two);

    // The descendant's parent ends before the guard looks for it: it holds nothing, and its writes are checked like any other's.
    one.ok("get('f')");
    one.ok(HOLD);
    one.ok(GENERATIONS);
    one.ok(CHILD_ENDS);
    two.ok("get('f')");
    two.ok("fd = os.open('f', os.O_WRONLY); os.write(fd, b'mine')");
    assert_eq!(one.ok(LATE_WRITE), "B");
    assert!(two.ok("get('f')").as_str().unwrap().starts_with("mine"));
    one.ok("os.close(into)");
    two.ok("os.close(fd)");
}

#[test]
fn c50_threads_hold_for_their_process_also_when_the_first_has_ended() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = two(&mounted);
    let thread = "def work():
    global fd
    fd = os.open('f', os.O_RDWR | os.O_CREAT)
    os.write(fd, b'x')
    ready.set()
    threading.Event().wait()
ready = threading.Event(); threading.Thread(target=work, daemon=True).start(); ready.wait()";
    one.ok(thread);
    two.ok("get('f')");
    two.busy("put('f', 'y')");
    // exit(2), which ends one thread, not exit_group(2).
    one.begin("libc.syscall(60, 0)");
    let stat = format!("/proc/{}/stat", one.pid());
    until("the first thread has ended", || std::fs::read_to_string(&stat).unwrap().contains(") Z "));
    two.busy("put('f', 'y')");
    assert!(
        two.ok("os.getxattr('f', 'user.crewfs.lock').decode()").as_str().unwrap().starts_with("w1 since ")
    );
    one.kill9();
    two.ok("put('f', 'y')");
}

#[test]
fn c50_a_holder_in_a_sandbox_is_seen() {
    as_root!();
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = two(&mounted);
    let place = project.dir().join("bound");
    std::fs::create_dir(&place).unwrap();
    one.ok(&format!("tree, bound = os.getcwd().encode(), {:?}.encode()", place.display().to_string()));
    one.ok("checked(libc.unshare(0x20000)); checked(libc.mount(None, b'/', None, 0x44000, None))");
    for _ in 0..3 {
        // The kernel gives the ID of this foreign mount to the next mount, which shows our tree.
        one.ok("checked(libc.mount(b'none', bound, b'tmpfs', 0, None)); os.chdir(bound)");
        one.ok("new('f', ''); fd = os.open('f', os.O_WRONLY); os.chdir(tree)");
        two.ok("new('g', 'x')");
        one.ok("get('g'); put('g', 'x')");
        two.ok("get('g')");
        two.ok("put('g', 'y')");
        one.ok("os.close(fd); checked(libc.umount2(bound, 0))");
        one.ok("checked(libc.mount(tree, bound, None, 0x1000, None)); os.chdir(bound)");
        one.ok("os.path.exists('f') and get('f')");
        one.ok(HOLD);
        two.ok("get('f')");
        two.busy("put('f', 'y')");
        one.ok("os.close(fd); os.chdir(tree); checked(libc.umount2(bound, 0)); os.unlink('g') if get('g') else 0");
        two.ok("get('f'); put('f', 'y')");
    }
}
