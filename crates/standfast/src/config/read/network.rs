//! `restapi` and `store.raft`: how a node is reached, and how it finds the others.

use super::places::{absolute_path, connected, endpoint};
use crate::config::section::Section;
use crate::config::values::{Endpoint, check_host};
use crate::config::{BasicAuth, Password, Raft, RaftStart, RestApi};
use ha::NodeName;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) fn restapi(root: &Section<'_>) -> Option<RestApi> {
    let section = root.section("restapi");
    let listen = endpoint(&section, "listen");
    let connect = endpoint(&section, "connect_address");
    let authentication = {
        let auth = section.section("authentication");
        let username = auth.text("username");
        let password = auth.text("password");
        auth.finish(&[]);
        match (username, password) {
            (Some(username), Some(password)) => Some(BasicAuth {
                username: username.value,
                password: Password::new(password.value),
            }),
            (None, None) => None,
            (Some(_), None) => {
                auth.missing("password", "a user name without one would let nobody in");
                None
            }
            (None, Some(_)) => {
                auth.missing("username", "a password belongs to one");
                None
            }
        }
    };
    let certificate = certificate(&section);
    let gate = gate(&section);
    section.finish(&[
        "ciphers",
        "https_extra_headers",
        "request_queue_size",
        "server_tokens",
    ]);
    let listen = match listen {
        Some(listen) => listen,
        None if section.is_present("listen") => return None,
        None => {
            section.missing(
                "listen",
                "HOST:PORT of the REST API, such as 127.0.0.1:8008",
            );
            return None;
        }
    };
    let connect_address = connected(&section, connect, &listen)?;
    Some(RestApi {
        listen,
        connect_address,
        authentication,
        certificate: certificate?,
        gate,
    })
}

/// HTTPS. `Some(None)`: none; `None`: something is wrong with it.
#[allow(clippy::option_option, reason = "absent and wrong are two things")]
fn certificate(section: &Section<'_>) -> Option<Option<api::CertificateOptions>> {
    let file = |key| section.is_given(key).then(|| absolute_path(section, key));
    let (certificate, key, authority) = (file("certfile"), file("keyfile"), file("cafile"));
    let verify = match section.text("verify_client") {
        None => api::VerifyClient::None,
        Some(text) => match text.value.as_str() {
            "none" => api::VerifyClient::None,
            "optional" => api::VerifyClient::Optional,
            "required" => api::VerifyClient::Required,
            _ => {
                section.refuse("verify_client", "must be none, optional or required");
                return None;
            }
        },
    };
    let plain_http = section.flag("plain_http").unwrap_or(false);
    let Some(certificate) = certificate else {
        if key.is_some() {
            section.missing("certfile", "the certificate that keyfile belongs to");
            return None;
        }
        return Some(None);
    };
    if verify != api::VerifyClient::None && authority.is_none() {
        section.missing("cafile", "verify_client needs the clients' authority");
        return None;
    }
    let certificate = certificate?;
    Some(Some(api::CertificateOptions {
        // Where only one file is named, it holds both.
        key: key.unwrap_or_else(|| Some(certificate.clone()))?,
        certificate,
        passphrase: super::trust::passphrase(section),
        authority: authority.map_or(Some(None), |path| path.map(Some))?,
        verify,
        plain_http,
    }))
}

/// From where something may be changed, and what every answer carries.
fn gate(section: &Section<'_>) -> api::Gate {
    let mut gate = api::Gate {
        allow_members: section.flag("allowlist_include_members").unwrap_or(false),
        ..api::Gate::default()
    };
    for text in section.texts("allowlist") {
        let name = text.value.trim();
        match name.parse() {
            Ok(network) => gate.allowlist.push(network),
            Err(_) if is_name(name) => gate.allowed_names.push(name.to_owned()),
            Err(bad) => section.error(text.line, "allowlist", format!("{bad}, nor a host name")),
        }
    }
    let headers = section.section("http_extra_headers");
    for (name, value) in headers.pairs() {
        match (name.parse(), value.value.parse()) {
            (Ok(parsed), Ok(text)) => gate.headers.push((parsed, text)),
            _ => headers.error(value.line, &name, "is no HTTP header"),
        }
    }
    gate
}

/// A host name, and not an address with a slip of the finger in it.
fn is_name(text: &str) -> bool {
    let last = text.trim_end_matches('.').rsplit('.').next();
    let word = last.is_some_and(|last| last.contains(|c: char| c.is_ascii_alphabetic()));
    word && !text.contains([':', '%']) && check_host(text).is_ok()
}

pub(super) fn raft(
    section: &Section<'_>,
    name: Option<&NodeName>,
    restapi: Option<&RestApi>,
    state_dir: &Path,
) -> Option<Raft> {
    let listen = endpoint(section, "listen");
    let advertise = endpoint(section, "advertise");
    let data_dir = absolute_path(section, "data_dir").unwrap_or_else(|| state_dir.join("raft"));
    let members = section.section("members");
    let start = start(section, &members);
    let tls = tls(section);
    section.finish(&[]);
    let advertise = match (advertise, &listen) {
        (Some(advertise), _) if advertise.is_any() => {
            section.refuse("advertise", "must name one address of this machine");
            return None;
        }
        (Some(advertise), _) => advertise,
        (None, Some(listen)) if listen.is_any() => {
            section.missing(
                "advertise",
                "the address under which the other members reach this one",
            );
            return None;
        }
        (None, Some(listen)) => listen.clone(),
        (None, None) => restapi?.connect_address.clone(),
    };
    if let (Some(name), Some(RaftStart::Members(listed))) = (name, &start) {
        is_listed(&members, name, &advertise, listed);
    }
    let tls = tls?.map(|tls| store::TlsOptions {
        host: Some(advertise.host.clone()),
        ..tls
    });
    Some(Raft {
        listen,
        advertise,
        tls,
        data_dir,
        start: start?,
    })
}

/// The others look for this node where their list says.
fn is_listed(
    members: &Section<'_>,
    name: &NodeName,
    advertise: &Endpoint,
    listed: &BTreeMap<NodeName, Endpoint>,
) {
    let line = || {
        let pairs = members.pairs();
        pairs
            .get(name.as_str())
            .map_or_else(|| members.line(), |at| at.line)
    };
    match listed.get(name) {
        None => {
            let what = format!("{name}, which is this node's name, is not among them");
            members.error(members.line(), "", what);
        }
        Some(there) if there != advertise => {
            let what = format!(
                "the others look for this node there, and it says itself that it is at {advertise}"
            );
            members.warning(line(), name.as_str(), what);
        }
        Some(_) => {}
    }
}

/// `Some(None)`: no TLS; `None`: something is wrong with it. A section that is there is never without effect.
#[allow(clippy::option_option, reason = "absent and wrong are two things")]
pub(in crate::config) fn tls(section: &Section<'_>) -> Option<Option<store::TlsOptions>> {
    if !section.is_present("tls") {
        return Some(None);
    }
    let tls = section.section("tls");
    let file = |key, what| {
        if !tls.is_given(key) {
            tls.missing(key, what);
        }
        absolute_path(&tls, key)
    };
    let certificate = file("cert_file", "this node's certificate, in PEM");
    let key = file("key_file", "the private key of the certificate, in PEM");
    let authority = file(
        "ca_file",
        "the certificate in PEM that signed every member's",
    );
    let required = match tls.is_given("required") {
        true => tls.flag("required"),
        false => Some(true),
    };
    tls.finish(&[]);
    Some(Some(store::TlsOptions {
        certificate: certificate?,
        key: key?,
        authority: authority?,
        host: None,
        required: required?,
    }))
}

/// Where a process that is no member finds one: those that are listed, or those to be asked to join.
pub(in crate::config) fn members_of_raft(section: &Section<'_>) -> Option<Vec<Endpoint>> {
    let members = section.section("members");
    let addresses = match start(section, &members)? {
        RaftStart::Members(members) => members.into_values().collect(),
        RaftStart::Join(addresses) => addresses,
        RaftStart::Found => Vec::new(),
    };
    if addresses.is_empty() {
        section.missing("members", "the addresses of the store's members, by name");
        return None;
    }
    Some(addresses)
}

fn start(section: &Section<'_>, members: &Section<'_>) -> Option<RaftStart> {
    let mut listed = BTreeMap::new();
    let mut sound = true;
    for (name, address) in members.pairs() {
        match (
            NodeName::new(name.clone()),
            address.value.parse::<Endpoint>(),
        ) {
            (Ok(node), Ok(endpoint)) => {
                listed.insert(node, endpoint);
            }
            (Err(bad), _) => {
                members.error(address.line, &name, bad.to_string());
                sound = false;
            }
            (_, Err(bad)) => {
                members.error(address.line, &name, bad.to_string());
                sound = false;
            }
        }
    }
    let mut join = Vec::new();
    for address in section.texts("join") {
        match address.value.parse() {
            Ok(endpoint) => join.push(endpoint),
            Err(bad) => {
                section.error(address.line, "join", format!("{bad}"));
                sound = false;
            }
        }
    }
    match (listed.is_empty(), join.is_empty()) {
        _ if !sound => None,
        (false, false) => {
            section.error(
                members.line(),
                "members",
                "either a fixed list of members or join, not both",
            );
            None
        }
        (false, true) if listed.len() % 2 == 0 || listed.len() > 5 => {
            let what = format!("{} voters: it must be one, three or five", listed.len());
            section.error(members.line(), "members", what);
            None
        }
        (false, true) => Some(RaftStart::Members(listed)),
        (true, false) => Some(RaftStart::Join(join)),
        (true, true) => Some(RaftStart::Found),
    }
}
