//! The leader's signs of life: its beat in the store, its WAL stream, and, when those fall silent, a direct probe.

use crate::clock::now;
use api::client::{Client, Question};
use ha::{Cluster, Contact, Instant, Lsn, NodeName};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::Revision;

/// How long a direct probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);

/// Collects signs of life of the present leader.
#[derive(Debug)]
pub(crate) struct Signs {
    watched: Option<NodeName>,
    contact: Contact,
    beat_revision: Option<Revision>,
    received: Lsn,
    probed: Arc<Mutex<Probed>>,
    client: Client,
}

#[derive(Debug, Default)]
struct Probed {
    running: bool,
    answered: Option<Instant>,
}

impl Signs {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            watched: None,
            contact: Contact {
                since: now(),
                ..Contact::default()
            },
            beat_revision: None,
            received: Lsn::ZERO,
            probed: Arc::default(),
            client,
        }
    }

    /// What is known of the leader's life, with the newest view. `beat` is the revision of its last beat, `received`
    /// the WAL position flushed here, which counts if what is here came from the leader `direct`ly, and `heard` the last
    /// message of its WAL stream.
    pub(crate) fn contact(
        &mut self,
        cluster: &Cluster,
        beat: Option<Revision>,
        received: Lsn,
        direct: bool,
        heard: Option<Instant>,
    ) -> Contact {
        let at = now();
        let epoch = cluster.current_epoch();
        if self.contact.epoch != epoch || self.watched != cluster.leader {
            self.contact = Contact {
                epoch,
                since: at,
                ..Contact::default()
            };
            self.watched.clone_from(&cluster.leader);
            self.probed = Arc::default();
            self.received = received;
        }
        if beat.is_some() && self.beat_revision != beat {
            self.beat_revision = beat;
            self.contact.beat = Some(at);
        }
        if received > self.received {
            self.received = received;
            self.contact.wal = if direct { Some(at) } else { self.contact.wal };
        }
        self.contact.wal = self.contact.wal.max(heard);
        let probed = self
            .probed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .answered;
        self.contact.probe = self.contact.probe.max(probed);
        self.contact
    }

    /// Asks the leader's agent directly, once at a time, when its other signs have been silent for a while.
    pub(crate) fn probe_if_silent(&self, cluster: &Cluster) {
        let Some(member) = self
            .watched
            .as_ref()
            .and_then(|leader| cluster.members.get(leader))
        else {
            return;
        };
        let others = [self.contact.beat, self.contact.wal]
            .into_iter()
            .flatten()
            .max();
        let silence = now().since(others.unwrap_or(self.contact.since));
        if silence < cluster.settings.failure_timeout / 2 {
            return;
        }
        let mut probed = self.probed.lock().unwrap_or_else(PoisonError::into_inner);
        if probed.running {
            return;
        }
        probed.running = true;
        drop(probed);
        // An agent that has given up on a hung disk is alive and no leader any more.
        let url = question(&member.api_url, "leader");
        let client = self.client.clone();
        let shared = Arc::clone(&self.probed);
        tokio::spawn(async move {
            let sent = now();
            let answer = client.ask(Question::get(&url, PROBE_TIMEOUT)).await;
            let alive = answer.is_ok_and(|answer| answer.status == 200);
            let mut probed = shared.lock().unwrap_or_else(PoisonError::into_inner);
            probed.running = false;
            if alive {
                probed.answered = probed.answered.max(Some(sent));
            }
        });
    }
}

/// Where a member answers `path`. Members publish `http://host:port/patroni`.
pub(crate) fn question(api_url: &str, path: &str) -> String {
    let base = api_url.strip_suffix("/patroni").unwrap_or(api_url);
    format!("{}/{path}", base.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_asks_whether_it_leads() {
        assert_eq!(
            question("http://10.0.0.1:8008/patroni", "leader"),
            "http://10.0.0.1:8008/leader"
        );
        assert_eq!(
            question("https://10.0.0.1:8008/patroni", "leader"),
            "https://10.0.0.1:8008/leader"
        );
        assert_eq!(
            question("http://10.0.0.1:8008", "leader"),
            "http://10.0.0.1:8008/leader"
        );
    }
}
