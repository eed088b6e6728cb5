//! `get node` and `set node`.

use super::Target;
use crate::cli::meant::{NodeProperty, NodeValue};
use crate::exit::{ExitCode, Failure};
use crate::output;
use api::v1::{Node, NodeSettings, State};
use ha::NodeName;
use serde_json::{Value, json};

pub(super) async fn get(
    target: &Target,
    named: Option<&NodeName>,
    property: NodeProperty,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let name = target.node(named)?;
    let state = target.state().await?;
    let node = find(&state, &name)?;
    let value = match property {
        NodeProperty::CandidatePriority => NodeValue::CandidatePriority(node.priority),
        NodeProperty::ReplicationQuorum => NodeValue::ReplicationQuorum(node.quorum),
    };
    print(&name, value, as_json)
}

pub(super) async fn set(
    target: &Target,
    named: Option<&NodeName>,
    value: NodeValue,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let name = target.node(named)?;
    if find(&target.state().await?, &name)?.witness {
        return Err(Failure::unknown(format!("{name} has no Postgres")).into());
    }
    let settings = match value {
        NodeValue::CandidatePriority(priority) => NodeSettings {
            priority: Some(priority),
            quorum: None,
        },
        NodeValue::ReplicationQuorum(quorum) => NodeSettings {
            priority: None,
            quorum: Some(quorum),
        },
    };
    let _: Value = target
        .api
        .post(&format!("/api/v1/nodes/{name}"), &settings)
        .await?;
    print(&name, value, as_json)
}

pub(super) fn find<'a>(state: &'a State, name: &NodeName) -> Result<&'a Node, Failure> {
    state
        .nodes
        .iter()
        .find(|node| node.name == *name)
        .ok_or_else(|| {
            let names: Vec<&str> = state.nodes.iter().map(|node| node.name.as_str()).collect();
            let failure = Failure::unknown(format!("there is no node {name} in this cluster"));
            failure.hint(format!("its nodes are {}", names.join(", ")))
        })
}

fn print(name: &NodeName, value: NodeValue, as_json: bool) -> anyhow::Result<ExitCode> {
    let (property, value) = match value {
        NodeValue::CandidatePriority(priority) => ("candidate-priority", json!(priority)),
        NodeValue::ReplicationQuorum(quorum) => ("replication-quorum", json!(quorum)),
    };
    if as_json {
        output::json(&json!({ "name": name, property: value }))?;
    } else {
        output::line(&value.to_string());
    }
    Ok(ExitCode::Ok)
}
