//! Which server is the primary, and since when.
//!
//! **Invariant:** what sessions see here was adopted by the gate before: when they learn of an
//! epoch, everything older is shut down.

mod cluster;
mod doubt;
mod ear;
mod judge;
mod reading;
mod servers;

pub use doubt::Doubt;
pub use judge::{Look, Sighting};

pub(crate) use ear::{Contact, Ear};
pub(crate) use reading::{Readers, choose};

use crate::auth::Credential;
use crate::gate::Gate;
use crate::options::Source;
use crate::pool::Pools;
use crate::users::Users;
use ha::{Epoch, Member};
use std::sync::Arc;
use tokio::sync::watch;

/// What is known of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topology {
    pub(crate) epoch: Epoch,
    /// Where the primary is, or the reason why there is none.
    pub(crate) primary: Result<Primary, String>,
    /// How many changes of the leader may have lost commits that were acknowledged, so far.
    pub(crate) losses: u64,
}

/// A server that takes writes, or will in a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Primary {
    pub(crate) name: String,
    /// HOST:PORT.
    pub(crate) address: String,
}

/// Where one connection is to lead.
#[derive(Debug, Clone)]
pub(crate) struct At {
    /// HOST:PORT.
    pub(crate) address: String,
    pub(crate) epoch: Epoch,
    /// What shuts the connection down when its time is over.
    pub(crate) gate: Arc<Gate>,
    pub(crate) kind: Kind,
}

/// What a server is to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It must take writes.
    Primary,
    /// Transactions are read-only unless the client says otherwise, whatever becomes of it.
    Standby,
    /// For who wanted a standby where there is none; likewise.
    PrimaryToRead,
}

/// Follows the changes.
pub(crate) type Seen = watch::Receiver<Arc<Topology>>;

impl Topology {
    fn unknown(why: &str) -> Self {
        Self {
            epoch: Epoch::NONE,
            primary: Err(why.to_owned()),
            losses: 0,
        }
    }
}

fn told_of(looks: watch::Receiver<Option<Arc<Look>>>, gate: Arc<Gate>, why: &str) -> Seen {
    let (sender, seen) = watch::channel(Arc::new(Topology::unknown(why)));
    tokio::spawn(judge::follow(looks, gate, sender));
    seen
}

/// HOST:PORT of a member.
fn address_of(member: &Member) -> String {
    match member.host.contains(':') {
        true => format!("[{}]:{}", member.host, member.port),
        false => format!("{}:{}", member.host, member.port),
    }
}

/// Follows the source for as long as somebody looks; `doubt` has it look again, where it must.
/// Must be called in a runtime.
pub(crate) fn follow(
    source: Source,
    doubt: &Doubt,
    gate: Arc<Gate>,
    pools: &Arc<Pools>,
    users: &Users,
    ear: &Arc<Ear>,
) -> (Seen, Readers) {
    for missing in source.missing() {
        tracing::warn!("the proxy's source of the primary can't promise everything: {missing}");
    }
    let (memory, readers) = reading::Memory::new();
    let seen = match source {
        Source::Server(address) => {
            // A server alone has one leadership, which never ends: it is told by its connections
            // alone whether it works.
            let epoch = Epoch(1);
            gate.adopt(epoch);
            let name = address.clone();
            let primary = Ok(Primary { name, address });
            let topology = Topology {
                epoch,
                primary,
                losses: 0,
            };
            watch::channel(Arc::new(topology)).1
        }
        Source::Servers {
            addresses,
            user,
            database,
        } => {
            let secret = users.secret(&user);
            let credential = secret.map_or(Credential::Nothing, Credential::of);
            let (told, looks) = watch::channel(None);
            let login = (user, database);
            tokio::spawn(servers::watch(
                addresses,
                Arc::clone(pools),
                login,
                credential,
                doubt.clone(),
                told,
            ));
            told_of(looks, gate, "no server has been asked yet")
        }
        Source::Told { looks, .. } => told_of(looks, gate, "nobody has looked yet"),
        Source::Store { store, keys } => {
            let (sender, seen) = watch::channel(Arc::new(Topology::unknown(cluster::UNHEARD)));
            let ear = Arc::clone(ear);
            tokio::spawn(cluster::follow(store, keys, gate, sender, memory, ear));
            seen
        }
    };
    (seen, readers)
}
