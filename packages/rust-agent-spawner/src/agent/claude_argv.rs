//! The argv of the Claude CLI, from a configuration as JSON. The table is the whole translation.
//!
//! A value from outside is written `--flag=value`, so that none becomes a flag of its own. The
//! Python half has the same table; both pass `tests/vectors/claude_argv.json`.

use serde_json::{Map, Value};
use vespera_error::{Error, Result};

const BASE: [&str; 7] = [
    "--output-format",
    "stream-json",
    "--verbose",
    "--input-format",
    "stream-json",
    "--permission-prompt-tool",
    "stdio",
];

#[derive(Clone, Copy)]
enum Style {
    Text,
    Comma,
    Json,
    Repeat,
    Switch,
}

const OPTIONS: [(&str, &str, Style); 14] = [
    ("model", "--model", Style::Text),
    ("fallback_model", "--fallback-model", Style::Text),
    ("effort", "--effort", Style::Text),
    ("system_prompt", "--system-prompt", Style::Text),
    (
        "append_system_prompt",
        "--append-system-prompt",
        Style::Text,
    ),
    ("allowed_tools", "--allowedTools", Style::Comma),
    ("disallowed_tools", "--disallowedTools", Style::Comma),
    ("permission_mode", "--permission-mode", Style::Text),
    ("max_turns", "--max-turns", Style::Text),
    ("mcp_config", "--mcp-config", Style::Json),
    ("settings", "--settings", Style::Json),
    ("add_dirs", "--add-dir", Style::Repeat),
    ("output_schema", "--json-schema", Style::Json),
    (
        "include_partial_messages",
        "--include-partial-messages",
        Style::Switch,
    ),
];

/// Flags that are ours to set: saying them twice would let the last one win.
const RESERVED: [&str; 6] = [
    "output-format",
    "input-format",
    "session-id",
    "permission-prompt-tool",
    "print",
    "resume",
];

/// The argv, program first.
///
/// # Errors
/// `config` for an `extra_args` entry that names a flag of ours.
pub fn argv(config: &Map<String, Value>, program: &str, session_id: &str) -> Result<Vec<String>> {
    let given = |name: &str| config.get(name).filter(|value| !value.is_null());
    let mut argv = vec![program.to_owned()];
    if let Some(Value::Array(words)) = given("args") {
        argv.extend(words.iter().map(text));
    }
    argv.extend(BASE.map(str::to_owned));
    let fork = given("fork_session")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    let resume = given("resume");
    argv.extend(resume.map(|id| format!("--resume={}", text(id))));
    argv.extend(fork.then(|| "--fork-session".to_owned()));
    let extra = |flag: &str| {
        let switches = given("extra_args").and_then(Value::as_object);
        switches.is_some_and(|switches| {
            switches.iter().any(|(name, value)| {
                name.trim_start_matches('-') == flag && *value != Value::Bool(false)
            })
        })
    };
    // The CLI refuses --session-id beside a session that goes on, unless that is forked.
    let goes_on = resume.is_some() || extra("continue");
    if !goes_on || fork || extra("fork-session") {
        argv.push(format!("--session-id={session_id}"));
    }
    for (field, flag, style) in OPTIONS {
        if let Some(value) = given(field) {
            write(&mut argv, flag, style, value);
        }
    }
    if let Some(usd) = given("budget")
        .and_then(|budget| budget.get("usd"))
        .filter(|usd| !usd.is_null())
    {
        argv.push(format!("--max-budget-usd={usd}"));
    }
    if let Some(Value::Object(extra)) = given("extra_args") {
        write_extra(&mut argv, extra)?;
    }
    Ok(argv)
}

/// Whether these words let a session go on that was in another process before.
pub fn goes_on(argv: &[Vec<u8>]) -> bool {
    argv.iter()
        .any(|word| word.starts_with(b"--resume=") || word == b"--continue")
}

fn write(argv: &mut Vec<String>, flag: &str, style: Style, value: &Value) {
    match (style, value) {
        (Style::Switch, value) => {
            argv.extend((value == &Value::Bool(true)).then(|| flag.to_owned()));
        }
        (Style::Comma, Value::Array(items)) if items.is_empty() => {}
        (Style::Comma, Value::Array(items)) => {
            let joined: Vec<String> = items.iter().map(text).collect();
            argv.push(format!("{flag}={}", joined.join(",")));
        }
        (Style::Repeat, Value::Array(items)) => {
            argv.extend(items.iter().map(|item| format!("{flag}={}", text(item))));
        }
        (_, value) => argv.push(format!("{flag}={}", text(value))),
    }
}

fn write_extra(argv: &mut Vec<String>, extra: &Map<String, Value>) -> Result<()> {
    for (name, value) in extra {
        let bare = name.trim_start_matches('-');
        if RESERVED.contains(&bare) {
            let remedy = "remove it; session_id, resume and fork_session are fields of their own";
            return Err(Error::config_with(
                format!("extra_args: '--{bare}' is set by the spawner and cannot be given again"),
                &format!("extra_args.{name}"),
                value.clone(),
                remedy,
            ));
        }
        match value {
            Value::Null | Value::Bool(true) => argv.push(format!("--{bare}")),
            Value::Bool(false) => {}
            value => argv.push(format!("--{bare}={}", text(value))),
        }
    }
    Ok(())
}

/// Strings as they are, everything else as compact JSON with sorted keys.
fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
