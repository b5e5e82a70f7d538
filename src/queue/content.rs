//! Texts that workers write, and the digest of a text.
//!
//! May assume: nothing. A text may be any bytes.
//! Must never: lose a byte of a text.

use std::hash::{DefaultHasher, Hasher};

use serde::{Deserialize, Serialize};

use crate::limits::RESULT_HEAD_BYTES;

/// Identifies a text and shows its first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Length in bytes.
    pub bytes: u64,
    /// The first line that is not blank, cut at [`RESULT_HEAD_BYTES`], for lists.
    pub head: String,
    /// A checksum. A newer standard library may compute it differently. Then equal texts count as different, once.
    #[serde(with = "hexadecimal")]
    pub check: u64,
}

impl Digest {
    /// The digest of a text.
    pub fn of(text: &[u8]) -> Digest {
        let mut hasher = DefaultHasher::new();
        hasher.write(text);
        Digest { bytes: text.len() as u64, head: head_of(text), check: hasher.finish() }
    }
}

fn head_of(text: &[u8]) -> String {
    let blank = |line: &&[u8]| !line.trim_ascii().is_empty();
    let line = text.split(|byte| *byte == b'\n').find(blank).unwrap_or_default();
    // A character has at most four bytes. So has the replacement of an invalid one.
    let mut head = String::from_utf8_lossy(&line[..line.len().min(RESULT_HEAD_BYTES + 4)]).into_owned();
    let end = if head.ends_with('\r') { head.len() - 1 } else { head.len() };
    let fits = (0..=RESULT_HEAD_BYTES.min(end)).rev().find(|end| head.is_char_boundary(*end));
    head.truncate(fits.unwrap_or(0));
    head
}

/// A text, or only its digest if the text is stored beside its event.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "StoredText", try_from = "StoredText")]
pub struct Content {
    digest: Digest,
    whole: Option<Vec<u8>>,
}

impl Content {
    /// A whole text.
    pub fn new(text: impl Into<Vec<u8>>) -> Content {
        let text = text.into();
        Content { digest: Digest::of(&text), whole: Some(text) }
    }

    /// The digest of the text.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The text itself; `None` if it is stored elsewhere.
    pub fn whole(&self) -> Option<&[u8]> {
        self.whole.as_deref()
    }

    /// The same content without its text.
    pub fn without_text(&self) -> Content {
        Content { digest: self.digest.clone(), whole: None }
    }

    /// The text for people; only its first line if the text is stored elsewhere.
    pub fn shown(&self) -> String {
        match &self.whole {
            Some(text) => String::from_utf8_lossy(text).into_owned(),
            None => self.digest.head.clone(),
        }
    }
}

impl std::fmt::Debug for Content {
    /// Shows only the first line, because a result may have a mebibyte.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = if self.whole.is_some() { "" } else { ", beside" };
        write!(f, "Content({:?}, {} bytes{place})", self.digest.head, self.digest.bytes)
    }
}

/// The form in the log: text if it is UTF-8, so that people can read the log; otherwise hexadecimal digits, so that no byte is lost.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum StoredText {
    Text(String),
    Hex { hex: String },
    Beside(Digest),
}

impl From<Content> for StoredText {
    fn from(content: Content) -> Self {
        match content.whole.map(String::from_utf8) {
            Some(Ok(text)) => StoredText::Text(text),
            Some(Err(error)) => {
                let hex = error.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
                StoredText::Hex { hex }
            }
            None => StoredText::Beside(content.digest),
        }
    }
}

impl TryFrom<StoredText> for Content {
    type Error = String;

    fn try_from(written: StoredText) -> Result<Self, String> {
        let hex = match written {
            StoredText::Text(text) => return Ok(Content::new(text)),
            StoredText::Beside(digest) => return Ok(Content { digest, whole: None }),
            StoredText::Hex { hex } => hex,
        };
        let digits = hex.as_bytes().chunks(2);
        let bytes =
            digits.map(|pair| std::str::from_utf8(pair).ok().and_then(|p| u8::from_str_radix(p, 16).ok()));
        let bytes: Option<Vec<u8>> = bytes.collect();
        bytes.map(Content::new).ok_or_else(|| "odd hexadecimal digits".into())
    }
}

/// Numbers as hexadecimal strings, because many JSON parsers keep only 53 bits of a number.
pub(super) mod hexadecimal {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{number:016x}"))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_survives_whatever_it_is() {
        for bytes in [&b"plain \"text\"\n"[..], b"", &[0xff, 0x00, 0x80], "é".as_bytes()] {
            let content = Content::new(bytes);
            for content in [content.without_text(), content] {
                let json = serde_json::to_string(&content).unwrap();
                assert_eq!(serde_json::from_str::<Content>(&json).unwrap(), content, "{json}");
            }
        }
    }

    #[test]
    fn a_text_is_told_from_another_and_shown_by_its_first_line() {
        let long = "ä".repeat(RESULT_HEAD_BYTES);
        for (text, head) in [
            ("", ""),
            (" \n\n", ""),
            ("\n  done\r\nmore", "  done"),
            (&long, &long[..RESULT_HEAD_BYTES]),
            (&format!("a{long}"), &format!("a{long}")[..RESULT_HEAD_BYTES - 1]),
        ] {
            assert_eq!(Digest::of(text.as_bytes()).head, head);
        }
        assert_eq!(Digest::of(&[b'a', 0xff, b'\n']).head, "a\u{fffd}");
        let [a, b] = ["one\nand more", "one\nand mere"].map(|text| Digest::of(text.as_bytes()));
        assert_eq!((a.bytes, &a.head), (b.bytes, &b.head));
        assert_ne!(a, b);
    }
}
