//! What a cluster costs when nothing happens: memory, processor, and what the store writes.

use anyhow::{Context, Result, ensure};
use e2e::{Announced, Topology, story_alone};
use lab::Node;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What an agent may hold in memory, guard and Postgres not included.
const MEMORY_MAX_KB: u64 = 15 * 1024;
/// How often an agent may wake a second, all threads together: about twice what it needs. What an idle agent costs is
/// its wake-ups, and they can be counted anywhere.
const WAKEUPS_MAX: u64 = 220;
/// What an agent may use of a core, in thousandths. On a shared machine the same work has taken three times as long at
/// another hour, and a debug build is several times slower: this catches what spins.
const CPU_MAX_PERMILLE: u64 = 40;
const CPU_MAX_PERMILLE_DEBUG: u64 = 200;
/// What an idle cluster may write into its store: leases, and the leader's beat four times a second.
/// `store/tests/growth.rs` shows that the file keeps its size however long this goes on.
const ENTRIES_MAX_PER_SECOND: u64 = 10;
/// What the store's files may hold after the cluster has settled.
const STORE_MAX_KB: u64 = 16 * 1024;

/// How long the cluster is watched: the span of the measurement, not a wait for something.
const WATCHED: Duration = Duration::from_secs(10);

struct Cost {
    memory_kb: u64,
    ticks: u64,
    /// By thread: how often it went to sleep of its own will, and so woke up.
    wakeups: BTreeMap<String, u64>,
}

/// Of each thread that lives now.
fn wakeups(pid: impl std::fmt::Display) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        // One that has ended meanwhile has no say.
        let Ok(status) = fs::read_to_string(task.path().join("status")) else {
            continue;
        };
        let mut lines = status.lines();
        let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let count = count
            .context("no voluntary_ctxt_switches")?
            .trim()
            .parse()?;
        found.insert(task.file_name().to_string_lossy().into_owned(), count);
    }
    Ok(found)
}

fn cost(node: &Node) -> Result<Cost> {
    let pid = node.agent_pid()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = line
        .and_then(|rest| rest.split_whitespace().next())
        .context("no VmRSS")?;
    // Of what is resident, pages of the program itself are shared and can be dropped at any time.
    let shared = status
        .lines()
        .find_map(|line| line.strip_prefix("RssFile:"));
    let shared = shared
        .and_then(|rest| rest.split_whitespace().next())
        .context("no RssFile")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<_> = stat
        .rsplit_once(") ")
        .context("stat")?
        .1
        .split(' ')
        .collect();
    let (user, system): (u64, u64) = (fields[11].parse()?, fields[12].parse()?);
    let memory_kb = memory.parse::<u64>()?.saturating_sub(shared.parse()?);
    Ok(Cost {
        memory_kb,
        ticks: user + system,
        wakeups: wakeups(pid)?,
    })
}

/// The number of the store's last transaction, as a node sees it.
async fn revision(node: &Node) -> Result<u64> {
    let state = node.get("/api/v1/state").await?.json()?;
    state["store"]["revision"].as_u64().context("no revision")
}

fn size_kb(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() {
            size_kb(&entry.path())?
        } else {
            meta.len() / 1024
        };
    }
    Ok(sum)
}

#[test]
fn an_idle_cluster_costs_next_to_nothing() {
    let name = "an_idle_cluster_costs_next_to_nothing";
    story_alone(name, Topology::Three, Announced::FAILOVER, async |world| {
        world.whole().await?;
        let before = world
            .cluster
            .nodes
            .iter()
            .map(cost)
            .collect::<Result<Vec<_>>>()?;
        let first = revision(&world.cluster.nodes[0]).await?;
        tokio::time::sleep(WATCHED).await;
        let entries = revision(&world.cluster.nodes[0]).await? - first;
        world.say(&format!("{entries} transactions in {WATCHED:?}"));
        ensure!(
            entries <= ENTRIES_MAX_PER_SECOND * WATCHED.as_secs(),
            "{entries} transactions in {WATCHED:?}"
        );
        let debug = world.lab.binary().metadata()?.len() > 40 << 20;
        let cpu_max = if debug {
            CPU_MAX_PERMILLE_DEBUG
        } else {
            CPU_MAX_PERMILLE
        };
        for (node, before) in world.cluster.nodes.iter().zip(before) {
            let after = cost(node)?;
            // A tick is 10 ms, so a tick in 10 s is a thousandth.
            let permille = (after.ticks - before.ticks) * 10 / WATCHED.as_secs();
            let woke = after.wakeups.iter().map(|(thread, count)| {
                let before = before.wakeups.get(thread);
                before.map_or(0, |before| count - before)
            });
            let woke = woke.sum::<u64>() / WATCHED.as_secs();
            let store = size_kb(&node.host.directory().join("store"))?;
            let said = format!(
                "{}: {} kB of memory, {permille} ‰ of a core, {woke} wake-ups a second, {store} kB of store",
                node.name, after.memory_kb
            );
            world.say(&said);
            ensure!(after.memory_kb < MEMORY_MAX_KB, "{said}");
            ensure!(woke <= WAKEUPS_MAX, "{said}");
            ensure!(permille <= cpu_max, "{said}");
            ensure!(store < STORE_MAX_KB, "{said}");
        }
        Ok(())
    });
}
