//! The store as this process has it: a member of the embedded one, or a client of the user's etcd.
//!
//! **Invariant:** a node whose store is etcd runs no Raft member and opens no port for peers. Who founds a store alone
//! does so once: a second one beside that of the others would be a second cluster of the same name.

use super::certificates;
use super::membership::Members;
use super::threads::Elsewhere;
use crate::config::{
    BasicAuth, Config, Endpoint, Etcd, Raft, RaftStart, StoreChoice, write_private,
};
use crate::exit::Failure;
use crate::secret::ClusterSecret;
use anyhow::{Context as _, Result};
use ha::NodeName;
use std::sync::Arc;
use std::time::Duration;
use store::layout::Keys;
use store::{EtcdLogin, EtcdOptions, EtcdStore, RaftStore, Start, Store, StoreError, Tls};

/// In the state directory of a member that founded alone. It outlives the store's own directory, which is moved away
/// when the others have gone on without this member.
const FOUNDED: &str = "founded";

/// Clones are the same.
#[derive(Clone, Debug)]
pub(super) enum OwnStore {
    Raft(RaftStore),
    Etcd { client: EtcdStore, keys: Keys },
}

impl OwnStore {
    /// Its connections live on the store's thread. `tls`: the members' certificates, which are read already.
    pub(super) async fn open(
        config: &Config,
        secret: &ClusterSecret,
        tls: Option<Tls>,
        elsewhere: &Elsewhere,
    ) -> Result<Self> {
        match &config.store {
            StoreChoice::Raft(raft) => {
                refuse_second_founding(config, raft)?;
                let options = raft_options(config, raft, secret, tls);
                let started = elsewhere.store.spawn(RaftStore::start(options));
                let store = started.await?.context("embedded store")?;
                note_founding(config, raft)?;
                Ok(Self::Raft(store))
            }
            StoreChoice::Etcd(etcd) => {
                let keys = Keys::new(&config.namespace, &config.scope);
                if let Some(tls) = &etcd.tls {
                    tls.check().context("etcd3")?;
                }
                let options = etcd_options(etcd, &keys);
                let _there = elsewhere.store.enter();
                let client = EtcdStore::new(options).context("etcd3")?;
                Ok(Self::Etcd { client, keys })
            }
        }
    }

    pub(super) fn as_store(&self) -> Arc<dyn Store> {
        match self {
            Self::Raft(raft) => Arc::new(raft.clone()),
            Self::Etcd { client, .. } => Arc::new(client.clone()),
        }
    }

    /// The member that peers talk to.
    pub(super) fn member(&self) -> Option<&RaftStore> {
        match self {
            Self::Raft(raft) => Some(raft),
            Self::Etcd { .. } => None,
        }
    }

    pub(super) fn membership(&self) -> Option<Arc<dyn api::Membership>> {
        let member = self.member()?.clone();
        Some(Arc::new(Members(member)))
    }

    /// Waits until the store answers.
    pub(super) async fn ready(&self, within: Duration) -> Result<(), StoreError> {
        match self {
            Self::Raft(raft) => raft.ready(within).await,
            Self::Etcd { client, keys } => {
                let asked = async {
                    loop {
                        let read = client.read(&keys.leader()).await.map(drop);
                        match read {
                            Err(error) if error.is_retryable() => {
                                tracing::debug!(%error, "etcd does not answer yet");
                                tokio::time::sleep(Duration::from_millis(100)).await;
                            }
                            read => return read,
                        }
                    }
                };
                let late = || Err(StoreError::Unreachable("no member of etcd answers".into()));
                let asked = tokio::time::timeout(within, asked).await;
                match asked.unwrap_or_else(|_| late()) {
                    // Users and roles are changed while nodes run, and a Postgres that works is not stopped for it.
                    Err(StoreError::Denied(why)) => {
                        tracing::error!(
                            error = why,
                            "etcd refuses this node: check etcd3.username, its password, and that its role may read \
                             and write everything below the cluster's keys"
                        );
                        tokio::time::sleep(within).await;
                        Err(StoreError::Unreachable(why))
                    }
                    asked => asked,
                }
            }
        }
    }

    /// Ends when this process can't go on.
    pub(super) async fn failed(&self) -> StoreError {
        match self {
            Self::Raft(raft) => raft.failed().await,
            Self::Etcd { .. } => std::future::pending().await,
        }
    }

    /// What the store itself knows of the node `name` goes.
    pub(super) async fn forget(&self, name: &NodeName) -> Result<(), StoreError> {
        match self {
            Self::Raft(raft) => raft.remove_member(name).await,
            Self::Etcd { .. } => Ok(()),
        }
    }

    pub(super) async fn shutdown(&self) {
        if let Self::Raft(raft) = self {
            raft.shutdown().await;
        }
    }
}

fn refuse_second_founding(config: &Config, raft: &Raft) -> Result<(), Failure> {
    let note = config.state_dir.join(FOUNDED);
    let here = std::fs::read_dir(&raft.data_dir).is_ok_and(|mut files| files.next().is_some());
    if raft.start != RaftStart::Found || here || !note.exists() {
        return Ok(());
    }
    let what = format!(
        "{} founded the store of {} before, and {} is empty: founding another one would make a second cluster",
        config.name,
        config.scope,
        raft.data_dir.display()
    );
    let cure = format!(
        "to join the nodes that are left, write their REST addresses into {} as store.raft.join: [HOST:PORT, …]; if \
         nothing is left of that cluster, remove {}",
        config.file.display(),
        note.display()
    );
    Err(Failure::refused(what).hint(cure))
}

fn note_founding(config: &Config, raft: &Raft) -> Result<()> {
    let note = config.state_dir.join(FOUNDED);
    if raft.start != RaftStart::Found || note.exists() {
        return Ok(());
    }
    write_private(&note, b"").with_context(|| format!("can't write {}", note.display()))
}

/// Makes this node's member the only one of its store.
pub(super) async fn recover(config: &Config, raft: &Raft) -> Result<()> {
    let secret = ClusterSecret::of(config).context("cluster secret")?;
    let tls = certificates::load(config)?;
    RaftStore::recover(&raft_options(config, raft, &secret, tls))
        .await
        .context("embedded store")
}

fn raft_options(
    config: &Config,
    raft: &Raft,
    secret: &ClusterSecret,
    tls: Option<Tls>,
) -> store::Options {
    let start = match &raft.start {
        RaftStart::Found => Start::Found,
        RaftStart::Members(members) => Start::Members(
            members
                .iter()
                .map(|(name, address)| (name.clone(), address.to_string()))
                .collect(),
        ),
        RaftStart::Join(addresses) => {
            Start::Join(addresses.iter().map(Endpoint::to_string).collect())
        }
    };
    let options = store::Options::new(
        raft.data_dir.clone(),
        format!("{}/{}", config.namespace, config.scope),
        config.name.clone(),
        raft.advertise.to_string(),
        secret.for_store(),
        start,
    );
    store::Options { tls, ..options }
}

/// A client for the time before the node's own; `None`: the store is not etcd.
pub(super) fn etcd_client(config: &Config, elsewhere: &Elsewhere) -> Result<Option<EtcdStore>> {
    let StoreChoice::Etcd(etcd) = &config.store else {
        return Ok(None);
    };
    let keys = Keys::new(&config.namespace, &config.scope);
    let _there = elsewhere.store.enter();
    let client = EtcdStore::new(etcd_options(etcd, &keys)).context("etcd3")?;
    Ok(Some(client))
}

pub(crate) fn etcd_options(etcd: &Etcd, keys: &Keys) -> EtcdOptions {
    let members = etcd.members.iter().map(Endpoint::to_string).collect();
    let login = |login: &BasicAuth| EtcdLogin {
        user: login.username.clone(),
        password: login.password.expose().to_owned(),
    };
    EtcdOptions {
        srv: etcd.srv.clone(),
        discover: etcd.discover,
        tls: etcd.tls.clone(),
        login: etcd.login.as_ref().map(login),
        ..EtcdOptions::new(members, keys.prefix())
    }
}
