//! The committed schema is what schemars makes of the types, and it covers every field.

use std::path::Path;

use serde_json::{Value, json};
use vespera_config::{AgentConfig, SupervisorConfig, config_schema, config_schema_text};

#[test]
fn the_committed_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../packages/rust-agent-spawner/python/vespera_agent_spawner/config_schema.json");
    let committed = std::fs::read_to_string(path).expect("the schema is committed");
    assert_eq!(
        committed.replace("\r\n", "\n"),
        config_schema_text(),
        "run: cargo run -p vespera-config --example config_schema"
    );
}

#[test]
fn the_schema_names_every_field_and_no_other() {
    let schema = config_schema();
    let all = [
        ("AgentConfig", serde_json::to_value(AgentConfig::default())),
        (
            "SupervisorConfig",
            serde_json::to_value(SupervisorConfig::default()),
        ),
    ];
    for (name, normalised) in all {
        let normalised = normalised.expect("plain data");
        let names = |value: &Value| {
            value
                .as_object()
                .expect("object")
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        let definition = &schema["$defs"][name];
        assert_eq!(
            names(&definition["properties"]),
            names(&normalised),
            "{name}"
        );
        assert_eq!(definition["additionalProperties"], json!(false), "{name}");
    }
}

#[test]
fn defaults_in_the_schema_are_those_of_the_types() {
    let schema = config_schema();
    let timeouts = &schema["$defs"]["Timeouts"]["properties"];
    assert_eq!(timeouts["startup"]["default"], json!(60.0));
    assert_eq!(
        schema["$defs"]["Limits"]["properties"]["output"]["default"],
        json!(1 << 30)
    );
    assert_eq!(
        schema["$defs"]["WorkspaceOptions"]["required"],
        json!(["root"])
    );
}
