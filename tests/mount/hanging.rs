//! Processes that the daemon cannot look at, while other users work (C44, C50), and a daemon that cannot end (C71).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crewfs::limits::UNSEEN_LOCK_MS;
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use crate::guard::two;
use crate::harness::{Mounted, Project, as_root, project};
use crate::process::{crewfs, run_within, slow, until};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mount/hanging.py");
/// Far less than the time for which the processes hang, and more than a busy machine needs.
const LIMIT: Duration = Duration::from_secs(30);

/// A filesystem whose file never answers a read or a close, and the processes that wait for it.
struct Hanging {
    server: Child,
    input: Option<ChildStdin>,
    says: BufReader<ChildStdout>,
    place: std::path::PathBuf,
    waiting: Vec<Child>,
}

impl Hanging {
    fn new(project: &Project) -> Hanging {
        let place = project.dir().join("hanging");
        std::fs::create_dir(&place).unwrap();
        let mut command = Command::new("python3");
        command.arg(PROGRAM).arg("serve").arg(&place).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = command.spawn().unwrap();
        let (input, says) = (server.stdin.take(), BufReader::new(server.stdout.take().unwrap()));
        until("the filesystem is mounted", || place.join("file").exists());
        Hanging { server, input, says, place, waiting: Vec::new() }
    }

    /// Wait until the kernel has requested the content: from then on the reader hangs.
    fn is_being_read(&mut self) {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        assert_eq!(line, "reading\n");
    }

    /// Start a process of this kind that runs the script.
    fn start(&mut self, kind: &str, mounted: &Mounted, uid: u32, script: &str) {
        let mut command = Command::new("python3");
        command.arg(PROGRAM).arg(kind).arg(self.place.join("file")).arg(uid.to_string()).arg(script);
        command.current_dir(mounted.path()).env_remove("CREWFS_WORKER");
        self.waiting.push(command.stdin(Stdio::null()).spawn().unwrap());
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        // When its server is gone, the kernel answers the calls that wait for it.
        drop(self.input.take());
        let _ = self.server.wait();
        let _ = unmount(&self.place, UnmountFlags::DETACH);
        for child in &mut self.waiting {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Makes every kind of request, and writes down the outcome of a claim, until the test ends.
fn asks(said: &Path) -> String {
    format!(
        "
while os.path.exists({said:?}):
    if os.fork():
        os.wait()
        continue
    came = 'claimed'
    try:
        os.stat('file')
        os.listdir('tasks/workers')
        os.close(os.open('tasks/claim/theirs', os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        came = error.strerror
    with open({said:?}, 'a') as out:
        out.write(came + chr(10))
    os._exit(0)"
    )
}

/// The longest time that a stat and a claim took, in milliseconds, among many.
fn others(mounted: &Mounted, round: usize) -> f64 {
    let script = format!(
        r#"python3 -c "
import os, time
longest = 0
for n in range(100):
    begun = time.monotonic()
    os.stat('file')
    os.close(os.open('tasks/claim/mine{round}', os.O_CREAT | os.O_WRONLY))
    longest = max(longest, time.monotonic() - begun)
print(longest * 1000)""#
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1002", "--regid=1002", "--clear-groups", "bash", "-c", &script]);
    command.env("CREWFS_WORKER", "other").current_dir(mounted.path());
    run_within(LIMIT, command).ok().trim().parse().unwrap()
}

#[test]
fn c44_processes_that_cannot_be_looked_at_delay_no_other_user() {
    as_root!();
    let project = project!(Duration::from_secs(120));
    project.is_for_everybody();
    std::fs::write(project.source().join("file"), "content").unwrap();
    for id in ["mine0", "mine1", "mine2", "mine3", "theirs", "after"] {
        project.task(id, "# T\n");
    }
    let mounted = project.mount(&["threads=2"]);
    let quiet = others(&mounted, 0);
    let said = project.dir().join("said");
    std::fs::write(&said, "").unwrap();
    std::fs::set_permissions(&said, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let mut hanging = Hanging::new(&project);
    let mut measured = Vec::new();
    for (round, kind) in [(1, "huge"), (2, "exec"), (3, "lock")] {
        let before = std::fs::read_to_string(&said).unwrap().lines().count();
        (0..3).for_each(|_| hanging.start(kind, &mounted, 1001, &asks(&said)));
        until("they have asked", || std::fs::read_to_string(&said).unwrap().lines().count() > before + 3);
        measured.push((kind, others(&mounted, round)));
        let came = std::fs::read_to_string(&said).unwrap();
        assert_eq!(BTreeSet::from_iter(came.lines()), ["Resource temporarily unavailable"].into(), "{kind}");
    }
    eprintln!("the longest of 100 stats and claims: {quiet:.1} ms alone, beside {measured:?}");
    assert!(
        measured.iter().all(|(_, longest)| *longest < slow(Duration::from_secs(1)).as_millis() as f64),
        "{measured:?}"
    );
    assert_eq!(mounted.state("theirs"), "ready", "nothing was claimed by one of whom nothing is known");
    let why = mounted.read("workers/uid-1001/why");
    assert!(why.contains("who asks could not be found out in time") || why.contains("is too large"), "{why}");
    assert!(
        memory(mounted.pid()) < 512 << 10,
        "no environment was read whole: {} KiB",
        memory(mounted.pid())
    );
    // The hanging processes go on, perhaps to claim `theirs`, and the same user can work. A slow machine may need several attempts: after a
    // late look at one of a user's processes, the daemon spends little time on that user's others.
    drop(hanging);
    until("the same user works on", || {
        mounted.sh_as(1001, "theirs", "touch tasks/claim/after").code == Some(0)
    });
}

#[test]
fn c50_a_holder_that_cannot_be_looked_at_in_time_is_done_when_a_later_look_says_so() {
    as_root!();
    let project = project!();
    std::fs::write(project.source().join("f"), "").unwrap();
    let mounted = project.mount(&["lock_wait=5s"]);
    let (mut one, mut two) = two(&mounted);
    // While one look at a user's processes hangs, the user's other looks get little time: less than so many descriptors take.
    one.ok("null = os.open('/dev/null', os.O_RDWR); import resource");
    one.ok("hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]");
    one.ok("resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))");
    one.ok("[os.dup(null) for _ in range(min(hard - 64, 19000))]; None");
    let said = project.dir().join("said");
    let asks = format!(
        "
try:
    os.stat('file')
except OSError:
    pass
open({said:?}, 'w').close()
while os.path.exists({said:?}): time.sleep(0.1)"
    );
    let mut hanging = Hanging::new(&project);
    hanging.start("lock", &mounted, 0, &asks);
    until("it has asked", || said.exists());
    for _ in 0..3 {
        one.ok("get('f'); os.truncate('f', 2)");
        two.ok("get('f'); os.truncate('f', 1)");
    }
    // While a look is under way, the guard knows nothing, however old the last change is.
    one.ok("get('f'); fd = os.open('f', os.O_RDWR); os.ftruncate(fd, 3)");
    std::thread::sleep(Duration::from_millis(UNSEEN_LOCK_MS));
    two.busy("get('f'); os.truncate('f', 4)");
    std::fs::remove_file(&said).unwrap();
}

#[test]
fn c44_a_daemon_ends_and_frees_the_project_while_it_looks_at_what_hangs() {
    as_root!();
    let project = project!();
    project.task("theirs", "# T\n");
    let mounted = project.mount(&[]);
    let said = project.dir().join("said");
    std::fs::write(&said, "").unwrap();
    std::fs::set_permissions(&said, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let mut hanging = Hanging::new(&project);
    hanging.start("lock", &mounted, 1001, &asks(&said));
    until("it has asked", || !std::fs::read_to_string(&said).unwrap().is_empty());
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(mounted.pid() as i32).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    // The kernel answers from its caches even for a dead mount, but it does not cache statfs(2).
    until("the mount is dead", || rustix::fs::statfs(mounted.path()).is_err());
    until("the project is free", || {
        let lock = std::fs::File::open(project.source()).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
    });
    drop(hanging);
}

#[test]
fn c71_a_daemon_that_is_just_ending_is_waited_for() {
    as_root!();
    let project = project!();
    let mut hanging = Hanging::new(&project);
    let inside = project.source().join("inside");
    std::fs::create_dir(&inside).unwrap();
    mount_bind(&hanging.place, &inside).unwrap();
    let mounted = project.mount(&[]);
    let mut reader = mounted.worker("w1");
    reader.arg("cat inside/file").stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = reader.spawn().unwrap();
    hanging.is_being_read();
    let daemon = rustix::process::Pid::from_raw(mounted.pid() as i32).unwrap();
    rustix::process::kill_process(daemon, rustix::process::Signal::KILL).unwrap();
    let mut again = crewfs();
    again.arg("mount").arg(project.source()).arg(project.mountpoint());
    let mut again = again.stderr(Stdio::piped()).spawn().unwrap();
    // The killed daemon keeps the project and the mount until its thread returns from the kernel.
    std::thread::sleep(Duration::from_millis(500));
    assert!(again.try_wait().unwrap().is_none(), "it waits");
    drop(hanging);
    until("the new daemon serves", || again.try_wait().unwrap().is_some());
    let said = again.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert!(mounted.read("queue.json").starts_with('{'));
    let _ = reader.wait();
    project.crewfs(["umount".as_ref(), project.mountpoint().as_os_str()]).ok();
    unmount(&inside, UnmountFlags::DETACH).unwrap();
}

/// The peak memory of a process, in KiB.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
