//! From what a file says to what a proxy is told: names are looked up, files read.

use super::descriptors::{self, Own};
use super::patroni;
use crate::config::{Endpoint, ProxySection, ProxySource};
use crate::run::etcd_options;
use ::proxy::{ClientTls, Hba, Options, Presence, ServerTls, Source, Users};
use anyhow::{Context as _, Result};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use store::layout::Keys;
use store::{EtcdStore, RemoteOptions, RemoteStore, Secret, Store, Tls};
use tokio::net::lookup_host;

/// Reads the files that the section names. Blocks for as long as a disk does.
pub(crate) async fn options(section: &ProxySection, source: Source, own: Own) -> Result<Options> {
    let (users, hba) = (users(section)?, hba(section)?);
    let mut limits = section.limits;
    descriptors::fit(&mut limits, own)?;
    Ok(Options {
        listen: addresses(&section.listen).await?,
        listen_read: match &section.listen_read {
            Some(listen) => addresses(listen).await?,
            None => Vec::new(),
        },
        presence: Presence {
            name: hostname(),
            address: section.connect_address.as_ref().map(Endpoint::to_string),
        },
        unix_sockets: section.unix_socket.iter().cloned().collect(),
        takeover: section.takeover.clone(),
        pool_mode: section.pool_mode,
        auth: section.auth,
        hba,
        auth_query: section.auth_query.clone(),
        client_tls: client_tls(section).context("proxy.client_tls")?,
        server_tls: server_tls(section).context("proxy.server_tls")?,
        on_lossy_failover: section.on_lossy_failover,
        admins: section.admins.clone(),
        limits,
        ..Options::new(source, users)
    })
}

pub(crate) fn users(section: &ProxySection) -> Result<Users> {
    let file = &section.users_file;
    let users = Users::parse(&text(file)?);
    users.with_context(|| file.display().to_string())
}

pub(crate) fn hba(section: &ProxySection) -> Result<Option<Hba>> {
    let Some(file) = &section.hba_file else {
        return Ok(None);
    };
    let hba = Hba::parse(&text(file)?);
    hba.map(Some).with_context(|| file.display().to_string())
}

pub(crate) fn client_tls(section: &ProxySection) -> Result<ClientTls> {
    Ok(ClientTls::load(&section.client_tls)?)
}

pub(crate) fn server_tls(section: &ProxySection) -> Result<ServerTls> {
    Ok(ServerTls::load(&section.server_tls)?)
}

fn text(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))
}

/// What the machine is called.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| "proxy".to_owned(), |name| name.trim().to_owned())
}

/// All addresses that a host stands for; `*` is every one of the machine.
pub(super) async fn addresses(listen: &Endpoint) -> Result<Vec<SocketAddr>> {
    let host = match listen.host.as_str() {
        "*" => "0.0.0.0",
        host => host,
    };
    let found = lookup_host((host, listen.port)).await;
    let found = found.with_context(|| format!("can't look up {listen}"))?;
    Ok(found.collect())
}

/// Must be called in a runtime.
pub(crate) fn source(source: ProxySource) -> Result<Source> {
    let (store, keys): (Arc<dyn Store>, Keys) = match source {
        ProxySource::Server(server) => return Ok(Source::Server(server.to_string())),
        ProxySource::Servers {
            servers,
            user,
            database,
        } => {
            return Ok(Source::Servers {
                addresses: servers.iter().map(Endpoint::to_string).collect(),
                user,
                database,
            });
        }
        ProxySource::Patroni { urls, trust } => return Ok(patroni::source(urls, trust)),
        ProxySource::Raft {
            scope,
            namespace,
            members,
            secret_file,
            tls,
        } => {
            let addresses = members.iter().map(Endpoint::to_string).collect();
            let secret = Secret::read(&secret_file).context("cluster secret")?;
            let cluster = format!("{namespace}/{scope}");
            let tls = tls.map(Tls::load).transpose().context("store.raft.tls")?;
            let options = RemoteOptions {
                tls,
                ..RemoteOptions::new(addresses, cluster, secret)
            };
            let keys = Keys::new(&namespace, &scope);
            (Arc::new(RemoteStore::new(options)), keys)
        }
        ProxySource::Etcd {
            scope,
            namespace,
            etcd,
        } => {
            let keys = Keys::new(&namespace, &scope);
            let client = EtcdStore::new(etcd_options(&etcd, &keys)).context("etcd3")?;
            (Arc::new(client), keys)
        }
    };
    Ok(Source::Store { store, keys })
}
