//! The small values that configuration and flags share.

use std::fmt;
use std::str::FromStr;

/// A host and a port, as in `10.0.0.1:5432` or `[::1]:5432`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadEndpoint {
    #[error("{0:?} has no port, write HOST:PORT")]
    NoPort(String),
    #[error("port {port:?} is not a number between 1 and 65535")]
    Port { port: String },
    #[error("{0:?} is not a host name or address")]
    Host(String),
    #[error("an IPv6 address stands in brackets, as in [::1]:5432")]
    Brackets,
}

impl Endpoint {
    pub(crate) fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// Whether the host means every address of the machine.
    pub(crate) fn is_any(&self) -> bool {
        matches!(self.host.as_str(), "*" | "0.0.0.0" | "::")
    }

    /// Whether two programs of one machine can't listen on both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let same = |name: &str| {
            if name == "localhost" {
                "127.0.0.1"
            } else {
                name
            }
            .to_owned()
        };
        // Only `::` means addresses of both kinds.
        let covers = |any: &Self, one: &Self| {
            any.is_any() && (any.host == "::" || !one.host.contains(':') || one.is_any())
        };
        let is_one = same(&self.host) == same(&other.host);
        self.port == other.port && (is_one || covers(self, other) || covers(other, self))
    }
}

/// A member's REST interface. It is shown without its scheme, as people type it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RestAddress {
    pub(crate) https: bool,
    pub(crate) endpoint: Endpoint,
}

impl RestAddress {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}", self.endpoint)
    }

    /// Of a URL with any path, or of `HOST:PORT`, which says nothing of how it is spoken to.
    pub(crate) fn parse(text: &str, https: bool) -> Result<Self, BadEndpoint> {
        let (https, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme == "https", rest),
            None => (https, text),
        };
        let place = rest.split('/').next().unwrap_or_default();
        let endpoint = place.parse()?;
        Ok(Self { https, endpoint })
    }
}

impl fmt::Display for RestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

/// `localhost`, `127.0.0.0/8` and `::1`.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Splits `HOST:PORT`; the host may be empty, a list, or `*`.
pub(crate) fn split_port(text: &str) -> Result<(&str, u16), BadEndpoint> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| BadEndpoint::NoPort(text.to_owned()))?;
    if host.ends_with(':') || (host.contains(':') && !host.contains('[') && !host.contains(',')) {
        return Err(BadEndpoint::Brackets);
    }
    Ok((host, parse_port(port)?))
}

pub(crate) fn parse_port(text: &str) -> Result<u16, BadEndpoint> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if plain { text.parse().ok() } else { None };
    number
        .filter(|port| *port > 0)
        .ok_or_else(|| BadEndpoint::Port {
            port: text.to_owned(),
        })
}

/// A host name or address, without anything that a connection string could read otherwise.
pub(crate) fn check_host(text: &str) -> Result<String, BadEndpoint> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    let address = bare.contains(':');
    if bare.is_empty()
        || bare.len() > 253
        || !bare.chars().all(plain)
        || bare.starts_with('-')
        || (address
            && bare
                .split('%')
                .next()
                .is_none_or(|ip| ip.parse::<std::net::Ipv6Addr>().is_err()))
    {
        return Err(BadEndpoint::Host(text.to_owned()));
    }
    Ok(bare.to_owned())
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;
    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let (host, port) = split_port(text)?;
        let host = match host {
            "" | "*" => "0.0.0.0".to_owned(),
            host => check_host(host)?,
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A password. Has no printable form.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

impl Password {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_parse_and_print() {
        for text in [
            "127.0.0.1:6000",
            "[::1]:6000",
            "node-a.example:1",
            "localhost:65535",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!(
            ":8008".parse::<Endpoint>().unwrap().to_string(),
            "0.0.0.0:8008"
        );
        assert_eq!(
            "*:8008".parse::<Endpoint>().unwrap().to_string(),
            "0.0.0.0:8008"
        );
    }

    #[test]
    fn endpoints_that_could_mean_more_are_refused() {
        for text in [
            "",
            "a",
            "a:",
            "a:0",
            "a:70000",
            "a:-1",
            "a:+1",
            "a:1.5",
            "::1:6000",
            "a b:1",
            "a=b:1",
            "a'b:1",
            "a,b:1",
            "a\n:1",
            "-x:1",
            "host=x options='-c fsync=off':1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_password_does_not_print() {
        assert_eq!(format!("{:?}", Password::new("hush")), "Password(***)");
    }
}
