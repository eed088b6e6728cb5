//! `GET /cluster` without anybody to ask: from what a store holds, for a command line that reads the store itself.

use super::cluster;
use crate::clock;
use crate::office::Office;
use crate::served::Served;
use ha::NodeName;
use serde_json::Value;
use std::sync::Arc;
use store::Snapshot;
use store::layout::{Keys, Unreadable, read_cluster};

/// The document of the cluster whose keys these are.
///
/// # Errors
/// The first record that can't be read.
pub fn cluster_document(
    keys: &Keys,
    snapshot: &Arc<Snapshot>,
    scope: &str,
) -> Result<Value, Unreadable> {
    let unreadable = |why: String| Unreadable {
        key: keys.prefix().to_owned(),
        why,
    };
    let nobody = NodeName::new("nobody").map_err(|bad| unreadable(bad.to_string()))?;
    let mut served = Served::new(scope, nobody);
    served.cluster = Some(read_cluster(keys, snapshot)?);
    served.snapshot = Arc::clone(snapshot);
    let office = Office::new(&served, clock::now());
    let document = cluster::document(keys, &office);
    serde_json::to_value(document).map_err(|error| unreadable(error.to_string()))
}
