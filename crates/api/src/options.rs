//! What the API is made of.

use crate::auth::{BasicAuth, Token};
use crate::backlog::Backlog;
use crate::errand::Errand;
use crate::gate::Gate;
use crate::holding::Holding;
use crate::served::Served;
use crate::tls::Certificate;
use async_trait::async_trait;
use std::fmt::Debug;
use std::sync::Arc;
use store::layout::Keys;
use store::{Store, Tls};
use tokio::sync::{Notify, mpsc, watch};

/// Everything that [`crate::Api`] needs.
#[derive(Clone, Debug)]
pub struct Options {
    pub keys: Keys,
    pub store: Arc<dyn Store>,
    /// What callers prove themselves with; see [`Token::derive`].
    pub token: Token,
    /// Accepted beside the token, as Patroni's `restapi.authentication`.
    pub basic_auth: Option<BasicAuth>,
    pub served: watch::Receiver<Arc<Served>>,
    /// To the agent of this node; `None` on a monitor, which has no Postgres.
    pub errands: Option<mpsc::Sender<Errand>>,
    /// Told when the node's configuration is to be read again.
    pub reload: Arc<Notify>,
    /// For HTTPS, on the same port.
    pub certificate: Option<Certificate>,
    pub gate: Gate,
    /// The certificates that this node uses, by what for.
    pub certificates: Vec<(&'static str, Tls)>,
    /// Gives this node's word to a leader that has lost the store; `None` on a monitor.
    pub holding: Option<Arc<dyn Holding>>,
    /// Of this node's log; `None` where it has no queue.
    pub log: Option<Backlog>,
    /// The embedded store's members; `None` where the store is somebody else's (etcd).
    pub membership: Option<Arc<dyn Membership>>,
    pub not_taken: NotTaken,
}

/// What Postgres is never given of the cluster's configuration, and why.
#[derive(Clone, Copy, Debug)]
pub struct NotTaken {
    /// A parameter, by its name and value.
    pub parameter: fn(&str, &str) -> Option<&'static str>,
    /// A line of `pg_hba`, by itself and the major version: with it, all of them.
    pub pg_hba: fn(&str, u32) -> Option<String>,
    /// Of the cluster's Postgres.
    pub major: u32,
}

/// What the API asks of the embedded store's membership. An adapter over [`store::RaftStore`]; it may take its time:
/// answers are shown from the last list.
#[async_trait]
pub trait Membership: Debug + Send + Sync + 'static {
    async fn members(&self) -> Result<Vec<StoreMember>, String>;

    /// Takes a member that is gone for good out of the store's voters and learners.
    async fn remove(&self, name: &str) -> Result<(), String>;
}

/// A member of the embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreMember {
    pub name: String,
    pub address: String,
    /// A learner otherwise.
    pub voter: bool,
    /// Whether it leads the store (not: whether its Postgres is primary).
    pub leader: bool,
    /// Whether it was heard of lately; `None` where that is not known.
    pub reachable: Option<bool>,
}
