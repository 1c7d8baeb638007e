//! Responsible for cutting a text into chunks of a size, at the ends of lines or sentences, with
//! ranges that put the text together again exactly.
//!
//! A chunk ends at the last boundary within its size. Where there is none it ends behind a line,
//! else behind a word, else where its size is reached, though never inside `\r\n`. The next one
//! begins at the first boundary within the overlap, so that the overlap is whole lines or
//! sentences.

/// What chunks end at, where they can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// Wherever the size is reached.
    Character,
    Line,
    Sentence,
}

/// Ranges of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub bytes: (usize, usize),
    pub characters: (usize, usize),
    /// Number of the line that it begins in, from 1.
    pub line: usize,
}

/// A place between two characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    byte: usize,
    character: usize,
}

/// The chunks of `text`, `size` characters each at most, `overlap` of them, at most, also in the
/// one before. `overlap` is less than `size`.
pub fn chunk_text(text: &str, size: usize, overlap: usize, boundary: Boundary) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut start = Place {
        byte: 0,
        character: 0,
    };
    let mut covered = start;
    let (mut counted, mut line) = (0, 1);
    while covered.byte < text.len() {
        let limit = forward(text, start, size);
        let end = if limit.byte == text.len() {
            limit
        } else {
            last_boundary(text, covered, limit, boundary)
        };
        line += memchr::memchr_iter(b'\n', &text.as_bytes()[counted..start.byte]).count();
        counted = start.byte;
        chunks.push(Chunk {
            bytes: (start.byte, end.byte),
            characters: (start.character, end.character),
            line,
        });
        start = next_start(text, start, end, (size, overlap), boundary);
        covered = end;
    }
    chunks
}

fn forward(text: &str, from: Place, characters: usize) -> Place {
    let rest = &text[from.byte..];
    match rest.char_indices().nth(characters) {
        Some((bytes, _)) => Place {
            byte: from.byte + bytes,
            character: from.character + characters,
        },
        None => Place {
            byte: text.len(),
            character: from.character + rest.chars().count(),
        },
    }
}

/// The last boundary behind `from` and not behind `limit`, or the next best place to cut.
fn last_boundary(text: &str, from: Place, limit: Place, boundary: Boundary) -> Place {
    let wanted: &[fn(&str, usize) -> bool] = match boundary {
        Boundary::Character => &[],
        Boundary::Line => &[behind_line, behind_word],
        Boundary::Sentence => &[behind_sentence, behind_line, behind_word],
    };
    for is_boundary in wanted {
        let mut place = limit;
        while place.byte > from.byte {
            if is_boundary(text, place.byte) {
                return place;
            }
            place = back(text, place);
        }
    }
    // One character less rather than a line ending in two.
    let shorter = back(text, limit);
    if splits_newline(text, limit.byte) && shorter.byte > from.byte {
        return shorter;
    }
    limit
}

/// The first boundary within the overlap from which a chunk still comes to a boundary behind `end`:
/// an overlap is not worth a cut in the middle of what follows.
fn next_start(
    text: &str,
    start: Place,
    end: Place,
    (size, overlap): (usize, usize),
    boundary: Boundary,
) -> Place {
    if end.byte == text.len() || overlap == 0 {
        return end;
    }
    let is_boundary: fn(&str, usize) -> bool = match boundary {
        Boundary::Character => |text, at| !splits_newline(text, at),
        Boundary::Line => behind_line,
        Boundary::Sentence => behind_sentence,
    };
    let reached = next_boundary(text, end, size, is_boundary);
    // A line ending of two characters must fit behind the overlap, or the next cut is inside it.
    let needed = if text[end.byte..].starts_with("\r\n") && size > 1 {
        end.character + 2
    } else {
        0
    };
    let lowest = (start.character + 1)
        .max(end.character.saturating_sub(overlap))
        .max(reached.unwrap_or(0).max(needed).saturating_sub(size));
    let (mut place, mut best, mut words) = (end, end, end);
    while place.character > lowest {
        place = back(text, place);
        if is_boundary(text, place.byte) {
            best = place;
        } else if behind_word(text, place.byte) {
            words = place;
        }
    }
    // No boundary within the overlap: rather words than nothing.
    if best == end { words } else { best }
}

/// The characters in front of the first boundary, or the end, at most `size` behind `from`.
fn next_boundary(
    text: &str,
    from: Place,
    size: usize,
    is_boundary: fn(&str, usize) -> bool,
) -> Option<usize> {
    let mut place = from;
    while place.character < from.character + size {
        place = forward(text, place, 1);
        if place.byte == text.len() || is_boundary(text, place.byte) {
            return Some(place.character);
        }
    }
    None
}

fn back(text: &str, place: Place) -> Place {
    let width = text[..place.byte]
        .chars()
        .next_back()
        .map_or(0, char::len_utf8);
    Place {
        byte: place.byte - width,
        character: place.character - 1,
    }
}

fn splits_newline(text: &str, at: usize) -> bool {
    let bytes = text.as_bytes();
    at > 0 && bytes[at - 1] == b'\r' && bytes.get(at) == Some(&b'\n')
}

fn behind_line(text: &str, at: usize) -> bool {
    at > 0 && text.as_bytes()[at - 1] == b'\n'
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r' | '\u{a0}' | '\u{3000}')
}

/// Behind spaces, in front of something else.
fn behind_word(text: &str, at: usize) -> bool {
    text[..at].chars().next_back().is_some_and(is_space)
        && !text[at..].chars().next().is_some_and(is_space)
}

/// Behind the space that follows `.`, `!`, `?` or `…` and what closes there, behind an empty line,
/// or behind a full stop of a script that is written without spaces.
fn behind_sentence(text: &str, at: usize) -> bool {
    let closes = |one: char| {
        matches!(
            one,
            '"' | '\'' | ')' | ']' | '}' | '»' | '”' | '’' | '」' | '』'
        )
    };
    let ends = |one: char| matches!(one, '.' | '!' | '?' | '…');
    let ends_alone = |one: char| matches!(one, '。' | '！' | '？' | '｡');
    let next = text[at..].chars().next();
    if next.is_some_and(|one| is_space(one) || closes(one) || ends(one) || ends_alone(one)) {
        return false;
    }
    let before = text[..at].trim_end_matches(is_space);
    let space = &text[before.len()..at];
    if space.bytes().filter(|&byte| byte == b'\n').count() > 1 {
        return true;
    }
    let last = before.trim_end_matches(closes).chars().next_back();
    last.is_some_and(|one| ends_alone(one) || (ends(one) && !space.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, size: usize, overlap: usize, boundary: Boundary) -> Vec<&str> {
        chunk_text(text, size, overlap, boundary)
            .into_iter()
            .map(|chunk| &text[chunk.bytes.0..chunk.bytes.1])
            .collect()
    }

    #[test]
    fn chunks_end_at_lines_and_overlap_by_lines() {
        let text = "one\ntwo\nthree\nfour\n";
        assert_eq!(
            cut(text, 10, 4, Boundary::Line),
            ["one\ntwo\n", "two\nthree\n", "four\n"]
        );
    }

    #[test]
    fn sentences_stay_whole() {
        let text = "He said \"no.\" Then? Nothing e.g. this. 終わり。次。";
        assert_eq!(
            cut(text, 20, 0, Boundary::Sentence),
            [
                "He said \"no.\" Then? ",
                "Nothing e.g. this. ",
                "終わり。次。"
            ]
        );
    }

    #[test]
    fn a_long_word_is_cut_and_a_line_ending_is_not() {
        assert_eq!(cut("abcdef", 4, 0, Boundary::Line), ["abcd", "ef"]);
        assert_eq!(
            cut("abc\r\ndef", 4, 0, Boundary::Character),
            ["abc", "\r\nde", "f"]
        );
    }
}
