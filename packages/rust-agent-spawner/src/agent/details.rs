//! What an event says, read from its line when somebody asks.
//!
//! The line was walked once when it came; [`Spans`] are what is left of that. A value that is not
//! of the kind that a field has is as good as absent.

use crate::json::{self, Span};
use std::borrow::Cow;

/// Where the fields that a consumer reads most stand in a frame's line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    pub kind: Span,
    pub subtype: Span,
    pub session_id: Span,
    pub uuid: Span,
    pub parent_tool_use_id: Span,
    /// The content of its message.
    pub content: Span,
    pub event: Span,
    pub request: Span,
    pub result: Span,
    pub is_error: Span,
    /// Some character of the line is written as its code point.
    pub has_code_points: bool,
}

impl Spans {
    /// A member of the frame; the last one of a name counts.
    pub fn note(&mut self, key: &[u8], value: Span) {
        let place = match key {
            b"type" => &mut self.kind,
            b"subtype" => &mut self.subtype,
            b"session_id" => &mut self.session_id,
            b"uuid" => &mut self.uuid,
            b"parent_tool_use_id" => &mut self.parent_tool_use_id,
            b"event" => &mut self.event,
            b"request" => &mut self.request,
            b"result" => &mut self.result,
            b"is_error" => &mut self.is_error,
            _ => return,
        };
        *place = value;
    }
}

/// The string at a place of the line.
pub fn word(line: &[u8], place: Span) -> Option<Cow<'_, str>> {
    json::string(place.of(line)?)
}

/// The frame's subtype, or that of the request in it.
pub fn subtype<'a>(line: &'a [u8], spans: &Spans) -> Option<Cow<'a, str>> {
    word(line, spans.subtype).or_else(|| inner_word(spans.request.of(line)?, b"subtype"))
}

/// The text blocks of a message, joined; a result's text; the delta of a partial message.
pub fn text<'a>(line: &'a [u8], spans: &Spans) -> Option<Cow<'a, str>> {
    let content = content(line, spans);
    if let Some(whole) = content.and_then(json::string) {
        return Some(whole);
    }
    let mut joined: Option<Cow<'a, str>> = None;
    each_block(content, b"text", |block| {
        let text = block.text.and_then(json::string);
        joined = match (joined.take(), text) {
            (Some(so_far), Some(text)) => Some(so_far + text),
            (so_far, text) => so_far.or(text),
        };
    });
    joined
        .or_else(|| word(line, spans.result))
        .or_else(|| inner_word(inner(spans.event.of(line)?, b"delta")?, b"text"))
}

/// The first tool that a message uses, or that permission is asked for.
pub fn tool_name<'a>(line: &'a [u8], spans: &Spans) -> Option<Cow<'a, str>> {
    let mut name = None;
    let mut found = false;
    each_block(content(line, spans), b"tool_use", |block| {
        if !std::mem::replace(&mut found, true) {
            name = block.name.and_then(json::string);
        }
    });
    if found {
        return name;
    }
    inner_word(spans.request.of(line)?, b"tool_name")
}

/// Whether the frame, or a tool's result in it, tells of an error.
pub fn is_error(line: &[u8], spans: &Spans) -> bool {
    let mut failed = spans.is_error.of(line) == Some(b"true");
    each_block(content(line, spans), b"tool_result", |block| {
        failed |= block.is_error == Some(b"true");
    });
    failed
}

/// The fields of a message's block, as JSON text.
#[derive(Default)]
struct Block<'a> {
    text: Option<&'a [u8]>,
    name: Option<&'a [u8]>,
    is_error: Option<&'a [u8]>,
}

fn content<'a>(line: &'a [u8], spans: &Spans) -> Option<&'a [u8]> {
    spans.content.of(line)
}

fn each_block<'a>(content: Option<&'a [u8]>, kind: &[u8], mut each: impl FnMut(Block<'a>)) {
    let Some(content) = content else { return };
    let mut block = Block::default();
    let mut is_wanted = false;
    // Content of another kind has no blocks.
    let _ = json::objects(content, |member| match member {
        Some((b"type", value)) => {
            let said = value.of(content).and_then(json::string);
            is_wanted = said.is_some_and(|said| said.as_bytes() == kind);
        }
        Some((b"text", value)) => block.text = value.of(content),
        Some((b"name", value)) => block.name = value.of(content),
        Some((b"is_error", value)) => block.is_error = value.of(content),
        Some(_) => {}
        None => {
            let block = std::mem::take(&mut block);
            if std::mem::take(&mut is_wanted) {
                each(block);
            }
        }
    });
}

fn inner<'a>(object: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut place = Span::default();
    json::members(object, |key, value| {
        if key == name {
            place = value;
        }
    })?;
    place.of(object)
}

fn inner_word<'a>(object: &'a [u8], name: &[u8]) -> Option<Cow<'a, str>> {
    json::string(inner(object, name)?)
}

#[cfg(test)]
mod tests {
    use super::super::claude::envelope;
    use super::*;

    fn spans(line: &str) -> Spans {
        envelope(line.as_bytes()).expect("a frame").spans
    }

    fn text_of(line: &str) -> Option<String> {
        text(line.as_bytes(), &spans(line)).map(Cow::into_owned)
    }

    #[test]
    fn a_message_tells_text_and_tool() {
        let line = r#"{"uuid":"u","message":{"role":"assistant","content":[
            {"type":"thinking","thinking":"hm"},{"type":"text","text":"a\u2028b"},
            {"type":"tool_use","name":"Bash","input":{}},{"type":"text","text":"c"}]},
            "parent_tool_use_id":null,"session_id":"s","type":"assistant"}"#;
        let found = spans(line);
        assert_eq!(text_of(line).as_deref(), Some("a\u{2028}bc"));
        let tool = tool_name(line.as_bytes(), &found);
        assert_eq!(tool.as_deref(), Some("Bash"));
        assert_eq!(word(line.as_bytes(), found.uuid).as_deref(), Some("u"));
        assert_eq!(word(line.as_bytes(), found.parent_tool_use_id), None);
        assert!(!is_error(line.as_bytes(), &found));
    }

    #[test]
    fn results_deltas_asks_and_tool_errors_are_read() {
        let done = r#"{"type":"result","result":"done","is_error":true}"#;
        assert_eq!(text_of(done).as_deref(), Some("done"));
        assert!(is_error(done.as_bytes(), &spans(done)));
        let delta = r#"{"type":"stream_event","event":{"delta":{"type":"text_delta","text":"x"}}}"#;
        assert_eq!(text_of(delta).as_deref(), Some("x"));
        let ask =
            r#"{"type":"control_request","request":{"subtype":"can_use_tool","tool_name":"Bash"}}"#;
        let found = spans(ask);
        let tool = tool_name(ask.as_bytes(), &found);
        assert_eq!(tool.as_deref(), Some("Bash"));
        assert_eq!(
            subtype(ask.as_bytes(), &found).as_deref(),
            Some("can_use_tool")
        );
        let failed =
            r#"{"type":"user","message":{"content":[{"type":"tool_result","is_error":true}]}}"#;
        assert!(is_error(failed.as_bytes(), &spans(failed)));
        let plain = r#"{"type":"user","message":{"content":"hello"}}"#;
        assert_eq!(text_of(plain).as_deref(), Some("hello"));
        assert_eq!(text_of(r#"{"type":"user","message":7,"result":[]}"#), None);
    }
}
