//! How a cluster is found and asked: in etcd, as patronictl does it, or by its members where the store is theirs.
//!
//! **Invariant:** nothing is changed here but by [`Reach::delete`]; orders go to members' REST interfaces, which know
//! the rules.

use super::cluster::{Cluster, Document};
use super::http::Http;
use super::typed::Arguments;
use crate::client::members_of;
use crate::config::{BasicAuth, Client, Config, Endpoint, Etcd, RestAddress};
use crate::exit::{ExitCode, Failure};
use crate::paths::Homes;
use crate::run::etcd_options;
use crate::secret::ClusterSecret;
use api::client::{Trust, TrustOptions};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use store::layout::Keys;
use store::{EtcdStore, Store as _, Txn};

/// As patronictl has it.
const NAMESPACE: &str = "service";
/// etcd takes 128 operations at once.
const DELETES: usize = 100;

/// What is known of how to reach clusters.
#[derive(Debug)]
pub(super) struct Reach {
    /// The cluster that is meant where none is named.
    pub(super) scope: Option<String>,
    pub(super) http: Http,
    /// What the configuration says of TLS towards Postgres, in libpq's words.
    pub(super) ssl: BTreeMap<String, String>,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Etcd {
        etcd: Etcd,
        namespace: String,
    },
    /// REST interfaces, `http://HOST:PORT` or `https://HOST:PORT`; any one is enough.
    Members(Vec<String>),
}

impl Reach {
    pub(super) fn find(arguments: &Arguments, homes: &Homes) -> Result<Self, Failure> {
        let file = file(arguments, homes)?;
        let (client, secret) = match &file {
            Some(file) => read(file, homes)?,
            None => (Client::default(), None),
        };
        let secret = secret.or_else(|| {
            let file = client.secret_file.clone();
            ClusterSecret::read(&file.unwrap_or_else(|| homes.secret_file())).ok()
        });
        let trust = TrustOptions {
            insecure: arguments.insecure || client.trust.insecure,
            ..client.trust
        };
        let source = match &arguments.dcs_url {
            Some(url) => from_url(url, client.namespace.as_deref())?,
            None => match client.etcd {
                Some(etcd) => Source::Etcd {
                    etcd,
                    namespace: client.namespace.unwrap_or_else(|| NAMESPACE.to_owned()),
                },
                None if client.members.is_empty() => {
                    let failure = Failure::usage("which cluster is meant?");
                    return Err(failure.hint(
                        "name a configuration file with -c, or etcd or a member with -d http://HOST:PORT",
                    ));
                }
                None => Source::Members(client.members.iter().map(RestAddress::url).collect()),
            },
        };
        let authorization = match (&client.login, &secret) {
            (Some(login), _) => Some(basic(login)),
            (None, Some(secret)) => Some(secret.api_token().header()),
            (None, None) => None,
        };
        Ok(Self {
            scope: client.scope,
            ssl: client.ssl,
            http: Http::new(Trust::new(trust), authorization),
            source,
        })
    }

    /// The name that was given, or the configuration's.
    pub(super) fn name(&self, named: Option<&str>) -> Result<Option<String>, Failure> {
        let name = named.map(str::to_owned).or_else(|| self.scope.clone());
        match (&self.source, &name) {
            // A member knows of one cluster only, its own.
            (Source::Members(_), _) => Ok(name),
            (Source::Etcd { .. }, Some(_)) => Ok(name),
            (Source::Etcd { .. }, None) => Err(Failure::usage("no cluster name was given")
                .hint("name it behind the command, or as scope in the configuration file")),
        }
    }

    /// What the cluster is now.
    pub(super) async fn cluster(&self, named: Option<&str>) -> Result<Cluster, Failure> {
        let name = self.name(named)?;
        match &self.source {
            Source::Etcd { etcd, namespace } => {
                let scope = name.unwrap_or_default();
                from_etcd(etcd, &Keys::new(namespace, &scope), scope).await
            }
            Source::Members(members) => self.ask_members(members, name).await,
        }
    }

    async fn ask_members(
        &self,
        members: &[String],
        name: Option<String>,
    ) -> Result<Cluster, Failure> {
        let mut reasons = Vec::new();
        for member in members {
            match self.ask_member(member).await {
                Ok(cluster) if name.as_ref().is_none_or(|name| *name == cluster.scope) => {
                    return Ok(cluster);
                }
                // It is not the one that was asked for, of which nothing is known here.
                Ok(_) => {
                    return Ok(Cluster {
                        scope: name.unwrap_or_default(),
                        ..Cluster::default()
                    });
                }
                Err(why) => reasons.push(format!("{member}: {why}")),
            }
        }
        let what = format!("no member answers: {}", reasons.join("; "));
        Err(Failure::new(ExitCode::Unreachable, what)
            .hint("any other member can be named with -d http://HOST:PORT"))
    }

    async fn ask_member(&self, base: &str) -> Result<Cluster, String> {
        let json = async |url: String| -> Result<Option<Value>, String> {
            let answer = self.http.get(&url).await?;
            match answer.status {
                200 => Ok(serde_json::from_str(&answer.text).ok()),
                502 => Ok(None),
                status => Err(format!("{status} {}", answer.text)),
            }
        };
        let document = json(format!("{base}/cluster")).await?;
        let document: Document = document
            .and_then(|value| serde_json::from_value(value).ok())
            .ok_or_else(|| "it is no member of a cluster".to_owned())?;
        let config = json(format!("{base}/config")).await?;
        let history = json(format!("{base}/history")).await?;
        let mut initialize = None;
        // A monitor has no system identifier to tell.
        let asked = document.members.iter().map(|member| member.url("patroni"));
        for url in std::iter::once(format!("{base}/patroni")).chain(asked) {
            let status = json(url).await.ok().flatten();
            let id = status
                .and_then(|it| Some(it.get("database_system_identifier")?.as_str()?.to_owned()));
            if id.is_some() {
                initialize = id;
                break;
            }
        }
        Ok(Cluster {
            scope: document.scope.clone().unwrap_or_default(),
            initialize: Some(initialize.unwrap_or_default()),
            document,
            config: config.and_then(|value| serde_json::from_value(value).ok()),
            history: history
                .and_then(|value| serde_json::from_value(value).ok())
                .unwrap_or_default(),
        })
    }

    /// Removes everything that the store holds of a cluster.
    pub(super) async fn delete(&self, scope: &str) -> Result<(), Failure> {
        let Source::Etcd { etcd, namespace } = &self.source else {
            return Err(
                Failure::refused("the store is inside of the nodes: it goes when they go")
                    .hint("standfast drop node removes one, and the last takes the cluster along"),
            );
        };
        let keys = Keys::new(namespace, scope);
        let store = open(etcd, &keys)?;
        let snapshot = store.read(keys.prefix()).await.map_err(silent)?;
        let all: Vec<&String> = snapshot.entries.keys().collect();
        for some in all.chunks(DELETES) {
            let txn = some.iter().fold(Txn::new(), |txn, key| txn.delete(*key));
            store.commit(txn).await.map_err(silent)?;
        }
        Ok(())
    }
}

/// The file that was named, patronictl's usual one, or that of the node of this machine.
fn file(arguments: &Arguments, homes: &Homes) -> Result<Option<PathBuf>, Failure> {
    if let Some(file) = &arguments.config_file {
        if file.exists() {
            return Ok(Some(file.clone()));
        }
        let what = format!("there is no configuration file {}", file.display());
        return Err(Failure::error(what).hint("-c names it"));
    }
    let usual = homes
        .config
        .with_file_name("patroni")
        .join("patronictl.yaml");
    let node = std::env::var_os("PGDATA").map(|dir| homes.config_file(Path::new(&dir)));
    Ok(std::iter::once(usual)
        .chain(node)
        .find(|file| file.exists()))
}

/// A node's file says more than a client's: how its secret is made, and which members it has heard of.
fn read(file: &Path, homes: &Homes) -> Result<(Client, Option<ClusterSecret>), Failure> {
    let node = Config::load(file, homes).ok().map(|(config, _)| config);
    let client = Client::load(file).map_err(|error| Failure::error(error.to_string()))?;
    let Some(config) = node else {
        return Ok((client, None));
    };
    let secret = ClusterSecret::of(&config).ok();
    let client = Client {
        members: members_of(&config),
        scope: Some(config.scope),
        namespace: Some(config.namespace),
        ..client
    };
    Ok((client, secret))
}

fn from_url(url: &str, namespace: Option<&str>) -> Result<Source, Failure> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_matches('/');
    let bad = |what: String| Failure::usage(format!("--dcs-url: {what}"));
    let is_etcd = match scheme {
        "http" | "https" | "standfast" => false,
        "etcd" | "etcd3" => true,
        "" => place
            .rsplit_once(':')
            .is_none_or(|(_, port)| port == "2379"),
        other => {
            return Err(bad(format!("{other} is no store of ours"))
                .hint("write etcd3://HOST:PORT/NAMESPACE or, of a member, http://HOST:PORT"));
        }
    };
    if !is_etcd {
        let scheme = if scheme == "https" { "https" } else { "http" };
        return Ok(Source::Members(vec![format!("{scheme}://{place}")]));
    }
    let place = match place {
        "" => "localhost:2379".to_owned(),
        place if place.starts_with(':') => format!("localhost{place}"),
        place if place.rsplit_once(':').is_none() => format!("{place}:2379"),
        place => place.to_owned(),
    };
    let member: Endpoint = place
        .parse()
        .map_err(|error| bad(format!("{place:?}: {error}")))?;
    let namespace = match path {
        "" => namespace.unwrap_or(NAMESPACE),
        path => path,
    };
    let etcd = Etcd {
        members: vec![member],
        srv: None,
        discover: false,
        tls: None,
        login: None,
    };
    Ok(Source::Etcd {
        etcd,
        namespace: namespace.to_owned(),
    })
}

/// The header of basic authentication.
fn basic(login: &BasicAuth) -> String {
    api::BasicAuth::new(&login.username, login.password.expose()).header()
}

fn open(etcd: &Etcd, keys: &Keys) -> Result<EtcdStore, Failure> {
    EtcdStore::new(etcd_options(etcd, keys)).map_err(|error| Failure::error(error.to_string()))
}

fn silent(error: store::StoreError) -> Failure {
    Failure::new(ExitCode::Unreachable, format!("etcd: {error}"))
}

/// From the store's keys, whether any agent runs or not.
async fn from_etcd(etcd: &Etcd, keys: &Keys, scope: String) -> Result<Cluster, Failure> {
    let store = open(etcd, keys)?;
    let snapshot = Arc::new(store.read(keys.prefix()).await.map_err(silent)?);
    let json = |key: String| {
        let text = snapshot.value(&key)?;
        serde_json::from_str::<Value>(text).ok()
    };
    let document = api::cluster_document(keys, &snapshot, &scope)
        .map_err(|error| Failure::error(error.to_string()))?;
    let document = serde_json::from_value(document)
        .map_err(|error| Failure::error(format!("the members can't be understood: {error}")))?;
    let typed = |value: Value| serde_json::from_value(value).ok();
    Ok(Cluster {
        initialize: snapshot.value(&keys.initialize()).map(str::to_owned),
        document,
        config: json(keys.config()).and_then(typed),
        history: json(keys.history())
            .and_then(|value| serde_json::from_value(value).ok())
            .unwrap_or_default(),
        scope,
    })
}
