//! Text for people and agents, with characters escaped that change how other text looks.
//!
//! File names, titles and results come from workers. A line break in a file name would forge a line of `locks`, an escape sequence would
//! clear a terminal, a mark of direction would turn a sentence around, and a tag character would carry words that only a model sees.
//!
//! Must never: be used for text that is stored or compared.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

/// Whether a character affects the text around it, or is invisible and not needed to spell a language.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // Direction marks, embeddings, overrides and isolates: UAX #9.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Line and paragraph separators.
            | '\u{2028}' | '\u{2029}'
            // Invisible characters that are not joiners.
            | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// `text` as one line. Such characters are escaped as in Rust: `\n`, `\u{1b}`.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, steers)
}

/// `text` as lines. Line feeds and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| steers(c) && c != '\n' && c != '\t')
}

/// A path as one line.
pub fn path(path: &Path) -> String {
    line(&path.to_string_lossy()).into_owned()
}

/// A value as JSON on one line. Such characters are escaped as `\u001b`, which a parser reads as the character.
///
/// # Panics
/// If `value` has a map whose keys are not strings.
pub fn json(value: &impl Serialize) -> String {
    json_escaped(serde_json::to_string(value).expect("string keys and plain values"))
}

/// The same, on several lines.
///
/// # Panics
/// As [`json`].
pub fn pretty_json(value: &impl Serialize) -> String {
    json_escaped(serde_json::to_string_pretty(value).expect("string keys and plain values"))
}

fn escaped(text: &str, hide: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&hide) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if hide(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// serde_json escapes what JSON demands, which ends before DEL. A character from DEL on can only be within a string.
fn json_escaped(json: String) -> String {
    let hide = |c: char| c >= '\u{7f}' && steers(c);
    // Bytes first, because a result may have a million of them.
    if json.bytes().all(|byte| byte < 0x7f) || !json.contains(hide) {
        return json;
    }
    let mut shown = String::with_capacity(json.len() + 16);
    let mut units = [0; 2];
    for c in json.chars() {
        if hide(c) {
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in ["", "src/main.rs", "größer, 漢字, שלום, عربى", "👩‍👩‍👧", "a\\nb", "naïve e\u{301}"]
        {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn what_steers_is_spelled() {
        let text = "a\nb\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}\u{feff}\u{e0041}\tc";
        let spelled = r"a\nb\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028}\u{feff}\u{e0041}\tc";
        assert_eq!(line(text), spelled);
        assert_eq!(lines("a\n\tb\r"), "a\n\tb\\r");
        assert_eq!(path(Path::new("d/a\nb")), "d/a\\nb");
    }

    proptest! {
        #[test]
        fn json_means_the_same_and_holds_nothing_that_steers(text in any::<String>()) {
            let value = serde_json::json!({ &text: [&text] });
            for json in [json(&value), pretty_json(&value)] {
                prop_assert!(!json.contains(|c| steers(c) && c != '\n'), "{json:?}");
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&json).unwrap(), &value);
            }
        }

        #[test]
        fn a_line_is_one_line(text in any::<String>()) {
            prop_assert!(!line(&text).contains(steers));
        }
    }
}
