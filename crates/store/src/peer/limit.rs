//! Says the same thing about the same peer only now and then.

use crate::lock;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

const PAUSE: Duration = Duration::from_secs(60);

/// So many peers are told apart; whoever knocks from ever new addresses must not fill the memory.
const PEERS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Sparingly {
    said: Mutex<BTreeMap<String, Instant>>,
}

impl Sparingly {
    /// Whether nothing was said about `peer` for a while. Asking counts as saying.
    pub(crate) fn may_speak(&self, peer: &str) -> bool {
        let mut said = lock(&self.said);
        said.retain(|_, at| at.elapsed() < PAUSE);
        if said.contains_key(peer) || said.len() >= PEERS_MAX {
            return false;
        }
        said.insert(peer.to_owned(), Instant::now());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_peer_is_spoken_of_once_a_minute() {
        let sparingly = Sparingly::default();
        assert!(sparingly.may_speak("a"));
        assert!(sparingly.may_speak("b"));
        assert!(!sparingly.may_speak("a"));
        tokio::time::advance(PAUSE).await;
        assert!(sparingly.may_speak("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_of_strangers_is_not_remembered_without_bound() {
        let sparingly = Sparingly::default();
        let spoken = (0..1000)
            .filter(|n| sparingly.may_speak(&n.to_string()))
            .count();
        assert_eq!(spoken, PEERS_MAX);
    }
}
