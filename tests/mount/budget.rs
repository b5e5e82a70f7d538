//! The budget of one worker for additions to the log, and what compaction removes again (C35, C36).

use std::fs;

use crate::harness::{Mounted, as_root, project};

/// Repeats a step with a new text each time until it is refused. Prints the errno and the number of successes.
const UNTIL_REFUSED: &str = r#"
import errno, os, sys
def repeat(step):
    for n in range(5_000):
        try:
            step(n)
        except OSError as error:
            return print(errno.errorcode[error.errno], n)
    print("never")
def put(path, text, flags=os.O_WRONLY | os.O_TRUNC):
    fd = os.open(path, flags)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
"#;

/// Runs a step, written in Python, until it is refused: the errno, and the number of successes.
fn until_refused(mounted: &Mounted, worker: &str, step: &str) -> (String, u64) {
    let said = mounted.sh(worker, &format!("python3 -c '{UNTIL_REFUSED}\n{step}'")).ok();
    let (errno, times) = said.trim().split_once(' ').unwrap_or_else(|| panic!("{step}: {said}"));
    (errno.into(), times.parse().unwrap())
}

#[test]
fn c35_a_worker_that_repeats_a_step_is_refused_and_can_finish_what_it_holds() {
    let project = project!();
    // The budget is 256 events in a burst.
    let steps = [
        ("result", "repeat(lambda n: put(\"tasks/completed/done\", str(n)))"),
        ("note", "repeat(lambda n: put(\"tasks/claim/held\", str(n)))"),
        (
            "drain",
            "drain = \"tasks/workers/self/drain\"\nrepeat(lambda n: os.close(os.open(drain, os.O_CREAT)) if n % 2 == 0 else os.unlink(drain))",
        ),
        ("words", "repeat(lambda n: put(\"tasks/workers/self/capabilities\", f\"w{n}\"))"),
        (
            "claim",
            "repeat(lambda n: os.close(os.open(\"tasks/claim/open\", os.O_CREAT | os.O_EXCL)) if n % 2 == 0 else os.unlink(\"tasks/claim/open\"))",
        ),
        ("edit", "repeat(lambda n: put(\"tasks/edited.md\", f\"# {n}\\n\"))"),
        ("new", "repeat(lambda n: put(f\"tasks/new-{n}.md\", \"# N\\n\", os.O_WRONLY | os.O_CREAT))"),
        (
            "moved",
            "repeat(lambda n: (put(\"tasks/x.txt\", f\"# {n}\\n\", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), os.rename(\"tasks/x.txt\", \"tasks/moved.md\")))",
        ),
    ];
    for id in ["done", "held", "open", "edited"] {
        project.task(id, "# T\n");
    }
    let mounted = project.mount(&["log_events=1"]);
    for (what, step) in steps {
        let worker = format!("w-{what}");
        mounted
            .operator("rm -f tasks/claim/held tasks/claim/open; mv tasks/completed/* tasks/ready/; true")
            .ok();
        mounted.sh(&worker, "echo a > tasks/completed/done; touch tasks/claim/done && echo a > tasks/completed/done; touch tasks/claim/held").ok();
        let (errno, times) = until_refused(&mounted, &worker, step);
        assert_eq!(errno, "EDQUOT", "{what}");
        assert!((40..600).contains(&times), "{what}: {times}");
        let why = mounted.read(&format!("workers/{worker}/why"));
        let expected = format!(
            "{worker} has written more to the event log than is allowed (1 events a second, 256 events at once)"
        );
        assert!(why.contains(&expected), "{what}: {why}");
        mounted.sh(&worker, "echo finished > tasks/completed/held").ok();
        assert_eq!(mounted.read("completed/held"), "finished\n", "{what}");
        mounted.sh(&worker, "rm -f tasks/claim/open; [ ! -e tasks/claim/open ]").ok();
        // Another worker goes on.
        mounted.sh("other", "echo mine > tasks/workers/self/capabilities").ok();
    }
}

#[test]
fn c35_a_user_is_one_whatever_names_it_takes_and_operators_are_not_concerned() {
    as_root!();
    let project = project!();
    project.task("t", "# T\n");
    let mounted = project.mount(&["log_events=1", "workers=65533:65534"]);
    // A user's budget is four times a worker's: 1,024 events.
    let names = "for n in range(300):\n  name = f\"n{n}\"\n  import subprocess\n  \
         done = subprocess.run([\"sh\", \"-c\", \"for i in 1 2 3; do echo $CREWFS_WORKER $i > tasks/workers/self/capabilities || exit 7; done\"], env={**os.environ, \"CREWFS_WORKER\": name}, stderr=subprocess.PIPE)\n  \
         if done.returncode: sys.exit(print(\"refused\", n, done.stderr.decode()))";
    let said = mounted.sh_as(65_534, "first", &format!("python3 -c '{UNTIL_REFUSED}\n{names}'")).stdout;
    assert!(said.starts_with("refused ") && said.contains("quota"), "{said}");
    let refused: u64 = said.split(' ').nth(1).unwrap().parse().unwrap();
    assert!((160..299).contains(&refused), "{said}");
    // The budget regains four events a second.
    let fresh = "for i in $(seq 99); do echo $i > tasks/workers/self/capabilities || exit; done";
    let fresh = mounted.sh_as(65_534, "fresh", fresh);
    assert!(fresh.stderr.contains("quota"), "{fresh:?}");
    let why = mounted.sh_as(65_534, "fresh", "cat tasks/workers/self/why").ok();
    assert!(why.contains("the user with uid 65534 has written more to the event log"), "{why}");
    mounted.sh_as(65_533, "another", "echo a > tasks/workers/self/capabilities").ok();
    // A coordinator publishes thousands in a burst.
    mounted.operator("for n in $(seq 2000); do echo '# T' > tasks/many-$n.md; done").ok();
    mounted.until_state("many-2000", "ready");
}

#[test]
fn c35_what_is_written_beneath_the_mount_is_published_when_there_is_something_left() {
    as_root!();
    let project = project!();
    let mounted = project.mount(&["log_events=1"]);
    let write =
        "import os\nfor n in range(520):\n  os.close(os.open(f\"b{n}.md\", os.O_WRONLY | os.O_CREAT))";
    let tasks = project.tasks();
    let mut command = std::process::Command::new("setpriv");
    std::os::unix::fs::chown(&tasks, Some(65_534), None).unwrap();
    command.args(["--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", write]).current_dir(&tasks);
    assert!(command.status().unwrap().success());
    // The budget is 1,024 events in a burst, and each task takes two. Then it regains four a second.
    let total = || mounted.json("summary.json")["tasks"]["total"].as_u64().unwrap();
    crate::process::until("as many are published as may be", || total() >= 500);
    assert!(total() < 520, "{}", total());
    crate::process::until("all are published", || total() == 520);
}

#[test]
fn c36_a_result_that_is_written_again_and_again_does_not_grow_the_log() {
    let project = project!();
    project.task("t", "# T\n");
    let mut mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/t; echo > tasks/completed/t").ok();
    // 64 MiB in total.
    let rewrite = "python3 -c \"
import os
for n in range(64):
    fd = os.open('tasks/completed/t', os.O_WRONLY | os.O_TRUNC)
    os.write(fd, f'{n} of 64\\n'.encode() + b'x' * 1_000_000)
    os.close(fd)\"";
    mounted.sh("w1", rewrite).ok();
    let state = project.source().join(".crewfs");
    let size = || {
        let of = |name: &str| fs::metadata(state.join(name)).map_or(0, |file| file.len());
        of("log.db") + of("log.db-wal")
    };
    assert!(size() < 48 << 20, "{}", size());
    assert!(fs::metadata(mounted.desk("events.jsonl")).unwrap().len() < 32 << 10);
    let seq = mounted.json("summary.json")["seq"].clone();
    let again = "cat tasks/completed/t > $HOME/copy; cat $HOME/copy > tasks/completed/t; cp $HOME/copy tasks/completed/t";
    let home = project.dir().join("home");
    fs::create_dir(&home).unwrap();
    mounted.sh("w1", &format!("HOME={}; {again}", home.display())).ok();
    assert_eq!(mounted.json("summary.json")["seq"], seq, "the same text is no event");
    mounted.stop();
    let mounted = project.mount(&[]);
    let result = mounted.read("completed/t");
    assert!(result.starts_with("63 of 64\nxxx") && result.len() == 1_000_009);
    let lines = project.crewfs(["log".as_ref(), project.source().as_os_str()]).ok();
    assert_eq!(lines.lines().filter(|line| line.contains("\"reported\"")).count(), 65);
    assert!(lines.contains(r#""text":{"bytes":1000009,"head":"63 of 64","check":""#), "{lines}");
}
