//! Inserts pieces of text into files, and removes them.
//!
//! Must never: join two lines of a user, or remove one.

/// A piece, and its offset in a text.
pub(super) struct Insertion {
    pub(super) at: usize,
    pub(super) text: String,
}

/// The text with these pieces inserted. They come in any order, each with another offset.
pub(super) fn apply(text: &str, insertions: &[Insertion]) -> String {
    let mut insertions: Vec<&Insertion> = insertions.iter().collect();
    insertions.sort_by_key(|insertion| std::cmp::Reverse(insertion.at));
    let mut text = text.to_string();
    for insertion in insertions {
        text.insert_str(insertion.at, &insertion.text);
    }
    text
}

/// The insertion of a section at the end of a text, behind an empty line, with the line ends of the text.
pub(super) fn section(text: &str, section: &str) -> Insertion {
    let gap = match text {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    Insertion { at: text.len(), text: with_line_ends(&format!("{gap}{section}"), line_end(text)) }
}

/// Whether a text contains a section, with any line ends.
pub(super) fn has(text: &str, section: &str) -> bool {
    text.contains(section) || text.contains(&with_line_ends(section, "\r\n"))
}

/// The text without these pieces. `None` unless each is there exactly once. Text of a user before or behind a piece keeps its lines.
pub(super) fn take_out(text: &str, pieces: &[String]) -> Option<String> {
    pieces.iter().try_fold(text.to_string(), |text, piece| without(&text, piece))
}

fn without(text: &str, piece: &str) -> Option<String> {
    let core = piece.trim_matches(['\r', '\n']);
    let (at, length) = once(text, core)?;
    let (before, behind) = (&text[..at], &text[at + length..]);
    let behind = without_line_end(behind, str::strip_prefix).unwrap_or(behind);
    let ended = |text: &str| without_line_end(text, str::strip_suffix).map(str::len);
    let gap = piece[..piece.find(core)?].matches('\n').count();
    let before = match (gap, ended(before), ended(before).and_then(|rest| ended(&before[..rest]))) {
        // The last line had no end. It got one, and an empty line.
        (2, _, Some(line)) => &before[..line],
        // It had an end. The empty line is ours.
        (1, Some(line), Some(_)) => &before[..line],
        _ => before,
    };
    // The last line of `before` is no longer the last one, so it needs an end.
    let open = !before.is_empty() && !before.ends_with('\n') && !behind.is_empty();
    Some(format!("{before}{}{behind}", if open { line_end(text) } else { "" }))
}

/// The offset and the length of `piece` in the text, if it is there once. Editors and git may have changed its line ends.
pub(super) fn once(text: &str, piece: &str) -> Option<(usize, usize)> {
    let unix = with_line_ends(piece, "\n");
    let dos = with_line_ends(piece, "\r\n");
    let mut forms = vec![unix, dos];
    forms.push(piece.to_string());
    forms.sort();
    forms.dedup();
    let places = |form: &String| {
        let length = form.len();
        text.match_indices(form.as_str()).map(|(at, _)| (at, length)).collect::<Vec<_>>()
    };
    let found: Vec<(usize, usize)> = forms.iter().flat_map(places).collect();
    if let [place] = found[..] { Some(place) } else { None }
}

fn without_line_end<'a>(
    text: &'a str,
    strip: impl Fn(&'a str, &'static str) -> Option<&'a str>,
) -> Option<&'a str> {
    strip(text, "\r\n").or_else(|| strip(text, "\n"))
}

/// The line end of a text.
fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

pub(super) fn with_line_ends(text: &str, end: &str) -> String {
    text.replace("\r\n", "\n").replace('\n', end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: &str = "# begin\nours\n# end\n";

    /// The text after a section was inserted, the user edited the file, and the section was removed.
    #[track_caller]
    fn left(text: &str, edit: impl Fn(String) -> String) -> Option<String> {
        let insertion = section(text, SECTION);
        let pieces = [insertion.text.clone()];
        take_out(&edit(apply(text, &[insertion])), &pieces)
    }

    #[test]
    fn what_nobody_changed_goes_back_byte_for_byte() {
        for text in ["", "a", "a\n", "a\n\n", "\n", "a\r\nb", "a\r\n", "a\r\n\r\n", "a\nb\r\n"] {
            assert_eq!(left(text, |there| there).as_deref(), Some(text), "{text:?}");
        }
    }

    #[test]
    fn the_lines_of_a_user_stay_lines() {
        let append = |more: &'static str| move |there: String| there + more;
        for (text, more, expected) in [
            ("a", "b\n", "a\nb\n"),
            ("a", "b", "a\nb"),
            ("a", "\nb\n", "a\n\nb\n"),
            ("a\n", "b\n", "a\nb\n"),
            ("a\r\nb", "c\r\n", "a\r\nb\r\nc\r\n"),
            ("", "b\n", "b\n"),
        ] {
            assert_eq!(left(text, append(more)).as_deref(), Some(expected), "{text:?} {more:?}");
        }
        // Text before the section: at the beginning, and between the last line and the section, with or without the empty line.
        assert_eq!(left("a", |there| format!("b\n{there}")).as_deref(), Some("b\na"));
        let between = |with: &'static str| move |there: String| there.replace("# begin", with);
        assert_eq!(left("a\n", between("b\n# begin")).as_deref(), Some("a\n\nb\n"));
        assert_eq!(left("a", between("b\n\n# begin")).as_deref(), Some("a\n\nb"));
        assert_eq!(left("a", between("b # begin")).as_deref(), Some("a\n\nb "));
        assert_eq!(left("a\n", |there| there.replace("a\n\n", "a\n")).as_deref(), Some("a\n"));
        assert_eq!(left("a", |there| there.replace("a\n\n", "")).as_deref(), Some(""));
        // An editor uses other line ends, or does not end the last line.
        assert_eq!(left("a\n", |there| there.replace('\n', "\r\n")).as_deref(), Some("a\r\n"));
        assert_eq!(left("a\nb", |there| there.trim_end().to_string()).as_deref(), Some("a\nb"));
        assert_eq!(left("a\n", |there| there.trim_end().to_string() + " c\n").as_deref(), Some("a\n c\n"));
    }

    #[test]
    fn what_was_changed_or_stands_there_twice_is_not_taken_out() {
        assert_eq!(left("a\n", |there| there.replace("ours", "theirs")), None);
        assert_eq!(left("a\n", |there| there.repeat(2)), None);
        assert_eq!(left("a\n", |there| format!("{there}{}", there.replace('\n', "\r\n"))), None);
    }
}
