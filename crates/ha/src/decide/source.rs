//! Whom a standby takes its WAL from: the leader, or another standby that a tag names.
//!
//! **Invariant:** WAL is taken only from the leader, or from a member that serves as a proven standby of this very
//! epoch; tags that lead in a circle are as if they were not there.
//! **Invariant:** commits never rest on a standby that streams from another one.

use crate::types::NodeName;
use crate::view::Cluster;
use std::collections::BTreeSet;

/// The standby between `name` and the leader, if there is to be one: `tag`, while it serves.
///
/// Who alone makes up the number that commits wait for stays with the leader until others do.
pub(super) fn between<'a>(
    cluster: &'a Cluster,
    name: &NodeName,
    tag: Option<&'a NodeName>,
) -> Option<&'a NodeName> {
    let source = serving(cluster, name, tag)?;
    let newest = cluster.sync.as_ref().map(crate::quorum::SyncRecord::newest);
    let needed = newest.is_some_and(|setting| {
        setting.standbys.contains(name) && setting.standbys.len() <= setting.needed
    });
    (!needed).then_some(source)
}

/// Whether a member goes, or will go, by way of another standby.
pub(super) fn goes_round(cluster: &Cluster, name: &NodeName) -> bool {
    let member = cluster.members.get(name);
    let tag = member.and_then(|member| member.ties.source.as_ref());
    serving(cluster, name, tag).is_some()
}

fn serving<'a>(
    cluster: &'a Cluster,
    name: &NodeName,
    tag: Option<&'a NodeName>,
) -> Option<&'a NodeName> {
    let tag = tag.filter(|tag| Some(*tag) != cluster.leader.as_ref() && *tag != name)?;
    let member = cluster.members.get(tag)?;
    let lawful = !cluster.foreign.leads && !cluster.foreign.members.contains(tag);
    let serves = member.ties.serves == Some(cluster.current_epoch());
    (lawful && serves && !is_circle(cluster, name, tag)).then_some(tag)
}

/// Whether the tags lead from `source` back to `name`.
fn is_circle(cluster: &Cluster, name: &NodeName, source: &NodeName) -> bool {
    let (mut seen, mut at) = (BTreeSet::new(), source);
    while seen.insert(at) {
        let next = cluster.members.get(at);
        match next.and_then(|member| member.ties.source.as_ref()) {
            Some(next) if next == name => return true,
            Some(next) => at = next,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quorum::{Setting, SyncRecord};
    use crate::types::{Epoch, Lsn, Timeline};
    use crate::view::{Leadership, Member, Ties};
    use crate::{NodeState, decide::setting};

    fn name(text: &str) -> NodeName {
        NodeName::new(text).expect("a plain name")
    }

    /// `a` leads epoch 7; each member with its source, and the epoch that it serves.
    fn cluster(members: &[(&str, Option<&str>, u64)]) -> Cluster {
        let member = |(who, source, serves): &(&str, Option<&str>, u64)| {
            let ties = Ties {
                source: source.map(name),
                serves: Some(Epoch(*serves)),
                ..Ties::default()
            };
            let member = Member {
                host: String::new(),
                port: 1,
                api_url: String::new(),
                state: NodeState::Standby,
                position: Lsn(1),
                timeline: Timeline(1),
                unfit: None,
                ties,
            };
            (name(who), member)
        };
        Cluster {
            epoch: Some(Leadership {
                epoch: Epoch(7),
                leader: name("a"),
                standby: false,
            }),
            leader: Some(name("a")),
            members: members.iter().map(member).collect(),
            ..Cluster::default()
        }
    }

    fn of(cluster: &Cluster, who: &str) -> Option<String> {
        let tag = cluster.members[&name(who)].ties.source.as_ref();
        between(cluster, &name(who), tag).map(NodeName::to_string)
    }

    #[test]
    fn a_source_is_taken_while_it_serves_this_epoch() {
        let chain = cluster(&[
            ("a", None, 0),
            ("b", None, 7),
            ("c", Some("b"), 7),
            ("d", Some("c"), 0),
        ]);
        assert_eq!(of(&chain, "b"), None);
        assert_eq!(of(&chain, "c").as_deref(), Some("b"));
        assert_eq!(of(&chain, "d").as_deref(), Some("c"));
        let old = cluster(&[("a", None, 0), ("b", None, 6), ("c", Some("b"), 7)]);
        assert_eq!(of(&old, "c"), None, "it serves an epoch that is over");
        let gone = cluster(&[("a", None, 0), ("c", Some("b"), 7)]);
        assert_eq!(of(&gone, "c"), None);
        let leader = cluster(&[("a", None, 7), ("c", Some("a"), 7)]);
        assert_eq!(of(&leader, "c"), None, "the leader is no standby between");
        let mut patronis = cluster(&[("a", None, 0), ("b", None, 7), ("c", Some("b"), 7)]);
        patronis.foreign.members.insert(name("b"));
        assert_eq!(of(&patronis, "c"), None);
    }

    #[test]
    fn tags_in_a_circle_count_for_nothing() {
        let circle = cluster(&[
            ("a", None, 0),
            ("b", Some("c"), 7),
            ("c", Some("b"), 7),
            ("d", Some("c"), 7),
            ("e", Some("e"), 7),
        ]);
        assert_eq!(of(&circle, "b"), None);
        assert_eq!(of(&circle, "c"), None);
        assert_eq!(of(&circle, "d").as_deref(), Some("c"), "it is not in it");
        assert_eq!(of(&circle, "e"), None);
    }

    #[test]
    fn whom_commits_need_stays_with_the_leader() {
        let mut cluster = cluster(&[("a", None, 0), ("b", None, 7), ("c", Some("b"), 7)]);
        let need = |standbys: &[&str]| {
            let standbys = standbys.iter().map(|it| name(it)).collect();
            Some(SyncRecord::of(Setting::quorum(name("a"), standbys, 1)))
        };
        cluster.sync = need(&["c"]);
        assert_eq!(of(&cluster, "c"), None);
        assert!(
            goes_round(&cluster, &name("c")),
            "and is not named any more"
        );
        cluster.sync = need(&["b", "c"]);
        assert_eq!(of(&cluster, "c").as_deref(), Some("b"));
    }

    /// Patroni: Configuration | tag `sync_priority` | works: with `synchronous_mode: on` the highest are chosen; a quorum
    ///   is of all alike
    #[test]
    fn the_highest_sync_priority_is_chosen() {
        let mut cluster = cluster(&[
            ("a", None, 0),
            ("b", None, 0),
            ("c", None, 0),
            ("d", None, 0),
        ]);
        let standbys: BTreeSet<NodeName> = [name("b"), name("c"), name("d")].into();
        cluster.settings.sync_node_count = 1;
        let chosen =
            |cluster: &Cluster| setting::sized(cluster, &name("a"), standbys.clone()).standbys;
        cluster.settings.sync_mode = crate::SyncMode::On;
        assert_eq!(chosen(&cluster), [name("b")].into());
        let ties = |cluster: &mut Cluster, who: &str, priority| {
            let member = cluster.members.get_mut(&name(who));
            member.expect("a member").ties.sync_priority = priority;
        };
        ties(&mut cluster, "c", 5);
        ties(&mut cluster, "d", 5);
        assert_eq!(chosen(&cluster), [name("c")].into());
        cluster.settings.sync_mode = crate::SyncMode::Quorum;
        assert_eq!(chosen(&cluster), standbys);
    }
}
