//! Whatever happens to a session in whatever order, it ends once, in bounded time, and never goes
//! back from its end.

#[allow(dead_code, reason = "the fuzz target uses the rest")]
mod machine;

use machine::{Kind, Move, World};
use proptest::prelude::*;
use vespera_agent_spawner::agent::State;

fn a_move() -> impl Strategy<Value = Move> {
    (
        any::<u8>(),
        any::<u8>(),
        proptest::collection::vec(any::<u8>(), 0..12),
    )
        .prop_map(|(what, how, raw)| Move::of(what, how, &raw))
}

#[test]
fn whoever_answers_before_its_pid_is_known_is_ready_once_it_is() {
    for (kind, ready) in [(0, State::Ready), (1, State::InTurn)] {
        let mut world = World::new(Kind::of(kind));
        world.play(&Move::of(10, 0, b""));
        assert_eq!(world.state(), State::Starting);
        world.play(&Move::of(63, 96, b""));
        assert_eq!(world.state(), ready);
        world.play_to_the_end();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_session_ends_once_and_in_time_whatever_happens(
        kind in any::<u8>(),
        greeted in any::<bool>(),
        moves in proptest::collection::vec(a_move(), 0..60),
    ) {
        let mut world = World::new(Kind::of(kind));
        if greeted {
            world.play(&Move::of(63, 96, b""));
            world.play(&Move::of(10, 0, b""));
        }
        for step in &moves {
            world.play(step);
        }
        world.play_to_the_end();
    }
}
