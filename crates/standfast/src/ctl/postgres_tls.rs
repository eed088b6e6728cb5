//! TLS towards Postgres, as libpq's `sslmode` has it.
//!
//! **Invariant:** with `require` and above nothing is said in the clear, and with `verify-ca` and above nothing to a
//! server whose certificate no authority has signed.

use crate::exit::Failure;
use api::client::{Trust, TrustOptions};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{self, ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, client};

/// How to connect.
#[derive(Clone)]
pub(super) struct PostgresTls {
    pub(super) mode: SslMode,
    config: Arc<ClientConfig>,
}

impl PostgresTls {
    /// The environment goes before the configuration, as patronictl leaves both to libpq.
    pub(super) async fn of(configured: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let said = |key: &str| {
            let variable = std::env::var(format!("PG{}", key.to_uppercase())).ok();
            let variable = variable.filter(|value| !value.is_empty());
            variable.or_else(|| configured.get(key).cloned())
        };
        let (mode, trust) = meant(&said)?;
        let config = Trust::new(trust).tls().await;
        let config = config.map_err(|error| Failure::error(format!("TLS to Postgres: {error}")))?;
        Ok(Self { mode, config })
    }
}

fn meant(said: &dyn Fn(&str) -> Option<String>) -> Result<(SslMode, TrustOptions), Failure> {
    let authority = said("sslrootcert").filter(|file| file != "system");
    let word = said("sslmode").unwrap_or_else(|| "prefer".to_owned());
    let (mode, verifies, by_name) = match word.as_str() {
        "disable" => (SslMode::Disable, false, false),
        "allow" | "prefer" => (SslMode::Prefer, false, false),
        // As libpq has it: who names an authority means it.
        "require" => (SslMode::Require, authority.is_some(), false),
        "verify-ca" => (SslMode::Require, true, false),
        "verify-full" => (SslMode::Require, true, true),
        other => {
            let what = format!("{other:?} is no sslmode");
            return Err(Failure::usage(what)
                .hint("disable, allow, prefer, require, verify-ca or verify-full"));
        }
    };
    let own = said("sslcert").zip(said("sslkey"));
    Ok((
        mode,
        TrustOptions {
            authority: authority.map(PathBuf::from),
            own: own.map(|(certificate, key)| (certificate.into(), key.into())),
            passphrase: said("sslpassword").map(store::pem::Passphrase::new),
            insecure: !verifies,
            any_name: !by_name,
        },
    ))
}

impl MakeTlsConnect<Socket> for PostgresTls {
    type Stream = Stream;
    type TlsConnect = Towards;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Towards> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Towards {
            config: Arc::clone(&self.config),
            name,
        })
    }
}

/// A connection that is to be made.
pub(super) struct Towards {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsConnect<Socket> for Towards {
    type Stream = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let stream = TlsConnector::from(self.config).connect(self.name, socket);
            stream.await.map(Stream)
        })
    }
}

/// One that was made.
pub(super) struct Stream(client::TlsStream<Socket>);

impl tls::TlsStream for Stream {
    /// Patroni's tools know no `channel_binding`.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_mean_what_libpq_means() {
        for (mode, authority, expected) in [
            (None, None, "Prefer insecure"),
            (Some("disable"), None, "Disable insecure"),
            (Some("require"), None, "Require insecure"),
            (Some("require"), Some("/ca"), "Require any name"),
            (Some("verify-ca"), Some("/ca"), "Require any name"),
            (Some("verify-full"), Some("/ca"), "Require"),
            (Some("verify-full"), Some("system"), "Require"),
        ] {
            let said = |key: &str| match key {
                "sslmode" => mode.map(str::to_owned),
                "sslrootcert" => authority.map(str::to_owned),
                _ => None,
            };
            let (found, trust) = meant(&said).expect("a mode");
            let how = match (trust.insecure, trust.any_name) {
                (true, _) => " insecure",
                (false, true) => " any name",
                (false, false) => "",
            };
            assert_eq!(
                format!("{found:?}{how}"),
                expected,
                "{mode:?} {authority:?}"
            );
            assert_eq!(trust.authority.is_some(), authority == Some("/ca"));
        }
        assert!(meant(&|_| Some("perhaps".to_owned())).is_err());
    }
}
