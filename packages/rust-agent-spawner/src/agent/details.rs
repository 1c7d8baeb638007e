//! What an event says, read from its line when somebody asks.

use super::claude::Fields;
use super::text::Text;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The fields that a consumer reads most, without building the whole frame.
#[derive(Debug, Default, PartialEq)]
pub struct Details {
    pub kind: String,
    pub subtype: Option<String>,
    pub session_id: Option<String>,
    pub uuid: Option<String>,
    pub parent_tool_use_id: Option<String>,
    /// The text blocks of a message, joined; the delta of a partial one; a result's text.
    pub text: Option<String>,
    /// The first tool that a message uses or that permission is asked for.
    pub tool_name: Option<String>,
    pub is_error: bool,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    subtype: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    session_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    uuid: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    parent_tool_use_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    event: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    is_error: Option<&'a RawValue>,
}

impl<'a> Frame<'a> {
    /// Field by field, when one of them is not what it was.
    fn of(fields: &Fields<'a>) -> Option<Self> {
        Some(Self {
            kind: fields.text("type")?,
            subtype: fields.text("subtype"),
            session_id: fields.text("session_id"),
            uuid: fields.text("uuid"),
            parent_tool_use_id: fields.text("parent_tool_use_id"),
            message: fields.raw("message"),
            event: fields.raw("event"),
            request: fields.raw("request"),
            result: fields.raw("result"),
            is_error: fields.raw("is_error"),
        })
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(default)]
    is_error: Option<bool>,
}

impl<'a> Block<'a> {
    fn of(raw: &'a RawValue) -> Option<Self> {
        let is_object = raw.get().starts_with('{');
        is_object.then(|| serde_json::from_str(raw.get()).ok())?
    }
}

#[derive(Deserialize)]
struct Partial<'a> {
    #[serde(borrow, default)]
    delta: Option<Block<'a>>,
}

#[derive(Deserialize)]
struct Ask<'a> {
    #[serde(borrow, default)]
    subtype: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tool_name: Option<Cow<'a, str>>,
}

/// Reads a line; `None` when it is no frame.
pub fn read(line: &[u8]) -> Option<Details> {
    let frame = serde_json::from_slice(line)
        .ok()
        .or_else(|| Frame::of(&Fields::of(line)?))?;
    let own = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
    let mut details = Details {
        kind: frame.kind.into_owned(),
        subtype: own(frame.subtype),
        session_id: own(frame.session_id),
        uuid: own(frame.uuid),
        parent_tool_use_id: own(frame.parent_tool_use_id),
        is_error: frame.is_error.is_some_and(|raw| raw.get() == "true"),
        ..Details::default()
    };
    if let Some(raw) = frame.result {
        details.text = text_of(raw);
    }
    if let Some(raw) = frame.event
        && let Ok(partial) = serde_json::from_str::<Partial<'_>>(raw.get())
    {
        details.text = partial
            .delta
            .and_then(|delta| delta.text)
            .map(|text| text.0.into_owned());
    }
    if let Some(raw) = frame.request
        && let Ok(ask) = serde_json::from_str::<Ask<'_>>(raw.get())
    {
        details.tool_name = own(ask.tool_name);
        details.subtype = details.subtype.or_else(|| own(ask.subtype));
    }
    if let Some(raw) = frame.message
        && let Ok(message) = serde_json::from_str::<Message<'_>>(raw.get())
        && let Some(content) = message.content
    {
        read_content(content, &mut details);
    }
    Some(details)
}

fn text_of(raw: &RawValue) -> Option<String> {
    let text: Text<'_> = serde_json::from_str(raw.get()).ok()?;
    Some(text.0.into_owned())
}

fn read_content(content: &RawValue, details: &mut Details) {
    if let Some(text) = text_of(content) {
        details.text = Some(text);
        return;
    }
    let blocks: Vec<&RawValue> = serde_json::from_str(content.get()).unwrap_or_default();
    // A block of a shape that is not known costs itself, not its neighbours.
    for block in blocks.iter().filter_map(|raw| Block::of(raw)) {
        match &*block.kind {
            "text" => {
                if let Some(text) = block.text {
                    details.text.get_or_insert_default().push_str(&text.0);
                }
            }
            "tool_use" if details.tool_name.is_none() => {
                details.tool_name = block.name.map(Cow::into_owned);
            }
            "tool_result" => details.is_error |= block.is_error.unwrap_or(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_text_and_tool() {
        let line = br#"{"uuid":"u","message":{"role":"assistant","content":[
            {"type":"thinking","thinking":"hm"},{"type":"text","text":"a\u2028b"},
            {"type":"tool_use","name":"Bash","input":{}},{"type":"text","text":"c"}]},
            "parent_tool_use_id":null,"session_id":"s","type":"assistant"}"#;
        let details = read(line).expect("a frame");
        assert_eq!(details.text.as_deref(), Some("a\u{2028}bc"));
        assert_eq!(details.tool_name.as_deref(), Some("Bash"));
        assert_eq!(
            (details.kind.as_str(), details.uuid.as_deref()),
            ("assistant", Some("u"))
        );
        assert!(!details.is_error);
    }

    #[test]
    fn results_deltas_asks_and_tool_errors_are_read() {
        let text = |line: &str| read(line.as_bytes()).expect("a frame");
        assert_eq!(
            text(r#"{"type":"result","result":"done","is_error":true}"#)
                .text
                .as_deref(),
            Some("done")
        );
        assert!(text(r#"{"type":"result","is_error":true}"#).is_error);
        let delta =
            text(r#"{"type":"stream_event","event":{"delta":{"type":"text_delta","text":"x"}}}"#);
        assert_eq!(delta.text.as_deref(), Some("x"));
        let ask = text(
            r#"{"type":"control_request","request":{"subtype":"can_use_tool","tool_name":"Bash"}}"#,
        );
        assert_eq!(ask.tool_name.as_deref(), Some("Bash"));
        let failed = text(
            r#"{"type":"user","message":{"content":[{"type":"tool_result","is_error":true}]}}"#,
        );
        assert!(failed.is_error);
        let plain = text(r#"{"type":"user","message":{"content":"hello"}}"#);
        assert_eq!(plain.text.as_deref(), Some("hello"));
        assert!(read(b"no").is_none());
    }
}
