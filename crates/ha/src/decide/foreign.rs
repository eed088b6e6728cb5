//! Where agents of Patroni have a say in the same store: what they hold is theirs, and nothing of it is raced for.
//!
//! Patroni takes the leader key when its time to live is over, and knows neither epochs nor promises. Each of ours writes
//! key and epoch in one transaction, so a leader key without its epoch is Patroni's.
//!
//! **Invariant:** nobody of ours claims while the leader key is Patroni's, nor after a leadership of Patroni's whose
//! commits it may not have; nobody of ours takes WAL of such a leader, whose timelines have no epoch.

use crate::decision::Decision;
use crate::types::{Instant, NodeName};
use crate::view::{Cluster, NodeView};

/// Stands aside where the cluster is Patroni's at present. A primary of ours was fenced before.
pub(super) fn stand_aside(cluster: &Cluster, me: &NodeView, now: Instant) -> Option<Decision> {
    let why = hindrance(cluster, &me.name)?;
    let settled = super::settle_down(me, &cluster.settings, now);
    Some(settled.unwrap_or_else(|| Decision::wait("not ours", why)))
}

/// Why nothing may be done here, if so.
fn hindrance(cluster: &Cluster, me: &NodeName) -> Option<String> {
    let foreign = &cluster.foreign;
    if let Some(leader) = &cluster.leader {
        let ours = super::led_last(cluster, leader);
        return (!ours).then(|| match leader == me {
            true => format!(
                "the leader key names {leader}, but no epoch goes with it: Patroni wrote it, and it must end first"
            ),
            false => format!("{leader} leads without an epoch: its agent is Patroni's, and ours stay aside"),
        });
    }
    if foreign.sync {
        let why =
            "who had to acknowledge commits was written by Patroni: only its agents can lead on";
        return Some(why.to_owned());
    }
    let led = cluster
        .lineage
        .as_ref()
        .map(|it| it.lineage.newest().timeline);
    if let (Some(ended), Some(led)) = (foreign.ended, led)
        && ended >= led
    {
        return Some(format!(
            "timeline {ended} was ended by a leader without an epoch: what it wrote may be missing here"
        ));
    }
    // With a record, the proof of the promises decides, and only one transaction can take the key.
    if cluster.sync.is_none() && !foreign.members.is_empty() {
        let names: Vec<&str> = foreign.members.iter().map(NodeName::as_str).collect();
        return Some(format!(
            "{} may lead by Patroni's rules, which know nothing of ours",
            names.join(", ")
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lineage::Lineage;
    use crate::quorum::{Setting, SyncRecord};
    use crate::types::{Epoch, Timeline};
    use crate::view::{Leadership, Published};

    fn name(text: &str) -> NodeName {
        NodeName::new(text).expect("a plain name")
    }

    /// Epoch 5 was a's, on timeline 3; nobody leads.
    fn cluster() -> Cluster {
        Cluster {
            epoch: Some(Leadership {
                epoch: Epoch(5),
                leader: name("a"),
            }),
            lineage: Some(Published {
                epoch: Epoch(5),
                lineage: Lineage::founded(Timeline(3), Epoch(5)),
            }),
            ..Cluster::default()
        }
    }

    fn check(change: impl FnOnce(&mut Cluster), expected: Option<&str>) {
        let mut cluster = cluster();
        change(&mut cluster);
        let found = hindrance(&cluster, &name("b"));
        match (&found, expected) {
            (None, None) => {}
            (Some(found), Some(expected)) if found.contains(expected) => {}
            _ => panic!("{found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn a_cluster_of_ours_alone_is_ours() {
        check(|_| {}, None);
        check(|it| it.leader = Some(name("a")), None);
        check(|it| it.foreign.ended = Some(Timeline(2)), None);
    }

    #[test]
    fn a_leader_without_an_epoch_is_nobody_to_race_or_follow() {
        check(
            |it| it.leader = Some(name("c")),
            Some("c leads without an epoch"),
        );
        check(|it| it.leader = Some(name("b")), Some("it must end first"));
        let none = |it: &mut Cluster| {
            it.epoch = None;
            it.leader = Some(name("a"));
        };
        check(none, Some("a leads without an epoch"));
    }

    #[test]
    fn what_such_a_leader_wrote_is_not_passed_over() {
        check(
            |it| it.foreign.ended = Some(Timeline(3)),
            Some("timeline 3"),
        );
        check(|it| it.foreign.sync = true, Some("written by Patroni"));
    }

    #[test]
    fn where_patronis_members_live_only_a_proof_permits_a_claim() {
        let mixed = |it: &mut Cluster| it.foreign.members = [name("c")].into();
        check(mixed, Some("c may lead by Patroni's rules"));
        let proven = |it: &mut Cluster| {
            it.foreign.members.insert(name("c"));
            it.sync = Some(SyncRecord::of(Setting::alone(name("a"))));
        };
        check(proven, None);
        // Under a leader of ours they are standbys like others.
        let led = |it: &mut Cluster| {
            it.foreign.members.insert(name("c"));
            it.leader = Some(name("a"));
        };
        check(led, None);
    }
}
