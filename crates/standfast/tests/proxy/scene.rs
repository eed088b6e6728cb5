//! One server, and proxies in front of it that are processes of their own.

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Host, Lab, Place, eventually, free_ports};
use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};

const MANAGER: &str = "manager";
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A server, and files for a proxy in front of it. All goes when it is dropped.
pub(crate) struct Home {
    host: Arc<Host>,
    lab: Lab,
    server: u16,
    port: u16,
    count: AtomicU32,
}

/// A proxy's process.
pub(crate) struct Proxy {
    process: Child,
    log: PathBuf,
}

/// How a connection ended.
pub(crate) type Ends = JoinHandle<Result<(), Error>>;

pub(crate) fn play(plot: impl AsyncFnOnce(&Home) -> Result<()>) -> Result<()> {
    let home = Home::new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(plot(&home))
}

impl Home {
    fn new() -> Result<Self> {
        let mut lab = Lab::new(Place::Loopback, Path::new(env!("CARGO_BIN_EXE_standfast")))?;
        let host = lab.add_host("server", 1)?;
        let server = free_ports(2)?;
        let home = Self {
            host,
            lab,
            server,
            port: server + 1,
            count: AtomicU32::new(0),
        };
        home.run(
            "initdb",
            &["-D", "data", "-U", "postgres", "-A", "trust", "-N"],
        )?;
        home.start_server()?;
        Ok(home)
    }

    pub(crate) fn start_server(&self) -> Result<()> {
        let directory = self.host.directory().display().to_string();
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories={directory} \
             -c fsync=off",
            self.server
        );
        self.run(
            "pg_ctl",
            &[
                "-D",
                "data",
                "-w",
                "-l",
                "server.log",
                "-o",
                &options,
                "start",
            ],
        )?;
        Ok(())
    }

    /// The server's rules of access.
    pub(crate) fn rules(&self, text: &str) -> Result<()> {
        fs::write(self.path("data/pg_hba.conf"), text)?;
        self.run("pg_ctl", &["-D", "data", "reload"]).map(drop)
    }

    pub(crate) fn stop_server(&self) -> Result<()> {
        self.run("pg_ctl", &["-D", "data", "-w", "-m", "immediate", "stop"])?;
        Ok(())
    }

    /// A proxy's file with two servers, of which one is never there.
    pub(crate) fn write_servers(&self, password: &str) -> Result<()> {
        let users = self.path("users.txt");
        fs::write(&users, format!("\"postgres\" \"{password}\"\n"))?;
        let text = format!(
            "proxy: {{listen: \"127.0.0.1:{}\", servers: [\"127.0.0.1:{}\", \"127.0.0.1:1\"], check_user: postgres, \
             users_file: {users}}}\n",
            self.port, self.server
        );
        Ok(fs::write(self.file(), text)?)
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let program = self.lab.pg_bin().join(program);
        let text = lab::run_to_end(self.host.command(program).args(words))?;
        Ok(text.trim().to_owned())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.host.directory().join(name).display().to_string()
    }

    pub(crate) fn file(&self) -> String {
        self.path("proxy.yml")
    }

    /// Past the proxy.
    pub(crate) fn psql(&self, sql: &str) -> Result<String> {
        let port = self.server.to_string();
        let words = ["-XAtq", "-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
        self.run("psql", &[&words[..], &["-c", sql]].concat())
    }

    /// The proxy's file, and that of its users.
    pub(crate) fn write(&self, more: &str, password: &str) -> Result<()> {
        let users = self.path("users.txt");
        fs::write(&users, format!("\"postgres\" \"{password}\"\n"))?;
        let tls = match Path::new(&self.path("proxy.crt")).exists() {
            true => format!(
                ", client_tls_sslmode: allow, client_tls_cert_file: {}, client_tls_key_file: {}",
                self.path("proxy.crt"),
                self.path("proxy.key")
            ),
            false => String::new(),
        };
        let text = format!(
            "proxy: {{listen: \"127.0.0.1:{}\", servers: [\"127.0.0.1:{}\"], users_file: {users}, \
             {more}{tls}}}\n",
            self.port, self.server
        );
        Ok(fs::write(self.file(), text)?)
    }

    /// The proxy's certificate becomes this one, at the next reload.
    pub(crate) fn certify(&self, name: &str) -> Result<()> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["localhost".to_owned()])?.self_signed(&key)?;
        fs::write(self.path(name), certificate.pem())?;
        fs::write(self.path("proxy.crt"), certificate.pem())?;
        let path = self.path("proxy.key");
        fs::write(&path, key.serialize_pem())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        self.host.identity().own(Path::new(&path))
    }

    /// Whether the proxy shows this certificate.
    pub(crate) fn sees(&self, name: &str) -> Result<bool> {
        let conninfo = format!(
            "host=127.0.0.1 port={} user=postgres password={} sslmode=verify-ca sslrootcert={} \
             connect_timeout=30",
            self.port,
            self.password()?,
            self.path(name)
        );
        let mut psql = self.host.command(self.lab.pg_bin().join("psql"));
        let output = psql
            .args(["-XAtq", "-d", &conninfo, "-c", "select 7"])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(true),
            false if said.contains("certificate verify failed") => Ok(false),
            false => bail!("{said}"),
        }
    }

    fn password(&self) -> Result<String> {
        let users = fs::read_to_string(self.path("users.txt"))?;
        let password = users.split('"').nth(3).context("a password")?;
        Ok(password.to_owned())
    }

    /// Where a service manager would listen, if the test is one.
    pub(crate) fn manager(&self) -> Result<tokio::net::UnixDatagram> {
        let path = self.path(MANAGER);
        let socket = tokio::net::UnixDatagram::bind(&path)?;
        // The proxy's user may be another.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        Ok(socket)
    }

    pub(crate) fn start(&self) -> Result<Proxy> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let log = PathBuf::from(self.path(&format!("proxy-{number}.log")));
        let out = File::create(&log)?;
        let process = self
            .host
            .command(self.lab.binary())
            .args(["proxy", "--config", &self.file()])
            .env("NOTIFY_SOCKET", self.path(MANAGER))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        Ok(Proxy { process, log })
    }

    pub(crate) fn config(&self, password: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port);
        config
            .user("postgres")
            .password(password)
            .dbname("postgres");
        config.connect_timeout(SOON);
        config
    }

    /// Let in; the proxy may still be starting. And how it ends.
    pub(crate) async fn client(&self, password: &str) -> Result<(Client, Ends)> {
        let config = self.config(password);
        eventually("the proxy lets us in", SOON, async || {
            match config.connect(NoTls).await {
                Ok((client, connection)) => Ok(Ok((client, tokio::spawn(connection)))),
                Err(error) if error.code().is_some() => Ok(Err(error)),
                Err(error) => Err(error.into()),
            }
        })
        .await?
        .map_err(Into::into)
    }
}

impl Proxy {
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.process.id())?).context("a process")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Until its log has these words.
    pub(crate) async fn says(&self, words: &str) -> Result<()> {
        eventually(words, SOON, async || {
            let log = fs::read_to_string(&self.log)?;
            ensure!(log.contains(words), "{log}");
            Ok(())
        })
        .await
    }

    /// In how many lines of its log these words are.
    pub(crate) fn count(&self, words: &str) -> Result<usize> {
        let log = fs::read_to_string(&self.log)?;
        Ok(log.lines().filter(|line| line.contains(words)).count())
    }

    pub(crate) async fn ended(&mut self) -> Result<ExitStatus> {
        eventually("the proxy has ended", SOON, async || {
            self.process.try_wait()?.context("it runs")
        })
        .await
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The SQLSTATE with which a connection was ended.
pub(crate) async fn ended_with(ends: Ends) -> Result<String> {
    let ended = tokio::time::timeout(SOON, ends).await??;
    let error = ended.err().context("it was told nothing")?;
    let code = error.code().with_context(|| error.to_string())?;
    Ok(code.code().to_owned())
}

/// The first column of the first row.
pub(crate) async fn one(client: &Client, sql: &str) -> Result<String> {
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            return Ok(row.get(0).unwrap_or_default().to_owned());
        }
    }
    bail!("no row")
}
