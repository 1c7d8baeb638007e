//! Responsible for walking an object field by field: unknown names, paths, absent values.

use serde_json::{Map, Value};
use vespera_error::{Error, Result, shown};

use crate::nearest;
use crate::rules::OBJECT;

/// An object whose names are all known, and where it stands in the whole.
pub(crate) struct Fields<'a> {
    path: &'a str,
    entries: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Opens `value` at `path`; the first unknown name (in the alphabet) is refused.
    pub(crate) fn open(path: &'a str, value: &'a Value, known: &[&str]) -> Result<Self> {
        let Value::Object(entries) = value else {
            // The whole configuration has too many to name.
            let remedy = match path {
                "" => OBJECT.to_owned(),
                _ => format!("{OBJECT}: {}", known.join(", ")),
            };
            return Err(Error::config(path, value.clone(), remedy));
        };
        match entries
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            Some((name, value)) => Err(unknown(path, name, value, known)),
            None => Ok(Self { path, entries }),
        }
    }

    /// The field `name`, or `None` where it is absent or null.
    pub(crate) fn optional<T>(
        &self,
        name: &str,
        rule: impl FnOnce(&str, &Value) -> Result<T>,
    ) -> Result<Option<T>> {
        match self.entries.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => rule(&join(self.path, name), value).map(Some),
        }
    }

    /// The field `name`, or `default` where it is absent; null is a value like another.
    pub(crate) fn or<T>(
        &self,
        name: &str,
        default: T,
        rule: impl FnOnce(&str, &Value) -> Result<T>,
    ) -> Result<T> {
        match self.entries.get(name) {
            None => Ok(default),
            Some(value) => rule(&join(self.path, name), value),
        }
    }

    /// The field `name`, which has no default: an absent one meets the rule as null.
    pub(crate) fn required<T>(
        &self,
        name: &str,
        rule: impl FnOnce(&str, &Value) -> Result<T>,
    ) -> Result<T> {
        rule(
            &join(self.path, name),
            self.entries.get(name).unwrap_or(&Value::Null),
        )
    }
}

/// `timeouts` and `turn` → `timeouts.turn`.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The message leaves the value out: a mistyped name may hold a secret.
fn unknown(path: &str, name: &str, value: &Value, known: &[&str]) -> Error {
    let remedy = nearest::remedy("fields", name, known);
    let place = if path.is_empty() {
        "configuration"
    } else {
        path
    };
    let message = format!("{place}: no field {}; {remedy}", shown(&Value::from(name)));
    Error::config_with(message, &join(path, name), value.clone(), remedy)
}
