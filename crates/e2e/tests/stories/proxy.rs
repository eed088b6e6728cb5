//! The proxy in front of a cluster: what its clients see of failovers, and that what they were told
//! is true.

mod books;
mod clients;
mod front;

use anyhow::{Context as _, Result, ensure};
use books::Books;
use e2e::{Announced, PoolMode, Topology, World, settle_deadline, story, value};
use front::Front;
use lab::Fault;
use rustix::process::Signal;
use std::io::Write as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// What a session has made of itself.
const STATE: &str = "select concat_ws(' ', current_setting('app.user_id'), \
    current_setting('search_path'), current_user, current_setting('work_mem'))";

#[test]
fn sessions_outlive_the_primary() {
    let name = "sessions_outlive_the_primary";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let quick = ", tcp_keepidle: 2, tcp_keepintvl: 1, tcp_keepcnt: 3, tcp_user_timeout: 5000";
        let front = Front::start_with(world, quick)?;
        let primary = world.cluster.primary().await?;
        let sql = world.cluster.node(&primary)?.sql().await?;
        sql.batch_execute(
            "create role app login password 'planted-app'; create role reader; \
            grant reader to app; create table seen (owner text, what text); \
            grant all on seen to app, reader; alter table seen enable row level security; \
            create policy own on seen using (owner = current_setting('app.user_id')); \
            insert into seen values ('7', 'mine'), ('8', 'yours')",
        )
        .await?;
        // psql, as a person uses it.
        let shown = front.psql(world, PoolMode::Session, "select 40 + 2")?;
        ensure!(shown == "42", "{shown}");
        a_lost_machine_keeps_nothing(world, &front).await?;
        for fault in [Fault::Postmaster, Fault::Switchover] {
            let mut sessions = Vec::new();
            for mode in PoolMode::ALL {
                let client = front.client(mode, "app").await?;
                let prepared = client.prepare("select what || $1::text from seen").await?;
                client
                    .batch_execute("set role reader; set search_path = public, pg_catalog")
                    .await?;
                client
                    .batch_execute("begin; set work_mem = '9MB'; rollback; prepare q as select 5")
                    .await?;
                client
                    .query_one("select set_config('app.user_id', $1, false)", &[&"7"])
                    .await?;
                sessions.push((mode, client, prepared));
            }
            let pauses = fail_over(world, fault, async {
                let mut pauses = Vec::new();
                for (mode, client, prepared) in &sessions {
                    let begun = Instant::now();
                    let state = value(client, STATE)
                        .await
                        .with_context(|| format!("{mode:?}"))?;
                    pauses.push(begun.elapsed());
                    ensure!(
                        state == "7 public, pg_catalog reader 4MB",
                        "{mode:?}: {state}"
                    );
                    let rows = client.query(prepared, &[&"!"]).await?;
                    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                    ensure!(rows == ["mine!"], "{mode:?}: {rows:?}");
                    ensure!(value(client, "execute q").await? == "5");
                }
                Ok(pauses)
            })
            .await?;
            world.say(&format!("{fault}: the first answers took {pauses:?}"));
            world.whole().await?;
        }
        let told = front.failovers();
        // Two proxies, two failovers, and nobody was cut off by either.
        ensure!(told.len() == 4, "{told:?}");
        let carried = |line: &String| line.contains("moved=") && line.contains("closed=\"none\"");
        ensure!(told.iter().all(carried), "{told:?}");
        front.check()
    });
}

/// Clients whose machine is gone say no goodbye: what they hold on the server is given back all the same.
async fn a_lost_machine_keeps_nothing(world: &mut World<'_>, front: &Front) -> Result<()> {
    const HELD: &str = "select count(*) from pg_locks where locktype = 'advisory' \
        or mode = 'ShareRowExclusiveLock'";
    let host = world.lab.add_host("gone", 43)?;
    let psql = world.lab.pg_bin().join("psql");
    let mut clients = Vec::new();
    for (mode, sql) in [
        (PoolMode::Session, "select pg_advisory_lock(7);\n"),
        (
            PoolMode::Transaction,
            "begin; lock table seen in share row exclusive mode;\n",
        ),
    ] {
        let mut command = host.command(&psql);
        command.args(["-XAtq", "-d", &front.conninfo(mode)]);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut client = Ended(command.spawn()?);
        let words = client.0.stdin.as_mut().context("its ear")?;
        words.write_all(sql.as_bytes())?;
        clients.push(client);
    }
    let held = async |wanted: &str| {
        let what = format!("{wanted} locks");
        lab::eventually(&what, settle_deadline(), async || {
            let primary = world.cluster.primary().await?;
            let count: i64 = world.cluster.node(&primary)?.ask(HELD).await?;
            ensure!(count.to_string() == wanted, "{count}");
            Ok(())
        })
        .await
    };
    held("2").await?;
    world.lab.network()?.set_link("gone", false)?;
    held("0").await
}

/// Killed when it is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a statement runs, and whether it may write there.
const WHERE: &str =
    "select concat_ws(' ', host(inet_server_addr()), current_setting('transaction_read_only'))";

#[test]
fn every_nodes_port_leads_to_the_primary() {
    let name = "every_nodes_port_leads_to_the_primary";
    let topology = Topology::ThreeWithProxies;
    story(name, topology, Announced::FAILOVER, async |world| {
        let at = |world: &World<'_>, port: u16| -> Result<Vec<_>> {
            let nodes = world.cluster.nodes.iter();
            let configs = nodes.map(|node| own_port(node, port));
            configs.collect()
        };
        let primary = world.cluster.primary().await?;
        let address = world.cluster.node(&primary)?.host.address().to_owned();
        let mut sessions = Vec::new();
        for config in at(world, 6432)? {
            let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            client
                .batch_execute("set application_name = 'idle'")
                .await?;
            ensure!(value(&client, WHERE).await? == format!("{address} off"));
            sessions.push(client);
        }
        for config in at(world, 6433)? {
            let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            let place = value(&client, WHERE).await?;
            ensure!(
                place.ends_with(" on") && !place.starts_with(&address),
                "{place}"
            );
        }
        let fired = Fault::Postmaster
            .strike(world.lab, &mut world.cluster, &primary)
            .await?;
        let new = world
            .cluster
            .another_primary(&primary, settle_deadline())
            .await?;
        fired.heal(world.lab, &mut world.cluster)?;
        let address = world.cluster.node(&new)?.host.address().to_owned();
        // Every proxy has written down that it has seen the new leadership.
        lab::eventually("the proxies are told of", settle_deadline(), async || {
            let state = world.cluster.nodes[1].get("/api/v1/state").await?.json()?;
            let proxies = state["proxies"].as_array().context("proxies")?;
            let mut known: Vec<_> = proxies
                .iter()
                .filter(|proxy| proxy["epoch"] == state["epoch"])
                .filter_map(|proxy| proxy["address"].as_str())
                .collect();
            known.sort_unstable();
            let all = ["10.77.0.11:6432", "10.77.0.12:6432", "10.77.0.13:6432"];
            ensure!(known == all, "{state}");
            Ok(())
        })
        .await?;
        // Also by the node that has lost its primary.
        for client in &sessions {
            ensure!(value(client, WHERE).await? == format!("{address} off"));
            ensure!(value(client, "show application_name").await? == "idle");
        }
        world.whole().await.map(drop)
    });
}

/// So few that clients use up their share of them soon.
const DESCRIPTORS: u64 = 900;
/// Five of eight, of the half that is not the node's.
const CLIENTS: usize = 280;

#[test]
fn a_flood_of_clients_costs_the_node_nothing() {
    let name = "a_flood_of_clients_costs_the_node_nothing";
    let topology = Topology::ThreeWithProxies;
    let announced = Announced(&["a connection is turned away", "the proxy is full"]);
    story(name, topology, announced, async |world| {
        let primary = world.cluster.primary().await?;
        let node = world.cluster.node(&primary)?;
        let agent = format!("--pid={}", node.agent_pid()?);
        let few = format!("--nofile={DESCRIPTORS}");
        lab::run_to_end(node.host.command("prlimit").args([agent, few]))?;
        node.signal_agent(Signal::HUP)?;
        lab::eventually("the proxy has its share", settle_deadline(), async || {
            ensure!(node.log().contains("file descriptors for fewer clients"));
            Ok(())
        })
        .await?;
        let config = own_port(node, 6432)?;
        let mut clients = Vec::new();
        let refused = loop {
            match config.connect(tokio_postgres::NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    clients.push(client);
                }
                Err(error) => break error,
            }
            ensure!(clients.len() <= CLIENTS, "nobody is turned away");
        };
        let why = refused.as_db_error().context("an answer")?.message();
        ensure!(why == "sorry, too many clients already", "{why}");
        ensure!(clients.len() == CLIENTS, "{} clients", clients.len());
        // Those who are many and say nothing, and a node that asks and is asked as before, for longer than a
        // leadership lasts that nobody renews.
        let flood = tokio::spawn(never_ending(node.host.address().to_owned()));
        let before = node.get("/api/v1/state").await?.json()?["epoch"].clone();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(6) {
            let answer = node.get("/primary").await?;
            ensure!(answer.status == 200, "{answer:?}");
        }
        let after = node.get("/api/v1/state").await?.json()?["epoch"].clone();
        ensure!(before == after, "{before} {after}");
        Fault::Switchover
            .strike(world.lab, &mut world.cluster, &primary)
            .await?
            .heal(world.lab, &mut world.cluster)?;
        let new = world
            .cluster
            .another_primary(&primary, settle_deadline())
            .await?;
        let address = world.cluster.node(&new)?.host.address().to_owned();
        for client in &clients {
            ensure!(value(client, WHERE).await? == format!("{address} off"));
        }
        flood.abort();
        world.whole().await.map(drop)
    });
}

/// One connection after the other, of which some hundred stay.
async fn never_ending(address: String) {
    let mut kept = std::collections::VecDeque::new();
    loop {
        if let Ok(stream) = tokio::net::TcpStream::connect((address.as_str(), 6432)).await {
            kept.push_back(stream);
        }
        if kept.len() > 300 {
            kept.pop_front();
        }
    }
}

/// Its proxy's; a second port of the node's own would be another host's.
fn own_port(node: &lab::Node, port: u16) -> Result<tokio_postgres::Config> {
    let config = node.sql_config()?;
    let mut here = tokio_postgres::Config::new();
    here.host(node.host.address()).port(port).user("postgres");
    here.dbname("postgres").connect_timeout(settle_deadline());
    here.password(config.get_password().unwrap_or_default());
    Ok(here)
}

/// Strikes, and has the clients ask as soon as nothing of the old primary is left that they are
/// connected to: what reaches a backend that still dies was under way, and is no idle session's.
async fn fail_over<T>(
    world: &mut World<'_>,
    fault: Fault,
    ask: impl Future<Output = Result<T>>,
) -> Result<T> {
    let old = world.cluster.primary().await?;
    let fired = fault.strike(world.lab, &mut world.cluster, &old).await?;
    let host = &world.cluster.node(&old)?.host;
    lab::until(
        "the old primary's backends are gone",
        settle_deadline(),
        || {
            let of_front = |process: &lab::Process| process.command.contains("10.77.0.41");
            !host.processes().iter().any(of_front)
        },
    )
    .await?;
    let answer = tokio::time::timeout(settle_deadline(), ask).await;
    fired.heal(world.lab, &mut world.cluster)?;
    let answer = answer.context("no answer in time")??;
    world
        .cluster
        .another_primary(&old, settle_deadline())
        .await?;
    Ok(answer)
}

/// How often the primary changes: three times, or as `cargo xtask soak proxy` says.
fn changes() -> Result<usize> {
    match std::env::var("STANDFAST_E2E_CHANGES") {
        Ok(count) => count.parse().context("STANDFAST_E2E_CHANGES"),
        Err(_) => Ok(3),
    }
}

#[test]
fn what_the_proxy_says_of_rows_is_true() {
    let name = "what_the_proxy_says_of_rows_is_true";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let front = Front::start(world)?;
        let idle = [
            front.client(PoolMode::Session, "postgres").await?,
            front.client(PoolMode::Transaction, "postgres").await?,
        ];
        for client in &idle {
            client.batch_execute("set app.user_id = 'idle'").await?;
        }
        let mut books = Books::open(&front, 32).await?;
        let mut pauses = Vec::new();
        let faults = [Fault::Postmaster, Fault::Switchover, Fault::Machine];
        for fault in faults.into_iter().cycle().take(changes()?) {
            books.more(200, settle_deadline()).await?;
            books.lap();
            let old = world.cluster.primary().await?;
            let fired = fault.strike(world.lab, &mut world.cluster, &old).await?;
            world
                .cluster
                .another_primary(&old, settle_deadline())
                .await?;
            books.more(200, settle_deadline()).await?;
            let pause = books.lap();
            world.say(&format!(
                "{fault}: the longest wait was {} ms",
                pause.as_millis()
            ));
            pauses.push((fault, pause));
            fired.heal(world.lab, &mut world.cluster)?;
            world.whole().await?;
        }
        let mut verdict = books.close(&world.cluster).await?;
        verdict.pauses.0 = pauses;
        world.say(&verdict.to_string());
        verdict.check()?;
        let longest = verdict.pauses.longest();
        ensure!(longest < Duration::from_secs(20), "{longest:?}");
        for client in &idle {
            let kept = value(client, "select current_setting('app.user_id')").await?;
            ensure!(kept == "idle", "{kept}");
        }
        front.check()
    });
}
