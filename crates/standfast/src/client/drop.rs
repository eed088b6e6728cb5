//! `drop node` and `drop monitor`.
//!
//! **Invariant:** a data directory goes only with `--destroy`, after a person or `--yes` agreed, and only when no
//! process of it is left. What belongs to another node is never touched.

use super::Target;
use super::local::stop_agent;
use super::node::find;
use crate::cli::meant::{DropMonitorOrder, DropNodeOrder, WhichNode};
use crate::config::Config;
use crate::confirm::confirm;
use crate::create::quoted;
use crate::exit::{ExitCode, Failure};
use crate::output::note;
use crate::paths::Homes;
use crate::pidfile;
use anyhow::Context as _;
use api::v1::{Dropped, State};
use ha::{NodeName, NodeState};
use rustix::process::Signal;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a node may take to leave by itself.
const LEAVE_LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn node(
    target: &Target,
    order: &DropNodeOrder,
    homes: &Homes,
) -> anyhow::Result<ExitCode> {
    let state = target.state().await?;
    let name = match &order.node {
        WhichNode::Own => target.node(None)?,
        WhichNode::Named(name) => name.clone(),
        WhichNode::At(endpoint) => at(&state, &endpoint.host, endpoint.port)?,
    };
    let own = target.config.as_ref().filter(|config| config.name == name);
    if own.is_some_and(Config::is_witness) {
        let failure = Failure::usage(format!("{name} is a monitor"));
        return Err(failure.hint("remove it with standfast drop monitor").into());
    }
    let known = state.nodes.iter().any(|node| node.name == name);
    // An earlier drop that was cut off has left files, and no node in the cluster.
    if !known && own.is_none() {
        find(&state, &name)?;
    }
    if order.destroy && own.is_none() {
        let failure =
            Failure::usage("--destroy removes files, and the node is not one of this machine");
        return Err(failure
            .hint("say it where the node runs, with its --pgdata or --config")
            .into());
    }
    let data_dir = own
        .filter(|_| order.destroy)
        .and_then(|own| own.postgresql.as_ref())
        .map(|pg| &pg.data_dir);
    let what = match data_dir {
        Some(dir) => format!("remove the node {name} and everything in {}", dir.display()),
        None => format!("remove the node {name}, keeping its data"),
    };
    if order.consent.dry_run {
        crate::output::line(&format!("would {what}"));
        return Ok(ExitCode::Ok);
    }
    if let (Some(dir), Some(own)) = (data_dir, own) {
        refuse_foreign(dir, &own.state_dir)?;
        confirm(&what, order.consent.yes)?;
    }
    if known {
        let path = format!("/api/v1/nodes/{name}?force={}", order.force);
        let dropped: Dropped = target.api.delete(&path).await?;
        let absent = match own {
            Some(own) => pidfile::agent(&own.state_dir)?.is_none(),
            None => false,
        };
        // Here it is known that nobody will come back.
        if dropped.removed || !absent {
            note(&dropped.message);
        }
        if !dropped.removed {
            wait_left(target, &name, own).await?;
        }
    }
    if let Some(own) = own {
        clean_up(own, data_dir.map(PathBuf::as_path), homes)?;
    }
    note(&format!("dropped {name}"));
    Ok(ExitCode::Ok)
}

fn at(state: &State, host: &str, port: u16) -> Result<NodeName, Failure> {
    let found = state
        .nodes
        .iter()
        .find(|node| node.host == host && node.port == port);
    found
        .map(|node| node.name.clone())
        .ok_or_else(|| Failure::unknown(format!("there is no node at {host}:{port}")))
}

/// Until the cluster has forgotten it. Where no agent of it is left that could leave by itself, it is made to, unless
/// the others may need what it has.
async fn wait_left(target: &Target, name: &NodeName, own: Option<&Config>) -> anyhow::Result<()> {
    let deadline = Instant::now() + LEAVE_LIMIT;
    loop {
        let agent_gone = match own {
            Some(own) => pidfile::agent(&own.state_dir)?.is_none(),
            None => false,
        };
        let state = target.state().await;
        if agent_gone && state.is_err() {
            // The last vote went with it, or nobody else is there to be told.
            return Ok(());
        }
        if let Ok(state) = state {
            let Ok(node) = find(&state, name) else {
                return Ok(());
            };
            let led = state.leader.as_ref().is_some_and(|leader| leader != name);
            if agent_gone && (led || node.state == NodeState::Init) {
                // Refused while its record lives, for a lease at most.
                let path = format!("/api/v1/nodes/{name}?force=true");
                if let Ok(Dropped { removed: true, .. }) = target.api.delete(&path).await {
                    return Ok(());
                }
            } else if agent_gone {
                note(&format!(
                    "warning: {name} stays in the cluster's records, as nobody leads; once somebody does: standfast \
                     drop node --name {name} --force"
                ));
                return Ok(());
            }
        }
        if Instant::now() >= deadline {
            let what = format!("{name} has not left within {} s", LEAVE_LIMIT.as_secs());
            let failure = Failure::new(ExitCode::TimedOut, what);
            return Err(failure
                .hint("the order stands; if the node is gone for good: --force")
                .into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(super) async fn monitor(
    target: &Target,
    order: &DropMonitorOrder,
    homes: &Homes,
) -> anyhow::Result<ExitCode> {
    let Some(config) = target.config.as_ref().filter(|config| config.is_witness()) else {
        return Err(Failure::usage("--pgdata is not a monitor's directory").into());
    };
    let dir = config.raft().context("a monitor has store.raft")?;
    let dir = dir.data_dir.as_path();
    let mut what = format!("remove the monitor {}", config.name);
    if order.destroy {
        what += &format!(" and everything in {}", dir.display());
    }
    if order.consent.dry_run {
        crate::output::line(&format!("would {what}"));
        return Ok(ExitCode::Ok);
    }
    confirm(&what, order.consent.yes)?;
    // It leaves the voters while it can still be asked; the others go on without it.
    match target.state().await {
        Ok(state)
            if state.nodes.len() > 1 && state.nodes.iter().any(|node| node.name == config.name) =>
        {
            let path = format!("/api/v1/nodes/{}?force=true", config.name);
            let dropped: Dropped = target.api.delete(&path).await?;
            note(&dropped.message);
        }
        Ok(_) => {}
        Err(error) => note(&format!("warning: the cluster was not told: {error:#}")),
    }
    clean_up(config, order.destroy.then_some(dir), homes)?;
    if let Some(pgdata) = dir.parent().filter(|_| order.destroy) {
        // Made by `create`; whatever else is in it is not ours.
        let _ = std::fs::remove_dir(pgdata);
    }
    note(&format!("dropped {}", config.name));
    Ok(ExitCode::Ok)
}

/// Stops the agent, then removes the node's files. The configuration goes last: until then the command works again.
fn clean_up(config: &Config, destroy: Option<&Path>, homes: &Homes) -> anyhow::Result<()> {
    if let Some(agent) = pidfile::agent(&config.state_dir)? {
        stop_agent(config, &agent, Signal::INT)?;
    }
    if let Some(dir) = destroy {
        refuse_busy(dir)?;
        remove_tree(dir)?;
    }
    match may_remove_state(&config.state_dir, homes) {
        Ok(()) => remove_tree(&config.state_dir)?,
        Err(why) => note(&format!("kept {}: {why}", config.state_dir.display())),
    }
    // A file of the user's is not ours to remove.
    if !config.file.starts_with(&homes.config) {
        note(&format!(
            "kept {}: `create` did not write it",
            config.file.display()
        ));
        return Ok(());
    }
    remove_file(&config.file)?;
    // Directories that only led to this file.
    let mut dir = config.file.parent();
    while let Some(empty) =
        dir.filter(|dir| dir.starts_with(&homes.config) && **dir != homes.config)
    {
        if std::fs::remove_dir(empty).is_err() {
            break;
        }
        dir = empty.parent();
    }
    Ok(())
}

/// Only a cluster's directory is destroyed, or what is left of one whose making was cut off.
fn refuse_foreign(dir: &Path, state_dir: &Path) -> Result<(), Failure> {
    let filled = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    let unfinished = state_dir.join("postgres/unfinished.json").exists();
    if !filled || unfinished || dir.join("PG_VERSION").is_file() {
        return Ok(());
    }
    let what = format!(
        "{} holds no PostgreSQL cluster, so it is not removed",
        dir.display()
    );
    Err(Failure::refused(what).hint("drop the node without --destroy"))
}

/// Whether the whole state directory is one that `create` chose, for this node alone. A path that was written into the
/// file by hand may be anything.
fn may_remove_state(state_dir: &Path, homes: &Homes) -> Result<(), &'static str> {
    if state_dir == homes.state || !state_dir.starts_with(&homes.state) {
        return Err("it was not chosen by `create`, remove it by hand");
    }
    if holds_other_nodes(state_dir) {
        return Err("other nodes have their files below it");
    }
    Ok(())
}

fn refuse_busy(dir: &Path) -> anyhow::Result<()> {
    if guard::leftovers(dir).is_empty() {
        return Ok(());
    }
    let failure = Failure::refused(format!("Postgres still runs on {}", dir.display()));
    Err(failure
        .hint(format!("stop it first: pg_ctl stop -D {}", quoted(dir)))
        .into())
}

/// A node whose directory lies below another's has its state there too.
fn holds_other_nodes(state_dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(state_dir) else {
        return false;
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .any(|entry| {
            let dir = entry.path();
            dir.join("identity").exists() || holds_other_nodes(&dir)
        })
}

fn remove_tree(dir: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn remove_file(file: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cluster_is_destroyed() {
        let dir = tempfile::tempdir().unwrap();
        let (data, state) = (dir.path().join("data"), dir.path().join("state"));
        assert_eq!(refuse_foreign(&data, &state), Ok(()), "absent");
        std::fs::create_dir(&data).unwrap();
        assert_eq!(refuse_foreign(&data, &state), Ok(()), "empty");
        std::fs::write(data.join("letter.txt"), "dear").unwrap();
        assert_eq!(
            refuse_foreign(&data, &state).unwrap_err().code,
            ExitCode::Refused
        );
        std::fs::create_dir_all(state.join("postgres")).unwrap();
        std::fs::write(state.join("postgres/unfinished.json"), "{}").unwrap();
        assert_eq!(
            refuse_foreign(&data, &state),
            Ok(()),
            "a clone that was cut off"
        );
        std::fs::remove_dir_all(&state).unwrap();
        std::fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(refuse_foreign(&data, &state), Ok(()), "a cluster");
    }

    #[test]
    fn a_state_directory_chosen_by_hand_or_shared_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let homes = Homes {
            config: dir.path().join("c"),
            state: dir.path().join("s"),
        };
        let own = homes.state.join("srv/a");
        std::fs::create_dir_all(own.join("postgres/socket")).unwrap();
        assert_eq!(may_remove_state(&own, &homes), Ok(()));
        assert!(may_remove_state(Path::new("/var/lib"), &homes).is_err());
        assert!(may_remove_state(&homes.state, &homes).is_err());
        std::fs::create_dir_all(own.join("below")).unwrap();
        std::fs::write(own.join("below/identity"), "x").unwrap();
        assert!(may_remove_state(&own, &homes).is_err());
    }
}
