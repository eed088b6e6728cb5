//! A server whose machine is gone says no goodbye: what the proxy's clients see of that where no agent tells of it.

use anyhow::{Context as _, Result, ensure};
use e2e::{PoolMode, Proxies, in_a_lab, settle_deadline, value};
use lab::{Host, Lab, Place, eventually, file_of, run_to_end};
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

const PASSWORD: &str = "planted-app";

/// A PostgreSQL on a host of its own, and nothing beside it.
struct Server {
    host: Arc<Host>,
}

impl Server {
    fn primary(lab: &mut Lab) -> Result<Self> {
        let host = lab.add_host("a", 11)?;
        let server = Self { host };
        server.run(
            "initdb",
            &["-D", "data", "-U", "postgres", "-A", "trust", "-N"],
        )?;
        let rules = "local all all trust\nhost all,replication all 10.77.0.0/24 trust\n";
        let data = server.host.directory().join("data");
        std::fs::write(data.join("pg_hba.conf"), rules)?;
        server.up()?;
        Ok(server)
    }

    fn standby_of(lab: &mut Lab, primary: &Self) -> Result<Self> {
        let host = lab.add_host("b", 12)?;
        let server = Self { host };
        let source = format!("host={} user=postgres", primary.host.address());
        let words = ["-D", "data", "-d", &source, "-R", "-c", "fast", "--no-sync"];
        server.run("pg_basebackup", &words)?;
        server.up()?;
        Ok(server)
    }

    fn up(&self) -> Result<()> {
        let directory = self.host.directory().display();
        let options = format!(
            "-c listen_addresses={} -c unix_socket_directories={directory} -c fsync=off",
            self.host.address()
        );
        self.run(
            "pg_ctl",
            &["-D", "data", "-w", "-l", "log", "-o", &options, "start"],
        )
        .map(drop)
    }

    /// Within its machine, which needs no cable.
    fn sql(&self, sql: &str) -> Result<String> {
        let directory = self.host.directory().display().to_string();
        let words = ["-h", &directory, "-U", "postgres", "-XAtq", "-c", sql];
        self.run("psql", &words)
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let mut command = self.host.command(self.host.pg_bin().join(program));
        run_to_end(command.args(words)).map(|text| text.trim().to_owned())
    }
}

/// On a host of their own, for what is outside of any cluster.
fn proxies(lab: &mut Lab, (name, number): (&str, u8), more: &str) -> Result<Proxies> {
    let host = lab.add_host(name, number)?;
    let users = format!("\"postgres\" \"{PASSWORD}\"\n");
    let users = file_of(&host, "users.txt", &users)?;
    let keys = format!("users_file: {}, {more}", users.display());
    Proxies::start(lab, host, "", &keys)
}

/// The severity and the code of what fails.
fn code<T>(result: Result<T, tokio_postgres::Error>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => match error.as_db_error() {
            Some(db) => format!("{} {}", db.severity(), db.code().code()),
            None => format!("{error:?}"),
        },
    }
}

/// What each of a few sessions is at when the machine goes.
struct Sessions {
    mode: &'static str,
    idle: Client,
    within: Client,
    running: JoinHandle<(Client, String)>,
    running_within: JoinHandle<(Client, String)>,
}

impl Sessions {
    async fn open(front: &Proxies, mode: PoolMode) -> Result<Self> {
        let config = front.config(mode, "postgres", PASSWORD);
        let idle = front.client(&config).await?;
        idle.batch_execute("set app.user_id = '7'; set work_mem = '9MB'")
            .await?;
        let within = front.client(&config).await?;
        within
            .batch_execute("begin; insert into t values (1)")
            .await?;
        let run = |client: Client, sql: &'static str| {
            tokio::spawn(async move {
                let told = code(client.batch_execute(sql).await);
                (client, told)
            })
        };
        let alone = "do $$ begin perform pg_sleep(600); end $$";
        let running = run(front.client(&config).await?, alone);
        let client = front.client(&config).await?;
        client
            .batch_execute("begin; insert into t values (2)")
            .await?;
        Ok(Self {
            mode: mode.word(),
            idle,
            within,
            running,
            running_within: run(client, "select pg_sleep(600)"),
        })
    }

    /// What they are told when their server is lost; all but the idle one and the one whose outcome nobody knows go on.
    async fn lose(self) -> Result<Client> {
        let mode = self.mode;
        let (_, told) = self.running.await?;
        ensure!(told == "FATAL 08007", "{mode}, running: {told}");
        let (client, told) = self.running_within.await?;
        ensure!(told == "ERROR 40001", "{mode}, running within: {told}");
        client.batch_execute("rollback").await?;
        let told = code(self.within.batch_execute("insert into t values (3)").await);
        ensure!(told == "ERROR 40001", "{mode}, within: {told}");
        self.within.batch_execute("rollback").await?;
        Ok(self.idle)
    }
}

const STATE: &str = "select concat_ws(' ', current_setting('app.user_id'), \
    current_setting('work_mem'), (select count(*) from t))";

#[test]
fn a_machine_that_is_gone_without_a_word_holds_nobody_for_ever() {
    let name = "a_machine_that_is_gone_without_a_word_holds_nobody_for_ever";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let a = Server::primary(lab)?;
        a.sql("create table t (n int)")?;
        let b = Server::standby_of(lab, &a)?;
        let sleeping = async |server: &Server| {
            eventually("all are at work", settle_deadline(), async || {
                let count = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
                let now = server.sql(count)?;
                ensure!(now == "4", "{now}");
                Ok(())
            })
            .await
        };
        // Two servers, and the kernel's timers as they are by default: nothing here waits for them.
        let both = "servers: [\"10.77.0.11:5432\", \"10.77.0.12:5432\"], check_user: postgres, \
            on_lossy_failover: continue";
        let front = proxies(lab, ("front", 41), both)?;
        let mut sessions = Vec::new();
        for mode in PoolMode::ALL {
            sessions.push(Sessions::open(&front, mode).await?);
        }
        sleeping(&a).await?;
        lab.network()?.set_link("a", false)?;
        b.run("pg_ctl", &["-D", "data", "-w", "promote"])?;
        for one in sessions {
            let mode = one.mode;
            let lost = tokio::time::timeout(settle_deadline(), one.lose()).await;
            let idle = lost.with_context(|| format!("{mode}: nothing was said"))??;
            let state = value(&idle, STATE).await?;
            ensure!(state == "7 9MB 0", "{mode}: {state}");
        }
        front.check()?;
        // One server, nobody who would take over, and times that a test can wait for. The kernel's own for what is not
        // acknowledged stays as it is by default.
        let one = "servers: [\"10.77.0.12:5432\"], hold_time: 3, tcp_keepidle: 2, tcp_keepintvl: 1, \
            tcp_keepcnt: 3";
        let alone = proxies(lab, ("alone", 42), one)?;
        let mut sessions = Vec::new();
        for mode in PoolMode::ALL {
            sessions.push(Sessions::open(&alone, mode).await?);
        }
        sleeping(&b).await?;
        lab.network()?.set_link("b", false)?;
        let mut idle = Vec::new();
        for one in sessions {
            let mode = one.mode;
            let lost = tokio::time::timeout(settle_deadline(), one.lose()).await;
            let client = lost.with_context(|| format!("{mode}: nothing was said"))??;
            // There is nobody to ask: it waits for as long as it may, and hears why it was in vain.
            let told = code(client.batch_execute("select 1").await);
            ensure!(told == "ERROR 57P03", "{mode}: {told}");
            idle.push((mode, client));
        }
        lab.network()?.set_link("b", true)?;
        for (mode, client) in idle {
            let back = async || {
                let state = value(&client, STATE).await?;
                ensure!(state == "7 9MB 0", "{mode}: {state}");
                Ok(())
            };
            eventually("it is served again", settle_deadline(), back).await?;
        }
        alone.check()
    });
}
