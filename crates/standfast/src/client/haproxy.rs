//! `show haproxy`: a configuration of HAProxy for the cluster as it is.
//!
//! **Invariant:** HAProxy sends writes only to a node whose REST interface says that it takes them at this moment.

use super::Target;
use crate::cli::meant::HaproxyOrder;
use crate::config::Endpoint;
use crate::exit::{ExitCode, Failure};
use crate::output;
use api::v1::Node;
use std::fmt::Write as _;
use std::path::Path;

/// Where the authority of the members' certificates is to be put, unless it was named.
const AUTHORITY: &str = "/etc/haproxy/standfast-ca.crt";
/// What the two listeners share. A check is answered from memory in a fraction of a millisecond, so it may be frequent:
/// a primary that is gone is noticed within a second.
const CHECKED: &str =
    "    default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions\n";

pub(super) async fn show(target: &Target, order: &HaproxyOrder) -> anyhow::Result<ExitCode> {
    let state = target.state().await?;
    let members = state.nodes.iter().filter(|node| !node.witness);
    let authority = target.authority.as_deref();
    let authority = authority.unwrap_or_else(|| Path::new(AUTHORITY));
    let servers = members.map(|node| server(node, authority));
    let servers = servers.collect::<Result<Vec<_>, _>>()?;
    if servers.is_empty() {
        return Err(Failure::unknown("this cluster has no nodes with PostgreSQL yet").into());
    }
    output::print(&text(&state.scope, order, &servers));
    Ok(ExitCode::Ok)
}

/// A node's line in either listener.
fn server(node: &Node, authority: &Path) -> Result<String, Failure> {
    let strange = || {
        Failure::error(format!(
            "{} has no usable api_url: {}",
            node.name, node.api_url
        ))
    };
    let url = &node.api_url;
    let (scheme, rest) = url.split_once("://").ok_or_else(strange)?;
    let place = rest.split('/').next().unwrap_or_default();
    let api: Endpoint = place.parse().map_err(|_| strange())?;
    let mut line = format!("server {} {}", node.name, address(&node.host, node.port));
    line.push_str(" check");
    if api.host != node.host {
        let _ = write!(line, " addr {}", api.host);
    }
    let _ = write!(line, " port {}", api.port);
    if scheme == "https" {
        let file = authority.display();
        let _ = write!(line, " check-ssl verify required ca-file {file}");
    }
    Ok(line)
}

fn address(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn text(scope: &str, order: &HaproxyOrder, servers: &[String]) -> String {
    let mut text = String::from(
        "# Made by `standfast show haproxy`; make it anew when nodes join or leave.\n\
         global\n    maxconn 2000\n\n\
         defaults\n    mode tcp\n    timeout connect 2s\n    timeout client 12h\n    timeout server 12h\n    \
         timeout check 2s\n    option clitcpka\n    option srvtcpka\n    retries 2\n",
    );
    for (role, check, port) in [
        ("primary", "/primary", order.primary_port),
        ("standbys", "/replica", order.standby_port),
    ] {
        let bind = address(&order.bind, port);
        let _ = write!(
            text,
            "\nlisten {scope}_{role}\n    bind {bind}\n    option httpchk OPTIONS {check}\n    \
             http-check expect status 200\n{CHECKED}"
        );
        for server in servers {
            let _ = writeln!(text, "    {server}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn each_role_has_a_listener_with_every_node() {
        let order = HaproxyOrder {
            bind: "*".to_owned(),
            primary_port: 5000,
            standby_port: 5001,
        };
        let servers = ["server a 10.0.0.1:5432 check port 8008".to_owned()];
        expect![[r#"
            # Made by `standfast show haproxy`; make it anew when nodes join or leave.
            global
                maxconn 2000

            defaults
                mode tcp
                timeout connect 2s
                timeout client 12h
                timeout server 12h
                timeout check 2s
                option clitcpka
                option srvtcpka
                retries 2

            listen demo_primary
                bind *:5000
                option httpchk OPTIONS /primary
                http-check expect status 200
                default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
                server a 10.0.0.1:5432 check port 8008

            listen demo_standbys
                bind *:5001
                option httpchk OPTIONS /replica
                http-check expect status 200
                default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
                server a 10.0.0.1:5432 check port 8008
        "#]]
        .assert_eq(&text("demo", &order, &servers));
    }
}
