//! Two programs can't have one port.

use super::*;
use crate::config::ProxyConfig;

fn with_proxy(keys: &str) -> String {
    format!("{NODE}proxy: {{users_file: /srv/users, {keys}}}\n")
}

#[test]
fn a_proxy_does_not_listen_where_its_node_does() {
    for (keys, refused) in [
        (
            "listen: '127.0.0.1:5432'",
            "postgresql.listen is 127.0.0.1:5432",
        ),
        (
            "listen: '0.0.0.0:5432'",
            "postgresql.listen is 127.0.0.1:5432",
        ),
        (
            "listen: 'localhost:8008'",
            "restapi.listen is 127.0.0.1:8008",
        ),
        (
            "listen: '[::]:6432', listen_read: '10.0.0.1:6432'",
            "proxy.listen is [::]:6432",
        ),
        (
            "listen: '*:6432', listen_read: '[::1]:6432', metrics_listen: '10.0.0.1:8008'",
            "",
        ),
    ] {
        let said = match load(with_proxy(keys).as_bytes()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(said.is_empty(), refused.is_empty(), "{keys}: {said}");
        assert!(said.contains(refused), "{keys}: {said}");
    }
    check_error(
        &with_proxy("listen: '*:5432'"),
        expect![
            "f.yml: line 14: proxy.listen: 0.0.0.0:5432 is taken: postgresql.listen is 127.0.0.1:5432, choose another port for one"
        ],
    );
}

#[test]
fn a_proxy_is_not_its_own_server() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.yml");
    let read = |listen: &str| {
        let text = format!(
            "proxy: {{servers: '127.0.0.1:5432', listen: '{listen}', users_file: /srv/users}}\n"
        );
        std::fs::write(&file, text).unwrap();
        ProxyConfig::load(&file, &homes()).map_err(|error| error.problems[0].to_string())
    };
    let own = "line 1: proxy.listen: 127.0.0.1:5432 is taken: proxy.servers is 127.0.0.1:5432, choose another port for one";
    assert_eq!(read("127.0.0.1:5432").unwrap_err(), own);
    assert!(read("*:5432").is_err());
    assert!(read("127.0.0.1:6432").is_ok());
}

/// One that is wrong makes no other one unknown.
#[test]
fn each_limit_of_a_proxy_is_looked_at() {
    let keys = "listen: '*:6432', default_pool_size: -1, max_client_conn: 0, hold_clients: x, tcp_keepidle: y, \
        max_prepared_statements: z";
    let error = load(with_proxy(keys).as_bytes()).err();
    let said = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(!said.contains("unknown key"), "{said}");
    for key in [
        "default_pool_size",
        "max_client_conn",
        "hold_clients",
        "tcp_keepidle",
        "max_prepared_statements",
    ] {
        assert!(said.contains(key), "{key}: {said}");
    }
}
