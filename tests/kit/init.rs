//! `crewfs init`: three kinds of projects, installed twice and removed again byte for byte; files that it must not change; projects
//! that are mounted.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use crate::harness::{as_root, project};
use crate::process::{Ran, crewfs, run};

pub(crate) const ALL: &str = "claude,codex,gemini,opencode,cursor";

/// Run `crewfs init` on a directory.
#[track_caller]
pub(crate) fn init(directory: &Path, arguments: &[&str]) -> Ran {
    let mut command = crewfs();
    command.arg("init").arg(directory).args(arguments);
    // The settings of the user that runs the tests must not affect init.
    command
        .env("HOME", directory.join("no such home"))
        .env_remove("CLAUDE_CONFIG_DIR")
        .env_remove("CODEX_HOME");
    run(command)
}

/// Everything below a directory except git's own files: mode with kind, owner and bytes of each file.
fn picture(directory: &Path) -> BTreeMap<String, (u32, u32, Vec<u8>)> {
    let mut picture = BTreeMap::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let there = fs::symlink_metadata(&path).unwrap();
            let bytes = if there.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            if there.is_dir() && name != ".git" {
                open.push(path);
            }
            picture.insert(name, (there.mode(), there.uid(), bytes));
        }
    }
    picture
}

/// Install, install again, and remove. The second install changes nothing and reports that. The removal restores the first state.
#[track_caller]
fn there_and_back(directory: &Path, changed: &[&str]) {
    let before = picture(directory);
    let time = |name: &String| fs::metadata(directory.join(name)).unwrap().modified().unwrap();
    let untouched: Vec<_> = before
        .iter()
        .filter(|(name, (mode, ..))| mode & 0o170000 == 0o100000 && !changed.contains(&name.as_str()))
        .map(|(name, _)| (name.clone(), time(name)))
        .collect();

    let dry = init(directory, &["--client", ALL, "--dry-run"]).ok();
    assert_eq!(picture(directory), before, "a dry run changes nothing");
    let said = init(directory, &["--client", ALL]).ok();
    let lines = |text: &str| text.lines().rev().skip(1).map(str::to_string).collect::<Vec<_>>();
    assert_eq!(lines(&dry), lines(&said), "a dry run says what is done");
    for name in changed {
        assert!(said.contains(&format!("added to {name}")), "{said}");
    }
    let installed = picture(directory);
    for (name, (mode, owner, _)) in &before {
        assert_eq!((installed[name].0, installed[name].1), (*mode, *owner), "{name} keeps mode and owner");
    }

    let again = init(directory, &[]).ok();
    assert!(again.lines().count() == 1 && again.ends_with("; nothing was changed\n"), "{again}");
    assert_eq!(picture(directory), installed);

    init(directory, &["--remove"]).ok();
    assert_eq!(picture(directory), before);
    for (name, then) in untouched {
        assert_eq!(time(&name), then, "{name} was not touched");
    }
    assert!(init(directory, &["--remove"]).ok().contains("is not installed"));
}

#[test]
fn a_rust_project_with_git() {
    let dir = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@example.org"]).args(arguments);
        command.current_dir(dir.path());
        run(command).ok()
    };
    git(&["init", "-q"]);
    fs::create_dir(dir.path().join("src")).unwrap();
    fs::write(dir.path().join("src/main.rs"), "fn main() {}\n").unwrap();
    fs::write(dir.path().join("Cargo.toml"), "[package]\nname = \"x\"\n").unwrap();
    fs::write(dir.path().join(".gitignore"), "/target").unwrap();
    git(&["add", "."]);
    git(&["commit", "-qm", "Begin"]);
    there_and_back(dir.path(), &[".gitignore"]);
    assert_eq!(git(&["status", "--porcelain"]), "");
}

const SETTINGS: &str = r#"{
    "permissions": {"allow": ["Bash(npm test)"], "deny": []},
    "hooks": {
        "Stop": [
            {"hooks": [{"type": "command", "command": "npm test"}]}
        ],
        "PreToolUse": []
    },
    "zeta": 1.50,
    "env": {"CLAUDE_CODE_STOP_HOOK_BLOCK_CAP": "4"}
}"#;

fn node_project(directory: &Path) {
    fs::create_dir(directory.join(".claude")).unwrap();
    fs::write(directory.join(".claude/settings.json"), SETTINGS).unwrap();
    fs::set_permissions(directory.join(".claude/settings.json"), Permissions::from_mode(0o640)).unwrap();
    fs::write(directory.join("AGENTS.md"), "# Agents\n\nUse npm.\n").unwrap();
    fs::write(directory.join("CLAUDE.md"), "# Claude\r\n").unwrap();
    fs::write(directory.join("package.json"), "{\"name\": \"x\"}\n").unwrap();
}

#[test]
fn a_node_project_with_settings_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    node_project(dir.path());
    there_and_back(dir.path(), &[".claude/settings.json", "AGENTS.md", "CLAUDE.md"]);

    let said = init(dir.path(), &["--client", "claude"]).ok();
    assert!(said.contains("its own env.CLAUDE_CODE_STOP_HOOK_BLOCK_CAP stays"), "{said}");
    let after = fs::read_to_string(dir.path().join(".claude/settings.json")).unwrap();
    let settings: serde_json::Value = serde_json::from_str(&after).unwrap();
    assert_eq!(settings["hooks"]["Stop"].as_array().unwrap().len(), 2, "theirs and ours");
    assert_eq!(settings["hooks"]["Stop"][0]["hooks"][0]["command"], "npm test");
    // No line of the user has moved or changed.
    let mut lines = after.lines();
    for line in SETTINGS.lines() {
        let line = line.trim_end_matches(',');
        assert!(lines.any(|there| there.trim_end_matches(',') == line), "{line} stands where it stood");
    }
}

#[test]
fn an_empty_directory_and_no_client() {
    let dir = tempfile::tempdir().unwrap();
    there_and_back(dir.path(), &[]);
    init(dir.path(), &["--client", "none"]).ok();
    assert!(dir.path().join("tasks").is_dir() && dir.path().join(".crew/WORKER.md").is_file());
    assert!(!dir.path().join(".crew/hooks").exists(), "hooks are for clients");
}

#[test]
fn a_directory_that_is_not_there_is_a_mistyped_one() {
    let dir = tempfile::tempdir().unwrap();
    symlink(dir.path().join("gone"), dir.path().join("link")).unwrap();
    for name in ["projekt", "deep/projekt", "link"] {
        let missing = dir.path().join(name);
        for arguments in
            [&["--client", "claude"][..], &["--plugin"], &["--remove"], &["--update"], &["--dry-run"]]
        {
            let shown = missing.display();
            let said = format!("{shown} does not exist; mend the path, or make it first: mkdir -p {shown}\n");
            assert_eq!(init(&missing, arguments).exits(1, "crewfs: "), format!("crewfs: {said}"));
        }
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made");
}

#[test]
fn what_others_wrote_stays_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path(".claude")).unwrap();
    let jsonc = "{\n  // ours\n  \"model\": \"x\"\n}\n";
    fs::write(path(".claude/settings.json"), jsonc).unwrap();
    fs::create_dir(path(".crew")).unwrap();
    fs::write(path(".crew/WORKER.md"), "Our own words.\n").unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("rules"), "rules\n").unwrap();
    symlink(outside.path().join("rules"), path("AGENTS.md")).unwrap();

    let refused = init(dir.path(), &["--client", "claude"]);
    for said in [
        "left     .crew/WORKER.md: it is there and differs",
        "refused  AGENTS.md",
        "leads out of the project",
        "refused  .claude/settings.json: it is not plain JSON",
        "\"SessionStart\": [",
    ] {
        assert!(refused.stdout.contains(said), "{said:?} in {}", refused.stdout);
    }
    refused.exits(1, "2 of the files could not be changed; what to add to them by hand is said above");
    assert_eq!(fs::read_to_string(path(".claude/settings.json")).unwrap(), jsonc);
    assert_eq!(fs::read_to_string(path(".crew/WORKER.md")).unwrap(), "Our own words.\n");
    assert_eq!(fs::read_to_string(outside.path().join("rules")).unwrap(), "rules\n");
    init(dir.path(), &["--remove"]).ok();
    assert_eq!(fs::read_to_string(path(".crew/WORKER.md")).unwrap(), "Our own words.\n");
    assert!(!path(".crew/hooks").exists());
}

#[test]
fn what_was_changed_since_is_left_and_what_came_later_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    init(dir.path(), &["--client", "claude"]).ok();
    let edit = |name: &str, from: &str, to: &str| {
        let text = fs::read_to_string(path(name)).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path(name), text.replacen(from, to, 1)).unwrap();
    };
    edit(".crew/WORKER.md", "# You are a worker", "# You are a careful worker");
    edit(".claude/settings.json", "\n}\n", ",\n  \"model\": \"x\"\n}\n");
    edit("AGENTS.md", "## Working in a crew", "## In a crew");
    edit(".gitignore", "# crewfs: begin", "/target\n# crewfs: begin");

    let again = init(dir.path(), &[]).ok();
    assert!(again.contains("left     .crew/WORKER.md: it was changed since"), "{again}");
    assert!(again.contains("left     AGENTS.md: it was changed since"), "{again}");
    let gone = init(dir.path(), &["--remove"]).ok();
    assert!(gone.contains("left     .crew/WORKER.md: it was changed since"), "{gone}");
    assert!(gone.contains("left     AGENTS.md: it was changed since"), "{gone}");
    assert_eq!(fs::read_to_string(path(".claude/settings.json")).unwrap(), "{\n  \"model\": \"x\"\n}\n");
    assert_eq!(fs::read_to_string(path(".gitignore")).unwrap(), "/target\n");
    assert!(!path(".crew/hooks").exists() && !path(".crew/installed.json").exists());
}

#[test]
fn the_lines_of_a_user_stay_lines_when_ours_go() {
    let before = [("AGENTS.md", "# Ours"), (".gitignore", "/target"), ("CLAUDE.md", "# Theirs\r\nCRLF")];
    let appended = [
        ("AGENTS.md", "One more.\n", "# Ours\nOne more.\n"),
        (".gitignore", "*.log", "/target\n*.log"),
        ("CLAUDE.md", "More\r\n", "# Theirs\r\nCRLF\r\nMore\r\n"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in before {
        fs::write(dir.path().join(name), text).unwrap();
    }
    there_and_back(dir.path(), &before.map(|(name, _)| name));
    init(dir.path(), &["--client", "claude"]).ok();
    let claude = fs::read_to_string(dir.path().join("CLAUDE.md")).unwrap();
    assert_eq!(claude.matches('\n').count(), claude.matches("\r\n").count(), "{claude:?}");
    for (name, more, _) in appended {
        let path = dir.path().join(name);
        fs::write(&path, fs::read_to_string(&path).unwrap() + more).unwrap();
    }
    assert!(init(dir.path(), &[]).ok().ends_with("; nothing was changed\n"));
    init(dir.path(), &["--remove"]).ok();
    for (name, _, expected) in appended {
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), expected, "{name}");
    }
}

#[test]
fn blank_settings_are_settings() {
    let files = [
        (".claude/settings.json", ""),
        (".codex/hooks.json", " \n"),
        (".gemini/settings.json", "\r\n\r\n"),
        (".cursor/hooks.json", "\t"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::create_dir(dir.path().join(name).parent().unwrap()).unwrap();
        fs::write(dir.path().join(name), text).unwrap();
    }
    there_and_back(dir.path(), &files.map(|(name, _)| name));
    init(dir.path(), &["--client", ALL]).ok();
    let path = dir.path().join(".claude/settings.json");
    let text = fs::read_to_string(&path).unwrap();
    let _: serde_json::Value = serde_json::from_str(&text).unwrap();
    // Text that the user added between the braces stays there.
    fs::write(&path, text.replacen('{', "{\n  \"model\": \"x\",", 1)).unwrap();
    init(dir.path(), &["--remove"]).ok();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\n  \"model\": \"x\"\n}\n");
    assert_eq!(fs::read_to_string(dir.path().join(".codex/hooks.json")).unwrap(), " \n");
}

#[test]
fn what_keeps_hooks_from_running_is_said_with_what_to_do() {
    let not_run = |client: &str, files: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), text).unwrap();
        }
        let mut said = Vec::new();
        // A dry run, the first install, and an install when everything is there already.
        for arguments in [&["--client", client, "--dry-run"][..], &["--client", client], &[]] {
            let ran = init(dir.path(), arguments);
            if ran.code == Some(0) {
                assert!(!ran.stdout.contains("off  "), "{ran:?}");
                said.push(String::new());
                continue;
            }
            assert!(
                ran.stderr.contains(&format!("the hooks will not run for {client}; what is in")),
                "{ran:?}"
            );
            said.extend(ran.stdout.lines().find(|line| line.starts_with("off ")).map(str::to_string));
        }
        assert!(said.len() == 3 && said.iter().all(|line| *line == said[0]), "{said:?}");
        assert!(dir.path().join(".crew/installed.json").exists(), "it is installed all the same");
        said.remove(0)
    };
    let (local, shared) = (".claude/settings.local.json", ".claude/settings.json");
    let (yes, no) = ("{\"disableAllHooks\": true}", "{\"disableAllHooks\": false}");
    let line = |file: &str, key: &str| {
        let client = &file[1..7].trim_end_matches('/');
        format!(
            "off      {file}: it says {key}, so {client} will run no hook of crewfs; take it out, and they run"
        )
    };
    assert_eq!(not_run("claude", &[(shared, yes)]), line(shared, "disableAllHooks = true"));
    assert_eq!(not_run("claude", &[(local, yes)]), line(local, "disableAllHooks = true"));
    assert_eq!(not_run("claude", &[(local, yes), (shared, no)]), line(local, "disableAllHooks = true"));
    assert_eq!(not_run("claude", &[(local, no), (shared, yes)]), "", "the file above has the last word");
    assert_eq!(not_run("claude", &[(shared, no)]), "");
    let of_user = "no such home/.claude/settings.json";
    assert!(not_run("claude", &[(of_user, yes)]).contains("no such home/.claude/settings.json: it says"));
    assert_eq!(not_run("claude", &[(of_user, yes), (shared, no)]), "");
    let codex = ".codex/config.toml";
    assert_eq!(
        not_run("codex", &[(codex, "[features]\nhooks = false\n")]),
        line(codex, "features.hooks = false")
    );
    assert_eq!(not_run("codex", &[(codex, "model = 'x'\n[features]\nhooks = true\n")]), "");
    let gemini = ".gemini/settings.json";
    let off = "{\"hooksConfig\": {\"enabled\": false}}";
    assert_eq!(not_run("gemini", &[(gemini, off)]), line(gemini, "hooksConfig.enabled = false"));
    let listed = "{\"hooksConfig\": {\"disabled\": [\"sh .crew/hooks/stop.sh gemini\"]}}";
    assert!(
        not_run("gemini", &[("no such home/.gemini/settings.json", listed)])
            .contains("lists hooks of crewfs as disabled")
    );
    assert_eq!(not_run("cursor", &[(shared, yes)]), "", "that is another program's");
}

#[test]
fn hooks_that_stand_there_twice_are_not_added_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".claude/settings.json");
    let refused = |key: &str| {
        let text = fs::read_to_string(&path).unwrap();
        let ran = init(dir.path(), &["--client", "claude"]);
        let said = format!("refused  .claude/settings.json: it has {key} more than once, and of these ");
        assert!(ran.stdout.contains(&said) && ran.stdout.contains("\"SessionStart\": ["), "{ran:?}");
        ran.exits(1, "1 of the files could not be changed");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    };
    fs::create_dir(dir.path().join(".claude")).unwrap();
    fs::write(&path, "{\"hooks\": {}, \"hooks\": {\"Stop\": []}}").unwrap();
    refused("hooks");
    fs::write(&path, "{\"hooks\": {\"Stop\": [], \"Stop\": []}}").unwrap();
    refused("hooks.Stop");
    // Also where crewfs's hooks are there, and the user added others below them.
    fs::write(&path, "{}").unwrap();
    init(dir.path(), &["--client", "claude"]).ok();
    let text = fs::read_to_string(&path).unwrap();
    let end = text.rfind('}').unwrap();
    fs::write(&path, format!("{},\n  \"hooks\": {{}}\n}}", text[..end].trim_end())).unwrap();
    refused("hooks");
    init(dir.path(), &["--remove"]).ok();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\n  \"hooks\": {}\n}");
}

#[test]
fn an_older_version_is_renewed_when_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    init(dir.path(), &["--client", "claude"]).ok();
    let new = picture(dir.path());
    // The files and the record of an older crewfs.
    for (name, from, to) in
        [(".crew/hooks/stop.sh", "The stop hook", "The old hook"), ("AGENTS.md", "in a crew", "in the crew")]
    {
        for file in [name, ".crew/installed.json"] {
            let text = fs::read_to_string(path(file)).unwrap();
            fs::write(path(file), text.replace(from, to)).unwrap();
        }
    }
    let old = picture(dir.path());
    assert_ne!(old, new);
    let said = init(dir.path(), &[]).ok();
    assert!(
        said.contains("left     .crew/hooks/stop.sh: it is as another version of crewfs made it"),
        "{said}"
    );
    assert_eq!(picture(dir.path()), old);
    assert!(init(dir.path(), &["--update"]).ok().contains("renewed  .crew/hooks/stop.sh"));
    assert_eq!(picture(dir.path()), new);
}

#[test]
fn what_root_makes_belongs_to_the_project() {
    as_root!();
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(12345), Some(12346)).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o2770)).unwrap();
    init(dir.path(), &["--client", "claude"]).ok();
    for (name, mode) in [
        ("tasks", 0o42770),
        (".crew", 0o42750),
        (".crew/WORKER.md", 0o100640),
        (".crew/hooks/stop.sh", 0o100750),
        (".crew/installed.json", 0o100640),
    ] {
        let there = fs::metadata(dir.path().join(name)).unwrap();
        assert_eq!((there.uid(), there.gid(), there.mode()), (12345, 12346, mode), "{name}");
    }
}

#[test]
fn a_mounted_project_is_made_ready_through_the_mount() {
    let project = project!();
    let git = |arguments: &[&str], at: &Path| {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(at);
        run(command).ok()
    };
    git(&["init", "-q"], project.source());
    node_project(project.source());
    let before = picture(project.source());
    let mut mounted = project.mount_in_place(&[]);
    init(mounted.path(), &["--client", ALL]).ok();
    fs::write(mounted.desk("a.md"), "# A\n").unwrap();
    mounted.sh("w1", "touch tasks/claim/next && echo done > tasks/completed/a").ok();
    let shown = git(&["status", "--porcelain", "-uall"], mounted.path());
    let tasks: Vec<&str> =
        shown.lines().filter(|line| line.contains("task") && !line.contains(".crew/")).collect();
    assert_eq!(tasks, ["?? tasks/a.md"], "git sees the instructions and nothing of the desk: {shown}");
    assert!(!shown.contains("worker"), "{shown}");
    init(mounted.path(), &[]).ok();
    fs::remove_file(mounted.desk("a.md")).unwrap();
    init(mounted.path(), &["--remove"]).ok();
    mounted.stop();
    let mut after = picture(project.source());
    after.retain(|name, _| !name.starts_with(".crewfs"));
    assert_eq!(after, before);
}

#[test]
fn what_cannot_be_done_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    init(&file, &[]).exits(1, "is not a directory; name that of a project");
    init(dir.path(), &["--client", "nobody"]).exits(2, "possible values: claude");
    fs::create_dir(dir.path().join(".crew")).unwrap();
    fs::write(dir.path().join(".crew/installed.json"), "{").unwrap();
    init(dir.path(), &[]).exits(1, "is of no use");
}
