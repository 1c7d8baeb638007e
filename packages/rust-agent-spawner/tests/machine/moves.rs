//! What can happen to a session, made from numbers: any bytes are a move.

use std::time::Duration;
use vespera_guardian::{Breach, EndedBy, Report, Stage};

pub(crate) const TASKS: &[&str] = &["t1", "t2"];
pub(crate) const ASKS: &[&str] = &["ask-1", "ask-2"];

#[derive(Clone, Debug)]
pub(crate) enum Move {
    Pass(Duration),
    /// Time in which nobody could act.
    Suspend(Duration),
    Report(Report),
    LeashGone,
    SweptByHost,
    OutputEnded,
    StderrEnded,
    Line(Vec<u8>),
    Oversize,
    /// Its input is full; whether it read some of it.
    Blocked(bool),
    Unblocked,
    Turn(Option<Duration>),
    Interrupt,
    Abandon,
    Answer(String),
    Shutdown(Duration),
    Kill,
    Breach,
}

impl Move {
    /// The move that these numbers mean; small ones are the quiet ones.
    pub(crate) fn of(what: u8, how: u8, raw: &[u8]) -> Self {
        let time = Duration::from_millis(u64::from(how) * 20);
        match what % 64 {
            0..10 => Move::Pass(time),
            10..40 => Move::Line(frame(how, raw)),
            40..44 => Move::Turn((how & 1 != 0).then_some(time + Duration::from_millis(1))),
            44..48 => Move::Answer(pick(ASKS, how).into()),
            48 => Move::Line(raw.to_vec()),
            49 if how > 160 => Move::Blocked(how & 1 != 0),
            49 if how > 80 => Move::Unblocked,
            49 => Move::Oversize,
            50 => Move::Interrupt,
            51 => Move::Abandon,
            52 | 53 => Move::Suspend(time),
            54 => Move::StderrEnded,
            55 => Move::OutputEnded,
            56 | 57 => Move::Shutdown(time),
            58 => Move::Report(exited(i32::from(how), 0)),
            59 => Move::Report(exited(-1, i32::from(how % 64))),
            60 if how > 127 => Move::Report(swept()),
            60 => Move::Report(failed()),
            61 => Move::Report(Report::Survivor {
                pid: 7,
                name: [how; 16],
                channel: [0; 32],
            }),
            62 if how > 127 => Move::Kill,
            62 => Move::Breach,
            _ if how > 191 => Move::LeashGone,
            _ if how > 95 => Move::Report(started()),
            _ if how > 63 => Move::Report(Report::Born { leash: 70 }),
            _ => Move::SweptByHost,
        }
    }
}

fn failed() -> Report {
    Report::Failed {
        errno: 2,
        stage: Stage::Exec,
    }
}

pub(crate) fn started() -> Report {
    Report::Started { pid: 71, leash: 70 }
}

pub(crate) fn exited(code: i32, signal: i32) -> Report {
    Report::Exited {
        code,
        signal,
        user_us: 1,
        system_us: 1,
        max_rss_kib: 1,
    }
}

pub(crate) fn swept() -> Report {
    Report::Swept {
        by: EndedBy::Host,
        killed: 1,
        survivors: 0,
        breach: Breach::default(),
        cpu_us: 1,
    }
}

/// The frame after which a background task does nothing more.
pub(crate) fn task_over(task: &str) -> Vec<u8> {
    format!(r#"{{"type":"system","subtype":"task_notification","task_id":"{task}"}}"#).into()
}

/// A frame that the CLI may say; `raw` fills a text in it.
fn frame(how: u8, raw: &[u8]) -> Vec<u8> {
    let text = serde_json::Value::from(String::from_utf8_lossy(raw).into_owned()).to_string();
    let (task, ask) = (pick(TASKS, how), pick(ASKS, how));
    let uuid = super::PROMPT;
    match how >> 1 & 15 {
        0 => r#"{"type":"control_response","response":{"subtype":"success","request_id":"vespera-initialize","response":{}}}"#.into(),
        1 => format!(r#"{{"subtype":"success","is_error":false,"user_message_uuids":["{uuid}"],"result":{text},"type":"result"}}"#),
        2 => format!(r#"{{"message":{{"content":[{{"type":"text","text":{text}}}]}},"type":"assistant"}}"#),
        3 => format!(r#"{{"type":"system","subtype":"task_started","task_id":"{task}"}}"#),
        4 => return task_over(task),
        5 => format!(
            r#"{{"type":"control_request","request_id":"{ask}","request":{{"subtype":"can_use_tool","tool_name":{text},"input":{{}}}}}}"#
        ),
        6 => format!(r#"{{"type":"control_cancel_request","request_id":"{ask}"}}"#),
        7 => r#"{"type":"result","subtype":"success","total_cost_usd":1.5,"user_message_uuids":["somebody-else"]}"#.into(),
        8 => format!(
            r#"{{"type":"assistant","message":{{"content":[{{"type":"tool_use","id":"u1","name":{text}}}]}}}}"#
        ),
        9 => r#"{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"u1"}]}}"#.into(),
        10 => r#"{"type":"result","subtype":"error_during_execution","terminal_reason":"aborted_streaming"}"#.into(),
        11 => r#"{"type":"system","subtype":"init","session_id":"another"}"#.into(),
        12 => r#"{"type":"conversation_reset","new_conversation_id":"new"}"#.into(),
        13 => format!(r#"{{"type":"control_response","response":{{"subtype":"error","request_id":"vespera-initialize","error":{text}}}}}"#),
        14 => {
            let wish = if raw.is_empty() { r#""hook_callback""# } else { &text };
            format!(r#"{{"type":"control_request","request_id":"{ask}","request":{{"subtype":{wish}}}}}"#)
        }
        _ => format!(r#"{{"type":"system","subtype":"task_updated","task_id":"{task}","patch":{{"status":{text}}}}}"#),
    }
    .into()
}

fn pick<'a>(from: &[&'a str], how: u8) -> &'a str {
    from[usize::from(how) % from.len()]
}
