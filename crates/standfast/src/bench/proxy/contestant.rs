//! The server, and what stands before it: each proxy as its users set it up, with one pool size for
//! all that pool.

use super::pgbench::Protocol;
use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, Service, file_of, free_ports, run_to_end};
use serde::Serialize;
use std::fmt;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a program may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Direct,
    PgBouncer,
    HaProxy,
    Standfast,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::PgBouncer => "PgBouncer",
            Self::HaProxy => "HAProxy",
            Self::Standfast => "Standfast",
        })
    }
}

/// How many clients come, and how many connections a pool may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) clients: u16,
    pub(super) pool: u16,
}

/// The server, with pgbench's tables in it.
#[derive(Debug)]
pub(super) struct Stand {
    pub(super) client: Arc<Host>,
    server: Arc<Host>,
    pub(super) port: u16,
    /// Whether PgBouncer knows prepared statements in transaction mode: from 1.21 on.
    pgbouncer: Option<PgBouncer>,
    haproxy: bool,
}

#[derive(Clone, Copy, Debug)]
struct PgBouncer {
    prepares: bool,
}

/// Something that takes connections.
#[derive(Debug)]
pub(super) struct Contestant {
    pub(super) kind: Kind,
    pub(super) port: u16,
    /// It keeps a server connection for each client, since it can't do with less.
    pub(super) by_session: bool,
    /// Where its processes are; none of its own when clients go direct.
    host: Option<Arc<Host>>,
    _service: Option<Service>,
}

impl Stand {
    pub(super) fn set_up(lab: &mut Lab, connections: u16, scale: u32) -> Result<Self> {
        let server = lab.add_host("server", 1)?;
        let client = lab.add_host("client", 2)?;
        let port = free_ports(1)?;
        let run = |program: &str, words: &[&str]| {
            run_to_end(server.command(lab.pg_bin().join(program)).args(words))
        };
        run(
            "initdb",
            &["-D", "data", "-U", "postgres", "-A", "trust", "-N"],
        )?;
        let sockets = server.directory().display().to_string();
        // The disk is not what is measured.
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={sockets} \
             -c fsync=off -c max_connections={} -c shared_buffers=512MB",
            connections * 3 + 40
        );
        run(
            "pg_ctl",
            &["-D", "data", "-w", "-l", "log", "-o", &options, "start"],
        )?;
        let (text, scale) = (port.to_string(), scale.to_string());
        let words = ["-h", "127.0.0.1", "-p", &text, "-U", "postgres"];
        run(
            "pgbench",
            &[&words[..], &["-i", "-q", "-s", &scale, "postgres"]].concat(),
        )?;
        Ok(Self {
            client,
            server,
            port,
            pgbouncer: pgbouncer_here(),
            haproxy: is_here("haproxy", "-v"),
        })
    }

    pub(super) fn kinds(&self) -> Vec<Kind> {
        let mut kinds = vec![Kind::Direct];
        kinds.extend(self.pgbouncer.map(|_| Kind::PgBouncer));
        kinds.extend(self.haproxy.then_some(Kind::HaProxy));
        kinds.push(Kind::Standfast);
        kinds
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        // The lab would do it too, when it goes; by then nobody may write to its directory.
        let _ = self.server.kill_everything();
    }
}

impl Contestant {
    pub(super) fn start(
        lab: &mut Lab,
        stand: &Stand,
        kind: Kind,
        protocol: Protocol,
        sizes: Sizes,
    ) -> Result<Self> {
        let prepares = stand.pgbouncer.is_some_and(|it| it.prepares);
        let by_session = match kind {
            Kind::Direct | Kind::HaProxy => true,
            Kind::PgBouncer => protocol == Protocol::Prepared && !prepares,
            Kind::Standfast => false,
        };
        if kind == Kind::Direct {
            return Ok(Self {
                kind,
                port: stand.port,
                by_session,
                host: None,
                _service: None,
            });
        }
        let port = free_ports(1)?;
        let name = format!("{kind}-{port}").to_lowercase();
        let host = lab.add_host(&name, 3)?;
        // One client of pgbench's that waits to prepare keeps all others from going on, those in
        // transactions included: there must be a server for each.
        let pool = match protocol {
            Protocol::Prepared => sizes.clients.max(sizes.pool),
            _ if by_session => sizes.clients,
            _ => sizes.pool,
        };
        let server = stand.port;
        let service = match kind {
            Kind::PgBouncer => {
                let users = file_of(&host, "users.txt", "\"postgres\" \"\"\n")?;
                let text = pgbouncer_ini(port, server, pool, by_session, prepares, &users);
                let file = file_of(&host, "pgbouncer.ini", &text)?;
                Service::start(&host, "pgbouncer", &["-q", &file.display().to_string()])?
            }
            Kind::HaProxy => {
                let file = file_of(&host, "haproxy.cfg", &haproxy_cfg(port, server))?;
                let file = file.display().to_string();
                Service::start(&host, "haproxy", &["-q", "-db", "-f", &file])?
            }
            Kind::Direct | Kind::Standfast => {
                let users = file_of(&host, "users.txt", "\"postgres\" \"\"\n")?;
                let text = format!(
                    "proxy: {{listen: \"127.0.0.1:{port}\", servers: [\"127.0.0.1:{server}\"], \
                     pool_mode: transaction, auth_type: trust, default_pool_size: {pool}, \
                     users_file: {}}}\n",
                    users.display()
                );
                let file = file_of(&host, "proxy.yml", &text)?;
                let file = file.display().to_string();
                Service::start(&host, "standfast", &["proxy", "--config", &file])?
            }
        };
        let mut contestant = Self {
            kind,
            port,
            by_session,
            host: Some(host),
            _service: Some(service),
        };
        contestant.wait()?;
        Ok(contestant)
    }

    /// Until it listens.
    fn wait(&mut self) -> Result<()> {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if let Some(service) = &mut self._service {
                service.check()?;
            }
            ensure!(begun.elapsed() < PATIENCE, "{} does not listen", self.kind);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The time on a processor that its processes have had so far, user and system; `None` when
    /// clients go direct.
    pub(super) fn cpu(&self) -> Result<Option<Duration>> {
        let Some(host) = &self.host else {
            return Ok(None);
        };
        let mut nanoseconds = 0;
        for process in host.processes() {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", process.pid));
            for task in tasks.context("read the threads of a proxy")? {
                let path = task?.path().join("schedstat");
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let on_cpu = text.split_whitespace().next();
                nanoseconds += on_cpu.and_then(|text| text.parse().ok()).unwrap_or(0);
            }
        }
        ensure!(nanoseconds > 0, "no CPU time is told of {}", self.kind);
        Ok(Some(Duration::from_nanos(nanoseconds)))
    }
}

fn pgbouncer_ini(
    port: u16,
    server: u16,
    pool: u16,
    by_session: bool,
    prepares: bool,
    users: &std::path::Path,
) -> String {
    let mode = if by_session { "session" } else { "transaction" };
    let prepared = if prepares {
        "max_prepared_statements = 200\n"
    } else {
        ""
    };
    format!(
        "[databases]\n\
         * = host=127.0.0.1 port={server}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = trust\n\
         auth_file = {}\n\
         pool_mode = {mode}\n\
         default_pool_size = {pool}\n\
         max_client_conn = 2000\n\
         ignore_startup_parameters = extra_float_digits\n\
         {prepared}",
        users.display()
    )
}

fn haproxy_cfg(port: u16, server: u16) -> String {
    format!(
        "global\n\
         \x20   maxconn 2000\n\
         defaults\n\
         \x20   mode tcp\n\
         \x20   timeout connect 5s\n\
         \x20   timeout client 5m\n\
         \x20   timeout server 5m\n\
         listen bench\n\
         \x20   bind 127.0.0.1:{port}\n\
         \x20   server one 127.0.0.1:{server}\n"
    )
}

fn is_here(program: &str, flag: &str) -> bool {
    version_of(program, flag).is_some()
}

fn version_of(program: &str, flag: &str) -> Option<String> {
    let path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
    let mut command = std::process::Command::new("/usr/bin/env");
    run_to_end(command.args([&format!("PATH={path}"), program, flag])).ok()
}

fn pgbouncer_here() -> Option<PgBouncer> {
    let text = version_of("pgbouncer", "--version")?;
    let version = text.split_whitespace().nth(1)?;
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next()?, numbers.next()?);
    Some(PgBouncer {
        prepares: version >= (1, 21),
    })
}
