//! Stopping: the output of a stop hook is empty, or one line that says how to go on (C60, C61).

use std::time::Instant;

use crate::harness::{Mounted, project};
use crate::process::until;

/// The reason of a block, checked for everything that agent programs require; `None` when the worker may stop.
#[track_caller]
fn reason(mounted: &Mounted, worker: &str) -> Option<String> {
    let answer = mounted.sh(worker, "cat tasks/workers/self/should-stop").ok();
    if answer.is_empty() {
        return None;
    }
    assert!(answer.ends_with('\n') && answer.lines().count() == 1, "{answer:?}");
    let document: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let keys: Vec<_> = document.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!((keys, &document["decision"]), (vec!["decision", "reason"], &"block".into()));
    let reason = document["reason"].as_str().unwrap();
    assert!(!reason.trim().is_empty() && !reason.contains("$(") && !reason.contains('`'), "{reason}");
    Some(reason.to_string())
}

/// Check that the reason contains this text, such as the command to run.
#[track_caller]
fn says(mounted: &Mounted, worker: &str, expected: &str) {
    let reason = reason(mounted, worker).unwrap_or_else(|| panic!("{worker} may stop"));
    assert!(reason.contains(expected), "{expected:?} in {reason:?}");
}

#[test]
fn c60_a_worker_with_a_claim_is_told_to_finish_it() {
    let project = project!();
    project.task("a", "# A\n");
    let mounted = project.mount(&["idle_timeout=1s"]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    says(&mounted, "w1", "You hold a.");
    says(&mounted, "w1", "tasks/workers/self/task");
    // The command in the reason works exactly as printed.
    let told = reason(&mounted, "w1").unwrap();
    let command = &told[told.find("echo").unwrap()..];
    mounted.sh("w1", "touch tasks/workers/self/drain").ok();
    says(&mounted, "w1", "You hold a.");
    mounted.sh("w1", command).ok();
    assert_eq!(mounted.read("completed/a"), "what you did\n");
    assert_eq!(reason(&mounted, "w1"), None, "it drains and holds nothing");
}

#[test]
fn c60_a_worker_is_told_of_a_ready_task() {
    let project = project!();
    project.task("a", "# A\n");
    let mounted = project.mount(&["idle_timeout=1ms,tasks=tasks"]);
    says(&mounted, "w1", "a is ready. Claim it with: touch tasks/claim/next and then read");
    let told = reason(&mounted, "w1").unwrap();
    let command = told.split("with: ").nth(1).unwrap().split(" and").next().unwrap();
    mounted.sh("w1", command).ok();
    says(&mounted, "w1", "You hold a.");
    until("w2 has been idle for long enough", || reason(&mounted, "w2").is_none());
    mounted.sh("w1", "rm tasks/claim/a").ok();
    says(&mounted, "w2", "a is ready");
    mounted.operator("touch tasks/paused").ok();
    until("nothing may be claimed", || reason(&mounted, "w2").is_none());
    mounted.operator("rm tasks/paused && touch tasks/workers/w2/drain").ok();
    assert_eq!(reason(&mounted, "w2"), None);
    says(&mounted, "w1", "a is ready");
}

#[test]
fn c60_an_idle_worker_waits_for_a_while() {
    let project = project!();
    project.task("a", "# A\n");
    project.task("waits", "---\nneeds: [never]\n---\n");
    let mounted = project.mount(&["idle_timeout=2s"]);
    mounted.sh("w0", "touch tasks/claim/a").ok();
    let start = Instant::now();
    says(&mounted, "w1", "No task is ready yet. Wait a little, then look again: sleep 15; ls tasks/ready");
    let size = |name: &str| std::fs::metadata(mounted.desk(name)).unwrap().len();
    assert!(size("workers/w1/should-stop") > 0);
    let before = std::fs::metadata(mounted.desk("workers/w1/should-stop")).unwrap().modified().unwrap();
    until("the idle time is over", || reason(&mounted, "w1").is_none());
    assert!(start.elapsed().as_millis() >= 1_900, "{:?}", start.elapsed());
    // C1: the answer changed without an event, and its mtime shows that.
    assert_eq!(size("workers/w1/should-stop"), 0);
    let after = std::fs::metadata(mounted.desk("workers/w1/should-stop")).unwrap().modified().unwrap();
    assert!(before < after);
    // The idle time starts again when a claim ends.
    mounted.sh("w0", "touch tasks/completed/a").ok();
    says(&mounted, "w0", "No task is ready yet.");
}

#[test]
fn c60_the_tasks_directory_is_named_as_it_is() {
    let project = project!();
    std::fs::create_dir(project.source().join("work")).unwrap();
    std::fs::write(project.source().join("work/a.md"), "# A\n").unwrap();
    let mounted = project.mount(&["tasks=work"]);
    let answer = mounted.sh("w1", "cat work/workers/self/should-stop").ok();
    assert!(answer.contains("touch work/claim/next and then read work/workers/self/task"), "{answer}");
    mounted.sh("w1", "touch work/claim/next && cat workers/self/should-stop task-queue.json").ok();
    // Refusals name the directory as it is, too.
    mounted.sh("w2", "touch work/claim/a").refused("File exists");
    let why = mounted.read("workers/w2/why");
    assert!(why.contains("touch work/claim/next"), "{why}");
}

#[test]
fn c60_the_texts_of_users_keep_their_words_whatever_the_directory_is_called() {
    let project = project!();
    std::fs::create_dir(project.source().join("work")).unwrap();
    for (name, text) in [
        ("a.md", "# A\n"),
        ("b.md", "---\nneeds: [a]\n---\n# B\n"),
        ("c.md", "---\npriority: tasks/c\n---\n# C\n"),
    ] {
        std::fs::write(project.source().join("work").join(name), text).unwrap();
    }
    let mounted = project.mount(&["tasks=work"]);
    let why = || mounted.read("workers/w1/why");
    mounted.sh("w1", "touch work/claim/a && echo 'read tasks/notes.md first' > work/failed/a").ok();
    mounted.sh("w1", "touch work/claim/b").refused("Device or resource busy");
    let needs = "needs a, which failed (read tasks/notes.md first): move it to ready/";
    assert!(why().contains(needs), "{}", why());
    mounted.sh("w1", "touch work/claim/c").refused("No such file");
    assert!(why().contains("\"tasks/c\""), "{}", why());
    // crewfs' own messages name the directory as it is.
    mounted.sh("w1", "touch work/claim/a").refused("No such file");
    assert!(why().ends_with("to do it again: mv work/failed/a work/ready/\n"), "{}", why());
}

#[test]
fn c60_anybody_may_ask_for_anybody_and_nobody_waits() {
    let project = project!();
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    let start = Instant::now();
    for _ in 0..20 {
        let answer = mounted.read("workers/w1/should-stop");
        assert!(answer.starts_with(r#"{"decision":"block","reason":"You hold a."#), "{answer}");
    }
    assert!(start.elapsed().as_secs() < 2);
    mounted.sh("w1", "touch tasks/completed/a").ok();
    // After a restart every worker has the whole idle time again.
    drop(mounted);
    let mounted = project.mount(&[]);
    says(&mounted, "w1", "No task is ready yet.");
}
