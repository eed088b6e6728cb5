//! What an agent finds when it looks at its own machine, and the breaks that stand in front of its eyes.

use crate::config::Break;
use crate::node::{Health, Life, NodeId, Role, Seen, id_of, name_of};
use crate::wal::{lsn, received};
use crate::world::World;
use ha::{
    Cluster, DataDir, Job, Lease, Member, NodeView, Postgres, Primary, Standby, Storage,
    Switchover, Walsender,
};
use std::time::Duration;

impl World {
    /// What the agent finds when it looks at its own machine.
    pub(crate) fn observe(&mut self, id: NodeId) -> NodeView {
        let Seen {
            postgres,
            clean_stop,
            ..
        } = self.look(id);
        let errand = self.errand(id, &postgres);
        let now = self.local(id);
        let node = &self.nodes[id];
        let agent = &node.agent;
        let storage = match node.disk.health {
            Health::Fine | Health::Slow => Storage::Healthy,
            Health::Hung | Health::Full => Storage::Failing {
                since: node.clock.read(node.disk.sick_since),
                why: format!("{:?}", node.disk.health),
            },
        };
        NodeView {
            name: node.name.clone(),
            data: node.disk.data.clone(),
            postgres,
            lineage: node.disk.note.clone(),
            lease: agent
                .lease
                .map(|lease| Lease {
                    by_members: agent.by_members.is_some_and(|until| now < until),
                    ..lease
                })
                .or_else(|| self.inherited_lease(id)),
            held: agent
                .hold
                .filter(|_| !self.config.is_broken(Break::HoldForgotten)),
            job: match &agent.doing {
                Some(doing) => Some(doing.job),
                None => self.is_busy(id).then_some(Job::Other),
            },
            contact: agent.contact,
            applied: agent.applied.clone(),
            storage,
            registered: agent.registered,
            promised_at: agent.promised_at.map(|(_, at)| at),
            on_disk: clean_stop.then(|| lsn(node.disk.wal.len())),
            clean_stop: clean_stop || self.config.is_broken(Break::CrashAsHandover),
            may_not_found: None,
            down_since: agent.down_since,
            start_failures: agent.start_failures,
            stream_broken: node.standby().and_then(|standby| standby.broken),
            stream_says: None,
            rewound: node.disk.needs.is_some(),
            errand,
            source: None,
            unwatched: None,
            barred: agent
                .barred
                .filter(|until| now < *until)
                .map(|_| "the user's program has refused it".to_owned()),
            nostream: false,
        }
    }

    /// The lease of an agent before this one, as its guard has it: until the store has been met for the first time,
    /// Postgres may go on under it.
    fn inherited_lease(&self, id: NodeId) -> Option<Lease> {
        let node = &self.nodes[id];
        if node.agent.met && node.agent.heard.is_some() {
            return None;
        }
        Some(Lease {
            epoch: ha::Epoch::NONE,
            deadline: node.guard?,
            by_members: false,
        })
    }

    /// What the observer saw last. It looks from time to time, anew after each action, and soon when Postgres dies; so
    /// a decision may be made on what was some time ago.
    fn look(&mut self, id: NodeId) -> Seen {
        let local = self.local(id);
        let patience = match self.rng.chance(700) {
            true => Duration::from_millis(20),
            false => self.config.look_every,
        };
        let agent = &self.nodes[id].agent;
        if let Some(seen) = &agent.seen
            && seen.at >= agent.fresh_from
            && local.since(seen.at) < patience
        {
            return seen.clone();
        }
        let postgres = self.observe_postgres(id);
        let seen = Seen {
            at: local,
            postgres,
            clean_stop: self.nodes[id].disk.clean_stop,
        };
        self.nodes[id].agent.seen = Some(seen.clone());
        seen
    }

    fn observe_postgres(&mut self, id: NodeId) -> Postgres {
        let local = self.local(id);
        let node = &mut self.nodes[id];
        let whole = |needs: &mut usize| node.disk.wal.len() >= *needs;
        node.disk.needs.take_if(whole);
        let node = &self.nodes[id];
        match node.pg.life {
            Life::Down => return Postgres::Down { leftovers: 0 },
            Life::Orphaned | Life::Dying => {
                let seen = !self.config.is_broken(Break::ReleaseWithBackends);
                return Postgres::Down {
                    leftovers: usize::from(seen),
                };
            }
            Life::Starting => return Postgres::Starting,
            Life::Up => {}
        }
        if !matches!(node.pg.role, Role::Primary(_)) {
            self.nodes[id].agent.primary_since = None;
        }
        let node = &self.nodes[id];
        if let Some(stopped) = node.pg.stopped {
            let since = node.clock.read(stopped);
            return Postgres::Unresponsive { since };
        }
        match &node.pg.role {
            Role::Standby(_) if node.disk.needs.is_some() => Postgres::Starting,
            Role::Standby(side) => {
                let ended = side.receiver.is_none() && node.disk.upstream.is_none();
                let all = node.disk.wal.len();
                // Once replay is seen to wait for more, what it has replayed is the end.
                let received = match (side.streamed, side.waiting) {
                    (true, false) => received(all, node.disk.half),
                    (true, true) | (false, _) => lsn(side.replayed),
                };
                Postgres::Standby(Standby {
                    upstream: node
                        .disk
                        .upstream
                        .filter(|_| !side.ghost)
                        .map(|(up, _)| name_of(up)),
                    streaming: side.receiver.is_some() && !side.ghost,
                    received,
                    replayed: lsn(side.replayed),
                    end_known: side.ghost || (ended && (side.streamed || side.waiting)),
                    open: side.open,
                    ..Standby::default()
                })
            }
            Role::Primary(side) => {
                let mut seen = node.agent.standbys.clone();
                for walsender in seen.values_mut() {
                    walsender.streaming = false;
                    walsender.flushed = ha::Lsn::ZERO;
                }
                for (standby, sender) in &side.senders {
                    let flushed = lsn(sender.flushed);
                    let walsender = Walsender {
                        streaming: true,
                        flushed,
                        seen: local,
                    };
                    seen.insert(name_of(*standby), walsender);
                }
                // Whoever is named gets the time to come, from when this was first seen to be a primary.
                let since = node.agent.primary_since.unwrap_or(local);
                let record = node.agent.snapshot.cluster.sync.as_ref();
                for name in record.iter().flat_map(|record| &record.newest().standbys) {
                    let unseen = Walsender {
                        streaming: false,
                        flushed: ha::Lsn::ZERO,
                        seen: since,
                    };
                    let walsender = seen.entry(name.clone()).or_insert(unseen);
                    walsender.seen = walsender.seen.max(since);
                }
                let primary = Primary {
                    timeline: side.timeline,
                    flushed: lsn(node.disk.flushed),
                    standbys: seen.clone(),
                    open: side.open,
                };
                self.nodes[id].agent.standbys = seen;
                self.nodes[id].agent.primary_since = Some(since);
                Postgres::Primary(primary)
            }
        }
    }

    /// The breaks that stand in front of the decision.
    pub(crate) fn distort(&self, cluster: &mut Cluster, me: &mut NodeView) {
        if self.config.is_broken(Break::DataOverlooked)
            && !matches!(cluster.initialize, ha::Initialize::Done(_))
        {
            me.data = DataDir::Empty;
        }
        if self.config.is_broken(Break::PriorityUnseen) {
            for node in cluster.nodes.values_mut() {
                node.priority = 50;
                node.maintenance = false;
            }
        }
        if self.config.is_broken(Break::LossUnasked) && cluster.leader.is_none() {
            cluster.switchover = Some(Switchover {
                from: None,
                to: Some(me.name.clone()),
                accept_loss: true,
            });
        }
        if self.config.is_broken(Break::LeaveNamed) && cluster.node(&me.name).dropped {
            cluster.sync = None;
        }
        if self.config.is_broken(Break::HalfBelieved)
            && let Postgres::Standby(standby) = &mut me.postgres
            && self.nodes[id_of(&me.name)].disk.half
        {
            standby.replayed = standby.received;
        }
        if self.config.is_broken(Break::PauseUnseen) {
            cluster.settings.paused = false;
        }
        if self.nodes[id_of(&me.name)].agent.forgot {
            cluster.promises.remove(&me.name);
        }
        if self.config.is_broken(Break::ClaimBehind)
            && let Some(mine) = cluster
                .promises
                .get(&me.name)
                .map(|promise| promise.position)
        {
            for promise in cluster.promises.values_mut() {
                promise.position = mine;
            }
        }
        if self.config.is_broken(Break::NumbersBelieved)
            && cluster.leader.as_ref() != Some(&me.name)
            && let (Some(published), Some(mine)) = (&cluster.lineage, &me.lineage)
        {
            let believed = mine.branches().iter().map(|branch| {
                let theirs = published.lineage.branches();
                let same = theirs
                    .iter()
                    .find(|other| other.timeline == branch.timeline);
                ha::Branch {
                    epoch: same.map_or(branch.epoch, |other| other.epoch),
                    ..*branch
                }
            });
            me.lineage =
                ha::Lineage::from_branches(believed.collect()).or_else(|| me.lineage.clone());
        }
    }

    /// What it tells the others.
    pub(crate) fn member(&self, id: NodeId) -> Member {
        let node = &self.nodes[id];
        let copying = matches!(
            node.agent.doing.as_ref().map(|doing| doing.job),
            Some(Job::Clone | Job::Rewind)
        );
        let unfit = match () {
            () if matches!(node.disk.health, Health::Hung | Health::Full) => {
                Some("its storage fails")
            }
            () if copying || !matches!(node.disk.data, DataDir::Ready(_)) => Some("it has no data"),
            () => None,
        };
        Member {
            host: String::new(),
            port: 0,
            api_url: String::new(),
            state: match (&node.pg.role, node.pg.life) {
                (Role::Standby(_), Life::Up) if node.disk.needs.is_none() => ha::NodeState::Standby,
                _ => ha::NodeState::Init,
            },
            position: ha::Lsn::ZERO,
            timeline: ha::Timeline(0),
            unfit: unfit.map(str::to_owned),
            ties: ha::Ties::default(),
        }
    }
}
