//! Responsible for the options of a workspace: the directory that file operations stay beneath.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use vespera_error::Result;

use crate::fields::Fields;
use crate::rules;

/// A directory that file operations stay beneath.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WorkspaceOptions {
    /// The directory.
    #[schemars(length(min = 1))]
    pub root: String,
    /// Whether writing is refused.
    #[schemars(default)]
    pub read_only: bool,
}

impl WorkspaceOptions {
    pub(crate) fn read(path: &str, value: &Value) -> Result<Self> {
        let fields = Fields::open(path, value, &["root", "read_only"])?;
        Ok(Self {
            root: fields.required("root", rules::text)?,
            read_only: fields.or("read_only", false, rules::boolean)?,
        })
    }
}
