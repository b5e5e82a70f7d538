//! Adds members to a JSON text, and removes them, without touching any other byte.
//!
//! May assume: nothing about the text. What is not JSON is refused.
//! Must never: reformat a document. Order, spaces and line ends stay as their author wrote them.

use std::ops::Range;

use serde_json::Value;

use super::text::{Insertion, once, with_line_ends};

/// A value and its range in the text.
struct JsonNode {
    at: Range<usize>,
    kind: JsonKind,
}

enum JsonKind {
    Object(Vec<JsonMember>),
    Array(Vec<JsonNode>),
    Scalar,
}

struct JsonMember {
    key: String,
    start: usize,
    value: JsonNode,
}

/// The insertions after which `text` has all members of `wanted`, and the names of existing values that differ and are kept. An item of
/// a list is appended unless an equal one is there.
pub(super) fn merge(text: &str, wanted: &str) -> Result<(Vec<Insertion>, Vec<String>), String> {
    let there = parse(text)?;
    let wanted_root = parse(wanted)?;
    let unit = unit_of(text);
    let mut merging = JsonMerge { text, wanted, unit, insertions: Vec::new(), kept: Vec::new() };
    merging.node(&there, &wanted_root, "", 0)?;
    let JsonMerge { mut insertions, kept, .. } = merging;
    if text.contains("\r\n") {
        for insertion in &mut insertions {
            insertion.text = with_line_ends(&insertion.text, "\r\n");
        }
    }
    Ok((insertions, kept))
}

struct JsonMerge<'a> {
    text: &'a str,
    wanted: &'a str,
    unit: &'a str,
    insertions: Vec<Insertion>,
    kept: Vec<String>,
}

impl JsonMerge<'_> {
    fn node(&mut self, there: &JsonNode, wanted: &JsonNode, name: &str, depth: usize) -> Result<(), String> {
        match (&there.kind, &wanted.kind) {
            (JsonKind::Object(members), JsonKind::Object(wanted_members)) => {
                let mut missing = Vec::new();
                for member in wanted_members {
                    match members.iter().find(|known| known.key == member.key) {
                        Some(known) => {
                            let name = if name.is_empty() {
                                member.key.clone()
                            } else {
                                format!("{name}.{}", member.key)
                            };
                            self.node(&known.value, &member.value, &name, depth + 1)?;
                        }
                        None => missing.push(member.start..member.value.at.end),
                    }
                }
                let last = members.last().map(|member| member.start..member.value.at.end);
                self.append(there, last, &missing, depth);
            }
            (JsonKind::Array(items), JsonKind::Array(wanted_items)) => {
                let have: Vec<Value> = items.iter().map(|item| value(self.text, item)).collect();
                let missing = wanted_items.iter().filter(|item| !have.contains(&value(self.wanted, item)));
                let missing: Vec<Range<usize>> = missing.map(|item| item.at.clone()).collect();
                self.append(there, items.last().map(|item| item.at.clone()), &missing, depth);
            }
            (JsonKind::Scalar, JsonKind::Scalar) => {
                if value(self.text, there) != value(self.wanted, wanted) {
                    self.kept.push(name.to_string());
                }
            }
            _ => {
                let what = if matches!(wanted.kind, JsonKind::Array(_)) { "a list" } else { "an object" };
                return Err(format!("{} is not {what} there", if name.is_empty() { "it" } else { name }));
            }
        }
        Ok(())
    }

    /// Insert parts of the wanted text behind the last item of a container.
    fn append(
        &mut self,
        container: &JsonNode,
        last: Option<Range<usize>>,
        parts: &[Range<usize>],
        depth: usize,
    ) {
        if parts.is_empty() {
            return;
        }
        let inside = &self.text[container.at.clone()];
        let in_one_line = last.is_some() && !inside.contains('\n');
        let indent = last.as_ref().and_then(|last| indent_of(self.text, last.start));
        let indent = indent.map_or_else(|| self.unit.repeat(depth + 1), str::to_string);
        let mut text = String::new();
        for (n, part) in parts.iter().enumerate() {
            if n > 0 || last.is_some() {
                text.push(',');
            }
            if in_one_line {
                text.push(' ');
                text.push_str(&compact(&self.wanted[part.clone()]));
            } else {
                text.push('\n');
                text.push_str(&indent);
                text.push_str(&indented(self.wanted, part, &indent, self.unit));
            }
        }
        if last.is_none() && !inside.contains('\n') {
            text.push('\n');
            text.push_str(&self.unit.repeat(depth));
        }
        self.insertions.push(Insertion { at: last.map_or(container.at.start + 1, |last| last.end), text });
    }
}

/// Whether a text has no members: what remains of a file that init made when the members are removed.
pub(super) fn is_empty(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|value| value.as_object().is_some_and(|map| map.is_empty()))
}

/// The braces around the members in a file that was blank.
pub(super) const FRAME: &str = "{\n}\n";

/// The member of `wanted` that `text` has more than once. Programs differ in which one counts: most read the last, some refuse the file.
pub(super) fn repeated(text: &str, wanted: &str) -> Option<String> {
    fn find(there: &JsonNode, wanted: &JsonNode) -> Option<String> {
        let (JsonKind::Object(members), JsonKind::Object(wanted)) = (&there.kind, &wanted.kind) else {
            return None;
        };
        wanted.iter().find_map(|wanted| {
            let mut same = members.iter().filter(|member| member.key == wanted.key);
            let first = same.next()?;
            if same.next().is_some() {
                return Some(wanted.key.clone());
            }
            find(&first.value, &wanted.value).map(|below| format!("{}.{below}", wanted.key))
        })
    }
    find(&parse(text).ok()?, &parse(wanted).ok()?)
}

/// The text without these pieces. `None` unless each is there exactly once. Commas are corrected.
pub(super) fn take_out(text: &str, pieces: &[String]) -> Option<String> {
    let mut left = text.to_string();
    for piece in pieces {
        if piece == FRAME {
            // The braces stay if a user has put something between them.
            left = left.strip_prefix(FRAME).map_or(left.clone(), str::to_string);
            continue;
        }
        // Another member may stand behind or before it by now.
        let inner = piece.trim_end();
        let forms = [piece, inner, inner.trim_start_matches(',')];
        let (at, length) = forms.into_iter().find_map(|form| once(&left, form))?;
        left.replace_range(at..at + length, "");
        if let Some(comma) = stray_comma(&left, at) {
            left.remove(comma);
        }
    }
    let is_json = |text: &str| serde_json::from_str::<Value>(text).is_ok();
    (left.trim().is_empty() || is_json(&left) || !is_json(text)).then_some(left)
}

/// The superfluous comma after a removal at `at`.
fn stray_comma(text: &str, at: usize) -> Option<usize> {
    let (before, behind) = (text[..at].trim_end(), text[at..].trim_start());
    if behind.starts_with(',') && before.ends_with(['{', '[', ',']) {
        Some(text.len() - behind.len())
    } else if before.ends_with(',') && behind.starts_with(['}', ']']) {
        Some(before.len() - 1)
    } else {
        None
    }
}

fn value(text: &str, node: &JsonNode) -> Value {
    serde_json::from_str(&text[node.at.clone()]).unwrap_or_default()
}

/// The indentation before `at`, if `at` is the first character of its line.
fn indent_of(text: &str, at: usize) -> Option<&str> {
    let line = text[..at].rfind('\n')? + 1;
    text[line..at].trim().is_empty().then(|| &text[line..at])
}

/// The indentation of one level in this text.
fn unit_of(text: &str) -> &str {
    let indented = text.lines().find(|line| line.starts_with([' ', '\t']) && !line.trim().is_empty());
    indented.map_or("  ", |line| &line[..line.len() - line.trim_start().len()])
}

/// A part of the wanted text, which is indented by two spaces a level, with another indentation.
fn indented(wanted: &str, part: &Range<usize>, indent: &str, unit: &str) -> String {
    let base = indent_of(wanted, part.start).map_or(0, str::len);
    let mut lines = wanted[part.clone()].lines();
    let mut text = lines.next().unwrap_or_default().to_string();
    for line in lines {
        let content = line.trim_start();
        let levels = (line.len() - content.len()).saturating_sub(base) / 2;
        text.push('\n');
        text.push_str(indent);
        text.push_str(&unit.repeat(levels));
        text.push_str(content);
    }
    text
}

/// A part of a JSON text on one line.
fn compact(part: &str) -> String {
    let (mut text, mut quoted, mut escaped) = (String::new(), false, false);
    for c in part.chars() {
        let white = !quoted && c.is_ascii_whitespace();
        if !white {
            text.push(c);
        }
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            ',' | ':' if !quoted => text.push(' '),
            _ => {}
        }
    }
    text
}

/// Find the range of each value. serde_json has validated the text before.
fn parse(text: &str) -> Result<JsonNode, String> {
    serde_json::from_str::<Value>(text).map_err(|error| format!("it is not plain JSON ({error})"))?;
    let mut scan = JsonScanner { bytes: text.as_bytes(), at: 0 };
    let root = scan.node();
    match root.kind {
        JsonKind::Object(_) => Ok(root),
        _ => Err("it holds no JSON object".into()),
    }
}

/// May assume: valid JSON.
struct JsonScanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl JsonScanner<'_> {
    fn white(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    /// The next byte that is not white space, without consuming it.
    fn next(&mut self) -> u8 {
        self.white();
        self.bytes.get(self.at).copied().unwrap_or_default()
    }

    fn node(&mut self) -> JsonNode {
        let opening = self.next();
        let start = self.at;
        let kind = match opening {
            b'{' => JsonKind::Object(self.list(b'}', |scan| {
                scan.white();
                let start = scan.at;
                scan.scalar();
                let key = serde_json::from_slice(&scan.bytes[start..scan.at]).unwrap_or_default();
                // The colon.
                scan.next();
                scan.at += 1;
                JsonMember { key, start, value: scan.node() }
            })),
            b'[' => JsonKind::Array(self.list(b']', JsonScanner::node)),
            _ => {
                self.scalar();
                JsonKind::Scalar
            }
        };
        JsonNode { at: start..self.at, kind }
    }

    fn list<T>(&mut self, closing: u8, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            match self.next() {
                b',' => self.at += 1,
                0 => return items,
                byte if byte == closing => {
                    self.at += 1;
                    return items;
                }
                _ => items.push(item(self)),
            }
        }
    }

    fn scalar(&mut self) {
        if self.bytes.get(self.at) != Some(&b'"') {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || b",]}".contains(byte);
            while self.bytes.get(self.at).is_some_and(|byte| !ends(byte)) {
                self.at += 1;
            }
            return;
        }
        self.at += 1;
        while let Some(byte) = self.bytes.get(self.at) {
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::apply;
    use super::*;

    const WANTED: &str = "{\n  \"hooks\": {\n    \"Stop\": [\n      {\n        \"command\": \"a, b: c\"\n      }\n    ]\n  },\n  \"version\": 1\n}\n";

    /// Merge, and check that the result is complete, that a second merge changes nothing, and that the removal restores the text.
    #[track_caller]
    fn merged(text: &str) -> String {
        let (insertions, _) = merge(text, WANTED).unwrap();
        let pieces: Vec<String> = insertions.iter().map(|insertion| insertion.text.clone()).collect();
        let after = apply(text, &insertions);
        let (again, _) = merge(&after, WANTED).unwrap();
        assert!(again.is_empty(), "{after}");
        assert_eq!(take_out(&after, &pieces).as_deref(), Some(text), "{after}");
        after
    }

    #[test]
    fn everything_there_stays_as_it_is() {
        assert_eq!(merged("{\n}\n"), WANTED);
        assert_eq!(merged("{}"), WANTED.trim_end());
        assert_eq!(
            merged("{\"z\":1,\"hooks\":{\"Stop\":[]}}"),
            "{\"z\":1,\"hooks\":{\"Stop\":[\n      {\n        \"command\": \"a, b: c\"\n      }\n    ]}, \"version\": 1}"
        );
        assert_eq!(
            merged("{\"hooks\": {\"Stop\": [7]}}"),
            "{\"hooks\": {\"Stop\": [7, {\"command\": \"a, b: c\"}]}, \"version\": 1}"
        );
        let tabs = "{\r\n\t\"z\": \"}\\\"\",\r\n\t\"hooks\": {\r\n\t\t\"Start\": []\r\n\t}\r\n}";
        assert_eq!(
            merged(tabs),
            "{\r\n\t\"z\": \"}\\\"\",\r\n\t\"hooks\": {\r\n\t\t\"Start\": [],\r\n\t\t\"Stop\": [\r\n\t\t\t{\r\n\t\t\t\t\"command\": \"a, b: c\"\r\n\t\t\t}\r\n\t\t]\r\n\t},\r\n\t\"version\": 1\r\n}"
        );
    }

    #[test]
    fn a_value_that_is_there_wins_and_is_named() {
        let (insertions, kept) = merge("{\"version\": 2, \"hooks\": {\"Stop\": []}}", WANTED).unwrap();
        assert_eq!((insertions.len(), kept), (1, vec!["version".to_string()]));
    }

    #[test]
    fn what_is_no_plain_json_is_refused() {
        for text in
            ["", "{\n  // a remark\n}", "{\"a\": 1,}", "[]", "{\"hooks\": []}", "{\"hooks\": {\"Stop\": {}}}"]
        {
            assert!(merge(text, WANTED).is_err(), "{text}");
        }
    }

    #[test]
    fn what_came_later_stays_when_ours_goes() {
        let (insertions, _) = merge("{\n}\n", WANTED).unwrap();
        let pieces: Vec<String> = insertions.iter().map(|insertion| insertion.text.clone()).collect();
        let behind = WANTED.replace("\"version\": 1\n", "\"version\": 1,\n  \"model\": \"x\"\n");
        let before = WANTED.replace("{\n  \"hooks\"", "{\n  \"model\": \"x\",\n  \"hooks\"");
        for after in [behind, before] {
            assert_eq!(take_out(&after, &pieces).as_deref(), Some("{\n  \"model\": \"x\"\n}\n"), "{after}");
        }
        // Between two members of the user, and into a text of one line.
        let (insertions, _) = merge("{}", WANTED).unwrap();
        let pieces: Vec<String> = insertions.iter().map(|insertion| insertion.text.clone()).collect();
        let after = apply("{}", &insertions);
        let after = after.replace("{\n  \"hooks\"", "{\n  \"a\": 1,\n  \"hooks\"");
        let after = after.replace("\"version\": 1\n", "\"version\": 1,\n  \"b\": 2\n");
        assert_eq!(take_out(&after, &pieces).as_deref(), Some("{\n  \"a\": 1,\n  \"b\": 2\n}"), "{after}");
        // The member of the user that ours followed is gone.
        let (insertions, _) = merge("{\n  \"a\": 1\n}\n", WANTED).unwrap();
        let pieces: Vec<String> = insertions.iter().map(|insertion| insertion.text.clone()).collect();
        assert_eq!(take_out(WANTED, &pieces).as_deref(), Some("{\n}\n"));
    }

    #[test]
    fn what_is_there_twice_is_named() {
        let twice = |text: &str| repeated(text, WANTED);
        assert_eq!(twice("{\"hooks\": {}, \"version\": 1}"), None);
        assert_eq!(twice("{\"a\": 1, \"a\": 2}"), None, "that is none of ours");
        assert_eq!(twice("{\"hooks\": {}, \"hooks\": []}").as_deref(), Some("hooks"));
        assert_eq!(twice("{\"hooks\": {\"Stop\": [], \"Stop\": []}}").as_deref(), Some("hooks.Stop"));
    }

    #[test]
    fn the_braces_of_a_blank_file_go_when_nothing_is_between_them() {
        let pieces = [WANTED[1..WANTED.len() - 3].to_string(), FRAME.to_string()];
        assert_eq!(take_out(&format!("{WANTED} \n"), &pieces).as_deref(), Some(" \n"));
        let more = WANTED.replace("\"version\": 1\n", "\"version\": 1,\n  \"model\": \"x\"\n");
        assert_eq!(take_out(&more, &pieces).as_deref(), Some("{\n  \"model\": \"x\"\n}\n"));
    }
}
