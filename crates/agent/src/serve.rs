//! What the node shows of itself: to the REST API, and to the others in its member key.

use crate::agent::{Options, Tags};
use crate::clock::now;
use crate::figures::Figures;
use crate::observe::Observation;
use ha::{
    Cluster, ClusterView, DataDir, Decision, Instant, Lease, Lsn, NodeView, Postgres, Storage,
};
use serde_json::Value;
use std::sync::Arc;
use store::Snapshot;
use store::layout::{MemberExtra, MemberRecord, PATRONI_CONTRACT};
use tokio::sync::watch;

fn record_of(tags: &Tags) -> Option<Value> {
    (!tags.is_empty()).then(|| tags.clone().into())
}

/// The parts of the node's picture that do not change by themselves.
#[derive(Debug)]
pub(crate) struct Shown {
    host: String,
    port: u16,
    proxy_url: Option<String>,
    api_url: String,
    identity: String,
    /// As the member record has them; none if there are none.
    tags: Option<Value>,
    out: watch::Sender<Arc<api::Served>>,
    pub(crate) scheduled_restart: Option<Value>,
    pub(crate) watchdog_failed: bool,
    /// What a person should know of.
    pub(crate) troubles: Vec<String>,
    figures: Arc<Figures>,
    cluster: Option<Cluster>,
}

impl Shown {
    pub(crate) fn new(options: Options, figures: Arc<Figures>) -> Self {
        Self {
            host: options.host,
            port: options.port,
            proxy_url: options.proxy_url,
            api_url: options.api_url,
            identity: options.identity,
            tags: record_of(&options.tags),
            out: options.served,
            scheduled_restart: None,
            watchdog_failed: false,
            troubles: Vec::new(),
            figures,
            cluster: None,
        }
    }

    pub(crate) fn retag(&mut self, tags: &Tags) {
        self.tags = record_of(tags);
        self.out
            .send_modify(|served| Arc::make_mut(served).tags = tags.clone());
    }

    pub(crate) fn is_identity(&self, identity: &str) -> bool {
        self.identity == identity
    }

    /// When the Postgres that was seen last was started.
    pub(crate) fn started(&self) -> Option<String> {
        self.out.borrow().postmaster_start_time.clone()
    }

    /// Whether the conditions of a restart are met; the one that is not, if so.
    pub(crate) fn due(&self, restart: &api::errand::Restart) -> Result<(), &'static str> {
        restart.due(&self.out.borrow())
    }

    /// What the member key says, but for what only the agent knows.
    pub(crate) fn member(
        &self,
        cluster: &Cluster,
        me: &NodeView,
        observation: &Observation,
        decision: &Decision,
    ) -> MemberRecord {
        let (role, state) = decision.state.patroni();
        let standby = match &me.postgres {
            Postgres::Standby(standby) => Some(standby),
            _ => None,
        };
        let (host, port) = (&self.host, self.port);
        MemberRecord {
            conn_url: format!("postgres://{host}:{port}/postgres"),
            proxy_url: self.proxy_url.clone(),
            api_url: self.api_url.clone(),
            state: state.to_owned(),
            role: role.to_owned(),
            version: PATRONI_CONTRACT.to_owned(),
            xlog_location: position(&me.postgres),
            receive_lsn: standby.map(|standby| standby.received),
            replay_lsn: standby.map(|standby| standby.replayed),
            timeline: observation.facts.timeline,
            replication_state: standby
                .and_then(|standby| api::replication_state(standby, observation.facts.has_archive))
                .map(str::to_owned),
            checkpoint_after_promote: None,
            pause: cluster.settings.paused,
            tags: self.tags.clone(),
            pending_restart: observation.facts.pending_restart.is_some(),
            pending_restart_reason: observation.facts.pending_restart.clone(),
            scheduled_restart: self.scheduled_restart.clone(),
            standfast: Some(MemberExtra {
                host: host.clone(),
                port,
                state: decision.state,
                assigned: decision.assigned,
                reason: settled_reason(decision),
                rule: decision.rule.to_owned(),
                unfit: unfit(cluster, me),
                stream_says: me.stream_says.clone(),
                troubles: self.troubles.clone(),
                identity: self.identity.clone(),
                server_version: observation.facts.server_version,
                ties: ha::Ties::default(),
                remembers: None,
            }),
        }
    }

    /// Without a decision only what the node knows by itself is news.
    pub(crate) fn undecided(&self, observation: &Observation, lease: Option<Lease>) {
        self.out.send_modify(|served| {
            let served = Arc::make_mut(served);
            if let Some(me) = &mut served.me {
                me.postgres = observation.postgres.clone();
                me.lease = lease;
            }
            served.loop_at = now();
        });
    }

    /// Publishes the picture after a decision.
    pub(crate) fn publish(
        &mut self,
        view: &ClusterView,
        snapshot: &Arc<Snapshot>,
        me: NodeView,
        decision: Decision,
        observation: &Observation,
        heard: Option<Instant>,
    ) {
        let silent = match view {
            ClusterView::Known(cluster) => {
                self.cluster = Some((**cluster).clone());
                None
            }
            ClusterView::Silent { .. } => {
                Some(heard.map_or(std::time::Duration::MAX, |heard| now().since(heard)))
            }
        };
        let facts = &observation.facts;
        self.out.send_modify(|served| {
            let served = Arc::make_mut(served);
            served.cluster.clone_from(&self.cluster);
            served.snapshot = Arc::clone(snapshot);
            served.system_id = match me.data {
                DataDir::Ready(system) => Some(system),
                DataDir::Empty | DataDir::Unfinished | DataDir::Unusable(_) => served.system_id,
            };
            served.me = Some(me);
            served.decision = Some(decision);
            served.server_version = facts.server_version;
            served
                .postmaster_start_time
                .clone_from(&facts.postmaster_start_time);
            served.store_silent_for = silent;
            served.loop_at = now();
            served
                .replayed_timestamp
                .clone_from(&facts.replay_timestamp);
            served.replay_paused = facts.replay_paused;
            served.has_archive = facts.has_archive;
            served.pending_restart = facts.pending_restart.is_some();
            served
                .pending_restart_reason
                .clone_from(&facts.pending_restart);
            served.scheduled_restart.clone_from(&self.scheduled_restart);
            served.watchdog_failed = self.watchdog_failed;
            served.troubles.clone_from(&self.troubles);
            served.replication.clone_from(&facts.replication);
            served.metrics = self.figures.metrics();
        });
    }
}

fn position(postgres: &Postgres) -> Lsn {
    match postgres {
        Postgres::Primary(primary) => primary.flushed,
        Postgres::Standby(standby) => standby.received,
        Postgres::Down { .. } | Postgres::Starting | Postgres::Unresponsive { .. } => Lsn::ZERO,
    }
}

/// A reason with running numbers would be news each time.
fn settled_reason(decision: &Decision) -> String {
    match decision.rule {
        "standby" => "a standby, streaming from the leader".to_owned(),
        _ => decision.reason.clone(),
    }
}

fn unfit(cluster: &Cluster, me: &NodeView) -> Option<String> {
    if let Storage::Failing { why, .. } = &me.storage {
        return Some(format!("its storage fails: {why}"));
    }
    if cluster.node(&me.name).maintenance {
        return Some("it is in maintenance".to_owned());
    }
    if let Some(why) = me.unwatched.as_ref().or(me.barred.as_ref()) {
        return Some(why.clone());
    }
    match &me.data {
        DataDir::Ready(_) => None,
        DataDir::Empty => Some("it has no data yet".to_owned()),
        DataDir::Unfinished => Some("its copy of the data is not whole".to_owned()),
        DataDir::Unusable(why) => Some(why.clone()),
    }
}
