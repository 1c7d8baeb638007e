//! Responsible for the rule of each kind of value: what is accepted, what it becomes, and the
//! remedy for the rest. The Python twin (`_validation.py`) has the same rules and texts.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use vespera_error::{Error, Result};

use crate::fields::join;
use crate::nearest;
use crate::units::{MAX_SECONDS, MAX_SIZE, parse_duration, parse_size};

pub(crate) const NOT_JSON: &str = "give JSON: finite numbers, text in UTF-8, at most 64 levels";
pub(crate) const OBJECT: &str = "give an object with named fields";
pub(crate) const PATH_OR_OBJECT: &str = "give the path of a JSON file or an object";
const DURATION: &str = r#"give seconds (30) or a duration such as "250ms", "90s", "5m" or "1h30m""#;
const DURATION_RANGE: &str = "give a duration from 0 to 1000000000 seconds";
const DURATION_POSITIVE: &str = "give a duration above 0 and up to 1000000000 seconds";
const SIZE: &str = r#"give bytes (1048576) or a size such as "64KiB", "10MB" or "2GiB""#;
const BOOLEAN: &str = "give true or false";
const TEXT: &str = "give a string";
const TEXT_EMPTY: &str = "give at least one character, or leave the field out";
const TEXT_NUL: &str = "remove the NUL character";
const NAME: &str = "give 1 to 128 characters without control characters";
const LIST: &str = r#"give a list of strings, such as ["one", "another"]"#;
const UUID: &str = r#"give a UUID such as "123e4567-e89b-42d3-a456-426614174000""#;
const ENVIRONMENT: &str = r#"give an object of strings, such as {"LANG": "C.UTF-8"}"#;
const ENVIRONMENT_NAME: &str = r#"name variables with at least one character, without "=" or NUL"#;
const ENVIRONMENT_VALUE: &str = "give a string without NUL characters";
const FLAGS: &str = r#"give an object such as {"debug-file": "/tmp/debug.log", "verbose": null}"#;
const FLAG_NAME: &str = "name the flag without its leading dashes: letters, digits, - and _";
const FLAG_VALUE: &str = "give a string, or null for a flag without a value";
const DEPTH: &str = "give JSON with at most 64 levels";
const FUNCTIONS: &str =
    "give Python functions (one, a list, or lists by name), in code: JSON carries none";

/// What stands for a value that may be a secret.
const HIDDEN: &str = "<not shown>";
/// Deepest accepted JSON, so that no later reader runs out of stack.
const MAX_DEPTH: usize = 64;

fn refuse<T>(path: &str, value: &Value, remedy: &str) -> Result<T> {
    Err(Error::config(path, value.clone(), remedy))
}

/// Seconds, zero included.
pub(crate) fn duration(path: &str, value: &Value) -> Result<f64> {
    seconds(path, value, DURATION_RANGE)
}

/// Seconds above zero: a time-out of nothing would always have passed.
pub(crate) fn positive_duration(path: &str, value: &Value) -> Result<f64> {
    let seconds = seconds(path, value, DURATION_POSITIVE)?;
    if seconds == 0.0 {
        return refuse(path, value, DURATION_POSITIVE);
    }
    Ok(seconds)
}

fn seconds(path: &str, value: &Value, out_of_range: &str) -> Result<f64> {
    let seconds = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => parse_duration(text),
        _ => None,
    };
    match seconds {
        None => refuse(path, value, DURATION),
        // Adding zero turns -0.0 into 0.0.
        Some(seconds) if (0.0..=MAX_SECONDS).contains(&seconds) => Ok(seconds + 0.0),
        Some(_) => refuse(path, value, out_of_range),
    }
}

/// Whole bytes, at least `min`.
pub(crate) fn size(min: u64) -> impl Fn(&str, &Value) -> Result<u64> {
    move |path, value| {
        let out_of_range = || format!("give a size from {min} to {MAX_SIZE} bytes");
        let bytes = match value {
            Value::String(text) => parse_size(text),
            Value::Number(number) if number.as_u64().is_some() => number.as_u64().map(u128::from),
            // Too large for an integer type, or negative: still a number, only out of range.
            Value::Number(number) if !is_within(number, min) => {
                return refuse(path, value, &out_of_range());
            }
            _ => None,
        };
        match bytes {
            None => refuse(path, value, SIZE),
            Some(bytes) => match u64::try_from(bytes) {
                Ok(bytes) if (min..=MAX_SIZE).contains(&bytes) => Ok(bytes),
                _ => refuse(path, value, &out_of_range()),
            },
        }
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "only decides which of two remedies is given"
)]
fn is_within(number: &serde_json::Number, min: u64) -> bool {
    number
        .as_f64()
        .is_some_and(|real| real >= min as f64 && real <= MAX_SIZE as f64)
}

/// A whole number from `min` to `max`; a float is refused even where it is whole.
pub(crate) fn integer<T: TryFrom<i64>>(min: i64, max: i64) -> impl Fn(&str, &Value) -> Result<T> {
    move |path, value| {
        value
            .as_i64()
            .filter(|whole| (min..=max).contains(whole))
            .and_then(|whole| T::try_from(whole).ok())
            .map_or_else(
                || {
                    refuse(
                        path,
                        value,
                        &format!("give a whole number from {min} to {max}"),
                    )
                },
                Ok,
            )
    }
}

/// A number from 0 to `max`.
pub(crate) fn number(max: u32) -> impl Fn(&str, &Value) -> Result<f64> {
    move |path, value| match value.as_f64() {
        Some(real) if (0.0..=f64::from(max)).contains(&real) => Ok(real + 0.0),
        _ => refuse(path, value, &format!("give a number from 0 to {max}")),
    }
}

pub(crate) fn boolean(path: &str, value: &Value) -> Result<bool> {
    value
        .as_bool()
        .map_or_else(|| refuse(path, value, BOOLEAN), Ok)
}

/// Text for the model, which travels as JSON: any character, but at least one.
pub(crate) fn prose(path: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(text) if text.is_empty() => refuse(path, value, TEXT_EMPTY),
        Value::String(text) => Ok(text.clone()),
        _ => refuse(path, value, TEXT),
    }
}

/// Text for the system (a path, an argument): no NUL, at least one character.
pub(crate) fn text(path: &str, value: &Value) -> Result<String> {
    let text = prose(path, value)?;
    if text.contains('\0') {
        return refuse(path, value, TEXT_NUL);
    }
    Ok(text)
}

/// An argument of a program, which may be empty.
pub(crate) fn argument(path: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(empty) if empty.is_empty() => Ok(String::new()),
        _ => text(path, value),
    }
}

/// An agent's id.
pub(crate) fn name(path: &str, value: &Value) -> Result<String> {
    match value {
        Value::String(name)
            if (1..=128).contains(&name.chars().count()) && !name.chars().any(char::is_control) =>
        {
            Ok(name.clone())
        }
        _ => refuse(path, value, NAME),
    }
}

/// A UUID in its usual form, made lower case.
pub(crate) fn uuid(path: &str, value: &Value) -> Result<String> {
    let is_uuid = |text: &&str| {
        let groups: Vec<&str> = text.split('-').collect();
        groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
            && groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    match value.as_str().filter(is_uuid) {
        Some(text) => Ok(text.to_ascii_lowercase()),
        None => refuse(path, value, UUID),
    }
}

/// A name from a list.
pub(crate) trait Choice: Sized {
    const NAMES: &'static [&'static str];
    fn from_name(name: &str) -> Option<Self>;
}

pub(crate) fn choice<T: Choice>(path: &str, value: &Value) -> Result<T> {
    let written = value.as_str().unwrap_or_default();
    T::from_name(written).map_or_else(
        || refuse(path, value, &nearest::remedy("values", written, T::NAMES)),
        Ok,
    )
}

/// A list, each element by `rule`.
pub(crate) fn list<T>(
    rule: impl Fn(&str, &Value) -> Result<T>,
) -> impl Fn(&str, &Value) -> Result<Vec<T>> {
    move |path, value| {
        let Value::Array(items) = value else {
            return refuse(path, value, LIST);
        };
        let numbered = items.iter().enumerate();
        numbered
            .map(|(i, item)| rule(&format!("{path}[{i}]"), item))
            .collect()
    }
}

/// Environment variables. Their values may be secrets, so no error repeats them.
pub(crate) fn environment(path: &str, value: &Value) -> Result<BTreeMap<String, String>> {
    let hidden = Value::from(HIDDEN);
    let Value::Object(entries) = value else {
        return refuse(path, &hidden, ENVIRONMENT);
    };
    if entries
        .keys()
        .any(|name| name.is_empty() || name.contains(['=', '\0']))
    {
        return refuse(path, &hidden, ENVIRONMENT_NAME);
    }
    let checked = entries.iter().map(|(name, value)| match value {
        Value::String(text) if !text.contains('\0') => Ok((name.clone(), text.clone())),
        _ => refuse(&join(path, name), &hidden, ENVIRONMENT_VALUE),
    });
    checked.collect()
}

/// Flags for the CLI that have no field of their own.
pub(crate) fn flags(path: &str, value: &Value) -> Result<BTreeMap<String, Option<String>>> {
    let Value::Object(entries) = value else {
        return refuse(path, value, FLAGS);
    };
    let is_flag = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    if let Some(bad) = entries.keys().find(|name| !is_flag(name)) {
        return refuse(path, &Value::from(bad.as_str()), FLAG_NAME);
    }
    let checked = entries.iter().map(|(name, value)| match value {
        Value::Null => Ok((name.clone(), None)),
        Value::String(text) if !text.contains('\0') => Ok((name.clone(), Some(text.clone()))),
        Value::String(_) => refuse(&join(path, name), value, TEXT_NUL),
        _ => refuse(&join(path, name), value, FLAG_VALUE),
    });
    checked.collect()
}

/// An object of any content.
pub(crate) fn object(path: &str, value: &Value) -> Result<Map<String, Value>> {
    match value {
        Value::Object(_) if is_deeper(value, MAX_DEPTH) => refuse(path, value, DEPTH),
        Value::Object(entries) => Ok(entries.clone()),
        _ => refuse(path, value, OBJECT),
    }
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let deeper = |value: &Value| is_deeper(value, levels - 1);
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(deeper),
        Value::Object(entries) => levels == 0 || entries.values().any(deeper),
        _ => false,
    }
}

/// A field that only Python code can fill; empty containers are harmless.
pub(crate) fn functions(path: &str, value: &Value) -> Result<()> {
    match value {
        Value::Null => Ok(()),
        Value::Array(items) if items.is_empty() => Ok(()),
        Value::Object(entries) if entries.is_empty() => Ok(()),
        _ => refuse(path, value, FUNCTIONS),
    }
}
