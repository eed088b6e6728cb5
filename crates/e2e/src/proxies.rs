//! A host with two proxies on it, one for each way of pooling.

use crate::settle_deadline;
use anyhow::{Context as _, Result, bail, ensure};
use lab::{Host, Lab, Service, eventually, file_of};
use std::cell::RefCell;
use std::sync::Arc;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    Session,
    Transaction,
}

impl PoolMode {
    pub const ALL: [Self; 2] = [Self::Session, Self::Transaction];

    pub fn port(self) -> u16 {
        match self {
            Self::Session => 6432,
            Self::Transaction => 6433,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
        }
    }
}

/// Both proxies.
#[derive(Debug)]
pub struct Proxies {
    pub host: Arc<Host>,
    services: RefCell<Vec<Service>>,
}

impl Proxies {
    /// What their files say: lines before `proxy`, and keys of it besides where it listens and how it pools.
    pub fn start(lab: &Lab, host: Arc<Host>, before: &str, keys: &str) -> Result<Self> {
        let binary = lab.binary().display().to_string();
        let mut services = Vec::new();
        for mode in PoolMode::ALL {
            let text = format!(
                "{before}proxy: {{listen: \"{}:{}\", pool_mode: {}, {keys}}}\n",
                host.address(),
                mode.port(),
                mode.word(),
            );
            let file = file_of(&host, &format!("{}.yml", mode.word()), &text)?;
            let file = file.to_str().context("a plain path")?;
            let words = ["proxy", "--config", file];
            services.push(Service::start(&host, &binary, &words)?);
        }
        Ok(Self {
            host,
            services: services.into(),
        })
    }

    /// As `user`, by a password.
    pub fn config(&self, mode: PoolMode, user: &str, password: &str) -> Config {
        let mut config = Config::new();
        config.host(self.host.address()).port(mode.port());
        config.user(user).dbname("postgres").password(password);
        config
    }

    /// Connected; the proxy may still be starting.
    pub async fn client(&self, config: &Config) -> Result<Client> {
        eventually("the proxy lets us in", settle_deadline(), async || {
            self.check()?;
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(connection);
            Ok(client)
        })
        .await
    }

    /// Both write into one file.
    pub fn log(&self) -> String {
        let log = self.services.borrow().first().map(Service::log);
        log.unwrap_or_default()
    }

    /// Both still run, and nothing has panicked.
    pub fn check(&self) -> Result<()> {
        for service in self.services.borrow_mut().iter_mut() {
            service.check()?;
            let log = service.log();
            ensure!(!log.contains("panicked"), "{log}");
        }
        Ok(())
    }
}

/// The first column of the first row.
pub async fn value(client: &Client, sql: &str) -> Result<String> {
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            return Ok(row.get(0).unwrap_or("NULL").to_owned());
        }
    }
    bail!("no row")
}
