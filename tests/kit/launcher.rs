//! `mount-scripts/start-workers.sh` with shell scripts as workers: they work, crash, are drained and ended; the mount goes away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Mounted, Project, project};
use crate::process::{Ran, run_within, until};

const LIMIT: Duration = Duration::from_secs(50);
const OPTIONS: [&str; 1] = ["idle_timeout=1s"];

/// Does one task and ends: an agent without a stop hook. `crash` dies once, while it holds a task.
const AGENT: &str = r#"touch tasks/claim/next 2>/dev/null || exit 0
id=$(sed -n 's/^  "task": "\(.*\)",$/\1/p' tasks/claim/next)
echo "$CREWFS_WORKER, started as $1, does $id"
if [ "$id" = crash ] && mkdir "$2/crashed" 2>/dev/null; then kill -9 $$; fi
echo "by $CREWFS_WORKER" > "tasks/completed/$id""#;

fn launcher(mounted: &Mounted, count: &str, options: &[&str], command: &[&str]) -> Command {
    let mut launcher = Command::new("sh");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("mount-scripts/start-workers.sh");
    launcher.arg(script).args([count, "--dir"]).arg(mounted.path()).args(options).arg("--").args(command);
    launcher.env_remove("CREWFS_WORKER").current_dir("/");
    launcher
}

/// The keepers and agents of a launcher, found by a mark in their command lines.
fn processes_with(mark: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(mark)).collect()
}

#[track_caller]
fn nothing_is_left(project: &Project) {
    let mark = project.dir().display().to_string();
    until("the keepers and agents are gone", || {
        processes_with(&mark).iter().all(|line| !line.contains("keep-worker.sh") && !line.contains("sleep 1"))
    });
}

fn with_tasks(mounted: &Mounted, ids: &[&str]) {
    for id in ids {
        fs::write(mounted.desk(format!("{id}.md")), format!("# {id}\n")).unwrap();
    }
}

#[test]
fn all_is_done_although_a_worker_crashes_and_then_they_stop() {
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    with_tasks(&mounted, &["a", "crash", "b", "c"]);
    let logs = project.dir().join("the logs");
    let room = project.dir().display().to_string();
    let options = ["--plain", "--name", "w", "--logs", logs.to_str().unwrap()];
    let said = run_within(
        LIMIT,
        launcher(&mounted, "2", &options, &["sh", "-c", AGENT, "sh", "{worker}/{n}", &room]),
    )
    .ok();
    assert!(said.contains("ended with exit code 137 and finished no task: starts again in 1s"), "{said}");
    assert!(said.contains("w-1: no task is left") && said.contains("w-2: no task is left"), "{said}");
    for id in ["a", "crash", "b", "c"] {
        assert_eq!(mounted.state(id), "completed", "{id}");
    }
    let log = ["w-1.log", "w-2.log"].map(|name| fs::read_to_string(logs.join(name)).unwrap()).concat();
    assert!(
        log.contains("w-1, started as w-1/1, does") || log.contains("w-2, started as w-2/2, does"),
        "{log}"
    );
    // The claim of the crashed agent came back by its death, not by the lease.
    let events = mounted.read("events.jsonl");
    assert!(events.contains("\"ending\":{\"killed\":9}"), "{events}");
    nothing_is_left(&project);
    mounted.stop();
}

#[test]
fn who_finishes_nothing_is_given_up() {
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    with_tasks(&mounted, &["a"]);
    let ran = run_within(LIMIT, launcher(&mounted, "1", &["--plain", "--max-restarts", "2"], &["false"]));
    assert!(ran.stdout.contains("gave up: 2 times in a row"), "{}", ran.stdout);
    ran.exits(1, "");
    assert_eq!(mounted.state("a"), "ready");
    mounted.stop();
}

#[test]
fn what_a_worker_holds_that_is_given_up_comes_back() {
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    with_tasks(&mounted, &["a", "b"]);
    // As far as crewfs can know, the agent ends without failure, so it keeps its claims until the lease ends.
    let agent = ["sh", "-c", "touch tasks/claim/a tasks/claim/b"];
    let ran = run_within(LIMIT, launcher(&mounted, "1", &["--plain", "--max-restarts", "1"], &agent));
    assert!(ran.stdout.contains("gave up: 1 times in a row"), "{}", ran.stdout);
    ran.exits(1, "");
    let lost = |id: &str| mounted.json(&format!("status/{id}"))["lost_claims"][0]["reason"].clone();
    for id in ["a", "b"] {
        assert_eq!((mounted.state(id).as_str(), lost(id)), ("ready", "given back".into()), "{id}");
    }
    mounted.stop();
}

#[test]
fn while_nothing_is_ready_no_agent_is_started() {
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    let started = project.dir().join("started");
    let said =
        run_within(LIMIT, launcher(&mounted, "3", &["--plain"], &["touch", started.to_str().unwrap()])).ok();
    assert!(said.contains("worker-3: waits for a task"), "{said}");
    assert!(!started.exists());
    mounted.stop();
}

/// Holds its task until the file `go` exists in the directory beside the project.
const PATIENT: &str = r#"touch tasks/claim/next || exit 1
while [ ! -e "$1/go" ]; do sleep 1; done
id=$(sed -n 's/^  "task": "\(.*\)",$/\1/p' tasks/claim/next)
echo done > "tasks/completed/$id""#;

/// Start a launcher, act on it when its workers hold their tasks, and check how it ends.
#[track_caller]
fn meanwhile(mounted: &Mounted, room: &Path, act: impl FnOnce(Pid)) -> Ran {
    let room_name = room.display().to_string();
    let mut command =
        launcher(mounted, "2", &["--plain", "--name", "w"], &["sh", "-c", PATIENT, "sh", &room_name]);
    let said = room.join("said");
    command.stdout(fs::File::create(&said).unwrap());
    let mut child = command.spawn().unwrap();
    until("both work", || mounted.list("claim").len() == 2);
    act(Pid::from_child(&child));
    let mut code = None;
    until("the launcher ends", || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    let stdout = fs::read_to_string(said).unwrap();
    Ran { what: "start-workers.sh".into(), code: code.unwrap().code(), stdout, stderr: String::new() }
}

#[test]
fn interrupted_once_they_finish_and_claim_nothing_more() {
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    with_tasks(&mounted, &["a", "b", "c"]);
    let said = meanwhile(&mounted, project.dir(), |pid| {
        kill_process(pid, Signal::INT).unwrap();
        until("they drain", || {
            ["w-1", "w-2"].iter().all(|w| mounted.desk(format!("workers/{w}/drain")).exists())
        });
        fs::write(project.dir().join("go"), "").unwrap();
    })
    .ok();
    assert!(said.contains("w-1: drained, as requested"), "{said}");
    assert_eq!(mounted.list("completed").len(), 2);
    assert_eq!(mounted.list("ready").len(), 1);
    assert!(!mounted.desk("workers/w-1/drain").exists(), "the next time they may work");
    nothing_is_left(&project);
    mounted.stop();
}

#[test]
fn interrupted_twice_they_are_ended_with_all_they_started() {
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    with_tasks(&mounted, &["a", "b"]);
    let said = meanwhile(&mounted, project.dir(), |pid| {
        kill_process(pid, Signal::TERM).unwrap();
        until("they drain", || {
            ["w-1", "w-2"].iter().all(|w| mounted.desk(format!("workers/{w}/drain")).exists())
        });
        kill_process(pid, Signal::TERM).unwrap();
    });
    assert_eq!(said.code, Some(1), "{said:?}");
    until("their claims are free", || mounted.list("ready").len() == 2);
    nothing_is_left(&project);
    mounted.stop();
}

#[test]
fn when_the_mount_is_gone_they_stop_and_say_so() {
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    with_tasks(&mounted, &["a", "b"]);
    let mut command = Command::new("true");
    let said = meanwhile(&mounted, project.dir(), |_| {
        kill_process(Pid::from_raw(mounted.pid() as i32).unwrap(), Signal::KILL).unwrap();
        command = launcher(&mounted, "1", &["--plain"], &["true"]);
        fs::write(project.dir().join("go"), "").unwrap();
    });
    assert!(said.stdout.contains("no crewfs answers at"), "{said:?}");
    assert_eq!(said.code, Some(3), "{said:?}");
    run_within(LIMIT, command).exits(3, "mount the project first");
    nothing_is_left(&project);
    mounted.kill9();
}

#[test]
fn a_mount_that_hangs_holds_up_nobody() {
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    let daemon = Pid::from_raw(mounted.pid() as i32).unwrap();
    kill_process(daemon, Signal::STOP).unwrap();
    let ran = run_within(Duration::from_secs(10), launcher(&mounted, "1", &["--plain"], &["true"]));
    kill_process(daemon, Signal::CONT).unwrap();
    ran.exits(3, "no crewfs answers at");
    mounted.stop();
}

#[test]
fn in_windows_of_tmux() {
    if Command::new("tmux").arg("-V").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "tmux is missing");
        return eprintln!("skipped: tmux is missing");
    }
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    with_tasks(&mounted, &["a", "b", "c"]);
    let (room, logs) = (project.dir().display().to_string(), project.dir().join("it's logs"));
    let options = ["--tmux", "--name", "w.x", "--logs", logs.to_str().unwrap()];
    // The agent has the window as its terminal.
    let agent = format!("[ -t 0 ] && [ -t 1 ] || exit 1\n{AGENT}");
    let mut command = launcher(&mounted, "2", &options, &["sh", "-c", &agent, "sh", "{n}", &room]);
    command.env("TMUX_TMPDIR", project.dir()).env("TERM", "xterm");
    let said = run_within(LIMIT, command).ok();
    assert!(said.contains("to see them: tmux -L crewfs-w.x-"), "{said}");
    assert_eq!(mounted.list("completed").len(), 3, "{said}");
    until("what they said is in the logs", || {
        let logs =
            ["w.x-1.log", "w.x-2.log"].map(|name| fs::read_to_string(logs.join(name)).unwrap_or_default());
        logs.concat().matches(", does ").count() == 3
    });
    nothing_is_left(&project);
    mounted.stop();
}

#[test]
fn wrong_use_is_said() {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("mount-scripts/start-workers.sh");
    for (arguments, said) in [
        (vec!["x"], "N is x"),
        (vec!["2"], "there is no command"),
        (vec!["2", "--colour", "--", "true"], "--colour is no option"),
        (vec!["2", "--name", "a b", "--", "true"], "--name is a b"),
    ] {
        let mut command = Command::new("sh");
        command.arg(&script).args(&arguments);
        run_within(LIMIT, command).exits(2, said);
    }
}
