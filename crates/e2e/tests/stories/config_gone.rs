//! The cluster's configuration is gone from etcd: by a person's hand, with every node down, with all of etcd's content.

use anyhow::{Context, Result, ensure};
use e2e::{in_a_lab, lab_server, patroni_file, settle_deadline};
use lab::{Brought, Cluster, Disk, Etcd, Host, Place, eventually};
use serde_json::{Value, json};
use store::{EtcdOptions, EtcdStore, Store, Txn};

const CONFIG: &str = "/service/shop/config";

/// It may not lead.
const NO_LEADER: &str = "n3";

fn bring(host: &Host, etcd: &str) -> Brought {
    let dcs = "synchronous_mode: off, postgresql: {parameters: {work_mem: 5MB}}";
    let mut brought = patroni_file(host, &format!("hosts: '{etcd}'"), dcs, &lab_server(host));
    if host.name() == NO_LEADER {
        brought.files[0].1.push_str("tags: {nofailover: true}\n");
    }
    brought
}

/// Patroni: Configuration | `/config` that is gone from the store, `patroni.dynamic.json` | works: what was in force
///   stays in force on every node, from a copy in its state directory, and the leader puts it back, the newest that a
///   member knows; also after the loss of the whole store, and for a directory of Patroni's whose store has no `/config`
#[test]
fn a_configuration_that_is_gone_comes_back() {
    let name = "a_configuration_that_is_gone_comes_back";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let etcd = Etcd::three(lab, Disk::Shared).await?;
        let hosts = etcd.addresses().join(", ");
        let mut cluster = Cluster::brought(lab, |host| bring(host, &hosts))?;
        let result = tell(&mut cluster, &etcd).await;
        let logs = cluster.logs();
        result.with_context(|| format!("{logs:#?}"))
    });
}

async fn tell(cluster: &mut Cluster, etcd: &Etcd) -> Result<()> {
    let store = EtcdStore::new(EtcdOptions::new(etcd.addresses(), "/"))?;
    for name in ["n1", "n2"] {
        cluster.node_mut(name)?.start()?;
    }
    cluster.primary().await?;
    cluster.node_mut(NO_LEADER)?.start()?;
    let wanted = put(&store, "9MB").await?;
    in_force(cluster, "9MB").await?;

    // By hand, while everything runs: not even a slot is made anew.
    let primary = cluster.healthy(settle_deadline()).await?;
    let slot = "SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = 'archive'";
    let before: String = cluster.node(&primary)?.ask(slot).await?;
    let ledger = cluster.ledger(2).await?;
    ledger.more(50, settle_deadline()).await?;
    delete(&store, CONFIG).await?;
    comes_back(&store, &wanted).await?;
    ledger.more(50, settle_deadline()).await?;
    let after: String = cluster.node(&primary)?.ask(slot).await?;
    ensure!(
        before == after,
        "the slot was at {before}, and is at {after}"
    );
    cluster.healthy(settle_deadline()).await?;
    ledger.stop().await?.audit(cluster).await?.check()?;

    // While no node runs that could remember it.
    cluster.cut_power()?;
    delete(&store, CONFIG).await?;
    cluster.start_all()?;
    cluster.healthy(settle_deadline()).await?;
    comes_back(&store, &wanted).await?;
    in_force(cluster, "9MB").await?;

    only_one_knows_the_newest(cluster, &store).await?;
    let wanted = put(&store, "13MB").await?;
    in_force(cluster, "13MB").await?;

    // With all else that etcd and the nodes knew: a person says whose data the cluster goes on with.
    let primary = cluster.primary().await?;
    for key in store.read("/service/shop/").await?.entries.into_keys() {
        delete(&store, &key).await?;
    }
    eventually("all wait for a person", settle_deadline(), async || {
        for node in &cluster.nodes {
            let waits = node.log().contains("rule=\"forgotten epoch\"");
            ensure!(waits, "{} does not", node.name);
        }
        ensure!(cluster.primaries().await.is_empty(), "somebody leads");
        Ok(())
    })
    .await?;
    for node in &mut cluster.nodes {
        node.stop(settle_deadline()).await?;
        let state = node.host.home().join(".local/share/standfast");
        std::fs::rename(&state, state.with_extension("aside"))?;
    }
    let node = cluster.node(&primary)?;
    std::fs::write(node.data_dir.join("standfast.found"), "")?;
    cluster.start_all()?;
    cluster.healthy(settle_deadline()).await?;
    comes_back(&store, &wanted).await?;
    in_force(cluster, "13MB").await
}

/// It is changed while the others are down, and gone when they come back: one of these leads.
async fn only_one_knows_the_newest(cluster: &mut Cluster, store: &EtcdStore) -> Result<()> {
    // The primary first: nobody gets WAL that it alone would have.
    let primary = cluster.primary().await?;
    cluster.node_mut(&primary)?.kill_everything()?;
    let other = if primary == "n1" { "n2" } else { "n1" };
    cluster.node_mut(other)?.kill_everything()?;
    let wanted = put(store, "11MB").await?;
    let node = cluster.node(NO_LEADER)?;
    let kept = node.data_dir.join("patroni.dynamic.json");
    eventually("it has taken that", settle_deadline(), async || {
        let kept: Value = serde_json::from_str(&std::fs::read_to_string(&kept)?)?;
        ensure!(kept == wanted, "{kept}");
        Ok(())
    })
    .await?;
    cluster.cut_power()?;
    delete(store, CONFIG).await?;
    cluster.start_all()?;
    comes_back(store, &wanted).await?;
    let primary = cluster.healthy(settle_deadline()).await?;
    ensure!(primary != NO_LEADER);
    in_force(cluster, "11MB").await
}

async fn put(store: &EtcdStore, memory: &str) -> Result<Value> {
    let wanted = json!({
        "synchronous_mode": "quorum",
        "slots": {"archive": {"type": "physical"}},
        "postgresql": {"parameters": {"work_mem": memory}},
    });
    let put = Txn::new().put(CONFIG, wanted.to_string());
    ensure!(store.commit(put).await?.is_committed(), "refused");
    Ok(wanted)
}

async fn delete(store: &EtcdStore, key: &str) -> Result<()> {
    let gone = store.commit(Txn::new().delete(key)).await?;
    ensure!(gone.is_committed(), "{key} is not deleted");
    Ok(())
}

async fn comes_back(store: &EtcdStore, wanted: &Value) -> Result<()> {
    let what = "the configuration is back";
    eventually(what, settle_deadline(), async || {
        let seen = store.read(CONFIG).await?;
        let config: Value = serde_json::from_str(seen.value(CONFIG).context("absent")?)?;
        ensure!(config == *wanted, "{config}");
        Ok(())
    })
    .await
}

async fn in_force(cluster: &Cluster, wanted: &str) -> Result<()> {
    let what = "every node has what the cluster says";
    eventually(what, settle_deadline(), async || {
        for node in cluster.data_nodes() {
            let memory: String = node.ask("SHOW work_mem").await?;
            ensure!(memory == wanted, "{}: {memory}", node.name);
        }
        Ok(())
    })
    .await
}
