//! The settings, the standby names and the connection string.

use crate::error::Refusal;
use crate::office::Office;
use crate::order::entries;
use crate::v1;
use ha::quorum::{Setting, SyncRecord};
use ha::{Cluster, NodeName};
use store::layout::{ConfigRecord, Keys, NodeEntry};

pub(crate) fn settings(keys: &Keys, office: &Office<'_>) -> Result<v1::Settings, Refusal> {
    let cluster = super::cluster(office)?;
    let stored = office.served.snapshot.value(&keys.config());
    // The cluster could be read, so this can be read too.
    let config: ConfigRecord = stored
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let mut nodes: Vec<v1::NodeSetting> = cluster
        .nodes
        .iter()
        .map(|(name, node)| v1::NodeSetting {
            id: node.id,
            name: name.clone(),
            priority: node.priority,
            quorum: node.quorum,
            maintenance: node.maintenance,
        })
        .collect();
    nodes.sort_by_key(|node| node.id);
    Ok(v1::Settings {
        config: config.0,
        effective: effective(&cluster.settings),
        number_sync_standbys: newest(cluster).map_or(0, |setting| setting.needed),
        synchronous_standby_names: newest(cluster).map(names).unwrap_or_default(),
        nodes,
    })
}

fn effective(settings: &ha::Settings) -> v1::Effective {
    v1::Effective {
        ttl: settings.ttl.as_secs_f64(),
        beat: settings.beat.as_secs_f64(),
        loop_wait: settings.loop_wait.as_secs_f64(),
        failure_timeout: settings.failure_timeout.as_secs_f64(),
        synchronous_mode: settings.sync_mode,
        synchronous_mode_strict: settings.sync_strict,
        synchronous_node_count: settings.sync_node_count,
        synchronous_relax_after: settings.sync_relax_after.as_secs_f64(),
        maximum_lag_on_failover: settings.lag_bytes_max,
        election_window: settings.election_window.as_secs_f64(),
        primary_start_timeout: settings.primary_start_timeout.as_secs_f64(),
        hang_timeout: settings.hang_timeout.as_secs_f64(),
        pause: settings.paused,
    }
}

pub(crate) fn standby_names(office: &Office<'_>) -> Result<v1::StandbyNames, Refusal> {
    let cluster = super::cluster(office)?;
    Ok(v1::StandbyNames {
        standby_names: newest(cluster).map(names).unwrap_or_default(),
        setting: newest(cluster).cloned(),
        settled: cluster.sync.as_ref().is_none_or(SyncRecord::is_settled),
    })
}

fn newest(cluster: &Cluster) -> Option<&Setting> {
    cluster.sync.as_ref().map(SyncRecord::newest)
}

/// As `synchronous_standby_names` says it.
fn names(setting: &Setting) -> String {
    if setting.is_alone() {
        return String::new();
    }
    let quoted: Vec<String> = setting.standbys.iter().map(quote).collect();
    format!("ANY {} ({})", setting.needed, quoted.join(", "))
}

/// Node names are plain; those that are no SQL identifier are quoted.
fn quote(name: &NodeName) -> String {
    let text = name.as_str();
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if begins && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("\"{text}\"")
    }
}

pub(crate) fn uri(keys: &Keys, office: &Office<'_>) -> Result<v1::Uri, Refusal> {
    super::cluster(office)?;
    let records = entries(keys, &office.served.snapshot)?;
    let mut nodes: Vec<(&NodeName, &NodeEntry)> =
        records.iter().filter(|(_, entry)| !entry.dropped).collect();
    nodes.sort_by_key(|(name, entry)| (entry.id, *name));
    let hosts: Vec<String> = nodes
        .iter()
        .filter(|(_, entry)| !entry.witness)
        .map(|(_, entry)| format!("{}:{}", bracketed(&entry.host), entry.port))
        .collect();
    let monitors = nodes.iter().filter(|(_, entry)| entry.witness);
    if hosts.is_empty() {
        return Err(Refusal::new(
            v1::Code::NotFound,
            "no node with Postgres is registered yet",
        ));
    }
    Ok(v1::Uri {
        formation: "default".to_owned(),
        uri: format!(
            "postgres://{}/{}?target_session_attrs=read-write",
            hosts.join(","),
            escaped(&office.served.database)
        ),
        monitors: monitors
            .map(|(name, entry)| v1::Monitor {
                name: (*name).clone(),
                url: entry.api_url.clone(),
            })
            .collect(),
    })
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_postgres_needs_it() {
        let name = |text: &str| NodeName::new(text).expect("a name");
        let setting = Setting::quorum(
            name("a"),
            ["node_2", "Node-3", "4"].map(name).into_iter().collect(),
            2,
        );
        assert_eq!(names(&setting), r#"ANY 2 ("4", "Node-3", node_2)"#);
        assert_eq!(names(&Setting::alone(name("a"))), "");
    }

    #[test]
    fn a_connection_string_holds_any_database_and_address() {
        assert_eq!(escaped("my db/ü"), "my%20db%2F%C3%BC");
        assert_eq!(bracketed("::1"), "[::1]");
        assert_eq!(bracketed("127.0.0.1"), "127.0.0.1");
    }
}
