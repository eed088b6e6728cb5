//! A cluster of nodes, and what is asked of it as a whole.

mod files;
mod layout;

use crate::{Ledger, Node, eventually};
use anyhow::{Context, Result, bail, ensure};
use futures_util::future::join_all;
use serde::Deserialize;
use std::time::Duration;

pub use files::Brought;
pub use layout::Shape;

/// The nodes, those with Postgres first.
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    secret: String,
}

/// A row of Patroni's `GET /cluster`.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    pub name: String,
    pub role: String,
    pub state: String,
    #[serde(default)]
    pub timeline: Option<u64>,
}

#[derive(Deserialize)]
struct View {
    members: Vec<Member>,
}

impl Cluster {
    /// Starts every agent, in order.
    pub fn start_all(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(Node::start)
    }

    /// Kills everything on every host.
    pub fn cut_power(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(Node::kill_everything)
    }

    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.with_context(|| format!("no node {name}"))
    }

    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        let found = self.nodes.iter_mut().find(|node| node.name == name);
        found.with_context(|| format!("no node {name}"))
    }

    /// The nodes that have a Postgres.
    pub fn data_nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.pg_port.is_some())
    }

    /// The names of the nodes that say of themselves that they are the open primary.
    pub async fn primaries(&self) -> Vec<String> {
        let asked = join_all(
            self.data_nodes()
                .map(async |node| node.is_primary().await.then(|| node.name.clone())),
        );
        asked.await.into_iter().flatten().collect()
    }

    /// The one open primary.
    pub async fn primary(&self) -> Result<String> {
        eventually(
            "there is one primary",
            Duration::from_secs(30),
            async || {
                let primaries = self.primaries().await;
                match primaries.as_slice() {
                    [one] => Ok(one.clone()),
                    none_or_more => bail!("primaries: {none_or_more:?}"),
                }
            },
        )
        .await
    }

    /// The names of the data nodes that are not the primary.
    pub async fn standbys(&self) -> Result<Vec<String>> {
        let primary = self.primary().await?;
        let names = self.data_nodes().map(|node| node.name.clone());
        Ok(names.filter(|name| *name != primary).collect())
    }

    /// Waits until a node other than `old` is the open primary.
    pub async fn another_primary(&self, old: &str, deadline: Duration) -> Result<String> {
        let what = format!("a node other than {old} is primary");
        eventually(&what, deadline, async || {
            let primaries = self.primaries().await;
            let new = primaries.iter().find(|name| *name != old).cloned();
            new.with_context(|| format!("primaries: {primaries:?}"))
        })
        .await
    }

    /// Waits until the cluster is whole: see [`Self::is_healthy`].
    pub async fn healthy(&self, deadline: Duration) -> Result<String> {
        eventually("the cluster is whole", deadline, async || {
            self.is_healthy().await
        })
        .await
    }

    /// Whole: every node says the same; one open primary, all others stream from it on its
    /// timeline, and commits are protected by at least one synchronous standby, which may take over.
    pub async fn is_healthy(&self) -> Result<String> {
        let primaries = self.primaries().await;
        let [leader] = primaries.as_slice() else {
            bail!("primaries: {primaries:?}")
        };
        let standbys = self.data_nodes().count() - 1;
        for node in &self.nodes {
            let members = self.members_seen_by(node).await?;
            check_members(&members, leader, standbys)
                .with_context(|| format!("as {} sees it", node.name))?;
        }
        self.check_replication(leader, standbys).await?;
        Ok(leader.clone())
    }

    /// `GET /cluster` of one node.
    pub async fn members_seen_by(&self, node: &Node) -> Result<Vec<Member>> {
        let answer = node.get("/cluster").await?;
        ensure!(
            answer.status == 200,
            "{}/cluster says {}",
            node.name,
            answer.status
        );
        let view: View = serde_json::from_value(answer.json()?).context("read /cluster")?;
        Ok(view.members)
    }

    async fn check_replication(&self, leader: &str, standbys: usize) -> Result<()> {
        let sql = self.node(leader)?.sql().await?;
        let rows = sql
            .query(
                "SELECT application_name, state, sync_state FROM pg_stat_replication \
                 WHERE state = 'streaming'",
                &[],
            )
            .await?;
        let streaming: Vec<(String, String)> =
            rows.iter().map(|row| (row.get(0), row.get(2))).collect();
        ensure!(streaming.len() == standbys, "streaming: {streaming:?}");
        let protecting = streaming
            .iter()
            .any(|(_, state)| matches!(state.as_str(), "sync" | "quorum"));
        ensure!(protecting, "no synchronous standby: {streaming:?}");
        for node in self.data_nodes().filter(|node| node.name != leader) {
            let stands_by: bool = node.ask("SELECT pg_is_in_recovery()").await?;
            ensure!(stands_by, "{} is not in recovery", node.name);
        }
        Ok(())
    }

    /// POST of a JSON body to a node's REST interface, as one who knows the secret.
    pub async fn post(
        &self,
        node: &str,
        path: &str,
        body: &serde_json::Value,
        deadline: Duration,
    ) -> Result<crate::Answer> {
        self.ask("POST", node, path, body, deadline).await
    }

    /// Changes the cluster's configuration, by whichever node.
    pub async fn configure(&self, node: &str, change: &serde_json::Value) -> Result<()> {
        let deadline = Duration::from_secs(10);
        let answer = self.ask("PATCH", node, "/config", change, deadline).await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    }

    /// The same with another verb.
    pub async fn ask(
        &self,
        verb: &str,
        node: &str,
        path: &str,
        body: &serde_json::Value,
        deadline: Duration,
    ) -> Result<crate::Answer> {
        let token = layout::bearer(&self.secret)?;
        let (body, verb) = (body.to_string(), verb.parse()?);
        self.node(node)?
            .rest(verb, path, Some(&body), Some(&token), deadline)
            .await
    }

    /// A ledger that writes to this cluster.
    pub async fn ledger(&self, writers: u32) -> Result<Ledger> {
        let targets = self
            .data_nodes()
            .map(Node::sql_config)
            .collect::<Result<Vec<_>>>()?;
        Ledger::open(targets, writers).await
    }

    /// Every agent's log with the node's name before each line, in no particular order.
    pub fn logs(&self) -> Vec<(String, String)> {
        self.nodes
            .iter()
            .map(|node| (node.name.clone(), node.log()))
            .collect()
    }
}

fn check_members(members: &[Member], leader: &str, standbys: usize) -> Result<()> {
    let leads = members.iter().find(|member| member.name == leader);
    let leads = leads.with_context(|| format!("{leader} is not listed: {members:?}"))?;
    ensure!(
        leads.role == "leader" && leads.state == "running",
        "{leads:?}"
    );
    // Streaming is not enough: as long as the setting before stands, it may be the leader alone that has a commit.
    let protects = |it: &Member| matches!(it.role.as_str(), "sync_standby" | "quorum_standby");
    ensure!(
        members.iter().any(protects),
        "nobody may take over yet: {members:?}"
    );
    let streaming = members.iter().filter(|member| {
        member.name != leader && member.state == "streaming" && member.timeline == leads.timeline
    });
    ensure!(
        streaming.count() == standbys,
        "not {standbys} streaming standbys: {members:?}"
    );
    Ok(())
}
