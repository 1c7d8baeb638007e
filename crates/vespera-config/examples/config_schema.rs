//! Writes the committed schema anew: `cargo run -p vespera-config --example config_schema`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = "packages/rust-agent-spawner/python/vespera_agent_spawner";
    std::fs::write(
        root.join(python).join("config_schema.json"),
        vespera_config::config_schema_text(),
    )
}
