//! What `crewfs init` installs, and where. All of it is in the program, from `hooks/` and `templates/`.
//!
//! Must never: hold a text of its own. What is installed is what stands in these directories.

use clap::ValueEnum;

use super::json::{self, FRAME};
use super::text::{self, Insertion};

/// An agent program whose hooks can be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Client {
    Claude,
    Codex,
    Gemini,
    Opencode,
    Cursor,
    /// Hooks for nobody: the tasks directory, the guides and what git shall ignore.
    None,
}

impl Client {
    pub(super) const ALL: [Client; 5] =
        [Client::Claude, Client::Codex, Client::Gemini, Client::Opencode, Client::Cursor];

    /// As `--client` and the record have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Client::Claude => "claude",
            Client::Codex => "codex",
            Client::Gemini => "gemini",
            Client::Opencode => "opencode",
            Client::Cursor => "cursor",
            Client::None => "none",
        }
    }

    /// The program, and what a project that is worked on with it holds.
    pub(super) fn traces(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Client::Claude => ("claude", &[".claude", "CLAUDE.md"]),
            Client::Codex => ("codex", &[".codex"]),
            Client::Gemini => ("gemini", &[".gemini", "GEMINI.md"]),
            Client::Opencode => ("opencode", &[".opencode", "opencode.json", "opencode.jsonc"]),
            Client::Cursor => ("cursor-agent", &[".cursor", ".cursorrules"]),
            Client::None => ("", &[]),
        }
    }
}

/// Audience a part is for.
#[derive(Clone, Copy)]
pub(super) enum Audience {
    Always,
    /// Whoever has hooks.
    AnyClient,
    Only(Client),
    /// That client, where the project has such a file.
    IfPresent(Client),
}

/// How a part comes into its file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum InstallMethod {
    /// It is the file.
    Whole,
    /// The same, and it can be run.
    Script,
    /// A section at the end, which begins with this mark.
    Section(&'static str),
    /// Members of its JSON.
    Json,
}

/// A text with a part in it.
#[derive(Default)]
pub(super) struct Merged {
    pub(super) text: String,
    /// What was put in; nothing if the part was there.
    pub(super) pieces: Vec<String>,
    /// The values of its own that the file keeps.
    pub(super) kept: Vec<String>,
}

impl Merged {
    fn new(text: &str, insertions: Vec<Insertion>, kept: Vec<String>) -> Merged {
        let text = text::apply(text, &insertions);
        Merged { text, pieces: insertions.into_iter().map(|insertion| insertion.text).collect(), kept }
    }
}

/// One file of the project, and what belongs into it.
pub(super) struct Part {
    pub(super) path: &'static str,
    pub(super) text: &'static str,
    pub(super) method: InstallMethod,
    pub(super) audience: Audience,
}

/// What every command that registers a hook holds.
pub(super) const HOOKS: &str = ".crew/hooks/";
/// A page that takes in AGENTS.md has the section by that.
const TAKEN_IN: &str = "@AGENTS.md";
const MARK: &str = "<!-- crewfs: begin -->";
const GIT_MARK: &str = "# crewfs: begin";
const AGENTS: &str = include_str!("../../../templates/AGENTS.md");
const IGNORED: &str = include_str!("../../../templates/ignore");
const COORDINATOR: &str = include_str!("../../../templates/COORDINATOR.md");
const WORKER: &str = include_str!("../../../templates/WORKER.md");
const INSTRUCTION: &str = include_str!("../../../templates/task-instruction.md");
const DESK: &str = include_str!("../../../hooks/desk.sh");
const STOP: &str = include_str!("../../../hooks/stop.sh");
const SESSION_START: &str = include_str!("../../../hooks/session-start.sh");
const SESSION_END: &str = include_str!("../../../hooks/session-end.sh");
const FAILED_WRITE: &str = include_str!("../../../hooks/failed-write.sh");

const fn part(path: &'static str, text: &'static str, method: InstallMethod, audience: Audience) -> Part {
    Part { path, text, method, audience }
}

const fn whole(path: &'static str, text: &'static str) -> Part {
    part(path, text, InstallMethod::Whole, Audience::Always)
}

const fn script(path: &'static str, text: &'static str) -> Part {
    part(path, text, InstallMethod::Script, Audience::Always)
}

const fn hook(path: &'static str, text: &'static str) -> Part {
    part(path, text, InstallMethod::Script, Audience::AnyClient)
}

const fn registration(path: &'static str, text: &'static str, client: Client) -> Part {
    part(path, text, InstallMethod::Json, Audience::Only(client))
}

/// All that comes into a project, in the order in which it is told.
pub(super) const PARTS: &[Part] = &[
    whole(".crew/COORDINATOR.md", COORDINATOR),
    whole(".crew/WORKER.md", WORKER),
    whole(".crew/task-instruction.md", INSTRUCTION),
    part("AGENTS.md", AGENTS, InstallMethod::Section(MARK), Audience::Always),
    part("CLAUDE.md", AGENTS, InstallMethod::Section(MARK), Audience::IfPresent(Client::Claude)),
    part("GEMINI.md", AGENTS, InstallMethod::Section(MARK), Audience::Only(Client::Gemini)),
    part(".gitignore", IGNORED, InstallMethod::Section(GIT_MARK), Audience::Always),
    part(".ignore", IGNORED, InstallMethod::Section(GIT_MARK), Audience::Always),
    hook(".crew/hooks/desk.sh", DESK),
    hook(".crew/hooks/stop.sh", STOP),
    hook(".crew/hooks/session-start.sh", SESSION_START),
    hook(".crew/hooks/session-end.sh", SESSION_END),
    hook(".crew/hooks/failed-write.sh", FAILED_WRITE),
    registration(
        ".claude/settings.json",
        include_str!("../../../templates/clients/claude-settings.json"),
        Client::Claude,
    ),
    registration(
        ".codex/hooks.json",
        include_str!("../../../templates/clients/codex-hooks.json"),
        Client::Codex,
    ),
    registration(
        ".gemini/settings.json",
        include_str!("../../../templates/clients/gemini-settings.json"),
        Client::Gemini,
    ),
    part(
        ".opencode/plugin/crewfs.js",
        include_str!("../../../hooks/opencode.js"),
        InstallMethod::Whole,
        Audience::Only(Client::Opencode),
    ),
    registration(
        ".cursor/hooks.json",
        include_str!("../../../templates/clients/cursor-hooks.json"),
        Client::Cursor,
    ),
];

/// The Claude Code plugin, which is a marketplace of its own: the client leaves out links that lead out of it, so it is whole
/// only where it is written.
pub(super) const PLUGIN: &[Part] = &[
    whole(
        ".claude-plugin/plugin.json",
        include_str!("../../../templates/claude-plugin/.claude-plugin/plugin.json"),
    ),
    whole(
        ".claude-plugin/marketplace.json",
        include_str!("../../../templates/claude-plugin/.claude-plugin/marketplace.json"),
    ),
    whole("hooks/hooks.json", include_str!("../../../templates/claude-plugin/hooks/hooks.json")),
    script("hooks/desk.sh", DESK),
    script("hooks/stop.sh", STOP),
    script("hooks/session-start.sh", SESSION_START),
    script("hooks/session-end.sh", SESSION_END),
    script("hooks/failed-write.sh", FAILED_WRITE),
    whole("skills/work/SKILL.md", include_str!("../../../templates/claude-plugin/skills/work/SKILL.md")),
    whole("skills/work/WORKER.md", WORKER),
    whole(
        "skills/coordinate/SKILL.md",
        include_str!("../../../templates/claude-plugin/skills/coordinate/SKILL.md"),
    ),
    whole("skills/coordinate/COORDINATOR.md", COORDINATOR),
    whole("skills/coordinate/task-instruction.md", INSTRUCTION),
];

impl Part {
    pub(super) fn is_for(&self, clients: &[Client], is_there: impl Fn(&str) -> bool) -> bool {
        match self.audience {
            Audience::Always => true,
            Audience::AnyClient => clients.iter().any(|client| *client != Client::None),
            Audience::Only(client) => clients.contains(&client),
            Audience::IfPresent(client) => clients.contains(&client) && is_there(self.path),
        }
    }

    /// What a file holds that is made for this part.
    pub(super) fn empty(&self) -> &'static str {
        if self.is_json() { FRAME } else { "" }
    }

    /// Whether agent programs run it, or agents take all of it for their instructions.
    pub(super) fn is_run(&self) -> bool {
        !matches!(self.method, InstallMethod::Section(_))
    }

    pub(super) fn is_json(&self) -> bool {
        self.method == InstallMethod::Json
    }

    /// What becomes of `text` so that the part is in it.
    pub(super) fn merge(&self, text: &str) -> Result<Merged, String> {
        let one = |insertion| Ok(Merged::new(text, vec![insertion], Vec::new()));
        match self.method {
            _ if text == self.text => Ok(Merged::default()),
            // Programs take a blank file for one without settings, or complain of it.
            InstallMethod::Json if text.trim().is_empty() => {
                let (insertions, kept) = json::merge(FRAME, self.text)?;
                let mut merged = Merged::new(FRAME, insertions, kept);
                merged.pieces.push(FRAME.to_string());
                merged.text.push_str(text);
                Ok(merged)
            }
            InstallMethod::Json => {
                json::merge(text, self.text).map(|(insertions, kept)| Merged::new(text, insertions, kept))
            }
            InstallMethod::Section(_) if text::has(text, self.text) || text.contains(TAKEN_IN) => {
                Ok(Merged::default())
            }
            InstallMethod::Section(_) => one(text::section(text, self.text)),
            InstallMethod::Whole | InstallMethod::Script if text.is_empty() => {
                one(Insertion { at: 0, text: self.text.to_string() })
            }
            InstallMethod::Whole | InstallMethod::Script => {
                Err("a file of this name is there already".into())
            }
        }
    }

    /// Why nobody can say which of the members in `text` count, if that is so.
    pub(super) fn ambiguity(&self, text: &str) -> Option<String> {
        let key = self.is_json().then(|| json::repeated(text, self.text))??;
        Some(format!(
            "it has {key} more than once, and of these an agent program reads the last one or none, so hooks would not run; make it one, and run this again"
        ))
    }

    /// Whether a text holds something of this part, be it older or changed.
    pub(super) fn marks(&self, text: &str) -> bool {
        match self.method {
            InstallMethod::Whole | InstallMethod::Script => !text.is_empty(),
            InstallMethod::Section(mark) => text.contains(mark),
            InstallMethod::Json => text.contains(HOOKS),
        }
    }

    /// The text without what was put in; `None` if that does not stand there any more as it was.
    pub(super) fn unmerge(&self, text: &str, pieces: &[String]) -> Option<String> {
        if self.is_json() { json::take_out(text, pieces) } else { text::take_out(text, pieces) }
    }

    /// Whether nothing is in a file that was made for this part.
    pub(super) fn is_nothing(&self, text: &str) -> bool {
        text.trim().is_empty() || self.is_json() && json::is_empty(text)
    }
}
