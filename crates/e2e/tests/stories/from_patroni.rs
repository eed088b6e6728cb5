//! Three real nodes of Patroni on etcd: they become a cluster of ours at one stroke, and one of
//! Patroni's again; and our proxy stands in front of them as they are.

mod proxied;

use anyhow::{Result, ensure};
use e2e::{PatroniNode, Patronictl, in_a_lab, settle_deadline};
use lab::{Disk, Etcd, Lab, Place, eventually};
use serde_json::Value;
use std::time::Instant;

/// The cluster and who looks at it.
struct Scene<'lab> {
    lab: &'lab Lab,
    nodes: Vec<PatroniNode>,
    ctl: Patronictl,
    _etcd: Etcd,
}

impl Scene<'_> {
    /// Waits until `leader` leads and all others stream from it.
    async fn whole(&self, leader: usize) -> Result<()> {
        let name = format!("n{}", leader + 1);
        let what = format!("{name} leads three");
        eventually(&what, settle_deadline(), async || {
            let text = self.ctl.types("list -f json")?;
            let members: Vec<Value> = serde_json::from_str(&text)?;
            let fine = members.iter().filter(|member| {
                let role = if member["Member"] == *name {
                    "Leader"
                } else {
                    "Replica"
                };
                let state = if role == "Leader" {
                    "running"
                } else {
                    "streaming"
                };
                member["Role"] == role && member["State"] == state
            });
            ensure!(fine.count() == 3, "{text}");
            Ok(())
        })
        .await
    }

    async fn write(&self, leader: usize, sql: &str) -> Result<()> {
        eventually(sql, settle_deadline(), async || {
            self.nodes[leader].ask(sql).await
        })
        .await
        .map(drop)
    }

    /// Everywhere.
    async fn has_work_mem(&self, wanted: &str) -> Result<()> {
        eventually("every node has it", settle_deadline(), async || {
            for node in &self.nodes {
                let found: String = node.ask("SHOW work_mem").await?;
                ensure!(found == wanted, "work_mem is {found}");
            }
            Ok(())
        })
        .await
    }

    async fn rows(&self, node: usize) -> Result<String> {
        self.nodes[node].ask("SELECT count(*) FROM rows").await
    }

    /// All stop, the leader last; what etcd knows is removed; the leader starts first. Says how long nobody could write.
    async fn change_over(&mut self, leader: usize, start: Start) -> Result<()> {
        let others = (0..3).filter(|node| *node != leader).collect::<Vec<_>>();
        for node in &others {
            self.nodes[*node].stop().await?;
        }
        let begun = Instant::now();
        self.nodes[leader].stop().await?;
        let said = self.ctl.tries("remove lab < answers")?;
        ensure!(said.code == Some(0), "{said:?}");
        start(&mut self.nodes[leader], self.lab)?;
        self.write(leader, "INSERT INTO rows VALUES (0)").await?;
        e2e::say(&format!("changed over in {:?}", begun.elapsed()));
        for node in others {
            start(&mut self.nodes[node], self.lab)?;
        }
        self.whole(leader).await
    }
}

type Start = fn(&mut PatroniNode, &Lab) -> Result<()>;

/// Three nodes, of which none runs.
async fn scene(lab: &mut Lab) -> Result<Scene<'_>> {
    let etcd = Etcd::three(lab, Disk::Shared).await?;
    let nodes = [("n1", 11), ("n2", 12), ("n3", 13)]
        .map(|(name, number)| PatroniNode::new(lab, name, number, &etcd));
    let nodes = nodes.into_iter().collect::<Result<Vec<_>>>()?;
    let host = nodes[0].host.clone();
    let ctl = Patronictl::theirs_on(lab, host, &etcd.addresses())?;
    Ok(Scene {
        lab,
        nodes,
        ctl,
        _etcd: etcd,
    })
}

/// Patroni: patronictl | a cluster of Patroni becomes ours, and back | works, node by node with one switchover, or
///   as a whole with a pause of seconds; nothing is copied
/// Patroni: Failover | a data directory that ran before is taken over | works; its WAL is compared with the leader's
///   first
#[test]
fn a_cluster_of_patroni_becomes_ours_and_patronis_again() {
    let name = "a_cluster_of_patroni_becomes_ours_and_patronis_again";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let mut scene = scene(lab).await?;
        // Nobody leads any more when it is asked.
        let answers = scene.nodes[0].host.directory().join("answers");
        std::fs::write(answers, "lab\nYes I am aware\n")?;
        scene.nodes[0].start_patroni()?;
        scene.write(0, "CREATE TABLE rows (n int)").await?;
        scene.nodes[1].start_patroni()?;
        scene.nodes[2].start_patroni()?;
        scene.whole(0).await?;
        // By a person's hand, in no file: it goes along in patroni.dynamic.json.
        let edited = "edit-config -p work_mem=7MB --force";
        let edited = scene.ctl.tries(edited)?;
        ensure!(edited.code == Some(0), "{edited:?}");
        scene.has_work_mem("7MB").await?;
        scene
            .write(0, "INSERT INTO rows SELECT generate_series(1, 1000)")
            .await?;
        scene.change_over(0, PatroniNode::start_standfast).await?;
        scene.write(0, "INSERT INTO rows VALUES (1)").await?;
        scene.has_work_mem("7MB").await?;
        for node in 0..3 {
            eventually("every row is everywhere", settle_deadline(), async || {
                let rows = scene.rows(node).await?;
                ensure!(rows == "1002", "{rows} rows on n{}", node + 1);
                Ok(())
            })
            .await?;
        }
        // Bytes told whose WAL it is: nothing was copied.
        for node in [1, 2] {
            let log = scene.nodes[node].log();
            ensure!(
                log.contains("byte by byte") && !log.contains("rule=\"clone\""),
                "{log}"
            );
        }
        scene.change_over(0, |node, _| node.start_patroni()).await?;
        ensure!(scene.rows(0).await? == "1003");
        Ok(())
    });
}
