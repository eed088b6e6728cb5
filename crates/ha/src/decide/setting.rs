//! The setting that commits need: which one fits the living standbys, and the steps towards it.
//!
//! **Invariant:** a standby is newly named only while it streams and can promise; strict mode alone names who is absent.
//!
//! It does not know who leads next, nor why a standby is gone.

use super::source;
use crate::decision::{Action, Decision};
use crate::quorum::{self, Applied, Setting, Step, SyncRecord};
use crate::settings::SyncMode;
use crate::state::NodeState;
use crate::types::{Epoch, Instant, Lsn, NodeName};
use crate::view::{Cluster, NodeRecord, NodeView, Primary};
use std::collections::{BTreeMap, BTreeSet};

/// A standby whose flush position is within this of the primary's may be named in the setting.
const JOINS_WITHIN: u64 = 16 << 20;

/// The next step that makes record, Postgres and the living agree.
pub(super) fn protect(
    cluster: &Cluster,
    me: &NodeView,
    primary: &Primary,
    epoch: Epoch,
    now: Instant,
) -> Option<Decision> {
    let applied = me.applied.as_ref().filter(|applied| applied.epoch == epoch);
    if cluster.settings.sync_mode == SyncMode::Off {
        return unprotect(cluster, applied, epoch);
    }
    let Some(record) = &cluster.sync else {
        let record = SyncRecord::of(Setting::alone(me.name.clone()));
        return Some(Decision::act(
            "synchronous on",
            Action::Record {
                epoch,
                record: Some(record),
            },
            "synchronous mode was switched on",
        ));
    };
    let wanted = wanted_setting(cluster, &me.name, primary, now);
    let flushed: BTreeMap<NodeName, Lsn> = primary
        .standbys
        .iter()
        .map(|(name, walsender)| (name.clone(), walsender.flushed))
        .collect();
    match quorum::next_step(record, &wanted, applied, &flushed) {
        Step::Record(next) => {
            let reason = if next.is_settled() {
                format!("commits need {}: the barrier is passed", next.newest())
            } else {
                format!("commits shall need {}", next.newest())
            };
            let record = Some(next);
            Some(Decision::act(
                "setting recorded",
                Action::Record { epoch, record },
                reason,
            ))
        }
        Step::Apply(record) => {
            let reason = format!("commits shall need {}", record.newest());
            let record = Some(record);
            Some(Decision::act(
                "setting applied",
                Action::Apply { epoch, record },
                reason,
            ))
        }
        // The barrier's wait must not keep the leader from its other duties.
        Step::Await { .. } | Step::Settled => None,
    }
}

/// Asynchronous mode: no names in Postgres, no record in the store.
fn unprotect(cluster: &Cluster, applied: Option<&Applied>, epoch: Epoch) -> Option<Decision> {
    if cluster.sync.is_some() {
        return Some(Decision::act(
            "synchronous off",
            Action::Record {
                epoch,
                record: None,
            },
            "synchronous mode was switched off: commits are no longer protected",
        ));
    }
    let done = applied.is_some_and(|applied| applied.record.newest().is_alone());
    (!done).then(|| {
        Decision::act(
            "synchronous off",
            Action::Apply {
                epoch,
                record: None,
            },
            "commits are asynchronous",
        )
    })
}

/// After a restart the WAL may hold commits that nobody acknowledged: visible now, gone after the next failover.
/// So clients wait until a quorum has the end of recovery.
pub(super) fn open(cluster: &Cluster, me: &NodeView, primary: &Primary, epoch: Epoch) -> Decision {
    let Some(record) = &cluster.sync else {
        return Decision::act("open", Action::Open, "the primary opens");
    };
    let Some(applied) = me.applied.as_ref().filter(|applied| applied.epoch == epoch) else {
        return Decision::wait(
            "closed",
            "the primary waits for its setting before it opens",
        );
    };
    let setting = record.newest();
    let flushed: BTreeMap<NodeName, Lsn> = primary
        .standbys
        .iter()
        .map(|(name, walsender)| (name.clone(), walsender.flushed))
        .collect();
    let have = quorum::flushed_count(setting, applied.barrier, &flushed);
    if record.is_settled() && applied.record.newest() == setting && have >= setting.needed {
        return Decision::act(
            "open",
            Action::Open,
            format!("the primary opens: {have} standbys have its end of recovery"),
        );
    }
    Decision::wait(
        "closed",
        format!(
            "the primary stays closed until {} of {} standbys have flushed {}; {have} have",
            setting.needed,
            setting.standbys.len(),
            applied.barrier
        ),
    )
}

/// The setting that fits the standbys that are alive, in the configured mode.
pub fn wanted_setting(
    cluster: &Cluster,
    me: &NodeName,
    primary: &Primary,
    now: Instant,
) -> Setting {
    let settings = &cluster.settings;
    let current = cluster
        .sync
        .as_ref()
        .map(SyncRecord::newest)
        .filter(|now| &now.leader == me);
    let named = |name: &NodeName| current.is_some_and(|setting| setting.standbys.contains(name));
    let standbys: BTreeSet<NodeName> = primary
        .standbys
        .iter()
        .filter(|(name, walsender)| {
            // Others may stream as well: a base backup, an archiver. They are no nodes and never count.
            let Some(node) = cluster.nodes.get(*name) else {
                return false;
            };
            if !counts(node) || is_guest(cluster, name) || source::goes_round(cluster, name) {
                return false;
            }
            if named(name) {
                // A named standby stays for a while after it was last seen, and leaves at once when its lease ended.
                let patience = now.since(walsender.seen) < settings.sync_relax_after
                    && cluster.members.contains_key(*name);
                return walsender.streaming || patience;
            }
            let near = primary.flushed.bytes_since(walsender.flushed) <= JOINS_WITHIN;
            walsender.streaming && near && can_promise(cluster, name)
        })
        .map(|(name, _)| name.clone())
        .collect();
    if let (true, Some(current)) = (settings.sync_strict, current)
        && standbys.len() < settings.sync_node_count.min(current.needed.max(1))
        && !current.is_alone()
    {
        // Strict mode waits for those it has named, save those that a person has dropped.
        let dropped = |name: &NodeName| cluster.nodes.get(name).is_none_or(|node| node.dropped);
        let stays = |name: &&NodeName| !dropped(name) && !is_guest(cluster, name);
        let stay: BTreeSet<NodeName> = current.standbys.iter().filter(stays).cloned().collect();
        if stay == current.standbys {
            return current.clone();
        }
        if !stay.is_empty() {
            return sized(cluster, me, stay);
        }
    }
    if settings.sync_strict && standbys.is_empty() {
        return sized(cluster, me, absent(cluster, me));
    }
    sized(cluster, me, without_slow(cluster, primary, standbys, named))
}

/// Where commits wait for chosen standbys, those that lag are not chosen, as long as there are enough others. One that
/// is chosen stays up to the limit; one that is not comes in at half of it: they shall not take turns.
fn without_slow(
    cluster: &Cluster,
    primary: &Primary,
    standbys: BTreeSet<NodeName>,
    named: impl Fn(&NodeName) -> bool,
) -> BTreeSet<NodeName> {
    let settings = &cluster.settings;
    let (Some(limit), SyncMode::On) = (settings.sync_lag_max, settings.sync_mode) else {
        return standbys;
    };
    let keeps_up = |name: &NodeName| {
        let flushed = primary.standbys.get(name).map(|it| it.flushed);
        let lag = primary.flushed.bytes_since(flushed.unwrap_or_default());
        lag <= if named(name) { limit } else { limit / 2 }
    };
    let fast: BTreeSet<NodeName> = standbys.iter().filter(|it| keeps_up(it)).cloned().collect();
    let enough = settings.sync_node_count.max(1);
    if fast.len() >= enough {
        return fast;
    }
    // Nobody is better: those that are chosen stay.
    let chosen: BTreeSet<NodeName> = standbys.iter().filter(|it| named(it)).cloned().collect();
    if chosen.len() >= enough {
        return chosen;
    }
    standbys
}

/// Whom strict mode names and waits for when nobody is there: those that could lead, or else whoever has not been
/// dropped. A leader goes on alone only where there is nobody else.
pub(super) fn absent(cluster: &Cluster, me: &NodeName) -> BTreeSet<NodeName> {
    let named = |fit: fn(&NodeRecord) -> bool| -> BTreeSet<NodeName> {
        let others = cluster.nodes.iter();
        others
            .filter(|(name, node)| *name != me && fit(node) && !is_guest(cluster, name))
            .map(|(name, _)| name.clone())
            .collect()
    };
    let able = named(counts);
    if able.is_empty() {
        return named(|node| node.quorum && !node.dropped);
    }
    able
}

/// Patroni's agents promise nothing, so no commit rests on their nodes; and whom the record names, they let lead.
pub(super) fn is_guest(cluster: &Cluster, name: &NodeName) -> bool {
    cluster.foreign.members.contains(name)
}

/// Whether its Postgres is open. One that was rewound acknowledges before it can tell what it has: without the leader
/// its promise would be missed.
fn can_promise(cluster: &Cluster, name: &NodeName) -> bool {
    let open = |state| matches!(state, NodeState::Standby | NodeState::CatchingUp);
    let member = cluster.members.get(name);
    member.is_some_and(|member| open(member.state))
}

/// Whether commits may rest on this node. One that may never lead is left out: what it alone has could not be found
/// again without the leader.
pub(super) fn counts(node: &NodeRecord) -> bool {
    node.quorum && node.priority > 0 && !node.maintenance && !node.dropped
}

/// `standbys` with as many acknowledgements as the configured mode asks for.
pub(super) fn sized(cluster: &Cluster, me: &NodeName, mut standbys: BTreeSet<NodeName>) -> Setting {
    let count = cluster.settings.sync_node_count.max(1);
    if cluster.settings.sync_mode == SyncMode::On {
        let priority = |name: &NodeName| {
            let member = cluster.members.get(name);
            member.map_or(1, |member| member.ties.sync_priority)
        };
        // Among equals by name: the sort is stable.
        let mut ordered: Vec<NodeName> = standbys.into_iter().collect();
        ordered.sort_by_key(|name| std::cmp::Reverse(priority(name)));
        standbys = ordered.into_iter().take(count).collect();
    }
    Setting::quorum(me.clone(), standbys, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Ties, Walsender};

    fn name(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    /// The standbys that commits wait for, where `chosen` is and `lags` are so many bytes behind.
    fn waited_for(mode: SyncMode, chosen: &str, lags: &[(&str, u64)]) -> Vec<String> {
        let now = Instant::default();
        let mut cluster = Cluster::default();
        cluster.settings.sync_mode = mode;
        cluster.settings.sync_lag_max = Some(1000);
        cluster.nodes.insert(name("a"), NodeRecord::default());
        let current = Setting::quorum(name("a"), [name(chosen)].into(), 1);
        cluster.sync = Some(SyncRecord::of(current));
        let flushed = Lsn(1_000_000);
        let mut primary = Primary {
            flushed,
            ..Primary::default()
        };
        for (standby, lag) in lags {
            cluster.nodes.insert(name(standby), NodeRecord::default());
            let member = crate::view::Member {
                host: String::new(),
                port: 0,
                api_url: String::new(),
                state: NodeState::Standby,
                position: Lsn::ZERO,
                timeline: crate::types::Timeline(1),
                unfit: None,
                ties: Ties::default(),
            };
            cluster.members.insert(name(standby), member);
            let walsender = Walsender {
                streaming: true,
                flushed: Lsn(flushed.0 - lag),
                seen: now,
            };
            primary.standbys.insert(name(standby), walsender);
        }
        let wanted = wanted_setting(&cluster, &name("a"), &primary, now);
        wanted.standbys.iter().map(NodeName::to_string).collect()
    }

    /// Patroni: Failover | `maximum_lag_on_syncnode` | works with `synchronous_mode: on`, and who takes over is within
    ///   half of it; with `quorum` there is no need: commits wait for the fastest
    #[test]
    fn a_chosen_standby_that_lags_gives_way_to_one_that_does_not() {
        let on = |chosen, lags| waited_for(SyncMode::On, chosen, lags);
        assert_eq!(on("b", &[("b", 0), ("c", 0)]), ["b"]);
        assert_eq!(on("b", &[("b", 1000), ("c", 0)]), ["b"], "up to the limit");
        assert_eq!(on("b", &[("b", 1001), ("c", 500)]), ["c"]);
        assert_eq!(on("b", &[("b", 1001), ("c", 501)]), ["b"], "no better");
        assert_eq!(on("c", &[("b", 900), ("c", 0)]), ["c"], "not back at once");
        assert_eq!(on("b", &[("b", 5000)]), ["b"], "nobody else");
        assert_eq!(on("c", &[("b", 5000), ("c", 1001)]), ["c"], "a worse one");
        let quorum = waited_for(SyncMode::Quorum, "b", &[("b", 5000), ("c", 0)]);
        assert_eq!(quorum, ["b", "c"]);
    }
}
