//! Finds front matter that would not be read: keys outside of it, or the wrong fences.
//!
//! May assume: the text is the part of the file that is not front matter.
//! Must never: report a key in a code block, unless the file begins with the code block.

use super::{keys, problem, shown};
use crate::queue::Problem;

/// The lines of a Markdown text outside of code blocks, numbered from `first`.
pub(super) fn plain_lines(text: &str, first: u64) -> impl Iterator<Item = (u64, &str)> {
    let mut fence: Option<(char, usize)> = None;
    text.lines().zip(first..).filter_map(move |(line, number)| {
        let found = fence_of(line);
        match (fence, found) {
            (None, Some((c, length, _))) => {
                fence = Some((c, length));
                None
            }
            (None, None) => Some((number, line)),
            (Some((open, length)), Some((c, closing, true))) if c == open && closing >= length => {
                fence = None;
                None
            }
            (Some(_), _) => None,
        }
    })
}

/// The character and length of the fence of a code block, and whether nothing follows it on the line.
fn fence_of(line: &str) -> Option<(char, usize, bool)> {
    let line = line.trim();
    let c = line.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let rest = line.trim_start_matches(c);
    let length = line.len() - rest.len();
    // Backquotes that are closed on the same line are inline code.
    (length >= 3 && !rest.contains('`')).then_some((c, length, rest.is_empty()))
}

/// Whether a line is a Markdown heading.
fn is_heading(line: &str) -> bool {
    let hashes = line.len() - line.trim_start_matches('#').len();
    (1..=6).contains(&hashes) && line[hashes..].starts_with([' ', '\t'])
}

/// Whether a line looks like a wrong spelling of `---`.
fn is_like_a_fence(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("---") || !line.is_empty() && line.chars().all(|c| "-+=*_~;.—– ".contains(c))
}

/// The key of a line `key: value` or `key = value`, which may be JSON.
fn key_of(line: &str) -> Option<&str> {
    let line = line.trim_start().trim_start_matches(['{', '"', '\'']);
    let end = line.find([':', '='])?;
    let (key, rest) = (line[..end].trim_end().trim_end_matches(['"', '\'']), &line[end + 1..]);
    let proper = key.starts_with(char::is_alphabetic)
        && key.len() <= 40
        && key.chars().all(|c| c.is_alphanumeric() || " _-".contains(c));
    (proper && (rest.is_empty() || rest.starts_with([' ', '\t', '[', '"', '\'']))).then_some(key)
}

/// The scheduling key of a line. It must be in lower case unless `any_case`.
fn scheduling_key(line: &str, any_case: bool) -> Option<&str> {
    key_of(line).filter(|key| {
        keys::scheduling_key(key).is_some() && (any_case || !key.starts_with(char::is_uppercase))
    })
}

/// Whether a line can be part of front matter.
fn is_yaml(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with([' ', '\t', '-', '#']) || key_of(line).is_some()
}

/// The problem of a text that must not contain front matter. The text begins in line `first` of its file. `top`: the file has no front
/// matter above the text.
pub(super) fn find(text: &str, first: u64, top: bool) -> Option<Problem> {
    if top && let Some(problem) = at_the_top(text, first) {
        return Some(problem);
    }
    let lines: Vec<(u64, &str)> = plain_lines(text, first).collect();
    stray_key(key_in_first_paragraph(&lines, top).or_else(|| key_in_a_block(&lines))?)
}

fn stray_key((line, key): (u64, &str)) -> Option<Problem> {
    let key = shown(key);
    Some(problem(
        line,
        format!(
            "{key} stands outside of front matter, so it is not read; front matter is YAML between two lines --- at the top of the file"
        ),
    ))
}

/// TOML front matter, or front matter in a code block.
fn at_the_top(text: &str, first: u64) -> Option<Problem> {
    let mut lines = text.lines().zip(first..).filter(|(line, _)| !line.trim().is_empty());
    let (line, number) = lines.next()?;
    let next = lines.next().map(|(line, _)| line);
    if line.trim() == "+++" && (next.is_some_and(|line| key_of(line).is_some() || line.trim() == "+++")) {
        return Some(problem(
            number,
            "front matter is YAML between two lines ---; this is TOML between lines +++",
        ));
    }
    let wrapped = fence_of(line).is_some() && next.is_some_and(|line| line.trim() == "---");
    let has_key = || {
        lines
            .take_while(|(line, _)| line.trim() != "---")
            .any(|(line, _)| key_of(line).is_some_and(|key| keys::known_key(key).is_some()))
    };
    (wrapped && has_key()).then(|| {
        problem(
            number,
            "front matter stands in a code block, so it is not read; take the lines ``` around it away",
        )
    })
}

/// A scheduling key in the first paragraph, which may follow headings or a line that looks like `---`.
fn key_in_first_paragraph<'a>(lines: &[(u64, &'a str)], top: bool) -> Option<(u64, &'a str)> {
    let mut lines = lines.iter().skip_while(|(_, line)| line.trim().is_empty()).peekable();
    let mut any_case = top;
    if lines.peek().is_some_and(|(_, line)| is_like_a_fence(line)) {
        lines.next();
    }
    while lines.peek().is_some_and(|(_, line)| line.trim().is_empty() || is_heading(line)) {
        any_case &= !lines.next().is_some_and(|(_, line)| is_heading(line));
    }
    if !lines.peek().is_some_and(|(_, line)| line.trim() == "{" || key_of(line).is_some()) {
        return None;
    }
    let paragraph = lines.take_while(|(_, line)| !line.trim().is_empty() && !is_heading(line));
    paragraph.filter(|(_, line)| !line.starts_with("    ")).find_map(|(number, line)| {
        // A line of a list is the value of another key. A sentence does not begin in lower case.
        scheduling_key(line, any_case).map(|key| (*number, key))
    })
}

/// A scheduling key between a line `---` and the first line that is not YAML.
fn key_in_a_block<'a>(lines: &[(u64, &'a str)]) -> Option<(u64, &'a str)> {
    lines.iter().enumerate().filter(|(_, (_, line))| line.trim_end() == "---").find_map(|(n, _)| {
        let block = lines[n + 1..].iter().take_while(|(_, line)| line.trim_end() != "---" && is_yaml(line));
        let mut block = block.filter(|(_, line)| !line.starts_with([' ', '\t']));
        block.find_map(|(number, line)| scheduling_key(line, false).map(|key| (*number, key)))
    })
}
