//! Three real nodes of Patroni on etcd become ours one after the other, and Patroni's again; and the primary is killed
//! while nodes of both kinds are in one cluster.

use anyhow::{Context, Result, ensure};
use e2e::{PatroniNode, Patronictl, in_a_lab, settle_deadline};
use lab::ledger::{History, Pace};
use lab::{Disk, Etcd, Lab, Ledger, Place, eventually};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use store::{EtcdOptions, EtcdStore, Store, Txn};

/// The cluster and who looks at it.
struct Scene<'lab> {
    lab: &'lab Lab,
    nodes: Vec<PatroniNode>,
    ctl: Patronictl,
    store: EtcdStore,
}

/// Which program runs a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Patroni,
    Ours,
}

impl<'lab> Scene<'lab> {
    /// Three nodes of Patroni's, n1 leads.
    async fn begin(lab: &'lab mut Lab) -> Result<(Self, Etcd)> {
        let etcd = Etcd::three(lab, Disk::Shared).await?;
        let nodes = [("n1", 11), ("n2", 12), ("n3", 13)]
            .map(|(name, number)| PatroniNode::new(lab, name, number, &etcd));
        let nodes = nodes.into_iter().collect::<Result<Vec<_>>>()?;
        let ctl = Patronictl::theirs_on(lab, nodes[0].host.clone(), &etcd.addresses())?;
        let store = EtcdStore::new(EtcdOptions::new(etcd.addresses(), "/service/lab/"))?;
        let mut scene = Self {
            lab,
            nodes,
            ctl,
            store,
        };
        scene.nodes[0].start_patroni()?;
        scene.write(0, "CREATE TABLE rows (n int)").await?;
        scene.nodes[1].start_patroni()?;
        scene.nodes[2].start_patroni()?;
        scene.whole(0).await?;
        Ok((scene, etcd))
    }

    /// Waits until `leader` leads and all others stream from it, as Patroni's own tool sees it.
    async fn whole(&self, leader: usize) -> Result<()> {
        let name = self.nodes[leader].name();
        eventually(
            &format!("{name} leads three"),
            settle_deadline(),
            async || {
                let text = self.ctl.types("list -f json")?;
                let members: Vec<Value> = serde_json::from_str(&text)?;
                let fine = members
                    .iter()
                    .filter(|member| match member["Member"] == *name {
                        true => member["Role"] == "Leader" && member["State"] == "running",
                        false => member["Role"] != "Leader" && member["State"] == "streaming",
                    });
                ensure!(fine.count() == 3, "{text}");
                Ok(())
            },
        )
        .await
    }

    async fn write(&self, leader: usize, sql: &str) -> Result<()> {
        eventually(sql, settle_deadline(), async || {
            self.nodes[leader].ask(sql).await
        })
        .await
        .map(drop)
    }

    /// Another program on one node; the rest of the cluster does not mind.
    async fn swap(&mut self, node: usize, to: Kind, leader: usize) -> Result<()> {
        self.nodes[node].stop().await?;
        match to {
            Kind::Ours => self.nodes[node].start_standfast(self.lab)?,
            Kind::Patroni => self.nodes[node].start_patroni()?,
        }
        self.is_run_by(node, to).await?;
        self.whole(leader).await
    }

    /// Waits until the member record is that of the program.
    async fn is_run_by(&self, node: usize, kind: Kind) -> Result<()> {
        let name = self.nodes[node].name();
        let key = format!("/service/lab/members/{name}");
        eventually(
            &format!("{name} is run by {kind:?}"),
            settle_deadline(),
            async || {
                let found = self.store.read(&key).await?;
                let record: Value = serde_json::from_str(found.value(&key).context("no record")?)?;
                let ours = record.get("standfast").is_some();
                ensure!(ours == (kind == Kind::Ours), "{record}");
                Ok(())
            },
        )
        .await
    }

    /// Switches synchronous mode and waits until one of `names` is who commits wait for.
    async fn synchronous(&self, mode: &str, names: &[&str]) -> Result<()> {
        let words = format!("edit-config lab --force -s synchronous_mode={mode}");
        self.ctl.types(&words)?;
        eventually(
            &format!("commits wait for {names:?}"),
            settle_deadline(),
            async || {
                let found = self.store.read("/service/lab/sync").await?;
                let value = found.value("/service/lab/sync").context("no record")?;
                let record: Value = serde_json::from_str(value)?;
                let named = record["sync_standby"].as_str().unwrap_or_default();
                ensure!(names.contains(&named), "{value}");
                Ok(())
            },
        )
        .await
    }

    async fn switchover(&self, from: usize, to: usize) -> Result<()> {
        let (from, to_name) = (self.nodes[from].name(), self.nodes[to].name());
        let words = format!("switchover lab --leader {from} --candidate {to_name} --force");
        let said = self.ctl.tries(&words)?;
        ensure!(said.code == Some(0), "{said:?}");
        self.whole(to).await
    }

    /// Patroni's shortest time to live is 20 s; what must follow is the same when it ends at once.
    async fn end_leader_key(&self) -> Result<()> {
        let ended = self
            .store
            .commit(Txn::new().delete("/service/lab/leader"))
            .await?;
        ensure!(ended.is_committed());
        Ok(())
    }

    /// Who leads, once somebody other than `last` does.
    async fn leader_after(&self, last: usize) -> Result<usize> {
        let key = "/service/lab/leader";
        let mut found = None;
        eventually("somebody else leads", settle_deadline(), async || {
            let snapshot = self.store.read(key).await?;
            let leader = snapshot.value(key).context("nobody leads")?;
            found = self.nodes.iter().position(|node| node.name() == leader);
            ensure!(found.is_some_and(|it| it != last), "{leader} leads");
            Ok(())
        })
        .await?;
        found.context("a node")
    }

    async fn ledger(&self) -> Result<Ledger> {
        let targets = self.nodes.iter().map(PatroniNode::target).collect();
        let pace = Pace {
            interval: Duration::from_millis(20),
            ..Pace::default()
        };
        Ledger::open_with(targets, 2, pace).await
    }

    /// Every acknowledged row is on every node that runs, and never did two acknowledge at once.
    async fn judge(&self, what: &str, history: &History, nodes: &[usize]) -> Result<()> {
        let owed = history.acknowledged();
        let gap = history.longest_gap();
        e2e::say(&format!(
            "{what}: {} rows, longest gap {:?}",
            owed.len(),
            gap.length
        ));
        ensure!(!owed.is_empty(), "no row was acknowledged");
        let dual = history.dual_acks();
        ensure!(dual.is_empty(), "two acknowledged at once: {dual:?}");
        for node in nodes {
            let name = self.nodes[*node].name();
            eventually(
                &format!("{name} has every row"),
                settle_deadline(),
                async || {
                    let sql = "SELECT string_agg(writer || ':' || n, ',') FROM standfast_ledger";
                    let text = self.nodes[*node].ask(sql).await?;
                    let held: BTreeSet<&str> = text.split(',').collect();
                    let lost = owed.iter().map(|(writer, n)| format!("{writer}:{n}"));
                    let lost: Vec<String> =
                        lost.filter(|row| !held.contains(row.as_str())).collect();
                    ensure!(
                        lost.is_empty(),
                        "{} rows are missing on {name}: {lost:?}",
                        lost.len()
                    );
                    Ok(())
                },
            )
            .await?;
        }
        Ok(())
    }

    /// No node of ours has copied the data.
    fn nothing_was_copied(&self) -> Result<()> {
        for node in &self.nodes {
            let log = node.log();
            ensure!(!log.contains("rule=\"clone\""), "{}: {log}", node.name());
        }
        Ok(())
    }
}

/// Patroni: patronictl | a cluster of Patroni becomes ours, and back
/// Patroni: patronictl | both kinds of agents in one cluster | works: either kind leads, the other follows
#[test]
fn patronis_nodes_become_ours_one_by_one_and_patronis_again() {
    let name = "patronis_nodes_become_ours_one_by_one_and_patronis_again";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let (mut scene, _etcd) = Scene::begin(lab).await?;
        let ledger = scene.ledger().await?;
        scene.swap(1, Kind::Ours, 0).await?;
        scene.swap(2, Kind::Ours, 0).await?;
        scene.switchover(0, 1).await?;
        scene.swap(0, Kind::Ours, 1).await?;
        ledger.more(20, settle_deadline()).await?;
        let history = ledger.stop().await?;
        scene.judge("to Standfast", &history, &[0, 1, 2]).await?;
        scene.nothing_was_copied()?;
        let ledger = scene.ledger().await?;
        scene.swap(0, Kind::Patroni, 1).await?;
        scene.swap(2, Kind::Patroni, 1).await?;
        scene.switchover(1, 0).await?;
        scene.swap(1, Kind::Patroni, 0).await?;
        ledger.more(20, settle_deadline()).await?;
        let history = ledger.stop().await?;
        scene.judge("to Patroni", &history, &[0, 1, 2]).await
    });
}

/// Kills all of a node that leads, and says who leads after it.
async fn leader_dies(scene: &mut Scene<'_>, leader: usize, kind: Kind) -> Result<usize> {
    let told = |scene: &Scene<'_>| {
        let logs = scene.nodes.iter().map(PatroniNode::log);
        let said = logs.map(|log| log.matches("rule=\"cannot stream\"").count());
        said.sum::<usize>()
    };
    let before = told(scene);
    scene.nodes[leader].kill()?;
    if kind == Kind::Patroni {
        // As long as the key stands its leader is only missed, however silent it is.
        let missed = async || {
            ensure!(told(scene) > before, "nobody misses it");
            Ok(())
        };
        eventually("ours miss the leader", settle_deadline(), missed).await?;
        let key = "/service/lab/leader";
        let found = scene.store.read(key).await?;
        ensure!(found.value(key) == Some(scene.nodes[leader].name()));
        scene.end_leader_key().await?;
    }
    let next = scene.leader_after(leader).await?;
    scene.write(next, "INSERT INTO rows VALUES (1)").await?;
    Ok(next)
}

/// Patroni: patronictl | the primary dies while both kinds are there | works: by `sync` in synchronous mode, by
///   position in asynchronous mode
#[test]
fn the_primary_is_killed_while_nodes_of_both_kinds_are_in_one_cluster() {
    let name = "the_primary_is_killed_while_nodes_of_both_kinds_are_in_one_cluster";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let (mut scene, _etcd) = Scene::begin(lab).await?;
        scene.swap(1, Kind::Ours, 0).await?;
        scene.swap(2, Kind::Ours, 0).await?;
        scene.synchronous("on", &["n2", "n3"]).await?;
        let ledger = scene.ledger().await?;
        ledger.more(50, settle_deadline()).await?;
        let next = leader_dies(&mut scene, 0, Kind::Patroni).await?;
        ledger.more(50, settle_deadline()).await?;
        let history = ledger.stop().await?;
        scene
            .judge("Patroni's primary is killed", &history, &[1, 2])
            .await?;
        scene.nodes[0].start_patroni()?;
        scene.is_run_by(0, Kind::Patroni).await?;
        scene.whole(next).await?;
        // Ours lead, and Patroni's node is their guest.
        let other = 3 - next;
        let named = scene.nodes[other].name().to_owned();
        scene.synchronous("quorum", &[&named]).await?;
        let ledger = scene.ledger().await?;
        ledger.more(50, settle_deadline()).await?;
        let last = leader_dies(&mut scene, next, Kind::Ours).await?;
        ensure!(last == other, "{} leads", scene.nodes[last].name());
        ledger.more(50, settle_deadline()).await?;
        let history = ledger.stop().await?;
        scene
            .judge("our primary is killed", &history, &[0, other])
            .await?;
        scene.nodes[next].start_standfast(scene.lab)?;
        scene.whole(last).await
    });
}

/// Patroni: patronictl | the primary dies while both kinds are there
#[test]
fn the_primary_is_killed_where_patroni_and_ours_may_take_over() {
    let name = "the_primary_is_killed_where_patroni_and_ours_may_take_over";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let (mut scene, _etcd) = Scene::begin(lab).await?;
        scene.swap(1, Kind::Ours, 0).await?;
        let ledger = scene.ledger().await?;
        ledger.more(50, settle_deadline()).await?;
        let next = leader_dies(&mut scene, 0, Kind::Patroni).await?;
        ledger.more(50, settle_deadline()).await?;
        scene.nodes[0].start_patroni()?;
        scene.whole(next).await?;
        // Commits are asynchronous: the last ones may be lost, but nobody acknowledges beside another.
        let dual = ledger.stop().await?.dual_acks();
        ensure!(dual.is_empty(), "two acknowledged at once: {dual:?}");
        let rows = scene.nodes[next]
            .ask("SELECT count(*) FROM standfast_ledger")
            .await?;
        for node in &scene.nodes {
            let what = format!("{} has what the leader has", node.name());
            eventually(&what, settle_deadline(), async || {
                let held = node.ask("SELECT count(*) FROM standfast_ledger").await?;
                ensure!(held == rows, "{held}, not {rows}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    });
}
