//! Responsible for matching one name against one component of a pattern.
//!
//! A name is a row of characters; each byte that is not UTF-8 counts as one character, numbered
//! as Python's `surrogateescape` does (0xDC00 + byte), so that both backends agree on any name.

use crate::wildcards;

/// One part of a pattern between slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Component {
    /// `**`: any number of directories, also none.
    AnyDepth,
    Name(Tokens),
}

/// What a name must look like, from left to right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tokens(pub(super) Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Literal(u32),
    /// `?`: exactly one character.
    One,
    /// `*`: any run of characters, also none.
    Run,
    /// `[a-z]`, `[!a-z]`: inclusive ranges.
    Class {
        negated: bool,
        ranges: Vec<(u32, u32)>,
    },
}

/// A name that is told by its bytes alone, as most are: the same answer, sooner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plain {
    Whole(Vec<u8>),
    /// `*` and the end of the name.
    End(Vec<u8>),
}

impl Plain {
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::Whole(whole) => name == whole,
            Self::End(end) => name.ends_with(end),
        }
    }
}

impl Tokens {
    /// The same in bytes, where everything but one `*` at the start is an ASCII character.
    pub(super) fn plain(&self) -> Option<Plain> {
        let (run, literals) = match self.0.split_first() {
            Some((Token::Run, rest)) => (true, rest),
            _ => (false, self.0.as_slice()),
        };
        let bytes = literals
            .iter()
            .map(|token| match token {
                Token::Literal(character) => u8::try_from(*character).ok().filter(u8::is_ascii),
                _ => None,
            })
            .collect::<Option<Vec<u8>>>()?;
        Some(if run {
            Plain::End(bytes)
        } else {
            Plain::Whole(bytes)
        })
    }

    /// Whether the whole name matches.
    pub(super) fn matches(&self, name: &[u32]) -> bool {
        wildcards::matches(&self.0, name)
    }
}

impl wildcards::Token<u32> for Token {
    fn is_run(&self) -> bool {
        matches!(self, Token::Run)
    }

    fn accepts(&self, character: u32) -> bool {
        match self {
            Token::Literal(wanted) => *wanted == character,
            Token::One => true,
            Token::Class { negated, ranges } => {
                let inside = ranges
                    .iter()
                    .any(|&(low, high)| (low..=high).contains(&character));
                inside != *negated
            }
            Token::Run => false,
        }
    }
}

/// The characters of `name`, put into `characters` in place of what was there.
pub(super) fn decode(name: &[u8], characters: &mut Vec<u32>) {
    characters.clear();
    for chunk in name.utf8_chunks() {
        characters.extend(chunk.valid().chars().map(u32::from));
        characters.extend(chunk.invalid().iter().map(|&byte| 0xDC00 + u32::from(byte)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Vec<u32> {
        text.chars().map(u32::from).collect()
    }

    fn tokens(pattern: &str) -> Tokens {
        Tokens(
            pattern
                .chars()
                .map(|character| match character {
                    '*' => Token::Run,
                    '?' => Token::One,
                    other => Token::Literal(u32::from(other)),
                })
                .collect(),
        )
    }

    #[test]
    fn a_character_is_one_whatever_its_bytes_are() {
        for (pattern, text, expected) in [("?", "é", true), ("??", "é", false), ("*é", "aé", true)]
        {
            let found = tokens(pattern).matches(&name(text));
            assert_eq!(found, expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_byte_that_is_not_utf8_is_one_character() {
        let mut characters = Vec::new();
        decode(b"a\xffb\xe2\x82", &mut characters);
        assert_eq!(characters, [0x61, 0xDCFF, 0x62, 0xDCE2, 0xDC82]);
    }
}
