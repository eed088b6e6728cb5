//! An etcd cluster of three, each member on a host of its own, as those have it who bring their own.

use crate::{Disk, Host, Lab, Place, eventually, free_ports, request};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// The members e1, e2 and e3.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    host: Arc<Host>,
    client: u16,
    peer: u16,
    /// What its log stands on, and nothing else: a member whose log is stuck goes on answering what needs none.
    disk: PathBuf,
    process: Option<Child>,
}

/// What etcd says of itself; numbers are texts in its JSON.
#[derive(Deserialize)]
struct Status {
    header: Header,
    leader: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    member_id: String,
}

impl Etcd {
    /// Started, and with a leader. `disk` is what the log of each member stands on.
    pub async fn three(lab: &mut Lab, disk: Disk) -> Result<Self> {
        let mut members = Vec::new();
        for (name, number) in ["e1", "e2", "e3"].into_iter().zip(31..) {
            let host = lab.add_host(name, number)?;
            let (client, peer) = match lab.place() {
                Place::Namespaces => (2379, 2380),
                Place::Loopback => {
                    let first = free_ports(2)?;
                    (first, first + 1)
                }
            };
            let mounted = host.directory().join("disk");
            host.mount(disk, &mounted)?;
            members.push(Member {
                host,
                client,
                peer,
                disk: mounted,
                process: None,
            });
        }
        let mut etcd = Self { members };
        etcd.start_all()?;
        etcd.leader().await?;
        Ok(etcd)
    }

    /// `host:port` of each member, for clients.
    pub fn addresses(&self) -> Vec<String> {
        self.members.iter().map(Member::address).collect()
    }

    /// The members' names, which are those of their hosts.
    pub fn names(&self) -> Vec<String> {
        let names = self.members.iter().map(|member| member.host.name());
        names.map(str::to_owned).collect()
    }

    /// Starts what does not run.
    pub fn start_all(&mut self) -> Result<()> {
        let peers = self.members.iter().map(Member::as_peer);
        let all = peers.collect::<Vec<_>>().join(",");
        let stopped = self.members.iter_mut().filter(|it| it.process.is_none());
        for member in stopped {
            member.start(&all)?;
        }
        Ok(())
    }

    /// SIGKILL to a member.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let member = self.members.iter_mut().find(|it| it.host.name() == name);
        member.with_context(|| format!("no {name}"))?.kill()
    }

    pub fn kill_all(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(Member::kill)
    }

    /// SIGSTOP to all of them.
    pub fn freeze_all(&self) -> Result<()> {
        self.members.iter().try_for_each(|it| it.host.freeze())
    }

    /// SIGCONT to all of them.
    pub fn thaw_all(&self) -> Result<()> {
        self.members.iter().try_for_each(|it| it.host.thaw())
    }

    /// Makes every write of a member to its log hang.
    pub fn hang_disk(&self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        member.host.hang_disk(&member.disk)
    }

    pub fn resume_disk(&self, name: &str) -> Result<()> {
        let member = self.member(name)?;
        member.host.resume_disk(&member.disk)
    }

    pub fn address_of(&self, name: &str) -> Result<String> {
        Ok(self.member(name)?.address())
    }

    /// The name of the member that leads, as it says itself.
    pub async fn leader(&self) -> Result<String> {
        let deadline = Duration::from_secs(30);
        eventually("etcd has a leader", deadline, async || {
            for member in self.members.iter().filter(|it| it.process.is_some()) {
                if member.leads().await.unwrap_or(false) {
                    return Ok(member.host.name().to_owned());
                }
            }
            bail!("nobody says that it leads")
        })
        .await
    }

    fn member(&self, name: &str) -> Result<&Member> {
        let found = self.members.iter().find(|it| it.host.name() == name);
        found.with_context(|| format!("no {name}"))
    }
}

impl Member {
    fn address(&self) -> String {
        format!("{}:{}", self.host.address(), self.client)
    }

    fn as_peer(&self) -> String {
        format!(
            "{}=http://{}:{}",
            self.host.name(),
            self.host.address(),
            self.peer
        )
    }

    fn start(&mut self, all: &str) -> Result<()> {
        let log = self.host.directory().join("etcd.log");
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let client = format!("http://{}", self.address());
        let peer = format!("http://{}:{}", self.host.address(), self.peer);
        let child = self
            .host
            .command("etcd")
            .args(["--logger", "zap", "--name", self.host.name()])
            .arg("--data-dir")
            .arg(self.host.directory().join("etcd"))
            .arg("--wal-dir")
            .arg(self.disk.join("wal"))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", all])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start etcd on {}", self.host.name()))?;
        self.process = Some(child);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.host.kill_everything()?;
        if let Some(mut process) = self.process.take() {
            process.wait()?;
        }
        Ok(())
    }

    async fn leads(&self) -> Result<bool> {
        let (path, limit) = ("/v3/maintenance/status", Duration::from_secs(1));
        let answer = request("POST", &self.address(), path, Some("{}"), None, limit).await?;
        ensure!(answer.status == 200, "{}", answer.body);
        let status: Status = serde_json::from_value(answer.json()?)?;
        Ok(status.leader == Some(status.header.member_id))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.host.resume_disks();
        let _ = self.host.thaw();
        let _ = self.kill();
    }
}
