//! A change that meets a lock waits, and delays no other worker (C51).

use std::time::{Duration, Instant};

use super::{Agent, two};
use crate::harness::{Mounted, project};
use crate::process::{slow, until};

/// The daemon counts in whole milliseconds.
const CLOCK: Duration = Duration::from_millis(2);
const CHANGE: &str = "os.utime('f')";
const ROUNDS_OF_EXEC: usize = 2;

fn held(mounted: &Mounted) -> (Agent, Agent) {
    let (mut one, two) = two(mounted);
    one.ok("fd = os.open('f', os.O_RDWR | os.O_CREAT); os.write(fd, b'x')");
    (one, two)
}

/// How long the step waits until it is refused.
#[track_caller]
fn refused_after(who: &mut Agent, what: &str) -> Duration {
    let start = Instant::now();
    who.busy(what);
    start.elapsed()
}

#[test]
fn c51_a_change_waits_for_the_holder_to_close() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=20s,stale_writes=allow"]);
    let (mut one, mut two) = held(&mounted);
    for change in
        [CHANGE, "put('f', 'y', os.O_TRUNC)", "os.truncate('f', 0)", "os.setxattr('f', 'user.x', b'')"]
    {
        two.begin(change);
        assert!(!two.ends_within(Duration::from_millis(100)), "{change} does not wait");
        one.ok("os.close(fd)");
        assert_eq!(two.end(), Ok(serde_json::Value::Null), "{change}");
        one.ok("fd = os.open('f', os.O_RDWR | os.O_CREAT); os.write(fd, b'x')");
    }
    // A killed holder has closed the file.
    two.begin(CHANGE);
    assert!(!two.ends_within(Duration::from_millis(50)));
    one.kill9();
    assert_eq!(two.end(), Ok(serde_json::Value::Null));
}

#[test]
fn c51_it_is_refused_when_its_time_is_over() {
    for (wait, file, name) in [(0, 0, 0), (300, 300, 100), (1_000, 1_000, 100)] {
        let project = project!();
        let mounted = project.mount(&[&format!("stale_writes=allow,lock_wait={wait}ms")]);
        let (_one, mut two) = held(&mounted);
        for change in
            [CHANGE, "os.truncate('f', 0)", "put('f', 'y', os.O_TRUNC)", "os.setxattr('f', 'user.x', b'')"]
        {
            let took = refused_after(&mut two, change);
            let (least, most) = (Duration::from_millis(file), Duration::from_millis(file + 600));
            assert!(least <= took + CLOCK && took < slow(most), "{change} with {wait} ms: {took:?}");
        }
        for change in ["os.unlink('f')", "os.link('f', 'g')", "os.rename('f', 'g')", "replace('f', 'y')"] {
            let took = refused_after(&mut two, change);
            let (least, most) = (Duration::from_millis(name), Duration::from_millis(name + 600));
            assert!(least <= took + CLOCK && took < slow(most), "{change} with {wait} ms: {took:?}");
        }
        assert!(two.why().contains("f is held by w1 since "), "{}", two.why());
    }
}

#[test]
fn c51_what_is_stale_anyway_does_not_wait() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=20s"]);
    let (_one, mut two) = held(&mounted);
    two.ok("os.listdir('.')");
    let took = refused_after(&mut two, "put('f', 'y')");
    assert!(took < slow(Duration::from_secs(5)), "{took:?}");
    let why = two.why();
    assert!(why.contains("f is held by w1 since ") && why.contains(", and changed by w1 at "), "{why}");
    assert!(why.contains("; wait until it is done, then read it again"), "{why}");
}

#[test]
fn c51_what_is_written_through_a_descriptor_is_refused_before_anybody_reads_it() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=20s,threads=2"]);
    let (_one, mut two) = held(&mounted);
    let mut three = Agent::new(&mounted, "w3");
    for write in ["put('f', 'y')", "put('f', 'y', os.O_APPEND)", "put('f', 'y', at=0)"] {
        // This holds when the page is not cached too: no reader has to wait for the write.
        three.ok("os.stat('f').st_size");
        two.ok("get('f')");
        three.ok("os.stat('f').st_size");
        let took = refused_after(&mut two, write);
        assert!(took < slow(Duration::from_secs(5)), "{took:?}");
        assert_eq!(three.ok("get('f')"), "x");
        assert_eq!(two.ok("get('f')"), "x");
    }
}

#[test]
fn c51_many_who_wait_hold_up_nobody_else() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=20s,threads=2"]);
    let (mut one, mut two) = two(&mounted);
    let mut three = Agent::new(&mounted, "w3");
    one.ok("import resource; fds = [os.open(f'f{n}', os.O_RDWR | os.O_CREAT) for n in range(64)]; [os.write(fd, b'x') for fd in fds]");
    two.begin(
        "from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(64) as pool:
    done = list(pool.map(lambda n: os.utime(f'f{n}'), range(64)))",
    );
    assert!(!two.ends_within(Duration::from_millis(300)));
    let start = Instant::now();
    for n in 0..64 {
        three.ok(&format!("new('g{n}', 'x'); get('g{n}'); os.rename('g{n}', 'h{n}'); os.chmod('h{n}', 0o600); os.unlink('h{n}')"));
        three.ok(&format!(
            "get('f{n}'); os.stat('f{n}').st_size; os.listdir('.'); os.getxattr('f{n}', 'user.crewfs.lock')"
        ));
    }
    let took = start.elapsed();
    assert!(took < slow(Duration::from_secs(8)), "{took:?}");
    // On a slow machine the waits may have run out.
    if took < Duration::from_secs(15) {
        assert!(!two.ends_within(Duration::ZERO), "they still wait");
        one.ok("[os.close(fd) for fd in fds]");
        assert_eq!(two.end(), Ok(serde_json::Value::Null));
    }
}

#[test]
fn c51_the_holder_writes_on_however_long_others_would_wait() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=20s"]);
    let (mut one, mut two) = held(&mounted);
    for _ in 0..20 {
        two.begin(CHANGE);
        assert!(!two.ends_within(Duration::from_millis(20)));
        let start = Instant::now();
        one.ok("os.write(fd, b'on')");
        let took = start.elapsed();
        assert!(took < slow(Duration::from_secs(2)), "{took:?}");
        assert_eq!(two.end(), Err("EBUSY".into()), "it was in the way");
    }
}

#[test]
fn c51_who_serves_sftp_never_waits() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=20s,stale_writes=allow"]);
    let (_one, _two) = held(&mounted);
    for program in ["sftp-server", "sshd-session"] {
        let mut remote = Agent::with(&mounted, "w2", |command| {
            command.env("AGENT_IS_CALLED", program);
        });
        for change in [CHANGE, "put('f', 'y')", "os.unlink('f')"] {
            let took = refused_after(&mut remote, change);
            assert!(took < slow(Duration::from_secs(5)), "{took:?}");
        }
    }
}

/// In execve(2) a process closes its files while it holds a lock of its own. If a change of such a file is parked, the close waits for
/// the change's answer. Some kernels, such as Linux 5.10.262, take the same lock to follow `/proc/<pid>/fd/<number>`. The daemon threads
/// that answer the change must therefore not wait for such a look.
#[test]
fn c51_a_holder_that_runs_another_program_hangs_nobody() {
    let project = project!();
    let mounted = project.mount(&["threads=2"]);
    let mut three = Agent::new(&mounted, "w3");
    let changes =
        ["os.utime('f{n}')", "os.truncate('f{n}', 0)", "os.chmod('f{n}', 0o600)", "put('f{n}', 'y', at=0)"];
    for round in 0..ROUNDS_OF_EXEC {
        let mut pairs = Vec::new();
        for (n, change) in changes.iter().enumerate() {
            let n = round * changes.len() + n;
            let (mut one, mut two) = (Agent::new(&mounted, "w1"), Agent::new(&mounted, "w2"));
            one.ok(&format!("fd = os.open('f{n}', os.O_RDWR | os.O_CREAT); os.write(fd, b'x')"));
            // Many descriptors make a look at the process slow.
            one.ok("others = [os.open('/dev/null', os.O_WRONLY) for _ in range(300)]");
            two.ok(&format!("get('f{n}')"));
            two.begin(&change.replace("{n}", &n.to_string()));
            pairs.push((one, two));
        }
        for (one, _) in &mut pairs {
            one.begin("os.execvp('sleep', ['sleep', '1000'])");
        }
        let start = Instant::now();
        for n in 0..changes.len() {
            three.ok(&format!("new('other', 'x'); os.unlink('other'); os.listxattr('f{n}')"));
        }
        for (n, (one, two)) in pairs.iter_mut().enumerate() {
            let n = round * changes.len() + n;
            // The change was refused, or it was made once the guard saw that the holder had closed the file.
            let came = two.end();
            assert!(came.as_ref().err().is_none_or(|errno| errno == "EBUSY"), "{came:?}");
            until("it runs", || {
                std::fs::read_to_string(format!("/proc/{}/comm", one.pid())).unwrap() == "sleep\n"
            });
            until("nobody holds it", || {
                two.ok(&format!("get('f{n}')"));
                two.tell(&format!("put('f{n}', 'z')")).is_ok()
            });
        }
        let took = start.elapsed();
        assert!(took < slow(Duration::from_secs(8)), "{took:?}");
    }
}
