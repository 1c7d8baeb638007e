//! The words of the Claude CLI's stream-json protocol: what we write and how we read a frame.
//!
//! Pure functions over bytes. A frame is read as an envelope whose unknown fields, kinds and blocks
//! pass through; nothing is guessed from where a key stands in a line.

use super::adapter::Adapter;
use super::session::Action;
use super::text::Text;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Names our `initialize`.
pub const INITIALIZE: &str = "vespera-initialize";

/// Answer to a permission ask when the caller gave no handler.
pub const NO_HANDLER: &str = "no permission handler; list the tool in allowed_tools";

/// The adapter `claude`.
#[derive(Debug)]
pub struct Claude;

impl Adapter for Claude {
    fn greeting(&self, agents: Option<&Value>) -> Option<Vec<u8>> {
        Some(initialize(INITIALIZE, agents))
    }

    fn prompt(&self, prompt: &str, uuid: &str) -> Vec<u8> {
        user(prompt, uuid)
    }

    fn interrupt(&self, number: u64) -> Action {
        Action::Write(interrupt(&format!("vespera-interrupt-{number}")))
    }

    fn frame<'a>(&self, line: &'a [u8]) -> Option<Envelope<'a>> {
        envelope(line)
    }

    fn runs_to_exit(&self) -> bool {
        false
    }
}

/// The kind of an event: a frame's `type`, or what a line is that is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    System,
    Assistant,
    User,
    Result,
    StreamEvent,
    RateLimit,
    Reset,
    ControlRequest,
    ControlResponse,
    ControlCancel,
    /// A frame of a kind that this version does not know: it says its name itself.
    Other,
    /// A line over the cap; its head is kept.
    Oversize,
    /// A line that is no frame.
    Output,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Kind; 13] = [
        Kind::System,
        Kind::Assistant,
        Kind::User,
        Kind::Result,
        Kind::StreamEvent,
        Kind::RateLimit,
        Kind::Reset,
        Kind::ControlRequest,
        Kind::ControlResponse,
        Kind::ControlCancel,
        Kind::Other,
        Kind::Oversize,
        Kind::Output,
    ];

    fn of(kind: &str) -> Self {
        match kind {
            "system" => Kind::System,
            "assistant" => Kind::Assistant,
            "user" => Kind::User,
            "result" => Kind::Result,
            "stream_event" => Kind::StreamEvent,
            "rate_limit_event" => Kind::RateLimit,
            "conversation_reset" => Kind::Reset,
            "control_request" => Kind::ControlRequest,
            "control_response" => Kind::ControlResponse,
            "control_cancel_request" => Kind::ControlCancel,
            _ => Kind::Other,
        }
    }

    /// The word on the wire; `None` when only the frame knows it.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Kind::System => "system",
            Kind::Assistant => "assistant",
            Kind::User => "user",
            Kind::Result => "result",
            Kind::StreamEvent => "stream_event",
            Kind::RateLimit => "rate_limit_event",
            Kind::Reset => "conversation_reset",
            Kind::ControlRequest => "control_request",
            Kind::ControlResponse => "control_response",
            Kind::ControlCancel => "control_cancel_request",
            Kind::Oversize => "oversize",
            Kind::Output => "output",
            Kind::Other => return None,
        })
    }
}

/// The fields of a frame that decisions depend on.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub subtype: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub session_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub request_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub request: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub new_conversation_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub task_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub patch: Option<&'a RawValue>,
}

impl Envelope<'_> {
    /// The frame's kind.
    pub fn known_kind(&self) -> Kind {
        Kind::of(&self.kind)
    }
}

/// A `control_response`'s inside.
#[derive(Debug, Deserialize)]
pub struct ControlResponse<'a> {
    #[serde(borrow)]
    pub subtype: Cow<'a, str>,
    #[serde(borrow)]
    pub request_id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub error: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
struct Ask<'a> {
    #[serde(borrow)]
    subtype: Cow<'a, str>,
}

/// What of a `result` frame decides the outcome.
#[derive(Debug, Deserialize)]
struct ResultFrame<'a> {
    #[serde(borrow, default)]
    subtype: Option<Cow<'a, str>>,
    #[serde(default)]
    is_error: Value,
    #[serde(borrow, default)]
    terminal_reason: Option<Cow<'a, str>>,
    #[serde(default)]
    api_error_status: Value,
    #[serde(default)]
    num_turns: Value,
    #[serde(default)]
    total_cost_usd: Value,
    #[serde(default)]
    user_message_uuids: Option<Value>,
}

/// A `result` frame in the terms of the contract.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub outcome: &'static str,
    pub num_turns: u64,
    /// The prompts that it answers; empty when the CLI does not say.
    pub prompts: Vec<String>,
    /// Cumulative for the process, as the CLI reports it.
    pub total_cost_usd: Option<f64>,
}

impl Verdict {
    /// True when the CLI goes on with nothing after it, whatever its background tasks were doing.
    pub fn is_final(&self) -> bool {
        matches!(self.outcome, "budget_exceeded" | "limit_exceeded")
    }
}

/// What the service said to a request that the CLI goes on repeating: it sends no `result`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The HTTP status; 0 when there was none.
    pub status: u64,
    pub error: String,
}

/// Reads an `api_retry` frame.
pub fn retry(line: &[u8]) -> Option<Retry> {
    let fields = Fields::of(line)?;
    let status = fields
        .raw("error_status")
        .and_then(|raw| raw.get().parse().ok());
    Some(Retry {
        status: status.unwrap_or(0),
        error: fields.text("error").unwrap_or_default().into_owned(),
    })
}

/// Reads a line; `None` when it is not a JSON object with a text as its `type`.
pub fn envelope(line: &[u8]) -> Option<Envelope<'_>> {
    // A list would do for serde: its first entry would be the kind.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(line)
        .ok()
        .or_else(|| Fields::of(line)?.envelope())
}

/// A frame field by field, for one that the quick way refuses: whatever a later CLI makes of a
/// field, or says twice, costs that field and not the frame.
pub(super) struct Fields<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Fields<'a> {
    /// The fields of a JSON object.
    pub(super) fn of(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok().map(Self)
    }

    /// A field as it is; null counts as absent.
    pub(super) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let raw = self.0.get(name).copied()?;
        (raw.get() != "null").then_some(raw)
    }

    /// A field that is a text.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        let text: Text<'_> = serde_json::from_str(self.raw(name)?.get()).ok()?;
        Some(text.0)
    }

    fn envelope(&self) -> Option<Envelope<'a>> {
        Some(Envelope {
            kind: self.text("type")?,
            subtype: self.text("subtype"),
            session_id: self.text("session_id"),
            request_id: self.text("request_id"),
            request: self.raw("request"),
            response: self.raw("response"),
            new_conversation_id: self.text("new_conversation_id"),
            task_id: self.text("task_id"),
            patch: self.raw("patch"),
        })
    }
}

/// True for a `control_request` that asks whether a tool may be used.
pub fn asks_permission(frame: &Envelope<'_>) -> bool {
    frame
        .request
        .and_then(|raw| serde_json::from_str::<Ask<'_>>(raw.get()).ok())
        .is_some_and(|ask| ask.subtype == "can_use_tool")
}

/// True for a `task_updated` after which the task does nothing more.
pub fn task_is_over(frame: &Envelope<'_>) -> bool {
    #[derive(Deserialize)]
    struct Patch<'a> {
        #[serde(borrow, default)]
        status: Option<Cow<'a, str>>,
    }
    frame
        .patch
        .and_then(|raw| serde_json::from_str::<Patch<'_>>(raw.get()).ok())
        .and_then(|patch| patch.status)
        .is_some_and(|status| matches!(&*status, "completed" | "failed" | "killed" | "stopped"))
}

/// Keeps the tools in flight: an `assistant` frame starts them, a `user` frame ends them.
pub fn follow_tools(line: &[u8], in_flight: &mut BTreeMap<String, String>) {
    let frame: Value = serde_json::from_slice(line).unwrap_or_default();
    let blocks = frame["message"]["content"].as_array();
    for block in blocks.into_iter().flatten() {
        match (
            block["type"].as_str(),
            block["id"].as_str(),
            block["tool_use_id"].as_str(),
        ) {
            (Some("tool_use"), Some(id), _) => {
                let name = block["name"].as_str().unwrap_or_default();
                in_flight.insert(id.to_owned(), name.to_owned());
            }
            (Some("tool_result"), _, Some(id)) => {
                in_flight.remove(id);
            }
            _ => {}
        }
    }
}

/// Names the outcome of a `result` frame.
pub fn verdict(line: &[u8]) -> Verdict {
    let Ok(frame) = serde_json::from_slice::<ResultFrame<'_>>(line) else {
        return Verdict {
            outcome: "failed",
            num_turns: 0,
            prompts: Vec::new(),
            total_cost_usd: None,
        };
    };
    let status = frame.api_error_status.as_u64();
    let reason = frame.terminal_reason.as_deref().unwrap_or_default();
    let outcome = match (frame.subtype.as_deref().unwrap_or_default(), status) {
        // An interrupted turn is a clean stop, not a failure.
        _ if reason.starts_with("aborted") => "cancelled",
        ("error_max_budget_usd", _) => "budget_exceeded",
        ("error_max_turns", _) => "limit_exceeded",
        ("success", _) if frame.is_error != Value::Bool(true) => "completed",
        (_, Some(401 | 403)) => "auth_failed",
        (_, Some(429 | 529)) => "rate_limited",
        _ => "failed",
    };
    Verdict {
        outcome,
        num_turns: frame.num_turns.as_u64().unwrap_or(0),
        prompts: match frame.user_message_uuids {
            Some(Value::Array(uuids)) => uuids
                .iter()
                .filter_map(|uuid| uuid.as_str().map(str::to_owned))
                .collect(),
            _ => Vec::new(),
        },
        total_cost_usd: frame.total_cost_usd.as_f64(),
    }
}

/// The `initialize` request that a session begins with.
pub fn initialize(request_id: &str, agents: Option<&Value>) -> Vec<u8> {
    control_request(
        request_id,
        &json!({"subtype": "initialize", "hooks": null, "agents": agents}),
    )
}

/// The request that stops a turn.
pub fn interrupt(request_id: &str) -> Vec<u8> {
    control_request(request_id, &json!({"subtype": "interrupt"}))
}

/// A user's prompt as a frame. Its `uuid` comes back in the result's `user_message_uuids`.
pub fn user(prompt: &str, uuid: &str) -> Vec<u8> {
    line(&json!({
        "type": "user",
        "session_id": "",
        "uuid": uuid,
        "message": {"role": "user", "content": prompt},
        "parent_tool_use_id": null,
    }))
}

/// The answer to something the CLI asks while nobody in the host handles it: permissions are
/// denied, anything else is an error. `request_id` belongs inside `response`; outside, the CLI
/// waits two minutes.
pub fn refuse(request_id: &str, request: Option<&RawValue>) -> Vec<u8> {
    let ask = request.and_then(|raw| serde_json::from_str::<Ask<'_>>(raw.get()).ok());
    let response = match ask.as_ref().map(|ask| ask.subtype.as_ref()) {
        Some("can_use_tool") => json!({
            "subtype": "success",
            "request_id": request_id,
            "response": {"behavior": "deny", "message": NO_HANDLER},
        }),
        other => json!({
            "subtype": "error",
            "request_id": request_id,
            "error": format!("no handler for {}", other.unwrap_or("this request")),
        }),
    };
    line(&json!({"type": "control_response", "response": response}))
}

fn control_request(request_id: &str, request: &Value) -> Vec<u8> {
    line(&json!({"type": "control_request", "request_id": request_id, "request": request}))
}

fn line(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_found_wherever_it_stands() {
        let frame =
            br#"{"duration_api_ms":3,"nested":{"type":"no"},"subtype":"success","type":"result"}"#;
        let read = envelope(frame).expect("a frame");
        assert_eq!(
            (&*read.kind, read.subtype.as_deref()),
            ("result", Some("success"))
        );
        assert!(envelope(b"not json").is_none());
        assert!(envelope(b"{\"no\":\"type\"}").is_none());
    }

    #[test]
    fn outcomes_are_told_apart() {
        for (frame, outcome) in [
            (r#"{"subtype":"success","is_error":false}"#, "completed"),
            (r#"{"subtype":"success","is_error":true}"#, "failed"),
            (
                r#"{"subtype":"success","is_error":true,"api_error_status":401}"#,
                "auth_failed",
            ),
            (
                r#"{"subtype":"success","is_error":true,"api_error_status":429}"#,
                "rate_limited",
            ),
            (
                r#"{"subtype":"error_during_execution","is_error":true,"terminal_reason":"aborted_streaming"}"#,
                "cancelled",
            ),
            (
                r#"{"subtype":"error_max_turns","is_error":true}"#,
                "limit_exceeded",
            ),
            (
                r#"{"subtype":"error_max_budget_usd","is_error":true}"#,
                "budget_exceeded",
            ),
            ("[]", "failed"),
        ] {
            assert_eq!(verdict(frame.as_bytes()).outcome, outcome, "{frame}");
        }
    }

    #[test]
    fn a_refusal_carries_the_id_inside() {
        let request =
            RawValue::from_string(r#"{"subtype":"can_use_tool","input":{}}"#.into()).expect("json");
        let value: Value = serde_json::from_slice(&refuse("r1", Some(&request))).expect("json");
        assert_eq!(value["response"]["request_id"], "r1");
        assert_eq!(value["response"]["response"]["behavior"], "deny");
        let value: Value = serde_json::from_slice(&refuse("r2", None)).expect("json");
        assert_eq!(value["response"]["subtype"], "error");
    }
}
