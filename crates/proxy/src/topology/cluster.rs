//! The topology as the cluster's store tells it.
//!
//! **Invariant:** a primary is named only while its node holds the leader key of the newest epoch
//! and says that its Postgres is primary. A store that does not answer changes nothing.
//!
//! **Invariant:** a leadership that may lack commits of the one before counts as a loss, and is told
//! as one together with its epoch.

use super::{Ear, Primary, Topology, address_of};
use crate::gate::Gate;
use ha::{Cluster, Epoch, NodeName, NodeState};
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use store::layout::{Keys, Reader, is_nobodys, kept_from_readers, neighbours};
use tokio::sync::watch;
use tokio::time::Instant;

/// For so long nothing new is begun when a switchover is ordered: it is carried out, or refused, in
/// less. One that waits for something must not keep everybody waiting with it.
const HANDOVER: Duration = Duration::from_secs(2);

/// What is said of a primary before anything else can be.
pub(super) const UNHEARD: &str = "the store has not answered yet";
/// For the names of other clusters, once.
const NAMES: Duration = Duration::from_secs(3);

pub(super) async fn follow(
    store: Arc<dyn Store>,
    keys: Keys,
    gate: Arc<Gate>,
    told: watch::Sender<Arc<Topology>>,
    mut readers: super::reading::Memory,
    ear: Arc<Ear>,
) {
    let mut view = store.view(keys.prefix());
    let mut contact = ear.follow();
    let mut reader = Reader::default();
    let mut memory = Memory::default();
    loop {
        let is_news = view.has_changed().unwrap_or(false);
        let snapshot = Arc::clone(&view.borrow_and_update());
        if snapshot.revision > 0 {
            if is_news {
                ear.heard();
            }
            memory.absent = match is_nobodys(&keys, &snapshot) {
                false => None,
                true => match memory.absent.take() {
                    None => Some(absent(&*store, &keys).await),
                    said => said,
                },
            };
            match reader.read(&keys, &snapshot) {
                Ok(reading) => {
                    look(&mut memory, &reading.cluster, &gate, &told);
                    readers.look(&reading.cluster, &kept_from_readers(&keys, &snapshot));
                }
                Err(error) => tracing::error!(
                    %error,
                    "the cluster's record can't be read; the primary stays what it was"
                ),
            }
        } else {
            let trouble = contact.borrow_and_update().trouble();
            unheard(trouble.as_deref().unwrap_or(UNHEARD), &told);
        }
        let wake = memory.handover.map(|since| since + HANDOVER);
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            // The ear is ours, too.
            Ok(()) = contact.changed() => {}
            () = told.closed() => return,
            () = at(wake) => {}
        }
    }
}

/// The primary is not known for this reason, as long as nothing was read.
fn unheard(why: &str, told: &watch::Sender<Arc<Topology>>) {
    told.send_if_modified(|topology| {
        let is_news = topology.primary.as_ref().err().map(String::as_str) != Some(why);
        if is_news {
            *topology = Arc::new(Topology::unknown(why));
        }
        is_news
    });
}

/// There is a store, and no cluster of that name in it.
async fn absent(store: &dyn Store, keys: &Keys) -> String {
    let around = keys.around();
    let (scope, namespace) = (keys.scope(), around.trim_matches('/'));
    let others = match tokio::time::timeout(NAMES, store.read(&around)).await {
        Ok(Ok(snapshot)) => neighbours(keys, &snapshot),
        // It may be nobody else's business.
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    let has = match others.is_empty() {
        true => String::new(),
        false => format!("; it has {}", others.join(", ")),
    };
    format!("the store answers, and has no cluster {scope} in the namespace {namespace}{has}")
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) if moment > Instant::now() => tokio::time::sleep_until(moment).await,
        _ => std::future::pending().await,
    }
}

/// What was seen before.
#[derive(Debug, Default)]
struct Memory {
    last: Option<Seen>,
    losses: u64,
    /// Since when a switchover is ordered.
    handover: Option<Instant>,
    /// The store has no such cluster, in words.
    absent: Option<String>,
}

/// Of the newest leadership.
#[derive(Debug)]
struct Seen {
    epoch: Epoch,
    leader: NodeName,
    /// Its commits wait for standbys, or it keeps its own.
    is_protected: bool,
    /// A person has accepted that another may lack some.
    loss_accepted: bool,
}

impl Seen {
    /// Whether somebody may have led and acknowledged commits since then whom nobody here has seen: the store was not to
    /// be had. Of those that claim and fail there are traces. Who leads publishes a lineage before it acknowledges
    /// anything; and a claim is joined to the settings of the one before, unless a person has accepted a loss.
    fn has_missed_one(&self, cluster: &Cluster) -> bool {
        let step = cluster.current_epoch().0.saturating_sub(self.epoch.0);
        let published = cluster.lineage.as_ref();
        let none_acknowledged = published.is_some_and(|it| it.epoch <= self.epoch);
        let settings = cluster.sync.iter().flat_map(|record| record.settings());
        let is_joined = step == 2 && settings.into_iter().any(|it| it.leader == self.leader);
        step > 1 && !none_acknowledged && !is_joined
    }
}

impl Memory {
    /// Takes note, and counts a loss.
    fn note(&mut self, cluster: &Cluster) {
        let Some(claimed) = &cluster.epoch else {
            return;
        };
        let order = cluster.switchover.as_ref();
        self.handover = match order {
            Some(_) if cluster.leader.is_some() => self.handover.or_else(|| Some(Instant::now())),
            _ => None,
        };
        let accepted = order.is_some_and(|order| order.accept_loss);
        if let Some(last) = &mut self.last
            && last.epoch == claimed.epoch
        {
            last.is_protected = cluster.sync.is_some();
            last.loss_accepted |= accepted;
            return;
        }
        if let Some(last) = &self.last
            && last.leader != claimed.leader
            && (!last.is_protected || last.loss_accepted || last.has_missed_one(cluster))
        {
            self.losses += 1;
            tracing::warn!(
                from = %last.leader,
                to = %claimed.leader,
                "the new leader may lack commits that were acknowledged"
            );
        }
        self.last = Some(Seen {
            epoch: claimed.epoch,
            leader: claimed.leader.clone(),
            is_protected: cluster.sync.is_some(),
            loss_accepted: accepted,
        });
    }

    fn is_handover(&self) -> bool {
        self.handover
            .is_some_and(|since| since.elapsed() < HANDOVER)
    }
}

fn look(memory: &mut Memory, cluster: &Cluster, gate: &Gate, told: &watch::Sender<Arc<Topology>>) {
    memory.note(cluster);
    let mut now = Topology {
        losses: memory.losses,
        ..topology(cluster)
    };
    if let Some(absent) = &memory.absent {
        now.primary = Err(absent.clone());
    }
    if memory.is_handover() && now.primary.is_ok() {
        now.primary = Err("a switchover is under way".to_owned());
    }
    if **told.borrow() == now {
        return;
    }
    let ended = gate.adopt(now.epoch);
    match &now.primary {
        Ok(primary) => tracing::info!(
            epoch = now.epoch.0,
            node = primary.name,
            address = primary.address,
            ended,
            "there is a primary"
        ),
        Err(reason) => tracing::info!(epoch = now.epoch.0, reason, ended, "there is no primary"),
    }
    told.send_replace(Arc::new(now));
}

fn topology(cluster: &Cluster) -> Topology {
    Topology {
        epoch: cluster.current_epoch(),
        primary: primary(cluster),
        losses: 0,
    }
}

fn primary(cluster: &Cluster) -> Result<Primary, String> {
    let claimed = cluster.epoch.as_ref();
    let claimed = claimed.ok_or("the cluster has never had a leader")?;
    let Some(leader) = &cluster.leader else {
        return Err(format!(
            "nobody holds the leadership, {} had it last",
            claimed.leader
        ));
    };
    if *leader != claimed.leader {
        return Err(format!("{leader} leads without an epoch"));
    }
    let member = cluster.members.get(leader);
    let member = member.ok_or_else(|| format!("{leader} leads and is not there"))?;
    match member.state {
        NodeState::Primary | NodeState::Single | NodeState::WaitingPrimary => Ok(Primary {
            name: leader.to_string(),
            address: address_of(member),
        }),
        other => Err(format!("{leader} leads and is {}", other.as_str())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha::Leadership;

    fn cluster(epoch: u64, leader: &str, protected: bool) -> Cluster {
        let leader = NodeName::new(leader).unwrap();
        let alone = vec![ha::quorum::Setting::alone(leader.clone())];
        Cluster {
            epoch: Some(Leadership {
                epoch: Epoch(epoch),
                leader: leader.clone(),
                standby: false,
            }),
            leader: Some(leader),
            sync: ha::quorum::SyncRecord::from_settings(alone).filter(|_| protected),
            ..Cluster::default()
        }
    }

    fn losses(seen: &[Cluster]) -> u64 {
        let mut memory = Memory::default();
        for cluster in seen {
            memory.note(cluster);
        }
        memory.losses
    }

    #[test]
    fn only_a_leader_that_may_lack_commits_counts_as_a_loss() {
        let (a, b) = (cluster(1, "a", true), cluster(2, "b", true));
        assert_eq!(losses(&[a, b]), 0);
        let (a, b) = (cluster(1, "a", false), cluster(2, "b", false));
        assert_eq!(losses(&[a.clone(), b.clone(), b]), 1);
        assert_eq!(losses(&[a.clone(), cluster(2, "a", false)]), 0);
        // What was in force at the end counts, also when it is in force no more.
        assert_eq!(
            losses(&[a, cluster(1, "a", true), cluster(2, "b", false)]),
            0
        );
        let mut forced = cluster(1, "a", true);
        forced.leader = None;
        forced.switchover = Some(ha::Switchover {
            from: None,
            to: None,
            accept_loss: true,
        });
        assert_eq!(losses(&[forced, cluster(2, "b", true)]), 1);
    }

    #[test]
    fn a_leader_that_was_not_seen_may_have_lost_what_it_acknowledged() {
        let (a, c) = (cluster(1, "a", true), cluster(3, "c", true));
        assert_eq!(losses(&[a.clone(), c.clone()]), 1);
        // It was `a` again, with another epoch after a restart.
        let again = cluster(2, "a", true);
        assert_eq!(losses(&[a.clone(), again, c.clone()]), 0);
        // Whoever it was has published nothing, and acknowledged nothing.
        let mut silent = c.clone();
        silent.lineage = Some(ha::Published {
            epoch: Epoch(1),
            leader: a.leader.clone(),
            lineage: ha::Lineage::founded(ha::Timeline(1), Epoch(1)),
        });
        assert_eq!(losses(&[a.clone(), silent.clone()]), 0);
        silent.lineage.as_mut().unwrap().epoch = Epoch(2);
        assert_eq!(losses(&[a.clone(), silent]), 1);
        // Each claim has met what the ones before it had promised.
        let settings =
            ["a", "c"].map(|name| ha::quorum::Setting::alone(NodeName::new(name).unwrap()));
        let joined = |epoch| Cluster {
            sync: ha::quorum::SyncRecord::from_settings(settings.to_vec()),
            ..cluster(epoch, "c", true)
        };
        assert_eq!(losses(&[a.clone(), joined(3)]), 0);
        // Not if `a` may have led in between, too.
        assert_eq!(losses(&[a, joined(4)]), 1);
    }
}
