//! Says that a proxy knows no primary, and what is the likely cure: a name or a secret that is not the cluster's looks
//! from within like a cluster that is silent.
//!
//! A failover is over before anything is said.

use ::proxy::{Handle, Source};
use std::time::Duration;
use store::layout::is_nobodys;
use tokio::time::{Instant, sleep_until, timeout};

/// Without a primary for so long, something is wrong.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two complaints.
const AGAIN: Duration = Duration::from_secs(60);
/// A store that has not answered within it is silent.
const LIMIT: Duration = Duration::from_secs(3);

/// Watches until it is dropped.
pub(super) async fn watch(handle: Handle, source: Source) {
    loop {
        handle.primary_is_missing().await;
        let since = Instant::now();
        let mut due = since + PATIENCE;
        while !known_before(&handle, due).await {
            let why = handle.primary_is_missing().await;
            let (reason, cure) = diagnosis(&source, why).await;
            tracing::warn!(
                for_s = since.elapsed().as_secs(),
                reason,
                cure,
                "the proxy knows no primary, clients wait"
            );
            due = Instant::now() + AGAIN;
        }
        if since.elapsed() >= PATIENCE {
            let after_s = since.elapsed().as_secs();
            tracing::info!(after_s, "the proxy knows a primary");
        }
    }
}

async fn known_before(handle: &Handle, due: Instant) -> bool {
    tokio::select! {
        () = handle.primary_is_known() => true,
        () = sleep_until(due) => false,
    }
}

/// What is wrong, and what to look at. `why` is what the proxy itself makes of it.
async fn diagnosis(source: &Source, why: String) -> (String, &'static str) {
    let (store, keys) = match source {
        Source::Server(_) | Source::Servers { .. } => {
            let cure = "does the primary run, can `check_user` log in at each of `servers`";
            return (why, cure);
        }
        Source::Told { .. } => return (why, "do the nodes that `patroni` names answer"),
        Source::Store { store, keys } => (store, keys),
    };
    match timeout(LIMIT, store.read(keys.prefix())).await {
        Err(_) => (
            "the store does not answer".to_owned(),
            "does a majority of its members run, and can they be reached from here",
        ),
        Ok(Err(error)) if error.is_retryable() => (
            error.to_string(),
            "does a majority of its members run, and can they be reached from here",
        ),
        Ok(Err(error)) => (
            error.to_string(),
            "scope, namespace, the secret and certificates must be those of the cluster's nodes",
        ),
        Ok(Ok(snapshot)) if is_nobodys(keys, &snapshot) => (
            why,
            "scope and namespace must be those of the cluster's nodes",
        ),
        Ok(Ok(_)) => (why, "`standfast status` on a node tells more"),
    }
}
