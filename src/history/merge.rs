//! Three-way merges of content.
//!
//! Must never: return content with conflict markers.

use git2::{MergeFileInput, Odb};

/// What both sides made of the same content; `None` if they conflict, or if one of the three is binary.
pub fn merge(base: &[u8], ours: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
    match (base == ours, base == theirs) {
        (true, _) => return Some(theirs.to_vec()),
        (_, true) => return Some(ours.to_vec()),
        _ if ours == theirs => return Some(ours.to_vec()),
        _ if [base, ours, theirs].into_iter().any(is_binary) => return None,
        _ => {}
    }
    // `merge_file` does not initialise libgit2. Making a database does.
    Odb::new().ok()?;
    let input = |content| {
        let mut input = MergeFileInput::new();
        input.content(content);
        input
    };
    let merged = git2::merge_file(&input(base), &input(ours), &input(theirs), None).ok()?;
    merged.is_automergeable().then(|| merged.content().to_vec())
}

/// Whether git takes this for binary: a NUL among the first 8,000 bytes.
pub(super) fn is_binary(content: &[u8]) -> bool {
    content.iter().take(8_000).any(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_kept() {
        let merged = merge(b"a\nb\nc\nd\ne\n", b"A\nb\nc\nd\ne\n", b"a\nb\nc\nd\nE\n");
        assert_eq!(merged.as_deref(), Some(&b"A\nb\nc\nd\nE\n"[..]));
        assert_eq!(merge(b"a", b"a", b"b").as_deref(), Some(&b"b"[..]));
        assert_eq!(merge(b"a", b"b", b"b").as_deref(), Some(&b"b"[..]));
        assert_eq!(merge(b"a\0", b"b\0", b"a\0").as_deref(), Some(&b"b\0"[..]));
    }

    #[test]
    fn conflicts_and_binary_content_are_not_merged() {
        assert_eq!(merge(b"a\n", b"b\n", b"c\n"), None);
        assert_eq!(merge(b"a\n\0x\n", b"b\n\0x\n", b"a\n\0y\n"), None);
        assert_eq!(merge(b"", b"b\n", b"c\n"), None);
    }
}
