//! Finds settings of an agent program that disable its hooks: in the project, in the home of the user, and of the machine.
//!
//! May assume: for settings in a home, that the agents run as the user that runs `crewfs init`.
//! Must never: change one of these files, or fail because one cannot be read.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::kit::{Client, HOOKS};
use super::plan::{ChangePlan, FileContent};

/// A file of settings, and where it is.
enum Layer {
    Project(&'static str),
    /// Below the directory in a variable, or below a directory in the home.
    User(&'static str, &'static str, &'static str),
    /// Of the machine. The path in a variable goes first.
    Machine(&'static str, &'static str),
}

/// A setting that disables hooks when it has this value, and the files it counts in.
struct Switch {
    key: &'static [&'static str],
    off: bool,
    layers: &'static [Layer],
}

use Layer::{Machine, Project, User};

/// The settings of each program, in the order of precedence.
const CLAUDE: &[Layer] = &[
    Machine("", "/etc/claude-code/managed-settings.json"),
    Project(".claude/settings.local.json"),
    Project(".claude/settings.json"),
    User("CLAUDE_CONFIG_DIR", ".claude", "settings.json"),
];
const CODEX: &[Layer] = &[
    Machine("", "/etc/codex/requirements.toml"),
    Project(".codex/config.toml"),
    User("CODEX_HOME", ".codex", "config.toml"),
    Machine("", "/etc/codex/config.toml"),
];
const GEMINI: &[Layer] = &[
    Machine("GEMINI_CLI_SYSTEM_SETTINGS_PATH", "/etc/gemini-cli/settings.json"),
    Project(".gemini/settings.json"),
    User("", ".gemini", "settings.json"),
];

const fn switch(key: &'static [&'static str], off: bool, layers: &'static [Layer]) -> Switch {
    Switch { key, off, layers }
}

/// Cursor and opencode have no such setting.
fn switches(client: Client) -> &'static [Switch] {
    const OF_CLAUDE: &[Switch] = &[
        switch(&["disableAllHooks"], true, CLAUDE),
        // Only the machine's administrator can set this.
        switch(&["allowManagedHooksOnly"], true, &[CLAUDE_MANAGED]),
    ];
    const CLAUDE_MANAGED: Layer = Machine("", "/etc/claude-code/managed-settings.json");
    const OF_CODEX: &[Switch] =
        &[switch(&["features", "hooks"], false, CODEX), switch(&["features", "codex_hooks"], false, CODEX)];
    const OF_GEMINI: &[Switch] = &[
        switch(&["hooksConfig", "enabled"], false, GEMINI),
        // In older versions.
        switch(&["hooks", "enabled"], false, GEMINI),
        switch(&["tools", "enableHooks"], false, GEMINI),
    ];
    match client {
        Client::Claude => OF_CLAUDE,
        Client::Codex => OF_CODEX,
        Client::Gemini => OF_GEMINI,
        Client::Opencode | Client::Cursor | Client::None => &[],
    }
}

/// The file that disables the hooks of a program, and what to change there.
pub(super) fn reason(client: Client, plan: &ChangePlan) -> Option<(String, String)> {
    let name = client.name();
    for Switch { key, off, layers } in switches(client) {
        for layer in *layers {
            let Some((file, settings)) = layer.read(plan) else { continue };
            let value = key.iter().try_fold(&settings, |value, key| value.get(key));
            // The first file with the setting wins.
            let Some(value) = value.and_then(Value::as_bool) else { continue };
            if value != *off {
                break;
            }
            let next = match layer {
                Machine(..) => "ask the administrator of this machine to take it out",
                Project(_) | User(..) => "take it out, and they run",
            };
            let key = key.join(".");
            return Some((
                file,
                format!("it says {key} = {value}, so {name} will run no hook of crewfs; {next}"),
            ));
        }
    }
    // Gemini CLI lists single disabled hooks there. The lists of all layers count.
    for layer in if client == Client::Gemini { GEMINI } else { &[] } {
        let Some((file, settings)) = layer.read(plan) else { continue };
        let lists = ["hooksConfig", "hooks"].map(|key| settings[key]["disabled"].as_array().cloned());
        let mut names = lists.iter().flatten().flatten().filter_map(Value::as_str);
        if names.any(|name| name.contains(HOOKS)) {
            let why = format!(
                "it lists hooks of crewfs as disabled, so {name} will not run them; take them out, and they run"
            );
            return Some((file, why));
        }
    }
    None
}

impl Layer {
    /// The file and its content, if it exists and parses.
    fn read(&self, plan: &ChangePlan) -> Option<(String, Value)> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let file = match self {
            Project(path) => {
                let Ok(FileContent::Text(text)) = plan.find(path) else { return None };
                return Some((path.to_string(), parse(path, &text)?));
            }
            User(named, directory, file) => {
                let home = || variable("HOME").map(|home| PathBuf::from(home).join(directory));
                variable(named).map(PathBuf::from).or_else(home)?.join(file)
            }
            Machine(named, file) => variable(named).map_or_else(|| PathBuf::from(file), PathBuf::from),
        };
        let shown = file.display().to_string();
        let settings = parse(&shown, &std::fs::read_to_string(&file).ok()?)?;
        Some((shown, settings))
    }
}

fn parse(path: &str, text: &str) -> Option<Value> {
    if Path::new(path).extension().is_some_and(|extension| extension == "toml") {
        toml::from_str(text).ok()
    } else {
        serde_json::from_str(text).ok()
    }
}
