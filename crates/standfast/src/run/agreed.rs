//! The secret of a cluster whose files hold none: the first node that asks puts one into etcd, all others take it.
//!
//! A file of Patroni's may name no password at all. Who may read etcd can then read the secret, and is told so.
//!
//! **Invariant:** a node that has once had the secret starts with it again, whether etcd answers or not.

use super::store::etcd_client;
use super::threads::Elsewhere;
use crate::config::{Config, write_private};
use crate::secret::{ClusterSecret, withheld};
use anyhow::{Context as _, Result, bail};
use std::time::{Duration, Instant};
use store::layout::Keys;
use store::{EtcdStore, Outcome, Store as _, StoreError, Txn};

/// How often a store that does not answer is asked, and how often that is said.
const ASK_AGAIN: Duration = Duration::from_millis(500);
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// The cluster's secret, from wherever this node has it.
pub(super) async fn secret(config: &Config, elsewhere: &Elsewhere) -> Result<ClusterSecret> {
    match ClusterSecret::of(config) {
        Ok(secret) => return Ok(secret),
        Err(error) if ClusterSecret::is_to_be_agreed(config) => {
            tracing::debug!(%error, "no secret yet");
        }
        Err(error) => return Err(withheld(error)),
    }
    let Some(etcd) = etcd_client(config, elsewhere)? else {
        bail!("cluster secret: the store is not etcd");
    };
    let agreed = agree(&etcd, &key(config)).await?;
    let file = ClusterSecret::agreed_file(config);
    write_private(&file, format!("{agreed}\n").as_bytes())
        .with_context(|| format!("can't write {}", file.display()))?;
    ClusterSecret::of(config).context("cluster secret")
}

fn key(config: &Config) -> String {
    let keys = Keys::new(&config.namespace, &config.scope);
    format!("{}standfast/secret", keys.prefix())
}

async fn agree(etcd: &EtcdStore, key: &str) -> Result<String> {
    let mine = format!(
        "{:032x}{:032x}",
        rand::random::<u128>(),
        rand::random::<u128>()
    );
    let mut said: Option<Instant> = None;
    loop {
        let error = match offer(etcd, key, &mine).await {
            Ok(Some(agreed)) => return Ok(agreed),
            Ok(None) => continue,
            Err(error) => error,
        };
        if said.is_none_or(|at| at.elapsed() > SAY_AGAIN) {
            tracing::warn!(%error, "waiting for etcd, to agree on the cluster's secret");
            said = Some(Instant::now());
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The secret that is there, or ours if we were the first; `None`: somebody was quicker.
async fn offer(etcd: &EtcdStore, key: &str, mine: &str) -> Result<Option<String>, StoreError> {
    let snapshot = etcd.read(key).await?;
    if let Some(there) = snapshot.value(key) {
        return Ok(Some(there.to_owned()));
    }
    let txn = Txn::new()
        .when(snapshot.unchanged(key))
        .put(key.to_owned(), mine.to_owned());
    Ok(match etcd.commit(txn).await? {
        Outcome::Committed { .. } => Some(mine.to_owned()),
        Outcome::Refused => None,
    })
}
