//! What `/api/v1/` shows: from the published picture to documents.
//!
//! **Invariant:** nothing here waits, writes or asks anybody.

mod events;
mod explain;
pub(crate) mod metrics;
mod settings;
mod state;

pub(crate) use events::{list, stream};
pub(crate) use explain::{explain, seen_by_leader};
pub(crate) use settings::{settings, standby_names, uri};
pub(crate) use state::state;

use crate::error::Refusal;
use crate::office::Office;
use crate::v1;
use ha::Cluster;
use std::time::Duration;

/// The cluster, or that nothing is known of it yet.
pub(crate) fn cluster<'a>(office: &Office<'a>) -> Result<&'a Cluster, Refusal> {
    office.cluster().ok_or_else(Refusal::no_contact)
}

/// `GET /api/v1/decision`.
pub(crate) fn decision(office: &Office<'_>) -> Result<v1::Decision, Refusal> {
    let Some(decision) = &office.served.decision else {
        return Err(Refusal::new(
            v1::Code::Unavailable,
            "this node has not decided anything yet",
        ));
    };
    Ok(v1::Decision {
        node: office.served.name.clone(),
        state: decision.state,
        assigned: decision.assigned,
        rule: decision.rule.to_owned(),
        reason: decision.reason.clone(),
        actions: decision
            .actions
            .iter()
            .map(|action| serde_json::to_value(action).unwrap_or_default())
            .collect(),
        age_ms: millis(office.age()),
    })
}

pub(crate) fn millis(span: Duration) -> u64 {
    span.as_millis().try_into().unwrap_or(u64::MAX)
}
