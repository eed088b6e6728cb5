//! The proxy: clients connect here, and what becomes of the servers is not their business.
//!
//! It knows from the cluster's store who the primary is, passes what clients ask on to it, and carries
//! them over a failover: those that can be moved without their noticing, the others with an error
//! that says what happened.
//!
//! **Invariant:** no byte of a server of an older epoch reaches a client once a newer epoch is known.
//!
//! **Invariant:** no statement that may have run is run again, and a COMMIT is never sent to another
//! server than its transaction.
//!
//! It does not know how leaders are chosen; it reads who is.

mod options;
mod users;

mod service;

mod session;

mod hold;
mod journal;
mod pool;
mod prepared;
mod sql;

mod console;
mod pause;
mod stats;

mod gate;
mod topology;

mod anteroom;
mod auth;
mod cancel;
mod errors;
mod net;
mod peers;
mod seldom;
mod swap;
mod tls;

pub use auth::{BadRule, Hba};
pub use net::Keepalive;
pub use options::{
    Admins, AuthMethod, AuthQuery, Limits, OnLossyFailover, Options, PoolMode, Source,
};
pub use peers::Presence;
pub use service::{Handle, Place, Proxy, StartError, UnixSocket};
pub use tls::{ClientTls, ServerTls, SslMode, TlsFiles, TlsFilesError};
pub use topology::{Doubt, Look, Sighting};
pub use users::{BadLine, Secret, Users};
