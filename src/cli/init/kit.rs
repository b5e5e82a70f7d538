//! What `crewfs init` installs, and where. The texts are compiled in from `hooks/` and `templates/`.
//!
//! Must never: contain a text of its own. Only files of these directories are installed.

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
    /// No hooks: only the tasks directory, the guides, and the rules for git.
    None,
}

impl Client {
    pub(super) const ALL: [Client; 5] =
        [Client::Claude, Client::Codex, Client::Gemini, Client::Opencode, Client::Cursor];

    /// The name in `--client` and in the record.
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

    /// The program, and files that show that a project is worked on with it.
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

/// The projects that a part is for.
#[derive(Clone, Copy)]
pub(super) enum Audience {
    Always,
    /// Projects with hooks for any client.
    AnyClient,
    Only(Client),
    /// Projects with this client that already have the file.
    IfPresent(Client),
}

/// How a part is put into its file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum InstallMethod {
    /// The part is the whole file.
    Whole,
    /// The same, executable.
    Script,
    /// A section at the end. It begins with this mark.
    Section(&'static str),
    /// Members of a JSON object.
    Json,
}

/// A text with a part merged in.
#[derive(Default)]
pub(super) struct Merged {
    pub(super) text: String,
    /// The pieces that were inserted. Empty if the part was there.
    pub(super) pieces: Vec<String>,
    /// The names of the file's own values that were kept.
    pub(super) kept: Vec<String>,
}

impl Merged {
    fn new(text: &str, insertions: Vec<Insertion>, kept: Vec<String>) -> Merged {
        let text = text::apply(text, &insertions);
        Merged { text, pieces: insertions.into_iter().map(|insertion| insertion.text).collect(), kept }
    }
}

/// One file of the project, and the text for it.
pub(super) struct Part {
    pub(super) path: &'static str,
    pub(super) text: &'static str,
    pub(super) method: InstallMethod,
    pub(super) audience: Audience,
}

/// Every command that registers a hook contains this.
pub(super) const HOOKS: &str = ".crew/hooks/";
/// A page that includes AGENTS.md has the section by that.
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

/// All parts for a project, in the order of the report.
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

/// The Claude Code plugin, which is a marketplace of its own. The client ignores links that lead out of it, so all files are written.
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

    /// The content of a new file before the part is merged in.
    pub(super) fn empty(&self) -> &'static str {
        if self.is_json() { FRAME } else { "" }
    }

    /// Whether agent programs run the file, or agents follow all of it as instructions.
    pub(super) fn is_run(&self) -> bool {
        !matches!(self.method, InstallMethod::Section(_))
    }

    pub(super) fn is_json(&self) -> bool {
        self.method == InstallMethod::Json
    }

    /// Merge the part into `text`.
    pub(super) fn merge(&self, text: &str) -> Result<Merged, String> {
        let one = |insertion| Ok(Merged::new(text, vec![insertion], Vec::new()));
        match self.method {
            _ if text == self.text => Ok(Merged::default()),
            // Programs read a blank file as one without settings, or report an error.
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

    /// Why it is undefined which of the members in `text` count, if it is.
    pub(super) fn ambiguity(&self, text: &str) -> Option<String> {
        let key = self.is_json().then(|| json::repeated(text, self.text))??;
        Some(format!(
            "it has {key} more than once, and of these an agent program reads the last one or none, so hooks would not run; make it one, and run this again"
        ))
    }

    /// Whether a text contains something of this part, also of an older or a changed version.
    pub(super) fn marks(&self, text: &str) -> bool {
        match self.method {
            InstallMethod::Whole | InstallMethod::Script => !text.is_empty(),
            InstallMethod::Section(mark) => text.contains(mark),
            InstallMethod::Json => text.contains(HOOKS),
        }
    }

    /// The text without the inserted pieces. `None` if they are no longer there as they were.
    pub(super) fn unmerge(&self, text: &str, pieces: &[String]) -> Option<String> {
        if self.is_json() { json::take_out(text, pieces) } else { text::take_out(text, pieces) }
    }

    /// Whether a file that was made for this part is empty without it.
    pub(super) fn is_nothing(&self, text: &str) -> bool {
        text.trim().is_empty() || self.is_json() && json::is_empty(text)
    }
}
