//! Which of several servers is the primary, by what is seen of them from outside.
//!
//! **Invariant:** a primary of an older timeline than one that was seen is never named.
//!
//! Timelines stand in for epochs: they grow with every promotion, but two servers that were
//! promoted apart may have the same one, and an old primary that nobody has told goes on in its own.

use super::{Primary, Topology};
use crate::gate::Gate;
use ha::Epoch;
use std::sync::Arc;
use tokio::sync::watch;

/// What one server is seen to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub name: String,
    /// HOST:PORT.
    pub address: String,
    pub is_primary: bool,
    pub timeline: Option<u64>,
    /// Commits wait for it: if it becomes the primary, it has them all.
    pub confirms: bool,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Judge {
    epoch: u64,
    losses: u64,
    timeline: u64,
    /// The address of the newest primary.
    current: Option<String>,
    /// Those for whom its commits waited, when it was there last.
    confirming: Vec<String>,
}

impl Judge {
    pub(super) fn judge(&mut self, seen: &[Sighting]) -> Topology {
        let primary = self.primary(seen).map(|one| Primary {
            name: one.name.clone(),
            address: one.address.clone(),
        });
        Topology {
            epoch: Epoch(self.epoch),
            primary,
            losses: self.losses,
        }
    }

    fn primary<'s>(&mut self, seen: &'s [Sighting]) -> Result<&'s Sighting, String> {
        let primaries = || seen.iter().filter(|one| one.is_primary);
        let timeline = |one: &Sighting| one.timeline.unwrap_or(0);
        let newest = primaries().map(timeline).max();
        let newest = newest.ok_or("no server says that it is the primary")?;
        if newest < self.timeline {
            return Err(format!(
                "the only primary is one of timeline {newest}, and timeline {} has begun",
                self.timeline
            ));
        }
        let mut candidates = primaries().filter(|one| timeline(one) == newest);
        let is_current = |one: &&Sighting| Some(&one.address) == self.current.as_ref();
        let first = candidates.next().ok_or("no server is the primary")?;
        let one = match candidates.next() {
            None => first,
            Some(second) => {
                let known = primaries().find(|one| timeline(one) == newest && is_current(one));
                known.ok_or_else(|| {
                    let (a, b) = (&first.name, &second.name);
                    format!("{a} and {b} both say that they are the primary")
                })?
            }
        };
        if self.current.as_ref() != Some(&one.address) || newest > self.timeline {
            let is_another = self.current.as_ref().is_some_and(|it| *it != one.address);
            if is_another && !self.confirming.contains(&one.name) {
                self.losses += 1;
                tracing::warn!(
                    to = one.name,
                    "the new primary may lack commits that were acknowledged"
                );
            }
            self.epoch += 1;
            self.timeline = newest;
            self.current = Some(one.address.clone());
        }
        let confirming = seen.iter().filter(|one| one.confirms);
        self.confirming = confirming.map(|one| one.name.clone()).collect();
        Ok(one)
    }
}

/// Follows what is told, for as long as somebody looks.
pub(super) async fn follow(
    mut told: watch::Receiver<Arc<Vec<Sighting>>>,
    gate: Arc<Gate>,
    topology: watch::Sender<Arc<Topology>>,
) {
    let mut judge = Judge::default();
    loop {
        let seen = Arc::clone(&told.borrow_and_update());
        // Before the first look nothing is known, not even that there is no primary.
        if !seen.is_empty() {
            let now = judge.judge(&seen);
            if **topology.borrow() != now {
                let ended = gate.adopt(now.epoch);
                match &now.primary {
                    Ok(primary) => {
                        let address = &primary.address;
                        tracing::info!(node = primary.name, address, ended, "there is a primary");
                    }
                    Err(reason) => tracing::info!(reason, ended, "there is no primary"),
                }
                topology.send_replace(Arc::new(now));
            }
        }
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            () = topology.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Vec<Sighting> {
        text.split_whitespace()
            .map(|word| {
                let mut parts = word.split(':');
                let (name, role) = (parts.next().unwrap(), parts.next().unwrap());
                Sighting {
                    name: name.to_owned(),
                    address: format!("{name}:5432"),
                    is_primary: role == "primary",
                    timeline: parts.next().map(|timeline| timeline.parse().unwrap()),
                    confirms: role == "sync",
                }
            })
            .collect()
    }

    /// What is made of a series of looks: primary, epoch, losses.
    fn told(looks: &[&str]) -> Vec<String> {
        let mut judge = Judge::default();
        looks
            .iter()
            .map(|look| {
                let now = judge.judge(&seen(look));
                let primary = now.primary.map_or_else(|_| "-".to_owned(), |it| it.name);
                format!("{primary} {} {}", now.epoch.0, now.losses)
            })
            .collect()
    }

    #[test]
    fn a_failover_is_a_new_epoch_and_a_loss_unless_the_standby_confirmed() {
        assert_eq!(
            told(&[
                "a:primary:1 b:async",
                "b:async",
                "b:primary:2",
                "b:primary:2"
            ]),
            ["a 1 0", "- 1 0", "b 2 1", "b 2 1"]
        );
        assert_eq!(
            told(&["a:primary:1 b:sync c:async", "b:sync", "b:primary:2"]),
            ["a 1 0", "- 1 0", "b 2 0"]
        );
        // The same one again loses nothing.
        assert_eq!(
            told(&["a:primary:1", "a:standby", "a:primary:2"]),
            ["a 1 0", "- 1 0", "a 2 0"]
        );
    }

    #[test]
    fn an_old_primary_is_not_believed() {
        assert_eq!(
            told(&[
                "a:primary:1 b:sync",
                "b:primary:2",
                "a:primary:1 b:primary:2",
                "a:primary:1"
            ]),
            ["a 1 0", "b 2 0", "b 2 0", "- 2 0"]
        );
    }

    #[test]
    fn of_two_equals_the_one_that_was_there_before_stays_and_else_none_is_named() {
        assert_eq!(
            told(&["a:primary:1", "a:primary:1 b:primary:1"]),
            ["a 1 0", "a 1 0"]
        );
        assert_eq!(told(&["a:primary:1 b:primary:1"]), ["- 0 0"]);
    }
}
