//! A throw-away server with a proxy in front of it. Dropped, both go with all that is theirs.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, Place, free_ports};
use proxy::{Limits, Options, PoolMode, Proxy, Source, Users};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls};

pub(crate) const PASSWORD: &str = "pencil";

pub(crate) struct Server {
    host: Arc<Host>,
    lab: Lab,
    port: u16,
    /// What it was copied from.
    #[allow(dead_code, reason = "the original goes with its last copy")]
    original: Option<Arc<Self>>,
}

/// A proxy that runs until this is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// Where who only reads connects, if that is somewhere.
    pub(crate) reading: Option<SocketAddr>,
    pub(crate) handle: proxy::Handle,
    pub(crate) task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Started, with the roles `app` and `other` and a database of that name each.
    pub(crate) fn start() -> Result<Self> {
        let mut server = Self::without_data("server")?;
        let original = Self::original()?;
        // It takes a third of what initdb and the rest would.
        let data = original.host.directory().join("data");
        server.run("cp", &["-a", &data.display().to_string(), "data"])?;
        server.original = Some(original);
        server.up()?;
        Ok(server)
    }

    /// A server that does not run, and that all others are copied from while one of them is there.
    fn original() -> Result<Arc<Self>> {
        static MADE: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(original) = made.upgrade() {
            return Ok(original);
        }
        let original = Arc::new(Self::make()?);
        *made = Arc::downgrade(&original);
        Ok(original)
    }

    fn without_data(name: &str) -> Result<Self> {
        // No standfast runs in this lab.
        let mut lab = Lab::new(Place::Loopback, Path::new("/bin/true"))?;
        let host = lab.add_host(name, 1)?;
        Ok(Self {
            host,
            lab,
            port: free_ports(1)?,
            original: None,
        })
    }

    fn make() -> Result<Self> {
        let server = Self::without_data("original")?;
        server.run(
            "initdb",
            &["-D", "data", "-U", "postgres", "-A", "trust", "-N"],
        )?;
        let data = server.host.directory().join("data");
        let rules = "local all,replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), rules)?;
        server.up()?;
        for name in ["app", "other"] {
            server.psql(&format!("create role {name} login password '{PASSWORD}'"))?;
            server.psql(&format!("create database {name} owner {name}"))?;
        }
        server.down("fast")?;
        Ok(server)
    }

    /// A standby of another one that streams from it.
    pub(crate) fn copy_of(primary: &Self) -> Result<Self> {
        let copy = Self::without_data("copy")?;
        let directory = primary.host.directory().display().to_string();
        let source = format!(
            "host={directory} port={} user=postgres application_name=copy",
            primary.port
        );
        let words = ["-D", "data", "-d", &source, "-R", "-c", "fast", "--no-sync"];
        copy.run("pg_basebackup", &words)?;
        copy.up()?;
        Ok(copy)
    }

    pub(crate) fn up(&self) -> Result<()> {
        let directory = self.host.directory().display().to_string();
        let port = self.port;
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={directory} \
             -c fsync=off -c password_encryption=scram-sha-256 -c max_prepared_transactions=5 \
             -c max_connections=200"
        );
        let words = ["-D", "data", "-w", "-l", "log", "-o", &options, "start"];
        self.run("pg_ctl", &words).map(drop)
    }

    pub(crate) fn down(&self, how: &str) -> Result<()> {
        self.run("pg_ctl", &["-D", "data", "-w", "-m", how, "stop"])
            .map(drop)
    }

    /// The postmaster dies; what it has started is left to itself.
    pub(crate) fn kill_postmaster(&self) -> Result<()> {
        self.run("sh", &["-c", "kill -9 $(head -n 1 data/postmaster.pid)"])
            .map(drop)
    }

    pub(crate) fn promote(&self) -> Result<()> {
        self.run("pg_ctl", &["-D", "data", "-w", "promote"])
            .map(drop)
    }

    /// Runs SQL past the proxy, in the database `app`.
    pub(crate) fn psql(&self, sql: &str) -> Result<String> {
        let database = if sql.starts_with("create") {
            "postgres"
        } else {
            "app"
        };
        self.sql(database, sql)
    }

    /// Runs SQL past the proxy, as superuser.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let directory = self.host.directory().display().to_string();
        let port = self.port.to_string();
        let words = [
            "-h",
            &directory,
            "-p",
            &port,
            "-U",
            "postgres",
            "-d",
            database,
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
        ];
        self.run("psql", &words)
    }

    /// A proxy in front of it.
    pub(crate) async fn proxy(&self, mode: PoolMode, limits: Limits) -> Result<Running> {
        let with = |options: &mut Options| {
            options.pool_mode = mode;
            options.limits = limits;
        };
        self.proxy_with(with).await
    }

    /// A proxy that believes everybody who names a user it knows.
    pub(crate) async fn trusting(&self, mode: PoolMode, limits: Limits) -> Result<Running> {
        self.proxy_with(|options| {
            options.pool_mode = mode;
            options.limits = limits;
            options.auth = proxy::AuthMethod::Trust;
        })
        .await
    }

    /// One with other options.
    pub(crate) async fn proxy_with(&self, with: impl FnOnce(&mut Options)) -> Result<Running> {
        let mut options = self.options()?;
        with(&mut options);
        Running::of(options).await
    }

    /// Those of a proxy in front of it that knows both users.
    pub(crate) fn options(&self) -> Result<Options> {
        options(Source::Server(format!("127.0.0.1:{}", self.port)))
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        self.host.directory()
    }

    /// A file becomes the server's own.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        self.lab.identity().own(path)
    }

    /// psql with a connection string, outside of the runtime's own threads: what it prints, also
    /// where it fails.
    pub(crate) fn psql_by(&self, conninfo: &str, sql: &str) -> Result<String> {
        let words = ["-XAtq", "-d", conninfo, "-c", sql];
        let mut command = self.host.command(self.program("psql"));
        let output = tokio::task::block_in_place(|| command.args(words).output())?;
        let both = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&both).trim().to_owned())
    }

    /// Where a program of PostgreSQL's lies.
    pub(crate) fn program(&self, name: &str) -> String {
        self.lab.pg_bin().join(name).display().to_string()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Runs a program of PostgreSQL's, or of the system's, as its user.
    pub(crate) fn run(&self, name: &str, words: &[&str]) -> Result<String> {
        let program = match name {
            "sh" | "cp" => name.to_owned(),
            name => self.program(name),
        };
        let output = self.host.command(program).args(words).output()?;
        ensure!(
            output.status.success(),
            "{name}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Running {
    pub(crate) async fn start(source: Source, mode: PoolMode, limits: Limits) -> Result<Self> {
        let options = Options {
            pool_mode: mode,
            limits,
            ..options(source)?
        };
        Self::of(options).await
    }

    pub(crate) async fn of(options: Options) -> Result<Self> {
        let proxy = Proxy::start(options).await?;
        let (addresses, handle) = (proxy.addresses(), proxy.handle());
        let task = tokio::spawn(proxy.run());
        Ok(Self {
            address: addresses[0],
            reading: addresses.get(1).copied(),
            handle,
            task,
        })
    }

    pub(crate) fn config(&self, user: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.address.port());
        config.user(user).password(PASSWORD).dbname(user);
        config.connect_timeout(Duration::from_secs(20));
        config
    }

    /// At the port of those who only read.
    pub(crate) async fn reader(&self, user: &str) -> Result<Client> {
        let port = self.reading.context("no port to read at")?.port();
        let mut config = Config::new();
        config.host("127.0.0.1").port(port);
        config.user(user).password(PASSWORD).dbname(user);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    pub(crate) async fn client(&self, user: &str) -> Result<Client> {
        let (client, connection) = self.config(user).connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// Those of a proxy that knows both users.
fn options(source: Source) -> Result<Options> {
    let users = format!("\"app\" \"{PASSWORD}\"\n\"other\" \"{PASSWORD}\"\n");
    Ok(Options {
        listen: vec!["127.0.0.1:0".parse()?],
        ..Options::new(source, Users::parse(&users)?)
    })
}

/// The first column of the first row.
pub(crate) async fn one(client: &Client, sql: &str) -> Result<String> {
    for message in client.simple_query(sql).await? {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            return Ok(row.get(0).unwrap_or("NULL").to_owned());
        }
    }
    anyhow::bail!("no row")
}

/// The SQLSTATE of what fails.
pub(crate) fn code<T>(result: Result<T, tokio_postgres::Error>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => match error.as_db_error() {
            Some(db) => format!("{} {}", db.severity(), db.code().code()),
            None => format!("{error:?}"),
        },
    }
}

/// Runs a story in a runtime of its own.
pub(crate) fn story(plot: impl AsyncFnOnce(&Server) -> Result<()>) {
    let played = || {
        let server = Server::start().context("a server")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(plot(&server))
    };
    if let Err(error) = played() {
        panic!("{error:#}");
    }
}
