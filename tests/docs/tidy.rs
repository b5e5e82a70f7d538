//! The rules of `docs/contributing.md`, checked by reading the sources.

use std::collections::{BTreeMap, BTreeSet};

use crate::texts::{at, code, pages, sources, texts_below};

/// The modules of the crate that each part of `src` may use besides itself. The first match counts.
const LAYERS: &[(&str, &[&str])] = &[
    ("src/queue/", &["limits"]),
    ("src/log/", &["queue", "limits", "shown", "state_directory", "sys"]),
    ("src/engine/", &["queue", "log", "limits", "clock", "state_directory"]),
    ("src/history/", &["queue", "limits", "sys"]),
    ("src/fs/", &["engine", "history", "queue", "log", "limits", "clock", "shown", "state_directory", "sys"]),
    ("src/fuse/", &["fs", "limits", "mountpoint", "mounts"]),
    (
        "src/daemon/",
        &[
            "fuse",
            "fs",
            "engine",
            "history",
            "queue",
            "log",
            "limits",
            "clock",
            "mountpoint",
            "mounts",
            "state_directory",
            "sys",
        ],
    ),
    (
        "src/cli/",
        &[
            "daemon",
            "fuse",
            "fs",
            "engine",
            "history",
            "queue",
            "log",
            "limits",
            "clock",
            "mountpoint",
            "mounts",
            "confine",
            "shown",
            "state_directory",
            "sys",
            "users",
        ],
    ),
    ("src/clock.rs", &["queue"]),
    ("src/confine.rs", &["sys"]),
    ("src/limits.rs", &[]),
    ("src/mountpoint.rs", &[]),
    ("src/mounts.rs", &[]),
    ("src/shown.rs", &[]),
    ("src/state_directory/", &[]),
    ("src/sys.rs", &[]),
    ("src/users.rs", &[]),
    ("src/lib.rs", &[]),
    ("src/main.rs", &[]),
    ("src/bin/", &[]),
];

/// Files that may measure a wait of their own with the standard library's clock.
const WAITING: [&str; 6] = [
    "src/clock.rs",
    "src/fs/files/leased.rs",
    "src/fs/desk/publish.rs",
    "src/fs/desk/watch.rs",
    "src/cli/umount.rs",
    "src/cli/demo.rs",
];

/// The names at the top level of the repository, besides files that begin with a dot and cargo's outputs.
const TOP_LEVEL: [&str; 11] = [
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "mount-scripts",
    "hooks",
    "templates",
    "docs",
    "tests",
    "README.md",
    "LICENSE",
    "target",
];

const LONGEST: usize = 700;

/// The maximum width of a comment line, and of a line of prose in a page. Code has 110 columns (`.rustfmt.toml`).
const COLUMNS: usize = 140;

fn all_sources() -> Vec<(String, String)> {
    sources("src").into_iter().chain(sources("tests")).collect()
}

/// Whether `word` is in `code` as a whole name, not as a part of a longer one.
fn has_word(code: &str, word: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .any(|(start, _)| !code[..start].ends_with(inner) && !code[start + word.len()..].starts_with(inner))
}

#[test]
fn every_source_says_what_it_is_and_is_not_too_long() {
    for (path, source) in all_sources() {
        assert!(source.starts_with("//! "), "{path} does not begin with //! and what it is");
        let lines = source.lines().count();
        assert!(lines <= LONGEST, "{path} has {lines} lines; {LONGEST} are allowed: split it");
    }
}

/// The lines of prose of a page: those outside of tables and code blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    page.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        let can_be_broken = line.trim().contains(' ');
        !is_fence && !fenced && !line.trim_start().starts_with('|') && can_be_broken
    })
}

#[test]
fn lines_of_comment_and_prose_are_not_too_wide() {
    let is_wide = |line: &&str| line.chars().count() > COLUMNS;
    let comments = all_sources().into_iter().map(|(path, source)| {
        let comment = |line: &&str| line.trim_start().starts_with("//");
        (path, source.lines().filter(comment).filter(is_wide).count())
    });
    let pages = pages().into_iter().map(|(path, page)| (path, prose(&page).filter(is_wide).count()));
    let wide: BTreeMap<String, usize> = comments.chain(pages).filter(|(_, lines)| *lines > 0).collect();
    assert!(wide.is_empty(), "lines of more than {COLUMNS} columns, in {wide:?}; break them");
}

#[test]
fn prose_is_told_from_tables_and_code() {
    let page = "one line\n| a | b |\n```sh\nls -l\n```\ntwo lines\n";
    assert_eq!(prose(page).collect::<Vec<_>>(), ["one line", "two lines"]);
}

#[test]
fn unsafe_fuser_and_the_clock_each_have_their_file() {
    for (path, source) in sources("src") {
        let code = code(&source);
        if path != "src/sys.rs" {
            assert!(!has_word(&code, "unsafe"), "{path} holds unsafe; it belongs into src/sys.rs");
        }
        if !path.starts_with("src/fuse/") {
            let named = code.contains("fuser::") || has_word(&code, "use fuser");
            assert!(!named, "{path} names fuser; only src/fuse/ may");
        }
        if path != "src/clock.rs" {
            for reading in ["SystemTime::now", "Timestamp::now", "Zoned::now"] {
                assert!(!code.contains(reading), "{path} reads a clock ({reading}); only src/clock.rs may");
            }
        }
        if !WAITING.contains(&path.as_str()) {
            assert!(
                !code.contains("Instant::now"),
                "{path} reads a clock (Instant::now); the list is in this test"
            );
        }
    }
}

/// Ways to print that bypass `src/cli/out.rs`. The macros panic when the reader of the output has gone.
const PRINTING: [&str; 6] = ["print!", "println!", "eprint!", "eprintln!", "stdout()", "stderr()"];

#[test]
fn commands_print_in_one_place() {
    for (path, source) in sources("src/cli") {
        let code = code(&source);
        let found: Vec<_> = PRINTING.into_iter().filter(|word| has_word(&code, word)).collect();
        let allowed: &[&str] = if path == "src/cli/out.rs" { &["stdout()", "stderr()"] } else { &[] };
        assert_eq!(found, allowed, "{path}: src/cli/out.rs prints for all commands, and never by a macro");
    }
}

/// The modules of the crate that a source names.
fn named_modules(code: &str) -> BTreeSet<&str> {
    let first = |path: &'_ str| -> Option<usize> {
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
        (end > 0).then_some(end)
    };
    let mut named = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => named.extend(first(rest).map(|end| &rest[..end])),
            Some(list) => {
                let (mut depth, mut start) = (0, 0);
                for (n, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth > 0 => depth -= 1,
                        ',' | '}' if depth == 0 => {
                            let item = list[start..n].trim();
                            named.extend(first(item).map(|end| &item[..end]));
                            start = n + 1;
                            if c == '}' {
                                break;
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    named
}

#[test]
fn no_layer_knows_what_is_above_it() {
    for (path, source) in sources("src") {
        let layer = LAYERS.iter().find(|(part, _)| path.starts_with(part));
        let (part, allowed) =
            layer.unwrap_or_else(|| panic!("{path} is in no layer: docs/contributing.md, and here"));
        let own = part.trim_start_matches("src/").trim_end_matches('/').trim_end_matches(".rs");
        let code = code(&source);
        let modules = named_modules(&code).into_iter().filter(|module| is_module(module));
        for module in modules.filter(|module| *module != own) {
            assert!(allowed.contains(&module), "{path} names crate::{module}, which {part} may not know");
        }
    }
}

/// Whether a name after `crate::` is that of a top-level module.
fn is_module(name: &str) -> bool {
    at(&format!("src/{name}.rs")).exists() || at(&format!("src/{name}")).is_dir()
}

#[test]
fn modules_are_found_however_they_are_named() {
    let code =
        "use crate::queue::{A, B};\nuse crate::{clock, fs::{desk, tree}, sys};\nlet x = crate::limits::N;\n";
    assert_eq!(
        named_modules(code).into_iter().collect::<Vec<_>>(),
        ["clock", "fs", "limits", "queue", "sys"]
    );
}

#[test]
fn nothing_is_left_to_be_done() {
    // Joined from parts, so that the test does not find this file.
    let marks = [
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("db", "g!"),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
    ];
    for (path, source) in all_sources() {
        for mark in marks {
            assert!(!has_word(&source, mark), "{path} holds {mark}");
        }
    }
}

#[test]
fn nothing_is_true_on_one_machine_only() {
    let homes = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];
    let more = ["hooks", "templates", "mount-scripts"].into_iter().flat_map(texts_below);
    let begins = |before: &str| !before.ends_with(|c: char| c.is_alphanumeric() || "._->}*".contains(c));
    for (path, text) in all_sources().into_iter().chain(pages()).chain(more) {
        for home in homes {
            let found = text.match_indices(home).any(|(start, _)| begins(&text[..start]));
            assert!(!found, "{path} names a path of one machine: {home}…");
        }
    }
}

#[test]
fn the_top_level_stays_as_it_is() {
    for entry in std::fs::read_dir(at("")).expect("the root of the package") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy();
        let allowed = name.starts_with('.') || TOP_LEVEL.contains(&&*name);
        assert!(allowed, "{name} does not belong at the top level");
    }
}
