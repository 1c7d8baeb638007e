//! What the Claude CLI says when the service does not answer, or nobody is logged in: whom to blame,
//! and whether waiting is worth anything.
//!
//! Pure functions over frames, as `claude`. Their twins are in `adapters/claude_frames.py`.

use super::claude::Envelope;
use super::shared::Refused;
use crate::json::{self, Span};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

/// A wait for another try longer than this is no pause between tries: the service has said when
/// its limit ends, and that can be days away.
const LONGEST_BACKOFF: f64 = 60.0;

/// So many refusals of the credentials in a row are no race of two logins any more.
const AUTH_PATIENCE: u64 = 3;

/// An `api_retry` frame: the CLI asks the service again, of its own accord.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    pub refused: Refused,
    /// Nothing good can come of waiting on: the turn is to be stopped.
    pub hopeless: bool,
    /// Seconds to a limit's end, when the CLI waits for that.
    pub limit_ends_in: Option<f64>,
}

/// Reads an `api_retry` frame.
pub fn retry(line: &[u8]) -> Option<Retry> {
    #[derive(Deserialize)]
    struct Frame<'a> {
        #[serde(default)]
        attempt: Value,
        #[serde(default)]
        max_retries: Value,
        #[serde(default)]
        retry_delay_ms: Value,
        #[serde(default)]
        error_status: Value,
        #[serde(borrow, default)]
        error: Option<Cow<'a, str>>,
    }
    let frame: Frame<'_> = serde_json::from_slice(line).ok()?;
    let error = frame.error.as_deref().unwrap_or("no reason given");
    let status = frame.error_status.as_u64();
    let outcome = match status {
        Some(401 | 403) => "auth_failed",
        Some(429 | 529) => "rate_limited",
        _ => blamed(error),
    };
    let attempt = frame.attempt.as_u64().unwrap_or(1);
    let delay = frame.retry_delay_ms.as_f64().unwrap_or(0.0) / 1000.0;
    let waits = outcome == "rate_limited" && delay > LONGEST_BACKOFF;
    let status = status.map_or_else(String::new, |status| format!(" (HTTP {status})"));
    let most = frame
        .max_retries
        .as_u64()
        .map_or_else(String::new, |most| format!(" of {most}"));
    let next = if waits {
        format!(", the next in {delay:.0} s")
    } else {
        String::new()
    };
    Some(Retry {
        refused: Refused {
            outcome,
            words: format!("{error}{status}, try {attempt}{most}{next}"),
        },
        hopeless: waits || (outcome == "auth_failed" && attempt >= AUTH_PATIENCE),
        limit_ends_in: waits.then_some(delay),
    })
}

/// Who is to blame, by the CLI's own word for it.
fn blamed(error: &str) -> &'static str {
    match error {
        "authentication_failed" => "auth_failed",
        "rate_limit" | "overloaded" => "rate_limited",
        _ => "failed",
    }
}

/// Why no model answered, when an `assistant` frame says so in the model's place. Without a login
/// nothing is asked and nothing tried again: no status tells.
pub fn unanswered(frame: &Envelope<'_>) -> Option<&'static str> {
    let outcome = blamed(frame.error.as_deref()?);
    (outcome != "failed").then_some(outcome)
}

/// The text of a `result` frame.
pub fn last_words(line: &[u8]) -> String {
    let mut text = Span::default();
    let _ = json::members(line, |key, value| {
        if key == b"result" {
            text = value;
        }
    });
    let text = text.of(line).and_then(json::string);
    text.map_or_else(|| "no reason given".to_owned(), Cow::into_owned)
}

/// True for a `rate_limit_event` after which the service takes no more work.
pub fn limit_reached(frame: &Envelope<'_>) -> bool {
    #[derive(Deserialize)]
    struct Info<'a> {
        #[serde(borrow, default)]
        status: Option<Cow<'a, str>>,
    }
    frame
        .rate_limit_info
        .and_then(|raw| serde_json::from_str::<Info<'_>>(raw.get()).ok())
        .and_then(|info| info.status)
        .is_some_and(|status| status == "rejected")
}

#[cfg(test)]
mod tests {
    use super::super::claude::envelope;
    use super::*;

    #[test]
    fn an_answer_in_the_models_place_says_who_refused() {
        let read = |fields: &str| {
            let line = format!(r#"{{"type":"assistant","message":{{"error":"x"}}{fields}}}"#);
            unanswered(&envelope(line.as_bytes()).expect("a frame"))
        };
        assert_eq!(
            read(r#","error":"authentication_failed""#),
            Some("auth_failed")
        );
        assert_eq!(read(r#","error":"rate_limit""#), Some("rate_limited"));
        for fields in [
            "",
            r#","error":"server_error""#,
            r#","error":null"#,
            r#","error":3"#,
        ] {
            assert_eq!(read(fields), None, "{fields}");
        }
        assert_eq!(
            last_words(br#"{"result":"Not logged in"}"#),
            "Not logged in"
        );
        assert_eq!(last_words(br#"{"result":null}"#), "no reason given");
    }

    #[test]
    fn retries_tell_who_refuses_and_for_how_long() {
        let read = |fields: &str| {
            retry(format!(r#"{{"type":"system","subtype":"api_retry",{fields}}}"#).as_bytes())
                .expect("a frame")
        };
        let first = read(r#""attempt":1,"max_retries":10,"error_status":401,"error":"x""#);
        assert_eq!(first.refused.outcome, "auth_failed");
        assert_eq!(first.refused.words, "x (HTTP 401), try 1 of 10");
        assert!(!first.hopeless && read(r#""attempt":3,"error_status":401"#).hopeless);
        let busy = read(r#""attempt":9,"error_status":429,"retry_delay_ms":40000"#);
        assert_eq!(
            (busy.refused.outcome, busy.hopeless),
            ("rate_limited", false)
        );
        let full = read(r#""attempt":1,"error_status":429,"retry_delay_ms":7200000.5"#);
        assert_eq!((full.hopeless, full.limit_ends_in), (true, Some(7200.0005)));
        let down = read(r#""attempt":9,"error_status":null,"error":"server_error""#);
        assert_eq!((down.refused.outcome, down.hopeless), ("failed", false));
    }

    #[test]
    fn only_a_rejection_reaches_the_limit() {
        for (status, reached) in [("rejected", true), ("allowed_warning", false)] {
            let line = format!(
                r#"{{"type":"rate_limit_event","rate_limit_info":{{"status":"{status}"}}}}"#
            );
            assert_eq!(
                limit_reached(&envelope(line.as_bytes()).expect("json")),
                reached
            );
        }
    }
}
