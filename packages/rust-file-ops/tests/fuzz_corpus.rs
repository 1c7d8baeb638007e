//! The corpus of the fuzz targets, replayed, and inputs grown from it without a fuzzer: the same
//! ones each time, on a stable compiler. `VESPERA_FUZZ_ROUNDS` asks for more of them.

mod properties;

use std::path::Path;

/// Words that meet the code's own: separators, line endings, what ends a sentence.
const WORDS: [&[u8]; 12] = [
    b"\x1e",
    b"\x1e+",
    b"\n",
    b"\r\n",
    b"\r",
    b". ",
    b"a",
    b"ab",
    "\u{e4}".as_bytes(),
    "\u{1d11e}".as_bytes(),
    b"\xff",
    b"\n\n",
];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    // A source archive leaves the fuzz package out: then the words alone must do.
    let Ok(entries) = std::fs::read_dir(folder) else {
        return vec![Vec::new()];
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("listed").path()).collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("read"))
        .collect()
}

/// Numbers that look random and are the same in every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (limit as u64).max(1)).unwrap_or(0)
    }
}

fn grown(numbers: &mut Numbers, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(input.len() + 1);
        match numbers.below(4) {
            0 if !input.is_empty() => {
                let to = (at + numbers.below(4)).min(input.len());
                input.drain(at..to);
            }
            1 => {
                let other = &seeds[numbers.below(seeds.len())];
                let from = numbers.below(other.len() + 1);
                let to = (from + numbers.below(20)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            2 if at < input.len() => input[at] ^= 1 << numbers.below(8),
            _ => {
                let word = WORDS[numbers.below(WORDS.len())];
                input.splice(at..at, word.iter().copied());
            }
        }
    }
    input
}

fn run(target: &str, check: fn(&[u8])) {
    let seeds = corpus(target);
    let rounds = std::env::var("VESPERA_FUZZ_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_000);
    for seed in &seeds {
        check(seed);
    }
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in 0..rounds {
        let input = grown(&mut numbers, &seeds);
        if let Err(panic) = std::panic::catch_unwind(|| check(&input)) {
            let shown = input.escape_ascii();
            eprintln!("{target}, round {round}: keep this in fuzz/corpus/{target}: b\"{shown}\"");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn edits_hold() {
    run("edit", properties::edit);
}

#[test]
fn chunks_hold() {
    run("chunk", properties::chunk);
}
