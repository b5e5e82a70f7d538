//! The contract over sshfs, operation by operation: the answer on the server's machine and the answer to a remote worker. The table of
//! both is in `docs/remote.md`; this test compares it with the real answers.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::client::Connection;
use crate::harness::{Mounted, Project, project};
use crate::process::{run_within, until};
use crate::server::{Server, User, server};
use crate::texts;

const STEPS: &str = include_str!("contract.py");
const PAGE: &str = "docs/remote.md";
const READY: [&str; 8] = ["touched", "opened", "exclusive", "made", "moved", "kept", "linked", "finished"];

/// What the steps need: tasks, files, and a rival that holds some of both.
struct Scene {
    rival: std::process::Child,
}

impl Scene {
    fn set(project: &Project, mounted: &Mounted, user: &User) -> Scene {
        for id in READY.iter().chain(&["held"]) {
            project.task(id, "# Task\n");
        }
        project.task("waits", "---\nneeds: [held]\n---\n");
        project.task("special", "---\nrequires: [magic]\n---\n");
        project.task("wrong", "---\npriority: soon\n---\n");
        for name in ["free", "busy", "stale"] {
            std::fs::write(project.behind().join(name), "text\n").unwrap();
            user.own(project.behind().join(name));
        }
        until("all is published", || mounted.state("wrong") == "rejected");
        let mut command = mounted.worker("rival");
        command.arg(
            "touch tasks/claim/held tasks/claim/finished; echo well > tasks/completed/finished
             cat busy stale; echo theirs > stale; exec 3<>busy; echo theirs >&3; echo ready; read -r line",
        );
        let mut rival = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(rival.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap() == "ready"));
        Scene { rival }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = self.rival.stdin.take().unwrap().write_all(b"\n");
        let _ = self.rival.wait();
    }
}

/// Operations, each with its outcome.
type Came = Vec<(String, String)>;

/// The outcomes of the steps, in their order, also while the queue is paused.
fn steps(mounted: &Mounted, taken: impl Fn(&str) -> Command) -> Came {
    let take = |part: &str| -> Came {
        serde_json::from_str(&run_within(std::time::Duration::from_secs(40), taken(part)).ok()).unwrap()
    };
    let mut came = take("main");
    mounted.operator("touch tasks/paused").ok();
    came.extend(take("paused"));
    mounted.operator("rm tasks/paused").ok();
    came
}

fn here(project: &Project) -> Came {
    let mounted = project.mount(&[]);
    let user = User::new(project.dir());
    [project.behind(), project.tasks()].iter().for_each(|place| user.own(place));
    let _scene = Scene::set(project, &mounted, &user);
    steps(&mounted, |part| {
        let mut command = Command::new("setpriv");
        let (uid, gid) = (format!("--reuid={}", user.name), format!("--regid={}", user.name));
        command.args([&uid, &gid, "--clear-groups", "/usr/bin/python3", "-c", STEPS, part]);
        command.env("CREWFS_WORKER", "w1").current_dir(mounted.path());
        command
    })
}

fn far(project: &Project, mounted: &Mounted, server: &Server) -> Came {
    let _scene = Scene::set(project, mounted, &server.user);
    let connection: Connection = server.worker("w1").connect(&project.dir().join("remote"));
    steps(mounted, |part| {
        let mut command = Command::new("python3");
        command.args(["-c", STEPS, part]).current_dir(&connection.dir);
        command
    })
}

#[test]
fn the_contract_over_sshfs_is_as_documented() {
    let (project, near) = (project!(), project!());
    crate::sides::needs!("python3", "setpriv");
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let (here, far) = (here(&near), far(&project, &mounted, &server));
    let came: Vec<String> = here
        .iter()
        .zip(&far)
        .map(|((operation, local), (_, remote))| format!("| {operation} | {local} | {remote} |"))
        .collect();
    let page = texts::text(PAGE);
    let rows = texts::rows(texts::section(&page, "## What each operation answers"));
    let shown: Vec<String> = rows.iter().map(|row| format!("| {} |", row.join(" | "))).collect();
    assert!(shown == came, "{PAGE} has another table than this:\n{}", came.join("\n"));
}
