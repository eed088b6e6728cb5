//! A host with two proxies on it, one for each way of pooling.

use anyhow::{Context as _, Result, bail, ensure};
use e2e::World;
use lab::{Host, Service, file_of};
use rcgen::{CertificateParams, KeyPair};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Session,
    Transaction,
}

impl Mode {
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Session => 6432,
            Self::Transaction => 6433,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
        }
    }
}

pub(crate) struct Front {
    host: Arc<Host>,
    password: String,
    services: std::cell::RefCell<Vec<Service>>,
}

impl Front {
    pub(crate) fn start(world: &mut World<'_>) -> Result<Self> {
        Self::start_with(world, "")
    }

    /// With more keys: `, KEY: VALUE` each.
    pub(crate) fn start_with(world: &mut World<'_>, more: &str) -> Result<Self> {
        let host = world.lab.add_host("front", 41)?;
        let known = world.cluster.nodes[0].sql_config()?;
        let password = known.get_password().context("a password")?;
        let password = String::from_utf8(password.to_vec())?;
        let users = format!("\"postgres\" \"{password}\"\n\"app\" \"planted-app\"\n");
        let users = file_of(&host, "users.txt", &users)?;
        let members = [
            "n1: \"10.77.0.11:8009\"",
            "n2: \"10.77.0.12:8009\"",
            "n3: \"10.77.0.13:8009\"",
        ];
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([host.address().to_owned()])?.self_signed(&key)?;
        let certificate = file_of(&host, "front.crt", &certificate.pem())?;
        let key = file_of(&host, "front.key", &key.serialize_pem())?;
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
        host.identity().own(&key)?;
        let binary = world.lab.binary().display().to_string();
        let mut services = Vec::new();
        for mode in [Mode::Session, Mode::Transaction] {
            let text = format!(
                "scope: lab\nstore: {{raft: {{members: {{{}}}, secret_file: {}}}}}\nproxy: {{listen: \
                 \"{}:{}\", pool_mode: {}, users_file: {}, default_pool_size: 40, client_tls_sslmode: \
                 allow, client_tls_cert_file: {}, client_tls_key_file: {}{more}}}\n",
                members.join(", "),
                world.lab.path().join("secret").display(),
                host.address(),
                mode.port(),
                mode.word(),
                users.display(),
                certificate.display(),
                key.display(),
            );
            let file = file_of(&host, &format!("{}.yml", mode.word()), &text)?;
            let file = file.to_str().context("a plain path")?;
            services.push(Service::start(
                &host,
                &binary,
                &["proxy", "--config", file],
            )?);
        }
        Ok(Self {
            host,
            password,
            services: services.into(),
        })
    }

    pub(crate) fn address(&self) -> &str {
        self.host.address()
    }

    pub(crate) fn config(&self, mode: Mode, user: &str) -> Config {
        let mut config = Config::new();
        config.host(self.host.address()).port(mode.port());
        config.user(user).dbname("postgres");
        config.password(match user {
            "postgres" => self.password.as_str(),
            _ => "planted-app",
        });
        config
    }

    /// Connected; the proxy may still be starting.
    pub(crate) async fn client(&self, mode: Mode, user: &str) -> Result<Client> {
        lab::eventually(
            "the proxy lets us in",
            Duration::from_secs(30),
            async || {
                self.check()?;
                let (client, connection) = self.config(mode, user).connect(NoTls).await?;
                tokio::spawn(connection);
                Ok(client)
            },
        )
        .await
    }

    /// How psql finds the way in, as `postgres`.
    pub(crate) fn conninfo(&self, mode: Mode) -> String {
        format!(
            "host={} port={} user=postgres dbname=postgres password={} connect_timeout=30",
            self.host.address(),
            mode.port(),
            self.password
        )
    }

    pub(crate) fn psql(&self, world: &World<'_>, mode: Mode, sql: &str) -> Result<String> {
        let uri = self.conninfo(mode);
        let program = world.lab.pg_bin().join("psql");
        lab::run_to_end(self.host.command(program).args(["-XAtc", sql, &uri]))
            .map(|text| text.trim().to_owned())
    }

    /// What the proxies have said of failovers.
    pub(crate) fn failovers(&self) -> Vec<String> {
        // Both write into one file.
        let log = self.services.borrow().first().map(Service::log);
        let log = log.unwrap_or_default();
        let told = |line: &&str| line.contains("the primary has changed");
        log.lines().filter(told).map(str::to_owned).collect()
    }

    /// Both still run, and nothing has panicked.
    pub(crate) fn check(&self) -> Result<()> {
        for service in self.services.borrow_mut().iter_mut() {
            service.check()?;
            let log = service.log();
            ensure!(!log.contains("panicked"), "{log}");
        }
        Ok(())
    }
}

/// The first column of the first row.
pub(crate) async fn value(client: &Client, sql: &str) -> Result<String> {
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            return Ok(row.get(0).unwrap_or("NULL").to_owned());
        }
    }
    bail!("no row")
}
