//! Which file in the tasks directory holds the instructions of which task (C4).

use std::ffi::OsStr;

use crate::queue::TaskId;

/// Files that people and agents keep beside tasks, in lower case and with `-` between words. No word that could be the id of a
/// task, such as `memory`, belongs here.
const KEPT_BESIDE: [&str; 24] = [
    "agents",
    "agents.local",
    "agents.override",
    "authors",
    "changelog",
    "claude",
    "claude.local",
    "code-of-conduct",
    "contributing",
    "contributors",
    "copilot-instructions",
    "gemini",
    "gemini.local",
    "lessons",
    "lessons-learned",
    "lessons-learnt",
    "licence",
    "license",
    "notes",
    "qwen",
    "readme",
    "todo",
    "todos",
    "to-do",
];

/// Whether the name without its ending is that of a file which is kept beside tasks, whatever the case.
pub(super) fn is_kept_beside(stem: &str) -> bool {
    let stem = stem.to_lowercase().replace(['_', ' '], "-");
    KEPT_BESIDE.contains(&stem.as_str())
}

/// The task whose instructions a file in the top directory holds, by its name (C4). Files that people and agents keep beside tasks,
/// such as `README.md`, hold none.
pub(super) fn task_of(name: &OsStr) -> Option<TaskId> {
    let stem = name.to_str()?.strip_suffix(".md")?;
    if is_kept_beside(stem) { None } else { TaskId::parse(stem) }
}

/// The name of a task's instruction file.
pub(super) fn file_of(task: &TaskId) -> String {
    format!("{task}.md")
}
