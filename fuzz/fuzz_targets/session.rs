//! A life that the fuzzer chooses: the same world and promises as `tests/session_life.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use machine::{Kind, Move, World};

#[path = "../../packages/rust-agent-spawner/tests/machine/mod.rs"]
mod machine;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, mut rest)) = bytes.split_first() else {
        return;
    };
    let mut world = World::new(Kind::of(*kind));
    while let [what, how, length, tail @ ..] = rest {
        let (raw, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        world.play(&Move::of(*what, *how, raw));
        if world.is_over() {
            return;
        }
        rest = tail;
    }
    world.play_to_the_end();
});
