//! The effects of the whole front matter for a worker: capabilities, owned files, times, and the reason for each refusal (C11–C13, C22).

use crate::harness::project;
use crate::process::until;

#[test]
fn c13_a_task_goes_only_to_who_can_do_it() {
    let project = project!();
    project.task("gpu", "---\nrequires: [gpu, rust]\npriority: critical\n---\n");
    project.task("plain", "# T\n");
    let mounted = project.mount(&[]);
    assert_eq!(mounted.list("ready"), ["gpu", "plain"]);
    assert_eq!(mounted.sh("w1", "readlink tasks/next").ok().trim(), "ready/plain");
    mounted.sh("w1", "touch tasks/claim/gpu").refused("Permission denied");
    let why = mounted.sh("w1", "cat tasks/workers/self/why").ok();
    assert!(why.contains("gpu requires gpu, rust, which w1 lacks; nobody has all that it requires"), "{why}");
    mounted.sh("w1", "echo rust > tasks/workers/self/capabilities").ok();
    mounted
        .sh(
            "w2",
            "printf 'rust\\n' > tasks/workers/self/capabilities; echo gpu >> tasks/workers/self/capabilities",
        )
        .ok();
    assert_eq!(mounted.read("workers/w2/capabilities"), "gpu rust\n");
    assert_eq!(mounted.sh("w2", "stat -c %s tasks/workers/self/capabilities").ok().trim(), "9");
    let why = mounted.sh("w1", "grep why tasks/status/gpu").ok();
    assert!(why.contains("it requires gpu, which w1 lacks; it is for w2"), "{why}");
    assert_eq!(mounted.sh("w2", "grep -c why tasks/status/gpu || true").ok().trim(), "0");
    assert_eq!(mounted.sh("w2", "readlink tasks/next").ok().trim(), "ready/gpu");

    mounted.sh("w1", "touch tasks/claim/next && touch tasks/completed/plain").ok();
    mounted.sh("w1", "ls tasks | grep -x next").refused("");
    mounted.sh("w1", "touch tasks/claim/next").refused("No such file");
    let why = mounted.sh("w1", "cat tasks/workers/self/why").ok();
    assert!(why.contains("nothing that is ready is for w1: it requires gpu"), "{why}");
    let stop = mounted.sh("w1", "cat tasks/workers/self/should-stop").ok();
    assert!(stop.contains("No task is ready yet"), "{stop}");
    mounted.sh("w2", "touch tasks/claim/next").ok();
    assert_eq!(mounted.json("status/gpu")["worker"], "w2");
}

#[test]
fn capabilities_are_the_workers_own_and_outlive_the_daemon() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    mounted.sh("w1", "echo a b > tasks/workers/self/capabilities").ok();
    mounted.sh("w2", "echo c > tasks/workers/w1/capabilities").refused("Permission denied");
    mounted.sh("w2", "cat tasks/workers/self/why | grep 'only w1 and operators say what w1 can do'").ok();
    mounted.sh("w1", "head -c 5000 /dev/zero | tr '\\0' x > tasks/workers/self/capabilities").refused("");
    mounted.operator("echo x > tasks/workers/w1/capabilities").ok();
    assert_eq!(mounted.read("workers/w1/capabilities"), "x\n");
    mounted.stop();
    drop(mounted);
    let mounted = project.mount(&[]);
    assert_eq!(mounted.read("workers/w1/capabilities"), "x\n");
    mounted.sh("w1", ": > tasks/workers/self/capabilities").ok();
    assert_eq!(mounted.read("workers/w1/capabilities"), "");
}

#[test]
fn c12_tasks_that_own_the_same_files_are_not_worked_on_together() {
    let project = project!();
    project.task("api", "---\nowns: [src/api/**]\n---\n");
    project.task("docs", "---\nowns: ['*.md']\n---\n");
    project.task("login", "---\nowns: [src/api/login.rs]\n---\n");
    let mounted = project.mount(&[]);
    let before = mounted.sh("w2", "stat -c %.Y tasks/status/login").ok();
    mounted.sh("w1", "touch tasks/claim/api").ok();
    assert_eq!(mounted.state("login"), "blocked");
    assert_ne!(mounted.sh("w2", "stat -c %.Y tasks/status/login").ok(), before, "C1");
    let why = mounted.read("blocked/login");
    assert!(why.starts_with("it owns files that api owns, too, which w1 works on since "), "{why}");
    mounted.sh("w2", "touch tasks/claim/login").refused("busy");
    // A README.md may also be in src/api.
    assert_eq!(mounted.state("docs"), "blocked");
    mounted.sh("w1", "touch tasks/completed/api").ok();
    assert_eq!(mounted.list("ready"), ["docs", "login"]);
    mounted.sh("w1", "touch tasks/claim/docs").ok();
    mounted.sh("w2", "touch tasks/claim/login").ok();
}

#[test]
fn time_brings_tasks_and_makes_them_late() {
    let project = project!();
    let mounted = project.mount(&[]);
    mounted.sh("c", "printf -- '---\\nnot_before: 2s\\ndeadline: 3s\\n---\\n' > tasks/t.md").ok();
    let why = mounted.read("blocked/t");
    assert!(why.starts_with("it is not to be begun before "), "{why}");
    mounted.sh("w1", "touch tasks/claim/t").refused("busy");
    until("t is ready", || mounted.state("t") == "ready");
    mounted.sh("w1", "touch tasks/claim/t").ok();
    let seen = || mounted.sh("w1", "stat -c %.Y tasks/claim/t").ok();
    let before = seen();
    assert!(mounted.json("status/t").get("overdue").is_none());
    until("t is overdue", || mounted.json("status/t")["overdue"] == true);
    assert_ne!(seen(), before, "C1");
}

#[test]
fn a_worker_holds_no_more_than_it_may() {
    let project = project!();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&["claims_per_worker=1"]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    mounted.sh("w1", "touch tasks/claim/b").refused("Permission denied");
    mounted.sh("w1", "grep 'w1 holds as many tasks as it may (1 of 1)' tasks/workers/self/why").ok();
    mounted.sh("w1", "touch tasks/claim/next").ok();
    assert_eq!(mounted.state("b"), "ready");
}

#[test]
fn what_cannot_be_read_first_is_a_warning_and_a_failed_need_says_why() {
    let project = project!();
    std::fs::write(project.behind().join("there.md"), "x").unwrap();
    project.task("t", "---\nneeds: [net]\ncontext: [there.md, gone.md, ../out.md]\n---\n");
    project.task("net", "# N\n");
    let mounted = project.mount(&[]);
    let warnings = mounted.json("status/t")["warnings"].clone();
    assert_eq!(
        warnings,
        serde_json::json!(["context: gone.md does not exist", "context: ../out.md leads out of the project"])
    );
    mounted.sh("w1", "touch tasks/claim/net; echo 'no network' > tasks/failed/net").ok();
    assert_eq!(
        mounted.read("blocked/t"),
        "it needs net, which failed (no network): move it to ready/, or take it out of needs\n"
    );
}
