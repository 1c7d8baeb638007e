//! Responsible for the encodings of text files: told by the byte order mark or named by the caller,
//! and the same after a write as before it.
//!
//! Without a mark a file is UTF-8. UTF-16 is known by its mark only, and Latin-1, which any bytes
//! are valid in, only when it is asked for: a guess that is wrong would change every byte behind it.
//! Inside, text is UTF-8 with the mark as its first character, so that what comes from a file goes
//! back to it unchanged.

use std::borrow::Cow;
use std::path::Path;

use vespera_error::{Error, ErrorCode, Result};

use crate::error::not_text;

/// The mark of every encoding that has one, as a character.
pub const MARK: char = '\u{feff}';
/// As many bytes as the longest mark, that of UTF-32, has.
pub(crate) const HEAD: usize = 4;

/// An encoding that files are read and written in. Those with a mark always have it in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Utf8Sig,
    Utf16Le,
    Utf16Be,
    Latin1,
}

impl Encoding {
    pub const ALL: [Self; 5] = [
        Self::Utf8,
        Self::Utf8Sig,
        Self::Utf16Le,
        Self::Utf16Be,
        Self::Latin1,
    ];

    /// The name, as Python writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Utf8Sig => "utf-8-sig",
            Self::Utf16Le => "utf-16-le",
            Self::Utf16Be => "utf-16-be",
            Self::Latin1 => "latin-1",
        }
    }

    /// The encoding of that name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// The bytes that a file in this encoding begins with.
    pub fn mark(self) -> &'static [u8] {
        match self {
            Self::Utf8 | Self::Latin1 => b"",
            Self::Utf8Sig => b"\xef\xbb\xbf",
            Self::Utf16Le => b"\xff\xfe",
            Self::Utf16Be => b"\xfe\xff",
        }
    }

    /// Bytes in front of what is text, in UTF-8: those of the mark, if there is one.
    pub(crate) fn start_of_text(self, utf8: &[u8]) -> usize {
        let mark = Self::Utf8Sig.mark();
        if !self.mark().is_empty() && utf8.starts_with(mark) {
            mark.len()
        } else {
            0
        }
    }

    /// Bytes that `character` takes in the file.
    pub(crate) fn width(self, character: char) -> usize {
        match self {
            Self::Utf8 | Self::Utf8Sig => character.len_utf8(),
            Self::Utf16Le | Self::Utf16Be => character.len_utf16() * 2,
            Self::Latin1 => 1,
        }
    }

    /// The encoding of a file that begins with `head`: the one asked for, else what the mark says.
    pub(crate) fn of(path: &Path, head: &[u8], wanted: Option<Self>) -> Result<Self> {
        if let Some(encoding) = wanted {
            if head.starts_with(encoding.mark()) {
                return Ok(encoding);
            }
            return Err(no_mark(path, encoding));
        }
        if head.starts_with(b"\xff\xfe\0\0") || head.starts_with(b"\0\0\xfe\xff") {
            return Err(utf32(path));
        }
        let marked = [Self::Utf8Sig, Self::Utf16Le, Self::Utf16Be];
        let found = marked.into_iter().find(|one| head.starts_with(one.mark()));
        Ok(found.unwrap_or(Self::Utf8))
    }

    /// The text of `content`, which stands `offset` bytes behind the start of the file. A mark at
    /// the start of the file is its first character.
    pub(crate) fn decode(self, path: &Path, content: Vec<u8>, offset: usize) -> Result<String> {
        match self {
            Self::Utf8 | Self::Utf8Sig => String::from_utf8(content)
                .map_err(|error| not_text(path, self, offset + error.utf8_error().valid_up_to())),
            Self::Utf16Le => decode_utf16(&content, u16::from_le_bytes)
                .map_err(|at| not_text(path, self, offset + at)),
            Self::Utf16Be => decode_utf16(&content, u16::from_be_bytes)
                .map_err(|at| not_text(path, self, offset + at)),
            Self::Latin1 => Ok(content.into_iter().map(char::from).collect()),
        }
    }

    /// The bytes of `text`, whose first character is the mark where there is one.
    pub(crate) fn encode<'a>(self, path: &Path, text: &'a str) -> Result<Cow<'a, [u8]>> {
        match self {
            Self::Utf8 | Self::Utf8Sig => Ok(Cow::Borrowed(text.as_bytes())),
            Self::Utf16Le => Ok(text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            Self::Utf16Be => Ok(text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
            Self::Latin1 => text
                .chars()
                .enumerate()
                .map(|(at, character)| {
                    u8::try_from(u32::from(character)).map_err(|_| beyond(path, character, at))
                })
                .collect::<Result<Vec<u8>>>()
                .map(Cow::Owned),
        }
    }

    /// Whether a newline of this encoding stands at `at`, where a byte 10 was found.
    pub(crate) fn is_newline(self, bytes: &[u8], at: usize) -> bool {
        match self {
            Self::Utf16Le => at.is_multiple_of(2) && bytes.get(at + 1) == Some(&0),
            Self::Utf16Be => !at.is_multiple_of(2) && bytes[at - 1] == 0,
            _ => true,
        }
    }
}

/// The content as text, its mark included, and the encoding it is in.
pub(crate) fn decoded(
    path: &Path,
    content: Vec<u8>,
    wanted: Option<Encoding>,
) -> Result<(String, Encoding)> {
    let encoding = Encoding::of(path, &content, wanted)?;
    Ok((encoding.decode(path, content, 0)?, encoding))
}

/// The text, or how many bytes in front of what is none.
fn decode_utf16(content: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, usize> {
    let units = content.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    let mut text = String::with_capacity(content.len() / 2);
    let mut at = 0;
    for one in char::decode_utf16(units) {
        let character = one.map_err(|_| at)?;
        at += character.len_utf16() * 2;
        text.push(character);
    }
    if at == content.len() {
        Ok(text)
    } else {
        Err(at)
    }
}

/// How the lines of a text end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newline {
    None,
    Lf,
    CrLf,
    Cr,
    Mixed,
}

impl Newline {
    /// The one ending of all lines, if there is one.
    pub fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let both = memchr::memmem::find_iter(bytes, b"\r\n").count();
        let lf = memchr::memchr_iter(b'\n', bytes).count() - both;
        let cr = memchr::memchr_iter(b'\r', bytes).count() - both;
        match (both > 0, lf > 0, cr > 0) {
            (false, false, false) => Self::None,
            (false, true, false) => Self::Lf,
            (true, false, false) => Self::CrLf,
            (false, false, true) => Self::Cr,
            _ => Self::Mixed,
        }
    }

    /// The name, as Python shows it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Lf => Some("\n"),
            Self::CrLf => Some("\r\n"),
            Self::Cr => Some("\r"),
            Self::Mixed => Some("mixed"),
        }
    }
}

fn no_mark(path: &Path, encoding: Encoding) -> Error {
    let name = encoding.name();
    let message = format!(
        "{}: does not begin with the byte order mark of {name}; read it with encoding='auto'",
        path.display()
    );
    Error::new(ErrorCode::Encoding, message)
        .with_path("path", path)
        .with("encoding", name)
        .with("offset", 0)
}

fn utf32(path: &Path) -> Error {
    let message = format!(
        "{}: begins with the byte order mark of UTF-32, which is not supported; \
         read it as bytes with read_file",
        path.display()
    );
    Error::new(ErrorCode::Encoding, message)
        .with_path("path", path)
        .with("encoding", "utf-32")
        .with("offset", 0)
}

fn beyond(path: &Path, character: char, at: usize) -> Error {
    let message = format!(
        "{}: latin-1 cannot hold U+{:04X} at character {at}; write it as utf-8",
        path.display(),
        u32::from(character)
    );
    Error::new(ErrorCode::Encoding, message)
        .with_path("path", path)
        .with("encoding", "latin-1")
        .with("character", at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_decoded_encodes_to_the_same_bytes() {
        for encoding in Encoding::ALL {
            let mut text: String = "aé\r\nz".to_owned();
            if !encoding.mark().is_empty() {
                text.insert_str(0, "\u{feff}𝄞");
            }
            let path = Path::new("f");
            let bytes = encoding.encode(path, &text).expect("encodes").into_owned();
            assert!(bytes.starts_with(encoding.mark()));
            let wanted = (encoding == Encoding::Latin1).then_some(encoding);
            let (back, found) = decoded(path, bytes, wanted).expect("decodes");
            assert_eq!((back, found), (text, encoding));
        }
    }

    #[test]
    fn utf16_names_the_first_bad_byte() {
        let bad: [(&[u8], usize); 4] = [
            (b"\xff\xfea", 2),
            (b"\xff\xfea\0\0\xd8", 4),
            (b"\xff\xfe\0\xd8a\0", 2),
            (b"\xff\xfe\0\xdc", 2),
        ];
        for (bytes, at) in bad {
            let error = decoded(Path::new("f"), bytes.to_vec(), None).expect_err("is none");
            assert_eq!(error.context()["offset"], at, "{bytes:?}");
        }
    }
}
