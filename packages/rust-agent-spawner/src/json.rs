//! Walks JSON text without building it: checks the grammar and says where values stand.
//!
//! Most of a stream is never looked at, so a frame's outermost members are found once, as slices,
//! and what a consumer does ask for is decoded then. Accepts what Python's `json` accepts from
//! UTF-8, `NaN` and `Infinity` included: both backends must agree on what a frame is.

use std::borrow::Cow;

/// Containers inside containers; deeper text is refused instead of walked.
const DEEPEST: u32 = 512;

/// A place in a line: `start..end`. Empty: there is no such value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// As [`Span::of`], of a line that is known to be text.
    pub fn within(self, line: &str) -> Option<&str> {
        let text = line.get(self.start as usize..self.end as usize)?;
        (!text.is_empty()).then_some(text)
    }

    /// The text at this place; `None` where there is no value.
    pub fn of(self, line: &[u8]) -> Option<&[u8]> {
        let text = line.get(self.start as usize..self.end as usize)?;
        (!text.is_empty()).then_some(text)
    }
}

/// What a string says; `None` when `text` is no string, or one with half a surrogate pair, which
/// no Rust string can hold.
pub fn string(text: &[u8]) -> Option<Cow<'_, str>> {
    let inside = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', inside).is_some() {
        return serde_json::from_slice::<String>(text).ok().map(Cow::Owned);
    }
    simdutf8::basic::from_utf8(inside).ok().map(Cow::Borrowed)
}

/// Calls `each` for every member of the object that `text` is: its key and the place of its value.
/// `None` when `text` is not exactly one object.
pub fn members(text: &[u8], mut each: impl FnMut(&[u8], Span)) -> Option<()> {
    let mut walk = Walk::over(text);
    walk.space();
    walk.object(&mut each)?;
    walk.space();
    (walk.at == text.len()).then_some(())
}

/// As [`members`], and in the same walk calls `inside` for every member of the object that is the
/// value of `name`, before `each` is called for that value. Returns whether anything is written as
/// `\u....`.
pub fn members_within(
    text: &[u8],
    name: &[u8],
    mut each: impl FnMut(&[u8], Span),
    mut inside: impl FnMut(&[u8], Span),
) -> Option<bool> {
    let mut walk = Walk::over(text);
    walk.space();
    walk.expect(b'{')?;
    walk.sequence(b'}', |walk| {
        walk.member(&mut each, |walk, key| {
            if key == name && walk.peek() == Some(b'{') {
                walk.object(&mut inside)
            } else {
                walk.value()
            }
        })
    })?;
    walk.space();
    (walk.at == text.len()).then_some(walk.has_code_points)
}

/// Calls `each` for every member of every object in the array that `text` is, and with `None` after
/// the last one of each; `None` when it is no array.
pub fn objects(text: &[u8], mut each: impl FnMut(Option<(&[u8], Span)>)) -> Option<()> {
    let mut walk = Walk::over(text);
    walk.space();
    walk.expect(b'[')?;
    walk.sequence(b']', |walk| {
        if walk.peek() != Some(b'{') {
            return walk.value();
        }
        walk.object(&mut |key: &[u8], value| each(Some((key, value))))?;
        each(None);
        Some(())
    })
}

/// Calls `each` with every element of the array that `text` is; `None` when it is none.
pub fn elements<'a>(text: &'a [u8], mut each: impl FnMut(&'a [u8])) -> Option<()> {
    let mut walk = Walk::over(text);
    walk.space();
    walk.expect(b'[')?;
    walk.sequence(b']', |walk| {
        let start = walk.at;
        walk.value()?;
        each(&text[start..walk.at]);
        Some(())
    })
}

struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
    /// A character was written as its code point.
    has_code_points: bool,
}

impl<'a> Walk<'a> {
    fn over(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            has_code_points: false,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn object(&mut self, each: &mut impl FnMut(&[u8], Span)) -> Option<()> {
        self.expect(b'{')?;
        self.sequence(b'}', |walk| walk.member(each, |walk, _| walk.value()))
    }

    /// A member of an object: its key, and what `walk_value` walks.
    fn member(
        &mut self,
        each: &mut impl FnMut(&[u8], Span),
        walk_value: impl FnOnce(&mut Self, &[u8]) -> Option<()>,
    ) -> Option<()> {
        let quote = self.at;
        let key = self.string()?;
        let quoted = &self.text[quote..self.at];
        self.space();
        self.expect(b':')?;
        self.space();
        // Nobody escapes a letter of a key, but whoever does means the letter.
        let decoded = memchr::memchr(b'\\', key).and_then(|_| string(quoted));
        let key = decoded.as_ref().map_or(key, |decoded| decoded.as_bytes());
        let start = self.at;
        walk_value(self, key)?;
        each(key, span(start, self.at)?);
        Some(())
    }

    /// The inside of a container, its first byte taken, up to and with `close`.
    fn sequence(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        self.space();
        if self.peek()? == close {
            self.at += 1;
        } else {
            loop {
                item(self)?;
                self.space();
                match self.peek()? {
                    b',' => self.at += 1,
                    byte if byte == close => {
                        self.at += 1;
                        break;
                    }
                    _ => return None,
                }
                self.space();
            }
        }
        self.depth -= 1;
        Some(())
    }

    fn value(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            // Not one function with a callback: it would have to exist for each depth.
            b'{' => {
                self.at += 1;
                self.sequence(b'}', |walk| {
                    walk.string()?;
                    walk.space();
                    walk.expect(b':')?;
                    walk.space();
                    walk.value()
                })
            }
            b'[' => {
                self.at += 1;
                self.sequence(b']', Self::value)
            }
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            b'N' => self.word(b"NaN"),
            b'I' => self.word(b"Infinity"),
            b'-' if self.text.get(self.at + 1) == Some(&b'I') => self.word(b"-Infinity"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| {
            self.at += word.len();
        })
    }

    fn number(&mut self) -> Option<()> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    /// A string; returns what stands between its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            self.at += plain(&self.text[self.at..]);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(&self.text[start..self.at - 1]);
                }
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.text.get(self.at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
            b'u' => {
                let digits = self.text.get(self.at + 2..self.at + 6)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                self.at += 6;
                self.has_code_points = true;
            }
            _ => return None,
        }
        Some(())
    }
}

fn span(start: usize, end: usize) -> Option<Span> {
    Some(Span {
        start: u32::try_from(start).ok()?,
        end: u32::try_from(end).ok()?,
    })
}

const fn is_plain(byte: u8) -> bool {
    byte >= 0x20 && byte != b'"' && byte != b'\\'
}

/// How many bytes from the start are nothing but text of a string. Most strings are short: words of
/// eight bytes first; then whole blocks, which the compiler turns into vector instructions.
fn plain(text: &[u8]) -> usize {
    const SHORT: usize = 32;
    /// Twice as fast as blocks of half the size, and no slower than larger ones.
    const BLOCK: usize = 64;
    let (short, rest) = text.split_at(text.len().min(SHORT));
    let at = plain_words(short);
    if at < SHORT || rest.is_empty() {
        return at;
    }
    let blocks = rest
        .chunks_exact(BLOCK)
        .take_while(|block| block.iter().fold(true, |all, byte| all & is_plain(*byte)))
        .count();
    let at = SHORT + blocks * BLOCK;
    at + plain_words(&text[at..])
}

fn plain_words(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let special = special(u64::from_le_bytes(*word));
        if special != 0 {
            return index * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let at = words.len() * 8;
    at + rest
        .iter()
        .position(|byte| !is_plain(*byte))
        .unwrap_or(rest.len())
}

/// The highest bit of every byte that ends plain text; bytes above the first may be wrong, as a
/// subtraction borrows from them.
const fn special(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    ((quote.wrapping_sub(ONES) & !quote) | (backslash.wrapping_sub(ONES) & !backslash) | control)
        & HIGH
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_byte_ends_plain_text_where_it_should() {
        for byte in 0..=255_u8 {
            for length in [1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 200] {
                for at in [0, 1, 7, 8, 15, 31, 32, 33, 63, 64, length - 1] {
                    if at >= length {
                        continue;
                    }
                    let mut text = vec![if at % 2 == 0 { b'x' } else { 0xC3 }; length];
                    text[at] = byte;
                    let expected = if is_plain(byte) { length } else { at };
                    assert_eq!(plain(&text), expected, "{byte:#x} at {at} of {length}");
                    // What comes after it changes nothing.
                    text[at + 1..].fill(b'"');
                    let expected = if is_plain(byte) && at + 1 < length {
                        at + 1
                    } else {
                        expected
                    };
                    assert_eq!(plain(&text), expected, "{byte:#x} at {at} of {length}");
                }
            }
        }
    }

    fn seen(text: &str) -> Option<Vec<(String, String)>> {
        let mut found = Vec::new();
        members(text.as_bytes(), |key, span| {
            let value = span.of(text.as_bytes()).expect("a value has text");
            found.push((
                String::from_utf8_lossy(key).into_owned(),
                String::from_utf8_lossy(value).into_owned(),
            ));
        })?;
        Some(found)
    }

    #[test]
    fn members_are_found_with_their_text() {
        let text = " {\"a\" : [1, {\"type\":\"no\"}] , \"b\\\"c\":\"x\\u00e9\\\\\",\"d\":{}}\r ";
        let expected = [
            ("a", "[1, {\"type\":\"no\"}]"),
            ("b\"c", "\"x\\u00e9\\\\\""),
            ("d", "{}"),
        ];
        let found = seen(text).expect("an object");
        let found: Vec<_> = found
            .iter()
            .map(|(key, value)| (&**key, &**value))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn exactly_the_texts_that_a_parser_takes_are_taken() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(200));
        for text in [
            "{}",
            "{\"a\":1}",
            "{\"a\":-0.5e+3,\"b\":[[],[{}]],\"c\":null}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":+1}",
            "{\"a\":1e}",
            "{\"a\":}",
            "{\"a\" 1}",
            "{\"a\":1,}",
            "{\"a\":[1,]}",
            "{a:1}",
            "{\"a\":truth}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\t\"}",
            "{\"a\":\"\u{7f}\u{2028}\u{85}\"}",
            "{\"a\":1} x",
            "{\"a\":1}{}",
            "[1]",
            "\"x\"",
            "",
            "{",
            "{\"a\":\"",
            "{\"a\":[}",
            &long,
            &long[..150],
        ] {
            let parses = serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object());
            assert_eq!(seen(text).is_some(), parses, "{text}");
        }
    }

    #[test]
    fn what_only_python_takes_is_taken_and_depth_is_bounded() {
        assert!(seen("{\"a\":[NaN,Infinity,-Infinity]}").is_some());
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(seen(&nested(500)).is_some());
        assert!(seen(&nested(100_000)).is_none());
    }

    #[test]
    fn elements_of_an_array_are_found() {
        let mut found = Vec::new();
        elements(b" [1, {\"a\":[2]}, \"x\"]", |text| found.push(text)).expect("an array");
        assert_eq!(found, [&b"1"[..], b"{\"a\":[2]}", b"\"x\""]);
        assert!(elements(b"{}", |_| ()).is_none());
    }

    #[test]
    fn members_of_one_value_are_found_in_the_same_walk() {
        let text = br#"{"m":{"c":1,"d":{"c":2}},"x":{"c":3},"m":[4],"\u006d":{"c":5}}"#;
        let told = std::cell::RefCell::new(Vec::new());
        let note = |place: &str, key: &[u8], value: Span| {
            let (key, value) = (String::from_utf8_lossy(key), value.of(text).expect("text"));
            let value = String::from_utf8_lossy(value);
            told.borrow_mut().push(format!("{place} {key} {value}"));
        };
        let walked = members_within(
            text,
            b"m",
            |key, value| note("each", key, value),
            |key, value| note("inside", key, value),
        );
        assert_eq!(walked, Some(true));
        let expected = [
            "inside c 1",
            "inside d {\"c\":2}",
            "each m {\"c\":1,\"d\":{\"c\":2}}",
            "each x {\"c\":3}",
            "each m [4]",
            "inside c 5",
            "each m {\"c\":5}",
        ];
        assert_eq!(told.into_inner(), expected);
        let plain = members_within(br#"{"a":"\n"}"#, b"m", |_, _| (), |_, _| ());
        assert_eq!(plain, Some(false));
        assert!(members_within(b"{\"m\":{\"c\":}}", b"m", |_, _| (), |_, _| ()).is_none());
    }

    #[test]
    fn objects_of_an_array_are_found() {
        let text = br#" [1, {"a":[2],"b":{}}, [{"c":3}], {}] "#;
        let mut found = Vec::new();
        let note = |member: Option<(&[u8], Span)>| {
            found.push(member.map(|(_, value)| value.of(text).expect("text")));
        };
        objects(text, note).expect("an array");
        assert_eq!(found, [Some(&b"[2]"[..]), Some(b"{}"), None, None]);
        assert!(objects(b"{}", |_| ()).is_none());
    }

    #[test]
    fn a_string_ends_wherever_its_quote_stands() {
        for length in 0..100 {
            let text = "y".repeat(length);
            let line = format!("{{\"k\":\"{text}\"}}");
            assert_eq!(seen(&line).expect("an object")[0].1, format!("\"{text}\""));
        }
    }
}
