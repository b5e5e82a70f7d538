//! Claiming: one winner in every form, never a second task, and a reason for the loser (C20–C22).

use crate::harness::{Mounted, project};
use crate::process::run;

/// Every way to claim a task, as a script in which `$T` is the task.
const FORMS: [(&str, &str); 9] = [
    ("touch", "touch tasks/claim/$T"),
    ("redirection", ": > tasks/claim/$T"),
    ("appending", ": >> tasks/claim/$T"),
    ("noclobber", "set -C; : > tasks/claim/$T"),
    ("mkdir", "mkdir tasks/claim/$T"),
    ("mv", "mv tasks/ready/$T tasks/claim/"),
    ("mv to the name", "mv -n tasks/ready/$T tasks/claim/$T"),
    ("ln", "ln tasks/ready/$T tasks/claim/$T"),
    ("cp", "cp /dev/null tasks/claim/$T"),
];

fn form(mounted: &Mounted, worker: &str, script: &str, task: &str) -> crate::process::Ran {
    let mut command = mounted.worker(worker);
    command.arg(script).env("T", task);
    run(command)
}

#[test]
fn c20_every_form_claims_and_the_claim_is_on_disk() {
    let project = project!();
    (0..FORMS.len()).for_each(|n| project.task(&format!("t{n}"), "# T\n"));
    let mut mounted = project.mount(&[]);
    for (n, (name, script)) in FORMS.iter().enumerate() {
        form(&mounted, "w1", script, &format!("t{n}")).ok();
        assert_eq!(mounted.json(&format!("status/t{n}"))["worker"], "w1", "{name}");
    }
    // The claims were answered with success: a crash undoes none of them.
    mounted.kill9();
    drop(mounted);
    let mounted = project.mount(&[]);
    for (n, (name, _)) in FORMS.iter().enumerate() {
        assert_eq!(mounted.json(&format!("status/t{n}"))["worker"], "w1", "{name}");
    }
}

#[test]
fn c20_it_is_proven_at_each_mount_that_the_kernel_waits_for_a_claim() {
    let project = project!();
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    assert_eq!(mounted.session()["create_waits"], false);
    // The probe leaves no file behind, and the daemon does not become a worker.
    let listed = mounted.sh("w1", "ls -A tasks/claim tasks/ready; ls tasks/workers").ok();
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["tasks/claim:", "", "tasks/ready:", "a", "self", "w1"]);
}

#[test]
fn c20_c22_who_comes_second_loses_in_every_form() {
    let project = project!();
    project.task("a", "# A\n");
    project.task("b", "# B\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    for (name, script) in FORMS {
        // For a lost move or link the source is gone; for every other form the target exists.
        let said = match name {
            "mv" | "mv to the name" | "ln" => "No such file",
            "noclobber" => "cannot overwrite existing file",
            _ => "File exists",
        };
        form(&mounted, "w2", script, "a").refused(said);
        assert_eq!(mounted.json("status/a")["worker"], "w1", "{name}");
    }
    for script in [
        "echo mine >> tasks/claim/a",
        "truncate -s 0 tasks/claim/a",
        "touch -d yesterday tasks/claim/a",
        "touch -c tasks/claim/a",
        "chmod 600 tasks/claim/a",
        "echo x > tasks/mine && ln tasks/mine tasks/claim/a",
        "echo x > tasks/mine && mv -f tasks/mine tasks/claim/a",
        "mv -f tasks/ready/b tasks/claim/a",
    ] {
        mounted.sh("w2", script).refused("File exists");
    }
    let status = mounted.json("status/a");
    assert_eq!(status["worker"], "w1");
    assert!(status["note"].is_null(), "{status}");
    assert!(mounted.sh("w2", "cat tasks/workers/self/why").ok().contains("a is held by w1 since"));
    assert_eq!(mounted.state("b"), "ready");
}

#[test]
fn c20_of_many_at_once_one_wins() {
    let project = project!();
    (0..20).for_each(|n| project.task(&format!("t{n}"), "# T\n"));
    let mounted = project.mount(&[]);
    let script = "for n in $(seq 0 19); do touch tasks/claim/t$n 2>/dev/null && echo $n; done; true";
    let won: Vec<String> = std::thread::scope(|scope| {
        let one = |n| mounted.sh(&format!("w{n}"), script).ok();
        let all: Vec<_> = (0..6).map(|n| scope.spawn(move || one(n))).collect();
        all.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut tasks: Vec<usize> = won.iter().flat_map(|w| w.lines()).map(|n| n.parse().unwrap()).collect();
    tasks.sort();
    assert_eq!(tasks, (0..20).collect::<Vec<_>>(), "each is won once: {won:?}");
    let claims = project.log().matches(r#""event":"claimed""#).count();
    assert_eq!(claims, 20);
}

#[test]
fn c21_claiming_the_best_is_idempotent() {
    let project = project!();
    project.task("b", "# B\n");
    project.task("a", "---\npriority: high\n---\n# A\nDo it.\n");
    let mounted = project.mount(&[]);
    assert_eq!(mounted.sh("w1", "readlink tasks/next").ok(), "ready/a\n");
    mounted.sh("w1", "! test -e tasks/claim/next && touch tasks/claim/next").ok();
    assert!(mounted.sh("w1", "cat tasks/workers/self/task").ok().ends_with("Do it.\n"));
    assert!(mounted.sh("w1", "cat tasks/claim/next").ok().contains(r#""task": "a""#));
    mounted.sh("w1", "touch tasks/claim/next && : > tasks/claim/next && : >> tasks/claim/next").ok();
    for again in ["mkdir tasks/claim/next", "mv tasks/next tasks/claim/"] {
        mounted.sh("w1", again).refused("File exists");
    }
    assert_eq!(mounted.json("workers/w1/status")["claims"], serde_json::json!(["a"]));
    // `claim/next` of one worker does not exist for another: each worker has its own.
    mounted.sh("w2", "test -e tasks/claim/next").exits(1, "");
    mounted.sh("w2", "mv tasks/next tasks/claim/").ok();
    assert_eq!(mounted.json("status/b")["worker"], "w2");
}

#[test]
fn c21_every_form_claims_the_best() {
    let project = project!();
    let forms = FORMS.iter().filter(|(name, _)| !matches!(*name, "mv" | "mv to the name" | "ln"));
    let forms: Vec<_> = forms.chain(&[("mv", "mv tasks/next tasks/claim/")]).collect();
    (0..forms.len()).for_each(|n| project.task(&format!("t{n}"), "# T\n"));
    let mounted = project.mount(&[]);
    for (n, (name, script)) in forms.iter().enumerate() {
        let worker = format!("w{n}");
        form(&mounted, &worker, script, "next").ok();
        let claims = &mounted.json(&format!("workers/{worker}/status"))["claims"];
        assert_eq!(claims.as_array().unwrap().len(), 1, "{name}");
    }
    mounted.sh("late", "touch tasks/claim/next").refused("No such file");
    let why = mounted.read("workers/late/why");
    assert!(why.contains("no task is ready: 0 blocked, 7 claimed by others"), "{why}");
}

#[test]
fn c22_what_cannot_be_claimed_says_why() {
    let project = project!();
    project.task("done", "# Done\n");
    project.task("lost", "# Lost\n");
    project.task("wrong", "---\npriority: soon\n---\n");
    project.task("waits", "---\nneeds: [open]\n---\n");
    project.task("open", "# Open\n");
    let mounted = project.mount(&[]);
    mounted.sh("w0", "touch tasks/claim/done && touch tasks/completed/done").ok();
    mounted.sh("w0", "touch tasks/claim/lost && touch tasks/failed/lost").ok();
    for (task, said, why) in [
        ("unknown", "No such file", "there is no task unknown"),
        ("done", "No such file", "done is already completed; to do it again: mv tasks/completed/done"),
        ("lost", "No such file", "lost is already failed; to do it again"),
        ("wrong", "No such file", "wrong is rejected: line 2: priority is \"soon\""),
        ("waits", "busy", "waits is blocked: "),
        ("-odd", "No such file", "can be no task"),
        ("a b", "No such file", "can be no task"),
    ] {
        for make in [format!("touch 'tasks/claim/{task}'"), format!("mkdir 'tasks/claim/{task}'")] {
            mounted.sh("w1", &make).refused(said);
            let said = mounted.read("workers/w1/why");
            assert!(said.contains(why), "{task}: {said}");
        }
    }
    mounted.operator("touch tasks/paused").ok();
    mounted.sh("w1", "touch tasks/claim/open").refused("Permission denied");
    mounted.sh("w1", "touch tasks/claim/next").refused("Permission denied");
    assert!(mounted.read("workers/w1/why").contains("the queue is paused"));
    assert!(mounted.read("status/open").contains("the queue is paused since"));
    mounted.operator("rm tasks/paused").ok();
    mounted.sh("w1", "touch tasks/workers/self/drain").ok();
    mounted.sh("w1", "touch tasks/claim/open").refused("Permission denied");
    assert!(mounted.read("workers/w1/why").contains("w1 is draining"));
    mounted.sh("w1", "rm tasks/workers/self/drain && touch tasks/claim/open").ok();
    assert_eq!(mounted.json("status/open")["worker"], "w1");
}

#[test]
fn c30_a_progress_note_is_what_the_holder_wrote() {
    let project = project!();
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "echo 'half way' > tasks/claim/a").ok();
    assert_eq!(mounted.json("claim/a")["note"], "half way");
    assert_eq!(mounted.json("workers/w1/status")["note"], "half way");
    mounted.sh("w1", "echo more > tasks/claim/next").ok();
    assert_eq!(mounted.json("queue.json")["a"]["note"], "more");
    mounted.sh("w1", "head -c 5000 /dev/zero | tr '\\0' x > tasks/claim/a").refused("File too large");
    assert_eq!(mounted.state("a"), "claimed");
}
