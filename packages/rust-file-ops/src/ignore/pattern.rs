//! Responsible for one pattern of a `.gitignore`, as gitignore(5) tells it: bytes, not characters;
//! `*` and `?` never match a slash; `**` between slashes is any number of directories.

use crate::wildcards;

/// One part of a pattern between slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    AnyDepth,
    Name(Name),
}

/// What one name must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    One,
    Run,
    Class(Box<Set>),
}

/// The parts of `pattern`; `None` if it can match nothing (a class that is not closed, a backslash
/// at the end).
pub(super) fn parse(pattern: &[u8]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut tokens = Vec::new();
    let mut stars_only = true;
    // Whether the slash that comes now is written `\/`.
    let mut escaped = false;
    let mut at = 0;
    loop {
        match pattern.get(at) {
            None | Some(b'/') => {
                let whole = std::mem::take(&mut tokens);
                // A run of two or more stars was kept as two tokens.
                let part = if stars_only && whole.len() > 1 {
                    if std::mem::take(&mut escaped) {
                        // git skips `**/` where it stands for no directory, and does not see that
                        // this is the same: there is at least one.
                        parts.push(Part::Name(Name(vec![Token::Run])));
                    }
                    Part::AnyDepth
                } else {
                    Part::Name(Name(whole))
                };
                escaped = false;
                if !(part == Part::AnyDepth && parts.last() == Some(&Part::AnyDepth)) {
                    parts.push(part);
                }
                if at >= pattern.len() {
                    return Some(parts);
                }
                stars_only = true;
                at += 1;
                continue;
            }
            Some(b'*') => {
                if tokens.len() < 2 || tokens[tokens.len() - 2..] != [Token::Run, Token::Run] {
                    tokens.push(Token::Run);
                }
                at += 1;
                continue;
            }
            Some(b'?') => tokens.push(Token::One),
            Some(b'[') => {
                let (set, end) = class(pattern, at + 1)?;
                tokens.push(Token::Class(Box::new(set)));
                at = end;
            }
            Some(b'\\') => {
                at += 1;
                match pattern.get(at) {
                    None => return None,
                    // It separates, as a plain one does.
                    Some(b'/') => {
                        escaped = true;
                        continue;
                    }
                    Some(&byte) => tokens.push(Token::Byte(byte)),
                }
            }
            Some(&byte) => tokens.push(Token::Byte(byte)),
        }
        stars_only = false;
        at += 1;
    }
}

/// Whether the whole of `path` matches.
pub(super) fn matches(parts: &[Part], path: &[u8]) -> bool {
    let mut part = 0;
    let mut rest = Some(path);
    // As every other part takes one name, only the last `**` is ever tried again.
    let mut again: Option<(usize, &[u8])> = None;
    loop {
        match (parts.get(part), rest) {
            (None, None) => return true,
            (Some(Part::AnyDepth), Some(_)) if part + 1 == parts.len() => return true,
            (Some(Part::AnyDepth), Some(names)) => {
                again = Some((part, names));
                part += 1;
                continue;
            }
            (Some(Part::Name(name)), Some(names)) => {
                let (first, others) = split(names);
                if name.matches(first) {
                    rest = others;
                    part += 1;
                    continue;
                }
            }
            _ => {}
        }
        let Some((depth, names)) = again else {
            return false;
        };
        let (_, Some(fewer)) = split(names) else {
            return false;
        };
        again = Some((depth, fewer));
        rest = Some(fewer);
        part = depth + 1;
    }
}

fn split(names: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'/', names) {
        Some(slash) => (&names[..slash], Some(&names[slash + 1..])),
        None => (names, None),
    }
}

impl Name {
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        wildcards::matches(&self.0, name)
    }
}

impl wildcards::Token<u8> for Token {
    fn is_run(&self) -> bool {
        matches!(self, Token::Run)
    }

    fn accepts(&self, byte: u8) -> bool {
        match self {
            Token::Byte(wanted) => *wanted == byte,
            Token::One => true,
            Token::Class(set) => set.has(byte),
            Token::Run => false,
        }
    }
}

/// A set of bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Set([u64; 4]);

impl Set {
    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    fn add(&mut self, bytes: impl IntoIterator<Item = u8>) {
        for byte in bytes {
            self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
    }
}

/// The class whose inside starts at `at`, and where its `]` stands.
fn class(pattern: &[u8], mut at: usize) -> Option<(Set, usize)> {
    let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    at += usize::from(negated);
    let mut set = Set::default();
    // The start of a range, if the element before can be one.
    let mut low: Option<u8> = None;
    let mut first = true;
    loop {
        let byte = *pattern.get(at)?;
        if byte == b']' && !first {
            break;
        }
        first = false;
        match (byte, low, pattern.get(at + 1)) {
            (b'\\', ..) => {
                at += 1;
                let escaped = *pattern.get(at)?;
                set.add([escaped]);
                low = Some(escaped);
            }
            (b'-', Some(from), Some(&next)) if next != b']' => {
                at += 1;
                let mut to = next;
                if to == b'\\' {
                    at += 1;
                    to = *pattern.get(at)?;
                }
                set.add(from..=to);
                low = None;
            }
            (b'[', _, Some(b':')) => {
                let inside = &pattern[at + 2..];
                let end = memchr::memchr(b']', inside)?;
                if end > 0 && inside[end - 1] == b':' {
                    let belongs = named(&inside[..end - 1])?;
                    set.add((0..128).filter(belongs));
                    at += 2 + end;
                    low = None;
                } else {
                    set.add([b'[']);
                    low = Some(b'[');
                }
            }
            _ => {
                set.add([byte]);
                low = Some(byte);
            }
        }
        at += 1;
    }
    if negated {
        set.0 = set.0.map(|bits| !bits);
    }
    set.0[usize::from(b'/' >> 6)] &= !(1 << (b'/' & 63));
    Some((set, at))
}

fn named(class: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match class {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| (b' '..=b'~').contains(byte),
        b"punct" => u8::is_ascii_punctuation,
        // git's own idea of a space.
        b"space" => |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_gitignore_tells() {
        for (pattern, path, expected) in [
            ("a/*.rs", "a/b.rs", true),
            ("a/*.rs", "a/b/c.rs", false),
            ("**/b", "b", true),
            ("**/b", "a/c/b", true),
            ("a/**", "a", false),
            ("a/**", "a/b/c", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/x/y", false),
            ("a/**/b/**/c", "a/b/b/x/c", true),
            ("a/x**y", "a/xzy", true),
            ("[a-c]/[!x]", "b/y", true),
            ("[a-c]/[!x]", "b/x", false),
            ("[[:digit:]]", "7", true),
            ("[]-]", "-", true),
            ("a[/]b", "a/b", false),
            (r"**\/b", "b", false),
            (r"**\/b", "a/c/b", true),
            (r"**\/**", "a", false),
            (r"**/**\/b", "a/b", true),
            (r"a\/**\/b", "a/b", false),
            (r"a*\/b", "ax/b", true),
            (r"\*", "*", true),
            ("{a,b}", "a", false),
        ] {
            let parts = parse(pattern.as_bytes()).expect("can match");
            assert_eq!(
                matches(&parts, path.as_bytes()),
                expected,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn what_is_not_closed_matches_nothing() {
        for pattern in ["[a", "a[", "[[:what:]]", "a\\"] {
            assert_eq!(parse(pattern.as_bytes()), None, "{pattern}");
        }
    }
}
