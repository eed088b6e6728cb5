//! `etcd3`: Patroni's section, with its keys and their meaning.

use super::places::absolute_path;
use crate::config::section::{At, Section};
use crate::config::tree::Node;
use crate::config::values::Endpoint;
use crate::config::{BasicAuth, Etcd, Password};
use std::path::PathBuf;

/// As Patroni assumes it.
const PORT: u16 = 2379;

/// Where etcd is, as one of six keys says it; a domain may stand beside hosts.
struct Place {
    members: Vec<Endpoint>,
    srv: Option<store::EtcdSrv>,
    /// Whether they are the cluster's members, which name the others.
    discover: bool,
    /// A URL brings its own protocol along.
    https: Option<bool>,
}

pub(in crate::config) fn etcd(section: &Section<'_>) -> Option<Etcd> {
    let place = place(section);
    let https = protocol(section);
    let files = files(section);
    let login = login(section);
    section.finish(&["retry_timeout", "ttl"]);
    let place = place?;
    // A domain has names for either protocol. Which is meant is known before DNS is asked.
    let by_authority = place.srv.is_some() && section.is_given("cacert");
    let https = place.https.or(https?).unwrap_or(by_authority);
    let tls = tls(section, https, files)?;
    Some(Etcd {
        members: place.members,
        srv: place.srv,
        discover: place.discover,
        tls,
        login: login?,
    })
}

fn place(section: &Section<'_>) -> Option<Place> {
    let proxies = section.flag("use_proxies").unwrap_or(false);
    let (hosts, host) = (section.texts("hosts"), section.text("host"));
    let (url, proxy) = (section.text("url"), section.text("proxy"));
    let srv = srv(section);
    if let Some(proxy) = proxy {
        let (member, https) = from_url(section, "proxy", &proxy)?;
        return Some(Place {
            members: vec![member],
            srv: None,
            discover: false,
            https: Some(https),
        });
    }
    if let Some(url) = url {
        let (member, https) = from_url(section, "url", &url)?;
        return Some(Place {
            members: vec![member],
            srv: None,
            discover: !proxies,
            https: Some(https),
        });
    }
    let srv = srv?;
    let (key, named) = match host {
        None if hosts.is_empty() && srv.is_some() => ("srv", Vec::new()),
        _ if !hosts.is_empty() => ("hosts", hosts),
        Some(host) => ("host", vec![host]),
        // Of the wrong type, which was said; an empty list has the right one.
        None if (section.is_given("hosts") || section.is_given("host"))
            && !is_empty_list(section) =>
        {
            return None;
        }
        None => {
            section.missing("hosts", "the members of etcd, as a list of HOST:PORT");
            return None;
        }
    };
    let mut members: Vec<Endpoint> = Vec::new();
    for text in named {
        for one in text.value.split(',').map(str::trim) {
            if one.is_empty() {
                continue;
            }
            let member = endpoint(section, key, text.line, one)?;
            if !members.contains(&member) {
                members.push(member);
            }
        }
    }
    if members.is_empty() && srv.is_none() {
        section.missing("hosts", "the members of etcd, as a list of HOST:PORT");
        return None;
    }
    Some(Place {
        members,
        srv,
        discover: !proxies,
        https: None,
    })
}

/// `Some(None)`: not said; `None`: wrong.
#[allow(clippy::option_option, reason = "absent and wrong are two things")]
fn srv(section: &Section<'_>) -> Option<Option<store::EtcdSrv>> {
    let (domain, suffix) = (section.text("srv"), section.text("srv_suffix"));
    let Some(domain) = domain else {
        if let Some(suffix) = suffix {
            section.warning(suffix.line, "srv_suffix", "has no effect without `srv`");
        }
        return Some(None);
    };
    let is_label = |label: &str| {
        let known = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '_';
        (1..=63).contains(&label.len()) && label.chars().all(known)
    };
    let name = domain.value.trim_end_matches('.').to_owned();
    if !name.split('.').all(is_label) {
        let what = format!("{:?} is no domain", domain.value);
        section.error(domain.line, "srv", what);
        return None;
    }
    if let Some(suffix) = suffix.as_ref().filter(|it| !is_label(&it.value)) {
        let what = format!("{:?} is no part of a name in DNS", suffix.value);
        section.error(suffix.line, "srv_suffix", what);
        return None;
    }
    Some(Some(store::EtcdSrv {
        domain: name,
        suffix: suffix.map(|it| it.value),
    }))
}

fn is_empty_list(section: &Section<'_>) -> bool {
    let hosts = section.value("hosts").map(|tree| &tree.node);
    matches!(hosts, Some(Node::List(items)) if items.is_empty())
}

/// A port may be left out.
fn endpoint(section: &Section<'_>, key: &str, line: u64, text: &str) -> Option<Endpoint> {
    let bare = text
        .rsplit_once(':')
        .is_none_or(|(_, port)| port.ends_with(']'));
    let parsed = match bare {
        true => format!("{text}:{PORT}").parse::<Endpoint>(),
        false => text.parse(),
    };
    match parsed {
        Ok(member) if !member.is_any() => Some(member),
        Ok(_) => {
            section.error(line, key, format!("{text:?} names no machine"));
            None
        }
        Err(bad) => {
            section.error(line, key, bad.to_string());
            None
        }
    }
}

fn from_url(section: &Section<'_>, key: &str, url: &At<String>) -> Option<(Endpoint, bool)> {
    let https = url.value.starts_with("https://");
    let rest = url.value.strip_prefix("https://");
    let Some(rest) = rest.or_else(|| url.value.strip_prefix("http://")) else {
        section.error(url.line, key, "must begin with http:// or https://");
        return None;
    };
    if rest.contains('@') {
        section.error(
            url.line,
            key,
            "must not hold a user: there are username and password",
        );
        return None;
    }
    let address = rest.split('/').next().unwrap_or(rest);
    Some((endpoint(section, key, url.line, address)?, https))
}

/// `Some(None)`: not said; `None`: wrong.
#[allow(clippy::option_option, reason = "absent and wrong are two things")]
fn protocol(section: &Section<'_>) -> Option<Option<bool>> {
    let Some(protocol) = section.text("protocol") else {
        return Some(None);
    };
    match protocol.value.as_str() {
        "http" => Some(Some(false)),
        "https" => Some(Some(true)),
        other => {
            let what = format!("{other:?} is neither http nor https");
            section.error(protocol.line, "protocol", what);
            None
        }
    }
}

/// `cacert`, `cert`, `key`.
type Files = [Option<PathBuf>; 3];

fn files(section: &Section<'_>) -> Files {
    ["cacert", "cert", "key"].map(|key| absolute_path(section, key))
}

/// An encrypted connection to nobody knows whom is refused: it would look safe.
#[allow(clippy::option_option, reason = "absent and wrong are two things")]
fn tls(section: &Section<'_>, https: bool, files: Files) -> Option<Option<store::EtcdTls>> {
    let given = |key| section.is_given(key);
    if !https {
        for key in ["cacert", "cert", "key"] {
            if given(key) {
                let line = section
                    .value(key)
                    .map_or_else(|| section.line(), |tree| tree.line);
                section.warning(line, key, "has no effect without `protocol: https`");
            }
        }
        return Some(None);
    }
    let [authority, certificate, key] = files;
    if !given("cacert") {
        let what = "the certificate in PEM that signed those of etcd; for a public authority, the system's bundle";
        section.missing("cacert", what);
    }
    let client = match (given("cert"), given("key")) {
        (false, false) => None,
        (true, false) => {
            section.missing("key", "the private key of cert, in PEM");
            return None;
        }
        (false, true) => {
            section.missing("cert", "the certificate that the key belongs to, in PEM");
            return None;
        }
        (true, true) => Some((certificate?, key?)),
    };
    Some(Some(store::EtcdTls {
        authority: authority?,
        client,
    }))
}

#[allow(clippy::option_option, reason = "absent and wrong are two things")]
fn login(section: &Section<'_>) -> Option<Option<BasicAuth>> {
    match (section.text("username"), section.text("password")) {
        (None, None) => Some(None),
        (Some(username), Some(password)) => Some(Some(BasicAuth {
            username: username.value,
            password: Password::new(password.value),
        })),
        (Some(_), None) => {
            section.missing("password", "etcd lets nobody in by the name alone");
            None
        }
        (None, Some(_)) => {
            section.missing("username", "a password belongs to one");
            None
        }
    }
}
