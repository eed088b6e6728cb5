//! `--monitor` in the forms that people have: `HOST:PORT`, `http://HOST:PORT`, `https://HOST:PORT`,
//! and the URL that pg_autoctl prints.

use crate::config::{BadEndpoint, Endpoint};

/// Why a text names no monitor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMonitor {
    #[error(transparent)]
    Endpoint(#[from] BadEndpoint),
    #[error("{0}:// is not spoken here, write http://HOST:PORT or https://HOST:PORT")]
    Scheme(String),
}

/// What a text names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Monitor {
    pub(crate) endpoints: Vec<Endpoint>,
    /// `None`: the text does not say.
    pub(crate) https: Option<bool>,
}

/// The addresses that the text names; several are separated by commas.
pub(crate) fn parse(text: &str) -> Result<Monitor, BadMonitor> {
    let mut https = None;
    let (authority, default_port) = match text.split_once("://") {
        None => (text, None),
        Some((scheme @ ("http" | "https"), rest)) => {
            https = Some(scheme == "https");
            (
                until_path(rest),
                Some(if scheme == "https" { 443 } else { 80 }),
            )
        }
        Some(("postgres" | "postgresql", rest)) => {
            let authority = until_path(rest);
            // The user (autoctl_node) and a password mean nothing to us; the password is not even looked at.
            let hosts = authority
                .rsplit_once('@')
                .map_or(authority, |(_, hosts)| hosts);
            (hosts, Some(5432))
        }
        // A URL may hold a password, so no more than its scheme is repeated.
        Some((scheme, _)) => return Err(BadMonitor::Scheme(scheme.chars().take(20).collect())),
    };
    let one = |part: &str| {
        let has_port = part
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.contains(']'));
        match default_port {
            Some(port) if !has_port => format!("{part}:{port}").parse::<Endpoint>(),
            _ => part.parse(),
        }
    };
    let endpoints = authority
        .split(',')
        .map(one)
        .collect::<Result<Vec<_>, _>>()?;
    match endpoints.iter().find(|endpoint| endpoint.is_any()) {
        Some(any) => Err(BadEndpoint::Host(any.host.clone()).into()),
        None => Ok(Monitor { endpoints, https }),
    }
}

fn until_path(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let endpoints = parse(text).unwrap().endpoints;
        let shown: Vec<String> = endpoints.iter().map(Endpoint::to_string).collect();
        assert_eq!(shown.join(" "), expected, "{text}");
    }

    #[test]
    fn every_form_names_the_same_monitor() {
        check("127.0.0.1:6000", "127.0.0.1:6000");
        check("http://127.0.0.1:6000", "127.0.0.1:6000");
        check("http://127.0.0.1:6000/", "127.0.0.1:6000");
        check(
            "postgres://autoctl_node@127.0.0.1:6000/pg_auto_failover",
            "127.0.0.1:6000",
        );
        check(
            "postgres://autoctl_node:p%40ss@m.example:6000/pg_auto_failover?sslmode=prefer",
            "m.example:6000",
        );
        check(
            "postgresql://autoctl_node@[::1]/pg_auto_failover",
            "[::1]:5432",
        );
        check("a:1,b:2", "a:1 b:2");
        check("https://a:1,b/", "a:1 b:443");
        for (text, https) in [
            ("https://a:1", Some(true)),
            ("http://a:1", Some(false)),
            ("a:1", None),
        ] {
            assert_eq!(parse(text).unwrap().https, https, "{text}");
        }
    }

    #[test]
    fn what_names_no_monitor_is_refused_without_repeating_it() {
        for text in [
            "",
            "monitor",
            "ftp://a:1",
            "a:0",
            "a:99999",
            "http://:80",
            "*:6000",
            "host=a options='-c x=y'",
            "postgres://u:secret@/db",
        ] {
            let bad = parse(text).unwrap_err().to_string();
            assert!(!bad.contains("secret"), "{bad}");
        }
    }
}
