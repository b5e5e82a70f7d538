//! The files that are not guarded: those that git would ignore, and everything below `.git` (C52).
//!
//! May assume: [`GitIgnore::rules_changed`] is called for every change of a file that holds rules, and for every directory that moves.
//! Must never: follow a symbolic link, or use rules from outside the project: a user's own git configuration does not count. Whether git
//! tracks an ignored file makes no difference. If an operator has given rules, the project's own rules must not count: otherwise every
//! user that may write in the project would decide what is guarded.
//!
//! The rules are git's, as the `ignore` crate reads them: `.gitignore` of each directory up to the root of its repository, the
//! deeper one first, and then `.git/info/exclude`. A directory with a `.git` of its own is another repository.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use parking_lot::Mutex;

use crate::fs::files::Files;
use crate::fs::{Ino, ROOT};
use crate::limits::{EXEMPTIONS_KEPT, IGNORE_FILE_BYTES};

/// Names of files whose content, or presence, makes rules.
const RULES: [&str; 3] = [".gitignore", ".git", "exclude"];

/// Whether a change of a file of that name may change which files are exempt.
pub(super) fn makes_rules(name: &OsStr) -> bool {
    RULES.iter().any(|rules| name == *rules)
}

/// The rules of one file, and how many directories below the root that file is.
struct Level {
    depth: usize,
    rules: Gitignore,
}

/// The rules that apply in a directory.
enum DirectoryRules {
    /// Nothing in it is guarded.
    Exempt,
    /// These rules decide what is exempt; the outermost first.
    Ruled { path: Vec<OsString>, levels: Vec<Arc<Level>> },
}

struct KnownDirectory {
    parent: Ino,
    name: OsString,
    rules: Arc<DirectoryRules>,
}

/// The verdict about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IgnoreVerdict {
    /// Whether it is exempt.
    pub(super) exempt: bool,
    /// Whether a change of it may change which files are exempt.
    pub(super) makes_rules: bool,
}

#[derive(Default)]
struct KnownRules {
    generation: u64,
    files: HashMap<Ino, IgnoreVerdict>,
    directories: HashMap<Ino, KnownDirectory>,
}

/// The exempt files of a project. See the module's documentation.
pub(super) struct GitIgnore {
    files: Arc<Files>,
    /// The rules of an operator, which replace all rules in the project.
    operator_rules: Option<Arc<Level>>,
    /// Incremented whenever rules, or the directories that they apply to, have changed.
    generation: AtomicU64,
    known: Mutex<KnownRules>,
}

impl GitIgnore {
    /// `given`: the rules of an operator, if there are any, as the text of a `.gitignore` at the root.
    pub(super) fn new(files: Arc<Files>, given: Option<&str>) -> GitIgnore {
        let given = given.map(|text| Arc::new(Level { depth: 0, rules: rules(text.lines()) }));
        GitIgnore { files, operator_rules: given, generation: AtomicU64::new(0), known: Mutex::default() }
    }

    /// Discard every cached verdict, because rules have changed or a directory has moved.
    pub(super) fn rules_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Discard the verdict about a node that was removed or renamed.
    pub(super) fn forget(&self, ino: Ino) {
        let mut known = self.known.lock();
        known.files.remove(&ino);
        known.directories.remove(&ino);
    }

    /// The verdict about a file. A deleted file without a name is exempt, because no other worker can reach it. A file that has a
    /// name left, but whose known name was taken away, is guarded.
    pub(super) fn file(&self, ino: Ino) -> IgnoreVerdict {
        let generation = self.generation.load(Ordering::Acquire);
        {
            let known = self.known.lock();
            if known.generation == generation
                && let Some(verdict) = known.files.get(&ino)
            {
                return *verdict;
            }
        }
        let Some((parent, name)) = self.files.place(ino) else {
            let exempt = !self.files.getattr(ino).is_ok_and(|attr| attr.nlink > 0);
            return IgnoreVerdict { exempt, makes_rules: false };
        };
        let verdict =
            IgnoreVerdict { exempt: self.name(parent, &name, false), makes_rules: makes_rules(&name) };
        self.cache(generation, |known| {
            if known.files.len() >= EXEMPTIONS_KEPT {
                known.files.clear();
            }
            known.files.insert(ino, verdict);
        });
        verdict
    }

    /// Whether a name is exempt; the file need not exist.
    pub(super) fn name(&self, parent: Ino, name: &OsStr, is_directory: bool) -> bool {
        match &*self.directory(parent) {
            DirectoryRules::Exempt => true,
            DirectoryRules::Ruled { path, levels } => {
                name == ".git" || ignored(path, levels, name, is_directory)
            }
        }
    }

    fn directory(&self, ino: Ino) -> Arc<DirectoryRules> {
        let generation = self.generation.load(Ordering::Acquire);
        // Nothing can be changed below a directory that was removed.
        let place = self.files.place(ino);
        let (parent, name) = match place {
            Some(place) => place,
            None if ino == ROOT => (ROOT, OsString::new()),
            None => return Arc::new(DirectoryRules::Exempt),
        };
        {
            let known = self.known.lock();
            if known.generation == generation
                && let Some(place) = known.directories.get(&ino)
                && place.parent == parent
                && place.name == name
            {
                return place.rules.clone();
            }
        }
        let rules = Arc::new(if ino == ROOT {
            self.directory_rules(ROOT, Vec::new(), Vec::new())
        } else {
            match &*self.directory(parent) {
                DirectoryRules::Exempt => DirectoryRules::Exempt,
                DirectoryRules::Ruled { path, levels }
                    if name == ".git" || ignored(path, levels, &name, true) =>
                {
                    DirectoryRules::Exempt
                }
                DirectoryRules::Ruled { path, levels } => {
                    let mut path = path.clone();
                    path.push(name.clone());
                    self.directory_rules(ino, path, levels.clone())
                }
            }
        });
        self.cache(generation, |known| {
            if known.directories.len() >= EXEMPTIONS_KEPT {
                known.directories.clear();
            }
            known.directories.insert(ino, KnownDirectory { parent, name, rules: rules.clone() });
        });
        rules
    }

    /// The rules in a directory that is not exempt itself, with those that it adds.
    fn directory_rules(&self, ino: Ino, path: Vec<OsString>, mut levels: Vec<Arc<Level>>) -> DirectoryRules {
        if let Some(given) = &self.operator_rules {
            return DirectoryRules::Ruled { path, levels: vec![given.clone()] };
        }
        if self.files.exists(ino, OsStr::new(".git")).unwrap_or(false) {
            levels.clear();
            levels.extend(self.level(ino, ".git/info/exclude", path.len()));
        }
        levels.extend(self.level(ino, ".gitignore", path.len()));
        DirectoryRules::Ruled { path, levels }
    }

    fn level(&self, directory: Ino, file: &str, depth: usize) -> Option<Arc<Level>> {
        let content = self.files.small_file(directory, file, IGNORE_FILE_BYTES)?;
        let rules = rules(String::from_utf8_lossy(&content).lines());
        (!rules.is_empty()).then(|| Arc::new(Level { depth, rules }))
    }

    fn cache(&self, generation: u64, update: impl FnOnce(&mut KnownRules)) {
        let mut known = self.known.lock();
        if known.generation != generation {
            // A verdict that was computed while rules changed must not be cached.
            if generation != self.generation.load(Ordering::Acquire) {
                return;
            }
            *known = KnownRules { generation, ..KnownRules::default() };
        }
        update(&mut known);
    }
}

/// Rules in git's language. A line that git does not understand has no effect here either.
pub(super) fn rules<'a>(lines: impl Iterator<Item = &'a str>) -> Gitignore {
    let mut builder = GitignoreBuilder::new(".");
    for line in lines {
        let _ = builder.add_line(None, line);
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

fn ignored(directory: &[OsString], levels: &[Arc<Level>], name: &OsStr, is_directory: bool) -> bool {
    for level in levels.iter().rev() {
        let mut path: PathBuf = directory[level.depth..].iter().collect();
        path.push(name);
        let matched = level.rules.matched(&path, is_directory);
        if !matched.is_none() {
            return matched.is_ignore();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, OFlags, openat};
    use std::path::Path;

    fn project(files: &[(&str, &str)]) -> (tempfile::TempDir, GitIgnore) {
        with_rules(files, None)
    }

    fn with_rules(files: &[(&str, &str)], given: Option<&str>) -> (tempfile::TempDir, GitIgnore) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, dir.path(), flags, Mode::empty()).unwrap();
        let exempt =
            GitIgnore::new(Arc::new(Files::new(root, crate::fs::files::Opens::Reported).unwrap()), given);
        (dir, exempt)
    }

    fn is_exempt(exempt: &GitIgnore, path: &str) -> bool {
        let path = Path::new(path);
        let mut parent = ROOT;
        for component in path.parent().unwrap() {
            parent = exempt.files.lookup(parent, component).unwrap().ino;
        }
        exempt.name(parent, path.file_name().unwrap(), false)
    }

    #[test]
    fn what_git_ignores_is_exempt() {
        let (_dir, exempt) = project(&[
            (".git/info/exclude", "*.local\n"),
            (".git/config", ""),
            (".gitignore", "target/\n*.log\n!keep.log\n/only-here\n# a remark\nbuild/*\n!build/kept\n"),
            ("target/debug/x", ""),
            ("src/.gitignore", "!loud.log\ngenerated.rs\n"),
            ("src/deep/a", ""),
            ("build/kept", ""),
        ]);
        for path in [
            ".git/config",
            ".git/info/exclude",
            "target/debug/x",
            "a.log",
            "src/deep/a.log",
            "only-here",
            "src/generated.rs",
            "src/deep/generated.rs",
            "x.local",
            "src/x.local",
            "build/x",
        ] {
            assert!(is_exempt(&exempt, path), "{path}");
        }
        for path in
            ["a.rs", "keep.log", "src/only-here", "src/loud.log", "src/deep/a", "generated.rs", "build/kept"]
        {
            assert!(!is_exempt(&exempt, path), "{path}");
        }
    }

    #[test]
    fn another_repository_has_its_own_rules() {
        let (_dir, exempt) = project(&[
            (".gitignore", "*.log\n"),
            ("sub/.git", "gitdir: elsewhere\n"),
            ("sub/.gitignore", "*.tmp\n"),
            ("sub/d/x", ""),
        ]);
        assert!(
            is_exempt(&exempt, "a.log")
                && is_exempt(&exempt, "sub/d/a.tmp")
                && is_exempt(&exempt, "sub/.git")
        );
        assert!(!is_exempt(&exempt, "sub/d/a.log"));
    }

    #[test]
    fn rules_of_an_operator_take_the_place_of_all_in_the_project() {
        let files = [
            (".gitignore", "*\n"),
            (".git/info/exclude", "*\n"),
            ("target/debug/x", ""),
            ("sub/.git", "gitdir: elsewhere\n"),
            ("sub/.gitignore", "*\n"),
            ("sub/d/x", ""),
        ];
        let (_dir, exempt) = with_rules(&files, Some("target/\n/sub/*.log\n"));
        for path in [".git/config", "target/debug/x", "sub/a.log", "sub/.git"] {
            assert!(is_exempt(&exempt, path), "{path}");
        }
        for path in ["a.rs", ".gitignore", "sub/.gitignore", "sub/d/x", "sub/d/a.log"] {
            assert!(!is_exempt(&exempt, path), "{path}");
        }
        let (_dir, exempt) = with_rules(&files, Some(""));
        assert!(!is_exempt(&exempt, "target/debug/x"));
    }

    #[test]
    fn rules_that_change_are_read_again() {
        let (dir, exempt) = project(&[(".gitignore", "a\n"), ("d/x", "")]);
        let file = exempt.files.lookup(ROOT, OsStr::new(".gitignore")).unwrap().ino;
        assert!(is_exempt(&exempt, "a") && !is_exempt(&exempt, "d/b"));
        assert_eq!(exempt.file(file), IgnoreVerdict { exempt: false, makes_rules: true });
        std::fs::write(dir.path().join(".gitignore"), "b\n").unwrap();
        assert!(is_exempt(&exempt, "a"));
        exempt.rules_changed();
        assert!(!is_exempt(&exempt, "a") && is_exempt(&exempt, "d/b"));
        std::fs::remove_file(dir.path().join(".gitignore")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join(".gitignore")).unwrap();
        exempt.rules_changed();
        assert!(!is_exempt(&exempt, "d/b"));
    }
}
