//! TLS towards another Postgres, as libpq's `sslmode` has it.
//!
//! **Invariant:** with `require` and above nothing is said in the clear, and with `verify-ca` and above nothing to a
//! server whose certificate no authority has signed.
//!
//! It reads what libpq reads of `sslmode`, `sslrootcert`, `sslcert`, `sslkey` and `sslpassword`, and of the files in
//! `~/.postgresql`; it knows no lists of revoked certificates and no channel binding.

use certs::{Passphrase, Trust, TrustError, TrustOptions};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode as Wanted;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{self, ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, client};

/// How to connect. Clones read the same files.
#[derive(Clone, Debug)]
pub struct Tls {
    mode: Mode,
    /// The certificate must be for the very name that was asked.
    by_name: bool,
    trust: Trust,
}

/// Libpq's modes, as far as they differ before there are certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
}

/// A word that is no `sslmode`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no sslmode")]
pub struct BadSslMode(pub String);

impl BadSslMode {
    /// What it may be.
    pub const MODES: &str = "disable, allow, prefer, require, verify-ca or verify-full";
}

/// With the files that there are now.
#[derive(Clone)]
pub struct Connector {
    mode: Mode,
    by_name: bool,
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connector({:?})", self.mode)
    }
}

impl Tls {
    /// What `said` of libpq's parameters, with what lies in `~/.postgresql` for what it does not say.
    ///
    /// # Errors
    /// There is no such `sslmode`.
    pub fn meant(said: impl Fn(&str) -> Option<String>) -> Result<Self, BadSslMode> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let (mode, by_name, trust) = meant(&said, home.as_deref())?;
        Ok(Self {
            mode,
            by_name,
            trust: Trust::new(trust),
        })
    }

    /// Reads the files.
    ///
    /// # Errors
    /// They can't be used.
    pub async fn connector(&self) -> Result<Connector, TrustError> {
        Ok(Connector {
            mode: self.mode,
            by_name: self.by_name,
            config: self.trust.tls().await?,
        })
    }

    /// Whether there is nothing to read.
    pub(crate) fn is_disabled(&self) -> bool {
        self.mode == Mode::Disable
    }

    /// Whether nothing may be said in the clear.
    pub(crate) fn is_required(&self) -> bool {
        self.mode == Mode::Require
    }
}

fn meant(
    said: &dyn Fn(&str) -> Option<String>,
    home: Option<&Path>,
) -> Result<(Mode, bool, TrustOptions), BadSslMode> {
    let usual = |name: &str| {
        let file = home?.join(".postgresql").join(name);
        file.exists().then_some(file)
    };
    let file = |key: &str, name: &str| match said(key) {
        Some(file) => Some(PathBuf::from(file)),
        None => usual(name),
    };
    let authority = file("sslrootcert", "root.crt").filter(|file| file.as_os_str() != "system");
    let word = said("sslmode").unwrap_or_else(|| "prefer".to_owned());
    let (mode, verifies, by_name) = match word.as_str() {
        "disable" => (Mode::Disable, false, false),
        "allow" => (Mode::Allow, false, false),
        "prefer" => (Mode::Prefer, false, false),
        // As libpq has it: who names an authority means it.
        "require" => (Mode::Require, authority.is_some(), false),
        "verify-ca" => (Mode::Require, true, false),
        "verify-full" => (Mode::Require, true, true),
        _ => return Err(BadSslMode(word)),
    };
    let own = file("sslcert", "postgresql.crt").zip(file("sslkey", "postgresql.key"));
    let trust = TrustOptions {
        authority,
        own,
        passphrase: said("sslpassword").map(Passphrase::new),
        insecure: !verifies,
        any_name: !by_name,
    };
    Ok((mode, by_name, trust))
}

impl Connector {
    /// Connects as `config` says, in the clear where that is allowed and nothing else works.
    ///
    /// # Errors
    /// Nobody lets us in.
    pub async fn connect(
        &self,
        config: &Config,
    ) -> Result<(Client, Connection<Socket, Stream>), tokio_postgres::Error> {
        let (first, second) = match self.mode {
            Mode::Disable => (Wanted::Disable, None),
            Mode::Allow => (Wanted::Disable, Some(Wanted::Require)),
            Mode::Prefer => (Wanted::Prefer, Some(Wanted::Disable)),
            Mode::Require => (Wanted::Require, None),
        };
        let attempt = |wanted| {
            let mut config = config.clone();
            config.ssl_mode(wanted);
            let this = self.clone();
            async move { config.connect(this).await }
        };
        match (attempt(first).await, second) {
            // The handshake failed, or no line of pg_hba.conf is for such a connection.
            (Err(error), Some(other)) if is_about_tls(&error) => {
                attempt(other).await.map_err(|then| match then.code() {
                    Some(_) => then,
                    None => error,
                })
            }
            (connected, _) => connected,
        }
    }
}

fn is_about_tls(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        None => !error.is_closed(),
    }
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Stream;
    type TlsConnect = Towards;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Towards> {
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            Err(error) if self.by_name => return Err(io::Error::other(error)),
            // It is looked at by nobody.
            Err(_) => ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into()),
        };
        Ok(Towards {
            config: Arc::clone(&self.config),
            name,
        })
    }
}

/// A connection that is to be made.
#[derive(Debug)]
pub struct Towards {
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
#[derive(Debug)]
pub struct Stream(client::TlsStream<Socket>);

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
            (Some("allow"), None, "Allow insecure"),
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
            let (found, _, trust) = meant(&said, None).expect("a mode");
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
        assert!(meant(&|_| Some("perhaps".to_owned()), None).is_err());
    }

    #[test]
    fn files_of_the_home_are_taken_where_none_are_named() {
        let home = tempfile::tempdir().expect("a directory");
        let dir = home.path().join(".postgresql");
        std::fs::create_dir(&dir).expect("a directory");
        for name in ["root.crt", "postgresql.crt", "postgresql.key"] {
            std::fs::write(dir.join(name), "").expect("a file");
        }
        let required = |key: &str| (key == "sslmode").then(|| "require".to_owned());
        let (_, _, trust) = meant(&required, Some(home.path())).expect("a mode");
        assert_eq!(trust.authority, Some(dir.join("root.crt")));
        assert_eq!(
            trust.own,
            Some((dir.join("postgresql.crt"), dir.join("postgresql.key")))
        );
        assert!(!trust.insecure, "who has an authority means it");
        let named = |key: &str| (key == "sslrootcert").then(|| "/ca".to_owned());
        let (_, _, trust) = meant(&named, Some(home.path())).expect("a mode");
        assert_eq!(trust.authority, Some("/ca".into()));
    }
}
