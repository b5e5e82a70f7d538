//! An agent program, as far as its hooks can tell. It runs in the project, starts the command of its registration, writes one JSON
//! document to it, and waits until both outputs are closed.
//!
//! May assume: `tests/run.sh` installed the shells. Must never: wait for longer than [`LIMIT`].

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::Project;
use crate::process::LIMIT;

/// Each client, with its registration in `templates/clients`.
pub(crate) const CLIENTS: [(&str, &str); 4] = [
    ("claude", include_str!("../../templates/clients/claude-settings.json")),
    ("codex", include_str!("../../templates/clients/codex-hooks.json")),
    ("gemini", include_str!("../../templates/clients/gemini-settings.json")),
    ("cursor", include_str!("../../templates/clients/cursor-hooks.json")),
];

/// The shells that may be `/bin/sh`.
pub(crate) const SHELLS: [&str; 3] = ["dash", "bash", "busybox sh"];

/// The input of each client's stop hook. `stop_hook_active` is true: a hook continued the turn before.
pub(crate) fn stop_input(client: &str) -> &'static str {
    match client {
        "claude" => {
            r#"{"session_id":"5f0c","transcript_path":"/t/5f0c.jsonl","cwd":"/srv/p","permission_mode":"bypassPermissions","hook_event_name":"Stop","stop_hook_active":true,"last_assistant_message":"Say \"session_id\":\"no\" and \\","background_tasks":[{"id":"b1","status":"aborted"}]}"#
        }
        "codex" => {
            r#"{"session_id":"0199","turn_id":"1","transcript_path":null,"cwd":"/srv/p","hook_event_name":"Stop","model":"m","permission_mode":"default","stop_hook_active":true,"last_assistant_message":null}"#
        }
        "gemini" => {
            r#"{"session_id":"a-1","transcript_path":"","cwd":"/srv/p","hook_event_name":"AfterAgent","timestamp":"2026-11-25T16:00:00.000Z","prompt":"work","prompt_response":"done","stop_hook_active":true}"#
        }
        _ => {
            r#"{"conversation_id":"c-1","generation_id":"g-1","model":"m","hook_event_name":"stop","cursor_version":"2.4.0","workspace_roots":["/srv/p"],"status":"completed","loop_count":3}"#
        }
    }
}

/// The answer of the stop hook to each client for this content of should-stop.
pub(crate) fn stop_answer(client: &str, should_stop: &str) -> String {
    match client {
        "cursor" if !should_stop.is_empty() => {
            should_stop.replace(r#"{"decision":"block","reason":"#, r#"{"followup_message":"#)
        }
        _ => should_stop.to_string(),
    }
}

/// All commands of a registration.
pub(crate) fn commands(registration: &Value) -> Vec<&str> {
    match registration {
        Value::Object(members) => members
            .iter()
            .flat_map(|(key, value)| match value {
                Value::String(text) if key == "command" => vec![text.as_str()],
                _ => commands(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(commands).collect(),
        _ => Vec::new(),
    }
}

/// Install the hooks where `crewfs init` puts them; call this before mounting.
pub(crate) fn install(project: &Project) {
    let to = project.behind().join(".crew/hooks");
    fs::create_dir_all(&to).unwrap();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/hooks")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// The result of a hook.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// From the request until both outputs were closed.
    pub(crate) took: Duration,
}

impl Answer {
    /// Assert exactly this on standard output, nothing on standard error, and success.
    #[track_caller]
    pub(crate) fn is(&self, stdout: &str) {
        assert_eq!(
            (self.stdout.as_str(), self.stderr.as_str(), self.code),
            (stdout, "", Some(0)),
            "{self:?}"
        );
    }
}

/// One agent program.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) client: &'static str,
    pub(crate) shell: &'static str,
    worker: String,
    place: PathBuf,
    kept: PathBuf,
    variables: Vec<(String, String)>,
}

impl Agent {
    /// An agent of this client in a directory. Its hooks keep their files in the project's scratch directory.
    pub(crate) fn new(client: &'static str, worker: &str, project: &Project, place: &Path) -> Agent {
        let kept = project.dir().join("kept");
        fs::create_dir_all(&kept).unwrap();
        let (worker, place) = (worker.to_string(), place.to_path_buf());
        Agent { client, shell: SHELLS[0], worker, place, kept, variables: Vec::new() }
    }

    pub(crate) fn shell(mut self, shell: &'static str) -> Agent {
        self.shell = shell;
        self
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Agent {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// The directory where its hooks keep their files.
    pub(crate) fn kept(&self) -> PathBuf {
        self.kept.join(format!("crewfs-hooks-{}", rustix::process::geteuid().as_raw()))
    }

    /// The command of its registration, with this longest wait if the command has one.
    pub(crate) fn command(&self, hook: &str, longest: u32) -> String {
        let (_, registration) = CLIENTS.iter().find(|(client, _)| *client == self.client).unwrap();
        let registration: Value = serde_json::from_str(registration).unwrap();
        let end = format!("crewfs {hook} {}", self.client);
        let found = commands(&registration).into_iter().find(|command| command.contains(&end));
        let command = found.unwrap_or_else(|| panic!("{} has no {hook}", self.client));
        command.replace("/bin/sh", self.shell).replace(" 3500", &format!(" {longest}"))
    }

    /// Start the agent in its directory, but do not start the hook yet. A mount that hangs later did not hang at this start.
    pub(crate) fn stands(&self, hook: &str, longest: u32) -> Standing {
        let mut words = self.shell.split(' ');
        let mut shell = Command::new(words.next().unwrap());
        shell.args(words).args(["-c", r#"read -r _ && eval "$COMMAND""#]).current_dir(&self.place);
        for name in [
            "CLAUDE_PROJECT_DIR",
            "CURSOR_PROJECT_DIR",
            "CREWFS_TASKS",
            "CREWFS_BLOCKS",
            "CREWFS_KEEP_CLAIMS",
        ] {
            shell.env_remove(name);
        }
        shell.env("COMMAND", self.command(hook, longest)).env("XDG_RUNTIME_DIR", &self.kept);
        shell.env("CREWFS_WORKER", &self.worker).envs(self.variables.iter().cloned());
        // A loaded machine answers late, so the default patience here is long; only tests of hangs use a worker's patience.
        shell.env("CREWFS_PATIENCE", self.patience().as_secs_f32().to_string());
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Standing(shell.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.shell)))
    }

    fn patience(&self) -> Duration {
        let chosen = self.variables.iter().rev().find(|(name, _)| name == "CREWFS_PATIENCE");
        chosen
            .map_or(Duration::from_secs(10), |(_, seconds)| Duration::from_secs_f32(seconds.parse().unwrap()))
    }

    /// Run a hook.
    #[track_caller]
    pub(crate) fn ask(&self, hook: &str, longest: u32, input: &str) -> Answer {
        self.stands(hook, longest).ask(input)
    }

    /// Run the stop hook with the client's input.
    #[track_caller]
    pub(crate) fn stop(&self, longest: u32) -> Answer {
        self.ask("stop", longest, stop_input(self.client))
    }
}

/// An agent that has entered its directory.
pub(crate) struct Standing(Child);

impl Standing {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Run the hook now.
    #[track_caller]
    pub(crate) fn ask(mut self, input: &str) -> Answer {
        let start = Instant::now();
        let mut stdin = self.0.stdin.take().unwrap();
        stdin.write_all(format!("now\n{input}").as_bytes()).unwrap();
        drop(stdin);
        let (sender, receiver) = channel();
        let pid = self.0.id();
        std::thread::spawn(move || sender.send(self.0.wait_with_output()));
        let output =
            receiver.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("the hook {pid} did not answer")).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        Answer { code: output.status.code(), stdout, stderr, took: start.elapsed() }
    }
}
