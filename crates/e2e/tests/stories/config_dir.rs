//! A server of Debian's making: its configuration lies in /etc, and its data elsewhere.

use anyhow::{Context, Result, ensure};
use e2e::{in_a_lab, patroni_file, settle_deadline};
use lab::{Brought, Cluster, Disk, Etcd, Host, Lab, Place, eventually};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The newest PostgreSQL of Debian's that we know, whose `pg_createcluster` knows it as well.
fn major() -> Result<u32> {
    let there =
        |major: &u32| Path::new(&format!("/usr/lib/postgresql/{major}/bin/initdb")).exists();
    let newest = (13..=18).rev().find(there);
    newest.context("no PostgreSQL of Debian's")
}

fn config_dir(host: &Host, major: u32) -> PathBuf {
    host.directory().join(format!("etc/{major}/main"))
}

/// As an administrator has made it, and changed it since.
fn create(host: &Host, major: u32) -> Result<()> {
    let base = host.directory();
    let etc = base.join("etc");
    std::fs::create_dir(&etc)?;
    host.identity().own(&etc)?;
    let made = host
        .command("pg_createcluster")
        .env("PG_CLUSTER_CONF_ROOT", &etc)
        .args(["--port", "5432", "--locale", "C.UTF-8", "--datadir"])
        .arg(base.join("data"))
        .arg("--socketdir")
        .arg(base.join("run"))
        .arg("--logfile")
        .arg(base.join("server.log"))
        .args([&major.to_string(), "main"])
        .output()?;
    ensure!(made.status.success(), "pg_createcluster: {made:?}");
    let dir = config_dir(host, major);
    let add = |file: &str, text: &str| -> Result<()> {
        let path = dir.join(file);
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(text.as_bytes())?;
        host.identity().own(&path)
    };
    add("postgresql.conf", "work_mem = 11MB\n")?;
    add("conf.d/ours.conf", "maintenance_work_mem = 77MB\n")?;
    add("pg_hba.conf", "host all all 10.77.0.0/24 scram-sha-256\n")
}

fn bring(host: &Host, etcd: &str, major: u32) -> Result<Brought> {
    create(host, major)?;
    if host.name() != "n1" {
        std::fs::remove_dir_all(host.directory().join("data"))?;
    }
    let server = [
        format!("config_dir: {}", config_dir(host, major).display()),
        format!("bin_dir: /usr/lib/postgresql/{major}/bin"),
    ];
    let etcd = format!("hosts: '{etcd}'");
    Ok(patroni_file(
        host,
        &etcd,
        "synchronous_mode: quorum",
        &server,
    ))
}

/// Patroni: Configuration | `config_dir` | works: `postgresql.conf`, `pg_hba.conf` and `pg_ident.conf` there are
///   included or copied from, and never written; what is not there is looked for in the data directory
#[test]
fn a_server_of_debians_making_is_taken_over() {
    let name = "a_server_of_debians_making_is_taken_over";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let major = major()?;
        let etcd = Etcd::three(lab, Disk::Shared).await?;
        let hosts = etcd.addresses().join(", ");
        let brought = |host: &Host| bring(host, &hosts, major).expect("a server of Debian's");
        let mut cluster = Cluster::brought(lab, brought)?;
        let files = files(&cluster, major)?;
        // An empty node would not wait for one that has data and is not there yet.
        cluster.node_mut("n1")?.start()?;
        let result = match cluster.primary().await {
            Ok(_) => {
                cluster.node_mut("n2")?.start()?;
                cluster.node_mut("n3")?.start()?;
                tell(&cluster, &etcd, lab).await
            }
            Err(error) => Err(error),
        };
        let logs = cluster.logs();
        result.with_context(|| format!("{logs:#?}"))?;
        ensure!(files == self::files(&cluster, major)?, "a file was written");
        Ok(())
    });
}

fn files(cluster: &Cluster, major: u32) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for node in &cluster.nodes {
        for file in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
            let path = config_dir(&node.host, major).join(file);
            texts.push(std::fs::read_to_string(path)?);
        }
    }
    Ok(texts)
}

/// The two others are clones; the old primary is cut off with its clients, and comes back by a rewind.
async fn tell(cluster: &Cluster, etcd: &Etcd, lab: &Lab) -> Result<()> {
    let first = cluster.healthy(settle_deadline()).await?;
    in_force(cluster).await?;
    let ledger = cluster.ledger(4).await?;
    ledger.more(50, settle_deadline()).await?;
    let mut others = cluster.standbys().await?;
    others.extend(etcd.names());
    let network = lab.network()?;
    for other in &others {
        network.drop_one_way(&first, other)?;
        network.drop_one_way(other, &first)?;
    }
    cluster.another_primary(&first, settle_deadline()).await?;
    ledger.more(50, settle_deadline()).await?;
    for other in &others {
        network.restore_one_way(&first, other)?;
        network.restore_one_way(other, &first)?;
    }
    cluster.healthy(settle_deadline()).await?;
    let log = cluster.node(&first)?.log();
    ensure!(log.contains("rule=\"rewind\""), "not rewound: {log}");
    in_force(cluster).await?;
    ledger.stop().await?.audit(cluster).await?.check()?;
    Ok(())
}

async fn in_force(cluster: &Cluster) -> Result<()> {
    let what = "the old configuration is in force";
    eventually(what, settle_deadline(), async || {
        for node in cluster.data_nodes() {
            for (question, wanted) in [
                ("SHOW work_mem", "11MB"),
                ("SHOW maintenance_work_mem", "77MB"),
            ] {
                let found: String = node.ask(question).await?;
                ensure!(found == wanted, "{}: {question}: {found}", node.name);
            }
        }
        Ok(())
    })
    .await
}
