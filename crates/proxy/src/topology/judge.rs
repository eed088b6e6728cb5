//! Which of several servers is the primary, by what is seen of them from outside.
//!
//! **Invariant:** a primary of an older timeline than one that was seen is never named.
//!
//! **Invariant:** a change of the primary counts as one without loss only if the last look before it,
//! not long before, showed the new one among those for whom commits waited, and nobody can have
//! been primary in between.
//!
//! Timelines stand in for epochs: they grow with every promotion, but two servers that were
//! promoted apart may have the same one, and an old primary that nobody has told goes on in its own.

use super::{Primary, Topology};
use crate::gate::Gate;
use ha::Epoch;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What an older look has shown proves nothing of a change that a newer one finds.
const PROOF_AGE_MAX: Duration = Duration::from_secs(5);

/// What one server is seen to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub name: String,
    /// HOST:PORT.
    pub address: String,
    /// The cluster takes it for its leader, whether it runs or not.
    pub leads: bool,
    pub is_primary: bool,
    pub timeline: Option<u64>,
    /// Commits wait for it: if it becomes the primary, it has them all.
    pub confirms: bool,
}

/// All servers at one moment.
#[derive(Debug, Clone)]
pub struct Look {
    pub begun: Instant,
    pub seen: Vec<Sighting>,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Judge {
    epoch: u64,
    losses: u64,
    timeline: u64,
    /// The address of the newest primary, and whether the last look has shown it.
    current: Option<(String, bool)>,
    /// When it was seen last for whom commits wait, and for whom.
    proof: Option<(Instant, Vec<String>)>,
}

impl Judge {
    pub(super) fn judge(&mut self, look: &Look) -> Topology {
        let primary = self.primary(look).map(|one| Primary {
            name: one.name.clone(),
            address: one.address.clone(),
        });
        if let Some((_, is_there)) = &mut self.current {
            *is_there = primary.is_ok();
        }
        self.take_note(look);
        Topology {
            epoch: Epoch(self.epoch),
            primary,
            losses: self.losses,
        }
    }

    fn primary<'s>(&mut self, look: &'s Look) -> Result<&'s Sighting, String> {
        let primaries = || look.seen.iter().filter(|one| one.is_primary);
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
        let first = candidates.next().ok_or("no server is the primary")?;
        let one = match candidates.next() {
            None => first,
            Some(second) => {
                let known = primaries().find(|one| timeline(one) == newest && self.is_current(one));
                known.ok_or_else(|| {
                    let (a, b) = (&first.name, &second.name);
                    format!("{a} and {b} both say that they are the primary")
                })?
            }
        };
        self.adopt(one, newest, look.begun);
        Ok(one)
    }

    fn is_current(&self, one: &Sighting) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|(address, _)| *address == one.address)
    }

    /// Takes it for the primary from now on.
    fn adopt(&mut self, one: &Sighting, timeline: u64, now: Instant) {
        let is_same = self.is_current(one);
        let step = timeline - self.timeline;
        // A server is named when it leads, and tells its new timeline when it is promoted; and one
        // that was promoted without ever being missed has closed its older connections itself.
        let was_there = self.current.as_ref().is_some_and(|(_, there)| *there);
        let goes_on = is_same && (step == 0 || (step == 1 && was_there));
        if self.current.is_some()
            && let Err(why) = self.loses_nothing(one, is_same, step, now)
        {
            self.losses += 1;
            tracing::warn!(
                to = one.name,
                why,
                "the new primary may lack commits that were acknowledged"
            );
        }
        if !goes_on {
            self.epoch += 1;
        }
        self.timeline = timeline;
        self.current = Some((one.address.clone(), true));
    }

    /// Or the reason why that is not known.
    fn loses_nothing(
        &self,
        one: &Sighting,
        is_same: bool,
        step: u64,
        now: Instant,
    ) -> Result<(), String> {
        if step > 1 {
            return Err("another one was the primary in between".to_owned());
        }
        if is_same {
            return Ok(());
        }
        let Some((seen, confirming)) = &self.proof else {
            return Err("nothing is known of the time before".to_owned());
        };
        let age = now.saturating_duration_since(*seen);
        if age > PROOF_AGE_MAX {
            return Err(format!("the last look before was {age:?} before"));
        }
        match confirming.contains(&one.name) {
            true => Ok(()),
            false => Err("no commit waited for it when it was last looked".to_owned()),
        }
    }

    /// For whom commits wait is said by who leads, or else as the last leader has left it; what the
    /// next one makes of it says nothing of the time before.
    fn take_note(&mut self, look: &Look) {
        let another = |one: &&Sighting| one.leads && !self.is_current(one);
        if look.seen.iter().any(|one| another(&one)) {
            return;
        }
        let confirming = look.seen.iter().filter(|one| one.confirms);
        let names = confirming.map(|one| one.name.clone()).collect();
        self.proof = Some((look.begun, names));
    }
}

/// Follows what is told, for as long as somebody looks.
pub(super) async fn follow(
    mut told: watch::Receiver<Option<Arc<Look>>>,
    gate: Arc<Gate>,
    topology: watch::Sender<Arc<Topology>>,
) {
    let mut judge = Judge::default();
    loop {
        // Before the first look nothing is known, not even that there is no primary.
        let look = told.borrow_and_update().clone();
        if let Some(look) = look {
            let now = judge.judge(&look);
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
                    leads: matches!(role, "primary" | "leads"),
                    is_primary: role == "primary",
                    timeline: parts.next().map(|timeline| timeline.parse().unwrap()),
                    confirms: role == "sync",
                }
            })
            .collect()
    }

    /// What is made of a series of looks, so many seconds apart: primary, epoch, losses.
    fn told_every(seconds: u64, looks: &[&str]) -> Vec<String> {
        let mut judge = Judge::default();
        let mut begun = Instant::now();
        looks
            .iter()
            .map(|look| {
                begun += Duration::from_secs(seconds);
                let seen = seen(look);
                let now = judge.judge(&Look { begun, seen });
                let primary = now.primary.map_or_else(|_| "-".to_owned(), |it| it.name);
                format!("{primary} {} {}", now.epoch.0, now.losses)
            })
            .collect()
    }

    fn told(looks: &[&str]) -> Vec<String> {
        told_every(1, looks)
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
    fn the_last_look_before_counts_and_no_other() {
        // It became synchronous between the last look at the primary and its end, or was so no more.
        assert_eq!(
            told(&["a:primary:1 b:async", "b:sync", "b:primary:2"]),
            ["a 1 0", "- 1 0", "b 2 0"]
        );
        assert_eq!(
            told(&["a:primary:1 b:sync", "a:leads b:async", "b:primary:2"]),
            ["a 1 0", "- 1 0", "b 2 1"]
        );
        // What the next leader says before it runs is about the time after.
        assert_eq!(
            told(&["a:primary:1 b:sync", "b:leads c:sync", "b:primary:2"]),
            ["a 1 0", "- 1 0", "b 2 0"]
        );
        assert_eq!(
            told(&["a:primary:1 b:sync", "b:leads c:sync", "c:primary:2"]),
            ["a 1 0", "- 1 0", "c 2 1"]
        );
    }

    #[test]
    fn what_was_seen_long_before_or_with_another_primary_in_between_proves_nothing() {
        let looks = ["a:primary:1 b:sync", "b:primary:2"];
        assert_eq!(told_every(5, &looks), ["a 1 0", "b 2 0"]);
        assert_eq!(told_every(6, &looks), ["a 1 0", "b 2 1"]);
        assert_eq!(
            told(&["a:primary:1 b:sync c:sync", "b:primary:3"]),
            ["a 1 0", "b 2 1"]
        );
        // Also when it is the first one that is back.
        assert_eq!(told(&["a:primary:1", "a:primary:3"]), ["a 1 0", "a 2 1"]);
    }

    #[test]
    fn a_promotion_that_is_told_late_cuts_nobody_off() {
        assert_eq!(
            told(&["a:primary:1 b:sync", "b:primary:1", "b:primary:2"]),
            ["a 1 0", "b 2 0", "b 2 0"]
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
