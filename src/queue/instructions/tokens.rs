//! Splits a glob into tokens, as the `ignore` library reads it.
//!
//! Must never: accept a glob that the library would read differently from what its writer meant.

use crate::limits::LIST_ITEMS;

/// Characters that a backslash may escape.
const ESCAPED: &str = "*?[]{}!#, -";

/// A token of a glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A literal character.
    Char(char),
    /// A literal character that has a meaning without the backslash before it.
    Escaped(char),
    /// `/`
    Slash,
    /// `*` or `?`
    Wildcard(char),
    /// The text in brackets. It may be a literal name in brackets, such as a router's `[id]`; then `name` is set. `only` is set if it
    /// cannot be a set of characters.
    Class {
        inner: String,
        name: bool,
        only: bool,
    },
    /// `{`, `,` within braces, `}`
    Open,
    Comma,
    Close,
}

/// Splits a glob. Refuses a glob that the library would read differently from what its writer meant.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut depth = 0;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '/' => Token::Slash,
            '*' | '?' => Token::Wildcard(c),
            '[' => {
                let (class, after) = class(rest.clone())?;
                rest = after;
                class
            }
            '{' => {
                depth += 1;
                Token::Open
            }
            '}' if depth == 0 => {
                return Err("closes a brace that is not open; write \\} for the character".into());
            }
            '}' => {
                depth -= 1;
                Token::Close
            }
            ',' if depth > 0 => Token::Comma,
            ',' if rest.peek().is_some_and(|next| next.is_whitespace()) => {
                return Err("holds a comma and a blank; write each glob as an item of its own".into());
            }
            '\\' => match rest.next() {
                Some(next) if ESCAPED.contains(next) => Token::Escaped(next),
                _ => return Err("holds a backslash; directories are separated by /".into()),
            },
            c => Token::Char(c),
        });
    }
    match depth {
        0 => Ok(tokens),
        _ => Err("has a brace that is not closed; write \\{ for the character".into()),
    }
}

type Rest<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// The class after an opening bracket, and the rest of the glob.
fn class(mut rest: Rest<'_>) -> Result<(Token, Rest<'_>), String> {
    let mut inner = String::new();
    let negated = matches!(rest.peek(), Some('!' | '^'));
    let skipped = usize::from(negated);
    loop {
        match rest.next() {
            // The library would read the bracket as a literal character, which the writer hardly meant.
            None => return Err("has a bracket that is not closed; write \\[ for the character".into()),
            Some(']') if inner.chars().count() > skipped => break,
            Some('/') => return Err("has a / between brackets; write \\[ for the character".into()),
            Some('\\') => return Err("has a backslash between brackets, where it escapes nothing".into()),
            Some(c) => inner.push(c),
        }
    }
    let set: Vec<char> = inner.chars().skip(skipped).collect();
    if set.starts_with(&['[', ':']) {
        return Err("has a class by its name; write out its characters, such as [a-z]".into());
    }
    let name = !negated && is_name(&set);
    // The library compares bytes, so a character of a class must be one byte.
    let wrong = if !inner.is_ascii() {
        Some("has a character between brackets that is not ASCII; write {ä,ö} instead of [äö]")
    } else if has_backward_range(&set) {
        Some("has a range that goes backwards")
    } else {
        None
    };
    match wrong {
        Some(why) if !name => Err(why.into()),
        only => Ok((Token::Class { inner, name, only: only.is_some() }, rest)),
    }
}

/// Whether the text in brackets may be a name: words, such as `id`, `...slug` or `blog-post`, and not ranges.
fn is_name(set: &[char]) -> bool {
    let text: String = set.iter().collect();
    let word = |word: &str| {
        word.chars().count() >= 2 && word.chars().all(|c| c.is_alphanumeric() || "_=".contains(c))
    };
    text.trim_start_matches(['[', '.']).split(['-', '.']).all(word)
}

fn has_backward_range(set: &[char]) -> bool {
    let mut index = 0;
    while index < set.len() {
        if set.get(index + 1) == Some(&'-') && index + 2 < set.len() {
            if set[index] > set[index + 2] {
                return true;
            }
            index += 2;
        }
        index += 1;
    }
    false
}

/// Expands the braces of a glob. Braces without a comma are literal, as in a shell.
pub(super) fn alternatives(tokens: &[Token]) -> Result<Vec<Vec<Token>>, String> {
    let Some(open) = tokens.iter().position(|token| *token == Token::Open) else {
        return Ok(vec![tokens.to_vec()]);
    };
    let mut depth = 0;
    let (mut start, mut parts, mut end) = (open + 1, Vec::new(), open);
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Open => depth += 1,
            Token::Comma if depth == 1 => {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
            Token::Close if depth == 1 => {
                parts.push(&tokens[start..at]);
                end = at;
                break;
            }
            Token::Close => depth -= 1,
            _ => {}
        }
    }
    let (before, after) = (&tokens[..open], alternatives(&tokens[end + 1..])?);
    let mut all = Vec::new();
    let single = parts.len() == 1;
    for part in parts {
        if single && part.windows(2).any(|two| two == [Token::Char('.'), Token::Char('.')]) {
            return Err("counts with .. between braces, which is not understood; write {1,2,3}".into());
        }
        let part = if single { part } else { trimmed(part) };
        for middle in alternatives(part)? {
            for after in &after {
                let brace = |c| single.then_some(Token::Escaped(c));
                let expanded = (before.iter().cloned()).chain(brace('{')).chain(middle.iter().cloned());
                all.push(expanded.chain(brace('}')).chain(after.iter().cloned()).collect());
                if all.len() > LIST_ITEMS {
                    return Err(format!("stands for more than {LIST_ITEMS} globs"));
                }
            }
        }
    }
    Ok(all)
}

/// The tokens without blanks at both ends.
fn trimmed(mut tokens: &[Token]) -> &[Token] {
    while let [Token::Char(' ' | '\t'), rest @ ..] | [rest @ .., Token::Char(' ' | '\t')] = tokens {
        tokens = rest;
    }
    tokens
}

/// The characters of a name; `None` if it has wildcards.
pub(super) fn literal(part: &[Token]) -> Option<String> {
    part.iter()
        .map(|token| match token {
            Token::Char(c) | Token::Escaped(c) => Some(*c),
            _ => None,
        })
        .collect()
}
