//! Our proxy in front of a cluster of Patroni's, which it knows by its REST interface alone.

use super::{Scene, scene};
use anyhow::{Context as _, Result, bail, ensure};
use e2e::{PatroniNode, in_a_lab, settle_deadline};
use lab::{Host, Lab, Passwords, Place, Service, eventually, file_of};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

const MODES: [(&str, u16); 2] = [("session", 6432), ("transaction", 6433)];
/// What a session has made of itself.
const STATE: &str = "select concat_ws(' ', current_setting('app.user_id'), \
    current_setting('work_mem'), pg_is_in_recovery())";

/// A host with a proxy for each way of pooling.
struct Front {
    host: Arc<Host>,
    services: Vec<Service>,
}

impl Front {
    fn start(lab: &mut Lab) -> Result<Self> {
        let host = lab.add_host("front", 41)?;
        let users = format!("\"postgres\" \"{}\"\n", Passwords::default().superuser);
        let users = file_of(&host, "users.txt", &users)?;
        let binary = lab.binary().display().to_string();
        let mut services = Vec::new();
        for (mode, port) in MODES {
            let text = format!(
                "proxy: {{listen: \"{}:{port}\", pool_mode: {mode}, users_file: {}, admin_users: \
                 [postgres], patroni: [\"http://10.77.0.11:8008\", \"http://10.77.0.12:8008\", \
                 \"http://10.77.0.13:8008\"]}}\n",
                host.address(),
                users.display(),
            );
            let file = file_of(&host, &format!("{mode}.yml"), &text)?;
            let file = file.to_str().context("a plain path")?;
            let arguments = ["proxy", "--config", file];
            services.push(Service::start(&host, &binary, &arguments)?);
        }
        Ok(Self { host, services })
    }

    fn config(&self, port: u16, database: &str) -> Config {
        let mut config = Config::new();
        config.host(self.host.address()).port(port).user("postgres");
        config.dbname(database);
        config.password(Passwords::default().superuser);
        config
    }

    async fn client(&self, port: u16, database: &str) -> Result<Client> {
        connect(self.config(port, database)).await
    }

    /// Two sessions with something to lose, one for each way of pooling.
    async fn sessions(&self) -> Result<Vec<Client>> {
        let mut sessions = Vec::new();
        for (_, port) in MODES {
            let client = self.client(port, "postgres").await?;
            client
                .batch_execute("set app.user_id = '7'; set work_mem = '9MB'")
                .await?;
            sessions.push(client);
        }
        Ok(sessions)
    }

    /// Both proxies write into one file.
    fn lines(&self, text: &str) -> usize {
        let log = self.services.first().map(Service::log).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).count()
    }
}

/// The proxy may still be starting.
async fn connect(config: Config) -> Result<Client> {
    let begun = Instant::now();
    loop {
        match config.connect(NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                return Ok(client);
            }
            Err(error) if begun.elapsed() > settle_deadline() => return Err(error.into()),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn value(client: &Client, sql: &str) -> Result<String> {
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            return Ok(row.get(0).unwrap_or_default().to_owned());
        }
    }
    bail!("no row")
}

/// Clients that write a row after the other, each in a transaction or by itself.
struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Result<Page>>>,
}

/// What a writer was told.
#[derive(Default)]
struct Page {
    acknowledged: BTreeSet<i64>,
    refused: BTreeSet<i64>,
    unknown: usize,
}

impl Load {
    fn begin(front: &Front) -> Self {
        let (stop, acknowledged) = (Arc::default(), Arc::<AtomicU64>::default());
        let writer = |number: i64| {
            let config = front.config(MODES[usize::from(number % 2 == 0)].1, "postgres");
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            tokio::spawn(write(config, number * 1_000_000, stop, acknowledged))
        };
        Self {
            writers: (1..=4).map(writer).collect(),
            stop,
            acknowledged,
        }
    }

    /// Waits for so many rows more.
    async fn more(&self, rows: u64) -> Result<()> {
        let before = self.acknowledged.load(Ordering::Relaxed);
        eventually("rows are written", settle_deadline(), async || {
            let now = self.acknowledged.load(Ordering::Relaxed);
            ensure!(now >= before + rows, "{} of {rows}", now - before);
            let ended = self.writers.iter().any(JoinHandle::is_finished);
            ensure!(!ended, "a writer was told what it should not be");
            Ok(())
        })
        .await
    }

    async fn end(self) -> Result<Page> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Page::default();
        for writer in self.writers {
            let page = writer.await??;
            all.acknowledged.extend(page.acknowledged);
            all.refused.extend(page.refused);
            all.unknown += page.unknown;
        }
        Ok(all)
    }
}

async fn write(
    config: Config,
    mut row: i64,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> Result<Page> {
    let mut page = Page::default();
    let mut client = connect(config.clone()).await?;
    while !stop.load(Ordering::Relaxed) {
        row += 1;
        let insert = format!("insert into rows values ({row})");
        let sql = match row % 2 {
            0 => format!("begin; {insert}; commit"),
            _ => insert,
        };
        match client.batch_execute(&sql).await {
            Ok(()) => {
                page.acknowledged.insert(row);
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => match error.code().map(|code| code.code()) {
                Some("40001") => {
                    page.refused.insert(row);
                    client.batch_execute("rollback").await?;
                }
                Some("08007") => {
                    page.unknown += 1;
                    client = connect(config.clone()).await?;
                }
                _ => return Err(error).context("what no writer should be told"),
            },
        }
    }
    Ok(page)
}

impl Scene<'_> {
    /// Leader, synchronous standby, and another, as the node that answers says.
    async fn roles(&self) -> Result<[usize; 3]> {
        eventually(
            "one leads and one is synchronous",
            settle_deadline(),
            async || {
                let text = self.ctl.types("list -f json")?;
                let members: Vec<Value> = serde_json::from_str(&text)?;
                let of = |role: &str| {
                    let found = members.iter().position(|member| {
                        member["Role"] == role
                            && matches!(member["State"].as_str(), Some("running" | "streaming"))
                    });
                    found.with_context(|| format!("no {role}: {text}"))
                };
                let number = |at: usize| {
                    let name = members[at]["Member"].as_str();
                    let found = self.nodes.iter().position(|node| Some(node.name()) == name);
                    found.context("a node")
                };
                Ok([
                    number(of("Leader")?)?,
                    number(of("Sync Standby")?)?,
                    number(of("Replica")?)?,
                ])
            },
        )
        .await
    }
}

fn kill_postmaster(node: &PatroniNode) -> Result<()> {
    let data = node.host.directory().join("data/postmaster.pid");
    let text = std::fs::read_to_string(data)?;
    let pid = text.lines().next().context("a pid")?.parse()?;
    node.host.signal(pid, Signal::KILL)
}

/// Every session still is what it was, on a primary.
async fn unnoticed(sessions: &[Client]) -> Result<()> {
    for session in sessions {
        let state = tokio::time::timeout(settle_deadline(), value(session, STATE)).await;
        let state = state.context("no answer in time")??;
        ensure!(state == "7 9MB f", "{state}");
    }
    Ok(())
}

#[test]
fn sessions_outlive_the_primary_of_patroni() {
    let name = "sessions_outlive_the_primary_of_patroni";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let front = Front::start(lab)?;
        let mut scene = scene(lab).await?;
        scene.nodes[0].start_patroni()?;
        scene.write(0, "CREATE TABLE rows (n bigint)").await?;
        scene.nodes[1].start_patroni()?;
        scene.nodes[2].start_patroni()?;
        scene.whole(0).await?;
        let sessions = front.sessions().await?;
        let load = Load::begin(&front);
        load.more(100).await?;
        // The proxy has looked when nobody was synchronous, and the primary dies as soon as one is.
        scene
            .ctl
            .types("edit-config --force -s synchronous_mode=true -s primary_start_timeout=0")?;
        let [leader, _, _] = scene.roles().await?;
        kill_postmaster(&scene.nodes[leader])?;
        unnoticed(&sessions).await?;
        load.more(100).await?;
        let [leader, standby, _] = scene.roles().await?;
        let (from, to) = (scene.nodes[leader].name(), scene.nodes[standby].name());
        let order = format!("switchover --leader {from} --candidate {to} --force");
        scene.ctl.types(&order)?;
        unnoticed(&sessions).await?;
        load.more(100).await?;
        let page = load.end().await?;
        let new = front.client(MODES[0].1, "postgres").await?;
        let rows = new.query("select n from rows", &[]).await?;
        let count = rows.len();
        let rows: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
        let lost = page.acknowledged.difference(&rows).count();
        let undead = page.refused.intersection(&rows).count();
        e2e::say(&format!(
            "{} acknowledged, {lost} lost, {} refused, {} unknown",
            page.acknowledged.len(),
            page.refused.len(),
            page.unknown
        ));
        ensure!(lost == 0 && undead == 0 && count == rows.len());
        ensure!(front.lines("the primary has changed") == 4);
        ensure!(front.lines("may lack commits") == 0);
        // A person has one that is not synchronous promoted: nobody can know what it has.
        let [_, _, other] = scene.roles().await?;
        let to = scene.nodes[other].name();
        scene
            .ctl
            .types(&format!("failover --candidate {to} --force"))?;
        for session in &sessions {
            let told = eventually("a session ends", settle_deadline(), async || match session
                .batch_execute("select 1")
                .await
            {
                Ok(()) => bail!("it goes on"),
                Err(error) => Ok(error),
            });
            let code = told.await?.code().map(|code| code.code().to_owned());
            ensure!(code.as_deref() == Some("57P01"), "{code:?}");
        }
        ensure!(front.lines("may lack commits") == 2);
        let console = front.client(MODES[0].1, "pgbouncer").await?;
        let shown = console.simple_query("show cluster").await?;
        let missing = shown.iter().filter(|message| {
            matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("not promised"))
        });
        ensure!(missing.count() == 3, "{shown:?}");
        Ok(())
    });
}
