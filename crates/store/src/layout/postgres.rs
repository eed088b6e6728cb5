//! `postgresql` in `config`: what the Postgres of every node is to have.
//!
//! It knows the form of what is said there, not what Postgres makes of it.

use super::ConfigRecord;
use super::config::{BadSetting, bad};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The cluster's part of every node's configuration of Postgres. A node's own file wins over it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedPostgres {
    /// As the configuration file of Postgres takes them.
    pub parameters: BTreeMap<String, String>,
    /// Lines of `pg_hba.conf`; none: every node's own.
    pub pg_hba: Vec<String>,
    /// Lines of `pg_ident.conf`; none: every node's own.
    pub pg_ident: Vec<String>,
}

impl ConfigRecord {
    /// What the key says of Postgres.
    ///
    /// # Errors
    /// The first value that has not the form of what its key stands for.
    pub fn postgres(&self) -> Result<SharedPostgres, BadSetting> {
        let nothing = Map::new();
        let section = object("postgresql", self.0.get("postgresql"), &nothing)?;
        let parameters = object("postgresql.parameters", section.get("parameters"), &nothing)?;
        let mut shared = SharedPostgres {
            pg_hba: lines("postgresql.pg_hba", section.get("pg_hba"))?,
            pg_ident: lines("postgresql.pg_ident", section.get("pg_ident"))?,
            ..SharedPostgres::default()
        };
        for (name, value) in parameters {
            let key = format!("postgresql.parameters.{name}");
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
            if name.is_empty() || !name.chars().all(plain) {
                return Err(bad(&key, "is no name of a parameter"));
            }
            if let Some(value) = scalar(&key, value)? {
                shared.parameters.insert(name.clone(), value);
            }
        }
        Ok(shared)
    }

    /// What else the key says of Postgres, which has no effect, and why.
    pub fn postgres_in_vain(&self) -> Vec<(&str, &'static str)> {
        let said = self.0.get("postgresql").and_then(Value::as_object);
        let said = said.into_iter().flatten();
        let said = said.filter(|(_, value)| !value.is_null());
        said.filter_map(|(key, value)| Some((key.as_str(), in_vain(key, value)?)))
            .collect()
    }
}

fn in_vain(key: &str, value: &Value) -> Option<&'static str> {
    match key {
        "parameters" | "pg_hba" | "pg_ident" => None,
        "use_slots"
        | "use_pg_rewind"
        | "remove_data_directory_on_rewind_failure"
        | "remove_data_directory_on_diverged_timelines" => {
            (*value == Value::Bool(false)).then_some("it is always so")
        }
        _ => Some("each node's own file says it"),
    }
}

fn object<'v>(
    key: &str,
    value: Option<&'v Value>,
    nothing: &'v Map<String, Value>,
) -> Result<&'v Map<String, Value>, BadSetting> {
    match value {
        None | Some(Value::Null) => Ok(nothing),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(bad(key, "must be keys with values")),
    }
}

/// `None`: nothing is said.
fn scalar(key: &str, value: &Value) -> Result<Option<String>, BadSetting> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::Bool(flag) => if *flag { "on" } else { "off" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => return Err(bad(key, "must be a single value")),
    };
    one_line(key, text).map(Some)
}

fn lines(key: &str, value: Option<&Value>) -> Result<Vec<String>, BadSetting> {
    let line = |item: &Value| match item {
        Value::String(text) => one_line(key, text.clone()),
        _ => Err(bad(key, format!("{item} is not a line of text"))),
    };
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(line).collect(),
        Some(one @ Value::String(_)) => Ok(vec![line(one)?]),
        Some(_) => Err(bad(key, "must be a list of lines")),
    }
}

fn one_line(key: &str, text: String) -> Result<String, BadSetting> {
    if text.contains(['\n', '\r', '\0']) {
        return Err(bad(key, "must not hold line breaks"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(postgresql: Value) -> Result<SharedPostgres, String> {
        let record = ConfigRecord(Map::from_iter([("postgresql".to_owned(), postgresql)]));
        record.postgres().map_err(|bad| bad.to_string())
    }

    #[test]
    fn values_are_read_as_patroni_writes_them() {
        let shared = read(json!({
            "use_pg_rewind": true,
            "parameters": {"work_mem": "8MB", "max_connections": 50, "jit": false, "gone": null, "my.x": 1.5},
            "pg_hba": ["host all all all md5"],
            "pg_ident": "m a b",
        }))
        .unwrap();
        let parameters = [
            ("jit", "off"),
            ("max_connections", "50"),
            ("my.x", "1.5"),
            ("work_mem", "8MB"),
        ];
        assert_eq!(
            shared.parameters,
            parameters
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        );
        assert_eq!(shared.pg_hba, ["host all all all md5"]);
        assert_eq!(shared.pg_ident, ["m a b"]);
        assert_eq!(read(Value::Null), Ok(SharedPostgres::default()));
    }

    #[test]
    fn what_each_node_says_itself_is_named() {
        let postgresql = json!({"parameters": {}, "pg_hba": [], "pg_ident": null, "use_slots": true, "basebackup": null,
            "use_pg_rewind": false, "callbacks": {"on_start": "/x"}});
        let record = ConfigRecord(Map::from_iter([("postgresql".to_owned(), postgresql)]));
        let named: Vec<&str> = record
            .postgres_in_vain()
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(named, ["callbacks", "use_pg_rewind"]);
    }

    #[test]
    fn what_has_another_form_is_named() {
        for (value, why) in [
            (json!(5), "postgresql: must be keys with values"),
            (
                json!({"parameters": []}),
                "postgresql.parameters: must be keys with values",
            ),
            (
                json!({"parameters": {"a b": 1}}),
                "postgresql.parameters.a b: is no name of a parameter",
            ),
            (
                json!({"parameters": {"a": [1]}}),
                "postgresql.parameters.a: must be a single value",
            ),
            (
                json!({"parameters": {"a": "1\n2"}}),
                "postgresql.parameters.a: must not hold line breaks",
            ),
            (
                json!({"pg_hba": {"a": 1}}),
                "postgresql.pg_hba: must be a list of lines",
            ),
            (
                json!({"pg_hba": [1]}),
                "postgresql.pg_hba: 1 is not a line of text",
            ),
        ] {
            assert_eq!(read(value).unwrap_err(), why);
        }
    }
}
