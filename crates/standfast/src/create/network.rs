//! Host names and ports of a new node.

use crate::config::{Endpoint, is_loopback};
use crate::exit::Failure;
use std::net::{TcpListener, ToSocketAddrs, UdpSocket};

/// Where the API of a node with Postgres is looked for first: this far above Postgres's port.
const API_ABOVE_POSTGRES: u16 = 1000;
/// How many ports are tried.
const TRIED: u16 = 100;

/// Where to listen so that `host` leads here: the loopback address itself, or every address.
pub(super) fn listen_host(host: &str) -> String {
    if !is_loopback(host) {
        return "0.0.0.0".to_owned();
    }
    if host == "localhost" {
        "127.0.0.1".to_owned()
    } else {
        host.to_owned()
    }
}

/// Why `host` may lead nobody here, if it looks like that from here. Behind a translated address it may be right all
/// the same.
pub(super) fn doubt(host: &str) -> Option<String> {
    let addresses: Vec<_> = match (host, 0).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Some(format!("--hostname {host} can't be resolved here: {error}")),
    };
    let ours = addresses.iter().any(|address| {
        !TcpListener::bind(address)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::AddrNotAvailable)
    });
    let what = || format!("--hostname {host} is no address of this machine");
    (!ours).then(what)
}

/// Whether we can listen there.
pub(super) fn is_free(endpoint: &Endpoint) -> std::io::Result<bool> {
    match TcpListener::bind((endpoint.host.as_str(), endpoint.port)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Ok(false),
        Err(error) => Err(error),
    }
}

/// The first free port for a node's API.
pub(super) fn api_port(host: &str, pgport: u16) -> Result<u16, Failure> {
    let first = pgport
        .checked_add(API_ABOVE_POSTGRES)
        .unwrap_or(pgport - API_ABOVE_POSTGRES);
    let last = first.saturating_add(TRIED);
    for port in first..=last {
        let endpoint = Endpoint::new(host, port);
        match is_free(&endpoint) {
            Ok(true) => return Ok(port),
            Ok(false) => {}
            Err(error) => {
                return Err(Failure::error(format!(
                    "can't listen on {endpoint}: {error}"
                )));
            }
        }
    }
    Err(Failure::error(format!(
        "no port between {first} and {last} is free for the node's API"
    )))
}

/// The address of ours that `monitor` sees. Nothing is sent for it.
pub(super) fn address_towards(monitor: &Endpoint) -> Option<String> {
    let target = (monitor.host.as_str(), monitor.port)
        .to_socket_addrs()
        .ok()?
        .next()?;
    let any = if target.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// The machine's own name.
pub(super) fn machine_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(text.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_name_is_listened_on_alone() {
        assert_eq!(listen_host("127.0.0.1"), "127.0.0.1");
        assert_eq!(listen_host("127.0.0.7"), "127.0.0.7");
        assert_eq!(listen_host("localhost"), "127.0.0.1");
        assert_eq!(listen_host("::1"), "::1");
        assert_eq!(listen_host("node-a.example"), "0.0.0.0");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_doubted() {
        assert_eq!(doubt("127.0.0.1"), None);
        assert_eq!(doubt("localhost"), None);
        // For documentation: nobody's.
        let elsewhere = doubt("192.0.2.7").unwrap_or_default();
        assert!(elsewhere.contains("no address of this"), "{elsewhere}");
        let nowhere = doubt("node.invalid").unwrap_or_default();
        assert!(nowhere.contains("can't be resolved"), "{nowhere}");
    }

    #[test]
    fn the_next_port_is_taken_when_the_first_is_not_free() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let found = api_port("127.0.0.1", port.wrapping_sub(API_ABOVE_POSTGRES)).unwrap();
        assert_ne!(found, port);
    }

    #[test]
    fn our_address_towards_loopback_is_loopback() {
        let towards = address_towards(&Endpoint::new("127.0.0.1", 6000));
        assert_eq!(towards.as_deref(), Some("127.0.0.1"));
    }
}
