//! `standby_cluster`: what another cluster's primary is followed by, in Patroni's words.
//!
//! **Invariant:** what can't be read is an error, never "no standby cluster": that would let a standby be promoted.

use super::config::{BadSetting, bad};
use ha::Remote;
use serde_json::Value;

const KEY: &str = "standby_cluster";

/// What the value means; none where it names nothing to follow, as for Patroni.
pub(super) fn read(value: &Value) -> Result<Option<Remote>, BadSetting> {
    let map = match value {
        Value::Null => return Ok(None),
        Value::Object(map) => map,
        other => return Err(bad(KEY, format!("{other} is no map with host and port"))),
    };
    let mut remote = Remote::default();
    for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
        match key.as_str() {
            "host" => remote.host = hosts(key, value)?,
            "port" => remote.port = ports(key, value)?,
            "primary_slot_name" => remote.slot = slot(key, value)?,
            "restore_command" => remote.restore_command = text(key, value)?,
            "archive_cleanup_command" => remote.archive_cleanup_command = text(key, value)?,
            "recovery_min_apply_delay" => remote.apply_delay = span(key, value)?,
            "create_replica_methods" => remote.copies = names(key, value)?,
            _ => {}
        }
    }
    let follows =
        remote.host.is_some() || remote.port.is_some() || remote.restore_command.is_some();
    if follows && remote.host.is_none() && remote.restore_command.is_none() {
        return Err(bad(
            KEY,
            "it has a port and neither a host nor a restore_command",
        ));
    }
    Ok(follows.then_some(remote))
}

fn wrong(key: &str, value: &Value, what: &str) -> BadSetting {
    bad(&format!("{KEY}.{key}"), format!("{value} is no {what}"))
}

/// Empty texts say nothing.
fn text(key: &str, value: &Value) -> Result<Option<String>, BadSetting> {
    match value {
        Value::String(text) if text.contains(['\n', '\r', '\0']) => {
            Err(wrong(key, value, "text of one line"))
        }
        Value::String(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        other => Err(wrong(key, other, "text")),
    }
}

fn hosts(key: &str, value: &Value) -> Result<Option<String>, BadSetting> {
    let read = text(key, value)?;
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '\'' | '"' | '\\');
    match &read {
        Some(hosts) if !hosts.chars().all(plain) => Err(wrong(key, value, "host name")),
        _ => Ok(read),
    }
}

/// One number, or as many as hosts.
fn ports(key: &str, value: &Value) -> Result<Option<String>, BadSetting> {
    let read = match value {
        Value::Number(number) => Some(number.to_string()),
        other => text(key, other)?,
    };
    let fits = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    match &read {
        Some(ports) if !ports.split(',').all(|port| fits(port.trim())) => {
            Err(wrong(key, value, "port"))
        }
        _ => Ok(read),
    }
}

fn slot(key: &str, value: &Value) -> Result<Option<String>, BadSetting> {
    let read = text(key, value)?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match &read {
        Some(slot) if slot.len() > 63 || !slot.chars().all(plain) => {
            Err(wrong(key, value, "name of a slot"))
        }
        _ => Ok(read),
    }
}

/// As PostgreSQL takes it: milliseconds, or a number with a unit.
fn span(key: &str, value: &Value) -> Result<Option<String>, BadSetting> {
    let read = match value {
        Value::Number(number) => Some(number.to_string()),
        other => text(key, other)?,
    };
    let fits = |text: &str| {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &text[..text.len() - unit.len()];
        number.parse::<f64>().is_ok()
            && ["", "us", "ms", "s", "min", "h", "d"].contains(&unit.trim())
    };
    match &read {
        Some(span) if !fits(span) => Err(wrong(key, value, "time span such as 5min")),
        _ => Ok(read),
    }
}

fn names(key: &str, value: &Value) -> Result<Vec<String>, BadSetting> {
    let one = |it: &Value| it.as_str().map(str::to_owned);
    let names = match value {
        Value::Array(list) => list.iter().map(one).collect(),
        other => one(other).map(|name| vec![name]),
    };
    names.ok_or_else(|| wrong(key, value, "list of names"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patronis_keys_are_read() {
        let all = json!({
            "host": "10.0.0.1,10.0.0.2", "port": 5433, "primary_slot_name": "far", "restore_command": "cp /a/%f %p",
            "archive_cleanup_command": "true", "recovery_min_apply_delay": "5min",
            "create_replica_methods": ["wal_g", "basebackup"],
        });
        let text = |text: &str| Some(text.to_owned());
        let expected = Remote {
            host: text("10.0.0.1,10.0.0.2"),
            port: text("5433"),
            slot: text("far"),
            restore_command: text("cp /a/%f %p"),
            archive_cleanup_command: text("true"),
            apply_delay: text("5min"),
            copies: vec!["wal_g".to_owned(), "basebackup".to_owned()],
        };
        assert_eq!(read(&all), Ok(Some(expected)));
        for nothing in [
            json!(null),
            json!({}),
            json!({"host": "", "primary_slot_name": "x"}),
        ] {
            assert_eq!(read(&nothing), Ok(None), "{nothing}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_permission_to_promote() {
        for bad in [
            json!("10.0.0.1"),
            json!(true),
            json!({"port": 5432}),
            json!({"host": 7}),
            json!({"host": "a b"}),
            json!({"host": "a", "port": "x"}),
            json!({"host": "a", "primary_slot_name": "A-b"}),
            json!({"host": "a", "recovery_min_apply_delay": "soon"}),
            json!({"host": "a", "restore_command": "a\nb"}),
            json!({"host": "a", "create_replica_methods": [1]}),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }
}
