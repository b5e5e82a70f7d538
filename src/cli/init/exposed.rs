//! Finds hooks, and settings that name commands, that users other than the owner can change or replace. The agents of all members run
//! them.
//!
//! May assume: nothing. The project may belong to any user.
//! Must never: change a mode. Which users share a project is their decision.

use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags, Stat, fstat, stat};
use rustix::process::geteuid;

use super::kit::{PARTS, PLUGIN};
use super::plan::ChangePlan;

/// Settings of agent programs that can name commands, besides those that crewfs adds to.
const SETTINGS: &[&str] =
    &[".claude/settings.local.json", ".mcp.json", ".codex/config.toml", "opencode.json", "opencode.jsonc"];

/// A file or directory that users other than its owner can change.
pub(in crate::cli) struct Exposed {
    /// It is the project's directory or a parent of it, which may be shared on purpose.
    pub(in crate::cli) is_shared: bool,
    pub(in crate::cli) path: PathBuf,
    /// Which users, why that matters, and what to do.
    pub(in crate::cli) why: String,
}

/// All exposed paths of what is installed in a project, directories before their entries.
pub(in crate::cli) fn all(plan: &ChangePlan) -> Vec<Exposed> {
    // A project may have files of its own with the names of a plugin.
    let of_plugin = if plan.has(PLUGIN[0].path) { PLUGIN } else { &[] };
    let parts = PARTS.iter().chain(of_plugin).filter(|part| part.is_run()).map(|part| part.path);
    let mut paths: Vec<&Path> = Vec::new();
    for path in parts.chain(SETTINGS.iter().copied()).filter(|path| plan.has(path)) {
        let way: Vec<&Path> = Path::new(path).ancestors().collect();
        for step in way.into_iter().rev() {
            if !paths.contains(&step) {
                paths.push(step);
            }
        }
    }
    if paths.is_empty() {
        return Vec::new();
    }
    let owner = plan.owner();
    let above = plan.shown().ancestors().skip(1).filter_map(|above| {
        let there = stat(above).ok()?;
        let why = writers(&there)?;
        Some(Exposed { is_shared: true, path: above.to_path_buf(), why: of_directory(above, why) })
    });
    let mut found: Vec<Exposed> = above.collect();
    found.reverse();
    found.extend(paths.into_iter().filter_map(|path| {
        let there = fstat(plan.open(path, OFlags::PATH).ok()?).ok()?;
        let shown =
            if path.as_os_str().is_empty() { plan.shown().to_path_buf() } else { plan.shown().join(path) };
        let why = judge(&there, &shown, owner)?;
        Some(Exposed { is_shared: path.as_os_str().is_empty(), path: shown, why })
    }));
    found
}

fn judge(there: &Stat, path: &Path, owner: u32) -> Option<String> {
    let shown = path.display();
    if let Some(who) = writers(there) {
        return Some(if is_directory(there) {
            of_directory(path, who)
        } else {
            format!(
                "{who} can change it, and the agents of all others do what it says; close it: chmod go-w {shown}"
            )
        });
    }
    let trusted = [0, owner, geteuid().as_raw()];
    (!trusted.contains(&there.st_uid)).then(|| {
        format!(
            "it belongs to uid {}, who can change it, and the agents of all others do what it says; take it over: chown {owner} {shown}",
            there.st_uid
        )
    })
}

fn of_directory(path: &Path, who: &str) -> String {
    let shown = path.display();
    format!(
        "{who} can replace what is in it, and the agents of all others do what that says; close it: chmod go-w {shown}, or let \
         each user replace only what is their own: chmod +t {shown}"
    )
}

/// Which users besides the owner can write to it. In a sticky directory no user can replace files of another.
fn writers(there: &Stat) -> Option<&'static str> {
    if is_directory(there) && there.st_mode & 0o1000 != 0 {
        return None;
    }
    match there.st_mode & 0o022 {
        0 => None,
        0o020 => Some("its group"),
        _ => Some("every user"),
    }
}

fn is_directory(there: &Stat) -> bool {
    FileType::from_raw_mode(there.st_mode).is_dir()
}
