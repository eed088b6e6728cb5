//! `show events`.

use super::Target;
use super::table::{Column, table};
use crate::exit::ExitCode;
use crate::output;
use api::v1::State;
use serde_json::{Value, json};
use store::layout::EventRecord;

const COLUMNS: &[Column] = &[
    Column::new("Event Time").width(30),
    Column::new("Node").width(6),
    Column::new("Current State").width(19),
    Column::new("Assigned State").width(19),
    Column::new("Comment").width(10).left(),
];

pub(super) async fn show(target: &Target, count: u32, as_json: bool) -> anyhow::Result<ExitCode> {
    let state = target.state().await?;
    let events = fetch(target, count).await?;
    if as_json {
        let documents: Vec<Value> = events.iter().map(|event| document(event, &state)).collect();
        output::json(&documents)?;
    } else {
        output::print(&text(&events, &state));
    }
    Ok(ExitCode::Ok)
}

/// Newest last.
pub(super) async fn fetch(target: &Target, count: u32) -> anyhow::Result<Vec<EventRecord>> {
    target
        .api
        .get(&format!("/api/v1/events?count={count}"))
        .await
}

pub(super) fn text(events: &[EventRecord], state: &State) -> String {
    let row = |event: &EventRecord| {
        vec![
            time(&event.time),
            format!("0/{}", node_id(event, state)),
            event.state.pg_auto_failover().to_owned(),
            event.assigned.pg_auto_failover().to_owned(),
            // One line an event, whatever it says.
            event.reason.replace(['\n', '\r'], " "),
        ]
    };
    table(COLUMNS, &events.iter().map(row).collect::<Vec<_>>())
}

/// 0 for a node that left.
fn node_id(event: &EventRecord, state: &State) -> u64 {
    state
        .nodes
        .iter()
        .find(|node| node.name == event.node)
        .map_or(0, |node| node.id)
}

/// PostgreSQL's form: `2026-11-21 23:28:29.197979+00`.
fn time(rfc3339: &str) -> String {
    let text = rfc3339.replacen('T', " ", 1);
    text.strip_suffix('Z')
        .map_or_else(|| text.clone(), |bare| format!("{bare}+00"))
}

fn document(event: &EventRecord, state: &State) -> Value {
    let node = state.nodes.iter().find(|node| node.name == event.node);
    json!({
        "eventid": event.n,
        "eventtime": event.time,
        "formationid": state.formation,
        "groupid": 0,
        "nodeid": node_id(event, state),
        "nodename": event.node,
        "nodehost": node.map(|node| &node.host),
        "nodeport": node.map(|node| node.port),
        "reportedstate": event.state.pg_auto_failover(),
        "goalstate": event.assigned.pg_auto_failover(),
        "reportedrepstate": Value::Null,
        "reportedtli": node.map(|node| node.timeline),
        "reportedlsn": node.map(|node| node.lsn.to_string()),
        "candidatepriority": node.map(|node| node.priority),
        "replicationquorum": node.map(|node| node.quorum),
        "description": event.reason,
        "epoch": event.epoch,
        "rule": event.rule,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::state::tests::{node, state};
    use expect_test::expect;
    use ha::NodeState;

    #[test]
    fn the_table_is_that_of_pg_auto_failover() {
        let event = json!({
            "n": 7, "time": "2026-11-21T23:28:29.197979Z", "node": "node_2", "epoch": 1,
            "state": "standby", "assigned": "promoting", "rule": "claim",
            "reason": "node_1 is silent for 1.0 s",
        });
        let events: Vec<EventRecord> = serde_json::from_value(json!([event])).unwrap();
        let state = state(&[
            node(1, NodeState::Primary, NodeState::Primary),
            node(2, NodeState::Standby, NodeState::Standby),
        ]);
        expect![[r#"
                                Event Time |   Node |       Current State |      Assigned State | Comment
            -------------------------------+--------+---------------------+---------------------+-----------
             2026-11-21 23:28:29.197979+00 |    0/2 |           secondary |   prepare_promotion | node_1 is silent for 1.0 s

        "#]]
        .assert_eq(&text(&events, &state));
    }
}
