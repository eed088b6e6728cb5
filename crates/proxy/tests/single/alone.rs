//! A proxy in a process of its own, so that what it takes can be measured.

use anyhow::{Context as _, Result, ensure};
use proxy::{
    AuthMethod, ClientTls, Limits, Options, PoolMode, Proxy, Source, SslMode, TlsFiles, Users,
};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SERVER: &str = "STANDFAST_TEST_PROXY_OF";
/// Where its certificate and its key are, without their endings.
const CERTIFICATE: &str = "STANDFAST_TEST_PROXY_CERTIFICATE";
const SAYS: &str = "the proxy listens on ";

/// Ended when it is dropped.
pub(crate) struct Alone {
    pub(crate) address: SocketAddr,
    process: Child,
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Alone {
    /// In transaction mode, in front of the server at a port of this machine.
    pub(crate) fn start(port: u16) -> Result<Self> {
        Self::start_with(port, None)
    }

    /// The same for clients that want TLS; the certificate and its key lie at this path, with their endings.
    pub(crate) fn start_with(port: u16, certificate: Option<&Path>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        if let Some(certificate) = certificate {
            command.env(CERTIFICATE, certificate);
        }
        let mut process = command
            .args([
                "--exact",
                "alone::a_process_that_is_only_a_proxy",
                "--nocapture",
            ])
            .env(SERVER, format!("127.0.0.1:{port}"))
            .stdout(Stdio::piped())
            .spawn()?;
        let said = BufReader::new(process.stdout.take().context("its words")?);
        for line in said.lines() {
            // The test runner says something before.
            if let Some((_, address)) = line?.split_once(SAYS) {
                let address = address.trim().parse()?;
                return Ok(Self { address, process });
            }
        }
        anyhow::bail!("it ended");
    }

    /// Stops it, or has it go on.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status()?;
        ensure!(sent.success(), "kill -s {name} {pid}");
        Ok(())
    }

    /// Of what it has in memory, in kilobytes: `VmRSS`, or `VmHWM` for the most it ever had.
    pub(crate) fn memory(&self, what: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find(|line| line.starts_with(what));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(number.context("a figure")?.parse()?)
    }
}

/// The other half: what [`Alone::start`] runs. In any other run there is nothing to do.
#[test]
fn a_process_that_is_only_a_proxy() -> Result<()> {
    let Ok(server) = std::env::var(SERVER) else {
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let users = Users::parse("\"app\" \"pencil\"\n\"other\" \"pencil\"\n")?;
        let client_tls = match std::env::var_os(CERTIFICATE).map(PathBuf::from) {
            None => ClientTls::default(),
            Some(path) => ClientTls::load(&TlsFiles {
                mode: SslMode::Require,
                certificate: Some(path.with_extension("crt")),
                key: Some(path.with_extension("key")),
                ..TlsFiles::default()
            })?,
        };
        let options = Options {
            listen: vec!["127.0.0.1:0".parse()?],
            pool_mode: PoolMode::Transaction,
            auth: AuthMethod::Trust,
            client_tls,
            limits: Limits {
                clients_max: 12_000,
                login_time: Duration::from_secs(60),
                ..Limits::default()
            },
            ..Options::new(Source::Server(server), users)
        };
        let proxy = Proxy::start(options).await?;
        let mut out = std::io::stdout();
        writeln!(out, "{SAYS}{}", proxy.addresses()[0])?;
        out.flush()?;
        proxy.run().await;
        ensure!(false, "it ended by itself");
        Ok(())
    })
}
