//! A cluster of Patroni's: its REST interface is asked who leads.

use ::proxy::{Doubt, Look, Sighting, Source};
use api::client::{Client, Question, Trust, TrustOptions};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A node that takes longer to answer is passed over.
const LIMIT: Duration = Duration::from_secs(1);

/// What can't be relied on.
const MISSING: &[&str] = &[
    "a failover is seen up to a second late if no connection breaks before, and until then an old primary that still runs is believed",
    "timelines stand in for epochs: Patroni writes none, and its fencing is its own affair",
    "a new leader counts as one without loss if the last look before it showed it as a synchronous standby, and every other as one that may have lost commits; what happened after that look is not seen",
];

/// What `/cluster` says of one member; there is more.
#[derive(Debug, Deserialize)]
struct Member {
    name: String,
    role: String,
    #[serde(default)]
    state: String,
    host: Option<String>,
    port: Option<u16>,
    timeline: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Cluster {
    members: Vec<Member>,
}

/// Looks for as long as somebody listens. Must be called in a runtime.
pub(super) fn source(urls: Vec<String>, trust: TrustOptions) -> Source {
    let (told, looks) = watch::channel(None);
    let doubt = Doubt::default();
    tokio::spawn(look(
        urls,
        Client::new(Trust::new(trust)),
        doubt.clone(),
        told,
    ));
    Source::Told {
        looks,
        doubt,
        missing: MISSING,
    }
}

async fn look(
    mut urls: Vec<String>,
    client: Client,
    doubt: Doubt,
    told: watch::Sender<Option<Arc<Look>>>,
) {
    let mut is_silent = false;
    let mut last = None;
    loop {
        tokio::select! {
            () = doubt.next_look(last) => {}
            () = told.closed() => return,
        }
        let mut seen = None;
        let mut begun = Instant::now();
        for number in 0..urls.len() {
            begun = Instant::now();
            if let Some(members) = ask(&client, &urls[number]).await {
                seen = Some(members);
                // Who has answered is asked first the next time.
                urls.swap(0, number);
                break;
            }
        }
        let found = |seen: &Vec<Sighting>| seen.iter().any(|one| one.is_primary);
        last = Some((begun, seen.as_ref().is_some_and(found)));
        let Some(seen) = seen else {
            // Nothing is known to have changed.
            if !std::mem::replace(&mut is_silent, true) {
                tracing::warn!("no node of Patroni's answers; the primary stays what it was");
            }
            continue;
        };
        if std::mem::take(&mut is_silent) {
            tracing::info!("a node of Patroni's answers again");
        }
        told.send_replace(Some(Arc::new(Look { begun, seen })));
    }
}

async fn ask(client: &Client, url: &str) -> Option<Vec<Sighting>> {
    let url = format!("{}/cluster", url.trim_end_matches('/'));
    let answer = match client.ask(Question::get(&url, LIMIT)).await {
        Ok(answer) if answer.status == 200 => answer,
        Ok(answer) => {
            tracing::debug!(
                url,
                status = answer.status,
                "a node of Patroni's has no answer"
            );
            return None;
        }
        Err(error) => {
            tracing::debug!(url, %error, "a node of Patroni's does not answer");
            return None;
        }
    };
    match read(&answer.body) {
        Ok(seen) => Some(seen),
        Err(error) => {
            tracing::debug!(url, %error, "what a node says is no cluster of Patroni's");
            None
        }
    }
}

fn read(body: &[u8]) -> serde_json::Result<Vec<Sighting>> {
    let cluster: Cluster = serde_json::from_slice(body)?;
    let sighting = |member: Member| {
        let (host, port) = (member.host?, member.port?);
        let runs = matches!(member.state.as_str(), "running" | "streaming");
        // The leader of a standby cluster takes no writes.
        let leads = matches!(member.role.as_str(), "leader" | "master" | "primary");
        Some(Sighting {
            address: match host.contains(':') {
                true => format!("[{host}]:{port}"),
                false => format!("{host}:{port}"),
            },
            leads,
            is_primary: runs && leads,
            confirms: matches!(member.role.as_str(), "sync_standby" | "quorum_standby"),
            timeline: member.timeline,
            name: member.name,
        })
    };
    Ok(cluster.members.into_iter().filter_map(sighting).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_patroni_says_is_understood() {
        let body = br#"{"members": [
            {"name": "n1", "role": "leader", "state": "running", "api_url": "http://x:8008/patroni",
             "host": "10.0.0.1", "port": 5432, "timeline": 7},
            {"name": "n2", "role": "sync_standby", "state": "streaming", "host": "::2",
             "port": 5432, "timeline": 7, "lag": 0},
            {"name": "n3", "role": "replica", "state": "start failed", "lag": "unknown",
             "host": "10.0.0.3", "port": 5433},
            {"name": "n4", "role": "replica", "state": "stopped"}], "scope": "batman"}"#;
        let seen = read(body).unwrap();
        let short: Vec<_> = seen
            .iter()
            .map(|one| (&*one.address, one.is_primary, one.confirms, one.timeline))
            .collect();
        assert_eq!(
            short,
            [
                ("10.0.0.1:5432", true, false, Some(7)),
                ("[::2]:5432", false, true, Some(7)),
                ("10.0.0.3:5433", false, false, None),
            ]
        );
        assert!(read(b"{}").is_err());
    }
}
