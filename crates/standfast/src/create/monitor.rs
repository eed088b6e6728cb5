//! `create monitor`.

use super::{
    Created, DEFAULT_SCOPE, StoreFiles, certificates, check_writable, existing, identity,
    is_filled, network, note_without_effect, path_value, refuse_root_directory, say_next, warn_of,
};
use crate::config::{Endpoint, check_host, write_file, write_private};
use crate::exit::Failure;
use crate::output::note;
use crate::paths::Homes;
use crate::secret::ClusterSecret;
use anyhow::Context as _;
use ha::NodeName;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// What `create monitor` was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MonitorRequest {
    pub(crate) pgdata: PathBuf,
    pub(crate) port: u16,
    pub(crate) host: Option<String>,
    pub(crate) name: NodeName,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) certificates: Option<StoreFiles>,
    /// HTTPS with the same files.
    pub(crate) rest_tls: bool,
    pub(crate) run: bool,
    pub(crate) without_effect: Vec<String>,
}

pub(crate) fn create_monitor(request: &MonitorRequest, homes: &Homes) -> anyhow::Result<Created> {
    note_without_effect(&request.without_effect);
    let host = request
        .host
        .clone()
        .or_else(network::machine_name)
        .ok_or_else(|| {
            Failure::usage("--hostname is missing: under which the nodes reach this machine")
        })?;
    let host = check_host(&host).map_err(|bad| Failure::usage(format!("--hostname: {bad}")))?;
    let advertise = Endpoint::new(host, request.port);
    let listen = Endpoint::new(network::listen_host(&advertise.host), request.port);
    refuse_root_directory(&request.pgdata)?;
    let file = homes.config_file(&request.pgdata);
    let created = Created {
        file: file.clone(),
        run: request.run,
    };
    let before = existing(&file, homes)?;
    match &before {
        Some(config) if !config.is_witness() => {
            let what = format!(
                "{} belongs to the node {}",
                request.pgdata.display(),
                config.name
            );
            return Err(Failure::refused(what)
                .hint("name another directory with --pgdata")
                .into());
        }
        Some(config)
            if config.name == request.name
                && config.restapi.connect_address == advertise
                && certificates::is_same(
                    request.certificates.as_ref(),
                    request.rest_tls,
                    config,
                ) =>
        {
            note(&format!("the monitor {} is created already", config.name));
            say_next(&request.pgdata, &file);
            return Ok(created);
        }
        Some(config) => refuse_while_running(&config.state_dir, config.name.as_str())?,
        None => {}
    }
    check_directory(&request.pgdata, before.is_some())?;
    check_port(&listen)?;
    let tls = certificates::section(
        request.certificates.as_ref(),
        before.as_ref(),
        &advertise.host,
    )?;
    let https = certificates::rest(request.rest_tls, tls.as_ref(), before.as_ref())?;

    warn_of(&advertise.host);
    let secret_file = request
        .secret_file
        .clone()
        .unwrap_or_else(|| homes.secret_file());
    ensure_secret(&secret_file)?;
    let state_dir = homes.state_dir(&request.pgdata);
    identity(&state_dir)?;
    let mut values = Map::new();
    values.insert("scope".to_owned(), DEFAULT_SCOPE.into());
    values.insert("name".to_owned(), request.name.as_str().into());
    values.insert("witness".to_owned(), true.into());
    values.insert("state_dir".to_owned(), path_value(&state_dir)?);
    values.insert(
        "restapi".to_owned(),
        certificates::restapi(&listen, &advertise, &https),
    );
    let mut raft = json!({
        "data_dir": path_value(&request.pgdata.join("raft"))?,
        "secret_file": path_value(&secret_file)?,
    });
    if let Some(tls) = tls {
        raft["tls"] = tls;
    }
    values.insert("store".to_owned(), json!({ "raft": raft }));
    values.insert("bootstrap".to_owned(), json!({ "dcs": first_settings() }));
    let comment = "A monitor of Standfast, written by `standfast create monitor`.\n\
                   REST and the store's peers share one port.";
    write_file(&file, comment, &values)
        .with_context(|| format!("can't write {}", file.display()))?;
    note(&format!(
        "created the monitor {} at {advertise}",
        request.name
    ));
    let scheme = if https.is_empty() { "http" } else { "https" };
    note(&format!(
        "nodes join it with --monitor {scheme}://{advertise} and the secret {}",
        secret_file.display()
    ));
    say_next(&request.pgdata, &file);
    Ok(created)
}

/// What every file that we write says of the cluster: commits are protected.
pub(super) fn first_settings() -> Value {
    json!({ "synchronous_mode": "quorum" })
}

pub(super) fn refuse_while_running(state_dir: &Path, name: &str) -> anyhow::Result<()> {
    if let Some(agent) = crate::pidfile::agent(state_dir)? {
        let what = format!(
            "{name} is running, pid {}: its configuration is not changed",
            agent.pid
        );
        return Err(Failure::refused(what)
            .hint("stop it first: standfast stop")
            .into());
    }
    Ok(())
}

pub(super) fn check_port(listen: &Endpoint) -> Result<(), Failure> {
    match network::is_free(listen) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::error(format!(
            "port {} is taken by another program",
            listen.port
        ))
        .hint("name another one with --pgport")),
        Err(error) => Err(Failure::error(format!("can't listen on {listen}: {error}"))),
    }
}

fn check_directory(dir: &Path, ours: bool) -> anyhow::Result<()> {
    check_writable(dir)?;
    if dir.join("PG_VERSION").exists() {
        let what = format!(
            "{} holds a PostgreSQL cluster, and a monitor has none",
            dir.display()
        );
        return Err(Failure::refused(what)
            .hint("name an empty directory with --pgdata")
            .into());
    }
    let filled = is_filled(dir).with_context(|| format!("can't read {}", dir.display()))?;
    if filled && !ours {
        let what = format!("{} is not empty and not a monitor's", dir.display());
        return Err(Failure::refused(what)
            .hint("name an empty directory with --pgdata")
            .into());
    }
    Ok(())
}

/// The secret of a new cluster is made here, unless there is one.
fn ensure_secret(file: &Path) -> anyhow::Result<()> {
    if !file.exists() {
        write_private(file, format!("{}\n", store::Secret::generate()).as_bytes())
            .with_context(|| format!("can't write {}", file.display()))?;
        note(&format!(
            "made a cluster secret: {}; nodes on other machines need a copy",
            file.display()
        ));
    }
    ClusterSecret::read(file)?;
    Ok(())
}
