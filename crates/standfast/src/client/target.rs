//! Whom a command asks: the node that a data directory belongs to, any address that was named, and every member that
//! was known when a member last answered.

use super::Api;
use crate::config::{Config, Endpoint, RaftStart, write_private};
use crate::exit::Failure;
use crate::paths::Homes;
use crate::secret::ClusterSecret;
use api::v1::State;
use ha::NodeName;
use std::path::{Path, PathBuf};

/// Addresses of members, as last seen.
const CACHE: &str = "members.json";

/// A cluster, as the command line names it.
#[derive(Debug)]
pub(crate) struct Target {
    /// The node of this machine that was meant.
    pub(crate) config: Option<Config>,
    pub(crate) api: Api,
    /// The formation that was named.
    formation: Option<String>,
    known: Vec<Endpoint>,
}

/// What a target is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) pgdata: Option<PathBuf>,
    pub(crate) monitor: Vec<Endpoint>,
    pub(crate) formation: Option<String>,
    pub(crate) secret_file: Option<PathBuf>,
}

impl Target {
    pub(crate) fn find(named: &Named, homes: &Homes) -> anyhow::Result<Self> {
        let config = match (&named.pgdata, named.monitor.is_empty()) {
            (Some(pgdata), true) => Some(load(pgdata, homes)?),
            // An address was named: the directory, often from the environment, need not be one of ours.
            (Some(pgdata), false) => load(pgdata, homes).ok(),
            (None, false) => None,
            (None, true) => {
                let failure = Failure::usage("which cluster is meant?");
                let hint = "name a node's directory with --pgdata (or PGDATA), or any member with --monitor HOST:PORT";
                return Err(failure.hint(hint).into());
            }
        };
        let mut known = named.monitor.clone();
        if let (Some(config), true) = (&config, known.is_empty()) {
            known = members_of(config);
        }
        // Reading needs no secret; what changes something complains when there is none.
        let secret = match (&named.secret_file, &config) {
            (Some(file), _) => ClusterSecret::read(file),
            (None, Some(config)) => ClusterSecret::of(config),
            (None, None) => ClusterSecret::read(&homes.secret_file()),
        };
        let secret = match secret {
            Ok(secret) => Some(secret),
            Err(error) if named.secret_file.is_some() => return Err(error.into()),
            Err(_) => None,
        };
        let api = Api::to(known.clone(), secret.as_ref());
        Ok(Self {
            config,
            api,
            formation: named.formation.clone(),
            known,
        })
    }

    /// The cluster's state; remembers its members for the day when this node's own API is down.
    pub(crate) async fn state(&self) -> anyhow::Result<State> {
        let state: State = self.api.get("/api/v1/state").await?;
        if let Some(formation) = &self.formation
            && *formation != state.formation
            && *formation != state.scope
        {
            return Err(
                Failure::unknown(format!("there is no formation {formation:?} here")).into(),
            );
        }
        self.remember(&state);
        Ok(state)
    }

    /// The node that a command is about: the one named, else the one of this machine.
    pub(crate) fn node(&self, named: Option<&NodeName>) -> Result<NodeName, Failure> {
        named
            .or_else(|| self.config.as_ref().map(|config| &config.name))
            .cloned()
            .ok_or_else(|| {
                Failure::usage("which node is meant?")
                    .hint("name it with --name, or by its --pgdata")
            })
    }

    fn remember(&self, state: &State) {
        let Some(config) = &self.config else { return };
        let members: Vec<String> = state
            .nodes
            .iter()
            .filter_map(|node| node.api_url.split_once("://").map(|(_, place)| place))
            .filter_map(|address| address.split('/').next().map(str::to_owned))
            .collect();
        let known: Vec<String> = self.known.iter().map(Endpoint::to_string).collect();
        if members.iter().all(|member| known.contains(member)) {
            return;
        }
        // A cache: a failure to write it costs nothing today.
        if let Ok(text) = serde_json::to_vec(&members) {
            let _ = write_private(&config.state_dir.join(CACHE), &text);
        }
    }
}

/// The configuration of the node that a directory belongs to.
pub(crate) fn load(pgdata: &Path, homes: &Homes) -> anyhow::Result<Config> {
    let file = homes.config_file(pgdata);
    if !file.exists() {
        let what = format!(
            "{} is not a node's or monitor's directory: there is no {}",
            pgdata.display(),
            file.display()
        );
        return Err(Failure::unknown(what)
            .hint("standfast create makes one")
            .into());
    }
    Ok(Config::load(&file, homes)?.0)
}

/// Its own API first, then every other that it has heard of.
pub(crate) fn members_of(config: &Config) -> Vec<Endpoint> {
    let mut members = vec![config.restapi.connect_address.clone()];
    if let Some(raft) = config.raft().filter(|raft| raft.listen.is_none()) {
        match &raft.start {
            RaftStart::Found => {}
            RaftStart::Members(listed) => members.extend(listed.values().cloned()),
            RaftStart::Join(listed) => members.extend(listed.iter().cloned()),
        }
    }
    let cached = std::fs::read(config.state_dir.join(CACHE)).unwrap_or_default();
    let cached: Vec<String> = serde_json::from_slice(&cached).unwrap_or_default();
    members.extend(cached.iter().filter_map(|address| address.parse().ok()));
    let mut seen = std::collections::BTreeSet::new();
    members.retain(|member| seen.insert(member.clone()));
    members
}
