//! Responsible for the configuration of one agent.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value, json};
use vespera_error::{Error, Result};

use crate::choices::{Adapter, Effort, Overflow, PermissionMode};
use crate::fields::Fields;
use crate::policies::{Budget, Limits, RetryPolicy, Timeouts};
use crate::rules;

const FORK_WITHOUT_RESUME: &str = "set resume to the session to fork, or leave fork_session out";
const ID_WITH_RESUME: &str = "leave session_id out when resuming, or set fork_session";

/// One agent. Without a prompt it is a session, with one a run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct AgentConfig {
    /// Name of the agent, unique per supervisor; null: a generated one.
    #[schemars(length(min = 1, max = 128))]
    pub agent_id: Option<String>,
    /// Which kind of program it is.
    pub adapter: Adapter,
    /// The program; null: the adapter's.
    #[schemars(length(min = 1))]
    pub program: Option<String>,
    /// Further arguments for the program.
    pub args: Vec<String>,
    /// What the agent is to do; null: a session that waits for prompts.
    #[schemars(length(min = 1))]
    pub prompt: Option<String>,
    /// Where it works; null: where the host does.
    #[schemars(length(min = 1))]
    pub working_directory: Option<String>,
    /// Variables added to its environment. Errors never repeat their values.
    pub environment: BTreeMap<String, String>,
    /// Whether it starts from the adapter's scrubbed copy of the host's environment.
    pub inherit_environment: bool,
    /// The model; null: the program's default.
    #[schemars(length(min = 1))]
    pub model: Option<String>,
    /// The model used when the first is overloaded.
    #[schemars(length(min = 1))]
    pub fallback_model: Option<String>,
    /// How much the model thinks.
    pub effort: Option<Effort>,
    /// Replaces the system prompt.
    #[schemars(length(min = 1))]
    pub system_prompt: Option<String>,
    /// Added to the system prompt.
    #[schemars(length(min = 1))]
    pub append_system_prompt: Option<String>,
    /// Tools that need no permission.
    pub allowed_tools: Option<Vec<String>>,
    /// Tools that are never used.
    pub disallowed_tools: Option<Vec<String>>,
    /// How the CLI decides about permissions.
    pub permission_mode: Option<PermissionMode>,
    /// MCP servers: the path of a file, or its content.
    pub mcp_config: Option<PathOrObject>,
    /// Settings of the CLI: the path of a file, or its content.
    pub settings: Option<PathOrObject>,
    /// Further directories that it may use.
    pub add_dirs: Option<Vec<String>>,
    /// Subagents by name.
    pub agents: Option<Map<String, Value>>,
    /// Python functions called at the CLI's hooks; only code can give them.
    pub hooks: (),
    /// Python functions offered as tools; only code can give them.
    pub tools: (),
    /// A Python function that answers permission asks; only code can give it.
    pub on_permission: (),
    /// A Python function that makes the working directory; cannot come from JSON.
    pub workspace: (),
    /// JSON Schema that the answer must fit.
    pub output_schema: Option<Map<String, Value>>,
    /// Whether parts of messages arrive as events.
    pub include_partial_messages: bool,
    /// The session's id, a UUID; null: a new one.
    #[schemars(regex(pattern = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"))]
    pub session_id: Option<String>,
    /// The session to continue.
    #[schemars(length(min = 1))]
    pub resume: Option<String>,
    /// Whether the continued session becomes a new one.
    pub fork_session: bool,
    /// Most turns of the model in one run.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_turns: Option<u32>,
    /// Higher starts earlier.
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// Null: the supervisor's.
    pub timeouts: Option<Timeouts>,
    /// Null: the supervisor's.
    pub limits: Option<Limits>,
    /// Null: the supervisor's.
    pub retry: Option<RetryPolicy>,
    /// Null: only the supervisor's.
    pub budget: Option<Budget>,
    /// What happens to events that nobody reads in time.
    pub overflow: Overflow,
    /// File that the raw frames of both directions are appended to (mode 0600).
    #[schemars(length(min = 1))]
    pub transcript: Option<String>,
    /// Further flags of the CLI, without dashes; null for a flag without a value.
    pub extra_args: BTreeMap<String, Option<String>>,
}

/// The path of a JSON file, or the JSON itself.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PathOrObject {
    /// A file's path.
    Path(String),
    /// The content.
    Object(Map<String, Value>),
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self::read("", &json!({})).expect("every field of an agent has a default")
    }
}

impl AgentConfig {
    const FIELDS: &[&str] = &[
        "agent_id",
        "adapter",
        "program",
        "args",
        "prompt",
        "working_directory",
        "environment",
        "inherit_environment",
        "model",
        "fallback_model",
        "effort",
        "system_prompt",
        "append_system_prompt",
        "allowed_tools",
        "disallowed_tools",
        "permission_mode",
        "mcp_config",
        "settings",
        "add_dirs",
        "agents",
        "hooks",
        "tools",
        "on_permission",
        "workspace",
        "output_schema",
        "include_partial_messages",
        "session_id",
        "resume",
        "fork_session",
        "max_turns",
        "priority",
        "timeouts",
        "limits",
        "retry",
        "budget",
        "overflow",
        "transcript",
        "extra_args",
    ];

    pub(crate) fn read(path: &str, value: &Value) -> Result<Self> {
        let fields = Fields::open(path, value, Self::FIELDS)?;
        let strings = rules::list(rules::text);
        let config = Self {
            agent_id: fields.optional("agent_id", rules::name)?,
            adapter: fields.or("adapter", Adapter::Claude, rules::choice)?,
            program: fields.optional("program", rules::text)?,
            args: fields.or("args", Vec::new(), rules::list(rules::argument))?,
            prompt: fields.optional("prompt", rules::prose)?,
            working_directory: fields.optional("working_directory", rules::text)?,
            environment: fields.or("environment", BTreeMap::new(), rules::environment)?,
            inherit_environment: fields.or("inherit_environment", true, rules::boolean)?,
            model: fields.optional("model", rules::text)?,
            fallback_model: fields.optional("fallback_model", rules::text)?,
            effort: fields.optional("effort", rules::choice)?,
            system_prompt: fields.optional("system_prompt", rules::prose)?,
            append_system_prompt: fields.optional("append_system_prompt", rules::prose)?,
            allowed_tools: fields.optional("allowed_tools", &strings)?,
            disallowed_tools: fields.optional("disallowed_tools", &strings)?,
            permission_mode: fields.optional("permission_mode", rules::choice)?,
            mcp_config: fields.optional("mcp_config", PathOrObject::read)?,
            settings: fields.optional("settings", PathOrObject::read)?,
            add_dirs: fields.optional("add_dirs", &strings)?,
            agents: fields.optional("agents", rules::object)?,
            hooks: fields.or("hooks", (), rules::functions)?,
            tools: fields.or("tools", (), rules::functions)?,
            on_permission: fields.or("on_permission", (), rules::functions)?,
            workspace: fields.or("workspace", (), rules::functions)?,
            output_schema: fields.optional("output_schema", rules::object)?,
            include_partial_messages: fields.or(
                "include_partial_messages",
                false,
                rules::boolean,
            )?,
            session_id: fields.optional("session_id", rules::uuid)?,
            resume: fields.optional("resume", rules::text)?,
            fork_session: fields.or("fork_session", false, rules::boolean)?,
            max_turns: fields.optional("max_turns", rules::integer(1, 1_000_000))?,
            priority: fields.or("priority", 0, rules::integer(-1_000_000, 1_000_000))?,
            timeouts: fields.optional("timeouts", Timeouts::read)?,
            limits: fields.optional("limits", Limits::read)?,
            retry: fields.optional("retry", RetryPolicy::read)?,
            budget: fields.optional("budget", Budget::read)?,
            overflow: fields.or("overflow", Overflow::Spill, rules::choice)?,
            transcript: fields.optional("transcript", rules::text)?,
            extra_args: fields.or("extra_args", BTreeMap::new(), rules::flags)?,
        };
        config.check_session()?;
        Ok(config)
    }

    /// The CLI refuses these combinations itself, but only after it was started.
    fn check_session(&self) -> Result<()> {
        if self.fork_session && self.resume.is_none() {
            return Err(Error::config(
                "fork_session",
                true.into(),
                FORK_WITHOUT_RESUME,
            ));
        }
        match &self.session_id {
            Some(id) if self.resume.is_some() && !self.fork_session => Err(Error::config(
                "session_id",
                id.as_str().into(),
                ID_WITH_RESUME,
            )),
            _ => Ok(()),
        }
    }
}

impl PathOrObject {
    fn read(path: &str, value: &Value) -> Result<Self> {
        match value {
            Value::String(_) => rules::text(path, value).map(Self::Path),
            Value::Object(_) => rules::object(path, value).map(Self::Object),
            _ => Err(Error::config(path, value.clone(), rules::PATH_OR_OBJECT)),
        }
    }
}
