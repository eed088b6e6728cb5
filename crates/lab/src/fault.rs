//! The faults that `bench` measures and `e2e` tells stories of: what breaks, and how it heals.

use crate::{Cluster, Lab};
use anyhow::{Context, Result, anyhow, bail};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Something that befalls the primary, or a standby of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of the postmaster.
    Postmaster,
    /// Every process killed and the cable pulled.
    Machine,
    /// The cable pulled; everything goes on running behind it.
    Cut,
    /// Everything stopped with SIGSTOP.
    Frozen,
    /// Postgres stopped and its disk filled, so that it can't start again.
    Disk,
    /// `kill -9` of the agent alone, which is started again at once.
    Agent,
    /// A standby's machine lost, as the primary's in [`Self::Machine`].
    Standby,
    /// Not a fault: a person asks for another primary.
    Switchover,
}

/// How long a switchover is asked for on a machine that is too busy for its store.
const PATIENCE: Duration = Duration::from_secs(60);

impl Fault {
    pub const ALL: [Self; 8] = [
        Self::Postmaster,
        Self::Machine,
        Self::Cut,
        Self::Frozen,
        Self::Disk,
        Self::Agent,
        Self::Standby,
        Self::Switchover,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postmaster => "postmaster",
            Self::Machine => "machine",
            Self::Cut => "cut",
            Self::Frozen => "frozen",
            Self::Disk => "disk",
            Self::Agent => "agent",
            Self::Standby => "standby",
            Self::Switchover => "switchover",
        }
    }

    /// The fault in the words of a report.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Postmaster => "kill -9 of the postmaster",
            Self::Machine => "primary's machine lost",
            Self::Cut => "primary cut off by the network",
            Self::Frozen => "machine frozen, then thawed",
            Self::Disk => "data disk full, Postgres can't restart",
            Self::Agent => "agent killed, restarted at once",
            Self::Standby => "a standby's machine lost",
            Self::Switchover => "planned switchover",
        }
    }

    /// Whether it needs hosts of their own (network namespaces, root).
    pub fn needs_namespaces(self) -> bool {
        matches!(self, Self::Cut | Self::Disk)
    }

    /// Whether another node must become primary because of it.
    pub fn moves_primary(self) -> bool {
        !matches!(self, Self::Agent | Self::Standby)
    }

    /// Lets it happen to `primary`, or to a standby of it.
    pub async fn strike(self, lab: &Lab, cluster: &mut Cluster, primary: &str) -> Result<Fired> {
        let victim = match self {
            Self::Standby => {
                let mut names = cluster.data_nodes().map(|node| node.name.clone());
                let standby = names.find(|name| name != primary);
                standby.context("there is no standby")?
            }
            _ => primary.to_owned(),
        };
        let victim = victim.as_str();
        match self {
            Self::Postmaster => cluster.node(victim)?.kill_postmaster()?,
            Self::Machine | Self::Standby => {
                // The cable first: a machine that loses power says no goodbye.
                if let Ok(network) = lab.network() {
                    network.set_link(victim, false)?;
                }
                cluster.node_mut(victim)?.kill_everything()?;
            }
            Self::Cut => lab.network()?.set_link(victim, false)?,
            Self::Frozen => cluster.node(victim)?.host.freeze()?,
            Self::Disk => fill_and_stop(cluster, victim)?,
            Self::Agent => {
                let node = cluster.node_mut(victim)?;
                node.kill_agent()?;
                node.start()?;
            }
            Self::Switchover => switch_over(cluster, victim).await?,
        }
        Ok(Fired {
            fault: self,
            victim: victim.to_owned(),
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|fault| fault.as_str() == text)
            .with_context(|| {
                let known: Vec<_> = Self::ALL.iter().map(|fault| fault.as_str()).collect();
                format!("no fault {text:?}; there are {}", known.join(", "))
            })
    }
}

/// A fault that has happened and waits to be healed.
#[derive(Debug)]
#[must_use]
pub struct Fired {
    fault: Fault,
    victim: String,
}

impl Fired {
    /// Takes the cause away; nothing more is done for the cluster.
    pub fn heal(self, lab: &Lab, cluster: &mut Cluster) -> Result<()> {
        match self.fault {
            Fault::Postmaster | Fault::Agent | Fault::Switchover => Ok(()),
            Fault::Machine | Fault::Standby => {
                if let Ok(network) = lab.network() {
                    network.set_link(&self.victim, true)?;
                }
                cluster.node_mut(&self.victim)?.start()
            }
            Fault::Cut => lab.network()?.set_link(&self.victim, true),
            Fault::Frozen => cluster.node(&self.victim)?.host.thaw(),
            Fault::Disk => {
                let node = cluster.node(&self.victim)?;
                let disk = node
                    .data_dir
                    .parent()
                    .context("a data directory has a parent")?;
                node.host.free_disk(disk)
            }
        }
    }
}

/// The walkthrough's order: stop it, then take away the room to start again. The disk is filled
/// first but for a little, so that the agent has no time to start Postgres in between.
fn fill_and_stop(cluster: &Cluster, victim: &str) -> Result<()> {
    let node = cluster.node(victim)?;
    let disk = node
        .data_dir
        .parent()
        .context("a data directory has a parent")?;
    node.host.fill_disk(disk)?;
    // A full disk does not stop Postgres by itself; a crash of it makes it need the room.
    node.kill_postmaster()
}

/// Asks as a person does: a store that gave no answer in time is asked again, unless the order that it gave no answer
/// to was carried out.
async fn switch_over(cluster: &Cluster, victim: &str) -> Result<()> {
    let body = serde_json::json!({ "leader": victim });
    let mut unanswered = false;
    crate::eventually("the switchover is taken up", PATIENCE, async || {
        if unanswered && cluster.primaries().await.iter().any(|name| name != victim) {
            return Ok(Ok(()));
        }
        let asked = cluster.post(victim, "/switchover", &body, Duration::from_secs(30));
        let answer = asked.await.inspect_err(|_| unanswered = true)?;
        let told = format!("/switchover says {}: {}", answer.status, answer.body);
        match answer.status {
            200 => Ok(Ok(())),
            503 => {
                unanswered = true;
                bail!("{told}")
            }
            // The order before it may be at work.
            _ if unanswered => bail!("{told}"),
            _ => Ok(Err(anyhow!(told))),
        }
    })
    .await?
}
