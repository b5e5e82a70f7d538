//! The plugin for opencode, in a host that acts as opencode.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::agent::install;
use crate::harness::{Mounted, Project};

/// What the plugin did on these events. `None` where node is missing; CI must have it.
fn host(project: &Project, mounted: &Mounted, events: &[Value]) -> Option<Vec<Value>> {
    let plugin = mounted.path().join(".opencode/plugin/crewfs.mjs");
    let mut host = Command::new("node");
    host.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hooks/opencode-host.mjs"))
        .arg(plugin)
        .arg(mounted.path());
    host.current_dir(mounted.path()).env("CREWFS_WORKER", "w1").env("CREWFS_PATIENCE", "10");
    host.env("XDG_RUNTIME_DIR", project.dir()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut host = match host.spawn() {
        Ok(host) => host,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "node cannot be run: {error}");
            eprintln!("skipped: node cannot be run: {error}");
            return None;
        }
    };
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    host.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = host.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(
        String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

fn prepared() -> Option<Project> {
    let project = Project::new()?;
    install(&project);
    let plugin = project.behind().join(".opencode/plugin");
    fs::create_dir_all(&plugin).unwrap();
    // node recognises a module by its file name; opencode's runtime accepts .js.
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/hooks/opencode.js"), plugin.join("crewfs.mjs")).unwrap();
    Some(project)
}

fn idle(session: &str) -> Value {
    json!({"hook": "event", "input": {"event": {"type": "session.idle", "properties": {"sessionID": session}}}})
}

#[test]
fn opencode_is_kept_on_while_there_is_work_and_told_who_it_is() {
    let Some(project) = prepared() else { return };
    project.task("a", "# A\n");
    let mounted = project.mount(&["idle_timeout=1ms"]);
    let system = json!({"hook": "experimental.chat.system.transform", "input": {"sessionID": "s"}, "output": {"system": ["x"]}});
    let Some(did) = host(&project, &mounted, &[system, idle("child"), idle("s")]) else { return };
    let told = did[0]["experimental.chat.system.transform"]["system"][1].as_str().unwrap();
    assert!(told.starts_with("You are the worker w1 of a crew"), "{told}");
    let text = "a is ready. Claim it with: touch tasks/claim/next and then read tasks/workers/self/task";
    let prompt =
        json!({"path": {"id": "s"}, "body": {"parts": [{"type": "text", "text": text, "synthetic": true}]}});
    assert_eq!(did[1..], [json!({"prompt": prompt})], "a session below another one is left alone");
    // The end of opencode gives back the task that its worker holds.
    mounted.sh("w1", "touch tasks/claim/a").ok();
    host(&project, &mounted, &[]).unwrap();
    mounted.until_state("a", "ready");
    mounted.sh("w1", "touch tasks/workers/self/drain").ok();
    assert_eq!(host(&project, &mounted, &[idle("s")]).unwrap(), [] as [Value; 0]);
}

#[test]
fn opencode_is_told_why_a_change_failed() {
    let Some(project) = prepared() else { return };
    fs::write(project.source().join("f"), "old\n").unwrap();
    let mounted = project.mount(&["lock_wait=0"]);
    mounted.sh("w2", "cat f; echo new > f").ok();
    mounted.sh("w1", "echo x > f").refused("Device or resource busy");
    let bash = json!({"hook": "tool.execute.after", "input": {"tool": "bash", "sessionID": "s", "args": {"command": "echo x > f"}},
        "output": {"output": "bash: f: Device or resource busy"}});
    let part = json!({"type": "tool", "tool": "edit", "sessionID": "s",
        "state": {"status": "error", "input": {"filePath": mounted.path().join("f")}, "error": "EBUSY: resource busy or locked"}});
    let edit = json!({"hook": "event", "input": {"event": {"type": "message.part.updated", "properties": {"part": part}}}});
    let Some(did) = host(&project, &mounted, &[bash, edit]) else { return };
    let (said, prompt) = (&did[0]["tool.execute.after"]["output"], &did[1]["prompt"]["body"]);
    assert!(
        said.as_str()
            .unwrap()
            .starts_with("bash: f: Device or resource busy\ncrewfs refused this change: f was changed by w2"),
        "{said}"
    );
    assert_eq!(prompt["noReply"], json!(true));
    assert!(
        prompt["parts"][0]["text"].as_str().unwrap().starts_with("crewfs refused this change: f was"),
        "{prompt}"
    );
}
