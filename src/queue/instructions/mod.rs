//! Parses instruction files. `docs/task-format.md` is the description for users.
//!
//! Must never: guess, or silently ignore what the writer meant. A file that is not understood becomes a [`Problem`] that names the line and
//! says what would be right. A key that is like no known key is allowed and becomes a warning.
//!
//! | file | contents |
//! |---|---|
//! | `fields` | conversion of one value of the front matter to its type |
//! | `keys` | the known keys, and which of them an unknown key probably means |
//! | `globs`, `tokens` | `owns`: all spellings of a path in the one form that matches it |
//! | `lost` | front matter that stands where it is not read |

mod fields;
mod globs;
mod keys;
mod lost;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use serde_saphyr::Spanned;

use self::fields::Field;
pub use self::globs::matcher as owned_files;
use super::TaskId;
use super::task::{Manifest, Problem, Spec};
use crate::limits::{FRONT_MATTER_BYTES, INSTRUCTIONS_BYTES, MESSAGE_BYTES, TITLE_BYTES, WARNINGS_SHOWN};

/// Parses the instruction file of task `id`. `content` is the whole file. `roots` are the absolute paths of the project, in the form that
/// people write.
pub fn parse(id: &TaskId, content: &[u8], roots: &[String]) -> Manifest {
    match parse_spec(id, content, roots) {
        Ok(spec) => Manifest::Spec(Arc::new(spec)),
        Err(problem) => Manifest::Problem(Arc::new(problem)),
    }
}

fn problem(line: u64, message: impl Into<String>) -> Problem {
    Problem { line, message: cut(message.into(), MESSAGE_BYTES) }
}

/// The text, cut to at most `bytes` bytes. A text that was cut ends in `…`.
fn cut(mut text: String, bytes: usize) -> String {
    const MARK: &str = "…";
    if text.len() > bytes {
        let fits = (0..=bytes - MARK.len()).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(fits.unwrap_or(0));
        text.push_str(MARK);
    }
    text
}

/// A word of the file, quoted for a message.
fn shown(text: &str) -> String {
    let some: String = text.chars().take(60).collect();
    let more = if some.len() < text.len() { "…" } else { "" };
    format!("{:?}", some + more)
}

/// The warnings, limited in number and length.
pub fn bounded(mut warnings: Vec<String>) -> Vec<String> {
    let more = warnings.len().saturating_sub(WARNINGS_SHOWN);
    warnings.truncate(WARNINGS_SHOWN);
    let mut warnings: Vec<String> = warnings.into_iter().map(|text| cut(text, MESSAGE_BYTES)).collect();
    if more > 0 {
        warnings.push(format!("and {more} more"));
    }
    warnings
}

/// Whether a character is invisible: blanks, line ends, byte order marks, and characters without width.
fn is_invisible(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}'..='\u{200d}' | '\u{2060}')
}

fn lines_in(text: &str) -> u64 {
    text.bytes().filter(|b| *b == b'\n').count() as u64
}

fn parse_spec(id: &TaskId, content: &[u8], roots: &[String]) -> Result<Spec, Problem> {
    if content.len() as u64 > INSTRUCTIONS_BYTES {
        let (size, limit) = (content.len(), INSTRUCTIONS_BYTES);
        return Err(problem(
            0,
            format!(
                "the file has {size} bytes; instructions may have {limit}: put data into other files and name them"
            ),
        ));
    }
    let text = std::str::from_utf8(content).map_err(|error| {
        let line = 1 + content[..error.valid_up_to()].iter().filter(|b| **b == b'\n').count() as u64;
        problem(line, "the file is not UTF-8 text; write instructions as Markdown")
    })?;
    if let Some(nul) = text.find('\0') {
        return Err(problem(
            1 + lines_in(&text[..nul]),
            "the file holds a NUL byte, so it is not text; write instructions as Markdown",
        ));
    }
    let Parts { yaml, yaml_line, body, body_line } = split(text)?;
    let blank = body.chars().all(is_invisible);
    match yaml {
        None if blank => return Err(problem(0, "the file is empty; write what is to be done")),
        Some(yaml) if blank && is_without_keys(yaml) => {
            return Err(problem(0, "the file says nothing but ---; write what is to be done"));
        }
        _ => {}
    }
    if let Some(lost) = lost::find(body, body_line, yaml.is_none()) {
        return Err(lost);
    }
    let mut spec = match yaml {
        Some(yaml) => read_keys(yaml, yaml_line, roots)?,
        None => Spec::titled(""),
    };
    if spec.title.is_empty() {
        spec.title = first_heading(body).unwrap_or(id.as_str()).to_string();
    }
    spec.title = cut(spec.title, TITLE_BYTES);
    Ok(spec)
}

/// The parts of a file. Lines are those of the file, counted from 1.
struct Parts<'a> {
    /// The front matter between the two lines `---`, if the file begins with such a line.
    yaml: Option<&'a str>,
    yaml_line: u64,
    body: &'a str,
    body_line: u64,
}

/// Splits a file into front matter and body. Invisible characters before the first `---` are ignored, because a writer could not find out
/// why the front matter is not read.
fn split(text: &str) -> Result<Parts<'_>, Problem> {
    let rest = text.trim_start_matches(is_invisible);
    let before = &text[..text.len() - rest.len()];
    let opened = 1 + lines_in(before);
    let Some(start) = rest.find('\n').filter(|end| rest[..*end].trim_end_matches(is_invisible) == "---")
    else {
        return Ok(Parts { yaml: None, yaml_line: 0, body: rest, body_line: opened });
    };
    let start = start + 1;
    let indent: String = before.chars().rev().take_while(|c| matches!(c, ' ' | '\t')).collect();
    let mut offset = start;
    for line in rest[start..].split_inclusive('\n') {
        if offset - start > FRONT_MATTER_BYTES {
            break;
        }
        let end = offset + line.len();
        let line = line.strip_prefix(&indent).unwrap_or(line);
        if matches!(line.trim_end_matches(is_invisible), "---" | "...") {
            let yaml = &rest[start..offset];
            let body_line = opened + 2 + lines_in(yaml);
            return Ok(Parts { yaml: Some(yaml), yaml_line: opened + 1, body: &rest[end..], body_line });
        }
        offset = end;
    }
    Err(problem(
        opened,
        format!(
            "front matter begins here and does not end within {FRONT_MATTER_BYTES} bytes; close it with a line ---"
        ),
    ))
}

/// Whether the YAML holds only blanks and comments.
fn is_without_keys(yaml: &str) -> bool {
    yaml.lines().all(|line| line.chars().all(is_invisible) || line.trim_start().starts_with('#'))
}

/// The first ATX heading outside of code blocks.
fn first_heading(body: &str) -> Option<&str> {
    lost::plain_lines(body, 1).find_map(|(_, line)| {
        let line = line.trim();
        let hashes = line.len() - line.trim_start_matches('#').len();
        let is_heading = (1..=6).contains(&hashes) && line[hashes..].starts_with([' ', '\t']);
        let title = line[hashes..].trim().trim_end_matches('#').trim_end();
        (is_heading && !title.is_empty()).then_some(title)
    })
}

/// Reads the YAML, which begins in line `first` of the file.
fn read_keys(yaml: &str, first: u64, roots: &[String]) -> Result<Spec, Problem> {
    let line_of = |location: &serde_saphyr::Location| location.line().max(1) + first - 1;
    let keys = serde_saphyr::from_str::<Option<BTreeMap<String, Spanned<Value>>>>(yaml).map_err(|error| {
        let line = error.location().as_ref().map_or(first - 1, line_of);
        // Only the message. Its own line number counts from the `---`.
        let text = error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let text = text.split(" at line ").next().unwrap_or_default();
        problem(line, format!("this is not front matter: {text}"))
    })?;
    let mut spec = Spec::titled("");
    let mut fields: Vec<_> = keys.as_ref().into_iter().flatten().collect();
    fields.sort_by_key(|(_, spanned)| spanned.referenced.line());
    let mut warnings = Vec::new();
    let mut lines = Lines { rest: yaml, line: first };
    for (key, spanned) in fields {
        let line = line_of(&spanned.referenced);
        let source = lines.from(line);
        let field = Field { key, line, value: &spanned.value, source, roots };
        match key.as_str() {
            // A key without a value is ignored.
            known if field.value.is_null() && keys::KEYS.contains(&known) => {}
            "title" => spec.title = field.text()?.trim().to_string(),
            "priority" => spec.priority = field.priority()?,
            "needs" => spec.needs = field.ids()?,
            "requires" => spec.requires = field.words()?,
            "owns" => spec.owns = field.globs()?,
            "deadline" => spec.deadline = Some(field.when()?),
            "not_before" => spec.not_before = Some(field.when()?),
            "lease" => spec.lease = Some(field.span()?),
            "attempts" => spec.attempts = field.attempts()?,
            "context" => spec.context = field.paths()?,
            _ => warnings.push(unknown(&field, line_of_key(yaml, first, &field))?),
        }
    }
    warnings.extend(title_that_is_cut(yaml, first));
    spec.warnings = bounded(warnings);
    Ok(spec)
}

/// A cursor that moves through a text line by line.
struct Lines<'a> {
    rest: &'a str,
    line: u64,
}

impl<'a> Lines<'a> {
    /// The text from this line on. The line must not be before that of the last call.
    fn from(&mut self, line: u64) -> &'a str {
        while self.line < line && !self.rest.is_empty() {
            self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
            self.line += 1;
        }
        self.rest
    }
}

/// The line of a key. Its value may begin in a later line.
fn line_of_key(yaml: &str, first: u64, field: &Field<'_>) -> u64 {
    let before = &yaml[..yaml.len() - field.source.len()];
    let is_key = |line: &str| {
        let line = line.trim_start().trim_start_matches(['"', '\'']);
        line.strip_prefix(field.key)
            .is_some_and(|rest| rest.trim_start_matches(['"', '\'', ' ']).starts_with(':'))
    };
    if field.source.lines().next().is_some_and(is_key) {
        return field.line;
    }
    // Comments may stand between the key and its value. More than 20 lines are not searched.
    let found = before.lines().rev().take(20).position(is_key);
    found.map_or(field.line, |up| (field.line - 1 - up as u64).max(first))
}

/// The warning about an unknown key in this line, or the problem if a known key was probably meant.
fn unknown(field: &Field<'_>, line: u64) -> Result<String, Problem> {
    let key: String = cut(field.key.to_string(), 60);
    if let Some(known) = keys::intended_key(field.key) {
        let more = if known == "owns" { " (context names what is only to be read)" } else { "" };
        return Err(problem(
            line,
            format!("{key} is not a key that crewfs knows; did you mean {known}?{more}"),
        ));
    }
    if let Some(inner) = keys::nested_scheduling_key(field.value) {
        return Err(problem(
            field.line_with(inner),
            format!(
                "{} stands within {key}, where it is not read; write it without indentation, on a line of its own",
                cut(inner.to_string(), 60)
            ),
        ));
    }
    Ok(format!("line {line}: {key} is not a key that crewfs knows"))
}

/// A warning if YAML reads a part of the title as a comment.
fn title_that_is_cut(yaml: &str, first: u64) -> Option<String> {
    let (line, value) = yaml.lines().zip(first..).find_map(|(text, line)| {
        let value = text.trim_start().strip_prefix("title")?.trim_start().strip_prefix(':')?;
        value.starts_with([' ', '\t']).then_some((line, value))
    })?;
    // Quoted text and block scalars contain no comments.
    let is_plain = !value.trim_start().starts_with(['"', '\'', '|', '>']);
    (is_plain && (value.contains(" #") || value.contains("\t#")))
        .then(|| format!("line {line}: the title ends before \" #\", where YAML begins a remark; put quotes around the whole title"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Priority, Span, When};

    fn spec(content: &str) -> Spec {
        match parse(&TaskId::parse("t").unwrap(), content.as_bytes(), &["/srv/demo".into()]) {
            Manifest::Spec(spec) => (*spec).clone(),
            Manifest::Problem(problem) => panic!("{problem} in {content:?}"),
        }
    }

    fn rejected(content: &[u8]) -> Problem {
        match parse(&TaskId::parse("t").unwrap(), content, &["/srv/demo".into()]) {
            Manifest::Spec(spec) => panic!("{:?} became {spec:?}", String::from_utf8_lossy(content)),
            Manifest::Problem(problem) => (*problem).clone(),
        }
    }

    #[test]
    fn a_file_without_front_matter_is_a_task() {
        assert_eq!(spec("do it\n").title, "t");
        assert_eq!(spec("# Task: Build it #\n\n## Objective\n").title, "Task: Build it");
        assert_eq!(spec("```\n# not this\n```\n#hashtag\n## This\n").title, "This");
        assert_eq!(spec("--- \n---\n# H\n").title, "H");
        assert_eq!(spec("\u{feff}---\r\npriority: low\r\n---\r\n# H\r\n").priority, Priority::Low);
    }

    #[test]
    fn every_key_is_understood() {
        let all = spec(
            "---\ntitle: T\npriority: P0\nneeds: [a, b.md, a]\nrequires: [gpu, rust]\nowns:\n  - src/**\n\
             deadline: 2026-12-31T18:00:00Z\nnot_before: 2h\nlease: 90s\nattempts: 5\ncontext: [docs/x.md]\n\
             colour: red\n---\n# H\n",
        );
        assert_eq!((all.title.as_str(), all.priority, all.attempts), ("T", Priority::Critical, 5));
        assert_eq!(all.needs.iter().map(TaskId::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((all.requires.len(), all.owns.as_slice()), (2, &["src/**".to_string()][..]));
        assert_eq!(all.not_before, Some(When::After(Span(7_200_000))));
        assert!(matches!(all.deadline, Some(When::At(_))));
        assert_eq!(all.lease, Some(Span(90_000)));
        assert_eq!(all.warnings, ["line 13: colour is not a key that crewfs knows"]);
    }

    #[test]
    fn a_wrong_value_names_its_line() {
        for (line, content) in [
            (2, "---\npriority: soon\n---\n"),
            (3, "---\ntitle: x\nneeds: a\n---\n"),
            (2, "---\nneeds: [1, 2]\n---\n"),
            (2, "---\nneeds: [../etc]\n---\n"),
            (2, "---\nlease: 10\n---\n"),
            (2, "---\nlease: 0s\n---\n"),
            (2, "---\ndeadline: soon\n---\n"),
            (2, "---\nattempts: 0\n---\n"),
            (2, "---\nattempts: 101\n---\n"),
            (2, "---\nlease: 9999999d\n---\n"),
            (2, "---\ndeadline: 9999999d\n---\n"),
            (2, "---\nnot_before: 365001d\n---\n"),
            (2, "---\nnot_before: -000100-01-01T00:00:00Z\n---\n"),
            (2, "---\ndeadline: 12026-01-01T00:00:00Z\n---\n"),
            (2, "---\nattempts: many\n---\n"),
            (2, "---\ntitle: [a]\n---\n"),
            (2, "---\nrequires: [a b]\n---\n"),
            (3, "---\ntitle: ok\n  bad: [unclosed\n---\n"),
            (1, "---\ntitle: never closed\n"),
        ] {
            let problem = rejected(content.as_bytes());
            assert_eq!(problem.line, line, "{problem} in {content:?}");
            assert!(!problem.message.contains('\n'), "{problem}");
        }
    }

    #[test]
    fn what_cannot_be_seen_before_front_matter_does_not_hide_it() {
        for before in [
            "",
            "\n",
            " ",
            "\u{feff}",
            "\r\n\r\n",
            "\n\u{feff}\n \u{feff}",
            "\u{feff}\u{feff}\t\n",
            "\u{200b}\n",
        ] {
            let lines = before.matches('\n').count() as u64;
            let file = |value: &str| format!("{before}---\npriority: {value}\n---\n# H\n");
            let spec = spec(&file("low"));
            assert_eq!((spec.priority, spec.title.as_str()), (Priority::Low, "H"), "{before:?}");
            assert_eq!(rejected(file("soon").as_bytes()).line, 2 + lines, "{before:?}");
            assert_eq!(rejected(format!("{before}---\n").as_bytes()).line, 1 + lines, "{before:?}");
            let below = format!("{before}---\ntitle: x\n---\n\nneeds: [a]\n");
            assert_eq!(rejected(below.as_bytes()).line, 5 + lines, "{before:?}");
        }
        assert_eq!(spec("  ---\n  priority: low\n  needs: [a]\n  ---\nText\n").needs.len(), 1);
    }

    #[test]
    fn front_matter_that_nothing_would_read_is_rejected() {
        for (line, content) in [
            (1, "+++\nneeds = [\"a\"]\n+++\n# T\n"),
            (2, "\n+++\n+++\n"),
            (1, "needs: [a]\n\n# T\n"),
            (2, "title: x\npriority: high\n# T\n"),
            (2, "title: x\npriority: high\n---\n# T\n"),
            (3, "\n\nPriority: high\nDo it.\n"),
            (2, "----\nowns: [src]\n----\n"),
            (2, "***\ndepends_on: [a]\n***\n"),
            (1, "needs = [\"a\"]\n"),
            (1, "{\"needs\": [\"a\"]}\nText\n"),
            (3, "{\n  \"title\": \"x\",\n  \"needs\": [\"a\"]\n}\nText\n"),
            (3, "# T\n\npriority: high\nneeds: [a]\n\nText.\n"),
            (4, "# T\n\n---\nneeds: [a]\n---\nText.\n"),
            (6, "# T\n\nText.\n\n---\nlease: 2h\n---\n"),
            (5, "# T\n---\ntitle: x\n\nnot-before: 2h\n---\n"),
            (5, "---\ntitle: x\n---\n---\npriority: low\n---\n"),
            (1, "```yaml\n---\nneeds: [a]\n---\n```\n# T\n"),
            (1, "```markdown\n---\ntitle: x\n---\n# T\n```\n"),
        ] {
            let problem = rejected(content.as_bytes());
            assert_eq!(problem.line, line, "{problem} in {content:?}");
            assert!(problem.message.contains("front matter"), "{problem}");
        }
    }

    #[test]
    fn text_that_only_speaks_of_keys_is_a_task() {
        for content in [
            "# T\n\nWrite a file:\n\n```yaml\n---\nneeds: [a]\n---\n```\n",
            "# T\n\n~~~~\n```\n---\nneeds: [a]\n---\n~~~~\n",
            "```\nneeds: [a]\n```\n",
            "# T\n\n---\n\nOne: two\n\n---\n\nMore.\n",
            "# T\n\n---\n\nThe key is this.\nneeds: is one\n",
            "Title: a book\nContext: none\n",
            "# T\n\nNeeds: a fast machine.\n",
            "Do this:\n- needs: nothing\n",
            "# T\n\nText.\n\npriority: is explained here\n",
            "+++ this is emphasis\n",
            "---\ntitle: x\n---\nNeeds: nothing more.\n",
            "a = b\n",
        ] {
            spec(content);
        }
    }

    #[test]
    fn a_file_that_says_nothing_is_no_task() {
        for content in [
            "",
            "\n",
            " \t\r\n",
            "\u{feff}",
            "---\n---\n",
            "\n---\n\n# only a remark\n---\n \n",
            "---\n...\n",
        ] {
            let problem = rejected(content.as_bytes());
            assert_eq!(problem.line, 0, "{content:?}");
            assert!(problem.message.ends_with("write what is to be done"), "{problem}");
        }
        assert_eq!(spec("---\ntitle: Do it\n---\n").title, "Do it");
        assert_eq!(spec("---\nneeds: [a]\n---\n").title, "t");
        assert_eq!(spec("---\n---\nDo it\n").title, "t");
    }

    #[test]
    fn a_key_without_a_value_is_left_out() {
        let keys: String = keys::KEYS.iter().map(|key| format!("{key}:\n")).collect();
        assert_eq!(spec(&format!("---\n{keys}---\n# T\n")), Spec::titled("T"));
        assert_eq!(spec("---\nneeds: null\ntitle: ~\n---\n# T\n"), Spec::titled("T"));
    }

    #[test]
    fn a_key_that_was_meant_is_asked_for() {
        for (line, content, asked) in [
            (3, "title: x\nNeeds: [a]\n", "Needs is not a key that crewfs knows; did you mean needs?"),
            (2, "prority: low\n", "did you mean priority?"),
            (2, "depends_on:\n  - a\n", "did you mean needs?"),
            (2, "blockedBy:\n", "did you mean needs?"),
            (2, "files: [a]\n", "did you mean owns? (context names what is only to be read)"),
            (4, "x: 1\ncrew:\n  needs: [a]\n", "needs stands within crew, where it is not read"),
            (5, "meta:\n  a: b\n  c:\n    - priority: low\n", "priority stands within meta"),
        ] {
            let problem = rejected(format!("---\n{content}---\n# T\n").as_bytes());
            assert!(problem.message.contains(asked), "{problem}");
            assert_eq!(problem.line, line, "{problem} in {content:?}");
        }
        let glob = rejected(b"---\nowns:\n  - a\n  # b\n  - ../b\n---\n# T\n");
        assert_eq!(glob.to_string(), "line 5: owns: \"../b\" leads out of the project");
        let own = spec("---\nowner: alice\ntags: [x]\nlinks: {title: y}\nid: 7\n---\n# T\n");
        assert_eq!(own.warnings.len(), 4);
        assert_eq!(own.warnings[0], "line 2: owner is not a key that crewfs knows");
    }

    #[test]
    fn priorities_have_the_names_that_other_systems_give_them() {
        for (word, priority) in [
            ("Medium", Priority::Normal),
            ("default", Priority::Normal),
            ("URGENT", Priority::Critical),
            ("highest", Priority::Critical),
            ("Blocker", Priority::Critical),
            ("very-high", Priority::Critical),
            ("major", Priority::High),
            ("minor", Priority::Low),
            ("lowest", Priority::Background),
            ("trivial", Priority::Background),
            ("P5", Priority::Background),
            ("p1", Priority::High),
        ] {
            assert_eq!(spec(&format!("---\npriority: {word}\n---\n# T\n")).priority, priority, "{word}");
        }
        for bare in ["1", "\"1\""] {
            let problem = rejected(format!("---\npriority: {bare}\n---\n# T\n").as_bytes());
            assert!(problem.message.ends_with("write P1, where P0 is the most urgent"), "{problem}");
        }
        assert!(!rejected(b"---\npriority: 12\n---\n# T\n").message.contains("write"));
    }

    #[test]
    fn a_title_that_yaml_cuts_is_warned_of() {
        let cut = spec("---\nowner: a\ntitle: Fix #123 now\n---\n");
        assert_eq!(cut.title, "Fix");
        assert_eq!(cut.warnings.len(), 2);
        assert!(cut.warnings[1].starts_with("line 3: the title ends before \" #\""), "{:?}", cut.warnings);
        let gone = spec("---\ntitle: #123\n---\n# T\n");
        assert_eq!((gone.title.as_str(), gone.warnings.len()), ("T", 1));
        for whole in ["\"Fix #123\"", "'Fix #123' # a remark", "Fix#123", ">\n  Fix #123"] {
            let whole = spec(&format!("---\ntitle: {whole}\n---\n"));
            assert!(whole.title.contains("#123") && whole.warnings.is_empty(), "{whole:?}");
        }
    }

    #[test]
    fn nothing_that_is_kept_is_long() {
        let long = "ü".repeat(250_000);
        for content in [format!("# {long}\n"), format!("---\ntitle: {}\n---\n", &long[..60_000])] {
            let title = spec(&content).title;
            assert!(title.len() <= TITLE_BYTES && title.ends_with("ü…"), "{}", title.len());
        }
        let many: String = (0..6_000).map(|n| format!("x{n:04}:\n")).collect();
        let warnings = spec(&format!("---\n{many}---\n# T\n")).warnings;
        assert_eq!((warnings.len(), warnings[10].as_str()), (11, "and 5990 more"));
        assert_eq!(warnings[0], "line 2: x0000 is not a key that crewfs knows");
        let long = "x".repeat(50_000);
        let warnings = spec(&format!("---\n? \"{long}\"\n: 1\n---\n# T\n")).warnings;
        assert!(warnings[0].len() < 200, "{warnings:?}");
        for wrong in [
            "needs: [\"{}\"]",
            "requires: [a {}]",
            "owns: [\"{}\"]",
            "priority: {}",
            "{}: {needs: [a]}",
            "a: [{}",
        ] {
            let problem = rejected(format!("---\n{}\n---\n# T\n", wrong.replace("{}", &long)).as_bytes());
            assert!(problem.message.len() <= MESSAGE_BYTES, "{wrong}: {}", problem.message.len());
        }
        let long = "x".repeat(4_000);
        let rejected = rejected(format!("---\nneeds: [{long}]\n---\n# T\n").as_bytes());
        assert!(rejected.message.len() <= MESSAGE_BYTES);
    }

    #[test]
    fn spans_and_times_that_can_be_shown_are_taken() {
        let spec =
            spec("---\ndeadline: 365000d\nnot_before: 9999-12-30T00:00:00Z\nlease: 365000d\n---\n# T\n");
        assert_eq!(spec.lease, Some(Span(365_000 * 86_400_000)));
    }

    #[test]
    fn paths_to_be_read_are_kept_as_they_are_found() {
        let paths = "[./docs/a.md, docs//b.md, docs/x/../c.md, /srv/demo/d.md, /e.md, f/, '../g', 'h\\i', '~/j', '#k']";
        let spec = spec(&format!("---\ncontext: {paths}\n---\n# T\n"));
        let kept = ["docs/a.md", "docs/b.md", "docs/c.md", "d.md", "e.md", "f", "../g", "h\\i", "~/j", "#k"];
        assert_eq!(spec.context, kept);
    }

    #[test]
    fn what_is_no_text_is_rejected() {
        assert_eq!(rejected(b"ok\n\xff\xfe").line, 2);
        assert_eq!(rejected(b"ok\n\n\0").line, 3);
        assert_eq!(rejected(&vec![b'x'; INSTRUCTIONS_BYTES as usize + 1]).line, 0);
        assert_eq!(rejected(b"---\n- a\n- b\n---\n").line, 2);
        assert!(rejected(b"---\na: 1\na: 2\n---\n").line >= 2);
    }

    #[test]
    fn a_bomb_of_aliases_is_refused_quickly() {
        let mut yaml = String::from("---\na0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for i in 1..20 {
            let list = vec![format!("*a{}", i - 1); 9].join(", ");
            yaml += &format!("a{i}: &a{i} [{list}]\n");
        }
        rejected((yaml + "---\n").as_bytes());
    }
}
