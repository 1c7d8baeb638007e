//! Whatever a line holds: a JSON object with a text as its `type` is a frame of that kind, anything
//! else is none, and nothing that is read from it can bring the reader down.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::collections::BTreeMap;
use vespera_agent_spawner::agent::{claude, details};

fuzz_target!(|line: &[u8]| {
    let frame = claude::envelope(line);
    if let Ok(value) = serde_json::from_slice::<Value>(line) {
        let kind = value
            .as_object()
            .and_then(|object| object.get("type")?.as_str());
        assert_eq!(frame.as_ref().map(|frame| &*frame.kind), kind);
        if let Some(kind) = kind {
            let told = details::read(line).expect("a frame has details");
            assert_eq!(told.kind, kind);
            let text = |name: &str| value[name].as_str().map(str::to_owned);
            assert_eq!(told.uuid, text("uuid"));
            assert_eq!(told.session_id, text("session_id"));
            assert_eq!(told.parent_tool_use_id, text("parent_tool_use_id"));
            if value["subtype"].is_string() {
                assert_eq!(told.subtype, text("subtype"));
            }
        }
    }
    let Some(frame) = frame else { return };
    claude::asks_permission(&frame);
    claude::task_is_over(&frame);
    claude::verdict(line);
    let mut tools = BTreeMap::new();
    claude::follow_tools(line, &mut tools);
    let id = frame.request_id.as_deref().unwrap_or_default();
    let refusal = claude::refuse(id, frame.request);
    assert_eq!(refusal.last(), Some(&b'\n'));
    let refusal: Value = serde_json::from_slice(&refusal).expect("an answer is JSON");
    assert_eq!(refusal["response"]["request_id"], id);
});
