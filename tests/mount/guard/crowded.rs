//! The time that the daemon needs to see that a holder is done does not depend on what else runs on the machine (C50, C51).

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use crewfs::limits::LOCKED_FILES_OF_A_USER;

use super::{Agent, two};
use crate::harness::{as_root, project};

/// Processes that have many descriptors open. Dropping this ends them.
struct Crowd {
    parent: Child,
}

impl Crowd {
    /// So many processes, each with this number of descriptors, or as many as its limit allows.
    fn new(processes: u32, descriptors: u32) -> Crowd {
        let script = "import os, resource, signal, sys
processes, most = int(sys.argv[1]), int(sys.argv[2])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
most = most if hard == resource.RLIM_INFINITY else min(most, hard - 64)
out, into = os.pipe()
for _ in range(processes):
    if os.fork() == 0:
        null = os.open('/dev/null', os.O_RDWR)
        for _ in range(most): os.dup(null)
        os.write(into, b'x')
        sys.stdin.read()
        os._exit(0)
for _ in range(processes): os.read(out, 1)
print('ready', flush=True)
sys.stdin.read()";
        let (processes, descriptors) = (processes.to_string(), descriptors.to_string());
        let mut parent = Command::new("python3")
            .args(["-c", script, &processes, &descriptors])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Crowd { parent }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Every process ends when its input ends.
        drop(self.parent.stdin.take());
        let _ = self.parent.wait();
    }
}

#[test]
fn c50_a_holder_that_has_ended_holds_nothing_however_many_descriptors_others_have() {
    let project = project!();
    let mounted = project.mount(&[]);
    let mut two = Agent::new(&mounted, "w2");
    two.ok("new('f', '0'); new('g', '0')");
    for (processes, descriptors) in [(8, 15_000), (200, 200)] {
        let _crowd = Crowd::new(processes, descriptors);
        for round in 0..20 {
            let mut one = Agent::new(&mounted, "w1");
            one.ok("get('f'); get('g')");
            one.ok(&format!("new('f', 'one {round}'); fd = os.open('g', os.O_WRONLY); os.write(fd, b'one')"));
            drop(one);
            two.ok("get('f'); get('g')");
            two.ok(&format!("new('f', 'two {round}')"));
            two.ok("replace('g', 'two')");
        }
    }
}

#[test]
fn c50_more_files_than_are_remembered_may_be_written_one_after_another() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = two(&mounted);
    one.ok("fd = os.open('held', os.O_RDWR | os.O_CREAT); os.write(fd, b'x')");
    // A child that never wrote keeps another file open.
    one.ok(
        "other = os.open('inherited', os.O_RDWR | os.O_CREAT); os.write(other, b'x'); out, into = os.pipe()",
    );
    one.ok("child = os.fork()\nif child == 0:\n    os.close(into); os.read(out, 1); os._exit(0)");
    one.ok("os.close(other); os.mkdir('many')");
    for part in 0..17 {
        one.ok(&format!(
            "for n in range(1000): os.close(os.open(f'many/{part}.{{n}}', os.O_WRONLY | os.O_CREAT))"
        ));
    }
    two.ok("get('held'); get('inherited')");
    two.busy("put('held', 'y')");
    two.busy("put('inherited', 'y')");
    one.ok("os.close(into); os.waitpid(child, 0)");
    two.ok("put('inherited', 'y')");
}

/// Opens as many files for writing as one user may hold, tries one more, closes a few, and goes on.
const GREEDY: &str = "
import errno, os, resource, sys
most, files = int(sys.argv[1]), []
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
def one_more():
    files.append(os.open(f'd/{len(files)}', os.O_WRONLY | os.O_CREAT))
    os.write(files[-1], b'x')
for _ in range(most): one_more()
try:
    one_more()
    print('no limit')
except OSError as error:
    print(error.strerror, open('tasks/workers/self/why').read().split(' ', 1)[1].strip())
for file in files[:16]: os.close(file)
for _ in range(8):
    while True:
        try:
            one_more()
            break
        except OSError as error:
            assert error.errno == errno.ENOLCK, error
print('full', flush=True)
sys.stdin.read()";

#[test]
fn c50_a_user_that_holds_all_it_may_is_in_no_other_s_way() {
    as_root!();
    let project = project!();
    let mounted = project.mount(&["allow_other"]);
    std::fs::create_dir(project.source().join("d")).unwrap();
    for place in [project.source().to_path_buf(), project.source().join("d")] {
        std::fs::set_permissions(place, PermissionsExt::from_mode(0o777)).unwrap();
    }
    let most = LOCKED_FILES_OF_A_USER.to_string();
    let mut greedy = Command::new("setpriv")
        .args(["--reuid=4001", "--regid=4001", "--clear-groups", "/usr/bin/python3", "-c", GREEDY, &most])
        .env("CREWFS_WORKER", "greedy")
        .current_dir(mounted.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(greedy.stdout.take().unwrap()).lines();
    let why = "No locks available the processes of uid 4001 have 16384 files open for writing, and crewfs guards no more of one user; close some";
    assert_eq!(said.next().unwrap().unwrap(), why);
    assert_eq!(said.next().unwrap().unwrap(), "full", "what was closed makes room");
    mounted.sh_as(4002, "other", "for n in $(seq 50); do echo $n > f$n || exit; done").ok();
    drop(greedy.stdin.take());
    assert!(greedy.wait().unwrap().success());
}
