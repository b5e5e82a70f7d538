//! The text of a task is only for users that may read its file (C18).

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::{Mounted, Project, as_root, project};
use crate::process::{Ran, until};

const OWNER: u32 = 1_001;
const OTHER: u32 = 1_002;

fn owner(mounted: &Mounted, script: &str) -> Ran {
    mounted.sh_as(OWNER, "u1", script)
}

fn other(mounted: &Mounted, script: &str) -> Ran {
    mounted.sh_as(OTHER, "u2", script)
}

/// Every place of the desk where the other user can read a secret.
fn leaks(mounted: &Mounted) -> String {
    let places = "grep -rslI SECRET tasks tasks/next tasks/claim/next tasks/workers/self/; true";
    other(mounted, places).ok()
}

/// Check that the other user reads no secret anywhere on the desk, and that the owner reads it in this file.
#[track_caller]
fn only_the_owner_reads(mounted: &Mounted, file: &str) {
    assert_eq!(leaks(mounted), "");
    owner(mounted, &format!("grep -q SECRET tasks/{file}")).ok();
    assert!(mounted.read(file).contains("SECRET"), "root reads {file}");
}

/// A project whose queue every user may change.
fn shared(project: &Project) -> Mounted {
    project.is_for_everybody();
    project.mount(&[])
}

const SECRET: &str = r"umask 077; printf -- '---
title: A title
priority: critical
context: [SECRET-file]
owns: [SECRET/**]
---
SECRET text
' > tasks/p.md";

#[test]
fn c18_a_private_task_is_shown_without_its_text_and_claimed_by_none_who_cannot_read_it() {
    as_root!();
    let project = project!();
    let mounted = shared(&project);
    owner(&mounted, SECRET).ok();
    only_the_owner_reads(&mounted, "ready/p");
    only_the_owner_reads(&mounted, "status/p");
    only_the_owner_reads(&mounted, "queue.json");
    only_the_owner_reads(&mounted, "events.jsonl");
    let seen: Value = serde_json::from_str(&other(&mounted, "cat tasks/status/p").ok()).unwrap();
    assert_eq!((&seen["title"], &seen["status"]), (&"A title".into(), &"ready".into()));
    assert_eq!((&seen["private"], seen.get("owns")), (&true.into(), None));
    let queue: Value = serde_json::from_str(&other(&mounted, "cat tasks/queue.json").ok()).unwrap();
    assert_eq!(queue["p"]["title"], "A title");
    // The other user cannot claim the task in any way.
    for claim in [
        "touch tasks/claim/p",
        "echo note > tasks/claim/p",
        "mkdir tasks/claim/p",
        "mv tasks/ready/p tasks/claim/",
        "mv tasks/ready/p tasks/claim/next",
        "cat tasks/ready/p",
    ] {
        other(&mounted, claim).refused("Permission denied");
        let why = mounted.read("workers/u2/why");
        assert!(
            why.contains("p is not for u2, who may not read tasks/p.md; take another one"),
            "{claim}: {why}"
        );
    }
    other(&mounted, "touch tasks/claim/next").refused("No such file");
    assert!(mounted.read("workers/u2/why").contains("nothing that is ready is for u2: the files of 1 tasks"));
    let stop = "cat tasks/workers/self/should-stop; readlink tasks/next; true";
    assert!(other(&mounted, stop).ok().contains("No task is ready yet"));
    // `next` passes over the private task for the other user, and offers it to its owner.
    project.task("q", "# Q\n");
    mounted.until_state("q", "ready");
    assert_eq!(other(&mounted, "readlink tasks/next").ok(), "ready/q\n");
    assert!(other(&mounted, stop).ok().contains("q is ready"));
    other(&mounted, "mv tasks/next tasks/claim/").ok();
    assert_eq!(mounted.json("status/q")["worker"], "u2");
    owner(&mounted, "touch tasks/claim/next").ok();
    assert_eq!(mounted.json("status/p")["worker"], "u1");
    other(&mounted, "cat tasks/workers/u1/task").refused("Permission denied");
    owner(&mounted, "grep SECRET tasks/workers/self/task").ok();
}

#[test]
fn c18_notes_results_and_reasons_of_a_private_task_are_private() {
    as_root!();
    let project = project!();
    let mounted = shared(&project);
    owner(&mounted, SECRET).ok();
    project.task("waits", "---\nneeds: [p]\n---\n");
    owner(&mounted, "touch tasks/claim/p && echo SECRET note > tasks/claim/p").ok();
    for place in ["claim/p", "workers/u1/note", "workers/u1/status", "workers.json", "dashboard.html"] {
        only_the_owner_reads(&mounted, place);
    }
    owner(&mounted, "echo SECRET reason > tasks/failed/p").ok();
    for place in ["failed/p", "summary.json", "dashboard.html", "events.jsonl"] {
        only_the_owner_reads(&mounted, place);
    }
    assert!(mounted.read("blocked/waits").contains("it needs p, which failed (SECRET reason): move it"));
    assert!(other(&mounted, "cat tasks/blocked/waits").ok().contains("it needs p, which failed: move it"));
    other(&mounted, "touch tasks/claim/waits").refused("busy");
    other(&mounted, "cat tasks/failed/p").refused("Permission denied");
    owner(
        &mounted,
        "mv tasks/failed/p tasks/ready/ && touch tasks/claim/p && echo SECRET result > tasks/completed/p",
    )
    .ok();
    only_the_owner_reads(&mounted, "completed/p");
    // Every line is at the same offset for every user, and is an event.
    let (all, some) = (mounted.read("events.jsonl"), other(&mounted, "cat tasks/events.jsonl").ok());
    assert_eq!(all.len(), some.len());
    for (line, bare) in all.lines().zip(some.lines()) {
        let (line, bare): (Value, Value) =
            (serde_json::from_str(line).unwrap(), serde_json::from_str(bare).unwrap());
        for key in ["seq", "at", "event", "task", "worker"] {
            assert_eq!(line[key], bare[key]);
        }
    }
    let part = "tail -c +200 tasks/events.jsonl | head -c 300";
    assert_eq!(other(&mounted, part).ok(), some[199..499]);
    // The reason of a rejection quotes the file's content.
    owner(&mounted, "umask 077; printf -- '---\\npriority: SECRET\\n---\\n' > tasks/r.md").ok();
    mounted.until_state("r", "rejected");
    only_the_owner_reads(&mounted, "rejected/r");
    owner(&mounted, "touch tasks/claim/r").refused("No such file");
    assert_eq!(leaks(&mounted), "", "the reason of its refusal");
}

#[test]
fn c18_the_rights_are_those_of_the_file_at_any_time() {
    as_root!();
    let project = project!();
    let mounted = shared(&project);
    owner(&mounted, SECRET).ok();
    let may = |mounted: &Mounted| {
        let read = other(mounted, "cat tasks/ready/p").code == Some(0);
        assert_eq!(other(mounted, "grep -q SECRET tasks/status/p").code == Some(0), read);
        assert_eq!(other(mounted, "grep -q SECRET tasks/events.jsonl").code == Some(0), read);
        let claims = other(mounted, "touch tasks/claim/p && rm tasks/claim/p").code == Some(0);
        assert_eq!(claims, read);
        read
    };
    assert!(!may(&mounted));
    owner(&mounted, "chmod 644 tasks/p.md").ok();
    assert!(may(&mounted));
    owner(&mounted, "chmod 640 tasks/p.md").ok();
    assert!(!may(&mounted));
    mounted.operator(&format!("chgrp {OTHER} tasks/p.md")).ok();
    assert!(may(&mounted));
    // Permissions that change beneath the mount, and while nothing is mounted.
    let beneath = |mode| {
        std::fs::set_permissions(project.tasks().join("p.md"), PermissionsExt::from_mode(mode)).unwrap()
    };
    beneath(0o600);
    until("it is private", || mounted.json("status/p").get("owns").is_some() && leaks(&mounted).is_empty());
    drop(mounted);
    beneath(0o604);
    let mounted = project.mount(&[]);
    assert!(!may(&mounted), "the group has less than others");
    drop(mounted);
    beneath(0o640);
    let mounted = project.mount(&[]);
    assert!(may(&mounted));
    // An ACL whose mask shows as the group's rights gives the group nothing.
    let acl = "python3 - <<'E'\nimport os, struct\ne = [(1,6,-1),(2,4,7),(4,0,-1),(16,4,-1),(32,0,-1)]\n\
               os.setxattr('tasks/p.md', 'system.posix_acl_access', struct.pack('<I', 2) + b''.join(struct.pack('<HHi', *x) for x in e))\nE";
    if mounted.operator(acl).code == Some(0) {
        assert!(!may(&mounted), "by the ACL");
        other(&mounted, "cat tasks/p.md").refused("Permission denied");
        let named = acl.replace("(2,4,7)", &format!("(2,4,{OTHER})"));
        mounted.operator(&named).ok();
        assert!(may(&mounted), "it is named");
    }
}

#[test]
fn c18_what_was_private_is_not_made_known_by_another_file() {
    as_root!();
    let project = project!();
    let mounted = shared(&project);
    owner(&mounted, SECRET).ok();
    owner(&mounted, "touch tasks/claim/p && echo SECRET result > tasks/completed/p && rm tasks/p.md").ok();
    only_the_owner_has_it(&mounted);
    other(&mounted, "echo '# Mine' > tasks/p.md").ok();
    only_the_owner_has_it(&mounted);
    drop(mounted);
    let mounted = project.mount(&[]);
    only_the_owner_has_it(&mounted);
    // When a new file turns an open task into a rejected one, the rejected task shows nothing of the old text.
    mounted.operator("rm -f tasks/p.md").ok();
    owner(&mounted, &SECRET.replace("p.md", "o.md")).ok();
    other(&mounted, "rm -f tasks/o.md; printf -- '---\\npriority: x\\n---\\n' > tasks/o.md").ok();
    mounted.until_state("o", "rejected");
    assert_eq!(leaks(&mounted), "");
}

#[track_caller]
fn only_the_owner_has_it(mounted: &Mounted) {
    assert_eq!(leaks(mounted), "");
    assert_eq!(mounted.read("completed/p"), "SECRET result\n");
    owner(mounted, "grep -q SECRET tasks/completed/p").ok();
}
