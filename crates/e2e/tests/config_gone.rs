//! The cluster's configuration is gone from etcd: by a person's hand, with every node down, with all of etcd's content.

use anyhow::{Context, Result, ensure};
use e2e::{in_a_lab, settle_deadline};
use lab::{Brought, Cluster, Disk, Etcd, Host, Passwords, Place, eventually};
use serde_json::{Value, json};
use store::{EtcdOptions, EtcdStore, Store, Txn};

const CONFIG: &str = "/service/shop/config";

fn bring(host: &Host, etcd: &str) -> Brought {
    let (address, base) = (host.address(), host.directory().display());
    let (bin, passwords) = (host.pg_bin().display(), Passwords::default());
    let (superuser, replication) = (passwords.superuser, passwords.replication);
    let text = format!(
        "scope: shop
name: {name}
restapi: {{listen: '0.0.0.0:8008', connect_address: '{address}:8008'}}
etcd3: {{hosts: '{etcd}'}}
postgresql:
  listen: 0.0.0.0:5432
  connect_address: {address}:5432
  data_dir: {base}/data
  bin_dir: {bin}
  pg_hba: [host all all all scram-sha-256]
  parameters: {{unix_socket_directories: {base}/run}}
  authentication:
    superuser: {{username: postgres, password: '{superuser}'}}
    replication: {{username: replicator, password: '{replication}'}}
bootstrap: {{dcs: {{synchronous_mode: off, postgresql: {{parameters: {{work_mem: 5MB}}}}}}}}
",
        name = host.name()
    );
    Brought {
        files: vec![("patroni.yml".to_owned(), text)],
        environment: Vec::new(),
    }
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
        cluster.start_all()?;
        let result = tell(&mut cluster, &etcd).await;
        let logs = cluster.logs();
        result.with_context(|| format!("{logs:#?}"))
    });
}

async fn tell(cluster: &mut Cluster, etcd: &Etcd) -> Result<()> {
    let store = EtcdStore::new(EtcdOptions::new(etcd.addresses(), "/"))?;
    eventually("there is a primary", settle_deadline(), async || {
        let primaries = cluster.primaries().await;
        ensure!(primaries.len() == 1, "{primaries:?}");
        Ok(())
    })
    .await?;
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
    cluster.cut_power()?;
    for node in &cluster.nodes {
        std::fs::remove_dir_all(node.host.home().join(".local/share/standfast"))?;
    }
    for key in store.read("/service/shop/").await?.entries.into_keys() {
        delete(&store, &key).await?;
    }
    let node = cluster.node(&primary)?;
    std::fs::write(node.data_dir.join("standfast.found"), "")?;
    cluster.start_all()?;
    cluster.healthy(settle_deadline()).await?;
    comes_back(&store, &wanted).await?;
    in_force(cluster, "13MB").await
}

/// It is changed while the others are down, and gone when they come back: also where one of them leads.
async fn only_one_knows_the_newest(cluster: &mut Cluster, store: &EtcdStore) -> Result<()> {
    let standbys = cluster.standbys().await?;
    let mut leaders = Vec::new();
    for (knows, memory) in standbys.iter().zip(["11MB", "12MB"]) {
        // The primary first: nobody gets WAL that would make it the next one.
        let primary = cluster.primary().await?;
        let names = cluster.nodes.iter().map(|node| node.name.clone());
        let mut others: Vec<String> = names.filter(|name| name != knows).collect();
        others.sort_by_key(|name| *name != primary);
        for other in &others {
            cluster.node_mut(other)?.kill_everything()?;
        }
        let wanted = put(store, memory).await?;
        let kept = cluster.node(knows)?.data_dir.join("patroni.dynamic.json");
        eventually("it has taken that", settle_deadline(), async || {
            ensure!(std::fs::read_to_string(&kept)? == wanted.to_string(), "no");
            Ok(())
        })
        .await?;
        cluster.node_mut(knows)?.kill_everything()?;
        delete(store, CONFIG).await?;
        cluster.start_all()?;
        comes_back(store, &wanted).await?;
        leaders.push((cluster.healthy(settle_deadline()).await?, knows));
        in_force(cluster, memory).await?;
    }
    let by_another = leaders.iter().any(|(leader, knows)| leader != *knows);
    ensure!(by_another, "nothing is shown: {leaders:?}");
    Ok(())
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
