//! Whatever a line holds: a JSON object with a text as its `type` is a frame of that kind, anything
//! else is none, and nothing that is read from it can bring the reader down.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::collections::BTreeMap;
use vespera_agent_spawner::agent::claude::{self, Envelope};
use vespera_agent_spawner::agent::details;

/// What an event's text is, the long way.
fn text_of(frame: &Value) -> Option<String> {
    let content = &frame["message"]["content"];
    if let Some(whole) = content.as_str() {
        return Some(whole.to_owned());
    }
    let blocks = content.as_array().into_iter().flatten();
    let texts: Vec<&str> = blocks
        .filter(|block| block["type"] == "text")
        .filter_map(|block| block["text"].as_str())
        .collect();
    if !texts.is_empty() {
        return Some(texts.concat());
    }
    let said = frame["result"].as_str();
    said.or_else(|| frame["event"]["delta"]["text"].as_str())
        .map(str::to_owned)
}

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
            let text = details::text(line, &spans);
            assert_eq!(text.as_deref(), text_of(&value).as_deref());
            if spans.has_code_points {
                assert!(line.windows(2).any(|two| two == b"\\u"));
            }
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
