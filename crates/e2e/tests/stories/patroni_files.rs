//! Nodes started from files as people have them, with mistakes in them, where Patroni stood.

use anyhow::{Context, Result, ensure};
use e2e::{in_a_lab, settle_deadline};
use lab::{Brought, Cluster, Disk, Etcd, Host, Passwords, Place, eventually};
use serde_json::{Value, json};
use store::{EtcdOptions, EtcdStore, Store, Txn};

/// Copied from somewhere: etcd's old section with an empty user, a login in the wrong place, a primary that is
/// configured, a line of pg_hba that lets no standby in, a recovery target for the whole cluster.
fn copied(host: &Host, etcd: &str) -> String {
    let (address, base) = (host.address(), host.directory().display());
    let bin = host.pg_bin().display();
    format!(
        "scope: shop
namespace: /service/
restapi:
  listen: 0.0.0.0:8008
  connect_address: {address}:8008
etcd:
  hosts: [{etcd}]
  protocol: http
  username:
  password:
postgresql:
  listen: 0.0.0.0:5432
  connect_address: {address}:5432
  data_dir: {base}/data
  pg_hba:
    - host all all 0.0.0.0/0 md5
  parameters:
    max_connections: 100
    wal_level: replica
    hot_standby: \"on\"
    max_wal_senders: 10
    unix_socket_directories: {base}/run
  callbacks:
    on_role_change: /bin/sh -c 'echo \"$@\" >> {base}/callbacks' told
  replication:
    type: pgstandard
    master: {{host: 10.0.0.1, port: 5432, user: replicator, password: planted-4715}}
bootstrap:
  post_bootstrap: /bin/sh -c '{bin}/psql \"$0\" -c \"CREATE TABLE made_afterwards ()\"'
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        recovery_target_timeline: 'latest'
        maintenance_work_mem: 33MB
"
    )
}

/// One file; for n2 a directory of two.
fn bring(host: &Host, etcd: &str) -> Brought {
    let text = copied(host, etcd);
    let files = match host.name() {
        "n2" => vec![
            (
                "10-all.yml".to_owned(),
                text.replace("scope: shop", "scope: other"),
            ),
            ("20-node.yml".to_owned(), "scope: shop\n".to_owned()),
        ],
        _ => vec![("patroni.yml".to_owned(), text)],
    };
    let environment = [
        // All hosts of a lab have one host name.
        ("PATRONI_NAME", host.name().to_owned()),
        ("PATRONI_SUPERUSER_PASSWORD", Passwords::default().superuser),
        (
            "PATRONI_POSTGRESQL_BIN_DIR",
            host.pg_bin().display().to_string(),
        ),
    ];
    Brought {
        files,
        environment: environment
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
    }
}

/// What each mistake is answered with, in the log of a node with one file.
const TOLD: &[&str] = &[
    "line 6: etcd: is served by etcd's v3 interface",
    "postgresql.parameters.hot_standby: is set by Standfast, this value is not used",
    "postgresql.replication.type: unknown key, there is nothing to choose",
    "postgresql.replication.master: unknown key: who is the primary is agreed in the store",
    "bootstrap.dcs.synchronous_mode: not set, so commits are asynchronous",
    "bootstrap.dcs.postgresql.parameters.recovery_target_timeline: is set by Standfast",
    "postgresql.authentication: no passwords for superuser and replication",
];

async fn everywhere(cluster: &Cluster, question: &str, answer: &str) -> Result<()> {
    eventually(
        &format!("{question}: {answer}"),
        settle_deadline(),
        async || {
            for node in cluster.data_nodes() {
                let said: String = node.ask(question).await?;
                ensure!(said == answer, "{} says {said}", node.name);
            }
            Ok(())
        },
    )
    .await
}

/// As `patronictl edit-config` does it: straight into the store.
async fn edit(store: &EtcdStore, change: impl FnOnce(&mut Value)) -> Result<()> {
    let key = "/service/shop/config";
    let seen = store.read(key).await?;
    let mut config: Value = serde_json::from_str(seen.value(key).context("no config")?)?;
    change(&mut config);
    let txn = Txn::new()
        .when(seen.unchanged(key))
        .put(key, config.to_string());
    ensure!(store.commit(txn).await?.is_committed(), "refused");
    Ok(())
}

/// Patroni: Configuration | `etcd` | differently: by the v3 interface
/// Patroni: Configuration | `pending_restart` and its reason | works
/// Patroni: Configuration | `bootstrap.post_bootstrap`, `post_init` | works; one that fails does not undo the
///   cluster
/// Patroni: Configuration | permanent `slots`, physical | work: on every node, where the leader's is, at most 10 s
///   behind
#[test]
fn files_with_mistakes_make_a_cluster_that_holds() {
    let name = "files_with_mistakes_make_a_cluster_that_holds";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let etcd = Etcd::three(lab, Disk::Shared).await?;
        let hosts = etcd.addresses().join(", ");
        let mut cluster = Cluster::brought(lab, |host| bring(host, &hosts))?;
        cluster.start_all()?;
        let result = tell(&cluster, &etcd).await;
        let logs = cluster.logs();
        result.with_context(|| format!("{logs:#?}"))
    });
}

async fn tell(cluster: &Cluster, etcd: &Etcd) -> Result<()> {
    // What bootstrap.dcs says of Postgres is every node's.
    everywhere(cluster, "SHOW maintenance_work_mem", "33MB").await?;
    let log = cluster.node("n1")?.log();
    for told in TOLD {
        ensure!(log.contains(told), "not told: {told}");
    }
    ensure!(log.contains(" WARNING: "), "not in Patroni's form");
    ensure!(!log.contains("planted"), "a password is in the log");

    everywhere(
        cluster,
        "SELECT coalesce(to_regclass('made_afterwards')::text, 'absent')",
        "made_afterwards",
    )
    .await?;

    let store = EtcdStore::new(EtcdOptions::new(etcd.addresses(), "/"))?;
    edit(&store, |config| {
        config["synchronous_mode"] = json!("quorum");
        config["slots"] = json!({"archive": {"type": "physical"}});
        config["postgresql"] = json!({
            "parameters": {"work_mem": "9MB", "wrk_mem": 1, "max_locks_per_transaction": 128, "max_connections": 50},
        });
    })
    .await?;
    everywhere(cluster, "SHOW work_mem", "9MB").await?;
    everywhere(cluster, "SHOW maintenance_work_mem", "64MB").await?;
    everywhere(cluster, "SHOW max_connections", "100").await?;
    eventually("a restart is pending", settle_deadline(), async || {
        for node in cluster.data_nodes() {
            let document = node.get("/patroni").await?.json()?;
            let reason =
                json!({"max_locks_per_transaction": {"old_value": "64", "new_value": "128"}});
            ensure!(document["pending_restart"] == true, "{document}");
            ensure!(document["pending_restart_reason"] == reason, "{document}");
        }
        Ok(())
    })
    .await?;

    let slot = "SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = 'archive'";
    everywhere(cluster, slot, "1").await?;
    let primary = cluster.healthy(settle_deadline()).await?;
    let ledger = cluster.ledger(2).await?;
    ledger.more(50, settle_deadline()).await?;
    cluster.node(&primary)?.kill_postmaster()?;
    let next = cluster.another_primary(&primary, settle_deadline()).await?;
    ledger.more(50, settle_deadline()).await?;
    cluster.healthy(settle_deadline()).await?;
    everywhere(cluster, slot, "1").await?;
    ledger.stop().await?.audit(cluster).await?.check()?;

    let said = |node: &str, text: String| {
        let log = cluster.node(node)?.log();
        ensure!(log.contains(&text), "{node} has not said: {text}");
        Ok(())
    };
    said(
        &next,
        "INFO: promoted self to leader by acquiring session lock".to_owned(),
    )?;
    said(
        &next,
        format!("INFO: no action. I am ({next}), the leader with the lock"),
    )?;
    said(
        &next,
        format!("INFO: no action. I am ({next}), a secondary, and following a leader ({primary})"),
    )?;
    let called = cluster.node(&next)?.host.directory().join("callbacks");
    eventually("the callback has run", settle_deadline(), async || {
        let called = std::fs::read_to_string(&called)?;
        ensure!(
            called.lines().last() == Some("on_role_change primary shop"),
            "{called}"
        );
        Ok(())
    })
    .await
}
