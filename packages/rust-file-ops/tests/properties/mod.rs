//! Responsible for what must hold of an edit and of chunks, whatever the bytes that they are made
//! from: the fuzz targets and the replay of their corpus check the same.

use std::path::Path;

use vespera_error::ErrorCode;
use vespera_file_ops::chunk::{Boundary, chunk_text};
use vespera_file_ops::edit::{Edit, edit_text};
use vespera_file_ops::text::{Encoding, MARK};

/// Stands between the parts of an input; `+` in front of an old text means all its places.
const SEPARATOR: char = '\u{1e}';

/// A text and edits of it: against `str::replace`, and the diff against the text it leads to.
pub(crate) fn edit(data: &[u8]) {
    let input = String::from_utf8_lossy(data);
    let mut parts = input.split(SEPARATOR);
    let original = parts.next().unwrap_or_default();
    let mut edits = Vec::new();
    while let Some(old) = parts.next() {
        let new = parts.next().unwrap_or_default();
        let (old, replace_all) = match old.strip_prefix('+') {
            Some(old) => (old, true),
            None => (old, false),
        };
        // The Python half refuses these before the engine sees them.
        if !old.is_empty() && old != new {
            edits.push(Edit {
                old: old.to_owned(),
                new: new.to_owned(),
                replace_all,
            });
        }
    }
    for encoding in [Encoding::Utf8, Encoding::Utf16Le] {
        check_edits(original, &edits, encoding);
    }
}

fn check_edits(original: &str, edits: &[Edit], encoding: Encoding) {
    let outcome = edit_text(Path::new("f"), original, edits, encoding);
    let mut model = original.to_owned();
    let mut replaced = Vec::new();
    for (number, edit) in edits.iter().enumerate() {
        let start = start_of_text(&model, encoding);
        let (old, new) = meant(&model[start..], edit);
        let mut found = places(&model[start..], &old);
        for at in &mut found {
            *at += start;
        }
        let refused = match found.len() {
            0 => Some(ErrorCode::StringNotFound),
            1 => None,
            _ if edit.replace_all => None,
            _ => Some(ErrorCode::AmbiguousMatch),
        };
        if let Some(code) = refused {
            let error = outcome.expect_err("the model refuses it");
            assert_eq!(error.code(), code);
            assert_eq!(error.context()["edit"], number);
            return;
        }
        let before = model.clone();
        for &at in found.iter().rev() {
            model.replace_range(at..at + old.len(), &new);
        }
        replaced.push((before, found));
    }
    let edited = outcome.expect("the model makes it");
    assert_eq!(edited.text, model);
    assert_eq!(edited.positions.len(), replaced.len());
    for (told, (text, found)) in edited.positions.iter().zip(replaced) {
        assert_eq!(told.len(), found.len());
        for (place, at) in told.iter().zip(found) {
            let before = &text[..at];
            let bytes = match encoding {
                Encoding::Utf16Le => before.encode_utf16().count() * 2,
                _ => at,
            };
            let line = before.matches('\n').count() + 1;
            let wanted = (bytes, before.chars().count(), line);
            assert_eq!((place.byte, place.character, place.line), wanted);
        }
    }
    if edited.diff_complete {
        assert_eq!(patched(original, &edited.diff), model);
    }
}

/// A mark at the start is the file's where the encoding has one.
fn start_of_text(text: &str, encoding: Encoding) -> usize {
    match encoding {
        Encoding::Utf16Le if text.starts_with(MARK) => MARK.len_utf8(),
        _ => 0,
    }
}

/// Whether it asks for line endings of one character.
fn simple(old: &str) -> bool {
    old.contains('\n') && !old.contains('\r')
}

/// Where `old` stands; one that asks for `\n` does not begin inside a `\r\n`.
fn places(text: &str, old: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut end = 0;
    for (at, _) in text.char_indices() {
        let cuts = simple(old) && old.starts_with('\n') && text[..at].ends_with('\r');
        if at >= end && !cuts && text[at..].starts_with(old) {
            found.push(at);
            end = at + old.len();
        }
    }
    found
}

/// What an edit means in a text with the line endings of Windows.
fn meant(text: &str, edit: &Edit) -> (String, String) {
    let crlf = |text: &str| text.replace("\r\n", "\n").replace('\n', "\r\n");
    let lone = |text: &str| text.replace("\r\n", "").contains('\n');
    let (old, new) = (edit.old.as_str(), edit.new.as_str());
    if simple(old) && text.contains("\r\n") && places(text, old).is_empty() {
        (crlf(old), crlf(new))
    } else if !old.contains('\n') && lone(new) && text.contains("\r\n") && !lone(text) {
        (old.to_owned(), crlf(new))
    } else {
        (old.to_owned(), new.to_owned())
    }
}

/// The text that a unified diff leads to, its context and removed lines checked.
fn patched(old: &str, diff: &str) -> String {
    let source: Vec<&str> = old.split_inclusive('\n').collect();
    let mut made = String::new();
    let mut at = 0;
    let body: Vec<&str> = diff.split_inclusive('\n').skip(2).collect();
    for (number, line) in body.iter().enumerate() {
        if let Some(header) = line.strip_prefix("@@ -") {
            let range = header.split(' ').next().unwrap_or_default();
            let (start, count) = range.split_once(',').unwrap_or((range, "1"));
            let start: usize = start.parse().expect("a line number");
            let begin = if count == "0" { start } else { start - 1 };
            made.extend(source[at..begin].iter().copied());
            at = begin;
            continue;
        }
        if line.starts_with('\\') {
            continue;
        }
        let cut = body
            .get(number + 1)
            .is_some_and(|next| next.starts_with('\\'));
        let text = &line[1..line.len() - usize::from(cut)];
        if !line.starts_with('+') {
            assert_eq!(source[at], text);
            at += 1;
        }
        if !line.starts_with('-') {
            made.push_str(text);
        }
    }
    made.extend(source[at..].iter().copied());
    made
}

/// Size, overlap, boundary, and the text: the chunks put together are the text.
pub(crate) fn chunk(data: &[u8]) {
    let [size, overlap, boundary, text @ ..] = data else {
        return;
    };
    let size = usize::from(*size) + 1;
    let overlap = usize::from(*overlap) % size;
    let boundary =
        [Boundary::Character, Boundary::Line, Boundary::Sentence][usize::from(*boundary) % 3];
    let text = String::from_utf8_lossy(text);
    let (mut end, mut last_start) = ((0, 0), None);
    for chunk in chunk_text(&text, size, overlap, boundary) {
        let (from, to) = chunk.bytes;
        let part = &text[from..to];
        let length = part.chars().count();
        assert!(length > 0 && length <= size, "{chunk:?} of {size}");
        let cuts = |at: usize| text[..at].ends_with('\r') && text[at..].starts_with('\n');
        assert!(size == 1 || !cuts(from) && !cuts(to), "{chunk:?} of {size}");
        assert_eq!(
            chunk.characters,
            (text[..from].chars().count(), text[..to].chars().count())
        );
        assert_eq!(chunk.line, text[..from].matches('\n').count() + 1);
        assert!(from <= end.0 && to > end.0, "{chunk:?} behind {end:?}");
        assert!(
            end.1 - chunk.characters.0 <= overlap,
            "{chunk:?} behind {end:?}"
        );
        assert!(last_start.is_none_or(|before| before < from));
        end = (to, chunk.characters.1);
        last_start = Some(from);
    }
    assert_eq!(end.0, text.len());
}
