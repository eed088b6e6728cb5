//! A throw-away server. Dropped, its processes and its directory go with it.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, Place};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

pub(crate) const PASSWORD: &str = "pencil";

pub(crate) struct Server {
    host: Arc<Host>,
    lab: Lab,
}

impl Server {
    /// Started, with the users `postgres` (trusted), `scram` and `clear`.
    pub(crate) fn start() -> Result<Self> {
        let mut lab = Lab::new(Place::Loopback, &std::env::current_exe()?)?;
        let host = lab.add_host("server", 1)?;
        let server = Self { host, lab };
        server.run(
            "initdb",
            &["-D", "data", "-U", "postgres", "-A", "trust", "-N"],
        )?;
        let data = server.host.directory().join("data");
        let rules = "local all clear password\n\
                     local all scram scram-sha-256\n\
                     local all all trust\n\
                     local replication all trust\n";
        std::fs::write(data.join("pg_hba.conf"), rules)?;
        let directory = server.host.directory().display().to_string();
        let options = format!(
            "-c listen_addresses= -c unix_socket_directories={directory} -c fsync=off \
             -c wal_level=replica -c password_encryption=scram-sha-256"
        );
        server.run(
            "pg_ctl",
            &["-D", "data", "-w", "-l", "log", "-o", &options, "start"],
        )?;
        let users = format!(
            "create user scram superuser password '{PASSWORD}'; \
             create user clear superuser password '{PASSWORD}'"
        );
        server.psql(&users)?;
        Ok(server)
    }

    /// Runs SQL past everything that is tested here.
    pub(crate) fn psql(&self, sql: &str) -> Result<String> {
        let directory = self.host.directory().display().to_string();
        let words = [
            "-h",
            &directory,
            "-U",
            "postgres",
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
        ];
        self.run("psql", &[&words[..], &[sql]].concat())
    }

    pub(crate) fn connect(&self) -> Result<UnixStream> {
        let path = self.host.directory().join(".s.PGSQL.5432");
        UnixStream::connect(&path).with_context(|| format!("connect to {}", path.display()))
    }

    /// A program of PostgreSQL, as a user that it accepts.
    pub(crate) fn program(&self, name: &str) -> Command {
        self.host.command(self.lab.pg_bin().join(name))
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.host.directory().to_owned()
    }

    fn run(&self, name: &str, words: &[&str]) -> Result<String> {
        let output = self.program(name).args(words).output()?;
        ensure!(
            output.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}
