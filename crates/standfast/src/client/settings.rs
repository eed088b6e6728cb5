//! `show settings` and `show standby-names`.

use super::Target;
use super::table::{Column, table};
use crate::exit::ExitCode;
use crate::output;
use api::v1::{Settings, StandbyNames, State};
use serde_json::json;

const COLUMNS: &[Column] = &[
    Column::new("Context").width(9),
    Column::new("Name"),
    Column::new("Setting"),
    Column::new("Value").left(),
];

pub(super) async fn show(target: &Target, as_json: bool) -> anyhow::Result<ExitCode> {
    let state = target.state().await?;
    let settings: Settings = target.api.get("/api/v1/settings").await?;
    if as_json {
        output::json(&settings)?;
    } else {
        output::print(&text(&state, &settings));
    }
    Ok(ExitCode::Ok)
}

pub(super) async fn standby_names(target: &Target, as_json: bool) -> anyhow::Result<ExitCode> {
    let state = target.state().await?;
    let names: StandbyNames = target.api.get("/api/v1/standby-names").await?;
    if as_json {
        let document = json!({
            "formation": state.formation,
            "group": 0,
            "standby_names": names.standby_names,
            "settled": names.settled,
        });
        output::json(&document)?;
    } else {
        output::line(&format!("'{}'", names.standby_names));
    }
    Ok(ExitCode::Ok)
}

fn text(state: &State, settings: &Settings) -> String {
    let row = |context: &str, name: &str, setting: &str, value: String| {
        vec![
            context.to_owned(),
            name.to_owned(),
            setting.to_owned(),
            value,
        ]
    };
    let sync = settings.number_sync_standbys.to_string();
    let mut rows = vec![row(
        "formation",
        &state.formation,
        "number_sync_standbys",
        sync,
    )];
    if let Some(leader) = &state.leader {
        let names = format!("'{}'", settings.synchronous_standby_names);
        rows.push(row(
            "primary",
            leader.as_str(),
            "synchronous_standby_names",
            names,
        ));
    }
    for node in &settings.nodes {
        let priority = node.priority.to_string();
        rows.push(row(
            "node",
            node.name.as_str(),
            "candidate priority",
            priority,
        ));
    }
    for node in &settings.nodes {
        let quorum = node.quorum.to_string();
        rows.push(row(
            "node",
            node.name.as_str(),
            "replication quorum",
            quorum,
        ));
    }
    table(COLUMNS, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::state::tests::{node, state};
    use expect_test::expect;
    use ha::NodeState;

    #[test]
    fn the_table_is_that_of_pg_auto_failover() {
        let state = state(&[
            node(1, NodeState::Standby, NodeState::Standby),
            node(2, NodeState::Primary, NodeState::Primary),
        ]);
        let one = |id: u64| json!({ "id": id, "name": format!("node_{id}"), "priority": 50, "quorum": true, "maintenance": false });
        let settings: Settings = serde_json::from_value(json!({
            "config": {},
            "effective": {
                "ttl": 3.0, "beat": 0.25, "loop_wait": 1.0, "failure_timeout": 1.0,
                "synchronous_mode": "quorum", "synchronous_mode_strict": false,
                "synchronous_node_count": 1, "synchronous_relax_after": 2.0,
                "maximum_lag_on_failover": 1_048_576, "election_window": 0.3,
                "primary_start_timeout": 60.0, "hang_timeout": 0.9, "pause": false,
            },
            "number_sync_standbys": 1,
            "synchronous_standby_names": "ANY 1 (node_1)",
            "nodes": [one(1), one(2)],
        }))
        .unwrap();
        expect![[r#"
              Context |    Name |                   Setting | Value
            ----------+---------+---------------------------+-----------------
            formation | default |      number_sync_standbys | 1
              primary |  node_2 | synchronous_standby_names | 'ANY 1 (node_1)'
                 node |  node_1 |        candidate priority | 50
                 node |  node_2 |        candidate priority | 50
                 node |  node_1 |        replication quorum | true
                 node |  node_2 |        replication quorum | true

        "#]]
        .assert_eq(&text(&state, &settings));
    }
}
