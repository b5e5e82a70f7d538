//! A task whose file is removed: how long crewfs waits for the file, which workers it notifies, and what it keeps (C14).

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Mounted, Project, as_root, project};
use crate::process::until;

const STATES: [&str; 6] = ["ready", "blocked", "rejected", "claimed", "completed", "failed"];
const GRACE: &str = "file_grace=300ms";
/// Longer than any test takes.
const LONG_GRACE: &str = "file_grace=60s";
const PUT: &str = "put() { printf -- '---\\ntitle: New\\n---\\n' > tasks/$1.md; }; ";

/// A task in each state, with this in its name. w1 holds or has finished those that are not open.
fn in_every_state(project: &Project, mounted: &Mounted, name: &str) {
    for state in STATES {
        let text = match state {
            "blocked" => "---\nneeds: [never]\n---\n".to_string(),
            "rejected" => "---\npriority: soon\n---\n".into(),
            _ => "# Old\n".into(),
        };
        project.task(&format!("{state}-{name}"), &text);
    }
    for state in ["completed", "failed"] {
        project.task(&format!("after-{state}-{name}"), &format!("---\nneeds: [{state}-{name}]\n---\n"));
    }
    mounted.until_state(&format!("after-failed-{name}"), "blocked");
    let script = format!(
        "set -e; cd tasks; touch claim/ready-{name}; rm claim/ready-{name}; touch claim/claimed-{name} claim/completed-{name}
        echo result > completed/completed-{name}; touch claim/failed-{name}; echo reason > failed/failed-{name}"
    );
    mounted.sh("w1", &script).ok();
}

/// Check what remains once all files of these tasks are gone and the grace is over.
fn stays_as_the_table_says(mounted: &Mounted, name: &str, how: &str) {
    for state in ["ready", "blocked", "rejected"] {
        until(&format!("{state}-{name} is withdrawn: {how}"), || {
            mounted.state(&format!("{state}-{name}")).is_empty()
        });
    }
    for state in ["claimed", "completed", "failed"] {
        let id = format!("{state}-{name}");
        until(&format!("{id} is without a file: {how}"), || {
            mounted.json(&format!("status/{id}"))["file"] == "missing"
        });
        let status = mounted.json(&format!("status/{id}"));
        assert_eq!((&status["status"], &status["worker"]), (&json!(state), &json!("w1")), "{how}");
        let directory = if state == "claimed" { "claim" } else { state };
        assert!(mounted.list(directory).contains(&id), "{how}");
    }
    assert!(
        mounted.json(&format!("status/claimed-{name}"))["why"]
            .as_str()
            .unwrap()
            .contains("its instructions were withdrawn")
    );
    assert_eq!(mounted.read(&format!("completed/completed-{name}")), "result\n", "{how}");
    assert_eq!(mounted.read(&format!("failed/failed-{name}")), "reason\n", "{how}");
    assert_eq!(mounted.state(&format!("after-completed-{name}")), "ready", "{how}");
    assert_eq!(mounted.state(&format!("after-failed-{name}")), "blocked", "{how}");
}

#[test]
fn c14_a_file_that_stays_away() {
    as_root!();
    let project = project!();
    let mut mounted = project.mount(&[GRACE]);
    let to_go = |name: &str, states: &[&str], what: &str| -> String {
        let files: Vec<_> = states.iter().map(|state| format!("tasks/{state}-{name}.md")).collect();
        what.replace("FILES", &files.join(" "))
    };
    let open = [&STATES[..3], &STATES[4..]].concat();
    for (name, worker, what) in [
        ("a", "w1", "rm FILES"),
        ("b", "w1", "for f in FILES; do mv $f $f.bak; done"),
        ("c", "w1", "mkdir -p tasks/old; mv FILES tasks/old/"),
        ("d", "", "rm FILES"),
        ("e", "", "mkdir -p other; mv FILES other/"),
        ("f", "w2", "rm FILES"),
        ("g", "w2", "for f in FILES; do mv $f $f.bak; done"),
    ] {
        in_every_state(&project, &mounted, name);
        let states = if worker == "w2" { &open[..] } else { &STATES };
        let script = to_go(name, states, what);
        let ran = if worker.is_empty() { mounted.operator(&script) } else { mounted.sh(worker, &script) };
        ran.ok();
        if worker == "w2" {
            mounted.sh("w2", &to_go(name, &["claimed"], what)).refused("busy");
            assert!(mounted.json(&format!("status/claimed-{name}"))["file"].is_null());
            mounted.sh("w1", &to_go(name, &["claimed"], what)).ok();
        }
        stays_as_the_table_says(&mounted, name, &format!("{what}, {worker}"));
    }
    for (name, what) in
        [("h", "rm FILES"), ("i", "for f in FILES; do mv $f $f.bak; done"), ("j", "mv FILES .")]
    {
        in_every_state(&project, &mounted, name);
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &to_go(name, &STATES, what)]).current_dir(project.source());
        crate::process::run(command).ok();
        stays_as_the_table_says(&mounted, name, &format!("{what}, beneath the mount"));
    }
    in_every_state(&project, &mounted, "k");
    mounted.stop();
    for state in STATES {
        fs::remove_file(project.tasks().join(format!("{state}-k.md"))).unwrap();
    }
    let mounted = project.mount(&[GRACE]);
    stays_as_the_table_says(&mounted, "k", "while nothing was mounted");
}

fn facts(mounted: &Mounted, id: &str) -> Value {
    let status = mounted.json(&format!("status/{id}"));
    let keys =
        ["status", "worker", "published", "attempts", "lost_claims", "result", "note", "epoch", "file"];
    keys.iter().map(|key| (key.to_string(), status[*key].clone())).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn c14_a_file_that_comes_back_in_time_is_an_edit() {
    let project = project!();
    let mut mounted = project.mount(&[LONG_GRACE]);
    in_every_state(&project, &mounted, "a");
    let ids: Vec<_> = STATES.iter().map(|state| format!("{state}-a")).collect();
    let look = |mounted: &Mounted| -> Vec<Value> { ids.iter().map(|id| facts(mounted, id)).collect() };
    let before = look(&mounted);
    assert_eq!(before[0]["lost_claims"][0]["reason"], "given back");
    let files: Vec<_> = ids.iter().map(|id| project.tasks().join(format!("{id}.md"))).collect();
    let texts: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let gone = |mounted: &Mounted| look(mounted).iter().all(|task| task["file"] == "missing");
    let back = || files.iter().zip(&texts).for_each(|(file, text)| fs::write(file, text).unwrap());
    let is_as_before = |mounted: &Mounted, how: &str| {
        until(&format!("all is as before: {how}"), || look(mounted) == before);
    };
    // Through the mount.
    mounted.sh("w1", "cd tasks; for t in *-a.md; do case $t in after*) ;; *) mv $t $t.bak; esac; done").ok();
    assert!(gone(&mounted));
    mounted.sh("w2", "cd tasks; for t in *.bak; do cp $t ${t%.bak}; done").ok();
    is_as_before(&mounted, "through the mount");
    // Beneath it.
    files.iter().for_each(|file| fs::remove_file(file).unwrap());
    until("all are gone", || gone(&mounted));
    back();
    is_as_before(&mounted, "beneath the mount");
    // The file is removed while mounted and restored while unmounted; then the other way round.
    mounted.sh("w1", "rm tasks/{ready,blocked,rejected,claimed,completed,failed}-a.md").ok();
    mounted.stop();
    back();
    let mut mounted = project.mount(&[LONG_GRACE]);
    is_as_before(&mounted, "back while nothing was mounted");
    mounted.stop();
    files.iter().for_each(|file| fs::remove_file(file).unwrap());
    let mut mounted = project.mount(&[LONG_GRACE]);
    assert!(gone(&mounted));
    // A crash keeps all of that.
    mounted.kill9();
    drop(mounted);
    let mounted = project.mount(&[LONG_GRACE]);
    assert!(gone(&mounted));
    back();
    is_as_before(&mounted, "after a crash");
}

#[test]
fn c14_a_task_without_a_file_cannot_be_claimed() {
    let project = project!();
    let mounted = project.mount(&[LONG_GRACE]);
    for (n, place) in ["through", "beneath"].iter().enumerate() {
        let id = format!("t{n}");
        project.task(&id, "# T\n");
        project.task("worse", "---\npriority: low\n---\n");
        mounted.until_state("worse", "ready");
        mounted.until_state(&id, "ready");
        let file = format!("tasks/{id}.md");
        if *place == "through" {
            mounted.sh("w2", &format!("rm {file}; touch tasks/claim/{id}")).refused("busy");
        } else {
            fs::remove_file(project.source().join(&file)).unwrap();
            mounted.until_state(&id, "blocked");
        }
        for claim in [
            "touch tasks/claim/$T",
            "echo note > tasks/claim/$T",
            "mkdir tasks/claim/$T",
            "mv tasks/blocked/$T tasks/claim/",
            "ln tasks/blocked/$T tasks/claim/$T",
        ] {
            mounted.sh("w1", &claim.replace("$T", &id)).refused("busy");
            assert!(mounted.read("workers/w1/why").contains("its file is being replaced"), "{claim}");
        }
        mounted.sh("w1", &format!("mv tasks/ready/{id} tasks/claim/")).refused("No such file");
        assert_eq!(mounted.read(&format!("blocked/{id}")), "its file is being replaced\n");
        assert_eq!(mounted.json(&format!("status/{id}"))["file"], "missing");
        assert_eq!(mounted.sh("w1", "readlink tasks/next; touch tasks/claim/next").ok(), "ready/worse\n");
        assert_eq!(mounted.json("workers/w1/status")["claims"], json!(["worse"]));
        // A task that is published under the name is ready before its writer goes on.
        mounted
            .sh(
                "w1",
                &format!("rm tasks/claim/next; {PUT} put {id}; touch tasks/claim/{id}; rm tasks/claim/{id}"),
            )
            .ok();
        assert_eq!(mounted.json(&format!("status/{id}"))["title"], "New");
        mounted.sh("w1", &format!("touch tasks/claim/{id} && touch tasks/completed/{id}")).ok();
    }
    assert!(!project.log().contains("withdrawn"));
}

#[test]
fn c14_the_holder_of_a_task_is_told_that_its_file_is_gone() {
    as_root!();
    let project = project!();
    ["a", "b", "c", "d"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[GRACE]);
    for (n, place) in ["holder", "operator", "beneath"].iter().enumerate() {
        let id = ["a", "b", "c"][n];
        mounted.sh("w1", &format!("echo 'half way' > tasks/claim/{id}")).ok();
        let epoch = mounted.json(&format!("status/{id}"))["epoch"].clone();
        match *place {
            "holder" => drop(mounted.sh("w1", &format!("rm tasks/{id}.md")).ok()),
            "operator" => drop(mounted.operator(&format!("mv tasks/{id}.md {id}.md")).ok()),
            _ => fs::remove_file(project.tasks().join(format!("{id}.md"))).unwrap(),
        }
        until("it is seen", || mounted.json(&format!("status/{id}"))["file"] == "missing");
        let status = mounted.json(&format!("claim/{id}"));
        assert!(status["why"].as_str().unwrap().contains("its instructions were withdrawn at"), "{status}");
        assert_eq!((&status["note"], &status["epoch"]), (&json!("half way"), &epoch), "{place}");
        let told = mounted.sh("w1", "cat tasks/workers/self/why").ok();
        assert!(
            told.contains(&format!("you work on {id}: its instructions were withdrawn at")),
            "{place}: {told}"
        );
        let stop = mounted.sh("w1", "cat tasks/workers/self/should-stop").ok();
        assert!(
            stop.contains(&format!("You hold {id}, but its instructions were withdrawn")),
            "{place}: {stop}"
        );
        // This takes longer than the grace: a task of another name is withdrawn meanwhile.
        mounted.sh("w1", "echo '# T' > tasks/marker.md; ls tasks/ready/marker; rm tasks/marker.md").ok();
        mounted.until_state("marker", "");
        assert_eq!(mounted.state(id), "claimed", "{place}");
        // The holder works on as before, and publishing the task again is an edit.
        mounted.sh("w1", &format!("echo more > tasks/claim/{id}; {PUT} put {id}")).ok();
        let status = mounted.json(&format!("status/{id}"));
        assert_eq!(
            (&status["status"], &status["file"], &status["epoch"]),
            (&json!("claimed"), &Value::Null, &epoch)
        );
        assert_eq!(mounted.sh("w1", "cat tasks/workers/self/task").ok(), "---\ntitle: New\n---\n");
        let stop = mounted.sh("w1", "cat tasks/workers/self/should-stop").ok();
        assert!(stop.contains(&format!("You hold {id}. Read")), "{stop}");
        mounted.sh("w1", &format!("rm tasks/{id}.md; echo done > tasks/completed/{id}")).ok();
        let status = mounted.json(&format!("status/{id}"));
        assert_eq!((&status["status"], &status["file"]), (&json!("completed"), &json!("missing")));
        assert_eq!(mounted.read(&format!("completed/{id}")), "done\n");
    }
}

#[test]
fn c14_a_claim_that_ends_without_a_file() {
    as_root!();
    let project = project!();
    let mounted = project.mount(&[LONG_GRACE]);
    for (id, end) in [
        ("returned", "rm tasks/claim/returned"),
        ("moved", "mv tasks/claim/moved tasks/ready/"),
        ("taken", "by an operator"),
        ("silent", "by the lease"),
    ] {
        let lease = if id == "silent" { "lease: 1s\n" } else { "" };
        project.task(id, &format!("---\ntitle: T\n{lease}---\n"));
        mounted.until_state(id, "ready");
        mounted.sh("w1", &format!("touch tasks/claim/{id}; rm tasks/{id}.md")).ok();
        match id {
            "taken" => drop(mounted.operator("rm tasks/claim/taken").ok()),
            "silent" => {}
            _ => drop(mounted.sh("w1", end)),
        }
        mounted.until_state(id, "blocked");
        assert_eq!(mounted.read(&format!("blocked/{id}")), "its file is being replaced\n", "{end}");
        mounted.sh("w2", &format!("touch tasks/claim/{id}")).refused("busy");
    }
    // Within the grace, a new file continues the same task with its history.
    mounted.sh("w2", "echo '# T' > tasks/taken.md").ok();
    assert_eq!(mounted.state("taken"), "ready");
    assert!(mounted.read("status/taken").contains("taken away by root"));
    drop(mounted);
    let mounted = project.mount(&[GRACE]);
    for id in ["returned", "moved", "silent"] {
        mounted.until_state(id, "");
    }
    let log = project.log();
    assert_eq!(log.matches(r#""event":"withdrawn""#).count(), 3, "{log}");
}

#[test]
fn c14_only_an_operator_forgets_a_finished_task_and_only_without_its_file() {
    as_root!();
    let project = project!();
    for state in ["completed", "failed"] {
        project.task(state, "# T\n");
        project.task(&format!("after-{state}"), &format!("---\nneeds: [{state}]\n---\n"));
    }
    let mounted = project.mount(&[GRACE]);
    mounted.sh("w1", "cd tasks/claim; touch completed failed; echo done > ../completed/completed; echo why > ../failed/failed").ok();
    for state in ["completed", "failed"] {
        let forget = format!("rm -f tasks/{state}/{state}");
        mounted.sh("w1", &forget).refused("");
        mounted.operator(&forget).refused("Operation not permitted");
        mounted.sh("w2", &format!("rm tasks/{state}.md")).ok();
        let back = format!("mv tasks/{state}/{state} tasks/ready/");
        mounted.sh("w1", &back).refused("No such file");
        assert!(mounted.read("workers/w1/why").contains("has no instructions any more"));
        for worker in ["w1", "w2"] {
            mounted.sh(worker, &forget).refused("Permission denied");
            assert_eq!(mounted.state(state), state);
        }
        // Published again, it is the same task, and it is finished.
        let published = mounted.json(&format!("status/{state}"))["published"].clone();
        mounted.sh("w2", &format!("{PUT} put {state}")).ok();
        assert_eq!(mounted.state(state), state);
        assert!(mounted.json(&format!("status/{state}"))["file"].is_null());
        mounted.operator(&forget).refused("Operation not permitted");
        mounted.sh("w2", &format!("touch tasks/claim/{state}")).refused("No such file");
        mounted.sh("w2", &back).ok();
        let status = mounted.json(&format!("status/{state}"));
        assert_eq!((&status["status"], &status["title"]), (&json!("ready"), &json!("New")));
        assert_eq!(status["published"], published);
        mounted
            .sh(
                "w2",
                &format!(
                    "touch tasks/claim/{state}; echo again > tasks/{state}/{state}; rm tasks/{state}.md"
                ),
            )
            .ok();
        mounted.operator(&forget).ok();
        assert_eq!(mounted.state(state), "");
        assert!(!mounted.list(state).contains(&state.to_string()));
        let log = project.log();
        assert!(log.contains(&format!(r#""event":"forgotten","task":"{state}","by":"root"}}"#)), "{log}");
        mounted.operator(&forget.replace("rm -f", "rm")).refused("No such file");
    }
    // A met need stays met until its id is published again, which makes a new task.
    assert_eq!(
        (mounted.state("after-completed"), mounted.state("after-failed")),
        ("ready".into(), "blocked".into())
    );
    mounted.sh("w2", &format!("{PUT} put completed; put failed")).ok();
    assert_eq!((mounted.state("completed"), mounted.state("failed")), ("ready".into(), "ready".into()));
    assert_eq!(mounted.state("after-completed"), "blocked");
    assert_eq!(mounted.json("status/completed").get("lost_claims"), None);
}

#[test]
fn c14_what_other_workers_may_not_take_away() {
    let project = project!();
    ["held", "other", "done"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[GRACE]);
    mounted.sh("w1", "touch tasks/claim/held tasks/claim/done; echo done > tasks/completed/done").ok();
    for script in [
        "rm -f tasks/held.md",
        "unlink tasks/held.md",
        "mv tasks/held.md tasks/new.md",
        "mv tasks/held.md tasks/held.md~",
        "mv tasks/held.md .",
        "mv -f tasks/held.md tasks/other.md",
        "mv -f tasks/held.md tasks/done.md",
        "python3 -c \"import os; os.unlink('tasks/held.md')\"",
        "python3 -c \"import os; os.rename('tasks/held.md', 'tasks/.held')\"",
    ] {
        mounted.sh("w2", script).refused("busy");
        let status = mounted.json("status/held");
        assert_eq!((&status["worker"], &status["file"]), (&json!("w1"), &Value::Null), "{script}");
        mounted.sh("w1", "test -e tasks/held.md").ok();
    }
    assert!(mounted.read("workers/w2/why").contains("held is being worked on by w1"));
    // A change that leaves a file at the name is an edit.
    mounted.sh("w2", &format!("{PUT} put held; echo '# T' > tasks/.new; mv tasks/.new tasks/held.md; mv tasks/other.md tasks/held.md")).ok();
    assert_eq!(mounted.json("status/held")["worker"], "w1");
    mounted.until_state("other", "");
    mounted.sh("w2", "echo '# T' > tasks/more.md; mv tasks/more.md tasks/done.md").ok();
    let status = mounted.json("status/done");
    assert_eq!(
        (&status["status"], &status["file"], &status["result"]),
        (&json!("completed"), &Value::Null, &json!("done"))
    );
    mounted.until_state("more", "");
}
