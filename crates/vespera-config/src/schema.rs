//! Responsible for the JSON Schema of what a configuration may say. It describes the input
//! (`"5m"` or seconds), not the normalised form, and is committed with the Python half.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Value, json};
use std::borrow::Cow;

use crate::units::{MAX_SECONDS, MAX_SIZE};
use crate::{AgentConfig, SupervisorConfig, WorkspaceOptions};

/// Schema of one agent's configuration.
pub fn agent_schema() -> Value {
    settings()
        .into_generator()
        .into_root_schema_for::<AgentConfig>()
        .to_value()
}

/// Schema of a supervisor's configuration.
pub fn supervisor_schema() -> Value {
    settings()
        .into_generator()
        .into_root_schema_for::<SupervisorConfig>()
        .to_value()
}

/// All of it in one schema, with the properties `agent`, `supervisor` and `workspace`.
pub fn config_schema() -> Value {
    let mut generator = settings().into_generator();
    let properties = json!({
        "agent": generator.subschema_for::<AgentConfig>(),
        "supervisor": generator.subschema_for::<SupervisorConfig>(),
        "workspace": generator.subschema_for::<WorkspaceOptions>(),
    });
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Vespera configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    schema["$defs"] = Value::Object(generator.take_definitions(true));
    schema
}

/// The text of the committed file: sorted names, two spaces, a newline at the end.
pub fn config_schema_text() -> String {
    format!("{:#}\n", config_schema())
}

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12()
}

/// A duration as it may be written.
pub(crate) struct DurationInput;

impl JsonSchema for DurationInput {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Seconds, or text such as \"250ms\", \"90s\", \"5m\" or \"1h30m\".",
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": MAX_SECONDS},
                {"type": "string", "pattern": duration_pattern()},
            ],
        })
    }
}

/// Each unit at most once, from long to short, or a bare number.
fn duration_pattern() -> String {
    let number = r"[0-9]+(\.[0-9]+)?";
    let part = |unit: &str| format!("({number} *{unit} *)?");
    let parts: String = ["d", "h", "m(?!s)", "s", "ms"].map(part).concat();
    format!("^ *(?=[0-9])({number}|{parts}) *$")
}

/// A size as it may be written.
pub(crate) struct SizeInput;

impl JsonSchema for SizeInput {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Bytes, or text such as \"64KiB\", \"10MB\" or \"2GiB\".",
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MAX_SIZE},
                {
                    "type": "string",
                    "pattern": r"^ *([0-9]+|[0-9]+(\.[0-9]+)? *([KkMmGgTt][Ii]?)?[Bb]) *$",
                },
            ],
        })
    }
}

/// An idle time-out as it may be written.
pub(crate) struct IdleInput;

impl JsonSchema for IdleInput {
    fn schema_name() -> Cow<'static, str> {
        "Idle".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let duration = generator.subschema_for::<DurationInput>();
        let states = crate::IdleState::NAMES
            .iter()
            .map(|name| (*name, duration.clone()));
        let states: std::collections::BTreeMap<_, _> = states.collect();
        json_schema!({
            "description": "One duration for every state, or one per state.",
            "anyOf": [
                duration,
                {"type": "object", "properties": states, "additionalProperties": false},
            ],
        })
    }
}
