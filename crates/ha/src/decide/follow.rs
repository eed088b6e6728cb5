//! Another node leads: come into its history and stay there, and watch it.
//!
//! **Invariant:** a node streams only from the leader of the current epoch, or from a standby that serves it, only after
//! its note names that leader's lineage, and only if everything it has is part of that lineage.

use super::foreign;
use super::race::{race, suspicion};
use super::source;
use crate::decision::{Action, Decision};
use crate::lineage::{Lineage, Relation};
use crate::types::{Instant, NodeName};
use crate::view::{Cluster, DataDir, Errand, NodeView, Postgres, Standby, StreamBroken};
use std::time::Duration;

pub(super) fn follow(
    cluster: &Cluster,
    me: &NodeView,
    leader: &NodeName,
    now: Instant,
) -> Decision {
    if let Some(silence) = suspicion(cluster, me, now)
        && cluster.sync.is_some()
        && !cluster.settings.paused
        && matches!(me.postgres, Postgres::Standby(_))
    {
        let why = format!("{leader} has been silent for {} ms", silence.as_millis());
        return race(cluster, me, &why, now);
    }
    come_along(cluster, me, leader, now)
}

/// The same with a leader that nobody suspects.
pub(super) fn come_along(
    cluster: &Cluster,
    me: &NodeView,
    leader: &NodeName,
    now: Instant,
) -> Decision {
    if let Some(promise) = cluster.promises.get(&me.name) {
        let epoch = promise.epoch;
        return Decision::act(
            "withdraw",
            Action::Withdraw { epoch },
            format!("{leader} leads: taking back the promise of epoch {epoch}"),
        );
    }
    if let Some(decision) = errand(cluster, me, leader) {
        return decision;
    }
    if let Some(decision) = stranded(cluster, me) {
        return decision;
    }
    if let Some(decision) = super::settle_down(me, &cluster.settings, now) {
        return decision;
    }
    match &me.postgres {
        Postgres::Down { .. } => begin(cluster, me, leader, now),
        Postgres::Standby(standby) => join(cluster, me, leader, standby),
        Postgres::Primary(_) | Postgres::Starting | Postgres::Unresponsive { .. } => {
            Decision::wait("unsettled", "Postgres has not settled yet")
        }
    }
}

/// Recovery of a directory that was rewound waits for WAL of the leader that it was rewound to. Once another leads, that
/// may be nowhere, and would be waited for for ever.
fn stranded(cluster: &Cluster, me: &NodeView) -> Option<Decision> {
    if !me.rewound || me.postgres != Postgres::Starting {
        return None;
    }
    let published = cluster.published_lineage();
    let another = published.is_some_and(|lineage| me.lineage.as_ref() != Some(lineage));
    let why = match me.stream_broken {
        _ if another || foreign::is_unknown(cluster) => "of a leader that leads no more",
        Some(_) if published.is_some() => "that the leader does not have",
        Some(_) | None => return None,
    };
    Some(Decision::act(
        "stranded",
        Action::Stop,
        format!("recovery waits for WAL {why}: stopping, to be made anew"),
    ))
}

/// What a person has asked of this standby. To be stopped is all that a restart needs: a standby that is down is
/// started.
fn errand(cluster: &Cluster, me: &NodeView, leader: &NodeName) -> Option<Decision> {
    match (me.errand?, &me.postgres) {
        (Errand::Restart, Postgres::Standby(_)) => Some(Decision::act(
            "restart",
            Action::Stop,
            "a person asked for a restart: stopping cleanly",
        )),
        // Its copy is the only proof yet that nothing is lost: first it follows, and the leader has it.
        (Errand::Reinitialize, Postgres::Standby(_)) if acknowledged_alone(cluster, me) => None,
        (Errand::Reinitialize, _) => Some(match known_lineage(cluster) {
            Some(lineage) => clone(
                (leader.clone(), cluster.current_epoch(), lineage.clone()),
                "a person asked for it",
            ),
            None => waiting_for_promotion(leader),
        }),
        (Errand::Restart | Errand::Restarting, _) => None,
    }
}

/// Whether a setting stands under which this node acknowledged alone: until the leader's own has passed its barrier.
fn acknowledged_alone(cluster: &Cluster, me: &NodeView) -> bool {
    let settings = cluster.sync.iter().flat_map(|record| record.settings());
    settings
        .filter(|setting| setting.leader == me.name)
        .any(|setting| setting.standbys.is_empty())
}

/// The lineage of the leader that there is, as soon as it can be followed. A standby cluster is led by a standby: what
/// a primary has published of the same epoch is over.
fn known_lineage(cluster: &Cluster) -> Option<&Lineage> {
    let fits = cluster.settings.remote.is_none() || cluster.led_by_standby();
    foreign::known_lineage(cluster).filter(|_| fits)
}

fn begin(cluster: &Cluster, me: &NodeView, leader: &NodeName, now: Instant) -> Decision {
    if let Some(wait) = start_pause(cluster, me, now) {
        return wait;
    }
    match &me.data {
        DataDir::Ready(_) if me.rewound && foreign::is_unknown(cluster) => {
            foreign::recognize(cluster, leader)
        }
        DataDir::Ready(_) if me.rewound => match known_lineage(cluster) {
            Some(lineage) => clone(
                (leader.clone(), cluster.current_epoch(), lineage.clone()),
                "it was rewound, and never opened since",
            ),
            None => waiting_for_promotion(leader),
        },
        DataDir::Ready(_) => start(cluster, me, leader, now),
        DataDir::Empty | DataDir::Unfinished if foreign::is_unknown(cluster) => {
            foreign::recognize(cluster, leader)
        }
        DataDir::Empty | DataDir::Unfinished => match known_lineage(cluster) {
            Some(lineage) => Decision::act(
                "clone",
                Action::Clone {
                    leader: leader.clone(),
                    epoch: cluster.current_epoch(),
                    lineage: lineage.clone(),
                },
                format!("making a base backup of {leader}"),
            ),
            None => waiting_for_promotion(leader),
        },
        DataDir::Unusable(why) => Decision::wait(
            "unusable directory",
            format!("the data directory is unusable: {why}"),
        ),
    }
}

/// Clients that find a node closed take its refusal for an answer, while of one that starts they know to ask another:
/// what can be proven is proven before the start. Beside agents of Patroni's it is not: what they do with a directory no
/// note of ours tells.
fn start(cluster: &Cluster, me: &NodeView, leader: &NodeName, now: Instant) -> Decision {
    let vouched = me.lineage.is_some() && !me.nostream && foreign::are_none(cluster);
    let lineage = known_lineage(cluster).filter(|_| vouched);
    if lineage.is_none() && vouched && me.on_disk.is_some() && suspicion(cluster, me, now).is_none()
    {
        return waiting_for_promotion(leader);
    }
    let Some(lineage) = lineage else {
        return Decision::act("park", Action::Park, "starting to see what WAL is here");
    };
    let via = source::between(cluster, &me.name, me.source.as_ref());
    let rejoin = Action::Rejoin {
        leader: leader.clone(),
        epoch: cluster.current_epoch(),
        lineage: lineage.clone(),
        via: via.cloned(),
    };
    let reason =
        format!("starting as a standby of {leader}, if the WAL here is part of its history");
    Decision::act("rejoin", rejoin, reason)
}

/// Starts and copies that failed are tried again, with a growing pause.
pub(super) fn start_pause(cluster: &Cluster, me: &NodeView, now: Instant) -> Option<Decision> {
    if me.start_failures == 0 {
        return None;
    }
    let pause = cluster.settings.loop_wait * me.start_failures.min(10);
    let down = me
        .down_since
        .map_or(Duration::ZERO, |since| now.since(since));
    (down < pause).then(|| {
        let (rule, what) = match me.data {
            DataDir::Ready(_) => ("start failed", "Postgres failed to start"),
            DataDir::Empty | DataDir::Unfinished | DataDir::Unusable(_) => {
                ("copy failed", "the copy of the leader's data failed")
            }
        };
        let times = me.start_failures;
        Decision::wait(rule, format!("{what} {times} times, trying again soon"))
    })
}

fn waiting_for_promotion(leader: &NodeName) -> Decision {
    Decision::wait(
        "leader promoting",
        format!("waiting for {leader} to finish its promotion"),
    )
}

/// A standby of the archive. It has no note, so it promises nothing and is never believed; when it shall stream again
/// its WAL is compared with the leader's.
fn feed(cluster: &Cluster, me: &NodeView, leader: &NodeName, standby: &Standby) -> Decision {
    if standby.is_fed() {
        let reason = "its tag nostream says so: no longer taking WAL of anybody";
        return Decision::act("detach", Action::Detach, reason);
    }
    if me.lineage.is_some() {
        let feed = Action::Feed {
            leader: leader.clone(),
            epoch: cluster.current_epoch(),
        };
        let reason = "taking WAL from the archive alone, and vouching for nothing from here on";
        return Decision::act("archive", feed, reason);
    }
    if !standby.open {
        return Decision::act("open", Action::Open, "a standby of the archive opens");
    }
    let lag = cluster.leader_position.bytes_since(standby.replayed);
    Decision::wait(
        "archive",
        format!("a standby of the archive, {lag} bytes behind {leader} in replay"),
    )
}

fn join(cluster: &Cluster, me: &NodeView, leader: &NodeName, standby: &Standby) -> Decision {
    if me.nostream {
        return feed(cluster, me, leader, standby);
    }
    let lineage = known_lineage(cluster);
    if lineage.is_none() && !foreign::is_unknown(cluster) {
        return waiting_for_promotion(leader);
    }
    let epoch = cluster.current_epoch();
    let via = source::between(cluster, &me.name, me.source.as_ref());
    if let Some(lineage) = lineage.filter(|lineage| me.lineage.as_ref() == Some(*lineage))
        && standby.upstream.as_ref() == Some(via.unwrap_or(leader))
    {
        return stream(cluster, me, leader, standby, lineage);
    }
    if standby.is_fed() {
        let old = standby
            .upstream
            .as_ref()
            .map_or("the old upstream", NodeName::as_str);
        return Decision::act(
            "detach",
            Action::Detach,
            format!("{leader} leads epoch {epoch}: no longer taking WAL of {old}"),
        );
    }
    if !standby.end_known {
        return Decision::wait(
            "reading WAL",
            format!(
                "replayed to {}, the end of the local WAL is not seen yet",
                standby.replayed
            ),
        );
    }
    if standby.replayed < standby.received {
        // It may end in half a record, which is no divergence: whole records are compared.
        let behind = standby.received.bytes_since(standby.replayed);
        return Decision::wait(
            "reading WAL",
            format!("{behind} bytes of local WAL to replay"),
        );
    }
    let Some(lineage) = lineage else {
        return foreign::recognize(cluster, leader);
    };
    let order = (leader.clone(), epoch, lineage.clone());
    // What Patroni's agents call their timelines proves nothing. And the timeline of a remote primary may have come
    // here by a standby leader before anybody noted it.
    let noted = me.lineage.as_ref();
    let noted = noted.filter(|note| !cluster.foreign.leads && note.names(standby.timeline));
    let Some(note) = noted else {
        let (leader, epoch, lineage) = order;
        let why = match me.lineage {
            Some(_) if cluster.foreign.leads => "its agent is Patroni's",
            Some(_) => "it is on a timeline that the note does not name",
            None => "this node has no note of whose WAL it holds",
        };
        let reason = format!("comparing the WAL here with that of {leader}: {why}");
        let compare = Action::Compare {
            leader,
            epoch,
            lineage,
        };
        return Decision::act("compare", compare, reason);
    };
    let position = note.at(standby.received);
    match lineage.relation_of(note, standby.received) {
        Relation::Ancestor => {
            let (leader, epoch, lineage) = order;
            let by = via.map_or_else(String::new, |via| format!(" by way of {via}"));
            let reason = format!("following {leader}{by} from {position}");
            Decision::act(
                "follow",
                Action::Follow {
                    leader,
                    epoch,
                    lineage,
                    via: via.cloned(),
                },
                reason,
            )
        }
        Relation::Diverged { fork } => {
            let why = format!(
                "{} bytes of WAL after {fork} are not part of the leader's history",
                position.lsn.bytes_since(fork)
            );
            rewind(order, &why)
        }
        Relation::Foreign => clone(
            order,
            &format!(
                "timeline {} here is not the leader's timeline of that number",
                position.timeline
            ),
        ),
    }
}

type Order = (NodeName, crate::types::Epoch, Lineage);

fn clone((leader, epoch, lineage): Order, why: &str) -> Decision {
    let reason = format!("making a new base backup of {leader}: {why}");
    Decision::act(
        "clone",
        Action::Clone {
            leader,
            epoch,
            lineage,
        },
        reason,
    )
}

fn rewind((leader, epoch, lineage): Order, why: &str) -> Decision {
    let reason = format!("rewinding to the history of {leader}: {why}");
    Decision::act(
        "rewind",
        Action::Rewind {
            leader,
            epoch,
            lineage,
        },
        reason,
    )
}

fn stream(
    cluster: &Cluster,
    me: &NodeView,
    leader: &NodeName,
    standby: &Standby,
    lineage: &Lineage,
) -> Decision {
    let order = (leader.clone(), cluster.current_epoch(), lineage.clone());
    let upstream = standby.upstream.as_ref().unwrap_or(leader);
    match me.stream_broken {
        // What another standby lacks the leader may have; its agent sees to it that it is asked.
        Some(_) if upstream != leader => {}
        Some(StreamBroken::WalRemoved) if !standby.streaming => {
            return clone(
                order,
                "the leader no longer has the WAL that this node needs",
            );
        }
        Some(StreamBroken::Diverged) if !standby.streaming => {
            return rewind(order, "Postgres found that the histories differ");
        }
        Some(_) | None => {}
    }
    if !standby.streaming {
        return match &me.stream_says {
            Some(why) => Decision::wait(
                "cannot stream",
                format!("cannot stream from {upstream}: {why}"),
            ),
            None => Decision::wait("connecting", format!("connecting to {upstream}")),
        };
    }
    if !standby.open {
        return Decision::act(
            "open",
            Action::Open,
            format!("a verified standby of {leader} opens"),
        );
    }
    let lag = cluster.leader_position.bytes_since(standby.replayed);
    let by = match upstream == leader {
        true => String::new(),
        false => format!(" by way of {upstream}"),
    };
    Decision::wait(
        "standby",
        format!("a standby of {leader}{by}, {lag} bytes behind in replay"),
    )
}
