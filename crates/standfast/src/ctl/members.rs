//! `list` and `topology`: the members of a cluster in rows.

use super::cluster::{Cluster, Document, Member};
use super::frame::{self, Column, Named};
use super::typed::Format;
use super::{json, yaml};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// How they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) format: Format,
    /// As a tree of who streams from whom.
    pub(super) tree: bool,
    pub(super) extended: bool,
}

impl Look {
    pub(super) const PLAIN: Self = Self {
        format: Format::Pretty,
        tree: false,
        extended: false,
    };
}

/// Longer ones are not shown to people.
const REASON_MAX: usize = 50;

const COLUMNS: [&str; 10] = [
    "Cluster",
    "Member",
    "Host",
    "Role",
    "State",
    "TL",
    "Receive LSN",
    "Receive Lag",
    "Replay LSN",
    "Replay Lag",
];
const MORE: [&str; 4] = [
    "Pending restart",
    "Pending restart reason",
    "Scheduled restart",
    "Tags",
];

pub(super) fn text(cluster: &Cluster, look: Look) -> String {
    let document = &cluster.document;
    let wanted = |column: &str| look.extended || document.members.iter().any(|m| has(m, column));
    let more = MORE.into_iter().filter(|column| wanted(column));
    let columns: Vec<&str> = COLUMNS.into_iter().chain(more).collect();
    let members = match look.tree {
        true => tree(&document.members),
        false => document.members.clone(),
    };
    let ports = ports_matter(&document.members);
    let rows: Vec<Vec<Value>> = members
        .iter()
        .map(|member| {
            let cell = |column: &&str| cell(cluster, member, column, ports, look);
            columns.iter().map(cell).collect()
        })
        .collect();
    match look.format {
        Format::Pretty => pretty(cluster, &columns, &rows, look),
        Format::Tsv => {
            let names: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
            let rows = texts(&columns, &rows, look);
            frame::separated(Some(&names), &rows, "\t")
        }
        Format::Json => json(&named(&columns, rows)) + "\n",
        Format::Yaml => {
            let rows = named(&columns, rows);
            yaml::block(&rows.iter().map(Named::to_value).collect()) + "\n"
        }
    }
}

fn has(member: &Member, column: &str) -> bool {
    match column {
        "Pending restart" => member.pending_restart,
        "Pending restart reason" => !member.pending_restart_reason.is_empty(),
        "Scheduled restart" => member.scheduled_restart.is_some(),
        _ => !member.tags.is_empty(),
    }
}

/// Where all have a host of their own and the usual port, the host alone says it.
fn ports_matter(members: &[Member]) -> bool {
    let hosts: BTreeSet<&str> = members.iter().map(|member| member.host.as_str()).collect();
    members.iter().any(|member| member.port != 5432) || hosts.len() < members.len()
}

fn cell(cluster: &Cluster, member: &Member, column: &str, ports: bool, look: Look) -> Value {
    match column {
        "Cluster" => cluster.scope.clone().into(),
        "Member" => member.name.clone().into(),
        "Host" if ports && !member.host.is_empty() && member.port != 0 => {
            format!("{}:{}", member.host, member.port).into()
        }
        "Host" => member.host.clone().into(),
        "Role" => title_case(&member.role).into(),
        "State" => member.state.clone().into(),
        "TL" => member.timeline.map_or_else(|| "".into(), Value::from),
        "Receive LSN" => member.receive_lsn.clone().into(),
        "Receive Lag" => megabytes(&member.receive_lag),
        "Replay LSN" => member.replay_lsn.clone().into(),
        "Replay Lag" => megabytes(&member.replay_lag),
        "Pending restart" => if member.pending_restart { "*" } else { "" }.into(),
        "Pending restart reason" => reasons(&member.pending_restart_reason, look).into(),
        "Scheduled restart" => member
            .scheduled_restart
            .as_ref()
            .map_or_else(String::new, scheduled)
            .into(),
        _ if member.tags.is_empty() => "".into(),
        _ => member.tags.clone().into(),
    }
}

fn title_case(role: &str) -> String {
    let words = role.split('_').map(|word| {
        let mut letters = word.chars();
        letters
            .next()
            .map_or_else(String::new, |first| first.to_uppercase().to_string())
            + letters.as_str()
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Bytes behind, in whole megabytes.
fn megabytes(lag: &Value) -> Value {
    match lag.as_u64() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "of bytes, megabytes are wanted"
        )]
        Some(bytes) => ((bytes as f64 / 1024.0 / 1024.0).round_ties_even() as u64).into(),
        None => "".into(),
    }
}

fn reasons(reasons: &Map<String, Value>, look: Look) -> String {
    let lines = reasons.iter().map(|(name, change)| {
        let part = |key: &str| change.get(key).map(frame::plain).unwrap_or_default();
        let line = format!("{name}: {}->{}", part("old_value"), part("new_value"));
        let hidden = look.format == Format::Pretty && line.chars().count() > REASON_MAX;
        if hidden {
            format!("{name}: [hidden - too long]")
        } else {
            line
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn scheduled(restart: &Map<String, Value>) -> String {
    let part = |key: &str| restart.get(key).map(frame::plain);
    let mut text = part("schedule").unwrap_or_default();
    if let Some(version) = part("postgres_version") {
        let _ = write!(text, " if version < {version}");
    }
    text
}

/// With only those cells that hold something.
fn named(columns: &[&str], rows: Vec<Vec<Value>>) -> Vec<Named> {
    let row = |row: Vec<Value>| {
        let cells = columns.iter().zip(row);
        let cells = cells.filter(|(_, value)| *value != "");
        Named(
            cells
                .map(|(name, value)| ((*name).to_owned(), value))
                .collect(),
        )
    };
    rows.into_iter().map(row).collect()
}

fn texts(columns: &[&str], rows: &[Vec<Value>], look: Look) -> Vec<Vec<String>> {
    let text = |(column, value): (&&str, &Value)| match (*column, value) {
        ("Tags", Value::Object(_)) if look.format == Format::Pretty && !look.tree => {
            yaml::block(value).trim_end().to_owned()
        }
        ("Tags", Value::Object(_)) => yaml::flow(value),
        _ => frame::plain(value),
    };
    let row = |row: &Vec<Value>| columns.iter().zip(row).map(text).collect();
    rows.iter().map(row).collect()
}

fn pretty(cluster: &Cluster, columns: &[&str], rows: &[Vec<Value>], look: Look) -> String {
    let initialize = match cluster.initialize.as_deref() {
        None => "uninitialized",
        Some("") => "initializing",
        Some(id) => id,
    };
    let title = format!(" Cluster: {} ({initialize}) ", cluster.scope);
    let heads: Vec<Column> = columns
        .iter()
        .skip(1)
        .map(|name| match *name {
            "Receive Lag" | "Replay Lag" => Column::right("Lag"),
            "TL" | "Receive LSN" | "Replay LSN" => Column::right(*name),
            other => Column::left(other),
        })
        .collect();
    let rows: Vec<Vec<String>> = texts(columns, rows, look)
        .into_iter()
        .map(|row| row.into_iter().skip(1).collect())
        .collect();
    frame::pretty(&title, &heads, &rows) + &service(&cluster.document)
}

/// What stands below the table.
fn service(document: &Document) -> String {
    let mut lines = Vec::new();
    if document.pause {
        lines.push("Maintenance mode: on".to_owned());
    }
    if let Some(order) = &document.scheduled_switchover {
        let mut line = format!("Switchover scheduled at: {}", order.at);
        for (word, name) in [("from", &order.from), ("to", &order.to)] {
            if let Some(name) = name {
                let _ = write!(line, "\n{word:>24}: {name}");
            }
        }
        lines.push(line);
    }
    match lines.is_empty() {
        true => String::new(),
        false => format!(" {}\n", lines.join("\n ")),
    }
}

/// Leader first, each below the one that it streams from.
fn tree(members: &[Member]) -> Vec<Member> {
    let leader = members.iter().find(|member| member.leads());
    let standbys: Vec<&Member> = members.iter().filter(|member| !member.leads()).collect();
    let mut rows: Vec<Member> = leader.into_iter().cloned().collect();
    below(None, 1, &standbys, &mut rows);
    rows
}

/// Each has one upstream, so that nobody is listed twice.
fn below(upstream: Option<&str>, depth: usize, standbys: &[&Member], rows: &mut Vec<Member>) {
    for member in standbys {
        let named = member.tags.get("replicatefrom").and_then(Value::as_str);
        let named = named.filter(|name| {
            *name != member.name && standbys.iter().any(|other| other.name == *name)
        });
        if named == upstream {
            let mut row = (*member).clone();
            row.name = format!("{}+ {}", "  ".repeat(depth - 1), member.name);
            rows.push(row);
            below(Some(&member.name), depth + 1, standbys, rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use serde_json::json;

    fn cluster(change: impl FnOnce(&mut Value)) -> Cluster {
        let standby = |name: &str, port: u16| {
            json!({
                "name": name, "role": "replica", "state": "streaming", "host": "127.0.0.1",
                "api_url": "http://127.0.0.1:7002/patroni", "port": port, "timeline": 1,
                "receive_lsn": "0/4000060", "receive_lag": 0, "replay_lsn": "0/4000060",
                "replay_lag": 3 << 20, "lsn": "0/4000060", "lag": 0,
            })
        };
        let mut document = json!({"scope": "demo", "members": [
            {"name": "node1", "role": "leader", "state": "running", "host": "127.0.0.1",
             "port": 7101, "timeline": 1, "api_url": "http://127.0.0.1:7001/patroni"},
            standby("node2", 7102), standby("node3", 7103),
        ]});
        change(&mut document);
        Cluster {
            scope: "demo".to_owned(),
            initialize: Some("7710775333835992131".to_owned()),
            document: serde_json::from_value(document).expect("a document"),
            ..Cluster::default()
        }
    }

    fn check(cluster: &Cluster, look: Look, expected: Expect) {
        expected.assert_eq(&text(cluster, look));
    }

    #[test]
    fn the_table_is_that_of_patronictl() {
        check(
            &cluster(|_| {}),
            Look::PLAIN,
            expect![[r#"
                + Cluster: demo (7710775333835992131) ----------+----+-------------+-----+------------+-----+
                | Member | Host           | Role    | State     | TL | Receive LSN | Lag | Replay LSN | Lag |
                +--------+----------------+---------+-----------+----+-------------+-----+------------+-----+
                | node1  | 127.0.0.1:7101 | Leader  | running   |  1 |             |     |            |     |
                | node2  | 127.0.0.1:7102 | Replica | streaming |  1 |   0/4000060 |   0 |  0/4000060 |   3 |
                | node3  | 127.0.0.1:7103 | Replica | streaming |  1 |   0/4000060 |   0 |  0/4000060 |   3 |
                +--------+----------------+---------+-----------+----+-------------+-----+------------+-----+
            "#]],
        );
    }

    #[test]
    fn what_is_special_is_said() {
        let special = cluster(|it| {
            it["pause"] = json!(true);
            it["scheduled_switchover"] =
                json!({"at": "2030-01-01T00:00:00+00:00", "from": "node1"});
            let member = &mut it["members"][2];
            member["tags"] = json!({"replicatefrom": "node2", "zone": "b"});
            member["role"] = json!("quorum_standby");
            member["pending_restart"] = json!(true);
            member["pending_restart_reason"] =
                json!({"max_connections": {"old_value": "100", "new_value": "50"}});
            member["receive_lsn"] = json!("unknown");
            member["receive_lag"] = json!("unknown");
        });
        let tree = Look {
            tree: true,
            ..Look::PLAIN
        };
        check(
            &special,
            tree,
            expect![[r#"
                + Cluster: demo (7710775333835992131) --------+-----------+----+-------------+-----+------------+-----+-----------------+--------------------------+---------------------------------+
                | Member    | Host           | Role           | State     | TL | Receive LSN | Lag | Replay LSN | Lag | Pending restart | Pending restart reason   | Tags                            |
                +-----------+----------------+----------------+-----------+----+-------------+-----+------------+-----+-----------------+--------------------------+---------------------------------+
                | node1     | 127.0.0.1:7101 | Leader         | running   |  1 |             |     |            |     |                 |                          |                                 |
                | + node2   | 127.0.0.1:7102 | Replica        | streaming |  1 |   0/4000060 |   0 |  0/4000060 |   3 |                 |                          |                                 |
                |   + node3 | 127.0.0.1:7103 | Quorum Standby | streaming |  1 |     unknown |     |  0/4000060 |   3 | *               | max_connections: 100->50 | {replicatefrom: node2, zone: b} |
                +-----------+----------------+----------------+-----------+----+-------------+-----+------------+-----+-----------------+--------------------------+---------------------------------+
                 Maintenance mode: on
                 Switchover scheduled at: 2030-01-01T00:00:00+00:00
                                    from: node1
            "#]],
        );
    }

    #[test]
    fn programs_get_what_there_is() {
        let json = Look {
            format: Format::Json,
            ..Look::PLAIN
        };
        check(
            &cluster(|_| {}),
            json,
            expect![[r#"
                [{"Cluster": "demo", "Member": "node1", "Host": "127.0.0.1:7101", "Role": "Leader", "State": "running", "TL": 1}, {"Cluster": "demo", "Member": "node2", "Host": "127.0.0.1:7102", "Role": "Replica", "State": "streaming", "TL": 1, "Receive LSN": "0/4000060", "Receive Lag": 0, "Replay LSN": "0/4000060", "Replay Lag": 3}, {"Cluster": "demo", "Member": "node3", "Host": "127.0.0.1:7103", "Role": "Replica", "State": "streaming", "TL": 1, "Receive LSN": "0/4000060", "Receive Lag": 0, "Replay LSN": "0/4000060", "Replay Lag": 3}]
            "#]],
        );
    }

    #[test]
    fn there_may_be_no_cluster() {
        let nothing = Cluster {
            scope: "nosuch".to_owned(),
            ..Cluster::default()
        };
        check(
            &nothing,
            Look::PLAIN,
            expect![[r#"
                + Cluster: nosuch (uninitialized) --+-------------+-----+------------+-----+
                | Member | Host | Role | State | TL | Receive LSN | Lag | Replay LSN | Lag |
                +--------+------+------+-------+----+-------------+-----+------------+-----+
                +--------+------+------+-------+----+-------------+-----+------------+-----+
            "#]],
        );
    }
}
