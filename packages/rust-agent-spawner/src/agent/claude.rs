//! The words of the Claude CLI's stream-json protocol: what we write and how we read a frame.
//!
//! Pure functions over bytes. A frame is read as an envelope whose unknown fields, kinds and blocks
//! pass through; nothing is guessed from where a key stands in a line.

use super::adapter::{Adapter, Told};
use super::details::Spans;
use super::session::Action;
use crate::json::{self, Span};
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;

/// Names our `initialize`.
pub const INITIALIZE: &str = "vespera-initialize";

/// Names our question for what a session has cost before.
pub const COST_BEFORE: &str = "vespera-cost-before";

/// Answer to a permission ask when the caller gave no handler.
pub const NO_HANDLER: &str = "no permission handler; list the tool in allowed_tools";

/// The adapter `claude`.
#[derive(Debug)]
pub struct Claude;

impl Adapter for Claude {
    fn greeting(&self, told: &Told) -> Option<Vec<u8>> {
        Some(initialize(INITIALIZE, told))
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

/// The text of a value inside a frame, not looked into.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// The JSON text.
    pub const fn get(self) -> &'a str {
        self.0
    }
}

/// The fields of a frame that decisions depend on.
#[derive(Debug)]
pub struct Envelope<'a> {
    pub kind: Cow<'a, str>,
    pub subtype: Option<Cow<'a, str>>,
    pub session_id: Option<Cow<'a, str>>,
    pub request_id: Option<Cow<'a, str>>,
    pub request: Option<Raw<'a>>,
    pub response: Option<Raw<'a>>,
    pub new_conversation_id: Option<Cow<'a, str>>,
    pub task_id: Option<Cow<'a, str>>,
    pub patch: Option<Raw<'a>>,
    pub rate_limit_info: Option<Raw<'a>>,
    pub error: Option<Cow<'a, str>>,
    /// Where the fields that a consumer asks for stand.
    pub spans: Spans,
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

/// A `result` frame in the terms of the contract.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub outcome: &'static str,
    pub num_turns: u64,
    /// The prompts that it answers; empty when the CLI does not say.
    pub prompts: Vec<String>,
    /// Cumulative for the session, its earlier processes included, as the CLI reports it.
    pub total_cost_usd: Option<f64>,
    /// The turn's tokens in (cached input that is only read left out) and out.
    pub tokens: [u64; 2],
}

impl Verdict {
    /// True when the CLI goes on with nothing after it, whatever its background tasks were doing.
    pub fn is_final(&self) -> bool {
        matches!(self.outcome, "budget_exceeded" | "limit_exceeded")
    }
}

/// Reads a line; `None` when it is not a JSON object with a `type`.
pub fn envelope(line: &[u8]) -> Option<Envelope<'_>> {
    let text = simdutf8::basic::from_utf8(line).ok()?;
    let mut spans = Spans::default();
    let [
        mut request_id,
        mut response,
        mut new_conversation_id,
        mut task_id,
        mut patch,
        mut rate_limit_info,
        mut error,
    ] = [Span::default(); 7];
    let content = Cell::new(Span::default());
    let each = |key: &[u8], value| match key {
        b"request_id" => request_id = value,
        b"response" => response = value,
        b"new_conversation_id" => new_conversation_id = value,
        b"task_id" => task_id = value,
        b"patch" => patch = value,
        b"rate_limit_info" => rate_limit_info = value,
        b"error" => error = value,
        b"message" => spans.content = content.take(),
        _ => spans.note(key, value),
    };
    let inside = |key: &[u8], value| {
        if key == b"content" {
            content.set(value);
        }
    };
    let has_code_points = json::members_within(line, b"message", each, inside)?;
    spans.has_code_points = has_code_points;
    let word = |span: Span| json::string(span.of(line)?);
    let raw = |span: Span| span.within(text).filter(|text| *text != "null").map(Raw);
    Some(Envelope {
        kind: word(spans.kind)?,
        subtype: word(spans.subtype),
        session_id: word(spans.session_id),
        request_id: word(request_id),
        request: raw(spans.request),
        response: raw(response),
        new_conversation_id: word(new_conversation_id),
        task_id: word(task_id),
        patch: raw(patch),
        rate_limit_info: raw(rate_limit_info),
        error: word(error),
        spans,
    })
}

/// What a `control_request` wants of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Whether a tool may be used.
    Permission,
    /// That a function of the host is called: a hook, or a tool that it offers.
    Call,
    /// What this version does not know.
    Other,
}

/// What a `control_request` wants of the host.
pub fn wish(frame: &Envelope<'_>) -> Wish {
    let ask = frame
        .request
        .and_then(|raw| serde_json::from_str::<Ask<'_>>(raw.get()).ok());
    match ask.as_ref().map(|ask| &*ask.subtype) {
        Some("can_use_tool") => Wish::Permission,
        Some("hook_callback" | "mcp_message") => Wish::Call,
        _ => Wish::Other,
    }
}

/// What a `control_request` wants, for the log: the tool, else the kind of request.
pub fn asked(frame: &Envelope<'_>) -> String {
    #[derive(Deserialize)]
    struct Wanted<'a> {
        #[serde(borrow, default)]
        subtype: Cow<'a, str>,
        #[serde(borrow, default)]
        tool_name: Option<Cow<'a, str>>,
    }
    frame
        .request
        .and_then(|raw| serde_json::from_str::<Wanted<'_>>(raw.get()).ok())
        .map_or_else(String::new, |wanted| {
            wanted.tool_name.unwrap_or(wanted.subtype).into_owned()
        })
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

/// Names the outcome of a `result` frame. A field of a shape that it has never had costs that field
/// and not the turn.
pub fn verdict(line: &[u8]) -> Verdict {
    let [
        mut subtype,
        mut is_error,
        mut reason,
        mut status,
        mut turns,
        mut cost,
        mut uuids,
        mut usage,
    ] = [Span::default(); 8];
    let walked = json::members(line, |key, value| match key {
        b"subtype" => subtype = value,
        b"is_error" => is_error = value,
        b"terminal_reason" => reason = value,
        b"api_error_status" => status = value,
        b"num_turns" => turns = value,
        b"total_cost_usd" => cost = value,
        b"user_message_uuids" => uuids = value,
        b"usage" => usage = value,
        _ => {}
    });
    let word = |span: Span| span.of(line).and_then(json::string).unwrap_or_default();
    let number = |span: Span| serde_json::from_slice::<Value>(span.of(line)?).ok();
    let failed = walked.is_none() || is_error.of(line) == Some(b"true");
    let outcome = match (
        &*word(subtype),
        number(status).and_then(|value| value.as_u64()),
    ) {
        // An interrupted turn is a clean stop, not a failure.
        _ if word(reason).starts_with("aborted") => "cancelled",
        ("error_max_budget_usd", _) => "budget_exceeded",
        ("error_max_turns", _) => "limit_exceeded",
        ("success", _) if !failed => "completed",
        (_, Some(401 | 403)) => "auth_failed",
        (_, Some(429 | 529)) => "rate_limited",
        _ => "failed",
    };
    let mut prompts = Vec::new();
    if let Some(list) = uuids.of(line) {
        // Anything but a list names no prompt.
        let _ = json::elements(list, |uuid| {
            prompts.extend(json::string(uuid).map(Cow::into_owned));
        });
    }
    Verdict {
        outcome,
        num_turns: number(turns).and_then(|value| value.as_u64()).unwrap_or(0),
        prompts,
        total_cost_usd: number(cost).and_then(|value| value.as_f64()),
        tokens: usage.of(line).map(tokens).unwrap_or_default(),
    }
}

/// Tokens in and out of a `usage`; the Python twin is `spending.tokens_in_and_out`.
fn tokens(usage: &[u8]) -> [u64; 2] {
    let [mut taken, mut given] = [0; 2];
    // Anything but an object tells nothing.
    let _ = json::members(usage, |key, value| {
        let count = || {
            let text = value.of(usage)?;
            serde_json::from_slice::<u64>(text).ok()
        };
        match key {
            b"input_tokens" | b"cache_creation_input_tokens" => {
                taken = u64::saturating_add(taken, count().unwrap_or(0));
            }
            b"output_tokens" => given = count().unwrap_or(0),
            _ => {}
        }
    });
    [taken, given]
}

/// The `initialize` request that a session begins with.
pub fn initialize(request_id: &str, told: &Told) -> Vec<u8> {
    control_request(
        request_id,
        &json!({"subtype": "initialize", "hooks": told.hooks, "agents": told.agents}),
    )
}

/// Asks a session that goes on, before its first prompt, what it has cost so far. The CLI takes
/// what follows after its answer; a look at other sessions' transcripts is not asked for.
pub fn ask_cost_before() -> Vec<u8> {
    control_request(
        COST_BEFORE,
        &json!({"subtype": "get_usage", "skip_behaviors": true}),
    )
}

/// The answer to that, in dollars; `None` of a CLI that does not say.
pub fn cost_before(line: &[u8]) -> Option<f64> {
    let frame: Value = serde_json::from_slice(line).ok()?;
    frame
        .pointer("/response/response/session/total_cost_usd")?
        .as_f64()
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
pub fn refuse(request_id: &str, request: Option<Raw<'_>>) -> Vec<u8> {
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
            (
                r#"{"subtype":"success","is_error":true,"api_error_status":529}"#,
                "rate_limited",
            ),
            ("[]", "failed"),
        ] {
            assert_eq!(verdict(frame.as_bytes()).outcome, outcome, "{frame}");
        }
    }

    #[test]
    fn tokens_are_counted_in_and_out() {
        for (usage, counted) in [
            (
                r#"{"input_tokens":3,"cache_creation_input_tokens":20,"cache_read_input_tokens":9,"output_tokens":5}"#,
                [23, 5],
            ),
            (r#"{"input_tokens":-3,"output_tokens":"5"}"#, [0, 0]),
            (
                r#"{"input_tokens":18446744073709551615,"cache_creation_input_tokens":1}"#,
                [u64::MAX, 0],
            ),
            ("[1]", [0, 0]),
            ("null", [0, 0]),
        ] {
            let line = format!(r#"{{"subtype":"success","usage":{usage}}}"#);
            assert_eq!(verdict(line.as_bytes()).tokens, counted, "{usage}");
        }
    }

    #[test]
    fn a_session_that_goes_on_says_what_it_has_cost() {
        let line = br#"{"type":"control_response","response":{"subtype":"success","request_id":"r","response":{"session":{"total_cost_usd":0.5}}}}"#;
        assert_eq!(cost_before(line), Some(0.5));
        for other in [
            &br#"{"response":{"subtype":"error","error":"unknown"}}"#[..],
            br#"{"response":{"response":{"session":{"total_cost_usd":"much"}}}}"#,
            b"[]",
            b"",
        ] {
            assert_eq!(cost_before(other), None);
        }
    }

    #[test]
    fn a_refusal_carries_the_id_inside() {
        let request = Raw(r#"{"subtype":"can_use_tool","input":{}}"#);
        let value: Value = serde_json::from_slice(&refuse("r1", Some(request))).expect("json");
        assert_eq!(value["response"]["request_id"], "r1");
        assert_eq!(value["response"]["response"]["behavior"], "deny");
        let value: Value = serde_json::from_slice(&refuse("r2", None)).expect("json");
        assert_eq!(value["response"]["subtype"], "error");
    }
}
