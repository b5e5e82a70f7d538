//! Pieces of text that are put into files and taken out again.

/// A piece, and where in a text it is put.
pub(super) struct Insertion {
    pub(super) at: usize,
    pub(super) text: String,
}

/// The text with these pieces in it. They stand in any order, each at a place of its own.
pub(super) fn apply(text: &str, mut insertions: Vec<Insertion>) -> String {
    insertions.sort_by_key(|insertion| std::cmp::Reverse(insertion.at));
    let mut text = text.to_string();
    for insertion in insertions {
        text.insert_str(insertion.at, &insertion.text);
    }
    text
}

/// The text without these pieces; `None` unless each stands there exactly once.
pub(super) fn take_out(text: &str, pieces: &[String], is_json: bool) -> Option<String> {
    let mut text = text.to_string();
    for piece in pieces {
        let mut places = text.match_indices(piece.as_str()).map(|(at, _)| at);
        let (at, None) = (places.next()?, places.next()) else { return None };
        text.replace_range(at..at + piece.len(), "");
        if is_json && let Some(comma) = super::json::stray_comma(&text, at) {
            text.remove(comma);
        }
    }
    Some(text)
}

/// A section for the end of a text, behind an empty line.
pub(super) fn section(text: &str, section: &str) -> Insertion {
    let gap = match text {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    Insertion { at: text.len(), text: format!("{gap}{section}") }
}
