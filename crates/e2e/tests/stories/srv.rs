//! Nodes that are told a domain, and learn from DNS where etcd is.

use anyhow::{Context, Result, ensure};
use e2e::{in_a_lab, lab_server, patroni_file, settle_deadline};
use lab::{Brought, Cluster, Disk, Dns, Etcd, Host, Place, eventually};
use store::{EtcdOptions, EtcdStore, Store};

/// The nodes are told of no member but by DNS: etcd itself is not asked for the others.
fn bring(host: &Host) -> Brought {
    let etcd = "srv: lab.test, srv_suffix: shop, use_proxies: true";
    patroni_file(host, etcd, "synchronous_mode: quorum", &lab_server(host))
}

/// A service at one of etcd's hosts.
fn records(service: &str, host: &str, port: u16, etcd: &Etcd) -> Result<Vec<String>> {
    let address = etcd.address_of(host)?;
    let (ip, _) = address.split_once(':').context("no port")?;
    Ok(vec![
        format!("--srv-host=_{service}-shop._tcp.lab.test,{host}.lab.test,{port}"),
        format!("--host-record={host}.lab.test,{ip}"),
    ])
}

/// Patroni: Configuration | `etcd3`: `srv`, `srv_suffix` | works: asked for at the start, every 30 s, and each second
///   while no member answers; with `cacert` or `protocol: https` only the names with `-ssl` count, else only the
///   others, so that DNS takes no encryption away
#[test]
fn etcd_is_found_by_dns_and_found_again() {
    let name = "etcd_is_found_by_dns_and_found_again";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let etcd = Etcd::three(lab, Disk::Shared).await?;
        let dns = Dns::new(lab)?;
        let mut cluster = Cluster::brought(lab, bring)?;
        for node in &cluster.nodes {
            dns.serve(&node.host)?;
        }
        cluster.start_all()?;
        let result = tell(&cluster, etcd, dns).await;
        let logs = cluster.logs();
        result.with_context(|| format!("{logs:#?}"))
    });
}

async fn tell(cluster: &Cluster, mut etcd: Etcd, mut dns: Dns) -> Result<()> {
    // The nodes run, and there is no DNS server yet.
    let said = |what: &str| cluster.nodes.iter().all(|node| node.log().contains(what));
    let told = async |what: &str| {
        eventually(what, settle_deadline(), async || {
            ensure!(said(what), "not by all");
            Ok(())
        })
        .await
    };
    told("etcd's members cannot be found by DNS").await?;
    dns.answer(&records("etcd-client", "e1", 2379, &etcd)?)
        .await?;
    told("etcd's members are found by DNS").await?;
    let primary = cluster.healthy(settle_deadline()).await?;
    let ledger = cluster.ledger(2).await?;
    ledger.more(50, settle_deadline()).await?;

    // The only member that they know is gone. Another one's port for peers is named, and says where clients are let in.
    dns.answer(&records("etcd-server", "e2", 2380, &etcd)?)
        .await?;
    etcd.kill("e1")?;
    cluster.node(&primary)?.kill_postmaster()?;
    cluster.another_primary(&primary, settle_deadline()).await?;
    ledger.more(50, settle_deadline()).await?;
    cluster.healthy(settle_deadline()).await?;

    // What is known stays known without DNS.
    dns.stop()?;
    etcd.start_all()?;
    eventually("e1 is back", settle_deadline(), async || {
        let up = EtcdStore::new(EtcdOptions::new(vec![etcd.address_of("e1")?], "/"))?;
        Ok(up.read("/").await.map(drop)?)
    })
    .await?;
    etcd.kill("e2")?;
    let primary = cluster.primary().await?;
    cluster.node(&primary)?.kill_postmaster()?;
    cluster.another_primary(&primary, settle_deadline()).await?;
    ledger.more(50, settle_deadline()).await?;
    cluster.healthy(settle_deadline()).await?;
    ledger.stop().await?.audit(cluster).await?.check()?;
    Ok(())
}
