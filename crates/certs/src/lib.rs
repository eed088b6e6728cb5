//! Certificates and keys from files, and whom to believe over TLS.
//!
//! It knows nothing of what is said then, nor who says it: the store's members, REST, the proxy and Postgres have their
//! own rules on top.
//! **Invariant:** nothing of a private key or its passphrase is ever printed.

mod error;
mod passphrase;
pub mod pem;
mod trust;

pub use error::{TlsError, before, moment, since};
pub use passphrase::Passphrase;
pub use trust::{Trust, TrustError, TrustOptions};
