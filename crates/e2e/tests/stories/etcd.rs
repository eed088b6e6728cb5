//! Three nodes whose store is a real etcd cluster of three, and what befalls both.

use anyhow::{Result, ensure};
use e2e::{Announced, Topology, World, in_a_lab, is_long, settle_deadline, story};
use lab::{Disk, Etcd, Fault, Place, eventually};
use std::time::{Duration, Instant};
use store::{EtcdOptions, EtcdStore, Store, Txn};

async fn survives(world: &mut World<'_>, fault: Fault) -> Result<()> {
    let ledger = world.load(4).await?;
    world.break_and_heal(fault, &ledger, Duration::ZERO).await?;
    world.reckon(ledger).await.map(drop)
}

/// Patroni: Failover | leader race | differently: standbys promise in the store to acknowledge nothing more, and the
///   most advanced of enough of them leads; no member is asked by REST
#[test]
fn the_postmaster_is_killed_with_etcd() {
    story(
        "the_postmaster_is_killed_with_etcd",
        Topology::ThreeWithEtcd,
        Announced::FAILOVER,
        async |world| survives(world, Fault::Postmaster).await,
    );
}

#[test]
fn a_person_switches_over_with_etcd() {
    story(
        "a_person_switches_over_with_etcd",
        Topology::ThreeWithEtcd,
        Announced::FAILOVER,
        async |world| survives(world, Fault::Switchover).await,
    );
}

#[test]
fn the_machine_is_lost_with_etcd() {
    story(
        "the_machine_is_lost_with_etcd",
        Topology::ThreeWithEtcd,
        Announced::POWER,
        async |world| survives(world, Fault::Machine).await,
    );
}

#[test]
fn the_primary_and_etcds_leader_die_at_once() {
    story(
        "the_primary_and_etcds_leader_die_at_once",
        Topology::ThreeWithEtcd,
        Announced::TROUBLE,
        async |world| {
            let ledger = world.load(4).await?;
            let primary = world.cluster.primary().await?;
            let etcd = world.etcd()?;
            let leader = etcd.leader().await?;
            etcd.kill(&leader)?;
            world.cluster.node(&primary)?.kill_postmaster()?;
            ledger.more(50, settle_deadline()).await?;
            world.etcd()?.start_all()?;
            world.reckon(ledger).await.map(drop)
        },
    );
}

/// On the primary's side is one member of etcd: it answers, and can't commit anything.
#[test]
fn one_member_of_etcd_is_cut_off_with_the_primary() {
    let name = "one_member_of_etcd_is_cut_off_with_the_primary";
    let announced = Announced::AGAIN;
    story(name, Topology::ThreeWithEtcd, announced, async |world| {
        let ledger = world.load(4).await?;
        let old = world.cluster.primary().await?;
        let standbys = world.cluster.standbys().await?;
        let etcd = world.etcd()?;
        let follower = {
            let leader = etcd.leader().await?;
            let mut names = etcd.names();
            names.retain(|name| *name != leader);
            names.remove(0)
        };
        let mut others = etcd.names();
        others.retain(|name| *name != follower);
        others.extend(standbys);
        let network = world.lab.network()?;
        for here in [&old, &follower] {
            for there in &others {
                network.drop_one_way(here, there)?;
                network.drop_one_way(there, here)?;
            }
        }
        world
            .cluster
            .another_primary(&old, settle_deadline())
            .await?;
        ledger.more(50, settle_deadline()).await?;
        let network = world.lab.network()?;
        for here in [&old, &follower] {
            for there in &others {
                network.restore_one_way(here, there)?;
                network.restore_one_way(there, here)?;
            }
        }
        world.reckon(ledger).await.map(drop)
    });
}

/// The usual `ttl`.
const LEASE: Duration = Duration::from_secs(3);

/// etcd is away for ten seconds, or for sixty with `STANDFAST_E2E_LONG=1`. Nobody can renew a
/// lease: the primary must cease to be one before its own ends.
async fn etcd_is_away(
    world: &mut World<'_>,
    go: fn(&mut Etcd) -> Result<()>,
    come: fn(&mut Etcd) -> Result<()>,
) -> Result<()> {
    let ledger = world.load(4).await?;
    let primary = world.cluster.primary().await?;
    let begun = tokio::time::Instant::now();
    go(world.etcd()?)?;
    let gone = ledger.elapsed();
    let node = world.cluster.node(&primary)?;
    lab::until("the primary is fenced", settle_deadline(), || {
        node.postmaster_pid().is_err()
    })
    .await?;
    // The length of the fault is part of the story, not a wait for something.
    let away = Duration::from_secs(if is_long() { 60 } else { 10 });
    tokio::time::sleep_until(begun + away).await;
    let primaries = world.cluster.primaries().await;
    ensure!(
        primaries.is_empty(),
        "primaries without a store: {primaries:?}"
    );
    let back = ledger.elapsed();
    come(world.etcd()?)?;
    world.whole().await?;
    let history = ledger.stop().await?;
    let late = history.acknowledged_of(gone + LEASE..back);
    ensure!(late.is_none(), "etcd went at {gone:?}: {late:?}");
    let verdict = history.audit(&world.cluster).await?;
    world.say(&verdict.to_string());
    verdict.check()
}

#[test]
fn etcd_is_killed_and_comes_back() {
    story(
        "etcd_is_killed_and_comes_back",
        Topology::ThreeWithEtcd,
        Announced::POWER,
        async |world| etcd_is_away(world, Etcd::kill_all, Etcd::start_all).await,
    );
}

#[test]
fn etcd_freezes_and_thaws() {
    story(
        "etcd_freezes_and_thaws",
        Topology::ThreeWithEtcd,
        Announced::POWER,
        async |world| etcd_is_away(world, |etcd| etcd.freeze_all(), |etcd| etcd.thaw_all()).await,
    );
}

/// A leader of etcd that is stuck in its disk is deposed and does not notice: it goes on granting renewals. One before
/// etcd 3.4.31 or 3.5.13 also ends, when it comes back, leases that its successor has renewed since: another leader of
/// ours may go for it, while the one before is still being rewound to it.
#[test]
fn the_disk_of_etcds_leader_hangs() {
    story(
        "the_disk_of_etcds_leader_hangs",
        Topology::ThreeWithEtcdOnOwnDisks,
        Announced::AGAIN,
        async |world| {
            let ledger = world.load(4).await?;
            let etcd = world.etcd()?;
            let leader = etcd.leader().await?;
            etcd.hang_disk(&leader)?;
            ledger.more(50, settle_deadline()).await?;
            tokio::time::sleep(Duration::from_secs(5)).await;
            ledger.more(50, settle_deadline()).await?;
            world.etcd()?.resume_disk(&leader)?;
            ledger.more(50, settle_deadline()).await?;
            world.reckon(ledger).await.map(drop)
        },
    );
}

/// More than what etcd adds when its leader changes, and than a busy machine takes for a few calls.
const TTL: Duration = Duration::from_secs(6);

fn store_at(addresses: Vec<String>) -> Result<EtcdStore> {
    Ok(EtcdStore::new(EtcdOptions::new(addresses, "/"))?)
}

/// A leader of etcd that is stuck in its disk is deposed and does not notice: it goes on granting renewals, while the
/// new one counts the lease from when it took office.
#[test]
fn a_deposed_leader_of_etcd_renews_no_lease() {
    let name = "a_deposed_leader_of_etcd_renews_no_lease";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let etcd = Etcd::three(lab, Disk::Ext4 { megabytes: 200 }).await?;
        let leader = etcd.leader().await?;
        let own = etcd.address_of(&leader)?;
        let others: Vec<_> = etcd.addresses();
        let others: Vec<_> = others.into_iter().filter(|it| *it != own).collect();
        let witness = store_at(others.clone())?;
        let lease = witness.grant(TTL).await?;
        let txn = Txn::new().put_leased("/leased", "1", lease);
        ensure!(witness.commit(txn).await?.is_committed(), "no key");
        etcd.hang_disk(&leader)?;
        // By its own clock, and by nobody else's, the lease lives on.
        let deposed = store_at(vec![own.clone()])?;
        let deposed = tokio::spawn(async move {
            loop {
                let _ = deposed.renew(lease).await;
            }
        });
        // It is stuck from the next write on. What is committed after that is the new leader's.
        eventually("the others have elected", settle_deadline(), async || {
            let put = Txn::new().put("/elected", "1");
            ensure!(witness.commit(put).await?.is_committed(), "refused");
            Ok(())
        })
        .await?;
        // Most of the lease must be over by the new leader's clock.
        tokio::time::sleep(TTL * 2 / 3).await;
        // Those who ask the deposed one first, and the others only for what it can't do.
        let holder = || store_at([vec![own.clone()], others.clone()].concat());
        let mut renewed = Instant::now();
        holder()?.renew(lease).await?;
        holds(&witness, renewed).await?;
        renewed = Instant::now();
        let beat = Txn::new().put("/beat", "1").renew(lease);
        // What hangs at the deposed one is of unknown outcome, and no renewal either.
        if holder()?.commit(beat).await.is_ok() {
            holds(&witness, renewed).await?;
        }
        deposed.abort();
        etcd.resume_disk(&leader)?;
        Ok(())
    });
}

/// The lease lives as long as a renewal that was asked for at `renewed` promises, but for the wait of a last look.
async fn holds(witness: &EtcdStore, renewed: Instant) -> Result<()> {
    let almost = TTL - Duration::from_millis(500);
    while renewed.elapsed() < almost {
        let seen = witness.read("/leased").await?;
        let lived = renewed.elapsed();
        ensure!(
            !seen.entries.is_empty(),
            "the lease ended {lived:?} after a renewal"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
