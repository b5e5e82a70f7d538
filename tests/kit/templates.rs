//! Every template is parsed or run: tasks are claimed, JSON is parsed, and the samples match what a mount shows.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::harness::project;
use crate::pages::normalized;
use crate::process::{crewfs, run};

fn template(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("templates").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(path: &str) -> Value {
    serde_json::from_str(&template(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_instruction_to_start_from_is_a_task() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    fs::write(mounted.desk("new.md"), template("task-instruction.md")).unwrap();
    assert_eq!(mounted.state("new"), "ready");
    let text = template("task-instruction.md").to_lowercase();
    for section in
        ["objective", "context files to read first", "requirements", "steps", "acceptance criteria"]
    {
        assert!(text.contains(&format!("\n## {section}\n")), "{section}");
    }
    mounted.stop();
}

/// The story that the samples show.
const STORY: &str = r#"
printf -- '---\npriority: high\n---\n# Build the login endpoint\n' > tasks/login.md
printf '# Create the tables\n' > tasks/tables.md
printf -- '---\nneeds: [login, tables]\n---\n# Test the whole\n' > tasks/tests.md
"#;

#[test]
fn the_samples_are_what_a_mount_shows() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    mounted.operator(STORY).ok();
    mounted
        .sh("worker-1", "touch tasks/claim/next && echo 'endpoint and 14 tests' > tasks/completed/login")
        .ok();
    mounted
        .sh(
            "worker-2",
            "touch tasks/claim/next && echo 'users is there, sessions is next' > tasks/workers/self/note",
        )
        .ok();
    for (sample, shown) in
        [("task-queue.json", "task-queue.json"), ("worker-status.json", "worker-status.json")]
    {
        let now = fs::read_to_string(mounted.path().join(shown)).unwrap();
        assert_eq!(normalized(&template(sample)), normalized(&now), "{sample} is as {shown} was: \n{now}");
    }
    mounted.stop();
}

/// The shell blocks of a page, including those in lists.
fn shell_of(page: &str) -> Vec<String> {
    let (mut blocks, mut open) = (Vec::new(), None::<String>);
    for line in template(page).lines() {
        match (&mut open, line.trim_start()) {
            (None, "```sh") => open = Some(String::new()),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some(block), _) => *block += &format!("{}\n", line.strip_prefix("   ").unwrap_or(line)),
            _ => {}
        }
    }
    blocks
}

#[test]
fn what_the_workers_page_says_can_be_done_as_it_stands() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    fs::write(mounted.desk("ID.md"), "# Write the login\n").unwrap();
    let blocks = shell_of("WORKER.md");
    let [claim, read, note, finish, fail, give_back] = blocks.as_slice() else { panic!("{blocks:?}") };
    let worker = |script: &str| mounted.sh("worker-1", script).ok();
    worker(claim);
    let read = worker(read);
    assert!(read.starts_with("# Write the login\n") && read.contains("\"task\": \"ID\""), "{read}");
    for (end, state) in [(finish, "completed"), (fail, "failed"), (give_back, "ready")] {
        worker(claim);
        worker(note);
        assert_eq!(mounted.json("status/ID")["note"], "endpoint written, tests are next");
        worker(end);
        assert_eq!(mounted.state("ID"), state);
        if state != "ready" {
            mounted.operator(&format!("mv tasks/{state}/ID tasks/ready/ID")).ok();
        }
    }
    mounted.stop();
}

#[test]
fn what_the_coordinators_page_says_can_be_done_as_it_stands() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    let blocks = shell_of("COORDINATOR.md");
    let [write, look, watch, report] = blocks.as_slice() else { panic!("{blocks:?}") };
    mounted.operator(write).ok();
    assert_eq!(mounted.state("login"), "blocked", "it needs models");
    assert!(mounted.operator(look).ok().contains("\"title\": \"Task: Users can log in\""));
    assert!(mounted.operator(watch).ok().contains("\"stuck\""), "nobody has written models");
    fs::write(mounted.desk("models.md"), "# Models\n").unwrap();
    mounted.sh("worker-1", "touch tasks/claim/models && echo 'src/models.py' > tasks/completed/models").ok();
    let report = mounted.operator(report).ok();
    assert!(
        report.contains("\"login\": {\"status\":\"ready\"") && report.contains("src/models.py"),
        "{report}"
    );
    mounted.stop();
}

#[test]
fn the_plugin_is_whole_where_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = dir.path().join("plugin");
    fs::create_dir(&plugin).unwrap();
    let mut command = crewfs();
    command.args(["init", "--plugin"]).arg(&plugin);
    assert!(run(command).ok().contains("claude plugin marketplace add"));
    let manifest = json("claude-plugin/.claude-plugin/plugin.json");
    assert_eq!(manifest["version"], env!("CARGO_PKG_VERSION"));
    let marketplace = json("claude-plugin/.claude-plugin/marketplace.json");
    assert_eq!(marketplace["plugins"][0]["name"], manifest["name"]);
    assert!(
        plugin
            .join(marketplace["plugins"][0]["source"].as_str().unwrap())
            .join(".claude-plugin/plugin.json")
            .exists()
    );

    // The plugin registers the same hooks as the project's settings, with scripts that exist and are executable.
    let (ours, projects) = (json("claude-plugin/hooks/hooks.json"), json("clients/claude-settings.json"));
    for (event, registered) in projects["hooks"].as_object().unwrap() {
        let (plugin_hook, project_hook) = (&ours["hooks"][event][0], &registered[0]);
        assert_eq!(plugin_hook["matcher"], project_hook["matcher"], "{event}");
        assert_eq!(plugin_hook["hooks"][0]["timeout"], project_hook["hooks"][0]["timeout"], "{event}");
        let command = plugin_hook["hooks"][0]["command"].as_str().unwrap();
        let script =
            command.split('"').nth(1).unwrap().replace("${CLAUDE_PLUGIN_ROOT}", plugin.to_str().unwrap());
        let mut check = std::process::Command::new("sh");
        check.args(["-n", &script]);
        run(check).ok();
    }
    for skill in ["work", "coordinate"] {
        let directory = plugin.join("skills").join(skill);
        let text = fs::read_to_string(directory.join("SKILL.md")).unwrap();
        assert!(text.starts_with(&format!("---\nname: {skill}\ndescription: ")), "{text}");
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            assert!(directory.join(link).is_file(), "{link} is beside {skill}");
        }
    }
}

#[test]
fn every_template_belongs_to_something() {
    let known =
        fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/cli/init/kit.rs")).unwrap();
    let mut open = vec![PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("templates")];
    let root = open[0].clone();
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            let sample = ["task-queue.json", "worker-status.json"].contains(&name.as_str());
            assert!(
                sample || known.contains(&format!("templates/{name}\"")),
                "{name} is neither installed nor a sample"
            );
            if name.ends_with(".json") {
                json(&name);
            }
        }
    }
}
