//! Instruction files: from bytes to what they mean for the queue. `docs/task-format.md` is the description for users.
//!
//! Must never: guess. What is not understood becomes a [`Problem`] that names the line and says what would be right;
//! a key that is not known is kept in the file and named as a warning.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use serde_saphyr::Spanned;

use super::task::{DEFAULT_ATTEMPTS, Manifest, Priority, Problem, Spec, When};
use super::{Span, TaskId, Wall};
use crate::limits::{FRONT_MATTER_BYTES, INSTRUCTIONS_BYTES, LIST_ITEMS, MAX_ATTEMPTS};

/// What the instruction file of task `id` says. `content` is all of it.
pub fn parse(id: &TaskId, content: &[u8]) -> Manifest {
    match understand(id, content) {
        Ok(spec) => Manifest::Spec(Arc::new(spec)),
        Err(problem) => Manifest::Problem(Arc::new(problem)),
    }
}

fn problem(line: u64, message: impl Into<String>) -> Problem {
    Problem { line, message: message.into() }
}

fn understand(id: &TaskId, content: &[u8]) -> Result<Spec, Problem> {
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
        let line = 1 + text[..nul].matches('\n').count() as u64;
        return Err(problem(
            line,
            "the file holds a NUL byte, so it is not text; write instructions as Markdown",
        ));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (yaml, body) = split(text)?;
    let mut spec = match yaml {
        Some(yaml) => read_keys(yaml)?,
        None => Spec::titled(""),
    };
    if spec.title.is_empty() {
        spec.title = first_heading(body).unwrap_or(id.as_str()).to_string();
    }
    Ok(spec)
}

/// The YAML between the two `---` lines, if the file begins with one, and what follows.
fn split(text: &str) -> Result<(Option<&str>, &str), Problem> {
    let Some(first_end) = text.find('\n').filter(|end| text[..*end].trim_end() == "---") else {
        return Ok((None, text));
    };
    let start = first_end + 1;
    let mut at = start;
    for line in text[start..].split_inclusive('\n') {
        if at - start > FRONT_MATTER_BYTES {
            break;
        }
        let end = at + line.len();
        if matches!(line.trim_end(), "---" | "...") {
            return Ok((Some(&text[start..at]), &text[end..]));
        }
        at = end;
    }
    Err(problem(
        1,
        format!(
            "front matter begins here and does not end within {FRONT_MATTER_BYTES} bytes; close it with a line ---"
        ),
    ))
}

/// The first ATX heading outside of code fences.
fn first_heading(body: &str) -> Option<&str> {
    let mut fenced = false;
    for line in body.lines() {
        let line = line.trim();
        if line.starts_with("```") || line.starts_with("~~~") {
            fenced = !fenced;
        }
        let hashes = line.len() - line.trim_start_matches('#').len();
        if !fenced && (1..=6).contains(&hashes) && line[hashes..].starts_with([' ', '\t']) {
            let title = line[hashes..].trim().trim_end_matches('#').trim_end();
            if !title.is_empty() {
                return Some(title);
            }
        }
    }
    None
}

/// A value of the front matter with its key and line, ready to be taken as this or that.
struct Field<'a> {
    key: &'a str,
    line: u64,
    value: &'a Value,
}

fn read_keys(yaml: &str) -> Result<Spec, Problem> {
    // The first line of the YAML is the second of the file.
    let line_of = |location: &serde_saphyr::Location| location.line().max(1) + 1;
    let keys = serde_saphyr::from_str::<Option<BTreeMap<String, Spanned<Value>>>>(yaml).map_err(|error| {
        let line = error.location().as_ref().map_or(1, line_of);
        // The sentence without its own idea of the line, which counts from the `---`.
        let text = error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let text = text.split(" at line ").next().unwrap_or_default();
        problem(line, format!("this is not front matter: {text}"))
    })?;
    let mut spec = Spec::titled("");
    for (key, spanned) in keys.unwrap_or_default() {
        let field = Field { key: &key, line: line_of(&spanned.referenced), value: &spanned.value };
        match key.as_str() {
            "title" => spec.title = field.text()?.trim().to_string(),
            "priority" => spec.priority = field.priority()?,
            "needs" => spec.needs = field.ids()?,
            "requires" => spec.requires = field.words()?,
            "owns" => spec.owns = field.texts("globs")?,
            "deadline" => spec.deadline = Some(field.when()?),
            "not_before" => spec.not_before = Some(field.when()?),
            "lease" => spec.lease = Some(field.span()?),
            "attempts" => spec.attempts = field.attempts()?,
            "context" => spec.context = field.texts("paths")?,
            _ => spec.warnings.push(format!("line {}: {key} is not a key that crewfs knows", field.line)),
        }
    }
    Ok(spec)
}

impl Field<'_> {
    /// The refusal of this value: `expected` says what would be right.
    fn wrong(&self, expected: impl std::fmt::Display) -> Problem {
        let mut shown = self.value.to_string();
        if shown.chars().count() > 60 {
            shown = shown.chars().take(60).chain("…".chars()).collect();
        }
        problem(self.line, format!("{} is {shown}, but must be {expected}", self.key))
    }

    fn text(&self) -> Result<&str, Problem> {
        match self.value {
            Value::String(text) if !text.trim().is_empty() => Ok(text),
            _ => Err(self.wrong("text")),
        }
    }

    fn priority(&self) -> Result<Priority, Problem> {
        let found = self.value.as_str().and_then(|text| {
            let same = |name: &str| text.eq_ignore_ascii_case(name);
            Priority::ALL.iter().find(|(_, word, short)| same(word) || same(short))
        });
        match found {
            Some((priority, _, _)) => Ok(*priority),
            None => Err(self.wrong("one of critical, high, normal, low, background, or P0 to P4")),
        }
    }

    fn list(&self, what: &str) -> Result<Vec<&str>, Problem> {
        let expected = format!("a list of {what}, such as [a, b]");
        let Value::Array(items) = self.value else { return Err(self.wrong(expected)) };
        if items.len() > LIST_ITEMS {
            return Err(self.wrong(format!("a list of at most {LIST_ITEMS} {what}")));
        }
        let texts = items.iter().map(|item| item.as_str().map(str::trim).filter(|text| !text.is_empty()));
        texts.collect::<Option<_>>().ok_or_else(|| self.wrong(format!("{expected}; put numbers in quotes")))
    }

    fn texts(&self, what: &str) -> Result<Vec<String>, Problem> {
        Ok(self.list(what)?.into_iter().map(str::to_string).collect())
    }

    fn words(&self) -> Result<Vec<String>, Problem> {
        let words = self.texts("words")?;
        match words.iter().find(|word| word.contains(char::is_whitespace)) {
            Some(word) => Err(self.wrong(format!("a list of words without white space; {word:?} is none"))),
            None => Ok(words),
        }
    }

    fn ids(&self) -> Result<Vec<TaskId>, Problem> {
        let mut ids = Vec::new();
        for text in self.list("task ids")? {
            let stem = text.strip_suffix(".md").unwrap_or(text);
            match TaskId::parse(stem) {
                Some(id) if !ids.contains(&id) => ids.push(id),
                Some(_) => {}
                None => return Err(self.wrong(format!("a list of task ids; {text:?} is none"))),
            }
        }
        Ok(ids)
    }

    fn span(&self) -> Result<Span, Problem> {
        let span = self.value.as_str().and_then(Span::parse).filter(|span| span.0 > 0);
        span.ok_or_else(|| self.wrong("a span of time such as 90s, 30m, 2h or 1d"))
    }

    fn when(&self) -> Result<When, Problem> {
        let text = self.value.as_str().unwrap_or_default();
        let when = Span::parse(text).map(When::After).or_else(|| Wall::parse(text).map(When::At));
        when.ok_or_else(|| {
            self.wrong("a time such as 2026-12-31T18:00:00Z, or a span from publishing such as 2h")
        })
    }

    fn attempts(&self) -> Result<u32, Problem> {
        let number = self.value.as_u64().and_then(|n| u32::try_from(n).ok());
        number.filter(|n| (1..=MAX_ATTEMPTS).contains(n)).ok_or_else(|| {
            self.wrong(format!("a number from 1 to {MAX_ATTEMPTS} (default {DEFAULT_ATTEMPTS})"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(content: &str) -> Spec {
        match parse(&TaskId::parse("t").unwrap(), content.as_bytes()) {
            Manifest::Spec(spec) => (*spec).clone(),
            Manifest::Problem(problem) => panic!("{problem} in {content:?}"),
        }
    }

    fn rejected(content: &[u8]) -> Problem {
        match parse(&TaskId::parse("t").unwrap(), content) {
            Manifest::Spec(spec) => panic!("{:?} became {spec:?}", String::from_utf8_lossy(content)),
            Manifest::Problem(problem) => (*problem).clone(),
        }
    }

    #[test]
    fn a_file_without_front_matter_is_a_task() {
        assert_eq!(spec("").title, "t");
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
            (2, "---\npriority: urgent\n---\n"),
            (3, "---\ntitle: x\nneeds: a\n---\n"),
            (2, "---\nneeds: [1, 2]\n---\n"),
            (2, "---\nneeds: [../etc]\n---\n"),
            (2, "---\nlease: 10\n---\n"),
            (2, "---\nlease: 0s\n---\n"),
            (2, "---\ndeadline: soon\n---\n"),
            (2, "---\nattempts: 0\n---\n"),
            (2, "---\nattempts: 101\n---\n"),
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
