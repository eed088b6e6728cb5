//! `create postgres`.

use super::monitor::{check_port, first_settings, refuse_while_running};
use super::{
    Created, StoreFiles, certificates, check_writable, existing, identity, network,
    note_without_effect, path_value, refuse_root_directory, say_next, warn_of,
};
use crate::client::{Api, Named};
use crate::config::{Config, Endpoint, check_host, is_loopback, write_file};
use crate::exit::{ExitCode, Failure};
use crate::output::note;
use crate::paths::Homes;
use crate::secret::ClusterSecret;
use anyhow::Context as _;
use api::client::TrustOptions;
use api::v1::{Register, Registered, State};
use ha::NodeName;
use postgres::{DataDir, Instance, PostgresError};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a monitor that does not answer is asked again.
const MONITOR_PATIENCE: Duration = Duration::from_secs(5);

/// What `create postgres` was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PostgresRequest {
    pub(crate) pgdata: PathBuf,
    pub(crate) port: u16,
    pub(crate) host: Option<String>,
    pub(crate) listen: Option<String>,
    pub(crate) name: Option<NodeName>,
    pub(crate) pgctl: Option<PathBuf>,
    pub(crate) monitor: Vec<Endpoint>,
    /// How that is spoken to, if that was said.
    pub(crate) https: Option<bool>,
    /// What was said of its certificate.
    pub(crate) trust: TrustOptions,
    /// The cluster that must answer there, when one was named.
    pub(crate) scope: Option<String>,
    pub(crate) superuser: String,
    pub(crate) database: String,
    pub(crate) access: Access,
    pub(crate) priority: u32,
    pub(crate) quorum: bool,
    pub(crate) backup_rate: Option<String>,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) certificates: Option<StoreFiles>,
    /// HTTPS with the same files.
    pub(crate) rest_tls: bool,
    pub(crate) run: bool,
    pub(crate) without_effect: Vec<String>,
}

impl PostgresRequest {
    /// Whom to ask. The authority of a certificate of ours has signed the others' as well.
    fn named(&self) -> Named {
        let secured = self.rest_tls || self.https == Some(true);
        let silent = self.trust == TrustOptions::default();
        let files = self.certificates.as_ref().filter(|_| secured && silent);
        Named {
            monitor: self.monitor.clone(),
            https: self.https,
            trust: files.map_or_else(|| self.trust.clone(), StoreFiles::trust),
            ..Named::default()
        }
    }
}

/// Whom the instance lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// A method of `pg_hba.conf`; `None`: by the host name's kind.
    pub(crate) method: Option<&'static str>,
    /// Leave `pg_hba.conf` to its owner.
    pub(crate) skip: bool,
    /// Let in the networks of this machine too.
    pub(crate) lan: bool,
}

impl Access {
    /// The lines of `pg_hba.conf`; none when it is its owner's.
    fn lines(self, host: &str) -> Vec<String> {
        if self.skip {
            return Vec::new();
        }
        let method = self.method_for(host);
        let mut lines = match method {
            "trust" => vec!["local all all trust".to_owned()],
            // Passwords protect nothing on a local socket that the system does not protect better.
            _ => vec!["local all all peer".to_owned()],
        };
        let mut hosts = vec!["127.0.0.1/32", "::1/128"];
        match method {
            // Never wider than asked: whoever is let in by trust is let in as anybody.
            "trust" => hosts.push("samehost"),
            _ => hosts.push("all"),
        }
        if self.lan && method == "trust" {
            hosts.push("samenet");
        }
        let kind = if method == "cert" { "hostssl" } else { "host" };
        lines.extend(
            hosts
                .iter()
                .map(|from| format!("{kind} all all {from} {method}")),
        );
        lines
    }

    fn method_for(self, host: &str) -> &'static str {
        match self.method {
            Some(method) => method,
            None if is_loopback(host) => "trust",
            None => "scram-sha-256",
        }
    }
}

pub(crate) async fn create_postgres(
    request: &PostgresRequest,
    homes: &Homes,
) -> anyhow::Result<Created> {
    note_without_effect(&request.without_effect);
    let host = host(request)?;
    refuse_root_directory(&request.pgdata)?;
    let file = homes.config_file(&request.pgdata);
    let created = Created {
        file: file.clone(),
        run: request.run,
    };
    let before = existing(&file, homes)?;
    if let Some(config) = &before {
        if is_same(config, request, &host) {
            note(&format!("the node {} is created already", config.name));
            say_next(&request.pgdata, &file);
            return Ok(created);
        }
        refuse_other_name(config, request)?;
        refuse_while_running(&config.state_dir, config.name.as_str())?;
    }
    let state_dir = homes.state_dir(&request.pgdata);
    let (bin_dir, major, found) = inspect(request, &state_dir)?;
    check_writable(&request.pgdata)?;
    let listen = listen(request, &host)?;
    if !is_our_postmaster(&request.pgdata) {
        check_port(&Endpoint::new(first_listen(&listen), request.port))?;
    }
    let tls = certificates::section(request.certificates.as_ref(), before.as_ref(), &host)?;
    let https = certificates::rest(request.rest_tls, tls.as_ref(), before.as_ref())?;
    let secret_file = request
        .secret_file
        .clone()
        .unwrap_or_else(|| homes.secret_file());
    let secret = secret(&secret_file)?;
    let api_port = match &before {
        Some(config) => config.restapi.listen.port,
        None => network::api_port(&network::listen_host(&host), request.port)?,
    };

    warn_of(&host);
    let api = request.named().api(before.as_ref(), Some(&secret));
    let state = state_of_the_cluster(&api).await?;
    check_cluster(request, &state, &found)?;
    check_major(&state, major)?;
    let advertise = Endpoint::new(host.clone(), api_port);
    let scheme = if https.is_empty() { "http" } else { "https" };
    let register = Register {
        name: request.name.clone(),
        host: host.clone(),
        port: request.port,
        api_url: format!("{scheme}://{advertise}"),
        identity: identity(&state_dir)?,
        priority: Some(request.priority),
        quorum: Some(request.quorum),
        witness: false,
        ahead: true,
    };
    let registered: Registered = api.post("/api/v1/register", &register).await?;

    let node = NewNode {
        request,
        registered: &registered,
        host: &host,
        listen: &listen,
        api_port,
        tls,
        https,
    };
    let values = node.values(&state_dir, &secret_file, bin_dir.as_deref())?;
    let comment = "A node of Standfast, written by `standfast create postgres`.\n\
                   Passwords are derived from the cluster secret unless given here.";
    write_file(&file, comment, &values)
        .with_context(|| format!("can't write {}", file.display()))?;
    if request.access.method.is_none()
        && request.access.method_for(&host) == "trust"
        && !request.access.skip
    {
        note(
            "warning: --auth trust, as every name here is loopback: everybody on this machine may connect as anybody",
        );
    }
    note(&format!(
        "registered {} as node {}",
        registered.name, registered.id
    ));
    note(&match (&found, state.system_id) {
        (DataDir::Ready(_), None) => "`run` will take over the data that is there".to_owned(),
        (DataDir::Ready(_), Some(_)) => {
            "`run` will follow the primary with the data that is there, or replace it by a copy"
                .to_owned()
        }
        (_, None) => {
            "`run` will make a new cluster there, or a copy if another node was first".to_owned()
        }
        (_, Some(_)) => "`run` will copy the data of the primary there".to_owned(),
    });
    say_next(&request.pgdata, &file);
    Ok(created)
}

/// A monitor that was started a moment ago founds its store yet; it is asked again for a while.
async fn state_of_the_cluster(api: &Api) -> anyhow::Result<State> {
    let began = Instant::now();
    loop {
        let error = match api.get("/api/v1/state").await {
            Ok(state) => return Ok(state),
            Err(error) => error,
        };
        let failure = error.downcast_ref::<Failure>();
        let silent = failure.is_some_and(|failure| failure.code == ExitCode::Unreachable);
        if !silent || began.elapsed() >= MONITOR_PATIENCE {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Under which the others reach us: as said, or the address of ours that the monitor sees.
fn host(request: &PostgresRequest) -> anyhow::Result<String> {
    let host = match &request.host {
        Some(host) => host.clone(),
        None => request
            .monitor
            .iter()
            .find_map(network::address_towards)
            .ok_or_else(|| {
                Failure::usage("can't tell under which address the others reach this machine")
                    .hint("say it with --hostname")
            })?,
    };
    Ok(check_host(&host).map_err(|bad| Failure::usage(format!("--hostname: {bad}")))?)
}

/// Whether an earlier `create` asked for the same.
fn is_same(config: &Config, request: &PostgresRequest, host: &str) -> bool {
    let Some(pg) = &config.postgresql else {
        return false;
    };
    pg.connect_address == Endpoint::new(host, request.port)
        && request
            .name
            .as_ref()
            .is_none_or(|name| *name == config.name)
        && pg.superuser.username == request.superuser
        && pg.database == request.database
        && config.tags.priority() == request.priority
        && config.tags.quorum() == request.quorum
        && certificates::is_same(request.certificates.as_ref(), request.rest_tls, config)
}

fn refuse_other_name(config: &Config, request: &PostgresRequest) -> Result<(), Failure> {
    let other = request
        .name
        .as_ref()
        .is_some_and(|name| *name != config.name);
    if config.is_witness() || other {
        let what = format!("{} belongs to {}", request.pgdata.display(), config.name);
        return Err(Failure::refused(what).hint("drop that one first, or name another --pgdata"));
    }
    Ok(())
}

/// Finds the programs, with their major version, and looks into the data directory. Neither is
/// changed.
fn inspect(
    request: &PostgresRequest,
    state_dir: &Path,
) -> anyhow::Result<(Option<PathBuf>, u32, DataDir)> {
    let bin_dir = match &request.pgctl {
        Some(pgctl) => {
            // `which pg_ctl` often names a link; its programs are where it leads.
            let real = pgctl
                .canonicalize()
                .map_err(|error| Failure::usage(format!("--pgctl {}: {error}", pgctl.display())))?;
            match real.parent() {
                Some(bin_dir) if real.is_file() => Some(bin_dir.to_owned()),
                _ => Some(real),
            }
        }
        None => None,
    };
    let placeholder = NodeName::new("create")?;
    let guard_exe = std::env::current_exe()?;
    let mut options = postgres::Options::new(
        placeholder,
        request.pgdata.clone(),
        state_dir.join("postgres"),
        guard_exe,
    );
    options.bin_dir.clone_from(&bin_dir);
    options.port = request.port;
    let instance = Instance::open(options).map_err(as_failure)?;
    let found = instance.data_dir().map_err(as_failure)?;
    if let DataDir::Unusable { why } = &found {
        let what = format!(
            "the data directory {} can't be used: {why}",
            request.pgdata.display()
        );
        return Err(Failure::refused(what)
            .hint("it is left as it is; name another one with --pgdata")
            .into());
    }
    Ok((bin_dir, instance.binaries().major, found))
}

fn as_failure(error: PostgresError) -> anyhow::Error {
    let code = match &error {
        PostgresError::WrongMajor { .. } => ExitCode::Refused,
        _ => ExitCode::Error,
    };
    let failure = Failure::new(code, "can't use this PostgreSQL");
    let failure = match &error {
        PostgresError::WrongMajor { .. }
        | PostgresError::NoPrograms { .. }
        | PostgresError::UnsupportedVersion { .. } => {
            failure.hint("name the pg_ctl of another PostgreSQL, 13 to 18, with --pgctl")
        }
        _ => failure,
    };
    anyhow::Error::new(error).context(failure)
}

/// `listen_addresses`.
fn listen(request: &PostgresRequest, host: &str) -> anyhow::Result<String> {
    let Some(listen) = &request.listen else {
        return Ok(if is_loopback(host) {
            network::listen_host(host)
        } else {
            "*".to_owned()
        });
    };
    for part in listen.split(',').map(str::trim).filter(|part| *part != "*") {
        check_host(part).map_err(|bad| Failure::usage(format!("--listen: {bad}")))?;
    }
    Ok(listen
        .split(',')
        .map(str::trim)
        .collect::<Vec<_>>()
        .join(","))
}

fn first_listen(listen: &str) -> String {
    match listen.split(',').next() {
        None | Some("*" | "") => "0.0.0.0".to_owned(),
        Some(host) => network::listen_host(host),
    }
}

/// A Postgres that runs on this data directory already may go on holding its port.
fn is_our_postmaster(pgdata: &Path) -> bool {
    let Ok(text) = std::fs::read_to_string(pgdata.join("postmaster.pid")) else {
        return false;
    };
    let pid = text
        .lines()
        .next()
        .and_then(|line| line.trim().parse::<u32>().ok());
    pid.is_some_and(|pid| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == pgdata)
    })
}

fn secret(file: &Path) -> anyhow::Result<ClusterSecret> {
    if !file.exists() {
        let what = format!("there is no cluster secret {}", file.display());
        let hint = "copy it from the monitor's machine (~/.config/standfast/secret there, mode 0600), \
                    or name it with --secret-file";
        return Err(Failure::error(what).hint(hint).into());
    }
    Ok(ClusterSecret::read(file)?)
}

fn check_cluster(request: &PostgresRequest, state: &State, found: &DataDir) -> anyhow::Result<()> {
    if let Some(scope) = request
        .scope
        .as_ref()
        .filter(|scope| **scope != state.scope && **scope != state.formation)
    {
        let what = format!(
            "the monitor serves the formation {}, not {scope}",
            state.scope
        );
        return Err(Failure::unknown(what).into());
    }
    if let (DataDir::Ready(control), Some(ours)) = (found, &state.system_id)
        && control.system_id.to_string() != *ours
    {
        let what = format!(
            "{} belongs to another cluster: its system identifier is {}, this cluster's is {ours}",
            request.pgdata.display(),
            control.system_id
        );
        return Err(Failure::refused(what)
            .hint("it is left as it is; name another one with --pgdata")
            .into());
    }
    Ok(())
}

/// A base backup and the WAL after it are of one major version.
fn check_major(state: &State, ours: u32) -> Result<(), Failure> {
    let leader = state
        .nodes
        .iter()
        .find(|node| Some(&node.name) == state.leader.as_ref() && node.server_version > 0);
    let Some(leader) = leader.filter(|leader| leader.server_version / 10_000 != ours) else {
        return Ok(());
    };
    let theirs = leader.server_version / 10_000;
    let what = format!(
        "the primary {} runs PostgreSQL {theirs}, this one is {ours}",
        leader.name
    );
    Err(Failure::refused(what).hint(format!(
        "name the pg_ctl of a PostgreSQL {theirs} with --pgctl"
    )))
}

/// As Patroni writes addresses before a port.
fn bracketed(listen: &str) -> String {
    let parts = listen.split(',');
    let shown = parts.map(|part| {
        if part.contains(':') {
            format!("[{part}]")
        } else {
            part.to_owned()
        }
    });
    shown.collect::<Vec<_>>().join(",")
}

/// All that goes into the file.
struct NewNode<'a> {
    request: &'a PostgresRequest,
    registered: &'a Registered,
    host: &'a str,
    listen: &'a str,
    api_port: u16,
    tls: Option<Value>,
    /// Of REST.
    https: Vec<(&'static str, Value)>,
}

impl NewNode<'_> {
    fn values(
        &self,
        state_dir: &Path,
        secret_file: &Path,
        bin_dir: Option<&Path>,
    ) -> anyhow::Result<Map<String, Value>> {
        let request = self.request;
        let api_listen = Endpoint::new(network::listen_host(self.host), self.api_port);
        let api = Endpoint::new(self.host, self.api_port);
        let join: Vec<String> = request.monitor.iter().map(Endpoint::to_string).collect();
        let mut postgresql = json!({
            "listen": format!("{}:{}", bracketed(self.listen), request.port),
            "connect_address": Endpoint::new(self.host, request.port).to_string(),
            "data_dir": path_value(&request.pgdata)?,
            "database": request.database,
            "authentication": { "superuser": { "username": request.superuser } },
        });
        if let Some(bin_dir) = bin_dir {
            postgresql["bin_dir"] = path_value(bin_dir)?;
        }
        let hba = request.access.lines(self.host);
        if !hba.is_empty() {
            postgresql["pg_hba"] = hba.into();
        }
        if let Some(rate) = &request.backup_rate {
            postgresql["basebackup"] = json!([{ "max-rate": rate }]);
        }
        let mut raft = json!({ "join": join, "secret_file": path_value(secret_file)? });
        if let Some(tls) = &self.tls {
            raft["tls"] = tls.clone();
        }
        let values = json!({
            "scope": self.registered.scope,
            "name": self.registered.name,
            "state_dir": path_value(state_dir)?,
            "restapi": certificates::restapi(&api_listen, &api, &self.https),
            "store": { "raft": raft },
            "bootstrap": { "dcs": first_settings() },
            "postgresql": postgresql,
        });
        match values {
            Value::Object(map) => Ok(map),
            _ => Ok(Map::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(host: &str, access: Access, expected: Expect) {
        expected.assert_eq(&access.lines(host).join("\n"));
    }

    const DEFAULT: Access = Access {
        method: None,
        skip: false,
        lan: false,
    };

    #[test]
    fn trust_is_for_loopback_only_unless_asked_for() {
        check(
            "127.0.0.1",
            DEFAULT,
            expect![[r#"
                local all all trust
                host all all 127.0.0.1/32 trust
                host all all ::1/128 trust
                host all all samehost trust"#]],
        );
        check(
            "node-a.example",
            DEFAULT,
            expect![[r#"
                local all all peer
                host all all 127.0.0.1/32 scram-sha-256
                host all all ::1/128 scram-sha-256
                host all all all scram-sha-256"#]],
        );
        let trust = Access {
            method: Some("trust"),
            lan: true,
            ..DEFAULT
        };
        check(
            "node-a.example",
            trust,
            expect![[r#"
                local all all trust
                host all all 127.0.0.1/32 trust
                host all all ::1/128 trust
                host all all samehost trust
                host all all samenet trust"#]],
        );
        check(
            "127.0.0.1",
            Access {
                skip: true,
                ..DEFAULT
            },
            expect![""],
        );
    }
}
