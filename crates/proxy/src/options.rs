//! What a proxy is told before it starts.
//!
//! It is plain data: whoever makes it has read the files and opened the store.

use crate::auth::Hba;
use crate::console::Right;
use crate::net::Keepalive;
use crate::peers::Presence;
use crate::service::UnixSocket;
use crate::tls::{ClientTls, ServerTls};
use crate::topology::{Doubt, Look};
use crate::users::Users;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use store::layout::Keys;
use tokio::sync::watch;

/// Everything about one proxy.
#[derive(Debug)]
pub struct Options {
    /// Where clients connect that want the primary.
    pub listen: Vec<SocketAddr>,
    /// Where clients connect that only read: a standby is meant.
    pub listen_read: Vec<SocketAddr>,
    /// The same on this machine.
    pub unix_sockets: Vec<UnixSocket>,
    /// Where a proxy that is started in this one's place finds it, and this one the one before.
    pub takeover: Option<PathBuf>,
    pub source: Source,
    /// What the cluster's other proxies are to know of this one.
    pub presence: Presence,
    pub pool_mode: PoolMode,
    pub users: Users,
    pub auth: AuthMethod,
    /// Rules of access; with them `auth` does not count.
    pub hba: Option<Hba>,
    /// Where users are looked for that `users` does not list.
    pub auth_query: Option<AuthQuery>,
    pub client_tls: ClientTls,
    pub server_tls: ServerTls,
    pub on_lossy_failover: OnLossyFailover,
    pub admins: Admins,
    pub limits: Limits,
}

/// Who may use the console.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admins {
    /// Users who may do everything there.
    pub everything: Vec<String>,
    /// Users who may look.
    pub look: Vec<String>,
}

impl Admins {
    /// At the console's databases, which are its own for everybody: who is not listed is turned away there.
    /// At a database of the console's. `pgbouncer` is its own, and turns away who is not listed; `standfast` may be a
    /// real one, too, and is that for everybody else.
    pub(crate) fn right_of(&self, user: &str, database: &str) -> Option<Right> {
        let is_in = |users: &[String]| users.iter().any(|one| one == user);
        match (is_in(&self.everything), is_in(&self.look)) {
            (true, _) => Some(Right::Everything),
            (false, true) => Some(Right::Look),
            (false, false) => (database == "pgbouncer").then_some(Right::Nothing),
        }
    }
}

/// A question to a server for what it knows of a user's password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthQuery {
    /// Who asks; must be among the users.
    pub user: String,
    /// Its first parameter is the name; it gives the name and the secret of one user, or nothing.
    pub query: String,
    /// Where it is asked; by default in the database that the client wants.
    pub database: Option<String>,
}

impl AuthQuery {
    /// Only a superuser may see this, and whoever a function lets see it. A password that has
    /// expired is none.
    pub const DEFAULT: &str = "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL \
        ELSE rolpassword END FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin";
}

impl Options {
    /// One that listens nowhere yet, with the defaults for the rest.
    pub fn new(source: Source, users: Users) -> Self {
        Self {
            listen: Vec::new(),
            listen_read: Vec::new(),
            unix_sockets: Vec::new(),
            takeover: None,
            source,
            presence: Presence::default(),
            pool_mode: PoolMode::default(),
            users,
            auth: AuthMethod::default(),
            hba: None,
            auth_query: None,
            client_tls: ClientTls::default(),
            server_tls: ServerTls::default(),
            on_lossy_failover: OnLossyFailover::default(),
            admins: Admins::default(),
            limits: Limits::default(),
        }
    }
}

/// From where the proxy knows which server is the primary.
#[derive(Debug, Clone)]
pub enum Source {
    /// The cluster's own store.
    Store { store: Arc<dyn Store>, keys: Keys },
    /// One server that is always meant, as HOST:PORT.
    Server(String),
    /// Several, of which one is the primary: each is asked every second.
    Servers {
        /// HOST:PORT.
        addresses: Vec<String>,
        /// Who asks; the users know the password.
        user: String,
        database: String,
    },
    /// Somebody else looks, and tells.
    Told {
        looks: watch::Receiver<Option<Arc<Look>>>,
        /// By which it is told that it is time to look again.
        doubt: Doubt,
        /// What can't be relied on, a sentence each.
        missing: &'static [&'static str],
    },
}

/// What is missing where servers are only looked at from outside.
const ONLY_LOOKED_AT: &[&str] = &[
    "an old primary that nobody has told of its successor takes writes until a look finds the newer timeline, up to a second later",
    "two servers that were promoted apart can't be told from each other when they are on the same timeline",
    "every change of the primary counts as one that may have lost commits",
];

impl Source {
    /// What can't be relied on with it, and why, a sentence each.
    pub fn missing(&self) -> &'static [&'static str] {
        match self {
            Self::Store { .. } => &[],
            Self::Server(_) => {
                &["nothing tells whether the server has lost what it had acknowledged"]
            }
            Self::Servers { .. } => ONLY_LOOKED_AT,
            Self::Told { missing, .. } => missing,
        }
    }

    pub(crate) fn doubt(&self) -> Doubt {
        match self {
            Self::Told { doubt, .. } => doubt.clone(),
            Self::Store { .. } | Self::Server(_) | Self::Servers { .. } => Doubt::default(),
        }
    }
}

/// How long a client keeps the server that it has got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PoolMode {
    /// As long as it is connected.
    #[default]
    Session,
    /// Until the end of its transaction.
    Transaction,
}

/// What kind of server a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    /// The primary.
    Write,
    /// A standby; the primary where there is none.
    Read,
    /// The primary, for questions of the proxy's own.
    Lookup,
}

/// How a client proves who it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AuthMethod {
    /// By SCRAM; a user of whom only an MD5 hash is known, by MD5.
    #[default]
    Scram,
    /// By MD5; a user of whom only a SCRAM verifier is known, by SCRAM.
    Md5,
    /// Not at all; the user must be listed all the same.
    Trust,
    /// By a certificate whose common name is the user's.
    Cert,
    /// By being that user of this machine; by a Unix socket only.
    Peer,
    /// Nobody is let in.
    Reject,
}

/// What becomes of sessions that were there before a failover that may have lost commits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnLossyFailover {
    /// They end: they may have read, or have been told of, what is no longer there.
    #[default]
    Disconnect,
    /// They go on as if nothing had happened, which is not safe.
    Continue,
}

/// How much, how many, how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of clients, in all.
    pub clients_max: usize,
    /// Of these, those that have not logged in yet.
    pub logins_max: usize,
    /// The same for each address; for each network of 64 bits, of version 6.
    pub address_logins_max: usize,
    /// Connections to the server for each pair of user and database.
    pub pool_size: usize,
    /// So many more of them for clients who have waited for [`Limits::reserve_after`].
    pub reserve_size: usize,
    /// Zero: nobody has waited for long enough.
    pub reserve_after: Duration,
    /// Connections that each pool keeps open, once somebody has used it.
    pub pool_size_min: usize,
    /// Connections to servers, in all.
    pub servers_max: usize,
    /// The same for each user.
    pub user_servers_max: Option<usize>,
    /// The same for each database.
    pub database_servers_max: Option<usize>,
    /// A standby that lags more than this, in bytes of WAL, is not read from.
    pub read_lag_bytes_max: u64,
    /// How long a request may wait for a server.
    pub hold_time: Duration,
    /// How many requests may wait because there is no primary.
    pub hold_clients: usize,
    /// How many bytes of requests may wait because there is no primary.
    pub hold_bytes: usize,
    /// From the accepted connection to the client's last word about who it is.
    pub login_time: Duration,
    /// How long connecting to a server and logging in may take.
    pub connect_time: Duration,
    /// Prepared statements that one server connection keeps in transaction mode.
    pub prepared_max: usize,
    /// A server connection that nobody used for so long is closed.
    pub server_idle: Duration,
    /// How long a peer may be gone before its connection is, on either side.
    pub keepalive: Keepalive,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients_max: 10_000,
            logins_max: 5_000,
            address_logins_max: 2_500,
            pool_size: 20,
            reserve_size: 0,
            reserve_after: Duration::from_secs(5),
            pool_size_min: 0,
            servers_max: usize::MAX,
            user_servers_max: None,
            database_servers_max: None,
            read_lag_bytes_max: 16 * 1024 * 1024,
            hold_time: Duration::from_secs(30),
            hold_clients: 10_000,
            hold_bytes: 256 * 1024 * 1024,
            login_time: Duration::from_secs(10),
            connect_time: Duration::from_secs(5),
            prepared_max: 200,
            server_idle: Duration::from_secs(600),
            keepalive: Keepalive::default(),
        }
    }
}
