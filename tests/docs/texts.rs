//! Reading Markdown and sources, as far as these tests need it.

use std::fs;
use std::path::{Path, PathBuf};

/// A path from the root of the package.
pub fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file, by its path from the root.
pub fn text(path: &str) -> String {
    fs::read_to_string(at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every text file below a directory, by its path from the root; none if there is no such directory.
pub fn texts_below(directory: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(at(directory)).into_iter().flatten() {
        let entry = entry.expect("a directory that can be read");
        let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
        match fs::read_to_string(entry.path()) {
            _ if entry.path().is_dir() => found.extend(texts_below(&path)),
            Ok(text) => found.push((path, text)),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

/// Every Rust file below a directory.
pub fn sources(directory: &str) -> Vec<(String, String)> {
    texts_below(directory).into_iter().filter(|(path, _)| path.ends_with(".rs")).collect()
}

/// The pages for users and contributors: README.md, if it exists, and everything in docs/.
pub fn pages() -> Vec<(String, String)> {
    let readme = fs::read_to_string(at("README.md")).ok().map(|text| ("README.md".to_string(), text));
    let docs = texts_below("docs").into_iter().filter(|(path, _)| path.ends_with(".md"));
    readme.into_iter().chain(docs).collect()
}

/// A source without its comment lines.
pub fn code(source: &str) -> String {
    source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The text between two marks.
pub fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("{start:?} is not there"));
    rest.split_once(end).unwrap_or_else(|| panic!("{end:?} does not follow {start:?}")).0
}

/// Everything in double quotes. For sources without escaped quotes.
pub fn quoted(source: &str) -> Vec<&str> {
    source.split('"').skip(1).step_by(2).collect()
}

/// One fenced block of a page.
pub struct Fence {
    /// The text after the opening fence.
    pub info: String,
    /// The lines inside.
    pub body: String,
    /// The number of its first line, from 1.
    pub line: usize,
}

/// The fenced blocks of a page, and the page without them.
pub fn fences(page: &str) -> (Vec<Fence>, String) {
    let (mut fences, mut rest, mut open) = (Vec::new(), String::new(), None::<Fence>);
    for (line, number) in page.lines().zip(1..) {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => {
                open = Some(Fence { info: info.to_string(), body: String::new(), line: number });
            }
            (None, None) => rest += &format!("{line}\n"),
            (Some(_), Some("")) => fences.extend(open.take()),
            (Some(fence), _) => fence.body += &format!("{line}\n"),
        }
    }
    assert!(open.is_none(), "a fenced block is not closed");
    (fences, rest)
}

/// The part of a page below a heading, up to the next heading of the same depth or above.
pub fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("there is no {heading:?}"));
    let body = &page[start + heading.len() + 2..];
    let depth = heading.chars().take_while(|c| *c == '#').count();
    let next = (1..=depth).filter_map(|depth| body.find(&format!("\n{} ", "#".repeat(depth)))).min();
    &body[..next.unwrap_or(body.len())]
}

/// The rows of all tables in a text, without their heads.
pub fn rows(text: &str) -> Vec<Vec<&str>> {
    let cells = |line| {
        let line: &str = str::trim(line);
        line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>()
    };
    let lines: Vec<&str> = text.lines().collect();
    let is_row = |line: &&str| line.starts_with('|') && !line.starts_with("|---");
    let heads: Vec<usize> =
        (1..lines.len()).filter(|n| lines[*n].starts_with("|---")).map(|n| n - 1).collect();
    let rows = lines.iter().enumerate().filter(|(n, line)| is_row(line) && !heads.contains(n));
    rows.map(|(_, line)| cells(line)).collect()
}

/// A cell without its backticks.
pub fn plain(cell: &str) -> &str {
    cell.trim_matches('`')
}
