//! Setting up a story, playing it, judging it.

use crate::slot::{Company, Slot};
use crate::{Announced, Hooks, Topology, binary, certificates, logs};
use anyhow::{Context, Result, anyhow, bail};
use lab::{Cluster, Disk, Etcd, Fault, Lab, Ledger, Place, Shape, Verdict, why_no_namespaces};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A lab with a cluster in it.
#[derive(Debug)]
pub struct World<'lab> {
    pub lab: &'lab mut Lab,
    pub cluster: Cluster,
    etcd: Option<Etcd>,
    name: &'static str,
}

/// How long a cluster may take to become whole again on a loaded test machine.
pub fn settle_deadline() -> Duration {
    Duration::from_secs(60)
}

/// How long freezes and cuts last: 8 s, which is more than two leases, or 40 s with
/// `STANDFAST_E2E_LONG=1`, which is more than Patroni's.
pub fn spell() -> Duration {
    Duration::from_secs(if is_long() { 40 } else { 8 })
}

/// Whether faults shall last as long as they do in the wild.
pub fn is_long() -> bool {
    std::env::var_os("STANDFAST_E2E_LONG").is_some_and(|value| value != "0")
}

/// Plays a story on a healthy cluster in network namespaces and judges it.
pub fn story(
    name: &'static str,
    topology: Topology,
    announced: Announced,
    plot: impl AsyncFnOnce(&mut World<'_>) -> Result<()> + Send + 'static,
) {
    in_a_lab(name, Place::Namespaces, async move |lab| {
        play(name, lab, topology, announced, plot).await
    });
}

/// The same with no other lab on the machine, for what is measured.
pub fn story_alone(
    name: &'static str,
    topology: Topology,
    announced: Announced,
    plot: impl AsyncFnOnce(&mut World<'_>) -> Result<()> + Send + 'static,
) {
    let (place, company) = (Place::Namespaces, Company::Nobody);
    in_a_lab_with(name, place, None, company, async move |lab| {
        play(name, lab, topology, announced, plot).await
    });
}

/// The same as the first on a PostgreSQL of another major, whose programs lie in `pg_bin`.
pub fn story_on(
    name: &'static str,
    pg_bin: PathBuf,
    topology: Topology,
    announced: Announced,
    plot: impl AsyncFnOnce(&mut World<'_>) -> Result<()> + Send + 'static,
) {
    let (place, company) = (Place::Namespaces, Company::Others);
    in_a_lab_with(name, place, Some(pg_bin), company, async move |lab| {
        play(name, lab, topology, announced, plot).await
    });
}

/// Plays in an empty lab, or says why it can't.
pub fn in_a_lab(
    name: &'static str,
    place: Place,
    plot: impl AsyncFnOnce(&mut Lab) -> Result<()> + Send + 'static,
) {
    in_a_lab_with(name, place, None, Company::Others, plot);
}

fn in_a_lab_with(
    name: &'static str,
    place: Place,
    pg_bin: Option<PathBuf>,
    company: Company,
    plot: impl AsyncFnOnce(&mut Lab) -> Result<()> + Send + 'static,
) {
    let why_not = match place {
        Place::Namespaces => why_no_namespaces(),
        Place::Loopback => None,
    };
    if let Some(why) = why_not {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must have what {name} needs: {why}"
        );
        say(&format!("{name}: not run: {why}"));
        return;
    }
    let played = Slot::take(company).and_then(|slot| {
        let binary = binary::standfast()?;
        let lab = Lab::within(place, &binary, &std::env::temp_dir(), pg_bin)?;
        Ok((slot, lab.run(plot)))
    });
    let outcome = played.and_then(|(_slot, (lab, outcome))| {
        drop(lab);
        outcome
    });
    if let Err(error) = outcome {
        panic!("{name}: {error:#}");
    }
}

async fn play(
    name: &'static str,
    lab: &mut Lab,
    topology: Topology,
    announced: Announced,
    plot: impl AsyncFnOnce(&mut World<'_>) -> Result<()>,
) -> Result<()> {
    let (mut cluster, etcd) = set_up(lab, topology).await?;
    let begun = match topology {
        Topology::Pair => cluster.start_data_nodes(),
        _ => cluster.start_all(),
    };
    let mut world = World {
        lab,
        cluster,
        etcd,
        name,
    };
    let told = match begun.and(world.whole().await) {
        Ok(_) => plot(&mut world).await,
        Err(error) => Err(error.context("the cluster never became whole")),
    };
    let judged = told.and_then(|()| world.judge_logs(announced));
    if judged.is_ok() && std::env::var_os("STANDFAST_KEEP_LOGS").is_some() {
        world.say(&format!("logs in {}", world.keep_logs()?.display()));
    }
    if judged.is_err() {
        let kept = world.keep_logs()?;
        let words = world.last_words();
        // Why it failed comes first: what follows may be cut.
        return judged
            .map_err(|error| anyhow!("{error:#}\nlogs in {}; they end:\n{words}", kept.display()));
    }
    Ok(())
}

async fn set_up(lab: &mut Lab, topology: Topology) -> Result<(Cluster, Option<Etcd>)> {
    if topology == Topology::Pair {
        return Ok((Cluster::pair(lab).await?, None));
    }
    let mut shape = shape(lab, topology);
    let mut etcd = None;
    if let Some(disk) = disk_of_etcd(topology) {
        let cluster = Etcd::three(lab, disk).await?;
        shape.etcd = cluster.addresses();
        etcd = Some(cluster);
    }
    let cluster = Cluster::three(lab, &shape)?;
    if matches!(
        topology,
        Topology::ThreeWithTls | Topology::ThreeWithEtcdByHttps
    ) {
        certificates::renew(lab, &cluster)?;
    }
    if topology == Topology::ThreeWithHooks {
        Hooks::of(lab).place(lab)?;
    }
    if topology == Topology::ThreeWithProxies {
        let password = lab::Passwords::default().superuser;
        let file = lab.path().join("users.txt");
        std::fs::write(&file, format!("\"postgres\" \"{password}\"\n"))?;
        lab.identity().own(&file)?;
    }
    Ok((cluster, etcd))
}

/// What etcd stands on, if that is the store: because the story is about it, or because all are to be played with it
/// (`STANDFAST_E2E_STORE=etcd`), save those about the embedded one.
fn disk_of_etcd(topology: Topology) -> Option<Disk> {
    let wanted = std::env::var_os("STANDFAST_E2E_STORE").is_some_and(|store| store == "etcd");
    match topology {
        Topology::ThreeWithEtcd | Topology::ThreeWithEtcdByHttps => Some(Disk::Shared),
        Topology::ThreeWithEtcdOnOwnDisks => Some(Disk::Ext4 { megabytes: 200 }),
        Topology::ThreeWithTls | Topology::ThreeOnSmallStores | Topology::Pair => None,
        Topology::Three
        | Topology::ThreeWithProxies
        | Topology::ThreeWithHooks
        | Topology::ThreeOnSmallDisks
        | Topology::ThreeOnOwnDisks
        | Topology::ThreeOnLittleWal => wanted.then_some(Disk::Shared),
    }
}

fn shape(lab: &Lab, topology: Topology) -> Shape {
    let plain = Shape::default();
    match topology {
        Topology::Three
        | Topology::ThreeWithEtcd
        | Topology::ThreeWithEtcdOnOwnDisks
        | Topology::Pair => plain,
        Topology::ThreeOnSmallDisks => Shape {
            disk: Disk::Tmpfs { megabytes: 400 },
            ..plain
        },
        Topology::ThreeOnOwnDisks => Shape {
            disk: Disk::Ext4 { megabytes: 500 },
            ..plain
        },
        Topology::ThreeWithHooks => Shape {
            postgresql: Hooks::of(lab).configuration(),
            ..plain
        },
        Topology::ThreeWithTls => certificates::shape(lab),
        Topology::ThreeWithEtcdByHttps => certificates::between_agents(lab),
        Topology::ThreeWithProxies => Shape {
            proxy: format!(
                "listen: \"ADDRESS:6432\", listen_read: \"ADDRESS:6433\", pool_mode: transaction, \
                 users_file: {}",
                lab.path().join("users.txt").display()
            ),
            ..plain
        },
        Topology::ThreeOnSmallStores => Shape {
            store_disk: Disk::Tmpfs { megabytes: 40 },
            ..plain
        },
        Topology::ThreeOnLittleWal => Shape {
            parameters: "max_slot_wal_keep_size: 32MB, max_wal_size: 48MB, min_wal_size: 32MB, \
                         wal_keep_size: 0"
                .to_owned(),
            ..plain
        },
    }
}

impl World<'_> {
    /// The store of this story, if it is etcd.
    pub fn etcd(&mut self) -> Result<&mut Etcd> {
        self.etcd.as_mut().context("this story has no etcd")
    }

    /// The authority of the story's certificates, in PEM.
    pub fn authority(&self) -> PathBuf {
        certificates::directory(self.lab).join("ca.crt")
    }

    /// New certificates for all, of a new authority; the nodes are not told.
    pub fn renew_certificates(&self) -> Result<()> {
        certificates::renew(self.lab, &self.cluster)
    }

    /// Waits until the cluster is whole; gives the primary's name.
    pub async fn whole(&self) -> Result<String> {
        self.cluster.healthy(settle_deadline()).await
    }

    /// Writers at work, with the first rows acknowledged.
    pub async fn load(&self, writers: u32) -> Result<Ledger> {
        let ledger = self.cluster.ledger(writers).await?;
        ledger.more(50, settle_deadline()).await?;
        Ok(ledger)
    }

    /// Lets a fault happen; the cluster must have another primary without help if the old one is
    /// the victim, and keep it otherwise.
    /// Then the cause is taken away and the cluster must become whole again without help.
    pub async fn break_and_heal(
        &mut self,
        fault: Fault,
        ledger: &Ledger,
        spell: Duration,
    ) -> Result<()> {
        let old = self.cluster.primary().await?;
        let begun = tokio::time::Instant::now();
        let fired = fault.strike(self.lab, &mut self.cluster, &old).await?;
        if fault.moves_primary() {
            let deadline = settle_deadline();
            self.cluster.another_primary(&old, deadline).await?;
        }
        ledger.more(50, settle_deadline()).await?;
        // The length of the fault is part of the story, not a wait for something.
        tokio::time::sleep_until(begun + spell).await;
        fired.heal(self.lab, &mut self.cluster)?;
        let new = self.whole().await?;
        if !fault.moves_primary() && new != old {
            bail!("the primary was changed for nothing");
        }
        ledger.more(50, settle_deadline()).await
    }

    /// The end of every story: whole again, and nothing acknowledged is missing anywhere.
    pub async fn reckon(&self, ledger: Ledger) -> Result<Verdict> {
        self.whole().await?;
        let verdict = ledger.stop().await?.audit(&self.cluster).await?;
        self.say(&verdict.to_string());
        verdict.check()?;
        Ok(verdict)
    }

    /// A line for whoever watches the tests run.
    pub fn say(&self, text: &str) {
        say(&format!("{}: {text}", self.name));
    }

    fn judge_logs(&self, announced: Announced) -> Result<()> {
        let mut finds = Vec::new();
        for node in &self.cluster.nodes {
            finds.extend(logs::finds(&node.name, &node.log(), announced.0));
            finds.extend(logs::finds(&node.name, &node.postgres_log(), &[""]));
        }
        if finds.is_empty() {
            return Ok(());
        }
        let more = finds.len().saturating_sub(20);
        finds.truncate(20);
        bail!(
            "{} finds in the logs ({more} more):\n{}",
            finds.len(),
            finds.join("\n")
        )
    }

    /// How every node's logs end: on a machine that is gone by tomorrow, all that tells of what happened.
    fn last_words(&self) -> String {
        let end = |name: &str, log: &str, count: usize| {
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(count)..].iter();
            let last = last.map(|line| format!("{name} {line}\n"));
            last.collect::<String>()
        };
        let nodes = self.cluster.nodes.iter();
        let words = nodes.map(|node| {
            let postgres = format!("{} postgres", node.name);
            end(&node.name, &node.log(), 25) + &end(&postgres, &node.postgres_log(), 12)
        });
        words.collect()
    }

    /// Copies what the nodes have logged to `target/e2e/<story>`.
    fn keep_logs(&self) -> Result<PathBuf> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../target/e2e")
            .join(self.name);
        std::fs::create_dir_all(&target)?;
        for node in &self.cluster.nodes {
            std::fs::write(target.join(format!("{}.log", node.name)), node.log())?;
            let postgres = target.join(format!("{}.postgres.log", node.name));
            std::fs::write(postgres, node.postgres_log())?;
            let processes = format!("{:#?}\n", node.host.processes());
            std::fs::write(target.join(format!("{}.processes", node.name)), processes)?;
        }
        for host in self.lab.hosts() {
            // What etcd has logged, where there is one.
            let log = host.directory().join("etcd.log");
            let _ = std::fs::copy(log, target.join(format!("{}.etcd.log", host.name())));
        }
        target
            .canonicalize()
            .context("the directory that was just made")
    }
}

/// A line for whoever watches the tests run.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
