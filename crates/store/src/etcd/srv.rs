//! etcd's members by DNS: which names of a domain are asked for, and what they say.
//!
//! **Invariant:** whether connections are encrypted is the configuration's word, never DNS's: with TLS only the names
//! that mean TLS count, without it only the others.
//! It does not know what becomes of the members that it finds.

use super::dial::{self, Spoken};
use super::options::{EtcdSrv, EtcdTls};
use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, RecordType};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::timeout;

/// How long a DNS server has for one answer; it is asked twice.
const ANSWER: Duration = Duration::from_secs(1);
/// How long one of etcd's members has to name the others.
const MEMBERS: Duration = Duration::from_secs(1);
/// Of a list of members.
const MEMBERS_BYTES: usize = 1 << 20;

/// In the order in which Patroni asks for them: the service, and whether its port is for clients.
const SERVICES: [(&str, bool); 3] = [
    ("_etcd-client", true),
    ("_etcd", true),
    ("_etcd-server", false),
];

/// As the machine's `/etc/resolv.conf` is now. Blocks for a moment.
pub(super) fn resolver() -> Result<TokioResolver, String> {
    let text = |error: NetError| format!("/etc/resolv.conf: {}", told(&error));
    let mut builder = TokioResolver::builder_tokio().map_err(text)?;
    let options = builder.options_mut();
    options.timeout = ANSWER;
    options.attempts = 1;
    // Each look is a new one: what was true a moment ago is known already.
    options.cache_size = 0;
    builder.build().map_err(text)
}

/// `host:port` of those that are named, the preferred first; not empty.
pub(super) async fn look_up(
    resolver: &TokioResolver,
    srv: &EtcdSrv,
    tls: Option<&EtcdTls>,
) -> Result<Vec<String>, String> {
    let mut why = None;
    for (service, for_clients) in SERVICES {
        let name = name(service, tls.is_some(), srv);
        let named = match ask(resolver, &name).await {
            Ok(named) => named,
            // Nobody answers: neither for the next name.
            Err(trouble) if trouble.is_silence => return Err(trouble.why),
            Err(trouble) => {
                why.get_or_insert(trouble.why);
                continue;
            }
        };
        let found = match for_clients {
            true => named,
            false => told_by_peers(&named, tls, &mut why).await,
        };
        if !found.is_empty() {
            return Ok(found);
        }
    }
    if let Some(why) = why {
        return Err(why);
    }
    let mut text = format!("DNS names no {}", names(tls.is_some(), srv));
    for (service, _) in SERVICES {
        let other = name(service, tls.is_none(), srv);
        if !ask(resolver, &other).await.unwrap_or_default().is_empty() {
            let cure = match tls {
                None => "it means HTTPS, which needs etcd3.cacert",
                Some(_) => "it means HTTP, and etcd3 says HTTPS",
            };
            text = format!("{text}; there is {other}, but {cure}");
            break;
        }
    }
    Err(text)
}

fn name(service: &str, https: bool, srv: &EtcdSrv) -> String {
    let ssl = if https { "-ssl" } else { "" };
    let suffix = srv.suffix.as_ref().map(|it| format!("-{it}"));
    let suffix = suffix.unwrap_or_default();
    format!("{service}{ssl}{suffix}._tcp.{}", srv.domain)
}

fn names(https: bool, srv: &EtcdSrv) -> String {
    let all = SERVICES.map(|(service, _)| name(service, https, srv));
    all.join(", ")
}

/// Why a name could not be looked up.
#[derive(Debug)]
struct Trouble {
    why: String,
    /// No DNS server has said anything.
    is_silence: bool,
}

/// Empty: there is no such name.
async fn ask(resolver: &TokioResolver, name: &str) -> Result<Vec<String>, Trouble> {
    // With the dot at its end it is the whole name, whatever the machine's own domain is.
    let answer = match resolver.lookup(format!("{name}."), RecordType::SRV).await {
        Ok(answer) => answer,
        Err(error) if error.is_nx_domain() || error.is_no_records_found() => return Ok(Vec::new()),
        Err(error) => {
            return Err(Trouble {
                why: format!("DNS does not answer for {name}: {}", told(&error)),
                is_silence: !matches!(error, NetError::Dns(_)),
            });
        }
    };
    let mut named: Vec<_> = answer
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(it) => Some(it),
            _ => None,
        })
        // The root: the service is decidedly not there.
        .filter(|it| !it.target.is_root())
        .collect();
    named.sort_by_key(|it| (it.priority, std::cmp::Reverse(it.weight), it.target.clone()));
    let address = |host: String, port| format!("{}:{port}", host.trim_end_matches('.'));
    Ok(named
        .iter()
        .map(|it| address(it.target.to_ascii(), it.port))
        .collect())
}

/// What peers of etcd's say of all members' client addresses; the first that answers is believed.
async fn told_by_peers(
    peers: &[String],
    tls: Option<&EtcdTls>,
    why: &mut Option<String>,
) -> Vec<String> {
    for peer in peers {
        let answer = timeout(MEMBERS, members_at(peer, tls)).await;
        match answer.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(urls) => return addresses(&urls, peer, tls.is_some()),
            Err(error) => {
                why.get_or_insert_with(|| format!("etcd's members by {peer}: {error}"));
            }
        }
    }
    Vec::new()
}

/// A member, as etcd's port for its peers names it.
#[derive(Deserialize)]
struct Told {
    #[serde(rename = "clientURLs", default)]
    client_urls: Vec<String>,
}

async fn members_at(peer: &str, tls: Option<&EtcdTls>) -> Result<Vec<String>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = dial::tcp(peer).await?;
    let stream = dial::secured(stream, peer, tls, Spoken::Http1).await?;
    let (mut ask, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|it| text(&it))?;
    let request = Request::get("/members")
        .header(HOST, peer)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|it| text(&it))?;
    let asked = async {
        let answer = ask.send_request(request).await.map_err(|it| text(&it))?;
        if !answer.status().is_success() {
            return Err(format!("GET /members: {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), MEMBERS_BYTES).collect();
        Ok(body.await.map_err(|it| text(&it))?.to_bytes())
    };
    let body = tokio::select! {
        body = asked => body?,
        // It ends first only where the answer can't come any more.
        ended = connection => return Err(ended.map_or_else(|it| text(&it), |()| "closed".to_owned())),
    };
    let members: Vec<Told> = serde_json::from_slice(&body).map_err(|it| text(&it))?;
    Ok(members.into_iter().flat_map(|it| it.client_urls).collect())
}

/// `host:port` of those that we can use. `told_by`: who says so.
pub(super) fn addresses<'a>(
    urls: impl IntoIterator<Item = &'a String>,
    told_by: &str,
    https: bool,
) -> Vec<String> {
    let scheme = if https { "https://" } else { "http://" };
    urls.into_iter()
        .filter_map(|url| url.strip_prefix(scheme))
        .map(|address| address.trim_end_matches('/'))
        // etcd's default: true on its own machine only.
        .filter(|address| !dial::is_local(address) || dial::is_local(told_by))
        .map(str::to_owned)
        .collect()
}

/// With its sources: hickory's own sentence leaves out what is wrong.
fn told(error: &NetError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
