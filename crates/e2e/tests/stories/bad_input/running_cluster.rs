//! One cluster of a monitor and two nodes, and everything that people get wrong around it. One
//! story for all, because a cluster costs more than the mistakes.

use super::desk::{refused, write_private};
use super::{data_directories, orders, rest, secrets};
use anyhow::{Context, Result, ensure};
use e2e::{Terminal, in_a_lab, settle_deadline};
use lab::{Cluster, Lab, free_ports, until};
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The cluster, and somebody at the monitor's terminal.
pub(super) struct Place<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) terminal: Terminal,
    pub(super) lab: PathBuf,
    spare_port: u16,
}

/// User `admin` with the password `planted-basic`, as `restapi.authentication` has it.
pub(super) const BASIC: &str = "Authorization: Basic YWRtaW46cGxhbnRlZC1iYXNpYw==";

#[test]
fn mistakes_around_a_running_cluster() {
    in_a_lab(
        "mistakes_around_a_running_cluster",
        lab::Place::Loopback,
        async |lab| {
            let mut cluster = Cluster::pair(lab).await?;
            let mut place = Place::of(lab, &mut cluster)?;
            let watch = secrets::Watch::start(&place.lab);
            let told = place.story().await;
            let seen = watch.stop();
            if told.is_err() {
                let kept = place.keep_logs()?;
                return told.with_context(|| format!("logs in {}", kept.display()));
            }
            secrets::none_is_shown(&place, &seen)
        },
    );
}

impl<'a> Place<'a> {
    fn of(lab: &Lab, cluster: &'a mut Cluster) -> Result<Self> {
        Ok(Self {
            terminal: Terminal {
                host: Arc::clone(&cluster.node("monitor")?.host),
            },
            cluster,
            lab: lab.path().to_owned(),
            spare_port: free_ports(1)?,
        })
    }

    async fn story(&mut self) -> Result<()> {
        self.alter(
            "a",
            "restapi:",
            "restapi:\n  authentication: {username: admin, password: planted-basic}",
        )?;
        self.cluster.node_mut("a")?.start()?;
        self.cluster.primary().await?;
        self.run_where_there_is_no_room()
            .await
            .context("b's first runs")?;
        self.clone_with_a_wrong_password()
            .await
            .context("a wrong password, no data yet")?;
        self.interrupted_base_backups()
            .await
            .context("Ctrl-C in a base backup")?;
        self.whole().await?;
        data_directories::directories(self).context("data directories")?;
        data_directories::flags(self).context("flags")?;
        self.second_agent().await.context("a second agent")?;
        self.broken_reload().await.context("SIGHUP")?;
        self.stream_with_a_wrong_password()
            .await
            .context("a wrong password of a standby")?;
        rest::hostile_requests(self).await.context("REST")?;
        orders::impossible_switchovers(self)
            .await
            .context("orders")?;
        self.whole().await.map(drop)
    }

    pub(super) async fn whole(&self) -> Result<String> {
        self.cluster.healthy(settle_deadline()).await
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.terminal.host.directory().join(name)
    }

    /// As the user of the lab, who has the cluster's secret.
    fn standfast(&self) -> String {
        let secret = self.lab.join("secret");
        format!("env STANDFAST_SECRET_FILE={} standfast", secret.display())
    }

    pub(super) fn types(&self, line: &str) -> Result<String> {
        self.terminal.types(line)
    }

    /// A command that asks or orders something of the cluster.
    pub(super) fn asks(&self, words: &str) -> String {
        format!("{} {words} --pgdata ./monitor", self.standfast())
    }

    /// `create postgres` of a third node.
    pub(super) fn create(&self, directory: &str, more: &str) -> String {
        let monitor = self.cluster.node("monitor").map(|node| node.api.clone());
        format!(
            "{} create postgres --pgdata {directory} --pgport {} --hostname 127.0.0.1 \
             --pgctl $(which pg_ctl) --monitor {} {more}",
            self.standfast(),
            self.spare_port,
            monitor.unwrap_or_default(),
        )
    }

    pub(super) fn configuration(&self, directory: &str) -> PathBuf {
        configuration(self.terminal.host.home(), &self.path(directory))
    }

    /// Replaces a part of a node's configuration; gives back what stood there before.
    fn alter(&self, name: &str, from: &str, to: &str) -> Result<String> {
        let node = self.cluster.node(name)?;
        let file = configuration(node.host.home(), &node.data_dir);
        let before =
            fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        ensure!(before.contains(from), "{from:?} is not in {before}");
        write_private(&node.host, &file, &before.replacen(from, to, 1))?;
        Ok(before)
    }

    fn restore(&self, name: &str, text: &str) -> Result<()> {
        let node = self.cluster.node(name)?;
        write_private(
            &node.host,
            &configuration(node.host.home(), &node.data_dir),
            text,
        )
    }

    /// Starts b, waits until it has said all of `words` since, and stops it by Ctrl-C.
    async fn b_says(&mut self, words: &[&str]) -> Result<()> {
        let b = self.cluster.node_mut("b")?;
        let begun = b.log().len();
        b.start()?;
        let since = |log: &str| log.get(begun..).unwrap_or_default().to_owned();
        until(&format!("b says {words:?}"), settle_deadline(), || {
            let log = since(&b.log());
            words.iter().all(|word| log.contains(word))
        })
        .await
        .with_context(|| since(&b.log()))?;
        self.stop_b().await
    }

    async fn stop_b(&mut self) -> Result<()> {
        let b = self.cluster.node_mut("b")?;
        if b.is_running() {
            b.signal_agent(Signal::INT)?;
        }
        until("the agent of b ends", settle_deadline(), || !b.is_running()).await
    }

    /// Directories that b may not touch at `run`.
    async fn run_where_there_is_no_room(&mut self) -> Result<()> {
        let data = self.cluster.node("b")?.data_dir.clone();
        let at = data.display();
        let initdb = format!("initdb --no-sync -A trust -U postgres -D {at}");
        for (made, words) in [
            (
                format!("mkdir -m 700 {at} && echo dear > {at}/letter"),
                "not empty",
            ),
            (initdb.clone(), "system identifier"),
            (
                format!("{initdb} && echo 14 > {at}/PG_VERSION"),
                "PostgreSQL 14",
            ),
            (format!("{initdb} && echo xyzzy > {at}/PG_VERSION"), "xyzzy"),
            (format!("{initdb} && chmod 777 {at}"), "0777"),
        ] {
            self.types(&made)?;
            let before = data_directories::picture(&data)?;
            self.b_says(&[words]).await?;
            ensure!(
                data_directories::picture(&data)? == before,
                "{made}: it was touched"
            );
            fs::remove_dir_all(&data)?;
        }
        let api = self.cluster.node("b")?.api.clone();
        let taken = std::net::TcpListener::bind(&api)?;
        self.b_says(&[&api, "Address already in use"]).await?;
        drop(taken);
        Ok(())
    }

    async fn clone_with_a_wrong_password(&mut self) -> Result<()> {
        let right = self.plant_a_wrong_password()?;
        self.b_says(&[
            "password authentication failed for user",
            "the copy of the leader's data failed",
        ])
        .await?;
        self.restore("b", &right)
    }

    fn plant_a_wrong_password(&self) -> Result<String> {
        let wrong =
            "authentication:\n    replication: {username: replicator, password: planted-wrong}";
        self.alter("b", "authentication:", wrong)
    }

    async fn interrupted_base_backups(&mut self) -> Result<()> {
        let bulk = "CREATE TABLE bulk AS SELECT repeat('x', 1000) FROM generate_series(1, 100000)";
        self.cluster
            .node("a")?
            .sql()
            .await?
            .batch_execute(bulk)
            .await?;
        for milliseconds in [0, 150, 400] {
            let b = self.cluster.node_mut("b")?;
            let begun = b.log().matches("rule=\"clone\"").count();
            b.start()?;
            until("the base backup has begun", settle_deadline(), || {
                b.log().matches("rule=\"clone\"").count() > begun
            })
            .await?;
            // The moment of the interruption is what is tried, not a wait for something.
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            self.stop_b().await?;
            let b = self.cluster.node("b")?;
            let mut left = b.host.processes();
            left.retain(|process| process.command.contains("pg_basebackup"));
            ensure!(left.is_empty(), "still at work: {left:?}");
        }
        self.cluster.node_mut("b")?.start()
    }

    async fn second_agent(&mut self) -> Result<()> {
        let a = self.cluster.node("a")?;
        let (pid, postmaster) = (a.agent_pid()?, a.postmaster_pid()?);
        let line = format!("{} run --pgdata {}", self.standfast(), a.data_dir.display());
        refused(
            &self.terminal,
            &line,
            1,
            &["runs already", &pid.to_string()],
        )?;
        ensure!(a.postmaster_pid()? == postmaster, "Postgres was restarted");
        ensure!(a.is_primary().await, "a no longer leads");
        Ok(())
    }

    /// A broken file changes nothing, whether `reload` is typed or the signal comes by itself.
    async fn broken_reload(&mut self) -> Result<()> {
        let a = self.cluster.node("a")?;
        let data = a.data_dir.display().to_string();
        let reload = format!("{} reload --pgdata {data}", self.standfast());
        let right = self.alter("a", "database: postgres", "database: [")?;
        refused(&self.terminal, &reload, 1, &["standfast.yml", "line "])?;
        a.signal_agent(Signal::HUP)?;
        until(
            "a keeps the old file and says so",
            settle_deadline(),
            || {
                let log = a.log();
                log.contains("the old one stays in force") && log.contains("standfast.yml: line ")
            },
        )
        .await?;
        ensure!(a.is_primary().await, "a no longer leads");
        self.restore("a", &right)?;
        let set = "database: postgres\n  parameters: {work_mem: 5MB}";
        self.alter("a", "database: postgres", set)?;
        self.types(&reload)?;
        lab::eventually("the new value is in force", settle_deadline(), async || {
            let value: String = self
                .cluster
                .node("a")?
                .ask("SELECT current_setting('work_mem')")
                .await?;
            ensure!(value == "5MB", "work_mem is {value}");
            Ok(())
        })
        .await?;
        self.restore("a", &right)
    }

    const REFUSED: &'static str = "password authentication failed for user \"replicator\"";

    /// The standby has its data, but can't stream; its log and `explain` say why, and it heals.
    async fn stream_with_a_wrong_password(&mut self) -> Result<()> {
        let right = self.plant_a_wrong_password()?;
        self.stop_b().await?;
        self.cluster.node_mut("b")?.start()?;
        let explain = self.asks("explain");
        lab::eventually("explain names b", settle_deadline(), async || {
            let text = self.types(&explain)?;
            let row = text
                .lines()
                .find(|line| line.trim_start().starts_with("b "));
            let row = row.context("b is not in it")?;
            for part in ["no |", "not streaming", Self::REFUSED] {
                ensure!(row.contains(part), "{part:?} is missing: {text}");
            }
            Ok(())
        })
        .await?;
        let log = self.cluster.node("b")?.log();
        let said: Vec<_> = log
            .lines()
            .filter(|line| line.contains("cannot stream from a"))
            .collect();
        ensure!(
            said.len() == 1 && said.iter().all(|line| line.contains("WARN")),
            "not said once: {said:?}"
        );
        self.restore("b", &right)?;
        self.stop_b().await?;
        self.cluster.node_mut("b")?.start()?;
        self.whole().await.map(drop)
    }

    fn keep_logs(&self) -> Result<PathBuf> {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/e2e/bad_input");
        fs::create_dir_all(&kept)?;
        for node in &self.cluster.nodes {
            fs::write(kept.join(format!("{}.log", node.name)), node.log())?;
        }
        Ok(kept.canonicalize()?)
    }
}

fn configuration(home: &Path, data: &Path) -> PathBuf {
    let below = data.strip_prefix("/").unwrap_or(data);
    home.join(".config/standfast")
        .join(below)
        .join("standfast.yml")
}
