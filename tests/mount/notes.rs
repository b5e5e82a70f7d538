//! Notes. A note does not claim a task again for a worker that lost it (C28). Also the effects of changes that an operator makes by hand.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Mounted, as_root, project};
use crate::process::until;

#[test]
fn c28_a_workers_note_is_that_of_its_youngest_claim() {
    as_root!();
    let project = project!();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    let note = "tasks/workers/self/note";
    let nothing = "w1 holds no task, so there is nothing to note; claim one: touch tasks/claim/next";
    for write in
        [format!("echo x > {note}"), format!("echo x >> {note}"), format!("set -C; echo x >| {note}")]
    {
        mounted.sh("w1", &write).refused("Permission denied");
        assert!(mounted.sh("w1", "cat tasks/workers/self/why").ok().contains(nothing), "{write}");
    }
    assert_eq!(mounted.list("claim"), [""; 0]);
    mounted.sh("w1", &format!("touch tasks/claim/a; cat {note}; echo 'half way' > {note}")).ok();
    assert_eq!(mounted.sh("w1", &format!("cat {note}; stat -c %s {note}")).ok(), "half way\n9\n");
    assert_eq!(mounted.json("status/a")["note"], "half way");
    assert_eq!(mounted.json("workers/w1/status")["note"], "half way");
    mounted.sh("w1", &format!("touch tasks/claim/b; echo 'of b' > {note}; echo 'of a' > tasks/claim/a")).ok();
    assert_eq!(
        (&mounted.json("status/a")["note"], &mounted.json("status/b")["note"]),
        (&json!("of a"), &json!("of b"))
    );
    assert_eq!(mounted.sh("w1", &format!("cat {note}")).ok(), "of b\n");
    // As editors and agents write a note.
    mounted.sh("w1", "python3 -c \"open('tasks/workers/self/note', 'w').write('by python')\"").ok();
    assert_eq!(mounted.sh("w1", &format!("cat {note}")).ok(), "by python\n");
    // The note belongs to its worker.
    mounted.sh("w2", "echo x > tasks/workers/w1/note").refused("Permission denied");
    assert!(mounted.read("workers/w2/why").contains("only w1 and operators write the note of w1"));
    mounted.sh("w2", "touch tasks/workers/w2/x").refused("");
    assert_eq!(mounted.sh("w2", "cat tasks/workers/w1/note").ok(), "by python\n");
    mounted.operator("echo 'by hand' > tasks/workers/w1/note").ok();
    assert_eq!(mounted.json("status/b")["note"], "by hand");
    mounted.sh("w1", &format!("head -c 5000 /dev/zero | tr '\\0' x > {note}")).refused("File too large");
    for forbidden in [format!("rm -f {note}"), format!("mv {note} x"), format!("mkdir {note}2")] {
        mounted.sh("w1", &forbidden).refused("");
    }
    mounted.sh("w1", &format!("rm tasks/claim/next; cat {note}")).ok();
    assert_eq!(mounted.sh("w1", &format!("cat {note}")).ok(), "of a\n");
    mounted
        .sh("w1", &format!("exec 3> {note}; rm tasks/claim/a; echo late >&3"))
        .refused("Permission denied");
    assert_eq!(mounted.sh("w1", &format!("cat {note}")).ok(), "");
}

/// Ways to write a note into a claim.
const NOTES: [&str; 3] =
    ["echo x > tasks/claim/$T", "echo x >> tasks/claim/$T", "printf x | tee tasks/claim/$T"];
/// Ways to claim a task, also after a lost claim.
const CLAIMS: [&str; 6] = [
    "touch tasks/claim/$T",
    "mkdir tasks/claim/$T",
    "mv tasks/ready/$T tasks/claim/",
    "ln tasks/ready/$T tasks/claim/$T",
    "set -C; > tasks/claim/$T",
    "touch tasks/claim/next",
];

fn a_note_claims_nothing(mounted: &Mounted, worker: &str, id: &str, how: &str) {
    mounted.until_state(id, "ready");
    for target in [id, "next"] {
        for note in NOTES {
            mounted.sh(worker, &note.replace("$T", target)).refused("Permission denied");
            let why = mounted.read(&format!("workers/{worker}/why"));
            assert!(
                why.contains("a note claims nothing anew: to claim again: touch tasks/claim/"),
                "{how}, {note}: {why}"
            );
            assert_eq!(mounted.state(id), "ready", "{how}, {note}");
        }
    }
}

#[test]
fn c28_a_note_claims_nothing_for_a_worker_that_lost_the_task() {
    as_root!();
    let project = project!();
    let mut mounted = project.mount(&[]);
    let end = |mounted: &Mounted, id: &str, worker: &str, how: &str| match how {
        "by an operator's rm" => drop(mounted.operator(&format!("rm tasks/claim/{id}")).ok()),
        "by an operator's mv" => drop(mounted.operator(&format!("mv tasks/claim/{id} tasks/ready/")).ok()),
        "by an operator who finished it" => {
            drop(
                mounted
                    .operator(&format!("echo x > tasks/completed/{id}; mv tasks/completed/{id} tasks/ready/"))
                    .ok(),
            );
        }
        "by the lease" => until("its lease runs out", || mounted.state(id) == "ready"),
        "by the end of its process" => drop(mounted.sh(worker, "kill -9 $$")),
        _ => unreachable!(),
    };
    let hows = [
        "by an operator's rm",
        "by an operator's mv",
        "by an operator who finished it",
        "by the lease",
        "by the end of its process",
    ];
    for (n, how) in hows.iter().enumerate() {
        let (id, worker) = (format!("t{n}"), format!("w{n}"));
        let lease = if *how == "by the lease" { "lease: 1s\n" } else { "" };
        project.task(&id, &format!("---\nattempts: 100\n{lease}---\n"));
        mounted.until_state(&id, "ready");
        if *how == "by the end of its process" {
            drop(mounted.sh(&worker, &format!("touch tasks/claim/{id}; kill -9 $$")));
        } else {
            mounted.sh(&worker, &format!("touch tasks/claim/{id}")).ok();
            end(&mounted, &id, &worker, how);
        }
        a_note_claims_nothing(&mounted, &worker, &id, how);
        // The loss is remembered through a restart and through another worker's claim of the task.
        if n == 0 {
            mounted.kill9();
            drop(mounted);
            mounted = project.mount(&[]);
            a_note_claims_nothing(&mounted, &worker, &id, how);
        }
        mounted.sh("other", &format!("echo mine > tasks/claim/{id}; rm tasks/claim/{id}")).ok();
        for note in NOTES {
            mounted.sh(&worker, &note.replace("$T", &id)).refused("Permission denied");
        }
        if *how != "by the lease" {
            for claim in CLAIMS {
                mounted.sh(&worker, &claim.replace("$T", &id)).ok();
                assert_eq!(mounted.json(&format!("status/{id}"))["worker"], json!(worker), "{how}, {claim}");
                // The worker holds the task again, so it may write notes.
                mounted.sh(&worker, &format!("echo again > tasks/claim/{id}")).ok();
                mounted.operator(&format!("rm tasks/claim/{id}")).ok();
            }
        }
        // After the worker itself gives the task back, a note claims it again.
        mounted
            .sh(&worker, &format!("touch tasks/claim/{id}; rm tasks/claim/{id}; echo new > tasks/claim/{id}"))
            .ok();
        assert_eq!(mounted.json(&format!("status/{id}"))["note"], "new", "{how}");
        mounted.sh(&worker, &format!("rm tasks/claim/{id}; echo newer > tasks/claim/next")).ok();
        mounted.sh(&worker, &format!("touch tasks/completed/{id}")).ok();
    }
}

#[test]
fn c28_a_note_claims_for_a_worker_that_never_held_the_task() {
    let project = project!();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    mounted.sh("w1", "echo first > tasks/claim/a").ok();
    assert_eq!(mounted.json("status/a")["note"], "first");
    mounted.sh("w2", "echo x > tasks/claim/a").refused("File exists");
    mounted.sh("w1", "mv tasks/claim/a tasks/ready/; echo second >> tasks/claim/a").ok();
    assert_eq!(mounted.json("status/a")["note"], "second");
    mounted.operator("rm tasks/claim/a").ok();
    // The worker never lost a claim of the other task, b.
    mounted.sh("w1", "echo x > tasks/claim/a").refused("Permission denied");
    mounted.sh("w1", "echo third > tasks/claim/b").ok();
    assert_eq!(mounted.json("status/b")["worker"], "w1");
    mounted.sh("w2", "echo x > tasks/claim/next").ok();
    assert_eq!(mounted.json("status/a")["worker"], "w2");
}

#[test]
fn c24_an_operator_who_finishes_a_claimed_task_is_named() {
    as_root!();
    let project = project!();
    for (n, (directory, script)) in [
        ("completed", "echo 'by hand' > tasks/completed/$T"),
        ("failed", "echo 'by hand' > tasks/failed/$T"),
        ("completed", "mv tasks/claim/$T tasks/completed/"),
        ("failed", "touch tasks/failed/$T"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("t{n}");
        project.task(&id, "# T\n");
        let mounted = project.mount(&[]);
        mounted.sh("w1", &format!("touch tasks/claim/{id}")).ok();
        mounted.operator(&script.replace("$T", &id)).ok();
        let status = mounted.json(&format!("status/{id}"));
        assert_eq!(
            (&status["status"], &status["worker"], &status["finished_by"]),
            (&json!(directory), &Value::Null, &json!("root"))
        );
        let log = project.log();
        let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of_task: Vec<_> = events.iter().filter(|event| event["task"] == json!(id)).collect();
        let at = of_task.iter().position(|event| event["event"] == "returned").unwrap();
        assert_eq!(of_task[at]["worker"], "w1");
        assert_eq!(of_task[at]["reason"], json!({"kind": "taken_away", "by": "root"}));
        let finished = of_task[at + 1];
        assert_eq!((&finished["event"], &finished["by"]), (&json!(directory), &json!("root")));
        assert_eq!(finished.get("worker"), None, "{finished}");
        let worker = mounted.json("workers/w1/status");
        assert_eq!(
            (&worker["completed"], &worker["failed"], &worker["status"]),
            (&json!(0), &json!(0), &json!("idle"))
        );
        let why = mounted.read("workers/w1/why");
        assert!(
            why.contains(&format!("your claim of {id} ended: taken away by root; root has {directory} it")),
            "{why}"
        );
        mounted.sh("w1", &format!("echo late > tasks/{directory}/{id}")).refused("Permission denied");
        mounted.operator(&format!("echo more > tasks/{directory}/{id}")).ok();
        assert_eq!(mounted.read(&format!("{directory}/{id}")), "more\n");
    }
}

#[test]
fn capabilities_that_are_too_long_change_nothing() {
    let project = project!();
    project.task("a", "---\nrequires: [rust]\n---\n");
    let mounted = project.mount(&[]);
    let file = "tasks/workers/self/capabilities";
    mounted.sh("w1", &format!("echo rust > {file}")).ok();
    for write in [
        format!("head -c 5000 /dev/zero | tr '\\0' x > {file}"),
        format!("head -c 5000 /dev/zero | tr '\\0' x >> {file}"),
        format!("seq 2000 > {file}"),
        format!("seq 2000 | dd of={file} bs=1000 status=none"),
        format!("truncate -s 5000 {file}"),
    ] {
        mounted.sh("w1", &write).refused("File too large");
        assert_eq!(mounted.sh("w1", &format!("cat {file}")).ok(), "rust\n", "{write}");
    }
    mounted.sh("w1", "touch tasks/claim/a").ok();
}

#[test]
fn c24_a_result_of_no_task_is_not_found() {
    let project = project!();
    project.task("sedabc", "# T\n");
    let mounted = project.mount(&[]);
    for name in ["sedx", "sed", "sedan", "sedabcd", "none", "sed123456", "sedAbC1x9"] {
        for directory in ["completed", "failed"] {
            mounted.sh("w1", &format!("echo x > tasks/{directory}/{name}")).refused("No such file");
            mounted.sh("w1", &format!("mkdir tasks/{directory}/{name}")).refused("No such file");
            assert_eq!(mounted.list(directory), [""; 0], "{name}");
        }
    }
    mounted
        .sh(
            "w1",
            "touch tasks/claim/sedabc; echo x > tasks/completed/sedabc; sed -i s/x/y/ tasks/completed/sedabc",
        )
        .ok();
    assert_eq!(mounted.read("completed/sedabc"), "y\n");
}

#[test]
fn c40_a_name_that_is_none_reads_and_is_told_why_it_changes_nothing() {
    let project = project!();
    project.task("a", "# T\n");
    project.task("done", "# T\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/done && touch tasks/completed/done").ok();
    let bad = "my worker";
    for change in [
        "touch tasks/claim/a",
        "touch tasks/claim/next",
        "echo x > tasks/claim/a",
        "mv tasks/ready/a tasks/claim/",
        "echo x > tasks/completed/a",
        "mv tasks/completed/done tasks/ready/",
        "echo x > tasks/workers/self/note",
        "echo x > tasks/workers/self/capabilities",
        "touch tasks/workers/self/drain",
        "touch tasks/paused",
    ] {
        mounted.sh(bad, change).refused("Permission denied");
        let why = mounted.sh(bad, "cat tasks/workers/self/why").ok();
        assert!(why.contains("my worker"), "{change}: {why}");
    }
    assert_eq!(mounted.sh(bad, "cat tasks/workers/self/should-stop").ok(), "");
    let read = "cd tasks; cat queue.json workers.json summary.json status/a ready/a a.md next events.jsonl metrics.prom; ls -R";
    mounted.sh(bad, &format!("{{ {read}; }} > /dev/null")).ok();
    assert_eq!((mounted.state("a"), mounted.state("done")), ("ready".into(), "completed".into()));
    // Every user may write a file of the project.
    let _ = fs::remove_file(project.tasks().join("b.md"));
}

#[test]
fn c11_a_cycle_over_a_completed_need_is_none() {
    let project = project!();
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a && touch tasks/completed/a").ok();
    // Now a needs b, and b needs a: but a is completed.
    mounted.sh("w1", "printf -- '---\\nneeds: [b]\\n---\\n' > tasks/a.md; printf -- '---\\nneeds: [a]\\n---\\n' > tasks/b.md").ok();
    assert_eq!((mounted.state("a"), mounted.state("b")), ("completed".into(), "ready".into()));
    mounted.sh("w1", "mv tasks/completed/a tasks/ready/").refused("busy");
    let why = mounted.read("workers/w1/why");
    assert!(
        why.contains("a cannot be done again: its needs form a cycle")
            && why.contains("change the needs of one of them first"),
        "{why}"
    );
    assert_eq!((mounted.state("a"), mounted.state("b")), ("completed".into(), "ready".into()));
    // Once b is completed as well, no cycle is left.
    mounted
        .sh("w1", "touch tasks/claim/b && touch tasks/completed/b && mv tasks/completed/a tasks/ready/")
        .ok();
    assert_eq!((mounted.state("a"), mounted.state("b")), ("ready".into(), "completed".into()));
    mounted.sh("w1", "mv tasks/completed/b tasks/ready/").refused("busy");
    mounted.sh("w1", "echo '# A' > tasks/a.md; mv tasks/completed/b tasks/ready/").ok();
    assert_eq!((mounted.state("a"), mounted.state("b")), ("ready".into(), "blocked".into()));
    // Completing one of its tasks by hand breaks a real cycle.
    mounted.sh("w1", "printf -- '---\\nneeds: [b]\\n---\\n' > tasks/a.md; ls tasks/rejected/a").ok();
    assert_eq!((mounted.state("a"), mounted.state("b")), ("rejected".into(), "blocked".into()));
}
