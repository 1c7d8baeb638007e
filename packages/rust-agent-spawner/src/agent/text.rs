//! A text of a frame, whatever is in it.
//!
//! A CLI in JavaScript may cut a text between the two halves of a character and print the half it
//! has as an escape. That is legal JSON and no Unicode: the half becomes U+FFFD here, and the frame
//! is read.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A JSON string; borrowed where it holds no escape.
#[derive(Debug)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As bytes serde_json lets halves of characters through.
        deserializer.deserialize_bytes(Bytes).map(Self)
    }
}

struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Cow<'de, str>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a string")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(String::from_utf8_lossy(bytes))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(whole(bytes)))
    }
}

/// Three bytes are a half of a character; it is one character that is missing, not three.
fn whole(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let begins = chunk.invalid().first().is_some_and(|byte| *byte >= 0xC0);
        if begins || (!chunk.valid().is_empty() && !chunk.invalid().is_empty()) {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_character_is_one_that_is_missing() {
        for (json, text) in [
            (r#""plain""#, "plain"),
            (r#""a\u00e9b""#, "aéb"),
            (r#""cut \ud83d""#, "cut \u{FFFD}"),
            (r#""\udc00 and \ud83e\udd80""#, "\u{FFFD} and 🦀"),
        ] {
            let read: Text<'_> = serde_json::from_str(json).expect("a text");
            assert_eq!(read.0, text, "{json}");
        }
        assert!(serde_json::from_str::<Text<'_>>("[1]").is_err());
        assert!(serde_json::from_str::<Text<'_>>("null").is_err());
    }
}
