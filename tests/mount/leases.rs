//! Leases: activity renews them, silence ends them, a restart keeps them (C30–C33). These tests are about time, so some of it passes.

use std::time::{Duration, Instant};

use crate::harness::{Mounted, project};
use crate::process::{slow, until};

fn holder(mounted: &Mounted, task: &str) -> serde_json::Value {
    mounted.json(&format!("status/{task}"))["worker"].clone()
}

#[test]
fn c31_a_silent_worker_loses_its_claim_and_cannot_come_back() {
    let project = project!();
    project.task("a", "# A\n");
    project.task("long", "---\nlease: 1h\n---\n");
    let mounted = project.mount(&["lease=1s"]);
    mounted.sh("w1", "touch tasks/claim/a tasks/claim/long && echo note > tasks/claim/a").ok();
    let start = Instant::now();
    mounted.until_state("a", "ready");
    assert!(start.elapsed() > Duration::from_millis(700), "{:?}", start.elapsed());
    assert!(start.elapsed() < slow(Duration::from_secs(6)), "{:?}", start.elapsed());
    let lost = &mounted.json("status/a")["lost_claims"][0];
    assert_eq!(lost["worker"], "w1");
    assert!(lost["reason"].as_str().unwrap().starts_with("its lease ran out after "), "{lost}");
    assert_eq!(holder(&mounted, "long"), "w1", "the task's own lease counts");
    // C24: the worker is too late, and `why` says so.
    mounted.sh("w1", "echo done > tasks/completed/a").refused("Permission denied");
    let why = mounted.read("workers/w1/why");
    assert!(why.contains("your claim ended at") && why.contains("its lease ran out"), "{why}");
    mounted.sh("w2", "touch tasks/claim/a").ok();
    mounted.sh("w1", "echo done > tasks/completed/a").refused("Permission denied");
    assert!(mounted.read("workers/w1/why").contains("w2 holds it since"));
    assert_eq!(holder(&mounted, "a"), "w2");
}

#[test]
fn c34_no_lease_is_longer_than_the_mount_allows() {
    let project = project!();
    project.task("a", "---\nlease: 365d\ncontext: [missing]\n---\n");
    project.task("b", "---\nlease: 30m\n---\n");
    let mounted = project.mount(&[]);
    let warnings = |mounted: &Mounted| mounted.json("status/a")["warnings"].clone();
    assert_eq!(mounted.json("status/a")["lease"], "1d");
    let cut = "lease: 365d is cut to 1d, the longest that this mount allows";
    assert_eq!(warnings(&mounted), serde_json::json!(["context: missing does not exist", cut]));
    assert_eq!(mounted.json("queue.json")["a"]["warnings"], warnings(&mounted));
    assert!(mounted.json("status/b").get("warnings").is_none());
    mounted.sh("w1", "touch tasks/claim/a tasks/claim/b").ok();
    drop(mounted);
    // The maximum also applies to a claim that was made under a longer one.
    let mounted = project.mount(&["lease_max=1s"]);
    assert_eq!(mounted.json("status/b")["lease"], "1s");
    mounted.until_state("a", "ready");
    mounted.until_state("b", "ready");
    let lost = &mounted.json("status/a")["lost_claims"][0];
    assert!(lost["reason"].as_str().unwrap().starts_with("its lease ran out after "), "{lost}");
    let refused = project.crewfs(["mount".as_ref(), project.source().as_os_str(), "-olease=2d".as_ref()]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("lease=2d is longer than the longest lease, which is 1d"),
        "{}",
        refused.stderr
    );
}

#[test]
fn c30_any_operation_renews_in_the_tree_as_on_the_desk() {
    let project = project!();
    (0..3).for_each(|n| project.task(&format!("t{n}"), "# T\n"));
    let mounted = project.mount(&["lease=2s"]);
    let keeps = |worker: &str, task: &str, act: &str| {
        let script = format!("touch tasks/claim/{task}; for n in $(seq 12); do {act}; sleep 0.3; done");
        mounted.sh(worker, &script).ok();
        assert_eq!(holder(&mounted, task), worker, "{act}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| keeps("w0", "t0", "cat tasks/workers/self/should-stop > /dev/null"));
        scope.spawn(|| keeps("w1", "t1", "echo $n > file"));
        scope.spawn(|| keeps("w2", "t2", "cat tasks/t2.md > /dev/null"));
    });
}

#[test]
fn c32_lost_claims_are_attempts_and_given_back_ones_are_not() {
    let project = project!();
    project.task("a", "---\nattempts: 2\nlease: 1s\n---\n");
    let mounted = project.mount(&[]);
    (0..3).for_each(|_| drop(mounted.sh("w0", "touch tasks/claim/a && rm tasks/claim/a").ok()));
    mounted.sh("w1", "touch tasks/claim/a").ok();
    mounted.until_state("a", "ready");
    mounted.sh("w2", "touch tasks/claim/a").ok();
    mounted.until_state("a", "failed");
    let reason = mounted.read("failed/a");
    assert!(reason.contains("given up after 2 claims that were lost; the last one by w2"), "{reason}");
    let status = mounted.json("status/a");
    let lost = status["lost_claims"].as_array().unwrap();
    let workers: Vec<_> = lost.iter().map(|loss| loss["worker"].as_str().unwrap()).collect();
    assert_eq!(workers, ["w0", "w0", "w0", "w1", "w2"]);
    // An operator may retry the task.
    mounted.operator("mv tasks/failed/a tasks/ready/").ok();
    assert_eq!(mounted.state("a"), "ready");
}

#[test]
fn c33_a_restart_keeps_claims_and_gives_each_its_lease_anew() {
    let project = project!();
    project.task("a", "# A\n");
    let mut mounted = project.mount(&["lease=2s"]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    mounted.stop();
    // Longer than the lease, while no daemon runs.
    std::thread::sleep(Duration::from_millis(2_500));
    let mounted = project.mount(&["lease=2s"]);
    let start = Instant::now();
    assert_eq!(holder(&mounted, "a"), "w1");
    mounted.until_state("a", "ready");
    assert!(start.elapsed() > Duration::from_millis(1_500), "{:?}", start.elapsed());
}

#[test]
fn c33_a_crash_keeps_claims() {
    let project = project!();
    project.task("a", "# A\n");
    let mut mounted = project.mount(&["lease=1h"]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    mounted.kill9();
    drop(mounted);
    let mounted = project.mount(&["lease=1h"]);
    mounted.sh("w1", "echo 'after all' > tasks/completed/a").ok();
    until("it is done", || mounted.state("a") == "completed");
}
