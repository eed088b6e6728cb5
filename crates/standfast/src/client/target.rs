//! Whom a command asks: the node that a data directory belongs to, any address that was named, and every member that
//! was known when a member last answered.

use super::Api;
use crate::config::{Config, Endpoint, RaftStart, RestAddress, write_private};
use crate::exit::Failure;
use crate::paths::Homes;
use crate::secret::ClusterSecret;
use api::client::{Trust, TrustOptions};
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
    /// The authority of the members' certificates, if one was named.
    pub(crate) authority: Option<PathBuf>,
    known: Vec<RestAddress>,
}

/// What a target is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// A node's configuration file, in the place of the one that `create` wrote for `pgdata`.
    pub(crate) file: Option<PathBuf>,
    pub(crate) pgdata: Option<PathBuf>,
    pub(crate) monitor: Vec<Endpoint>,
    /// How those are spoken to, if that was said.
    pub(crate) https: Option<bool>,
    /// What was said of certificates.
    pub(crate) trust: TrustOptions,
    pub(crate) formation: Option<String>,
    pub(crate) secret_file: Option<PathBuf>,
}

impl Named {
    /// Who has a certificate, or names an authority, means HTTPS.
    fn addresses(&self, config: Option<&Config>) -> Vec<RestAddress> {
        let certified = config.is_some_and(|config| config.restapi.certificate.is_some());
        let meant = certified || self.trust != TrustOptions::default();
        let https = self.https.unwrap_or(meant);
        let address = |endpoint: &Endpoint| RestAddress {
            https,
            endpoint: endpoint.clone(),
        };
        self.monitor.iter().map(address).collect()
    }

    /// What was typed goes before what is configured.
    fn trust(&self, config: Option<&Config>) -> TrustOptions {
        let configured = config.map(|config| config.trust.clone());
        let configured = configured.unwrap_or_default();
        let typed = self.trust.clone();
        TrustOptions {
            authority: typed.authority.clone().or(configured.authority),
            passphrase: match typed.own {
                Some(_) => None,
                None => configured.passphrase,
            },
            own: typed.own.clone().or(configured.own),
            insecure: typed.insecure || configured.insecure,
            ..typed
        }
    }

    /// The cluster's API, by the addresses that were named, or else by those that the node knows.
    pub(crate) fn api(&self, config: Option<&Config>, secret: Option<&ClusterSecret>) -> Api {
        let trust = Trust::new(self.trust(config));
        Api::to(self.known(config), secret, trust)
    }

    fn known(&self, config: Option<&Config>) -> Vec<RestAddress> {
        match (config, self.monitor.is_empty()) {
            (Some(config), true) => members_of(config),
            _ => self.addresses(config),
        }
    }
}

impl Target {
    pub(crate) fn find(named: &Named, homes: &Homes) -> anyhow::Result<Self> {
        let config = match (&named.file, &named.pgdata, named.monitor.is_empty()) {
            (Some(file), _, _) => Some(Config::load(file, homes)?.0),
            (None, Some(pgdata), true) => Some(load(pgdata, homes)?),
            // An address was named: the directory, often from the environment, need not be one of ours.
            (None, Some(pgdata), false) => load(pgdata, homes).ok(),
            (None, None, false) => None,
            (None, None, true) => {
                let failure = Failure::usage("which cluster is meant?");
                let hint = "name a node's directory with --pgdata (or PGDATA), its file with --config, or any member \
                            with --monitor HOST:PORT";
                return Err(failure.hint(hint).into());
            }
        };
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
        let api = named.api(config.as_ref(), secret.as_ref());
        let known = named.known(config.as_ref());
        let authority = named.trust(config.as_ref()).authority;
        Ok(Self {
            config,
            api,
            formation: named.formation.clone(),
            authority,
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
                    .hint("name it with --name, or by its --pgdata or --config")
            })
    }

    fn remember(&self, state: &State) {
        let Some(config) = &self.config else { return };
        let members: Vec<String> = state
            .nodes
            .iter()
            .filter_map(|node| RestAddress::parse(&node.api_url, false).ok())
            .map(|address| address.url())
            .collect();
        let known: Vec<String> = self.known.iter().map(RestAddress::url).collect();
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
            .hint(
                "standfast create makes one; a node with a file of yours is named by that file: --config FILE",
            )
            .into());
    }
    Ok(Config::load(&file, homes)?.0)
}

/// Its own API first, then every other that it has heard of.
pub(crate) fn members_of(config: &Config) -> Vec<RestAddress> {
    let own = config.api_address();
    let https = own.https;
    let mut members = vec![own];
    if let Some(raft) = config.raft().filter(|raft| raft.listen.is_none()) {
        let listed: Vec<&Endpoint> = match &raft.start {
            RaftStart::Found => Vec::new(),
            RaftStart::Members(listed) => listed.values().collect(),
            RaftStart::Join(listed) => listed.iter().collect(),
        };
        // They share the port; that they have certificates is likely where this one has.
        members.extend(listed.into_iter().map(|endpoint| RestAddress {
            https,
            endpoint: endpoint.clone(),
        }));
    }
    let cached = std::fs::read(config.state_dir.join(CACHE)).unwrap_or_default();
    let cached: Vec<String> = serde_json::from_slice(&cached).unwrap_or_default();
    let cached = cached
        .iter()
        .filter_map(|address| RestAddress::parse(address, https).ok());
    members.extend(cached);
    let mut seen = std::collections::BTreeSet::new();
    members.retain(|member| seen.insert(member.clone()));
    members
}
