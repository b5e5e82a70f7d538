//! Files in the directory of tasks that their writer takes for tasks, and crewfs does not, because of their names.
//!
//! Must never: speak of a file that is not meant as a task: hidden ones, agents' own, backups, and anything that is not
//! Markdown.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use parking_lot::Mutex;

use super::file_names::{is_kept_beside, task_of};
use crate::clock::Clock;
use crate::limits::{MISNAMED_KEPT, TASK_ID_BYTES};
use crate::queue::{Misname, TaskId};

/// Endings of names of Markdown files.
const MARKDOWN: [&str; 8] = ["md", "markdown", "mdown", "mdwn", "mdx", "mkd", "mkdn", "md.txt"];

/// Why a file of that name is no task although it looks like one, and what it should be called.
pub(super) fn misnamed(name: &OsStr) -> Option<Misnaming> {
    if task_of(name).is_some() {
        return None;
    }
    let text = name.to_string_lossy();
    let (stem, ending) = split(&text)?;
    if text.starts_with('.') || is_backup(&text) || is_kept_beside(stem) {
        return None;
    }
    let why = if name.to_str().is_none() {
        "its name is not UTF-8".to_string()
    } else if ending != "md" {
        format!("the name of a task ends in .md, not in .{ending}")
    } else if stem == "next" {
        "next stands for the best task".to_string()
    } else if stem.len() > TASK_ID_BYTES {
        format!(
            "the name of a task has at most {TASK_ID_BYTES} bytes before .md, and this has {}",
            stem.len()
        )
    } else if stem.starts_with(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric()) {
        "the name of a task begins with a letter or digit".to_string()
    } else {
        "the name of a task has letters from A to Z, digits, dots, _ and - only".to_string()
    };
    Some(Misnaming { why, better: better(stem) })
}

/// What is wrong with a name, and a better one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misnaming {
    pub(super) why: String,
    pub(super) better: String,
}

/// A name without its ending, and the ending as it is written; nothing for one that is not Markdown.
fn split(name: &str) -> Option<(&str, &str)> {
    let lower = name.to_ascii_lowercase();
    // A blank at the end is not seen.
    let length = lower.trim_end().len();
    let found = MARKDOWN.iter().filter(|ending| {
        lower[..length].strip_suffix(*ending).is_some_and(|stem| stem.ends_with('.') && stem.len() > 1)
    });
    let ending = found.max_by_key(|ending| ending.len())?;
    let dot = length - ending.len() - 1;
    Some((&name[..dot], &name[dot + 1..]))
}

/// Whether an editor or a tool made it on the way to another file.
fn is_backup(name: &str) -> bool {
    let endings = [".bak", ".orig", ".rej", ".swp", ".tmp", "~"];
    let stem = split(name).map_or(name, |(stem, _)| stem);
    name.starts_with(['#', '~'])
        || name.contains(".tmp.")
        || endings.iter().any(|ending| stem.ends_with(ending))
}

/// An id that is as near to the name as can be, with its ending.
fn better(stem: &str) -> String {
    let mut id = String::new();
    for c in stem.chars() {
        match c {
            'ä' => id.push_str("ae"),
            'ö' => id.push_str("oe"),
            'ü' => id.push_str("ue"),
            'Ä' => id.push_str("Ae"),
            'Ö' => id.push_str("Oe"),
            'Ü' => id.push_str("Ue"),
            'ß' => id.push_str("ss"),
            'à' | 'á' | 'â' | 'ã' | 'å' => id.push('a'),
            'è' | 'é' | 'ê' | 'ë' => id.push('e'),
            'ì' | 'í' | 'î' | 'ï' => id.push('i'),
            'ò' | 'ó' | 'ô' | 'õ' | 'ø' => id.push('o'),
            'ù' | 'ú' | 'û' => id.push('u'),
            'ç' => id.push('c'),
            'ñ' => id.push('n'),
            c if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') => id.push(c),
            _ if id.ends_with('-') => {}
            _ => id.push('-'),
        }
    }
    let id = id.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let id = id.get(..TASK_ID_BYTES).unwrap_or(id).trim_end_matches(['-', '.']);
    let id = match id {
        "" => "task",
        "next" => "next-task",
        id => id,
    };
    let id = if TaskId::parse(id).is_some() && !is_kept_beside(id) { id } else { "task" };
    format!("{id}.md")
}

/// The misnamed files that are there at present, as the watch of the directory tells. Each is told to the log when it appears.
pub(super) struct Misnamed {
    clock: Clock,
    known: Mutex<BTreeMap<OsString, Misname>>,
}

impl Misnamed {
    pub(super) fn new(clock: Clock) -> Misnamed {
        Misnamed { clock, known: Mutex::default() }
    }

    /// A file of that name is there, whatever it is.
    pub(super) fn seen(&self, name: &OsStr) {
        self.add(&mut self.known.lock(), name);
    }

    /// No file has that name any more.
    pub(super) fn gone(&self, name: &OsStr) {
        self.known.lock().remove(name);
    }

    /// These are all names that there are.
    pub(super) fn replace<'a>(&self, names: impl IntoIterator<Item = &'a OsStr>) {
        let mut known = self.known.lock();
        let mut before = std::mem::take(&mut *known);
        for name in names {
            match before.remove(name) {
                Some(still) => {
                    known.insert(name.to_owned(), still);
                }
                None => self.add(&mut known, name),
            }
        }
    }

    /// All of them, by name.
    pub(super) fn all(&self) -> Vec<Misname> {
        self.known.lock().values().cloned().collect()
    }

    fn add(&self, known: &mut BTreeMap<OsString, Misname>, name: &OsStr) {
        if known.contains_key(name) || known.len() >= MISNAMED_KEPT {
            return;
        }
        let Some(Misnaming { why, better }) = misnamed(name) else { return };
        let shown = name.to_string_lossy().into_owned();
        log::warn!("{shown:?} in the directory of tasks is no task: {why}; rename it to {better}");
        let since = (self.clock)().wall;
        known.insert(name.to_owned(), Misname { name: shown, why, better, since });
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::sync::Arc;

    use super::*;
    use crate::queue::Now;

    fn told(name: &str) -> Option<(String, String)> {
        misnamed(OsStr::new(name)).map(|Misnaming { why, better }| (why, better))
    }

    #[test]
    fn a_name_that_is_almost_that_of_a_task_is_told_with_a_better_one() {
        let long = "x".repeat(129);
        for (name, why, better) in [
            ("my task.md", "letters from A to Z", "my-task.md"),
            ("T.MD", "not in .MD", "T.md"),
            ("T.Md", "not in .Md", "T.md"),
            ("ü.md", "letters from A to Z", "ue.md"),
            ("日本.md", "letters from A to Z", "task.md"),
            ("_x.md", "begins with a letter or digit", "x.md"),
            ("-x.md", "begins with a letter or digit", "x.md"),
            ("next.md", "stands for the best task", "next-task.md"),
            ("a.markdown", "not in .markdown", "a.md"),
            ("a.md.txt", "not in .md.txt", "a.md"),
            ("a.mdx", "not in .mdx", "a.md"),
            ("a.md ", "not in .md ", "a.md"),
            ("a:b (2).md", "letters from A to Z", "a-b-2.md"),
            ("_next.md", "begins with a letter", "next-task.md"),
            ("_readme.md", "begins with a letter", "task.md"),
            (&format!("{long}.md"), "at most 128 bytes", &format!("{}.md", &long[..128])),
            (&format!("{}.md", "ö".repeat(100)), "at most 128 bytes", &format!("{}.md", "oe".repeat(64))),
        ] {
            let (said, rename) = told(name).unwrap_or_else(|| panic!("{name} is not told of"));
            assert!(said.contains(why), "{name}: {said}");
            assert_eq!(rename, better, "{name}");
            assert!(task_of(OsStr::new(&rename)).is_some(), "{rename}");
        }
        let no_text = misnamed(OsStr::from_bytes(b"a\xff.md")).unwrap();
        assert_eq!((no_text.why.as_str(), no_text.better.as_str()), ("its name is not UTF-8", "a.md"));
    }

    #[test]
    fn what_nobody_takes_for_a_task_is_not_told() {
        for name in [
            "a.md",
            ".hidden.md",
            ".md",
            ".x.md.swp",
            "x.md~",
            "x.md.bak",
            "x.bak.md",
            "#x.md#",
            "x.md.tmp.1234",
            "README.md",
            "readme.markdown",
            "Claude.local.md",
            "LESSONS LEARNED.md",
            "plan.txt",
            "notes",
            "data.json",
            "amd",
            "x.cmd",
            "",
        ] {
            assert_eq!(told(name), None, "{name}");
        }
    }

    #[test]
    fn files_of_agents_are_no_tasks_in_any_case() {
        for name in [
            "README",
            "readme",
            "CLAUDE",
            "Claude",
            "CLAUDE.local",
            "AGENTS",
            "GEMINI",
            "ToDo",
            "todos",
            "NOTES",
            "LESSONS",
            "lessons-learned",
            "lessons_learned",
            "CHANGELOG",
            "contributing",
            "LICENSE",
            "copilot-instructions",
        ] {
            assert_eq!(task_of(OsStr::new(&format!("{name}.md"))), None, "{name}");
        }
        for name in
            ["worker", "memory", "design", "readme-update", "notes-1", "agent", "license-check", "security"]
        {
            assert!(task_of(OsStr::new(&format!("{name}.md"))).is_some(), "{name}");
        }
    }

    #[test]
    fn the_collection_follows_what_is_there() {
        let misnamed = Misnamed::new(Arc::new(Now::default));
        let names = |misnamed: &Misnamed| misnamed.all().into_iter().map(|one| one.name).collect::<Vec<_>>();
        for name in ["b c.md", "a.MD", "fine.md", "b c.md", "README.md"] {
            misnamed.seen(OsStr::new(name));
        }
        assert_eq!(names(&misnamed), ["a.MD", "b c.md"]);
        misnamed.gone(OsStr::new("a.MD"));
        misnamed.gone(OsStr::new("never"));
        assert_eq!(names(&misnamed), ["b c.md"]);
        misnamed.replace(["d.MD", "fine.md"].map(OsStr::new));
        assert_eq!(names(&misnamed), ["d.MD"]);
        let many: Vec<String> = (0..MISNAMED_KEPT + 5).map(|n| format!("x {n}.md")).collect();
        misnamed.replace(many.iter().map(OsStr::new));
        assert_eq!(misnamed.all().len(), MISNAMED_KEPT);
    }
}
