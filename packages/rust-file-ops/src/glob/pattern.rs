//! Responsible for turning the text of a pattern into components.
//!
//! First `{a,b}` is written out, so that an alternative may hold slashes; then each of the plain
//! patterns is cut at its slashes and read. The Python backend reads the same language in the same
//! order, and its messages are the same.

use std::ffi::OsStr;

use vespera_error::Result;

use super::component::{Component, Token, Tokens, decode};
use crate::error::bad_pattern;

/// `{a,b}{c,d}…` doubles with every group: past this a pattern is a mistake.
const MAX_ALTERNATIVES: usize = 1024;

const SLASH: u32 = '/' as u32;
const BACKSLASH: u32 = '\\' as u32;
const OPEN_BRACE: u32 = '{' as u32;
const CLOSE_BRACE: u32 = '}' as u32;
const COMMA: u32 = ',' as u32;
const OPEN_BRACKET: u32 = '[' as u32;
const CLOSE_BRACKET: u32 = ']' as u32;
const STAR: u32 = '*' as u32;
const QUESTION: u32 = '?' as u32;
const MINUS: u32 = '-' as u32;
const DOT: u32 = '.' as u32;
const NEGATIONS: [u32; 2] = ['!' as u32, '^' as u32];

/// What is wrong, in words; `parse` adds the pattern.
type Reason = String;

/// One list of components per alternative. None is empty and none ends in `**`. With `anywhere` each
/// is matched at any depth, as if `**/` stood before it; positions are those of what was written.
pub(super) fn parse(pattern: &OsStr, anywhere: bool) -> Result<Vec<Vec<Component>>> {
    let mut characters = Vec::new();
    decode(pattern.as_encoded_bytes(), &mut characters);
    let read = || -> std::result::Result<_, Reason> {
        check(&characters)?;
        let mut plain = expand(&characters)?;
        for alternative in plain.iter_mut().filter(|one| anywhere && !one.is_empty()) {
            alternative.splice(0..0, [STAR, STAR, SLASH]);
        }
        plain
            .iter()
            .map(|alternative| components(alternative))
            .collect()
    };
    read().map_err(|reason| bad_pattern(pattern, reason))
}

/// Braces, brackets and escapes must be closed; positions are told in the pattern as written.
fn check(pattern: &[u32]) -> std::result::Result<(), Reason> {
    let mut open = Vec::new();
    let mut at = 0;
    while at < pattern.len() {
        match pattern[at] {
            0 => return Err("holds a NUL character, which no file name can have".into()),
            OPEN_BRACE => open.push(at),
            CLOSE_BRACE if open.pop().is_none() => {
                return Err(format!(
                    "'}}' at character {at} closes nothing; write '\\}}' for the character"
                ));
            }
            _ => {}
        }
        at = after(pattern, at)?;
    }
    match open.pop() {
        Some(start) => Err(format!(
            "'{{' at character {start} is not closed; write '\\{{' for the character"
        )),
        None => Ok(()),
    }
}

/// The position after the element at `at`: an escape or a class is one element.
fn after(pattern: &[u32], at: usize) -> std::result::Result<usize, Reason> {
    match pattern[at] {
        BACKSLASH => match pattern.get(at + 1) {
            Some(&SLASH) | None => Err(format!(
                "'\\' at character {at} escapes nothing; write '\\\\' for the character"
            )),
            Some(_) => Ok(at + 2),
        },
        OPEN_BRACKET => class_end(pattern, at).map(|end| end + 1).ok_or_else(|| {
            format!("'[' at character {at} is not closed; write '\\[' for the character")
        }),
        _ => Ok(at + 1),
    }
}

/// Where the class that opens at `at` closes. A `]` right after the opening belongs to the class.
fn class_end(pattern: &[u32], at: usize) -> Option<usize> {
    let mut next = at + 1;
    if pattern
        .get(next)
        .is_some_and(|character| NEGATIONS.contains(character))
    {
        next += 1;
    }
    if pattern.get(next) == Some(&CLOSE_BRACKET) {
        next += 1;
    }
    let rest = pattern.get(next..)?;
    let length = rest
        .iter()
        .position(|&character| character == CLOSE_BRACKET)?;
    (!rest[..length].contains(&SLASH)).then_some(next + length)
}

/// Write out the braces: `a{b,c}` becomes `ab` and `ac`.
fn expand(pattern: &[u32]) -> std::result::Result<Vec<Vec<u32>>, Reason> {
    let mut pending = vec![pattern.to_vec()];
    let mut plain = Vec::new();
    while let Some(next) = pending.pop() {
        match first_group(&next)? {
            None => plain.push(next),
            Some((_, cuts)) if cuts.len() + plain.len() + pending.len() > MAX_ALTERNATIVES => {
                return Err(format!(
                    "its braces stand for more than {MAX_ALTERNATIVES} patterns; \
                     use '*' or several calls"
                ));
            }
            Some((start, cuts)) => {
                let end = cuts[cuts.len() - 1];
                let mut from = start + 1;
                for &cut in &cuts {
                    let mut one = next[..start].to_vec();
                    one.extend_from_slice(&next[from..cut]);
                    one.extend_from_slice(&next[end + 1..]);
                    pending.push(one);
                    from = cut + 1;
                }
            }
        }
    }
    Ok(plain)
}

/// The first outermost `{`, and the places of its commas and of its `}`.
fn first_group(pattern: &[u32]) -> std::result::Result<Option<(usize, Vec<usize>)>, Reason> {
    let (mut depth, mut start, mut cuts) = (0_usize, 0, Vec::new());
    let mut at = 0;
    while at < pattern.len() {
        match pattern[at] {
            OPEN_BRACE => {
                if depth == 0 {
                    start = at;
                }
                depth += 1;
            }
            COMMA if depth == 1 => cuts.push(at),
            CLOSE_BRACE => {
                depth -= 1;
                if depth == 0 {
                    cuts.push(at);
                    return Ok(Some((start, cuts)));
                }
            }
            _ => {}
        }
        at = after(pattern, at)?;
    }
    Ok(None)
}

fn components(pattern: &[u32]) -> std::result::Result<Vec<Component>, Reason> {
    if pattern.is_empty() {
        return Err("is empty; '*' means every file of the directory".into());
    }
    if pattern[0] == SLASH {
        return Err("starts with '/'; patterns are relative to the directory".into());
    }
    if pattern[pattern.len() - 1] == SLASH {
        return Err("ends with '/', but only files are found; add '*'".into());
    }
    let mut found = Vec::new();
    for part in pattern.split(|&character| character == SLASH) {
        match part {
            [] | [DOT] => {}
            [DOT, DOT] => return Err("holds '..'; give the directory above instead".into()),
            [STAR, STAR] => {
                if found.last() != Some(&Component::AnyDepth) {
                    found.push(Component::AnyDepth);
                }
            }
            _ => found.push(Component::Name(name(part)?)),
        }
    }
    match found.last() {
        None => return Err("names the directory itself, but only files are found; add '*'".into()),
        // `a/**` means every file beneath `a`.
        Some(Component::AnyDepth) => found.push(Component::Name(Tokens(vec![Token::Run]))),
        Some(Component::Name(_)) => {}
    }
    Ok(found)
}

fn name(part: &[u32]) -> std::result::Result<Tokens, Reason> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < part.len() {
        let next = after(part, at)?;
        tokens.push(match part[at] {
            STAR if part.get(at + 1) == Some(&STAR) => {
                return Err("'**' must stand alone between slashes, as in 'a/**/b'".into());
            }
            STAR => Token::Run,
            QUESTION => Token::One,
            BACKSLASH => Token::Literal(part[at + 1]),
            OPEN_BRACKET => class(&part[at + 1..next - 1])?,
            literal => Token::Literal(literal),
        });
        at = next;
    }
    Ok(Tokens(tokens))
}

/// The inside of a class. A `-` first or last is itself; a backslash is too.
fn class(inside: &[u32]) -> std::result::Result<Token, Reason> {
    let negated = NEGATIONS.contains(&inside[0]);
    let mut rest = &inside[usize::from(negated)..];
    let mut ranges = Vec::new();
    while let Some((&low, others)) = rest.split_first() {
        if let [MINUS, high, after @ ..] = others {
            if low > *high {
                return Err("a class holds a range that runs backwards".into());
            }
            ranges.push((low, *high));
            rest = after;
        } else {
            ranges.push((low, low));
            rest = others;
        }
    }
    Ok(Token::Class { negated, ranges })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(pattern: &str) -> String {
        match parse(OsStr::new(pattern), false) {
            Err(error) => error.context()["reason"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            Ok(parsed) => panic!("{pattern}: {parsed:?}"),
        }
    }

    #[test]
    fn a_pattern_that_means_nothing_is_refused_with_its_reason() {
        for (pattern, part) in [
            ("", "is empty"),
            ("/etc/*", "starts with '/'"),
            ("a/", "ends with '/'"),
            (".", "names the directory itself"),
            ("../*", "holds '..'"),
            ("a**", "must stand alone"),
            ("[a", "'[' at character 0 is not closed"),
            ("[a/b]", "is not closed"),
            ("[]", "is not closed"),
            ("x{a,b", "'{' at character 1 is not closed"),
            ("a}", "'}' at character 1 closes nothing"),
            ("a\\", "escapes nothing"),
            ("[z-a]", "runs backwards"),
            ("a\0", "NUL"),
            ("{a,{b,}}", "is empty"),
        ] {
            assert!(
                reason(pattern).contains(part),
                "{pattern}: {}",
                reason(pattern)
            );
        }
        let doubling = "{a,b}".repeat(30);
        assert!(reason(&doubling).contains("more than 1024"));
    }

    #[test]
    fn braces_stand_for_several_patterns_and_may_hold_slashes() {
        assert_eq!(
            parse(OsStr::new("{a,b/{c,d}}.txt"), false)
                .expect("valid")
                .len(),
            3
        );
        assert_eq!(
            parse(OsStr::new("[{]"), false)
                .expect("a brace in a class is itself")
                .len(),
            1
        );
        assert_eq!(
            parse(OsStr::new(r"\{a\}"), false).expect("escaped").len(),
            1
        );
    }

    #[test]
    fn double_stars_collapse_and_never_come_last() {
        let parsed = parse(OsStr::new("**/**"), false).expect("valid");
        assert_eq!(parsed[0].len(), 2);
        assert!(matches!(parsed[0][1], Component::Name(_)));
    }
}
