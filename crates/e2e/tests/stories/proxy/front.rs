//! The proxies before the nodes of a world.

use anyhow::{Context as _, Result};
use e2e::{PoolMode, Proxies, World};
use lab::file_of;
use rcgen::{CertificateParams, KeyPair};
use std::os::unix::fs::PermissionsExt as _;
use tokio_postgres::{Client, Config};

pub(crate) struct Front {
    proxies: Proxies,
    password: String,
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
        let store = format!(
            "scope: lab\nstore: {{raft: {{members: {{{}}}, secret_file: {}}}}}\n",
            members.join(", "),
            world.lab.path().join("secret").display(),
        );
        let keys = format!(
            "users_file: {}, default_pool_size: 40, client_tls_sslmode: allow, client_tls_cert_file: {}, \
             client_tls_key_file: {}{more}",
            users.display(),
            certificate.display(),
            key.display(),
        );
        Ok(Self {
            proxies: Proxies::start(world.lab, host, &store, &keys)?,
            password,
        })
    }

    pub(crate) fn address(&self) -> &str {
        self.proxies.host.address()
    }

    pub(crate) fn config(&self, mode: PoolMode, user: &str) -> Config {
        let password = match user {
            "postgres" => self.password.as_str(),
            _ => "planted-app",
        };
        self.proxies.config(mode, user, password)
    }

    /// Connected; the proxy may still be starting.
    pub(crate) async fn client(&self, mode: PoolMode, user: &str) -> Result<Client> {
        self.proxies.client(&self.config(mode, user)).await
    }

    /// How psql finds the way in, as `postgres`.
    pub(crate) fn conninfo(&self, mode: PoolMode) -> String {
        format!(
            "host={} port={} user=postgres dbname=postgres password={} connect_timeout=30",
            self.address(),
            mode.port(),
            self.password
        )
    }

    pub(crate) fn psql(&self, world: &World<'_>, mode: PoolMode, sql: &str) -> Result<String> {
        let uri = self.conninfo(mode);
        let mut command = self.proxies.host.command(world.lab.pg_bin().join("psql"));
        lab::run_to_end(command.args(["-XAtc", sql, &uri])).map(|text| text.trim().to_owned())
    }

    /// What the proxies have said of failovers.
    pub(crate) fn failovers(&self) -> Vec<String> {
        let log = self.proxies.log();
        let told = |line: &&str| line.contains("the primary has changed");
        log.lines().filter(told).map(str::to_owned).collect()
    }

    /// Both still run, and nothing has panicked.
    pub(crate) fn check(&self) -> Result<()> {
        self.proxies.check()
    }
}
