//! `examples/python` on a cluster that loses its primary and is switched over: every driver by
//! every way at once, each a process that counts what was acknowledged to it.

use anyhow::{Context, Result, ensure};
use e2e::{Announced, Terminal, Topology, World, settle_deadline, story};
use lab::{Fault, Host, Passwords, Service, eventually, file_of, run_to_end};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

const DRIVERS: [&str; 4] = ["psycopg2", "psycopg", "asyncpg", "sqlalchemy"];

/// What no service may have been without a primary, on a machine that is busy with other tests.
const GAP_MAX: Duration = Duration::from_secs(20);

/// A shop of the examples, at work.
struct Shop {
    host: Arc<Host>,
    log: String,
    process: Child,
}

/// What a node has of each service: rows, different numbers among them, and the last number.
type Rows = BTreeMap<String, (i64, i64, i64)>;

impl Shop {
    fn open(host: &Arc<Host>, python: &Path, driver: &str, way: &str, at: &str) -> Result<Self> {
        let log = format!("{driver}-{way}.log");
        let line = format!(
            "env PGUSER=postgres PGDATABASE=postgres PGPASSWORD={} {} with_{driver}.py {way} {at}",
            Passwords::default().superuser,
            python.display(),
        );
        let host = Arc::clone(host);
        let terminal = Terminal { host };
        let process = terminal.leaves_running(&line, &log)?;
        let host = terminal.host;
        Ok(Self { host, log, process })
    }

    fn said(&self) -> String {
        fs::read_to_string(self.host.directory().join(&self.log)).unwrap_or_default()
    }

    fn is_open(&mut self) -> Result<()> {
        let ended = self.process.try_wait()?;
        ensure!(ended.is_none(), "{}: {ended:?}: {}", self.log, self.said());
        Ok(())
    }

    /// Its last line.
    async fn close(mut self) -> Result<Value> {
        let pid = i32::try_from(self.process.id())?;
        self.host.signal(pid, Signal::TERM)?;
        let ended = eventually(&self.log.clone(), settle_deadline(), async || {
            self.process.try_wait()?.context("it still takes orders")
        })
        .await?;
        let said = self.said();
        ensure!(ended.success(), "{}: {ended}: {said}", self.log);
        let last = said.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| said.clone())
    }
}

/// All of them, on a host of their own.
fn open_all(world: &mut World<'_>, balancer: &Host) -> Result<Vec<Shop>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let bin = root.join("target/python/bin");
    ensure!(
        bin.join("python").is_file(),
        "no Python with the drivers here: run `scripts/python.sh`"
    );
    let python = world.lab.programs(bin.canonicalize()?)?.join("python");
    let host = world.lab.add_host("app", 42)?;
    for entry in fs::read_dir(root.join("examples/python"))?.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_file() {
            file_of(&host, &name, &fs::read_to_string(&path)?)?;
        }
    }
    let (mut hosts, mut nodes) = (String::new(), String::new());
    for node in world.cluster.data_nodes() {
        hosts += &format!(
            " {}:{}",
            node.host.address(),
            node.pg_port.context("a port")?
        );
        nodes += &format!(" {}", node.api);
    }
    let balancer = format!("{}:5000", balancer.address());
    let ways = [("hosts", hosts), ("haproxy", balancer), ("rest", nodes)];
    let mut shops = Vec::new();
    for driver in DRIVERS {
        for (way, at) in &ways {
            shops.push(Shop::open(&host, &python, driver, way, at)?);
        }
    }
    Ok(shops)
}

async fn rows(world: &World<'_>, node: &str) -> Result<Rows> {
    let session = world.cluster.node(node)?.sql().await?;
    let question =
        "SELECT service, count(*), count(DISTINCT n), max(n) FROM orders GROUP BY service";
    let rows = session.query(question, &[]).await?;
    let row = |row: &tokio_postgres::Row| (row.get(0), (row.get(1), row.get(2), row.get(3)));
    Ok(rows.iter().map(row).collect())
}

/// Every shop takes some more orders, which a node of ours has.
async fn all_sell(world: &World<'_>, shops: &mut [Shop]) -> Result<()> {
    let primary = world.cluster.primary().await?;
    let before = rows(world, &primary).await?;
    eventually("every shop sells", settle_deadline(), async || {
        shops.iter_mut().try_for_each(Shop::is_open)?;
        let now = rows(world, &primary).await?;
        let count = |rows: &Rows, name: &str| rows.get(name).map_or(0, |it| it.0);
        let sold = |name: &&String| count(&now, name) >= count(&before, name) + 5;
        let selling = now.keys().filter(sold).count();
        ensure!(selling == shops.len(), "{selling} do: {now:?}");
        Ok(())
    })
    .await
}

/// Every node has what was acknowledged, and only that.
async fn nothing_is_missing_or_twice(world: &World<'_>, reports: &[Value]) -> Result<()> {
    let mut acknowledged = Rows::new();
    for report in reports {
        let service = report["service"].as_str().context("a name")?.to_owned();
        let count = report["acknowledged"].as_i64().context("a number")?;
        acknowledged.insert(service, (count, count, count - 1));
    }
    for node in world.cluster.data_nodes() {
        eventually(&node.name, Duration::from_secs(10), async || {
            let found = rows(world, &node.name).await?;
            ensure!(found == acknowledged, "{found:?} is not {acknowledged:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[test]
fn every_python_driver_rides_over_a_failover_and_a_switchover() {
    let name = "every_python_driver_rides_over_a_failover_and_a_switchover";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let balancer = world.lab.add_host("lb", 41)?;
        let node = &world.cluster.nodes[0];
        let text = run_to_end(&mut node.standfast(&["show", "haproxy", "--monitor", &node.api]))?;
        let file = file_of(&balancer, "haproxy.cfg", &text)?;
        let file = file.to_str().context("a plain path")?;
        let mut haproxy = Service::start(&balancer, "haproxy", &["-db", "-f", file])?;
        let primary = world.cluster.primary().await?;
        let session = world.cluster.node(&primary)?.sql().await?;
        let schema = include_str!("../../../../examples/python/schema.sql");
        session.batch_execute(schema).await?;

        let mut shops = open_all(world, &balancer)?;
        all_sell(world, &mut shops).await?;
        for fault in [Fault::Postmaster, Fault::Switchover] {
            let old = world.whole().await?;
            let fired = fault.strike(world.lab, &mut world.cluster, &old).await?;
            let deadline = settle_deadline();
            world.cluster.another_primary(&old, deadline).await?;
            all_sell(world, &mut shops).await?;
            fired.heal(world.lab, &mut world.cluster)?;
        }
        world.whole().await?;
        haproxy.check()?;

        let mut reports = Vec::new();
        for shop in shops {
            let report = shop.close().await?;
            world.say(&report.to_string());
            reports.push(report);
        }
        nothing_is_missing_or_twice(world, &reports).await?;
        for report in &reports {
            let gap = report["longest_gap"].as_f64();
            ensure!(
                gap.is_some_and(|gap| gap < GAP_MAX.as_secs_f64()),
                "{report}"
            );
            let outages = report["outages"].as_array();
            ensure!(
                outages.is_some_and(|outages| !outages.is_empty()),
                "a dead primary went unnoticed: {report}"
            );
        }
        Ok(())
    });
}
