//! The hooks for the start and the end of a session, and for a tool that failed.

use std::fs;

use crate::agent::{Agent, CLIENTS, SHELLS, install};
use crate::harness::{Mounted, Project, project};
use crate::shown::{Shown, looks_like_a_desk, write};

const CONTEXT: &str = "You are the worker w1 of a crew that shares this project. Its queue of tasks is the directory tasks.\\nTo claim the best task: touch tasks/claim/next; then read tasks/workers/self/task and do what it says.\\nTo note progress, write a line into tasks/workers/self/note. To finish, write what you did into tasks/completed/ID; if the task cannot be done, write the reason into tasks/failed/ID. To give the task back: rm tasks/claim/ID.\\nA change that fails with EBUSY (resource busy) was refused because another worker has that file: tasks/workers/self/why names that worker, and says what to do.\\n";

/// The output that gives a client this text, for its event of this name.
fn told(client: &str, event: &str, text: &str) -> String {
    match client {
        "cursor" => format!("{{\"additional_context\":\"{text}\"}}\n"),
        _ => format!(
            "{{\"hookSpecificOutput\":{{\"hookEventName\":\"{event}\",\"additionalContext\":\"{text}\"}}}}\n"
        ),
    }
}

#[test]
fn a_session_that_starts_is_told_who_it_is_and_how_things_stand() {
    let project = project!();
    install(&project);
    project.task("a", "# A\n");
    project.task("b", "---\nneeds: [a]\n---\n# B\n");
    let mounted = project.mount(&[]);
    let input = r#"{"session_id":"s","cwd":"/srv/p","hook_event_name":"SessionStart","source":"startup"}"#;
    for (client, _) in CLIENTS {
        for shell in SHELLS {
            let agent = Agent::new(client, "w1", &project, mounted.path()).shell(shell);
            let text = "You hold nothing now.\\nThe queue holds: blocked 1, claimed 0, completed 0, failed 0, ready 1, rejected 0, total 2.";
            agent.ask("session-start", 0, input).is(&told(
                client,
                "SessionStart",
                &format!("{CONTEXT}{text}"),
            ));
        }
    }
    assert!(mounted.desk("workers/w1/status").exists(), "asking makes the worker known");
    mounted.sh("w1", "touch tasks/claim/a").ok();
    mounted.operator("touch tasks/paused").ok();
    let text = "You hold a: continue with it.\\nThe queue is paused: no task can be claimed now. It holds: blocked 1, claimed 1, completed 0, failed 0, ready 0, rejected 0, total 2.";
    let agent = Agent::new("codex", "w1", &project, mounted.path());
    let answer = agent.ask("session-start", 0, input);
    answer.is(&told("codex", "SessionStart", &format!("{CONTEXT}{text}")));
    let document: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    let said = document["hookSpecificOutput"]["additionalContext"].as_str().unwrap();
    assert!(!said.contains(['<', '>', '`', '$']), "Gemini changes or refuses these: {said}");
}

#[test]
fn a_tasks_directory_of_another_name_is_found() {
    let project = project!();
    install(&project);
    let mounted = project.mount(&["tasks=work"]);
    for (name, shown) in [("work", "work".to_string()), ("", String::new())] {
        let absolute = mounted.tasks().display().to_string();
        let (name, shown) =
            if name.is_empty() { (absolute.clone(), absolute) } else { (name.to_string(), shown) };
        let agent = Agent::new("claude", "w1", &project, mounted.path()).set("CREWFS_TASKS", &name);
        let answer = agent.ask("session-start", 0, "{}");
        assert!(answer.stdout.contains(&format!("the directory {shown}.")), "{answer:?}");
    }
}

#[test]
fn a_session_that_ends_gives_back_what_it_held() {
    let project = project!();
    install(&project);
    project.task("a", "# A\n");
    project.task("b.2", "# B\n");
    let mounted = project.mount(&[]);
    let claim = || mounted.sh("w1", "touch tasks/claim/a tasks/claim/b.2").ok();
    let ends = [("claude", "logout"), ("codex", "other"), ("gemini", "exit"), ("cursor", "user_close")];
    for (client, reason) in ends {
        for shell in SHELLS {
            let agent = Agent::new(client, "w1", &project, mounted.path()).shell(shell);
            let end = |reason| {
                format!(r#"{{"session_id":"s","hook_event_name":"SessionEnd","reason":"{reason}"}}"#)
            };
            claim();
            // The session goes on, or the user wants to keep the claims.
            agent.ask("session-end", 0, &end("clear")).is("");
            agent.ask("session-end", 0, &end("resume")).is("");
            agent.clone().set("CREWFS_KEEP_CLAIMS", "1").ask("session-end", 0, &end(reason)).is("");
            assert_eq!((mounted.state("a"), mounted.state("b.2")), ("claimed".into(), "claimed".into()));
            agent.ask("stop", 0, r#"{"session_id":"s","status":"completed"}"#);
            assert!(agent.kept().join("w1.s").exists());
            agent.ask("session-end", 0, &end(reason)).is("");
            assert_eq!((mounted.state("a"), mounted.state("b.2")), ("ready".into(), "ready".into()));
            assert!(!agent.kept().join("w1.s").exists(), "what was counted is forgotten");
        }
    }
    // Other workers keep their claims.
    mounted.sh("w2", "touch tasks/claim/a").ok();
    Agent::new("claude", "w1", &project, mounted.path()).ask("session-end", 0, "{}").is("");
    assert_eq!(mounted.state("a"), "claimed");
}

/// A client's input for a tool that failed on a file.
fn failure(client: &str, file: &str) -> String {
    match client {
        "claude" => format!(
            r#"{{"session_id":"s","cwd":"/srv/p","hook_event_name":"PostToolUseFailure","tool_name":"Edit","tool_input":{{"file_path":"/srv/p/{file}","old_string":"a","new_string":"b"}},"tool_use_id":"t","error":"EBUSY: resource busy or locked, rename '/srv/p/{file}.tmp.1.0' -> '/srv/p/{file}'","is_interrupt":false}}"#
        ),
        "codex" => format!(
            r#"{{"session_id":"s","turn_id":"1","transcript_path":null,"cwd":"/srv/p","hook_event_name":"PostToolUse","model":"m","permission_mode":"default","tool_name":"Bash","tool_input":{{"command":"echo x > {file}"}},"tool_response":"bash: {file}: Device or resource busy\n","tool_use_id":"t"}}"#
        ),
        "gemini" => format!(
            r#"{{"session_id":"s","cwd":"/srv/p","hook_event_name":"AfterTool","tool_name":"write_file","tool_input":{{"file_path":"{file}","content":"x"}},"tool_response":{{"llmContent":"Error","error":{{"message":"EBUSY: resource busy or locked, open '/srv/p/{file}'"}}}}}}"#
        ),
        _ => format!(
            r#"{{"conversation_id":"c","hook_event_name":"postToolUseFailure","tool_name":"Write","tool_input":{{"file_path":"/srv/p/{file}"}},"error_message":"EBUSY: resource busy or locked, open '/srv/p/{file}'","failure_type":"error"}}"#
        ),
    }
}

fn event(client: &str) -> &'static str {
    match client {
        "claude" => "PostToolUseFailure",
        "codex" => "PostToolUse",
        _ => "AfterTool",
    }
}

/// w2 holds a file, and a change of it by w1 is refused. Returns the sentence about it, and the process that holds the file.
fn refused(project: &Project, mounted: &Mounted, file: &str) -> (String, std::process::Child) {
    fs::write(project.behind().join(file), "old\n").unwrap();
    mounted.sh("w2", "touch tasks/claim/next").ok();
    let mut holder = mounted.worker("w2");
    holder.arg("exec 9>>\"$0\"; echo new >&9; read -r _").arg(file);
    let holder = holder.stdin(std::process::Stdio::piped()).spawn().unwrap();
    crate::process::until("w2 holds the file", || mounted.read("workers/w2/locks").contains(file));
    (refuse_again(mounted, file), holder)
}

fn refuse_again(mounted: &Mounted, file: &str) -> String {
    mounted.sh("w1", &format!("cat '{file}'; echo x > '{file}'")).refused("Device or resource busy");
    let why = mounted.read("workers/w1/why");
    why.trim_end().split_once(' ').unwrap().1.to_string()
}

#[test]
fn a_change_that_was_refused_is_explained_where_it_failed() {
    let project = project!();
    install(&project);
    project.task("a", "# A\n");
    let mounted = project.mount(&["lock_wait=0"]);
    let (_, mut holder) = refused(&project, &mounted, "shared.txt");
    for (client, _) in CLIENTS {
        for shell in SHELLS {
            let agent = Agent::new(client, "w1", &project, mounted.path()).shell(shell);
            let sentence = refuse_again(&mounted, "shared.txt");
            assert!(sentence.starts_with("shared.txt is held by w2 since "), "{sentence}");
            let advice = "Go on with another part of your task, then read the file again and make the change again. Until then every other way to write, move or replace it is refused, too.";
            let text = format!("crewfs refused this change: {sentence}. w2 works on a. {advice}");
            agent.ask("failed-write", 0, &failure(client, "shared.txt")).is(&told(
                client,
                event(client),
                &text,
            ));
            // Another file, and another kind of failure.
            agent.ask("failed-write", 0, &failure(client, "other.txt")).is("");
            let other = failure(client, "shared.txt")
                .replace("EBUSY", "ENOENT")
                .replace("esource busy", "esource gone");
            agent.ask("failed-write", 0, &other).is("");
        }
    }
    drop(holder.stdin.take());
    holder.wait().unwrap();
    let sentence = refuse_again_as_stale(&mounted, "shared.txt");
    let text = format!(
        "crewfs refused this change: {sentence}. Read the file now, and make your change in what it holds today."
    );
    let agent = Agent::new("claude", "w1", &project, mounted.path());
    agent.ask("failed-write", 0, &failure("claude", "shared.txt")).is(&told(
        "claude",
        event("claude"),
        &text,
    ));
}

/// w2 changes the file and closes it. Then w1 changes it without having read the new version.
fn refuse_again_as_stale(mounted: &Mounted, file: &str) -> String {
    mounted.sh("w2", &format!("cat '{file}'; echo newer >> '{file}'")).ok();
    mounted.sh("w1", &format!("echo x > '{file}'")).refused("Device or resource busy");
    let sentence = mounted.read("workers/w1/why").trim_end().split_once(' ').unwrap().1.to_string();
    assert!(sentence.starts_with(&format!("{file} was changed by w2 at ")), "{sentence}");
    sentence
}

#[test]
fn a_refusal_of_another_time_is_not_spoken_of_and_names_are_quoted() {
    let project = project!();
    install(&project);
    let desk = project.source().join("tasks");
    looks_like_a_desk(&desk);
    let Some(shown) = Shown::new(&project) else { return };
    let agent = Agent::new("claude", "w1", &project, shown.path());
    let ask = |time: &str, file: &str| {
        let why = format!("{time} {file} was changed by w2 at {time}; read it again before you change it\n");
        write(&desk, "workers/self/why", why);
        let written = file.replace('\\', "\\\\").replace('"', "\\\"");
        agent.ask("failed-write", 0, &failure("claude", &written)).stdout
    };
    assert_eq!(ask("2026-11-25T16:00:49.900Z", "x"), "");
    assert_eq!(ask("2026-10-25T16:01:00.000Z", "x"), "");
    let said = ask("2026-11-25T16:00:51.000Z", "a b's.txt");
    let document: serde_json::Value = serde_json::from_str(&said).unwrap();
    let context = document["hookSpecificOutput"]["additionalContext"].as_str().unwrap();
    assert!(context.starts_with("crewfs refused this change: a b's.txt was changed by w2 at "), "{context}");
}
