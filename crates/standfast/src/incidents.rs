//! The cluster's own events after a moment, for the demo's timeline and the bench's `--timeline`.

use jiff::Timestamp;
use lab::Cluster;
use store::layout::EventRecord;

/// What the nodes did and why, in milliseconds after `moment`, up to `within` of them; empty if no
/// node answers.
pub(crate) async fn after(cluster: &Cluster, moment: Timestamp, within: i64) -> Vec<(i64, String)> {
    for node in cluster.nodes.iter().rev() {
        let Ok(answer) = node.get("/api/v1/events?count=200").await else {
            continue;
        };
        let Ok(events) = serde_json::from_str::<Vec<EventRecord>>(&answer.body) else {
            continue;
        };
        let told = |event: &EventRecord| {
            let at: Timestamp = event.time.parse().ok()?;
            let after = at.as_millisecond() - moment.as_millisecond();
            let text = format!("{}: {}", event.node, event.reason);
            (0..within).contains(&after).then_some((after, text))
        };
        let mut told: Vec<_> = events.iter().filter_map(told).collect();
        told.sort();
        return told;
    }
    Vec::new()
}
