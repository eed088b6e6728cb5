//! `config`: the cluster-wide settings under Patroni's names, and ours beside them.

use ha::{Settings, SyncMode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::str::FromStr;
use std::time::Duration;

const MAX_TIMELINES_HISTORY: &str = "max_timelines_history";

/// The dynamic configuration as JSON. Times are seconds and may be fractions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigRecord(pub Map<String, Value>);

/// Why a setting can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct BadSetting {
    pub key: String,
    pub why: String,
}

impl ConfigRecord {
    /// The settings that these values mean, over our defaults.
    pub fn settings(&self) -> Result<Settings, BadSetting> {
        let mut settings = Settings::default();
        let explicit_beat = self.0.contains_key("beat");
        for (key, value) in &self.0 {
            apply(&mut settings, key, value)?;
        }
        let shortest = Duration::from_secs(1);
        if settings.ttl < shortest {
            return Err(bad("ttl", "must be at least 1 second"));
        }
        if !explicit_beat {
            settings.beat = settings.beat.min(settings.ttl / 5);
        }
        if settings.beat * 3 > settings.ttl {
            return Err(bad(
                "beat",
                "must be at most a third of ttl, so that one lost beat is no failover",
            ));
        }
        if settings.hang_timeout < shortest {
            // It is asked twice a second.
            return Err(bad("hang_timeout", "must be at least 1 second"));
        }
        if settings.failure_timeout < settings.beat * 2 {
            return Err(bad("failure_timeout", "must be at least two beats"));
        }
        Ok(settings)
    }

    /// The keys that change nothing: Patroni's for later, or a user's own.
    pub fn without_effect(&self) -> Vec<&str> {
        let idle = self.0.iter().filter(|(key, value)| {
            !value.is_null() && apply(&mut Settings::default(), key, value) == Ok(false)
        });
        idle.map(|(key, _)| key.as_str()).collect()
    }
}

impl ConfigRecord {
    /// How many timelines `history` names at most; 0: all.
    pub fn timelines_max(&self) -> usize {
        let given = self.0.get(MAX_TIMELINES_HISTORY).and_then(Value::as_u64);
        given
            .and_then(|most| usize::try_from(most).ok())
            .unwrap_or(0)
    }

    /// How long the slot of a member that is away is kept; none: as long as its node belongs to the cluster.
    ///
    /// # Errors
    /// What is no time.
    pub fn member_slots_ttl(&self) -> Result<Option<Duration>, BadSetting> {
        let key = "member_slots_ttl";
        let given = self.0.get(key).filter(|value| !value.is_null());
        given.map(|value| span(key, value)).transpose()
    }
}

/// Says whether the key is one that changes something.
fn apply(settings: &mut Settings, key: &str, value: &Value) -> Result<bool, BadSetting> {
    match key {
        "ttl" => settings.ttl = seconds(key, value)?,
        "loop_wait" => settings.loop_wait = seconds(key, value)?.min(Duration::from_secs(1)),
        "beat" => settings.beat = seconds(key, value)?,
        "failure_timeout" => settings.failure_timeout = seconds(key, value)?,
        "synchronous_mode" => settings.sync_mode = mode(key, value)?,
        "synchronous_mode_strict" => settings.sync_strict = boolean(key, value)?,
        "synchronous_node_count" => {
            settings.sync_node_count = usize::try_from(whole(key, value)?.max(1)).unwrap_or(1);
        }
        "synchronous_relax_after" => settings.sync_relax_after = seconds(key, value)?,
        "maximum_lag_on_syncnode" => settings.sync_lag_max = unless_negative(key, value)?,
        "maximum_lag_on_failover" => settings.lag_bytes_max = whole(key, value)?,
        "election_window" => settings.election_window = seconds(key, value)?,
        "primary_start_timeout" | "master_start_timeout" => {
            settings.primary_start_timeout = seconds(key, value)?
        }
        "hang_timeout" => settings.hang_timeout = seconds(key, value)?,
        "pause" => settings.paused = boolean(key, value)?,
        "standby_cluster" => settings.remote = super::remote::read(value)?,
        "failsafe_mode" => settings.failsafe = boolean(key, value)?,
        // Read by `ConfigRecord::postgres`, for every node's Postgres.
        "postgresql" => {}
        // Read by `ConfigRecord::permanent_slots`.
        "slots" => {}
        "member_slots_ttl" => drop(span(key, value)?),
        MAX_TIMELINES_HISTORY => drop(whole(key, value)?),
        _ => return Ok(false),
    }
    Ok(true)
}

pub(super) fn bad(key: &str, why: impl Into<String>) -> BadSetting {
    BadSetting {
        key: key.to_owned(),
        why: why.into(),
    }
}

fn seconds(key: &str, value: &Value) -> Result<Duration, BadSetting> {
    let number = value
        .as_f64()
        .or_else(|| quoted(value))
        .filter(|n| n.is_finite() && (0.0..=1e9).contains(n));
    number
        .map(Duration::from_secs_f64)
        .ok_or_else(|| bad(key, format!("{value} is not a number of seconds")))
}

/// Seconds, or a text with PostgreSQL's units, such as `30min`.
fn span(key: &str, value: &Value) -> Result<Duration, BadSetting> {
    const UNITS: [(&str, f64); 5] = [
        ("ms", 0.001),
        ("min", 60.0),
        ("s", 1.0),
        ("h", 3600.0),
        ("d", 86_400.0),
    ];
    let Some(text) = value.as_str().map(str::trim) else {
        return seconds(key, value);
    };
    let unit = UNITS.iter().find_map(|(unit, length)| {
        let number = text.strip_suffix(unit)?.trim_end();
        Some((number.parse::<f64>().ok()?, *length))
    });
    let plain = text.parse::<f64>().ok().map(|number| (number, 1.0));
    let counted = unit.or(plain).map(|(number, length)| number * length);
    counted
        .filter(|count| count.is_finite() && (0.0..=1e9).contains(count))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| bad(key, format!("{value} is no time, such as 1800 or 30min")))
}

/// Who writes by hand writes quotes around a number as well.
fn quoted<T: FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.trim().parse().ok()
}

fn whole(key: &str, value: &Value) -> Result<u64, BadSetting> {
    value
        .as_u64()
        .or_else(|| quoted(value))
        .ok_or_else(|| bad(key, format!("{value} is not a whole number")))
}

/// Negative: no limit.
fn unless_negative(key: &str, value: &Value) -> Result<Option<u64>, BadSetting> {
    match value.as_i64().or_else(|| quoted(value)) {
        Some(..0) => Ok(None),
        Some(_) | None => whole(key, value).map(Some),
    }
}

fn boolean(key: &str, value: &Value) -> Result<bool, BadSetting> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::String(text) if matches!(text.as_str(), "on" | "yes" | "true") => Ok(true),
        Value::String(text) if matches!(text.as_str(), "off" | "no" | "false") => Ok(false),
        _ => Err(bad(key, format!("{value} is neither true nor false"))),
    }
}

fn mode(key: &str, value: &Value) -> Result<SyncMode, BadSetting> {
    match value {
        Value::String(text) if text == "quorum" => Ok(SyncMode::Quorum),
        other => match boolean(key, other) {
            Ok(true) => Ok(SyncMode::On),
            Ok(false) => Ok(SyncMode::Off),
            Err(_) => Err(bad(key, format!("{value} is none of quorum, on, off"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn times_have_postgres_units() {
        let read = |value: Value| {
            let record = ConfigRecord(
                [("member_slots_ttl".to_owned(), value)]
                    .into_iter()
                    .collect(),
            );
            assert!(record.without_effect().is_empty());
            record.member_slots_ttl().map_err(|bad| bad.to_string())
        };
        let span = |seconds| Ok(Some(Duration::from_secs(seconds)));
        assert_eq!(read(json!(1800)), span(1800));
        assert_eq!(read(json!("30min")), span(1800));
        assert_eq!(read(json!("1 d")), span(86_400));
        assert_eq!(read(json!("45")), span(45));
        assert_eq!(read(json!(null)), Ok(None));
        assert!(read(json!("soon")).is_err());
    }
}
