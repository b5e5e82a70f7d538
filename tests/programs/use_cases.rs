//! The use cases of crewfs, run by the shell scripts of `tests/use-cases`, which `docs/use-cases.md` explains.
//!
//! Every task is completed exactly once, by the worker that claimed it, and its product exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Mounted, project};
use crate::process::{Ran, run_within};
use crate::sides::long;

const LIMIT: Duration = Duration::from_secs(100);
/// Keeps the scripts' wait for more work short.
const OPTIONS: [&str; 1] = ["idle_timeout=1s"];

/// Run one of the scripts, as a user does.
fn script(mounted: &Mounted, name: &str, arguments: &[&str]) -> Ran {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/use-cases").join(name);
    let mut command = Command::new("sh");
    command.arg(script).args(arguments).env_remove("CREWFS_WORKER").current_dir(mounted.path());
    run_within(LIMIT, command)
}

/// The events of a task.
#[derive(Debug, Default)]
struct Done {
    claimed: Vec<(u64, String)>,
    ended: Vec<(u64, String)>,
}

/// Assert by the log that each of these tasks was claimed once and ended once by the same worker. Returns the worker and the positions
/// of both events.
#[track_caller]
fn each_once(mounted: &Mounted, tasks: impl IntoIterator<Item = String>) -> BTreeMap<String, Done> {
    let mut done: BTreeMap<String, Done> = BTreeMap::new();
    for line in mounted.read("events.jsonl").lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let Some(task) = event["task"].as_str() else { continue };
        let task = done.entry(task.to_string()).or_default();
        let by = || (event["seq"].as_u64().unwrap(), event["worker"].as_str().unwrap().to_string());
        match event["event"].as_str().unwrap() {
            "claimed" => task.claimed.push(by()),
            "completed" | "failed" => task.ended.push(by()),
            "published" | "reported" => {}
            other => panic!("nothing else was to happen: {other}"),
        }
    }
    let wanted: BTreeSet<String> = tasks.into_iter().collect();
    assert_eq!(done.keys().cloned().collect::<BTreeSet<_>>(), wanted);
    let queue = mounted.json("queue.json");
    for (id, Done { claimed, ended }) in &done {
        assert_eq!((claimed.len(), ended.len()), (1, 1), "{id}: {claimed:?} {ended:?}");
        assert_eq!(claimed[0].1, ended[0].1, "{id}");
        assert_eq!(queue[id]["worker"], ended[0].1.as_str(), "{id}");
    }
    done
}

fn workers(done: &BTreeMap<String, Done>) -> BTreeSet<&str> {
    done.values().map(|done| done.claimed[0].1.as_str()).collect()
}

#[test]
fn many_files_are_processed_by_a_pool() {
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    let files = if long() { 1_000 } else { 200 };
    let said = script(&mounted, "process-files.sh", &[&files.to_string(), "8"]).ok();
    assert_eq!(said, format!("{files} of {files} files are processed\n"));
    let done = each_once(&mounted, (1..=files).map(|n| format!("file-{n}")));
    assert_eq!(workers(&done).len(), 8, "everybody had work");
    for n in 1..=files {
        let sum = fs::read_to_string(mounted.path().join(format!("output/{n}.txt"))).unwrap();
        assert_eq!(sum, format!("{}\n", 6 * n));
        assert_eq!(mounted.read(&format!("completed/file-{n}")), format!("the sum is {}\n", 6 * n));
    }
    mounted.stop();
}

#[test]
fn fifty_changes_are_reviewed_and_reported() {
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    let said = script(&mounted, "review.sh", &[]).ok();
    assert_eq!(said, "49 changes are reviewed, 1 could not be; see report.txt\n");
    let done = each_once(&mounted, (1..=50).map(|n| format!("review-{n}")));
    assert!(workers(&done).iter().all(|worker| worker.starts_with("reviewer-")));
    let report = fs::read_to_string(mounted.path().join("report.txt")).unwrap();
    let mut wanted: Vec<String> =
        (1..8).map(|n| format!("review-{}:wrong:     // later: check the length", 7 * n)).collect();
    wanted.push("review-50:there is no changes/50.diff".into());
    let sorted = |lines: Vec<String>| lines.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(sorted(report.lines().map(str::to_string).collect()), sorted(wanted));
    assert_eq!(mounted.read("completed/review-1"), "approved\n");
    assert_eq!(mounted.state("review-50"), "failed");
    mounted.stop();
}

#[test]
fn modules_are_built_in_the_order_of_their_needs() {
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    let said = script(&mounted, "modules.sh", &[]).ok();
    assert_eq!(said, "release of tests docs\n");
    let needs: [(&str, &[&str]); 8] = [
        ("release", &["tests", "docs"]),
        ("tests", &["backend", "frontend"]),
        ("docs", &["backend"]),
        ("frontend", &["backend", "design"]),
        ("backend", &["database", "auth"]),
        ("auth", &["database"]),
        ("database", &[]),
        ("design", &[]),
    ];
    let done = each_once(&mounted, needs.iter().map(|(name, _)| name.to_string()));
    for (name, needs) in needs {
        assert_eq!(mounted.state(name), "completed", "{}", mounted.read(&format!("status/{name}")));
        for need in needs {
            assert!(done[*need].ended[0].0 < done[name].claimed[0].0, "{need} was there before {name}");
        }
    }
    mounted.stop();
}

#[test]
fn workers_are_added_while_the_work_goes_on() {
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    let said = script(&mounted, "growing.sh", &["60", "4"]).ok();
    assert_eq!(said, "4 workers did 60 jobs\n");
    let done = each_once(&mounted, (1..=60).map(|n| format!("job-{n}")));
    let all: BTreeSet<String> = (1..=4).map(|n| format!("worker-{n}")).collect();
    assert_eq!(workers(&done), all.iter().map(String::as_str).collect(), "those who came later had work too");
    let first = |worker: &str| {
        let of = done.values().filter(|done| done.claimed[0].1 == worker);
        of.map(|done| done.claimed[0].0).min().unwrap()
    };
    assert!(all.iter().all(|worker| first("worker-1") <= first(worker)), "one began alone");
    mounted.stop();
}

#[test]
fn specialists_do_what_only_they_can() {
    let project = project!(LIMIT);
    let mut mounted = project.mount(&OPTIONS);
    let said = script(&mounted, "specialists.sh", &["5"]).ok();
    assert_eq!(said, "20 tasks are done\n");
    let sorts = ["api", "page", "check", "text"];
    let done = each_once(&mounted, sorts.iter().flat_map(|sort| (1..=5).map(move |n| format!("{sort}-{n}"))));
    for (id, done) in &done {
        let worker = done.claimed[0].1.as_str();
        let may: &[&str] = match id.split_once('-').unwrap().0 {
            "api" => &["worker-backend", "worker-testing"],
            "page" => &["worker-frontend"],
            "check" => &["worker-testing"],
            _ => &["worker-backend", "worker-frontend", "worker-testing", "worker-anything"],
        };
        assert!(may.contains(&worker), "{id} was done by {worker}");
        let left = fs::read_to_string(mounted.path().join(format!("work/{id}.txt"))).unwrap();
        assert_eq!(left.trim_end(), worker);
    }
    // Claiming by id fails too: `requires` is enforced, not advisory.
    fs::write(mounted.desk("extra.md"), "---\nrequires: [backend]\n---\n# Extra\n").unwrap();
    mounted.sh("worker-frontend", "set -C; > tasks/claim/extra").refused("Permission denied");
    assert!(mounted.read("workers/worker-frontend/why").contains("backend"));
    mounted.stop();
}
