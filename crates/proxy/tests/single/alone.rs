//! A proxy in a process of its own, so that what it takes can be measured.

use anyhow::{Context as _, Result, ensure};
use proxy::{AuthMethod, Limits, Options, PoolMode, Proxy, Source, Users};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SERVER: &str = "STANDFAST_TEST_PROXY_OF";
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
        let mut process = Command::new(std::env::current_exe()?)
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
        let options = Options {
            listen: vec!["127.0.0.1:0".parse()?],
            pool_mode: PoolMode::Transaction,
            auth: AuthMethod::Trust,
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
