//! Clients that people use, each a program of its own: plain use through the proxy, in both modes,
//! and a life through a failover and a switchover. One cluster serves them all at once; each has a
//! test of its own, which looks at what became of it.

use super::books::Books;
use super::front::Front;
use anyhow::{Context as _, Result, bail, ensure};
use e2e::PoolMode;
use e2e::{Announced, Topology, World, settle_deadline, story};
use lab::{Fault, Host, eventually, file_of};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// What became of each, by name.
type Outcomes = BTreeMap<String, Result<(), String>>;

/// Who was told what of a row: client, mode, number.
type Row = (String, String, i64);

const PYTHON: [&str; 4] = ["psycopg2", "psycopg", "asyncpg", "sqlalchemy"];
const PROTOCOLS: [&str; 3] = ["simple", "extended", "prepared"];

static PLAYED: LazyLock<Outcomes> = LazyLock::new(|| {
    let outcomes = Arc::new(Mutex::new(Outcomes::new()));
    let noted = Arc::clone(&outcomes);
    let name = "clients_through_failovers";
    let played = std::panic::catch_unwind(|| {
        story(
            name,
            Topology::Three,
            Announced::FAILOVER,
            async move |world| {
                let played = play(world).await?;
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = played;
                Ok(())
            },
        );
    });
    let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
    if played.is_err() {
        outcomes.insert("all".to_owned(), Err("the story failed".to_owned()));
    }
    outcomes.clone()
});

fn judge(client: &str) {
    let all = PLAYED.get("all").cloned().unwrap_or(Ok(()));
    let own = PLAYED.get(client).cloned();
    let own = own.unwrap_or_else(|| Err("it was not played".to_owned()));
    if let Err(why) = all.and(own) {
        panic!("{client}: {why}");
    }
}

macro_rules! clients {
    ($($test:ident: $client:literal,)*) => {
        $(#[test]
        fn $test() {
            judge($client);
        })*
    };
}

clients! {
    psql_through_a_failover: "psql",
    pgbench_with_simple_queries: "pgbench simple",
    pgbench_with_the_extended_protocol: "pgbench extended",
    pgbench_with_prepared_statements: "pgbench prepared",
    psycopg_2_through_a_failover: "psycopg2",
    psycopg_3_through_a_failover: "psycopg",
    asyncpg_through_a_failover: "asyncpg",
    sqlalchemy_through_a_failover: "sqlalchemy",
    node_postgres_through_a_failover: "node",
    sqlx_through_a_failover: "sqlx",
    tokio_postgres_through_a_failover: "tokio-postgres",
}

/// One program, at work.
struct Program {
    client: String,
    host: Arc<Host>,
    log: String,
    process: Child,
    failed: Option<String>,
}

impl Program {
    fn start(host: &Arc<Host>, client: &str, part: &str, words: &[&str]) -> Result<Self> {
        let log = format!("{client} {part}.log").replace(' ', "-");
        let out = File::create(host.directory().join(&log))?;
        let process = host
            .command("env")
            .args(words)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| client.to_owned())?;
        Ok(Self {
            client: client.to_owned(),
            host: Arc::clone(host),
            log,
            process,
            failed: None,
        })
    }

    fn said(&self) -> String {
        fs::read_to_string(self.host.directory().join(&self.log)).unwrap_or_default()
    }

    /// How what it said ends.
    fn last_words(&self) -> String {
        let said = self.said();
        let from = said.len().saturating_sub(1_500);
        said.get(from..).unwrap_or(&said).to_owned()
    }

    /// Until it has said what it was asked to say, or has ended.
    async fn says(&mut self, what: &str) -> Result<()> {
        let log = self.log.clone();
        let said = eventually(&log, settle_deadline(), async || {
            if self.said().contains(what) {
                return Ok(true);
            }
            self.process.try_wait()?.context("it is at work")?;
            Ok(self.said().contains(what))
        });
        if !said.await? {
            bail!("it ended: {}", self.last_words());
        }
        Ok(())
    }

    async fn ends(&mut self) -> Result<String> {
        let log = self.log.clone();
        let ended = eventually(&log, settle_deadline(), async || {
            self.process.try_wait()?.context("it is at work")
        });
        let ended = ended.await.with_context(|| self.last_words())?;
        ensure!(ended.success(), "{ended}: {}", self.last_words());
        Ok(self.said())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn play(world: &mut World<'_>) -> Result<Outcomes> {
    let front = Front::start(world)?;
    let primary = world.cluster.primary().await?;
    let sql = world.cluster.node(&primary)?.sql().await?;
    sql.batch_execute(
        "create role app login password 'planted-app'; grant create on schema public to app; \
         create table seats (client text, mode text, n bigint); grant all on seats to app",
    )
    .await?;
    for mode in PoolMode::ALL {
        front.client(mode, "app").await?;
    }
    let mut outcomes = Outcomes::new();
    let mut programs = start_all(world, &front)?;
    for program in &mut programs {
        if let Err(error) = program.says("{\"plain\":").await {
            program.failed = Some(format!("plain use: {error:#}"));
        }
    }
    world.say("plain use is over");
    let host = Arc::clone(&programs[0].host);
    let at = format!("{} -p {}", front.address(), PoolMode::Transaction.port());
    let made = pgbench(&host, &format!("-i -q -h {at}"), "begins")?
        .ends()
        .await;
    made.context("pgbench -i")?;
    let mut benches = Vec::new();
    for protocol in PROTOCOLS {
        let words = format!("-n -M {protocol} -c 3 -T 20 --max-tries=0 -h {at}");
        benches.push((protocol, pgbench(&host, &words, protocol)?));
    }
    let mut books = Books::open(&front, 2).await?;
    let mut pauses = Vec::new();
    for fault in [Fault::Postmaster, Fault::Switchover] {
        books.more(100, settle_deadline()).await?;
        let old = world.whole().await?;
        books.lap();
        let fired = fault.strike(world.lab, &mut world.cluster, &old).await?;
        world
            .cluster
            .another_primary(&old, settle_deadline())
            .await?;
        books.more(100, settle_deadline()).await?;
        pauses.push((fault, books.lap()));
        fired.heal(world.lab, &mut world.cluster)?;
    }
    file_of(&host, "over", "")?;
    let mut verdict = books.close(&world.cluster).await?;
    verdict.pauses.0 = pauses;
    world.say(&format!("tokio-postgres: {verdict}"));
    let told = verdict.check().map_err(|error| format!("{error:#}"));
    outcomes.insert("tokio-postgres".to_owned(), told);
    for program in programs {
        let client = program.client.clone();
        let judged = match life(world, program).await {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("{error:#}")),
        };
        let entry = outcomes.entry(client).or_insert(Ok(()));
        *entry = entry.clone().and(judged);
    }
    for (protocol, mut bench) in benches {
        let judged = bench_is_right(world, &mut bench).await;
        let judged = judged.map_err(|error| format!("{error:#}"));
        outcomes.insert(format!("pgbench {protocol}"), judged);
    }
    let sums = accounts_are_right(world).await;
    if let Err(error) = sums {
        outcomes.insert("all".to_owned(), Err(format!("{error:#}")));
    }
    front.check()?;
    Ok(outcomes)
}

fn start_all(world: &mut World<'_>, front: &Front) -> Result<Vec<Program>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let host = world.lab.add_host("app", 42)?;
    for entry in fs::read_dir(root.join("clients"))?.flatten() {
        if entry.path().is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            file_of(&host, &name, &fs::read_to_string(entry.path())?)?;
        }
    }
    let fetched = |directory: &str, script: &str| {
        let path = root.join("../../target").join(directory);
        ensure!(
            path.is_dir(),
            "nothing fetched here: run `scripts/{script}`"
        );
        world.lab.programs(path.canonicalize()?)
    };
    let python = fetched("python/bin", "python.sh")?.join("python");
    let modules = fetched("node/node_modules", "node.sh")?;
    let at = format!("PGHOST={}", front.address());
    let password = "PGPASSWORD=planted-app";
    let modules = format!("NODE_PATH={}", modules.display());
    let python = python.display().to_string();
    let mut programs = Vec::new();
    for driver in PYTHON {
        let file = format!("with_{driver}.py");
        let words = [&at, password, &python, &file];
        programs.push(Program::start(&host, driver, "", &words)?);
    }
    let words = [&at, password, &modules, "node", "with_node.js"];
    programs.push(Program::start(&host, "node", "", &words)?);
    let sqlx = env!("CARGO_BIN_EXE_with_sqlx");
    fs::copy(sqlx, host.directory().join("with_sqlx"))?;
    let words = [&at, password, "./with_sqlx"];
    programs.push(Program::start(&host, "sqlx", "", &words)?);
    for mode in PoolMode::ALL {
        let port = mode.port().to_string();
        let words = [&at, password, "sh", "with_psql.sh", mode.word(), &port];
        programs.push(Program::start(&host, "psql", mode.word(), &words)?);
    }
    Ok(programs)
}

fn pgbench(host: &Arc<Host>, words: &str, part: &str) -> Result<Program> {
    let line = format!("PGPASSWORD=planted-app PGUSER=app PGDATABASE=postgres pgbench {words}");
    let words: Vec<&str> = line.split(' ').collect();
    Program::start(host, "pgbench", part, &words)
}

/// The rows that are there, and how often.
async fn seats(world: &World<'_>) -> Result<BTreeMap<Row, i64>> {
    let primary = world.cluster.primary().await?;
    let sql = world.cluster.node(&primary)?.sql().await?;
    let question = "select client, mode, n, count(*) from seats group by 1, 2, 3";
    let rows = sql.query(question, &[]).await?;
    let row = |row: &tokio_postgres::Row| {
        let key = (row.get(0), row.get(1), row.get(2));
        (key, row.get::<_, i64>(3))
    };
    Ok(rows.iter().map(row).collect())
}

/// That what a program was told of its rows is true.
async fn life(world: &World<'_>, mut program: Program) -> Result<()> {
    if let Some(why) = &program.failed {
        bail!("{why}");
    }
    let said = program.ends().await?;
    let mut told = BTreeMap::new();
    if program.client == "psql" {
        let mode = program.log.trim_end_matches(".log").rsplit('-').next();
        told.insert(mode.context("a mode")?.to_owned(), by_psql(&said));
    } else {
        let last = said.lines().last().unwrap_or_default();
        let books: BTreeMap<String, BTreeMap<String, Value>> =
            serde_json::from_str(last).with_context(|| program.last_words())?;
        for (mode, book) in books {
            let numbers = |what: &str| -> BTreeSet<i64> {
                let list = book.get(what).and_then(Value::as_array);
                list.into_iter()
                    .flatten()
                    .filter_map(Value::as_i64)
                    .collect()
            };
            let book = [
                numbers("acknowledged"),
                numbers("refused"),
                numbers("unknown"),
            ];
            told.insert(mode, book);
        }
    }
    let there = seats(world).await?;
    for (mode, [acknowledged, refused, unknown]) in told {
        let row = |n: &i64| (program.client.clone(), mode.clone(), *n);
        let lost = acknowledged.iter().filter(|n| !there.contains_key(&row(n)));
        let undead = refused.iter().filter(|n| there.contains_key(&row(n)));
        let (lost, undead) = (lost.count(), undead.count());
        let twice = acknowledged
            .iter()
            .filter(|n| there.get(&row(n)) > Some(&1));
        let twice = twice.count();
        world.say(&format!(
            "{} {mode}: {} rows acknowledged, {lost} lost, {twice} twice, {} refused, {undead} of \
             them there, {} unknown",
            program.client,
            acknowledged.len(),
            refused.len(),
            unknown.len()
        ));
        ensure!(lost == 0 && undead == 0 && twice == 0, "{mode}");
        ensure!(acknowledged.len() > 20, "{mode}: {}", acknowledged.len());
        // One for each of the two changes, at most.
        ensure!(unknown.len() <= 2, "{mode}: {unknown:?}");
    }
    Ok(())
}

/// `acknowledged 7` and `failed 8 40001`.
fn by_psql(said: &str) -> [BTreeSet<i64>; 3] {
    let mut book = [BTreeSet::new(), BTreeSet::new(), BTreeSet::new()];
    for line in said.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (which, number) = match words[..] {
            ["acknowledged", n] => (0, n),
            ["failed", n, "40001"] => (1, n),
            ["failed", n, _] => (2, n),
            _ => continue,
        };
        book[which].extend(number.parse::<i64>());
    }
    book
}

/// Nobody but a client whose last transaction is unknown has left it.
async fn bench_is_right(world: &World<'_>, bench: &mut Program) -> Result<()> {
    let log = bench.log.clone();
    eventually(&log, settle_deadline(), async || {
        bench.process.try_wait()?.context("it is at work")
    })
    .await?;
    let said = bench.said();
    let aborted = said
        .lines()
        .filter(|line| line.contains("aborted in"))
        .count();
    let unknown = said
        .lines()
        .filter(|line| line.contains("outcome of the last"))
        .count();
    world.say(&format!(
        "{}: {} transactions, {aborted} clients left with an unknown outcome",
        bench.log,
        processed(&said)
    ));
    ensure!(aborted == unknown, "{}", bench.last_words());
    ensure!(processed(&said) > 20, "{}", bench.last_words());
    Ok(())
}

fn processed(said: &str) -> u64 {
    let line = said
        .lines()
        .find(|line| line.contains("actually processed:"));
    let number = line.and_then(|line| line.rsplit(' ').next());
    number
        .and_then(|number| number.split('/').next()?.parse().ok())
        .unwrap_or(0)
}

/// pgbench's accounts, tellers and branches agree with its history.
async fn accounts_are_right(world: &World<'_>) -> Result<()> {
    let primary = world.whole().await?;
    let sql = world.cluster.node(&primary)?.sql().await?;
    let question = "select (select sum(abalance) from pgbench_accounts) = sum(delta) \
        and (select sum(tbalance) from pgbench_tellers) = sum(delta) \
        and (select sum(bbalance) from pgbench_branches) = sum(delta), count(*) \
        from pgbench_history";
    let row = sql.query_one(question, &[]).await?;
    ensure!(row.get::<_, bool>(0), "the sums differ");
    ensure!(row.get::<_, i64>(1) > 60);
    Ok(())
}
