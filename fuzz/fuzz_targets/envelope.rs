//! Whatever a line holds: a JSON object with a text as its `type` is a frame of that kind, anything
//! else is none, and nothing that is read from it can bring the reader down.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::collections::BTreeMap;
use vespera_agent_spawner::agent::claude::{self, Envelope};
use vespera_agent_spawner::agent::details;

fuzz_target!(|line: &[u8]| {
    let frame = claude::envelope(line);
    if let Ok(value) = serde_json::from_slice::<Value>(line) {
        let kind = value
            .as_object()
            .and_then(|object| object.get("type")?.as_str());
        assert_eq!(frame.as_ref().map(|frame| &*frame.kind), kind);
        if let Some(Envelope { spans, .. }) = frame {
            for (name, place) in [
                ("type", spans.kind),
                ("uuid", spans.uuid),
                ("session_id", spans.session_id),
                ("parent_tool_use_id", spans.parent_tool_use_id),
            ] {
                assert_eq!(details::word(line, place).as_deref(), value[name].as_str());
            }
            if let Some(subtype) = value["subtype"].as_str() {
                assert_eq!(details::subtype(line, &spans).as_deref(), Some(subtype));
            }
            details::text(line, &spans);
            details::tool_name(line, &spans);
            details::is_error(line, &spans);
        }
    }
    let Some(frame) = frame else { return };
    claude::asked(&frame);
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
