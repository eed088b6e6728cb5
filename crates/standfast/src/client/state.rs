//! `show state`.

use super::Target;
use super::table::{Column, table};
use crate::exit::ExitCode;
use crate::output;
use api::v1::{Node, State};
use serde_json::{Value, json};

const COLUMNS: &[Column] = &[
    Column::new("Name"),
    Column::new("Node").width(5),
    Column::new("Host:Port"),
    Column::new("TLI: LSN"),
    Column::new("Connection").width(12),
    Column::new("Reported State").width(19),
    Column::new("Assigned State").width(19),
];

/// A store that changes its leader is silent for less.
const SILENT_MS: u64 = 2000;

pub(super) async fn show(target: &Target, as_json: bool) -> anyhow::Result<ExitCode> {
    let state = target.state().await?;
    let code = note_silence(&state);
    if as_json {
        output::json(&documents(&state))?;
    } else {
        output::print(&text(&state));
    }
    Ok(code)
}

/// What is shown comes from the store: when that is silent, it is what it said last, and no node may rely on it. Then the
/// command fails, unless the silence has only begun.
pub(super) fn note_silence(state: &State) -> ExitCode {
    state.store.silent_ms.map_or(ExitCode::Ok, note_silent)
}

/// The same, after so many milliseconds.
pub(crate) fn note_silent(ms: u64) -> ExitCode {
    output::note(&format!(
        "warning: the store has been silent for {}.{} s; this is what it said last, and a primary has stepped down or is \
         about to",
        ms / 1000,
        ms % 1000 / 100
    ));
    match ms < SILENT_MS {
        true => ExitCode::Ok,
        false => ExitCode::Unreachable,
    }
}

/// pg_auto_failover's table. Monitors have no Postgres and no row.
pub(super) fn text(state: &State) -> String {
    let rows: Vec<Vec<String>> = shown(state).map(row).collect();
    table(COLUMNS, &rows)
}

fn shown(state: &State) -> impl Iterator<Item = &Node> {
    state.nodes.iter().filter(|node| !node.witness)
}

fn row(node: &Node) -> Vec<String> {
    vec![
        node.name.to_string(),
        node.id.to_string(),
        host_port(node),
        format!("{:>3}: {}", node.timeline, node.lsn),
        connection(node),
        node.state.pg_auto_failover().to_owned(),
        node.assigned.pg_auto_failover().to_owned(),
    ]
}

pub(super) fn host_port(node: &Node) -> String {
    crate::config::Endpoint::new(node.host.clone(), node.port).to_string()
}

/// With `!` for a node that is not heard of.
fn connection(node: &Node) -> String {
    let bare = node.connection.trim_end_matches([' ', '!', '?']);
    if node.alive {
        bare.to_owned()
    } else {
        format!("{bare} !")
    }
}

/// pg_auto_failover's keys.
fn documents(state: &State) -> Vec<Value> {
    let document = |node: &Node| {
        json!({
            "health": i32::from(node.alive),
            "node_id": node.id,
            "group_id": 0,
            "nodehost": node.host,
            "nodename": node.name,
            "nodeport": node.port,
            "nodecluster": state.formation,
            "reported_lsn": node.lsn.to_string(),
            "reported_tli": node.timeline,
            "formation_kind": "pgsql",
            "candidate_priority": node.priority,
            "replication_quorum": node.quorum,
            "current_group_state": node.state.pg_auto_failover(),
            "assigned_group_state": node.assigned.pg_auto_failover(),
            "reason": node.reason,
            "lag_bytes": node.lag_bytes,
            "maintenance": node.maintenance,
        })
    };
    shown(state).map(document).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use ha::{Lsn, NodeName, NodeState, Timeline};

    pub(in crate::client) fn node(id: u64, state: NodeState, assigned: NodeState) -> Value {
        json!({
            "id": id, "name": format!("node_{id}"), "host": "127.0.0.1", "port": 6009 + id,
            "api_url": format!("http://127.0.0.1:{}", 7009 + id), "timeline": 2, "lsn": "0/6DCFCA0",
            "connection": state.connection(), "state": state, "assigned": assigned,
            "reason": "because", "rule": "r", "alive": true, "priority": 50, "quorum": true,
            "maintenance": false, "dropped": false, "lag_bytes": 0, "witness": false,
            "server_version": 150_018,
        })
    }

    pub(in crate::client) fn state(nodes: &[Value]) -> State {
        let document = json!({
            "scope": "default", "formation": "default", "epoch": 2, "leader": "node_2",
            "paused": false, "answered_by": "node_2", "version": "0.1.0",
            "sync": { "mode": "quorum", "strict": false, "text": "node_2 with 1 of (node_1)", "settings": [] },
            "store": { "leader": "monitor", "voters": [], "revision": 7 },
            "nodes": nodes,
        });
        serde_json::from_value(document).unwrap()
    }

    fn check(state: &State, expected: Expect) {
        expected.assert_eq(&text(state));
    }

    #[test]
    fn the_table_is_that_of_pg_auto_failover() {
        let mut after_failover = state(&[
            node(1, NodeState::Demoted, NodeState::CatchingUp),
            node(2, NodeState::WaitingPrimary, NodeState::WaitingPrimary),
        ]);
        let dead = &mut after_failover.nodes[0];
        (dead.alive, dead.timeline, dead.lsn) = (false, Timeline(1), Lsn(0x6DC_54B8));
        dead.connection = "none !".to_owned();
        check(
            &after_failover,
            expect![[r#"
                  Name |  Node |      Host:Port |       TLI: LSN |   Connection |      Reported State |      Assigned State
                -------+-------+----------------+----------------+--------------+---------------------+--------------------
                node_1 |     1 | 127.0.0.1:6010 |   1: 0/6DC54B8 |       none ! |             demoted |          catchingup
                node_2 |     2 | 127.0.0.1:6011 |   2: 0/6DCFCA0 |   read-write |        wait_primary |        wait_primary

            "#]],
        );
    }

    #[test]
    fn long_names_widen_and_monitors_are_left_out() {
        let mut wide = state(&[
            node(1, NodeState::Primary, NodeState::Primary),
            node(2, NodeState::Standby, NodeState::Standby),
            node(3, NodeState::Init, NodeState::Init),
        ]);
        wide.nodes[0].host = "a-long-host-name.example".to_owned();
        wide.nodes[1].name = NodeName::new("a-long-node-name").unwrap();
        wide.nodes[2].witness = true;
        check(
            &wide,
            expect![[r#"
                            Name |  Node |                     Host:Port |       TLI: LSN |   Connection |      Reported State |      Assigned State
                -----------------+-------+-------------------------------+----------------+--------------+---------------------+--------------------
                          node_1 |     1 | a-long-host-name.example:6010 |   2: 0/6DCFCA0 |   read-write |             primary |             primary
                a-long-node-name |     2 |                127.0.0.1:6011 |   2: 0/6DCFCA0 |    read-only |           secondary |           secondary

            "#]],
        );
    }

    #[test]
    fn json_has_the_keys_of_pg_auto_failover() {
        let state = state(&[node(1, NodeState::Single, NodeState::Single)]);
        let documents = documents(&state);
        let keys: Vec<&str> = documents[0]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        for key in [
            "health",
            "node_id",
            "group_id",
            "nodehost",
            "nodename",
            "nodeport",
            "nodecluster",
            "reported_lsn",
            "reported_tli",
            "formation_kind",
            "candidate_priority",
            "replication_quorum",
            "current_group_state",
            "assigned_group_state",
        ] {
            assert!(keys.contains(&key), "{key}");
        }
    }
}
