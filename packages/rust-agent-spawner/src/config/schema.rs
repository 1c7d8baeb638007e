//! The JSON Schema of the configuration: schemars' view of `vespera-config`, unchanged.

/// The schema as text, byte for byte the file that the Python half carries.
pub fn schema() -> String {
    vespera_config::config_schema_text()
}
