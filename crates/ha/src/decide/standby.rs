//! The leader of a standby cluster: it holds the leader key as any leader does, follows another cluster's primary, and
//! the members follow it. Nobody is promoted.
//!
//! No commit of ours is acknowledged here, so nothing of ours can be lost by a change of leader. What must hold is whose
//! WAL it is: the remote's timelines come and go without our epochs. So a node follows the remote only after its own WAL
//! was compared with the remote's, and a timeline that the note does not name begins a new epoch.
//!
//! **Invariant:** while `standby_cluster` stands nothing here promotes, and a primary in office is stopped.
//! **Invariant:** an epoch in which there was a primary is never a standby leader's, nor the other way round: between the
//! two lies a claim.

use super::handover::{self, Unfit};
use super::race::race;
use super::{down, lead};
use crate::decision::{Action, Decision};
use crate::settings::Remote;
use crate::state::NodeState;
use crate::types::{Epoch, Instant, NodeName};
use crate::view::{Cluster, DataDir, Errand, Lease, NodeView, Postgres, Standby, StreamBroken};

/// What the leader of a standby cluster does; none where it does what every leader does.
pub(super) fn lead(
    cluster: &Cluster,
    me: &NodeView,
    remote: &Remote,
    lease: Lease,
    now: Instant,
) -> Option<Decision> {
    match &me.postgres {
        Postgres::Primary(_) => {
            let place = remote.place();
            let reason =
                format!("this is a standby cluster: the primary stops cleanly, to follow {place}");
            Some(Decision::act("demote cluster", Action::Drain, reason))
        }
        Postgres::Standby(standby) => Some(accompany(cluster, me, standby, remote, lease, now)),
        Postgres::Down { .. } | Postgres::Starting | Postgres::Unresponsive { .. } => None,
    }
}

fn accompany(
    cluster: &Cluster,
    me: &NodeView,
    standby: &Standby,
    remote: &Remote,
    lease: Lease,
    now: Instant,
) -> Decision {
    let epoch = lease.epoch;
    if is_used_up(cluster, me, epoch) {
        if let Err(missing) = down::enough_alone(cluster, me) {
            return Decision::act("others needed", Action::Stop, missing);
        }
        return race(cluster, me, "this is a standby cluster", now);
    }
    if let Some(decision) = step_aside(cluster, me) {
        return decision;
    }
    let fits = standby.upstream.is_none() && standby.remote.as_ref() == Some(remote);
    if standby.is_fed() && fits && is_published(cluster, me) {
        return follow_on(cluster, me, standby, remote, epoch);
    }
    if standby.is_fed() {
        let reason = format!(
            "no longer taking the WAL of before, to follow {}",
            remote.place()
        );
        return Decision::act("detach", Action::Detach, reason);
    }
    if !standby.end_known || standby.replayed < standby.received {
        let reason = format!(
            "replayed to {}, the end of the local WAL is not seen yet",
            standby.replayed
        );
        return Decision::wait("reading WAL", reason);
    }
    if let Some(promise) = cluster.promises.get(&me.name) {
        let epoch = promise.epoch;
        let reason = format!("the promise of epoch {epoch} has served its purpose");
        return Decision::act("withdraw", Action::Withdraw { epoch }, reason);
    }
    // Also while the remote is away: the members come together, and those who read are let in.
    if let Some(lineage) = me.lineage.clone().filter(|_| !is_published(cluster, me)) {
        let reason = format!("{} leads the standby cluster in epoch {epoch}", me.name);
        return Decision::act("publish", Action::Publish { epoch, lineage }, reason);
    }
    if !standby.open && me.lineage.is_some() {
        return Decision::act("open", Action::Open, "the standby leader opens for reading");
    }
    let place = remote.place();
    let remote = remote.clone();
    let reason = format!("following {place}, once the WAL here is found to be the same");
    Decision::act(
        "follow remote",
        Action::FollowRemote { epoch, remote },
        reason,
    )
}

/// The standby cluster that this node leads, as far as others may build on it.
fn is_published(cluster: &Cluster, me: &NodeView) -> bool {
    let published = cluster.published_lineage();
    cluster.led_by_standby() && published.is_some() && published == me.lineage.as_ref()
}

/// Whether this epoch was, or might have become, a primary's, or this node has promised to be silent in it.
fn is_used_up(cluster: &Cluster, me: &NodeView, epoch: Epoch) -> bool {
    !cluster.led_by_standby() || lead::promised_in(cluster, me, epoch)
}

fn follow_on(
    cluster: &Cluster,
    me: &NodeView,
    standby: &Standby,
    remote: &Remote,
    epoch: Epoch,
) -> Decision {
    let place = remote.place();
    let noted = me.lineage.as_ref();
    if noted.is_some_and(|note| !note.names(standby.timeline)) {
        let reason = format!(
            "{place} is on timeline {}, which nobody here has noted: it is compared first",
            standby.timeline
        );
        return Decision::act("remote timeline", Action::Detach, reason);
    }
    if let Some(why) = broken(me, standby, remote) {
        let reason = format!("the stream from {place} has ended: {why}");
        return Decision::act("remote lost", Action::Detach, reason);
    }
    if cluster.sync.is_some() {
        let record = None;
        return Decision::act(
            "synchronous off",
            Action::Record { epoch, record },
            "a standby cluster acknowledges no commits, so none need protection",
        );
    }
    if !standby.open {
        return Decision::act("open", Action::Open, "the standby leader opens for reading");
    }
    Decision::wait(
        "standby leader",
        format!("the standby leader of epoch {epoch}, following {place}"),
    )
}

/// Why it does not stream and will not by itself. The archive may have what the stream lacks.
fn broken(me: &NodeView, standby: &Standby, remote: &Remote) -> Option<String> {
    if standby.streaming || remote.host.is_none() {
        return None;
    }
    match (&me.stream_broken, &me.stream_says) {
        (Some(StreamBroken::Diverged), _) => Some("the histories differ".to_owned()),
        _ if remote.restore_command.is_some() => None,
        (Some(StreamBroken::WalRemoved), _) => {
            Some("it no longer has the WAL that is needed".to_owned())
        }
        (None, Some(says)) => Some(says.clone()),
        (None, None) => None,
    }
}

/// What a person wants of this leader: that another one leads, or a restart.
fn step_aside(cluster: &Cluster, me: &NodeView) -> Option<Decision> {
    let stop = |rule: &'static str, reason: String| Some(Decision::act(rule, Action::Stop, reason));
    let others = others(cluster, &me.name);
    if let Some(order) = &cluster.switchover {
        let mine = order.from.as_ref().is_none_or(|from| *from == me.name);
        if !mine || order.to.as_ref() == Some(&me.name) {
            return Some(handover::clear(
                "switchover done",
                format!("done: {} leads", me.name),
            ));
        }
        if !is_published(cluster, me) {
            // Perhaps under this very order: nobody else had its WAL.
            let epoch = cluster.current_epoch();
            let why = format!("refused: {} has only just begun epoch {epoch}", me.name);
            return Some(handover::clear("switchover refused", why));
        }
        return Some(match candidate(cluster, &me.name, order.to.as_ref()) {
            Ok(to) => Decision::act(
                "switchover",
                Action::Stop,
                format!("{} hands the standby cluster over to {to}", me.name),
            ),
            Err(unfit) => handover::clear("switchover refused", format!("refused: {unfit}")),
        });
    }
    let record = cluster.node(&me.name);
    if (record.maintenance || record.dropped)
        && (!others.is_empty() || super::is_only(cluster, &me.name))
    {
        return stop("step aside", format!("{} steps aside", me.name));
    }
    if me.errand == Some(Errand::Restart) {
        return stop(
            "restart",
            "a person asked for a restart: stopping cleanly".to_owned(),
        );
    }
    None
}

/// Who would be asked to lead the standby cluster, or why nobody can be. No distance in bytes stands in the way: a clean
/// stop sends everything to those that stream, and what is missing is the remote's.
pub(super) fn candidate(
    cluster: &Cluster,
    leader: &NodeName,
    wanted: Option<&NodeName>,
) -> Result<NodeName, Unfit> {
    if let Some(name) = wanted {
        if name == leader {
            return Err(Unfit::lasting(format!("{name} is the leader already")));
        }
        return fit(cluster, name).map(|()| name.clone());
    }
    let (mut best, mut reasons, mut passing) = (None, Vec::new(), false);
    for name in cluster.nodes.keys().filter(|name| *name != leader) {
        match fit(cluster, name) {
            Ok(()) => {
                let member = cluster.members.get(name);
                let position = member.map(|it| (it.timeline, it.position));
                best = best.max(Some((cluster.node(name).priority, position, name)));
            }
            Err(unfit) => {
                passing |= unfit.passing;
                reasons.push(unfit.why);
            }
        }
    }
    match best {
        Some((_, _, name)) => Ok(name.clone()),
        None if reasons.is_empty() => Err(Unfit::lasting("there is no other node")),
        None => Err(Unfit {
            why: reasons.join("; "),
            passing,
        }),
    }
}

fn fit(cluster: &Cluster, name: &NodeName) -> Result<(), Unfit> {
    let Some(member) = cluster.members.get(name) else {
        return Err(Unfit::lasting(format!("{name} is not alive")));
    };
    if cluster.foreign.members.contains(name) {
        let why = format!("{name} is Patroni's: it would follow the remote without comparing");
        return Err(Unfit::lasting(why));
    }
    if let Some(why) = &member.unfit {
        return Err(Unfit::lasting(format!("{name}: {why}")));
    }
    if let Some(why) = super::unwanted(cluster, name) {
        return Err(Unfit::lasting(format!("{name}: {why}")));
    }
    match member.state {
        NodeState::Standby => Ok(()),
        state => Err(Unfit::passing(format!(
            "{name} is not streaming from the standby leader, it is {state}"
        ))),
    }
}

/// The members that could lead a standby cluster: alive, with data, and wanted.
fn others<'a>(cluster: &'a Cluster, me: &NodeName) -> Vec<&'a NodeName> {
    let streams = |state| matches!(state, NodeState::Standby | NodeState::CatchingUp);
    let members = cluster.members.iter();
    let fit = members.filter(|(name, member)| {
        let theirs = cluster.foreign.members.contains(*name);
        let able = member.unfit.is_none() && streams(member.state);
        *name != me && !theirs && able && super::unwanted(cluster, name).is_none()
    });
    fit.map(|(name, _)| name).collect()
}

/// A member that has more of the remote's WAL than the standby leader, which is to be promoted now.
pub(super) fn further<'a>(
    cluster: &'a Cluster,
    me: &NodeView,
    standby: &Standby,
) -> Option<&'a NodeName> {
    let mine = (standby.timeline, standby.received);
    let mut others = others(cluster, &me.name).into_iter();
    others.find(|name| {
        let member = cluster.members.get(*name);
        member.is_some_and(|it| (it.timeline, it.position) > mine)
    })
}

/// The instance of a standby leader is down: another member is as good as it.
pub(super) fn fallen(cluster: &Cluster, me: &NodeView, lease: Lease, now: Instant) -> Decision {
    let epoch = lease.epoch;
    let release = |rule: &'static str, why: String| {
        let release = Action::Release {
            epoch,
            why: why.clone(),
        };
        Decision::act(rule, release, why)
    };
    if let Err(missing) = down::enough_alone(cluster, me) {
        return release("others needed", missing);
    }
    let others = others(cluster, &me.name);
    let restarting = me.errand == Some(Errand::Restarting) && me.start_failures == 0;
    // Also in a paused cluster a person's order is carried out.
    let paused = cluster.settings.paused && cluster.switchover.is_none();
    let stays = restarting || paused || !cluster.led_by_standby();
    if !others.is_empty() && !stays {
        let why = format!(
            "Postgres on {} is down: another one leads the standby cluster",
            me.name
        );
        return release("standby leader died", why);
    }
    let record = cluster.node(&me.name);
    if (record.maintenance || record.dropped) && super::is_only(cluster, &me.name) {
        return release("step aside", format!("{} steps aside", me.name));
    }
    let usable = matches!(me.data, DataDir::Ready(_)) && !me.rewound;
    if !usable && !others.is_empty() {
        let why = format!("the data directory of {} is not usable", me.name);
        return release("data lost", why);
    }
    if let Some(decision) = down::too_long(cluster, me, lease, now) {
        return decision;
    }
    if let Some(wrong) = super::wrong_directory(cluster, me) {
        return wrong;
    }
    if let Some(wait) = super::follow::start_pause(cluster, me, now) {
        return wait;
    }
    match cluster.settings.remote.clone().filter(|_| !usable) {
        Some(remote) => {
            let reason = format!("making a base backup of {}", remote.place());
            let copy = Action::FollowRemote { epoch, remote };
            Decision::act("clone remote", copy, reason)
        }
        None => Decision::act("park", Action::Park, "starting to see what WAL is here"),
    }
}
