//! The files of `src` as a graph: no import circle, and no type name twice.
//!
//! A file uses another one when its code names an item that the other one defines. A re-export is followed to the definition. A module
//! and the modules below it are one unit: uses between a file and the modules that contain it do not count.
//! Files that use one another, directly or through others, form a circle. Test modules are left out.

use std::collections::{BTreeMap, BTreeSet};

use crate::texts::{code, sources};

/// Names that each module with options of its own defines.
const SHARED_NAMES: [&str; 2] = ["Arguments", "Config"];

/// A path of names, such as `["queue", "state", "State"]` for `crate::queue::state::State`.
type Path = Vec<String>;

/// One file: the names that its code binds by `use`, and the other names in its code.
struct Source {
    file: String,
    code: String,
    /// The names that its `use` declarations bind, the path of each, and whether the declaration is a re-export.
    imports: BTreeMap<String, (Path, bool)>,
}

/// The modules of the crate by their paths.
struct Crate(BTreeMap<Path, Source>);

impl Crate {
    fn read(files: impl IntoIterator<Item = (String, String)>) -> Crate {
        let mut modules: BTreeMap<Path, Source> = BTreeMap::new();
        for (file, source) in files {
            let path = module_path(&file);
            let (uses, code) = split_uses(&without_tests(&code(&source)));
            let mut imports = BTreeMap::new();
            for (declaration, exported) in uses {
                expand(&[], &declaration, &mut |name, found| {
                    imports.insert(name.to_string(), (found, exported));
                });
            }
            modules.insert(path, Source { file, code, imports });
        }
        Crate(modules)
    }

    /// A path as the code of a module names it, from the root of the crate; `None` for a name that the module itself or another
    /// crate defines.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Path> {
        let (first, rest) = path.split_first()?;
        let join = |base: &[String], rest: &[String]| base.iter().chain(rest).cloned().collect::<Path>();
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some(join(module, rest)),
            "super" => {
                let parent = module.split_last()?.1;
                match rest.first().map(String::as_str) {
                    Some("super") => self.absolute(parent, rest),
                    _ => Some(join(parent, rest)),
                }
            }
            _ if self.0.contains_key(&join(module, &path[..1])) => Some(join(module, path)),
            name => {
                let (found, _) = self.0.get(module)?.imports.get(name)?;
                // `use serde::Serialize` binds a name that leads out of the crate.
                if found.len() == 1 && found[0] == name {
                    return None;
                }
                self.absolute(module, found).map(|base| join(&base, rest))
            }
        }
    }

    /// The file that defines the item at an absolute path; `None` for a module itself, and for what another crate defines.
    fn definition(&self, path: &[String]) -> Option<&str> {
        let depth = (0..=path.len()).rev().find(|depth| self.0.contains_key(&path[..*depth]))?;
        let (module, item) = path.split_at(depth);
        let source = &self.0[module];
        let name = item.first()?;
        match source.imports.get(name) {
            Some((found, _)) if *found != [name.clone()] => self.definition(&self.absolute(module, found)?),
            _ => Some(&source.file),
        }
    }

    /// The files that each file uses.
    fn edges(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let used = |(module, source): (&Path, &'_ Source)| {
            let imported = source.imports.iter();
            let imported = imported.filter(|(name, (_, exported))| !exported || has_name(&source.code, name));
            let paths = imported.map(|(_, (path, _))| path.clone()).chain(paths(&source.code));
            paths.filter_map(|path| self.definition(&self.absolute(module, &path)?)).collect::<Vec<_>>()
        };
        self.0
            .iter()
            .map(|(module, source)| {
                let is_outside = |file: &&str| {
                    let other = module_path(file);
                    !other.starts_with(module) && !module.starts_with(&other)
                };
                let used = used((module, source)).into_iter().filter(is_outside);
                (source.file.as_str(), used.collect())
            })
            .collect()
    }
}

/// `src/queue/state.rs` is `queue::state`; `src/queue/mod.rs` is `queue`.
fn module_path(file: &str) -> Path {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    path.split('/').filter(|part| !["mod", "lib", "main"].contains(part)).map(str::to_string).collect()
}

/// Tests stand at the end of a file.
fn without_tests(code: &str) -> String {
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_string()
}

/// The `use` declarations, each with whether it is a re-export, and the code without them.
fn split_uses(code: &str) -> (Vec<(String, bool)>, String) {
    let (mut uses, mut rest) = (Vec::new(), String::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let start = line.trim_start();
        let exported = start.starts_with("pub");
        let declared = if exported { start.split_once(' ').map_or("", |(_, rest)| rest) } else { start };
        // `pub(in crate::fs) use` has a space of its own.
        let declared =
            declared.split_once(") ").filter(|_| declared.starts_with("crate")).map_or(declared, |d| d.1);
        match declared.strip_prefix("use ") {
            Some(first) => {
                let mut declaration = first.to_string();
                while !declaration.contains(';') {
                    let Some(line) = lines.next() else { break };
                    declaration.push_str(line.trim());
                }
                uses.push((declaration.trim_end_matches(';').to_string(), exported));
            }
            None => {
                rest.push_str(line);
                rest.push('\n');
            }
        }
    }
    (uses, rest)
}

/// Each name that a `use` declaration binds, with the path that it stands for.
fn expand(before: &[String], tree: &str, bind: &mut dyn FnMut(&str, Path)) {
    let (mut path, mut tree) = (before.to_vec(), tree.trim());
    loop {
        if let Some(list) = tree.strip_prefix('{') {
            for item in items(list.trim_end().trim_end_matches('}')) {
                expand(&path, item, bind);
            }
            return;
        }
        match tree.split_once("::") {
            Some((part, rest)) => {
                path.push(part.trim().to_string());
                tree = rest.trim_start();
            }
            None => break,
        }
    }
    let (name, alias) = tree.split_once(" as ").unwrap_or((tree, tree));
    if name == "self" && !path.is_empty() {
        let alias = if alias == "self" { path[path.len() - 1].clone() } else { alias.to_string() };
        return bind(&alias, path);
    }
    if name.is_empty() || name == "*" {
        return;
    }
    path.push(name.to_string());
    bind(alias, path);
}

/// The items of a list in braces, split at the commas that are in no braces of their own.
fn items(list: &str) -> Vec<&str> {
    let (mut found, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(list[start..].trim());
    found
}

fn is_inner(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn has_name(code: &str, name: &str) -> bool {
    code.split(|c| !is_inner(c)).any(|word| word == name)
}

/// The paths of at least two names in some code.
fn paths(code: &str) -> Vec<Path> {
    let mut found = Vec::new();
    let mut path: Path = Vec::new();
    let mut rest = code;
    while !rest.is_empty() {
        let word = rest.find(|c| !is_inner(c)).unwrap_or(rest.len());
        if word == 0 {
            rest = &rest[rest.chars().next().map_or(1, char::len_utf8)..];
            continue;
        }
        path.push(rest[..word].to_string());
        rest = &rest[word..];
        match rest.strip_prefix("::").filter(|after| after.starts_with(is_inner)) {
            Some(after) => rest = after,
            None => {
                let path = std::mem::take(&mut path);
                found.extend(Some(path).filter(|path| path.len() > 1));
            }
        }
    }
    found
}

/// The files that reach themselves, each with those that it reaches and that reach it.
fn circles(edges: &BTreeMap<&str, BTreeSet<&str>>) -> BTreeSet<Vec<String>> {
    let reached = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_string()]);
        while let Some(file) = open.pop() {
            for next in edges.get(file.as_str()).into_iter().flatten() {
                if seen.insert(next.to_string()) {
                    open.push(next.to_string());
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&str, BTreeSet<String>> = edges.keys().map(|file| (*file, reached(file))).collect();
    let circle = |file: &str| {
        let mutual = reach[file].iter().filter(|other| reach[other.as_str()].contains(file));
        mutual.cloned().collect::<Vec<_>>()
    };
    edges.keys().map(|file| circle(file)).filter(|circle| !circle.is_empty()).collect()
}

fn sources_without_test_files() -> Vec<(String, String)> {
    let all = sources("src");
    let is_test = |file: &str| {
        let (parent, name) = file.rsplit_once('/').unwrap_or(("", file));
        let declared = format!("#[cfg(test)]\nmod {};", name.trim_end_matches(".rs"));
        let mod_file = format!("{parent}/mod.rs");
        all.iter().any(|(path, source)| *path == mod_file && source.contains(&declared))
    };
    all.iter().filter(|(file, _)| !is_test(file) && file != "src/main.rs").cloned().collect()
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let known = Crate::read(sources_without_test_files());
    let edges = known.edges();
    assert!(edges["src/cli/demo.rs"].contains("src/cli/out.rs"), "no imports are found");
    let found = circles(&edges);
    let new: Vec<String> = found
        .iter()
        .map(|circle| {
            let inner = |file: &String| {
                let used =
                    edges[file.as_str()].iter().filter(|used| circle.iter().any(|file| file == **used));
                format!("  {file} uses {}\n", used.copied().collect::<Vec<_>>().join(", "))
            };
            circle.iter().map(inner).collect::<String>()
        })
        .collect();
    assert!(
        new.is_empty(),
        "these files import each other; move what both need into a file of its own:\n{}",
        new.join("\n")
    );
}

/// The types that some code defines at its top level.
fn types(code: &str) -> Vec<&str> {
    let named = |line: &'_ str| -> Option<(usize, usize)> {
        let declared = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
            Some(rest) => rest.strip_prefix(' ')?,
            None => line,
        };
        let kinds = ["struct ", "enum ", "trait ", "type ", "union "];
        let name = kinds.iter().find_map(|kind| declared.strip_prefix(kind))?;
        let start = line.len() - name.len();
        Some((start, start + name.find(|c| !is_inner(c)).unwrap_or(name.len())))
    };
    code.lines().filter_map(|line| named(line).map(|(start, end)| &line[start..end])).collect()
}

#[test]
fn no_type_name_is_defined_twice() {
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, source) in sources_without_test_files() {
        for name in types(&without_tests(&code(&source))) {
            defined.entry(name.to_string()).or_default().push(file.clone());
        }
    }
    assert!(defined.contains_key("Config"), "types are found");
    defined.retain(|name, files| files.len() > 1 && !SHARED_NAMES.contains(&name.as_str()));
    assert!(defined.is_empty(), "each type has a name of its own in src: {defined:#?}");
}

fn crate_of(files: &[(&str, &str)]) -> Crate {
    Crate::read(files.iter().map(|(file, source)| (file.to_string(), source.to_string())))
}

#[test]
fn circles_are_found_however_the_files_name_each_other() {
    let circle = |files: &[(&str, &str)]| {
        let known = crate_of(files);
        let found: Vec<Vec<String>> = circles(&known.edges()).into_iter().collect();
        found.iter().map(|files| files.join(" ")).collect::<Vec<_>>()
    };
    let a_and_b = ["src/a.rs src/b.rs"];
    assert_eq!(circle(&[("src/a.rs", "use crate::b::B;\n"), ("src/b.rs", "use super::a::A;\n")]), a_and_b);
    assert_eq!(circle(&[("src/a.rs", "use crate::b;\nb::f()\n"), ("src/b.rs", "crate::a::f()\n")]), a_and_b);
    let list = "use crate::{c::{C, D}, b::{self, B as Bee},};\n";
    assert_eq!(circle(&[("src/a.rs", list), ("src/b.rs", "fn f() {\n    use crate::a::A;\n}\n")]), a_and_b);
    // A re-export is followed, also through another one.
    let (root, inner) = ("pub mod x;\npub use x::{X, Y};\n", "use super::X;\n");
    assert!(
        circle(&[("src/m/mod.rs", root), ("src/m/x.rs", "struct X;\n"), ("src/m/y.rs", inner)]).is_empty()
    );
    let through =
        [("src/lib.rs", "pub use m::X;\n"), ("src/m/mod.rs", root), ("src/m/x.rs", "use crate::c::C;\n")];
    let files = [&through[..], &[("src/c.rs", "use crate::X;\n")]].concat();
    assert_eq!(circle(&files), ["src/c.rs src/m/x.rs"]);
    // A parent that defines what its child uses, and uses the child, is one unit with it; two children that use each other are not.
    let parent = "mod x;\nmod y;\nstruct P;\nfn f() { x::f() }\n";
    let (inside, tests) = ("use super::P;\n", "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n");
    assert!(circle(&[("src/m/mod.rs", parent), ("src/m/x.rs", inside)]).is_empty());
    assert_eq!(
        circle(&[
            ("src/m/mod.rs", parent),
            ("src/m/x.rs", "use super::y::Y;\n"),
            ("src/m/y.rs", "use super::x::X;\n")
        ]),
        ["src/m/x.rs src/m/y.rs"]
    );
    assert!(circle(&[("src/a.rs", "use crate::b::B;\n"), ("src/b.rs", tests)]).is_empty(), "only in a test");
}

#[test]
fn types_are_found_whatever_their_visibility() {
    let code = "struct A;\npub enum B<T> {\npub(super) trait C: D {\npub(in crate::fs) type E = u8;\n    struct Local;\nfn f() {}\n";
    assert_eq!(types(code), ["A", "B", "C", "E"]);
}
