//! Converts a value of the front matter to the type that its key requires.
//!
//! Must never: convert a value to something that the writer did not mean. A synonym is accepted only if it has one meaning.

use serde_json::Value;

use super::{globs, problem, shown};
use crate::limits::{LIST_ITEM_BYTES, LIST_ITEMS, MAX_ATTEMPTS, SPAN_DAYS};
use crate::queue::task::{DEFAULT_ATTEMPTS, Priority, Problem, When};
use crate::queue::{Span, TaskId, Wall};

/// Names of priorities in other systems, without case and punctuation.
const SYNONYMS: [(Priority, &[&str]); 5] = [
    (Priority::Critical, &["urgent", "highest", "blocker", "emergency", "immediate", "asap", "veryhigh"]),
    (Priority::High, &["major", "important"]),
    (Priority::Normal, &["medium", "default", "moderate", "standard", "med"]),
    (Priority::Low, &["minor"]),
    (Priority::Background, &["lowest", "trivial", "verylow", "p5", "p6", "p7", "p8", "p9"]),
];

/// A value of the front matter with its key and line.
pub(super) struct Field<'a> {
    pub(super) key: &'a str,
    /// The line of the file in which the value begins.
    pub(super) line: u64,
    pub(super) value: &'a Value,
    /// The YAML from that line on.
    pub(super) source: &'a str,
    /// The absolute paths of the project.
    pub(super) roots: &'a [String],
}

impl Field<'_> {
    /// The problem of this value. `expected` says what would be right.
    fn wrong(&self, expected: impl std::fmt::Display) -> Problem {
        let mut shown = self.value.to_string();
        if shown.chars().count() > 60 {
            shown = shown.chars().take(60).chain("…".chars()).collect();
        }
        problem(self.line, format!("{} is {shown}, but must be {expected}", self.key))
    }

    pub(super) fn text(&self) -> Result<&str, Problem> {
        match self.value {
            Value::String(text) if !text.trim().is_empty() => Ok(text),
            _ => Err(self.wrong("text")),
        }
    }

    pub(super) fn priority(&self) -> Result<Priority, Problem> {
        let written = self.value.as_str().unwrap_or_default().trim();
        let bare: String =
            written.chars().filter(|c| !" _-".contains(*c)).flat_map(char::to_lowercase).collect();
        let named =
            Priority::ALL.iter().find(|(_, word, short)| bare == *word || short.eq_ignore_ascii_case(&bare));
        let synonym = || SYNONYMS.iter().find(|(_, words)| words.contains(&bare.as_str()));
        if let Some(priority) =
            named.map(|(priority, ..)| *priority).or_else(|| synonym().map(|(priority, _)| *priority))
        {
            return Ok(priority);
        }
        let expected = "one of critical, high, normal, low, background, or P0 to P4";
        // A bare number is ambiguous: systems count priorities from 0 or 1, upwards or downwards.
        match self.value.as_u64().or_else(|| written.parse().ok()) {
            Some(number @ 0..=9) => {
                Err(self.wrong(format!("{expected}; write P{number}, where P0 is the most urgent")))
            }
            _ => Err(self.wrong(expected)),
        }
    }

    /// The items of a list, unchanged.
    fn list(&self, what: &str) -> Result<Vec<&str>, Problem> {
        let expected = format!("a list of {what}, such as [a, b]");
        let Value::Array(items) = self.value else { return Err(self.wrong(expected)) };
        if items.len() > LIST_ITEMS {
            return Err(self.wrong(format!("a list of at most {LIST_ITEMS} {what}")));
        }
        if items.iter().any(|item| item.as_str().is_some_and(|text| text.len() > LIST_ITEM_BYTES)) {
            return Err(
                self.wrong(format!("a list of {what} that have at most {LIST_ITEM_BYTES} bytes each"))
            );
        }
        let texts = items.iter().map(|item| item.as_str().filter(|text| !text.trim().is_empty()));
        texts.collect::<Option<_>>().ok_or_else(|| {
            let quotes = match items.iter().any(Value::is_number) {
                true => "put numbers in quotes",
                false => "put quotes around what has a meaning in YAML, such as # or ! at the beginning",
            };
            self.wrong(format!("{expected}; {quotes}"))
        })
    }

    pub(super) fn words(&self) -> Result<Vec<String>, Problem> {
        let words: Vec<String> =
            self.list("words")?.into_iter().map(|word| word.trim().to_string()).collect();
        match words.iter().find(|word| word.contains(char::is_whitespace)) {
            Some(word) => {
                Err(self.wrong(format!("a list of words without white space; {} is none", shown(word))))
            }
            None => Ok(words),
        }
    }

    pub(super) fn ids(&self) -> Result<Vec<TaskId>, Problem> {
        let mut ids = Vec::new();
        for text in self.list("task ids")? {
            let stem = text.trim();
            let stem = stem.strip_suffix(".md").unwrap_or(stem);
            match TaskId::parse(stem) {
                Some(id) if !ids.contains(&id) => ids.push(id),
                Some(_) => {}
                None => return Err(self.wrong(format!("a list of task ids; {} is none", shown(text.trim())))),
            }
        }
        Ok(ids)
    }

    pub(super) fn globs(&self) -> Result<Vec<String>, Problem> {
        let items = self.list("globs")?;
        globs::normal_list(&items, self.roots).map_err(|(item, why)| {
            let line = item.map_or(self.line, |item| self.line_with(items[item]));
            problem(line, format!("{}: {why}", self.key))
        })
    }

    /// The first line from the value on that contains this text; the line of the value if there is none.
    pub(super) fn line_with(&self, text: &str) -> u64 {
        let found = self.source.lines().zip(self.line..).find(|(line, _)| line.contains(text));
        found.map_or(self.line, |(_, line)| line)
    }

    /// The paths in `context`. A path without a normal form is kept unchanged; a warning about it follows later.
    pub(super) fn paths(&self) -> Result<Vec<String>, Problem> {
        let paths = self.list("paths")?.into_iter().map(str::trim);
        Ok(paths
            .map(|path| globs::normal_path(path, self.roots).unwrap_or_else(|| path.to_string()))
            .collect())
    }

    /// Refuses a span that is too long for any calendar.
    fn check_span_length(&self, span: Span) -> Result<Span, Problem> {
        match span <= Span(SPAN_DAYS * 86_400_000) {
            true => Ok(span),
            false => Err(self.wrong(format!("at most {SPAN_DAYS}d"))),
        }
    }

    pub(super) fn span(&self) -> Result<Span, Problem> {
        let span = self.value.as_str().and_then(Span::parse).filter(|span| span.0 > 0);
        self.check_span_length(span.ok_or_else(|| self.wrong("a span of time such as 90s, 30m, 2h or 1d"))?)
    }

    pub(super) fn when(&self) -> Result<When, Problem> {
        let text = self.value.as_str().unwrap_or_default();
        if let Some(span) = Span::parse(text) {
            return self.check_span_length(span).map(When::After);
        }
        let wall = Wall::parse(text).ok_or_else(|| {
            self.wrong("a time such as 2026-12-31T18:00:00Z, or a span from publishing such as 2h")
        })?;
        match wall.is_shown() {
            true => Ok(When::At(wall)),
            false => Err(self.wrong("a time between the years 0 and 9999")),
        }
    }

    pub(super) fn attempts(&self) -> Result<u32, Problem> {
        let number = self.value.as_u64().and_then(|n| u32::try_from(n).ok());
        number.filter(|n| (1..=MAX_ATTEMPTS).contains(n)).ok_or_else(|| {
            self.wrong(format!("a number from 1 to {MAX_ATTEMPTS} (default {DEFAULT_ATTEMPTS})"))
        })
    }
}
