//! Many remote workers claim many tasks in each way that the documents recommend. Each task has one winner, and each worker knows which
//! tasks it won.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Connection;
use crate::harness::{Mounted, project};
use crate::process::until;
use crate::server::server;

const WORKERS: usize = 8;

/// Claims the best task until none is ready. The task's id is in `claim/next`.
const NEXT: &str = r#"
    while touch tasks/claim/next; do
        id=$(sed -n 's/^  "task": "\(.*\)",$/\1/p' tasks/claim/next)
        [ -s tasks/workers/self/task ] || echo "no instructions of $id"
        echo "claimed $id"
        finish "$id"
    done"#;

/// Claims by id, in one of the ways below, and then reads which worker holds the task. Over SFTP, the answer of the claim alone does
/// not tell.
const BY_NAME: &str = r#"
    while ids=$(ls -U tasks/ready | head -n 32) && [ -n "$ids" ]; do
        for id in $(echo "$ids" | shuf -n 4); do
            claim "$id" 2>/dev/null || true
            if grep -qs "^  \"worker\": \"$me\",$" "tasks/claim/$id"; then
                echo "claimed $id"
                finish "$id"
            fi
        done
    done"#;

const FINISH: &str = r#"
    me=$(readlink tasks/workers/self)
    finish() { if echo "by $me" > "tasks/completed/$1"; then echo "completed $1"; else echo "refused $1"; fi; }"#;

/// The ways to claim, each with its own part of the script.
const WAYS: [(&str, &str); 4] = [
    ("next", ""),
    ("touch", r#"claim() { touch "tasks/claim/$1"; }"#),
    ("mkdir", r#"claim() { mkdir "tasks/claim/$1"; }"#),
    ("mv", r#"claim() { mv "tasks/ready/$1" tasks/claim/; }"#),
];

/// The number of tasks that are claimed in each way; `CREWFS_REMOTE_TASKS` sets another number.
fn tasks() -> usize {
    std::env::var("CREWFS_REMOTE_TASKS").ok().and_then(|tasks| tasks.parse().ok()).unwrap_or(500)
}

#[test]
fn eight_workers_claim_each_task_once_and_know_what_they_won() {
    let project = project!(Duration::from_secs(150));
    let tasks = tasks();
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let workers: Vec<_> = (0..WORKERS).map(|n| server.worker(&format!("worker-{n}"))).collect();
    let connections: Vec<Connection> = std::thread::scope(|scope| {
        let connecting = workers.iter().map(|worker| {
            let dir = project.dir().join(&worker.name);
            scope.spawn(move || worker.connect(&dir))
        });
        let connecting: Vec<_> = connecting.collect();
        connecting.into_iter().map(|connection| connection.join().unwrap()).collect()
    });
    for (way, claim) in WAYS {
        // The other ways are not recommended, but must be safe.
        let tasks = if ["next", "touch"].contains(&way) { tasks } else { tasks / 5 };
        for n in 0..tasks {
            project.task(&format!("{way}-{n}"), "# Task\n");
        }
        until("all are published", || ready(&mounted) == tasks);
        let start = Instant::now();
        let body = if way == "next" { NEXT } else { BY_NAME };
        let script = format!("{FINISH}\n{claim}\n{body}");
        let running: Vec<Child> = connections.iter().map(|connection| begin(connection, &script)).collect();
        let said: Vec<String> = running
            .into_iter()
            .map(|child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap())
            .collect();
        println!("{tasks} tasks by {way}: {:.1} s", start.elapsed().as_secs_f64());
        let mut believed: BTreeMap<(String, String), String> = BTreeMap::new();
        for (worker, said) in workers.iter().zip(said) {
            for line in said.lines() {
                let (event, task) = line.split_once(' ').unwrap();
                assert!(["claimed", "completed"].contains(&event), "{} by {way}: {line}", worker.name);
                let before = believed.insert((event.into(), task.into()), worker.name.clone());
                assert_eq!(before, None, "{task} was {event} twice");
            }
        }
        assert_eq!(believed.len(), 2 * tasks, "each is claimed and completed");
        assert_eq!(logged(&project.log(), &format!("{way}-")), believed);
    }
    assert!(workers.iter().all(|worker| project.log().contains(&format!("\"{}\"", worker.name))));
}

fn ready(mounted: &Mounted) -> usize {
    std::fs::read_dir(Path::new(&mounted.desk("ready"))).unwrap().count()
}

fn begin(connection: &Connection, script: &str) -> Child {
    let mut command = connection.shell();
    command.arg(script).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// From the log: the claims and completions, with task and worker, of the tasks whose ids have this prefix.
fn logged(log: &str, begins: &str) -> BTreeMap<(String, String), String> {
    let mut events = BTreeMap::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let text = |member: &str| event[member].as_str().unwrap_or_default().to_string();
        let (kind, task) = (text("event"), text("task"));
        if ["claimed", "completed"].contains(&kind.as_str()) && task.starts_with(begins) {
            let before = events.insert((kind.clone(), task.clone()), text("worker"));
            assert_eq!(before, None, "{task} was {kind} twice");
        }
    }
    events
}
