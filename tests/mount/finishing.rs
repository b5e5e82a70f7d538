//! Finishing, giving back and retrying: only the holder may, and an answered step is durable (C23–C27).

use crate::harness::{Mounted, Project, project};

fn with_claim(project: &Project) -> Mounted {
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    mounted
}

#[test]
fn c23_a_result_completes_and_a_reason_fails() {
    let project = project!();
    let mounted = with_claim(&project);
    mounted.sh("w1", "echo 'what I did' > tasks/completed/a").ok();
    assert_eq!(mounted.read("completed/a"), "what I did\n");
    let status = mounted.json("status/a");
    assert_eq!((&status["status"], &status["worker"]), (&"completed".into(), &"w1".into()));
    assert_eq!(status["result"], "what I did");
    assert_eq!(mounted.list("claim"), [""; 0]);
    mounted.sh("w1", "test -e tasks/claim/next").exits(1, "");

    mounted.sh("w1", "mv tasks/completed/a tasks/ready/ && touch tasks/claim/a").ok();
    mounted.sh("w1", "echo 'no compiler' > tasks/failed/a").ok();
    assert_eq!(mounted.read("failed/a"), "no compiler\n");
    assert_eq!(mounted.json("queue.json")["a"]["why"], "no compiler");
    mounted.sh("w2", "mv tasks/failed/a tasks/ready/").ok();
    assert_eq!(mounted.state("a"), "ready");
    // The log keeps the texts of the earlier attempts.
    assert!(project.log().contains("what I did") && project.log().contains("no compiler"));
}

#[test]
fn c23_moves_complete_fail_and_give_back() {
    let project = project!();
    let mounted = with_claim(&project);
    mounted.sh("w1", "mv tasks/claim/a tasks/completed/").ok();
    assert_eq!(mounted.state("a"), "completed");
    assert_eq!(mounted.read("completed/a"), "");
    // The text may follow in a later write, by any kind of write.
    mounted.sh("w1", "echo one > tasks/completed/a && echo two >> tasks/completed/a").ok();
    assert_eq!(mounted.read("completed/a"), "one\ntwo\n");
    mounted.sh("w1", "mv tasks/completed/a tasks/ready/ && mv tasks/ready/a tasks/claim/").ok();
    mounted.sh("w1", "mv tasks/claim/a tasks/failed/a").ok();
    assert_eq!(mounted.state("a"), "failed");
    for give_back in ["rm tasks/claim/a", "mv tasks/claim/a tasks/ready/", "rm tasks/claim/next"] {
        mounted.sh("w1", "test -e tasks/ready/a || mv tasks/failed/a tasks/ready/").ok();
        mounted.sh("w1", "touch tasks/claim/next").ok();
        mounted.sh("w1", give_back).ok();
        assert_eq!(mounted.state("a"), "ready", "{give_back}");
    }
    assert_eq!(mounted.json("status/a")["lost_claims"][0]["reason"], "given back");
}

#[test]
fn c23_creating_without_a_word_and_again() {
    let project = project!();
    let mounted = with_claim(&project);
    mounted.sh("w1", "touch tasks/completed/a").ok();
    // A worker may repeat a step whose answer was lost. A create with O_EXCL, which must make the file, is refused.
    mounted.sh("w1", "touch tasks/completed/a && echo done > tasks/completed/a").ok();
    mounted.sh("w1", "set -C; > tasks/completed/a").refused("cannot overwrite");
    mounted.sh("w1", "mkdir tasks/completed/a").refused("File exists");
    mounted.sh("w1", "touch tasks/failed/a").refused("Permission denied");
    mounted.sh("w2", "echo mine > tasks/completed/a").refused("Permission denied");
    assert_eq!(mounted.read("completed/a"), "done\n");
    mounted.sh("w1", "rm -f tasks/completed/a").refused("Permission denied");
    mounted.sh("w1", "mv tasks/completed/a tasks/claim/").refused("No such file");
    mounted.sh("w1", "mv tasks/completed/a tasks/ready/ && mv tasks/ready/a tasks/blocked/").refused("");
    assert_eq!(mounted.state("a"), "ready");
}

#[test]
fn c24_only_the_holder_may() {
    let project = project!();
    let mounted = with_claim(&project);
    for script in [
        "echo mine > tasks/completed/a",
        "echo mine > tasks/failed/a",
        "mkdir tasks/completed/a",
        "mv tasks/claim/a tasks/completed/",
        "mv tasks/claim/a tasks/ready/",
        "rm -f tasks/claim/a",
    ] {
        mounted.sh("w2", script).refused("Permission denied");
        assert_eq!(mounted.json("status/a")["worker"], "w1", "{script}");
    }
    let why = mounted.read("workers/w2/why");
    assert!(why.contains("a is not yours: w1 holds it since"), "{why}");
    project.task("b", "# B\n");
    mounted.until_state("b", "ready");
    mounted.sh("w2", "echo mine > tasks/completed/b").refused("Permission denied");
    mounted.sh("w2", "echo mine > tasks/completed/none").refused("No such file");
}

#[test]
fn c24_an_operator_may() {
    let project = project!();
    let mounted = with_claim(&project);
    mounted.operator("rm tasks/claim/a").ok();
    assert_eq!(mounted.state("a"), "ready");
    assert!(mounted.read("status/a").contains("taken away by root"));
    mounted.sh("w1", "touch tasks/completed/a").refused("Permission denied");
    let why = mounted.read("workers/w1/why");
    assert!(why.contains("your claim ended at") && why.contains("taken away by root"), "{why}");
    mounted.sh("w2", "touch tasks/claim/a").ok();
    mounted.operator("echo 'by hand' > tasks/completed/a").ok();
    let status = mounted.json("status/a");
    assert_eq!((&status["status"], &status["result"]), (&"completed".into(), &"by hand".into()));
}

#[test]
fn c24_what_was_opened_under_an_old_claim_changes_nothing() {
    let project = project!();
    let mounted = with_claim(&project);
    let take_over = "env -u CREWFS_WORKER CREWFS_WORKER=w2";
    // The holder gives the task back and another worker claims it, while the holder still has its note open.
    let late =
        format!("exec 3> tasks/claim/a; rm tasks/claim/a; {take_over} touch tasks/claim/a; echo late >&3");
    mounted.sh("w1", &late).refused("Permission denied");
    assert!(mounted.json("status/a")["note"].is_null());
    assert!(mounted.read("workers/w1/why").contains("a is not yours: your claim ended at"));
    mounted.sh("w2", "rm tasks/claim/a").ok();
    // The same worker claims it again: the epoch is new, so the claim is another one.
    // (`!` makes the shell exit with 0; a failing shell would lose the claim.)
    let again =
        "touch tasks/claim/a; exec 3> tasks/claim/a; rm tasks/claim/a; touch tasks/claim/a; ! echo late >&3";
    let ran = mounted.sh("w1", again);
    assert!(ran.stderr.contains("Permission denied"), "{ran:?}");
    ran.ok();
    assert!(mounted.read("workers/w1/why").contains("is over; nothing that was opened under it"));
    // A result that was opened before the task was retried.
    let result = "python3 -c \"
import os
f = os.open('tasks/completed/a', os.O_WRONLY | os.O_CREAT)
os.rename('tasks/completed/a', 'tasks/ready/a')
os.close(os.open('tasks/claim/a', os.O_WRONLY | os.O_CREAT))
os.write(f, b'late')
try:
    os.close(f)
except PermissionError:
    print('refused')
\"";
    assert_eq!(mounted.sh("w1", result).ok(), "refused\n");
    mounted.sh("w1", "echo new > tasks/completed/a").ok();
    assert_eq!(mounted.read("completed/a"), "new\n");
}

#[test]
fn c23_emptying_by_one_open_is_no_business_of_another() {
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    let twice = "touch tasks/claim/a; echo first > tasks/completed/a; exec 3>> tasks/completed/a; \
                 echo new > tasks/completed/a; exec 3>&-";
    mounted.sh("w1", twice).ok();
    assert_eq!(mounted.read("completed/a"), "new\n");
}

#[test]
fn c21_claim_next_is_one_claim_by_whatever_way() {
    let project = project!();
    ["a", "b", "c"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    mounted.sh("w1", "mv -T tasks/ready/b tasks/claim/next").ok();
    assert_eq!(mounted.state("b"), "claimed");
    mounted.sh("w1", "mv -T tasks/ready/c tasks/claim/next").refused("");
    assert_eq!(mounted.state("c"), "ready");
    mounted.sh("w2", "ln -P tasks/next tasks/claim/next").ok();
    assert_eq!(mounted.state("a"), "claimed");
}

#[test]
fn c26_a_result_has_a_mebibyte() {
    let project = project!();
    let mounted = with_claim(&project);
    mounted.sh("w1", "head -c 1048576 /dev/zero | tr '\\0' x > tasks/completed/a").ok();
    assert_eq!(mounted.read("completed/a").len(), 1 << 20);
    mounted.sh("w1", "echo more >> tasks/completed/a").refused("File too large");
    mounted.sh("w1", "truncate -s 1048577 tasks/completed/a").refused("File too large");
    assert_eq!(mounted.read("completed/a").len(), 1 << 20);
    assert_eq!(mounted.state("a"), "completed");

    project.task("b", "# B\n");
    mounted.until_state("b", "ready");
    mounted.sh("w1", "touch tasks/claim/b").ok();
    let long = "dd if=/dev/zero of=tasks/failed/b bs=64k count=17 status=none";
    mounted.sh("w1", long).refused("File too large");
    assert_eq!(mounted.state("b"), "failed");
    assert_eq!(mounted.read("failed/b").len(), 1 << 20, "what came before is kept");
    assert!(mounted.read("status/b").len() < 10_000, "documents show only its beginning");
}

#[test]
fn c26_a_result_is_any_bytes() {
    let project = project!();
    let mounted = with_claim(&project);
    mounted.sh("w1", r"printf '\377\000\200' > tasks/completed/a").ok();
    assert_eq!(std::fs::read(mounted.desk("completed/a")).unwrap(), [0xff, 0, 0x80]);
    mounted.json("queue.json");
    let log = project.log();
    assert!(log.contains(r#"{"hex":"ff0080"}"#), "{log}");
}

#[test]
fn c27_what_was_answered_survives_a_crash() {
    let project = project!();
    ["b", "c", "d", "e"].iter().for_each(|id| project.task(id, "# T\n"));
    let mut mounted = with_claim(&project);
    mounted.sh("w1", "echo result > tasks/completed/a").ok();
    mounted.sh("w1", "touch tasks/claim/b && echo reason > tasks/failed/b").ok();
    mounted.sh("w1", "touch tasks/claim/c && echo note > tasks/claim/c").ok();
    mounted.sh("w1", "touch tasks/claim/d && rm tasks/claim/d && rm tasks/e.md").ok();
    mounted.sh("w2", "echo '# F' > tasks/f.md && ls tasks/ready/f").ok();
    mounted.operator("touch tasks/paused && touch tasks/workers/w1/drain").ok();
    let before = (mounted.json("queue.json"), mounted.read("events.jsonl"));
    mounted.kill9();
    drop(mounted);
    let mounted = project.mount(&[]);
    assert_eq!((mounted.json("queue.json"), mounted.read("events.jsonl")), before);
    assert_eq!(
        (mounted.read("completed/a"), mounted.read("failed/b")),
        ("result\n".into(), "reason\n".into())
    );
    assert!(mounted.desk("paused").exists() && mounted.desk("workers/w1/drain").exists());
}
