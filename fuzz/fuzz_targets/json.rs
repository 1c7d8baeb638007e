//! Whatever text comes: a frame is walked exactly when serde_json would parse it as an object, and
//! its members are the same. Beyond that only what Python's `json` takes as well: NaN and Infinity.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use vespera_agent_spawner::json;

/// Well below the depth at which the walk refuses; serde_json's raw values know none.
const DEEP: usize = 500;

fuzz_target!(|line: &[u8]| {
    let mut seen = BTreeMap::new();
    let walked = json::members(line, |key, place| {
        let value = place.of(line).expect("a value has text");
        seen.insert(key.to_vec(), value.to_vec());
    });
    let Ok(text) = std::str::from_utf8(line) else {
        return;
    };
    let space = [' ', '\t', '\n', '\r'];
    let parses = text.trim_start_matches(space).starts_with('{')
        && serde_json::from_str::<&RawValue>(text).is_ok();
    if walked.is_none() {
        let opened = line
            .iter()
            .filter(|byte| matches!(byte, b'{' | b'['))
            .count();
        assert!(!parses || opened > DEEP, "refused, but it is an object");
        return;
    }
    assert!(parses || text.contains("NaN") || text.contains("Infinity"));
    // A key with half a surrogate pair is no Rust string: the map has none then.
    if let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) {
        let members: BTreeMap<_, _> = members
            .into_iter()
            .map(|(key, value)| (key.into_bytes(), value.get().as_bytes().to_vec()))
            .collect();
        assert_eq!(seen, members);
    }
});
