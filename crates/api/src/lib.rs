//! REST: Patroni's paths and documents, ours under `/api/v1/`, and metrics.
//!
//! **Invariant:** a read is answered from what the agent published last, in memory: a hung Postgres or a hung store
//! never hangs it. Only what changes something talks to the store, guarded and with an end.
//! **Invariant:** `/primary` says 200 only while Postgres is an open primary under a lease of the current epoch whose
//! deadline has not passed at the moment of the answer.
//!
//! It deliberately doesn't decide anything: it shows decisions and writes orders.

mod auth;
mod backlog;
mod body;
pub mod client;
mod clock;
pub mod errand;
mod error;
pub mod event;
mod gate;
pub mod holding;
mod membership;
mod names;
mod office;
mod options;
mod order;
mod patroni;
mod plain;
mod router;
mod served;
mod server;
mod show;
mod tls;
mod unique;
pub mod v1;

pub use auth::{BasicAuth, Token};
pub use backlog::Backlog;
pub use body::spaced;
pub use error::Refusal;
pub use event::{Event, record_event};
pub use gate::{BadNetwork, Gate, Network};
pub use options::{Membership, NotTaken, Options, StoreMember};
pub use order::{Due, due, register};
pub use patroni::{cluster_document, replication_state};
pub use plain::serve_metrics;
pub use served::{Metric, MetricKind, ReplicationRow, Sample, Served};
pub use server::Api;
pub use tls::{Certificate, CertificateError, CertificateOptions, VerifyClient};
