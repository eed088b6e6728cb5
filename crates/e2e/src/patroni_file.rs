//! A `patroni.yml` with no more than a node needs.

use lab::{Brought, Host, Passwords};

/// What `etcd3` says, what `bootstrap.dcs` says, and lines under `postgresql`.
pub fn patroni_file(host: &Host, etcd3: &str, dcs: &str, postgresql: &[String]) -> Brought {
    let (name, address) = (host.name(), host.address());
    let base = host.directory().display();
    let passwords = Passwords::default();
    let (superuser, replication) = (passwords.superuser, passwords.replication);
    let more: String = postgresql
        .iter()
        .map(|line| format!("  {line}\n"))
        .collect();
    let text = format!(
        "scope: shop
name: {name}
restapi: {{listen: '0.0.0.0:8008', connect_address: '{address}:8008'}}
etcd3: {{{etcd3}}}
postgresql:
  listen: 0.0.0.0:5432
  connect_address: {address}:5432
  data_dir: {base}/data
  authentication:
    superuser: {{username: postgres, password: '{superuser}'}}
    replication: {{username: replicator, password: '{replication}'}}
{more}bootstrap: {{dcs: {{{dcs}}}}}
"
    );
    Brought {
        files: vec![("patroni.yml".to_owned(), text)],
        environment: Vec::new(),
    }
}

/// Lines for a server of the lab's, with a socket of its own, that lets everybody in by password.
pub fn lab_server(host: &Host) -> Vec<String> {
    let base = host.directory().display();
    vec![
        format!("bin_dir: {}", host.pg_bin().display()),
        "pg_hba: [host all all all scram-sha-256]".to_owned(),
        format!("parameters: {{unix_socket_directories: {base}/run}}"),
    ]
}
