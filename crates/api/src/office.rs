//! Who is what, at the moment of the question: the rules behind the health checks.
//!
//! **Invariant:** nothing here says "primary" after the lease's deadline, however old the published picture is.

use crate::clock;
use crate::served::Served;
use ha::quorum::Setting;
use ha::{Cluster, Instant, Lease, Lsn, NodeName, Postgres, Primary, Standby, SyncMode};
use std::collections::BTreeMap;
use std::time::Duration;

/// A published picture and the time at which it is asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Office<'a> {
    pub(crate) served: &'a Served,
    pub(crate) now: Instant,
}

/// How commits through this node are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncRole {
    /// Named among standbys that must all acknowledge.
    Sync,
    /// Named among standbys of which some must acknowledge.
    Quorum,
    Async,
    /// Nothing is known of the setting.
    Unknown,
}

impl<'a> Office<'a> {
    pub(crate) fn new(served: &'a Served, now: Instant) -> Self {
        Self { served, now }
    }

    pub(crate) fn cluster(&self) -> Option<&'a Cluster> {
        self.served.cluster.as_ref()
    }

    fn postgres(&self) -> Option<&'a Postgres> {
        self.served.me.as_ref().map(|me| &me.postgres)
    }

    pub(crate) fn primary(&self) -> Option<&'a Primary> {
        match self.postgres()? {
            Postgres::Primary(primary) => Some(primary),
            Postgres::Down { .. }
            | Postgres::Starting
            | Postgres::Standby(_)
            | Postgres::Unresponsive { .. } => None,
        }
    }

    pub(crate) fn standby(&self) -> Option<&'a Standby> {
        match self.postgres()? {
            Postgres::Standby(standby) => Some(standby),
            Postgres::Down { .. }
            | Postgres::Starting
            | Postgres::Primary(_)
            | Postgres::Unresponsive { .. } => None,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.primary().is_some() || self.standby().is_some()
    }

    /// The lease under which this node leads now.
    pub(crate) fn lease(&self) -> Option<Lease> {
        let cluster = self.cluster()?;
        let lease = self.served.me.as_ref()?.lease?;
        let mine = match &cluster.leader {
            Some(leader) => *leader == self.served.name,
            None => lease.by_members,
        };
        let current = lease.epoch == cluster.current_epoch();
        (mine && current && self.now < lease.deadline).then_some(lease)
    }

    /// Whom a leader asks that has lost the store, and where; none where the mode is off.
    pub(crate) fn failsafe_members(&self) -> Option<&'a BTreeMap<NodeName, String>> {
        self.cluster()?.failsafe.as_ref()
    }

    /// Whether this node leads by the members' word, or has given its own.
    pub(crate) fn failsafe_is_active(&self) -> bool {
        let epoch = self.cluster().map(Cluster::current_epoch);
        let leads = self.lease().is_some_and(|lease| lease.by_members);
        let held = self.served.me.as_ref().and_then(|me| me.held);
        leads || held.is_some_and(|held| held.binds(epoch.unwrap_or_default(), self.now))
    }

    /// Whether clients can write here, under the current epoch.
    pub(crate) fn is_writable(&self) -> bool {
        self.lease().is_some() && self.primary().is_some_and(|primary| primary.open)
    }

    /// Whether this node leads a standby cluster now: it has the lease, and nobody is to be promoted.
    pub(crate) fn leads_standbys(&self) -> bool {
        let follows = self.cluster().is_some_and(follows_another);
        follows && self.lease().is_some() && self.standby().is_some()
    }

    /// Whether clients can read here: an open standby, not in maintenance and not on its way out.
    pub(crate) fn is_readable_standby(&self) -> bool {
        let record = self
            .cluster()
            .map(|cluster| cluster.node(&self.served.name));
        let withdrawn = record.is_some_and(|record| record.maintenance || record.dropped);
        !withdrawn && self.standby().is_some_and(|standby| standby.open)
    }

    /// By this node's place in the newest setting of the present leader.
    pub(crate) fn sync_role(&self) -> SyncRole {
        match self.cluster() {
            Some(cluster) => sync_role(cluster, &self.served.name),
            None => SyncRole::Unknown,
        }
    }

    /// How far replay is behind the leader's last beat, or behind what was received if that is further.
    pub(crate) fn replay_lag(&self) -> Option<u64> {
        let standby = self.standby()?;
        Some(self.newest_known(standby).bytes_since(standby.replayed))
    }

    /// How far the flushed WAL is behind the leader's last beat.
    pub(crate) fn receive_lag(&self) -> Option<u64> {
        let standby = self.standby()?;
        Some(self.newest_known(standby).bytes_since(standby.received))
    }

    fn newest_known(&self, standby: &Standby) -> Lsn {
        let beat = self
            .cluster()
            .map(|cluster| cluster.leader_position)
            .unwrap_or_default();
        beat.max(standby.received)
    }

    /// How long ago the picture was published.
    pub(crate) fn age(&self) -> Duration {
        self.now.since(self.served.loop_at)
    }

    /// How long ago the store was last heard of; `None` before the first contact.
    pub(crate) fn store_silence(&self) -> Option<Duration> {
        self.cluster()?;
        Some(self.served.store_silent_for.unwrap_or_default() + self.age())
    }

    /// For how long the store has been silent, where it does not answer.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.served.store_silent_for?;
        self.store_silence()
    }

    /// When the store was last heard of, in seconds since 1970; 0 before the first contact.
    pub(crate) fn store_seen(&self) -> u64 {
        self.store_silence().map_or(0, clock::epoch_seconds)
    }

    /// Where the primary is, by the leader key.
    pub(crate) fn leader_address(&self) -> Option<(&'a NodeName, String, u16)> {
        let cluster = self.cluster()?;
        let leader = cluster.leader.as_ref()?;
        let member = cluster.members.get(leader)?;
        Some((leader, member.host.clone(), member.port))
    }
}

/// Whether it is a standby cluster.
pub(crate) fn follows_another(cluster: &Cluster) -> bool {
    cluster.settings.remote.is_some()
}

/// `name`'s place in the setting. Until a new setting has taken the old one's place, only who stands in both has one:
/// a standby is called synchronous when it may take over, not when commits begin to wait for it.
pub(crate) fn sync_role(cluster: &Cluster, name: &NodeName) -> SyncRole {
    let named = cluster.sync.as_ref().is_some_and(|sync| {
        let newest = sync.newest();
        let counts = |it: &Setting| it.leader == *name || it.standbys.contains(name);
        cluster.leader.as_ref() == Some(&newest.leader)
            && newest.leader != *name
            && sync.settings().iter().all(counts)
    });
    match (named, cluster.settings.sync_mode) {
        (true, SyncMode::On) => SyncRole::Sync,
        (true, SyncMode::Quorum | SyncMode::Off) => SyncRole::Quorum,
        (false, _) => SyncRole::Async,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::quorum::SyncRecord;

    #[test]
    fn a_standby_is_synchronous_when_every_setting_has_it() {
        let name = |name: &str| NodeName::new(name).unwrap();
        let setting = |leader: &str, standbys: &[&str]| Setting {
            leader: name(leader),
            standbys: standbys.iter().map(|it| name(it)).collect(),
            needed: usize::from(!standbys.is_empty()),
        };
        let roles = |settings: Vec<Setting>| {
            let cluster = Cluster {
                leader: settings.last().map(|newest| newest.leader.clone()),
                sync: SyncRecord::from_settings(settings),
                ..Cluster::default()
            };
            ["a", "b", "c"].map(|it| sync_role(&cluster, &name(it)) != SyncRole::Async)
        };
        let (alone, one, both) = (
            setting("a", &[]),
            setting("a", &["b"]),
            setting("a", &["b", "c"]),
        );
        assert_eq!(roles(vec![both.clone()]), [false, true, true]);
        assert_eq!(roles(vec![alone, both.clone()]), [false; 3]);
        assert_eq!(roles(vec![one, both.clone()]), [false, true, false]);
        let after = setting("b", &["a", "c"]);
        assert_eq!(roles(vec![both, after]), [true, false, true]);
    }
}
