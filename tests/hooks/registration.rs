//! The registrations in `templates/clients`: every client runs every hook for which it has an event, all by the same command, and waits
//! for longer than the hook does.

use serde_json::{Value, json};

use crate::agent::{CLIENTS, commands};

fn registration(client: &str) -> Value {
    let (_, text) = CLIENTS.iter().find(|(name, _)| *name == client).unwrap();
    serde_json::from_str(text).unwrap()
}

#[test]
fn every_registration_runs_the_hooks_by_the_same_command() {
    let mut loaders = Vec::new();
    for (client, _) in CLIENTS {
        let registration = registration(client);
        let mut hooks = Vec::new();
        for command in commands(&registration) {
            let (loader, words) = command.rsplit_once(" crewfs ").unwrap();
            loaders.push(loader.to_string());
            hooks.push(words.to_string());
        }
        hooks.sort();
        let expected =
            ["failed-write", "session-end", "session-start"].map(|hook| format!("{hook} {client}"));
        assert_eq!(hooks, [&expected[..], &[format!("stop {client} 3500")]].concat());
    }
    assert!(loaders.iter().all(|loader| *loader == loaders[0]));
    // Gemini replaces these words by a path, inside crewfs's quotes.
    for word in ["$GEMINI_", "$CLAUDE_PROJECT_DIR"] {
        assert!(!loaders[0].contains(word), "{word}");
    }
    assert_eq!(loaders[0].matches('\'').count(), 2, "it must read the same in every user's shell");
}

#[test]
fn the_client_waits_for_longer_than_the_hook() {
    let timeout =
        |client, event: &str| registration(client)["hooks"][event][0]["hooks"][0]["timeout"].clone();
    // Timeouts are in seconds, except Gemini's.
    assert_eq!(timeout("claude", "Stop"), json!(3600));
    assert_eq!(timeout("codex", "Stop"), json!(3600));
    assert_eq!(timeout("gemini", "AfterAgent"), json!(3_600_000));
    let cursor = registration("cursor");
    assert_eq!(cursor["version"], json!(1));
    let stop = &cursor["hooks"]["stop"][0];
    assert_eq!((&stop["timeout"], &stop["loop_limit"]), (&json!(3600), &Value::Null));
    // The hook has its own count; Claude Code's count ignores progress.
    assert_eq!(registration("claude")["env"]["CLAUDE_CODE_STOP_HOOK_BLOCK_CAP"], json!("0"));
}
