//! Every vector shared with the Python twin holds in Rust.

use std::path::Path;

use serde_json::{Map, Value, json};
use vespera_config::{parse_json, validate_agent, validate_supervisor, validate_workspace};
use vespera_error::{Error, ErrorCode};

fn vectors() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../packages/rust-agent-spawner/tests/vectors/config.json");
    let text = std::fs::read_to_string(path).expect("the vectors are committed");
    parse_json(&text).expect("the vectors are JSON")
}

/// What JSON can say only at length is written as an object with a `$` name.
fn expand(value: &Value) -> Value {
    let repeated = |parts: &Value| {
        let count = usize::try_from(parts[1].as_u64().expect("a count")).expect("fits");
        parts[0].as_str().expect("text").repeat(count)
    };
    match value {
        Value::Object(entries) => {
            if let Some(parts) = entries.get("$repeat") {
                Value::from(repeated(parts))
            } else if let Some(levels) = entries.get("$nest") {
                let levels = levels.as_u64().expect("a count");
                (1..levels).fold(json!({}), |inner, _| json!({"a": inner}))
            } else if let Some(parts) = entries.get("$key") {
                json!({ repeated(parts): entries["$value"] })
            } else {
                let expanded = entries
                    .iter()
                    .map(|(name, value)| (name.clone(), expand(value)));
                Value::Object(expanded.collect())
            }
        }
        Value::Array(items) => items.iter().map(expand).collect(),
        plain => plain.clone(),
    }
}

/// The text of an input with a value that JSON does not know, as a careless writer would put it.
fn raw(value: &Value) -> String {
    let Value::Object(entries) = value else {
        return match value {
            Value::Array(items) => {
                format!("[{}]", items.iter().map(raw).collect::<Vec<_>>().join(","))
            }
            plain => plain.to_string(),
        };
    };
    let members = entries
        .iter()
        .map(|(name, value)| match (name.as_str(), value) {
            ("$float", Value::String(text)) => match text.as_str() {
                "nan" => "NaN".to_owned(),
                "inf" => "1e999".to_owned(),
                _ => "-Infinity".to_owned(),
            },
            ("$digits", count) => {
                "9".repeat(usize::try_from(count.as_u64().expect("a count")).expect("fits"))
            }
            ("$surrogate", digits) => format!("\"\\u{}\"", digits.as_str().expect("digits")),
            (name, value) => format!("{{{}:{}}}", Value::from(name), raw(value)),
        });
    members.collect::<Vec<_>>().join(",")
}

/// The normalised configuration, as plain data.
fn validate(kind: &str, input: &Value) -> Result<Value, Error> {
    let plain = match kind {
        "agent" => serde_json::to_value(validate_agent(input)?),
        "supervisor" => serde_json::to_value(validate_supervisor(input)?),
        other => panic!("unknown kind {other}"),
    };
    Ok(plain.expect("plain data"))
}

fn problem(vector: &Map<String, Value>, defaults: &Value) -> Option<String> {
    let kind = vector["kind"].as_str().expect("a kind");
    let input = expand(&vector["input"]);
    match (
        validate(kind, &input),
        vector.get("error"),
        vector.get("normalised"),
    ) {
        (Ok(normalised), None, Some(difference)) => {
            let mut expected = defaults[kind].as_object().expect("defaults").clone();
            expected.extend(expand(difference).as_object().expect("an object").clone());
            let expected = Value::Object(expected);
            if normalised != expected {
                return Some(format!("got {normalised}, expected {expected}"));
            }
            let again = validate(kind, &normalised).expect("the normalised form is accepted");
            (again != normalised).then(|| "normalising twice changes it".to_owned())
        }
        (Err(error), Some(expected), None) => {
            assert_eq!(error.code(), ErrorCode::Config);
            let wrong: Vec<String> = ["field", "value", "remedy"]
                .iter()
                .filter(|part| error.context()[**part] != expand(&expected[**part]))
                .map(|part| format!("{part}: {} not {}", error.context()[*part], expected[*part]))
                .collect();
            (!wrong.is_empty()).then(|| wrong.join(", "))
        }
        (Ok(_), ..) => Some("accepted".to_owned()),
        (Err(error), ..) => Some(format!("refused: {error}")),
    }
}

#[test]
fn every_vector_holds() {
    let all = vectors();
    let list = all["vectors"].as_array().expect("a list");
    assert!(list.len() >= 100);
    let problems: Vec<String> = list
        .iter()
        .map(|vector| vector.as_object().expect("an object"))
        .filter(|vector| vector.get("json") != Some(&json!(false)))
        .filter_map(|vector| {
            problem(vector, &all["defaults"]).map(|text| format!("{}: {text}", vector["name"]))
        })
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn text_that_is_not_json_is_refused_as_a_whole() {
    let all = vectors();
    let list = all["vectors"].as_array().expect("a list");
    let unsayable = list.iter().filter(|vector| vector["json"] == json!(false));
    let texts: Vec<String> = unsayable.map(|vector| raw(&vector["input"])).collect();
    assert!(texts.len() >= 10);
    for text in texts {
        let error = parse_json(&text).expect_err(&text);
        assert_eq!(error.code(), ErrorCode::Config, "{text}");
    }
    assert!(parse_json(&"[".repeat(100_000)).is_err());
    assert!(parse_json("").is_err());
}

#[test]
fn a_workspace_needs_a_root() {
    let options = validate_workspace(&json!({"root": "/srv"})).expect("a root is enough");
    assert_eq!((options.root.as_str(), options.read_only), ("/srv", false));
    for (input, field) in [
        (json!({}), "root"),
        (json!({"root": ""}), "root"),
        (json!({"root": "a\u{0}"}), "root"),
        (json!({"root": "/srv", "read_only": 1}), "read_only"),
        (json!({"root": "/srv", "readonly": true}), "readonly"),
        (json!("/srv"), ""),
    ] {
        let error = validate_workspace(&input).expect_err("refused");
        assert_eq!(error.context()["field"], field, "{input}");
    }
}

#[test]
fn an_unknown_fields_value_is_not_in_the_message() {
    let error = validate_agent(&json!({"api_key": "hunter2"})).expect_err("no such field");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}
