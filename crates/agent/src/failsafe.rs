//! A leader that has lost the store asks the members to hold still, and stays in office as long as enough of them do.
//!
//! A task of its own, as the keeper: however long the loop or an action takes, the members are asked in time.
//!
//! **Invariant:** the deadline that their word gives counts from before the first of them was asked.

use crate::clock::now;
use crate::contact::question;
use crate::tenure::{Enforcer, Tenure};
use api::client::{Client, Method, Question};
use api::holding::{Asked, AskedFor};
use ha::{Cluster, ClusterView, Epoch, Holders, Instant, NodeName, NodeView, Postgres, holders};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Whom to ask, for as long as Postgres here is a primary that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    epoch: Epoch,
    ttl: Duration,
    holders: Holders,
    urls: BTreeMap<NodeName, String>,
}

/// What the loop knew of the cluster when it last had the store.
#[derive(Debug, Default)]
pub(crate) struct Basis {
    cluster: Option<Cluster>,
    /// What was put into `failsafe` and is not seen there yet.
    pending: BTreeMap<NodeName, String>,
}

impl Basis {
    /// What `failsafe` should say and does not; `Some(None)`: nothing.
    pub(crate) fn wanted(
        &mut self,
        cluster: &Cluster,
    ) -> Option<Option<BTreeMap<NodeName, String>>> {
        if !cluster.settings.failsafe {
            self.pending.clear();
            return cluster.failsafe.is_some().then_some(None);
        }
        let members = cluster.members.iter();
        let alive: BTreeMap<_, _> = members
            .map(|(name, member)| (name.clone(), member.api_url.clone()))
            .collect();
        if cluster.failsafe.as_ref() == Some(&alive) {
            self.pending.clear();
            return None;
        }
        self.pending.extend(alive.clone());
        Some(Some(alive))
    }

    /// What is to be done if the store falls silent now.
    pub(crate) fn plan(&mut self, view: &ClusterView, me: &NodeView) -> Option<Plan> {
        let lease = me.lease?;
        if let ClusterView::Known(cluster) = view {
            let here = cluster.leader.as_ref() == Some(&me.name)
                || (cluster.leader.is_none() && lease.by_members);
            let mine = here && cluster.current_epoch() == lease.epoch && cluster.settings.failsafe;
            self.cluster = mine.then(|| (**cluster).clone());
        }
        let (Some(cluster), Postgres::Primary(primary)) = (&self.cluster, &me.postgres) else {
            return None;
        };
        if !primary.open || cluster.current_epoch() != lease.epoch {
            return None;
        }
        let mut cluster = cluster.clone();
        if let Some(listed) = &mut cluster.failsafe {
            let pending = self.pending.iter();
            listed.extend(pending.map(|(name, url)| (name.clone(), url.clone())));
        }
        let streaming = primary.standbys.iter();
        let streaming = streaming
            .filter(|(_, walsender)| walsender.streaming)
            .map(|(name, _)| name.clone());
        let holders = holders(&cluster, &me.name, &streaming.collect())?;
        let listed = cluster.failsafe.unwrap_or_default();
        let url = |name: &NodeName| {
            let member = cluster
                .members
                .get(name)
                .map(|member| member.api_url.clone());
            member.or_else(|| listed.get(name).cloned())
        };
        let asked = holders.asked().iter();
        let urls = asked.filter_map(|name| Some((name.clone(), url(name)?)));
        Some(Plan {
            epoch: lease.epoch,
            ttl: cluster.settings.ttl,
            urls: urls.collect(),
            holders,
        })
    }
}

/// The task.
pub(crate) struct Failsafe {
    pub(crate) me: NodeName,
    pub(crate) api_url: String,
    pub(crate) plan: watch::Receiver<Option<Plan>>,
    pub(crate) tenure: Arc<Tenure>,
    pub(crate) enforcer: Arc<dyn Enforcer>,
    pub(crate) client: Client,
    /// The value of the header by which members know each other.
    pub(crate) token: String,
}

impl Failsafe {
    /// Runs until its task is aborted.
    pub(crate) async fn run(mut self) {
        let mut staying = false;
        loop {
            let plan = self.plan.borrow_and_update().clone();
            let Some(plan) = plan.filter(|plan| self.must_ask(plan)) else {
                staying &= self.has_lost_store(Duration::ZERO);
                let rest = Duration::from_millis(100);
                let _ = tokio::time::timeout(rest, self.plan.changed()).await;
                continue;
            };
            let sent = now();
            let holding = self.ask(&plan).await;
            if plan.holders.met_by(&holding) {
                let enforcer = &*self.enforcer;
                self.tenure.held(plan.epoch, sent, plan.ttl, enforcer);
                if !std::mem::replace(&mut staying, true) {
                    tracing::warn!(
                        epoch = plan.epoch.0,
                        members = %names(&holding),
                        "the store is lost, and the members hold still: this leader stays"
                    );
                }
            } else if std::mem::replace(&mut staying, false) {
                tracing::warn!(
                    epoch = plan.epoch.0,
                    members = %names(&holding),
                    "too few members still hold still"
                );
            }
            tokio::time::sleep((plan.ttl / 6).saturating_sub(now().since(sent))).await;
        }
    }

    fn must_ask(&self, plan: &Plan) -> bool {
        let office = self.tenure.office();
        let here = |deadline: Instant| now() < deadline;
        office.is_some_and(|office| office.epoch == plan.epoch && here(office.deadline))
            && !self.tenure.loop_hangs()
            && self.has_lost_store(plan.ttl / 4)
    }

    /// Whether the office was not renewed by the store for so long.
    fn has_lost_store(&self, long: Duration) -> bool {
        let renewed = self.tenure.office().map(|office| office.renewed);
        renewed.is_some_and(|renewed| now().since(renewed) > long)
    }

    /// Who holds still, as soon as they are enough; who has not answered in time does not.
    async fn ask(&self, plan: &Plan) -> BTreeSet<NodeName> {
        let body = Asked {
            name: self.me.clone(),
            conn_url: String::new(),
            api_url: self.api_url.clone(),
            standfast: Some(AskedFor {
                epoch: plan.epoch,
                ttl_ms: u64::try_from(plan.ttl.as_millis()).unwrap_or(u64::MAX),
            }),
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut asked = JoinSet::new();
        for (name, url) in &plan.urls {
            let (client, token) = (self.client.clone(), self.token.clone());
            let (name, url) = (name.clone(), question(url, "failsafe"));
            let (body, limit) = (body.clone(), plan.ttl / 4);
            asked.spawn(async move {
                let question = Question {
                    method: Method::POST,
                    url: &url,
                    authorization: Some(&token),
                    body: Some(body),
                    limit,
                };
                let answer = client.ask(question).await;
                let holds = answer.is_ok_and(|answer| answer.status == 200);
                holds.then_some(name)
            });
        }
        let mut holding = BTreeSet::new();
        while let Some(answer) = asked.join_next().await {
            holding.extend(answer.ok().flatten());
            if plan.holders.met_by(&holding) {
                // Those who are slow may still get the question: the more hold, the better.
                asked.detach_all();
                break;
            }
        }
        holding
    }
}

fn names(names: &BTreeSet<NodeName>) -> String {
    let names: Vec<&str> = names.iter().map(NodeName::as_str).collect();
    names.join(", ")
}
