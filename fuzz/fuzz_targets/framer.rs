//! Any bytes in any pieces are the same lines as those bytes at once, split on 0x0A alone.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use vespera_agent_spawner::agent::stream::{Framer, HEAD, Line};

#[derive(Debug, PartialEq)]
enum Told {
    Whole(Vec<u8>),
    Oversize(usize, Vec<u8>),
}

/// A framer without state: what the real one must tell, however the bytes came.
fn expected(bytes: &[u8], cap: usize) -> Vec<Told> {
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    if lines.last().is_some_and(|tail| tail.is_empty()) {
        lines.pop();
    }
    let told = |line: &[u8]| match line.len() {
        length if length > cap => Told::Oversize(length, line[..length.min(HEAD)].to_vec()),
        _ => Told::Whole(line.to_vec()),
    };
    lines.into_iter().map(told).collect()
}

fuzz_target!(|input: &[u8]| {
    let [cap, sizes @ .., b'|'] = &input[..input.len().min(9)] else {
        return;
    };
    // A cap below what is kept of an oversize line is nobody's.
    let (cap, bytes) = (HEAD + usize::from(*cap) * 3, &input[input.len().min(9)..]);
    let mut seen = Vec::new();
    let mut note = |line: Line<'_>| {
        seen.push(match line {
            Line::Whole(line) => Told::Whole(line.to_vec()),
            Line::Oversize { length, head } => Told::Oversize(length, head.to_vec()),
        });
    };
    let mut framer = Framer::with_cap(cap);
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, left) = rest.split_at(usize::from(*size).clamp(1, rest.len()));
        match framer.long() {
            Some(long) => {
                long.extend_from_slice(piece);
                framer.appended(piece.len(), &mut note);
            }
            None => framer.push(Bytes::copy_from_slice(piece), &mut note),
        }
        rest = left;
    }
    framer.finish(&mut note);
    assert_eq!(seen, expected(bytes, cap));
});
