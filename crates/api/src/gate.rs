//! Who may change something, by where a request comes from and how: Patroni's `allowlist` and `verify_client`.
//!
//! **Invariant:** what only reads is never turned away, but from a port that is for HTTPS only; the cluster's own token passes everywhere, as it proves more
//! than an address does.

use crate::auth;
use crate::body;
use crate::router::Context;
use crate::tls::VerifyClient;
use axum::Extension;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// To who comes by plain HTTP.
const HTTPS_ONLY: &str = "this port speaks HTTPS only: ask https://\n";

/// What the configuration says beside credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// From where something may be changed; empty: from everywhere.
    pub allowlist: Vec<Network>,
    /// The same by host name.
    pub allowed_names: Vec<String>,
    /// The members' own addresses are allowed too.
    pub allow_members: bool,
    /// Sent with every answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// `10.0.0.0/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor a network such as 10.0.0.0/8")]
pub struct BadNetwork(String);

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let bad = || BadNetwork(text.to_owned());
        let (address, bits) = match text.trim().split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| bad())?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        (bits <= all)
            .then_some(Self { address, bits })
            .ok_or_else(bad)
    }
}

impl Network {
    fn holds(&self, other: IpAddr) -> bool {
        let (mine, theirs, all) = match (self.address, other.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let differs: u128 = mine ^ theirs;
        // A shift by all 128 bits is none.
        differs.checked_shr(all - u32::from(self.bits)).unwrap_or(0) == 0
    }
}

/// How a connection came.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) context: Arc<Context>,
    pub(crate) from: IpAddr,
    /// By a certificate of its own.
    pub(crate) certified: bool,
    pub(crate) verify: VerifyClient,
    /// By plain HTTP where only HTTPS is spoken.
    pub(crate) misplaced: bool,
}

impl Arrival {
    /// What only reads, or comes with the cluster's own token.
    fn passes(&self, request: &Request) -> bool {
        let reads = matches!(
            *request.method(),
            Method::GET | Method::HEAD | Method::OPTIONS
        );
        let ours = auth::check(request.headers(), &self.context.options.token, None).is_ok();
        reads || ours
    }

    async fn denied(&self) -> Option<&'static str> {
        if !self.is_allowed().await {
            return Some("Access is denied");
        }
        let missing = self.verify != VerifyClient::None && !self.certified;
        missing.then_some("client certificate required")
    }

    async fn is_allowed(&self) -> bool {
        let gate = &self.context.options.gate;
        let open = gate.allowlist.is_empty() && gate.allowed_names.is_empty();
        if open && !gate.allow_members {
            return true;
        }
        let from = self.from.to_canonical();
        let mut names = gate.allowed_names.clone();
        let mut allowed = gate.allowlist.iter().any(|network| network.holds(from));
        if gate.allow_members {
            let served = self.context.served();
            for member in served.cluster.iter().flat_map(|it| it.members.values()) {
                match member.host.parse::<IpAddr>() {
                    Ok(address) => allowed |= address.to_canonical() == from,
                    Err(_) => names.push(member.host.clone()),
                }
            }
        }
        allowed || self.context.names.stand_for(&names, from).await
    }
}

/// Around every request of a connection.
pub(crate) async fn pass(
    Extension(arrival): Extension<Arrival>,
    request: Request,
    next: Next,
) -> Response {
    let refused = if arrival.misplaced {
        Some((StatusCode::BAD_REQUEST, HTTPS_ONLY))
    } else if arrival.passes(&request) {
        None
    } else {
        let why = arrival.denied().await;
        why.map(|why| (StatusCode::FORBIDDEN, why))
    };
    let mut response = match refused {
        Some((status, why)) => body::text(status, why),
        None => next.run(request).await,
    };
    for (name, value) in &arrival.context.options.gate.headers {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses() {
        for (network, address, holds) in [
            ("10.0.0.0/8", "10.200.1.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
        ] {
            let network: Network = network.parse().expect("a network");
            let address = address.parse().expect("an address");
            assert_eq!(network.holds(address), holds, "{network:?} {address}");
        }
        for bad in ["", "host", "10.0.0.0/33", "10.0.0.0/", "::/129", "1.2.3"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
