//! `pre_promote` and `before_stop`: what a failover and a stop wait for, and what they don't.

use anyhow::{Result, ensure};
use e2e::{Announced, Hooks, Topology, World, settle_deadline, story};
use lab::{Fault, Ledger, eventually};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

const REFUSED: Announced = Announced(&[
    "not promoted: another node shall lead",
    "before_stop failed: Postgres is stopped all the same",
    "the store no longer has this node as leader",
    "WAL that the cluster does not have was discarded",
    "postmaster.pid names a process that is not its; removed",
    "cannot stream from",
    "the lease has ended",
    "the action failed and is decided anew",
]);

fn told(name: &'static str, plot: impl AsyncFnOnce(&mut World<'_>) -> Result<()> + Send + 'static) {
    story(name, Topology::ThreeWithHooks, REFUSED, plot);
}

async fn go_on(ledger: &Ledger) -> Result<()> {
    ledger.more(50, settle_deadline()).await
}

/// Patroni: Failover | `pre_promote` | works; one that takes longer than 300 s has refused, and so is one that refuses
///   asked again after `ttl`, at least 10 s; it is not asked where the last leader leads again
#[test]
fn a_node_that_pre_promote_refuses_leaves_the_lead_to_another() {
    told(
        "a_node_that_pre_promote_refuses_leaves_the_lead_to_another",
        async |world| {
            let hooks = Hooks::of(world.lab);
            ensure!(hooks.ran()?.is_empty(), "a new cluster asks nobody");
            let ledger = world.load(2).await?;
            let old = world.cluster.primary().await?;
            let standbys = world.cluster.standbys().await?;
            let [_, agreed] = standbys.as_slice() else {
                anyhow::bail!("{standbys:?}")
            };
            for standby in &standbys {
                hooks.shall("pre_promote", standby, "echo no fence >&2; exit 3")?;
            }
            world.cluster.node_mut(&old)?.kill_everything()?;
            let mut asked = BTreeSet::new();
            eventually("both are asked", settle_deadline(), async || {
                asked.extend(hooks.ran()?);
                let missing = standbys
                    .iter()
                    .find(|it| !asked.contains(&format!("pre_promote {it}")));
                ensure!(missing.is_none(), "{asked:?}");
                Ok(())
            })
            .await?;
            // A refusal does not stand for ever.
            hooks.shall("pre_promote", agreed, "")?;
            let new = world
                .cluster
                .another_primary(&old, settle_deadline())
                .await?;
            ensure!(new == *agreed, "{new} leads");
            go_on(&ledger).await?;
            world.cluster.node_mut(&old)?.start()?;
            world.reckon(ledger).await.map(drop)
        },
    );
}

/// One that hangs is given up with the leadership, and the last leader is not asked.
#[test]
fn a_fence_that_hangs_and_a_restart_in_place() {
    told("a_fence_that_hangs_and_a_restart_in_place", async |world| {
        let hooks = Hooks::of(world.lab);
        let ledger = world.load(2).await?;
        let old = world.cluster.primary().await?;
        let standbys = world.cluster.standbys().await?;
        for standby in &standbys {
            hooks.shall("pre_promote", standby, "exec sleep 600")?;
        }
        // A restart asks nobody.
        hooks.shall("pre_promote", &old, "exit 3")?;
        world
            .cluster
            .post(&old, "/restart", &json!({}), Duration::from_secs(60))
            .await?;
        go_on(&ledger).await?;
        ensure!(
            world.cluster.primary().await? == old,
            "the leader was changed"
        );
        let ran = hooks.ran()?;
        ensure!(ran == [format!("before_stop {old}")], "{ran:?}");
        world.whole().await?;
        world.cluster.node_mut(&old)?.kill_everything()?;
        let asked = async || -> Result<String> {
            let ran = hooks.ran()?;
            let of = |it: &String| it.strip_prefix("pre_promote ").map(str::to_owned);
            ran.iter()
                .find_map(of)
                .ok_or_else(|| anyhow::anyhow!("{ran:?}"))
        };
        let hangs = eventually("a standby is asked", settle_deadline(), asked).await?;
        for standby in &standbys {
            hooks.shall("pre_promote", standby, "")?;
        }
        // The program hangs; its node's lease ends when that is cut off, and the other two go on without it.
        world.cluster.node_mut(&old)?.start()?;
        world.lab.network()?.set_link(&hangs, false)?;
        let new = world
            .cluster
            .another_primary(&hangs, settle_deadline())
            .await?;
        world.say(&format!("{new} leads while {hangs} was asking"));
        go_on(&ledger).await?;
        world.lab.network()?.set_link(&hangs, true)?;
        world.reckon(ledger).await.map(drop)
    });
}

/// Patroni: Failover | `before_stop` | works: before a primary is stopped by order, at most 60 s; never where it must go
///   at once, nor for a standby
#[test]
fn before_stop_is_waited_for_and_has_no_say() {
    told("before_stop_is_waited_for_and_has_no_say", async |world| {
        let hooks = Hooks::of(world.lab);
        let ledger = world.load(2).await?;
        let old = world.cluster.primary().await?;
        // It sees a primary that still takes writes.
        hooks.shall("before_stop", &old, "sleep 1; exit 7")?;
        world
            .break_and_heal(Fault::Switchover, &ledger, Duration::ZERO)
            .await?;
        let ran = hooks.ran()?;
        let new = world.cluster.primary().await?;
        ensure!(new != old, "no switchover");
        ensure!(
            ran == [format!("before_stop {old}"), format!("pre_promote {new}")],
            "{ran:?}"
        );
        // A crash waits for nobody.
        world
            .break_and_heal(Fault::Postmaster, &ledger, Duration::ZERO)
            .await?;
        let ran = hooks.ran()?;
        ensure!(
            ran.iter().all(|it| it.starts_with("pre_promote")),
            "{ran:?}"
        );
        world.reckon(ledger).await.map(drop)
    });
}
