//! The section `proxy`, in a file of its own or in a node's.

use super::limits::{count, limits, seconds, word, word_or};
use crate::config::read::{absolute_path, endpoint};
use crate::config::section::Section;
use crate::config::values::Endpoint;
use proxy::{
    Admins, AuthMethod, AuthQuery, Limits, OnLossyFailover, PoolMode, SslMode, TlsFiles, UnixSocket,
};
use std::path::PathBuf;
use std::time::Duration;

/// Longer paths are none to the kernel.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Complete, but for the files that it names: those are read when the proxy starts.
#[derive(Clone, Debug)]
pub(crate) struct ProxySection {
    pub(crate) listen: Endpoint,
    pub(crate) listen_read: Option<Endpoint>,
    /// Where the cluster's other proxies reach it, if that can't be told from the rest.
    pub(crate) connect_address: Option<Endpoint>,
    pub(crate) unix_socket: Option<UnixSocket>,
    pub(crate) takeover: Option<PathBuf>,
    pub(crate) pool_mode: PoolMode,
    pub(crate) users_file: PathBuf,
    pub(crate) auth: AuthMethod,
    /// With it `auth` does not count.
    pub(crate) hba_file: Option<PathBuf>,
    pub(crate) auth_query: Option<AuthQuery>,
    pub(crate) client_tls: TlsFiles,
    pub(crate) server_tls: TlsFiles,
    pub(crate) on_lossy_failover: OnLossyFailover,
    pub(crate) limits: Limits,
    pub(crate) admins: Admins,
    /// Where Prometheus finds the proxy's metrics.
    pub(crate) metrics_listen: Option<Endpoint>,
    /// Threads that serve clients, in a process of the proxy's own.
    pub(crate) threads: usize,
    /// How long transactions may go on when the proxy is told to stop.
    pub(crate) shutdown_time: Duration,
}

impl ProxySection {
    /// Complains of what something else listens on, which the key beside it names.
    pub(in crate::config) fn check_ports(
        &self,
        section: &Section<'_>,
        mut taken: Vec<(&'static str, Endpoint)>,
    ) {
        let own = [
            ("listen", "proxy.listen", Some(&self.listen)),
            (
                "listen_read",
                "proxy.listen_read",
                self.listen_read.as_ref(),
            ),
            (
                "metrics_listen",
                "proxy.metrics_listen",
                self.metrics_listen.as_ref(),
            ),
        ];
        for (key, path, wanted) in own {
            let Some(wanted) = wanted else { continue };
            if let Some((whose, other)) = taken.iter().find(|(_, other)| wanted.meets(other)) {
                let what =
                    format!("{wanted} is taken: {whose} is {other}, choose another port for one");
                section.refuse(key, what);
            }
            taken.push((path, wanted.clone()));
        }
    }
}

const SSL_MODES: [(&str, SslMode); 6] = [
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

/// `None` only after an error was noted.
pub(crate) fn proxy_section(section: &Section<'_>) -> Option<ProxySection> {
    let listen = endpoint(section, "listen");
    if !section.is_given("listen") {
        section.missing("listen", "HOST:PORT for clients, such as 127.0.0.1:6432");
    }
    let listen_read = match section.is_given("listen_read") {
        true => endpoint(section, "listen_read").map(Some),
        false => Some(None),
    };
    let connect_address = match section.is_given("connect_address") {
        true => endpoint(section, "connect_address").map(Some),
        false => Some(None),
    };
    let unix_socket = unix_socket(section, listen.as_ref());
    let takeover = match section.is_given("takeover_socket") {
        true => absolute_path(section, "takeover_socket").map(Some),
        false => Some(None),
    };
    let users_file = absolute_path(section, "users_file");
    if !section.is_given("users_file") {
        let what = "the file of those who may connect, a line each: \"user\" \"password\"";
        section.missing("users_file", what);
    }
    let pool_mode = word(
        section,
        "pool_mode",
        &[
            ("session", PoolMode::Session),
            ("transaction", PoolMode::Transaction),
        ],
    );
    let (auth, hba_file) = auth(section);
    let auth_query = auth_query(section);
    let client_tls = tls(
        section,
        [
            "client_tls_sslmode",
            "client_tls_cert_file",
            "client_tls_key_file",
            "client_tls_ca_file",
        ],
        SslMode::Disable,
    );
    if let Some(tls) = &client_tls
        && tls.mode != SslMode::Disable
        && tls.certificate.is_none()
    {
        let what = "the proxy's certificate: with client_tls_sslmode it needs one";
        section.missing("client_tls_cert_file", what);
    }
    let server_tls = tls(
        section,
        [
            "server_tls_sslmode",
            "server_tls_cert_file",
            "server_tls_key_file",
            "server_tls_ca_file",
        ],
        SslMode::Prefer,
    );
    let on_lossy_failover = word(
        section,
        "on_lossy_failover",
        &[
            ("disconnect", OnLossyFailover::Disconnect),
            ("continue", OnLossyFailover::Continue),
        ],
    );
    let limits = limits(section);
    let shutdown_time = seconds(section, "shutdown_time", Duration::from_secs(60));
    let admins = Admins {
        everything: names(section, "admin_users"),
        look: names(section, "stats_users"),
    };
    let metrics_listen = match section.is_given("metrics_listen") {
        true => endpoint(section, "metrics_listen").map(Some),
        false => Some(None),
    };
    let threads = count(section, "threads", 256, half_the_cores());
    section.finish(&[]);
    Some(ProxySection {
        listen: listen?,
        listen_read: listen_read?,
        connect_address: connect_address?,
        unix_socket: unix_socket?,
        takeover: takeover?,
        pool_mode: pool_mode?,
        users_file: users_file?,
        auth: auth?,
        hba_file: hba_file?,
        auth_query: auth_query?,
        client_tls: client_tls?,
        server_tls: server_tls?,
        on_lossy_failover: on_lossy_failover?,
        limits: limits?,
        admins,
        metrics_listen: metrics_listen?,
        threads: threads?,
        shutdown_time: shutdown_time?,
    })
}

/// A list, or PgBouncer's one text with commas.
fn names(section: &Section<'_>, key: &'static str) -> Vec<String> {
    let texts = section.texts(key);
    let names = texts.iter().flat_map(|text| text.value.split(','));
    let names = names.map(str::trim).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// The other half is the server's, which most often runs on the same machine. One thread does all that
/// PgBouncer does with its one, and hands nothing to another.
fn half_the_cores() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).max(1)
}

/// The outer `None`: after an error.
fn auth(section: &Section<'_>) -> (Option<AuthMethod>, Option<Option<PathBuf>>) {
    #[derive(Clone, Copy)]
    enum Kind {
        Plain(AuthMethod),
        Hba,
    }
    let kind = word_or(
        section,
        "auth_type",
        &[
            ("scram-sha-256", Kind::Plain(AuthMethod::Scram)),
            ("md5", Kind::Plain(AuthMethod::Md5)),
            ("cert", Kind::Plain(AuthMethod::Cert)),
            ("trust", Kind::Plain(AuthMethod::Trust)),
            ("hba", Kind::Hba),
        ],
        Kind::Plain(AuthMethod::Scram),
    );
    let file = absolute_path(section, "auth_hba_file");
    let given = section.is_given("auth_hba_file");
    match kind {
        None => (None, None),
        Some(Kind::Plain(auth)) => {
            if given {
                section.refuse("auth_hba_file", "counts with auth_type: hba only");
            }
            (Some(auth), (!given).then_some(None))
        }
        Some(Kind::Hba) => {
            if !given {
                section.missing("auth_hba_file", "the rules of auth_type: hba");
            }
            (Some(AuthMethod::Reject), file.map(Some))
        }
    }
}

/// The outer `None`: after an error.
fn auth_query(section: &Section<'_>) -> Option<Option<AuthQuery>> {
    let text = |key| section.text(key).map(|text| text.value);
    let (user, query) = (text("auth_user"), text("auth_query"));
    let database = text("auth_dbname");
    let Some(user) = user else {
        for key in ["auth_query", "auth_dbname"] {
            if section.is_given(key) {
                section.refuse(key, "counts with auth_user only: the user who asks");
                return None;
            }
        }
        return Some(None);
    };
    Some(Some(AuthQuery {
        user,
        query: query.unwrap_or_else(|| AuthQuery::DEFAULT.to_owned()),
        database,
    }))
}

fn tls(section: &Section<'_>, keys: [&'static str; 4], default: SslMode) -> Option<TlsFiles> {
    let [mode, certificate, key, authority] = keys;
    let mode = word_or(section, mode, &SSL_MODES, default);
    let file = |key: &'static str| match section.is_given(key) {
        false => Some(None),
        true => absolute_path(section, key).map(Some),
    };
    let files = (file(certificate), file(key), file(authority));
    let mode = mode?;
    if section.is_given(certificate) != section.is_given(key) {
        section.refuse(certificate, format!("and {key} belong together"));
        return None;
    }
    if mode.verifies() && !section.is_given(authority) {
        section.missing(authority, "whose certificates are believed");
        return None;
    }
    Some(TlsFiles {
        mode,
        certificate: files.0?,
        key: files.1?,
        authority: files.2?,
    })
}

/// Clients look for a file that is named by the port.
fn unix_socket(section: &Section<'_>, listen: Option<&Endpoint>) -> Option<Option<UnixSocket>> {
    let directory = absolute_path(section, "unix_socket_dir");
    let mode = section.text("unix_socket_mode");
    if !section.is_given("unix_socket_dir") {
        return Some(None);
    }
    let mode = match mode {
        None => 0o777,
        Some(text) => match u32::from_str_radix(&text.value, 8) {
            Ok(mode @ 0..=0o777) => mode,
            _ => {
                let what = "must be permissions in octal, such as \"0770\"";
                section.error(text.line, "unix_socket_mode", what);
                return None;
            }
        },
    };
    let path = directory?.join(format!(".s.PGSQL.{}", listen?.port));
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let what = format!("a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes");
        section.refuse("unix_socket_dir", what);
        return None;
    }
    Some(Some(UnixSocket { path, mode }))
}
