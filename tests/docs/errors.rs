//! `docs/troubleshooting.md` against the sources: the page has every sentence with which a command fails, and no other.

use std::collections::{BTreeMap, BTreeSet};

use crate::texts::{plain, rows, section, sources, text};

const PAGE: &str = "docs/troubleshooting.md";

/// Expressions that make an error of a sentence.
const MAKERS: [&str; 8] = [
    "CliError::failed(",
    "CliError::usage(",
    "StartError(",
    "message: ",
    "let message = ",
    "#[error(",
    "cannot(",
    WRONG,
];
/// The name of a closure that some files have to build a sentence.
const WRONG: &str = "wrong(";

/// The string literal at the beginning of a text, and its length in the source.
fn literal(source: &str) -> Option<(String, usize)> {
    let mut said = String::new();
    let mut chars = source.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((said, at + 1)),
            '\\' => match chars.next()?.1 {
                // The literal continues in the next line, at the first character that is not blank.
                '\n' => {
                    let rest = &source[at + 2..];
                    let blank = rest.len() - rest.trim_start().len();
                    if blank > 0 {
                        chars.nth(rest[..blank].chars().count() - 1);
                    }
                }
                escaped => said.push(escaped),
            },
            c => said.push(c),
        }
    }
    None
}

/// A sentence without its variable parts, which are in brackets of this kind.
fn without_parts(sentence: &str, open: char, close: char) -> String {
    let (mut fixed, mut depth) = (String::new(), 0);
    for c in sentence.chars() {
        match c {
            c if c == open => {
                if depth == 0 {
                    fixed.push_str("<>");
                }
                depth += 1;
            }
            c if c == close => depth -= 1,
            c if depth == 0 => fixed.push(c),
            _ => {}
        }
    }
    fixed
}

/// The literals in the arguments of a maker, up to the closing bracket.
fn literals(argument: &str, only_first: bool) -> Vec<String> {
    let (mut found, mut depth, mut at) = (Vec::new(), 1, 0);
    while let Some(c) = argument[at..].chars().next() {
        match c {
            '"' => {
                let Some((said, length)) = literal(&argument[at..]) else { break };
                found.push(said);
                at += length;
                if only_first {
                    break;
                }
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            // The end of a field of a structure.
            ',' | ';' if depth == 1 && only_first => break,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        at += c.len_utf8();
    }
    found
}

/// Collect every sentence of which a source makes an error, with the path of the source.
fn made(path: &str, source: &str, sentences: &mut BTreeMap<String, String>) {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    // The fixed beginning of the sentence that a file's own `wrong` completes.
    let wrong = source.split_once("let wrong =").and_then(|(_, rest)| literal(&rest[rest.find('"')?..]));
    let wrong = wrong.map(|(said, _)| without_parts(&said, '{', '}')).unwrap_or_default();
    let wrong = wrong.strip_suffix("<>").unwrap_or_default();
    for maker in MAKERS {
        let (before, after) = match maker {
            WRONG => (wrong, ""),
            "cannot(" => ("", ": <>"),
            _ => ("", ""),
        };
        for (at, _) in source.match_indices(maker) {
            if source[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let only_first = matches!(maker, "#[error(" | "message: " | "let message = ");
            for said in literals(&source[at + maker.len()..], only_first) {
                // Separators of lists and words for the kernel are no sentences.
                if !said.contains('{') && said.split_whitespace().count() < 3 {
                    continue;
                }
                let sentence = format!("{before}{}{after}", without_parts(&said, '{', '}'));
                // A template that only joins other sentences counts as none.
                let is_template = !wrong.is_empty() && sentence.strip_prefix(wrong) == Some("<>");
                if !is_template && (sentence.contains(|c: char| c.is_alphabetic()) || sentence == "<>: <>") {
                    sentences.insert(sentence, path.to_string());
                }
            }
        }
    }
}

#[test]
fn every_sentence_of_a_command_is_on_the_page_and_no_other() {
    let mut said = BTreeMap::new();
    let commands = sources("src/cli").into_iter().chain(
        sources("src/daemon").into_iter().chain(
            ["src/log/mod.rs", "src/confine.rs", "src/state_directory/plain.rs"]
                .map(|path| (path.to_string(), text(path))),
        ),
    );
    for (path, source) in commands {
        made(&path, &source, &mut said);
    }
    assert!(
        said.len() >= 60,
        "only {} sentences were found; the sources have another form than this test knows",
        said.len()
    );
    let page = text(PAGE);
    let shown: BTreeSet<String> = rows(section(&page, "## What the commands say"))
        .iter()
        .map(|row| without_parts(plain(row[0]), '<', '>'))
        .collect();
    let lacking: Vec<_> = said.iter().filter(|(sentence, _)| !shown.contains(*sentence)).collect();
    assert!(lacking.is_empty(), "{PAGE} lacks {lacking:#?}");
    let unsaid: Vec<_> = shown.iter().filter(|sentence| !said.contains_key(*sentence)).collect();
    assert!(unsaid.is_empty(), "{PAGE} has what nothing says: {unsaid:#?}");
}

#[test]
fn sentences_are_found_in_whatever_form_they_are_made() {
    let source = r#"
        CliError::failed(format!("{shown} is {}; go \
             on", x.map_or(", ", |y| y)))
        StartError(if a { format!("one of {b}") } else { "the other of two".into() })
        let wrong = |expected: &str| CliError::usage(format!("{item:?} is wrong: {expected}"));
        cannot("it cannot be", error); is_wrong("not this one at all"); wrong("takes no \"value\"")
        CliError { code: 3, message: format!("{} is gone now", place) }
        #[error("first of {0}{}", .0.map(|x| format!("second of {x}")))]
        let message = format!("{shown} is not what it was");
#[cfg(test)]
mod tests { CliError::failed("what only tests say") }"#;
    let mut found = BTreeMap::new();
    made("a.rs", source, &mut found);
    let found: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(
        found,
        [
            "<> is <>; go on",
            "<> is gone now",
            "<> is not what it was",
            "<> is wrong: takes no \"value\"",
            "first of <><>",
            "it cannot be: <>",
            "one of <>",
            "the other of two",
        ]
    );
}
