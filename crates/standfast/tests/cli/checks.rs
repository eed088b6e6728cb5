//! What `config check` sees of the machine that a file is for.

use crate::home::{Home, Said, free_port};
use std::os::unix::fs::PermissionsExt as _;

/// A node's file with these lines for its Postgres, and whatever follows.
pub(crate) fn write(home: &Home, data: &str, postgresql: &str, rest: &str) {
    let port = free_port();
    let secret = home.path("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    home.give_away(&secret);
    let text = format!(
        "scope: demo\nname: a\nstate_dir: {}\nrestapi: {{listen: '127.0.0.1:{port}'}}\nstore: {{raft: {{members: \
         {{a: '127.0.0.1:{port}'}}, secret_file: {}}}}}\npostgresql:\n  listen: '127.0.0.1:{}'\n  data_dir: \
         {}\n{postgresql}{rest}",
        home.path("state").display(),
        secret.display(),
        port + 1000,
        home.path(data).display(),
    );
    std::fs::write(home.path("own.yml"), text).unwrap();
}

pub(crate) const QUORUM: &str = "bootstrap: {dcs: {synchronous_mode: quorum}}\n";

fn has(said: &Said, parts: &[&str]) {
    for part in parts {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
}

#[test]
fn directories_that_the_user_may_not_write_to_are_warnings_with_the_cure() {
    let home = Home::new();
    let shut = home.path("shut");
    std::fs::create_dir(&shut).unwrap();
    std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(0o555)).unwrap();
    let rest = format!(
        "  pgpass: {0}/pgpass\nlog: {{dir: {0}}}\n{QUORUM}",
        shut.display()
    );
    write(&home, "shut/data", &rest, "");
    let said = home.expect(0, "config check own.yml");
    has(
        &said,
        &[
            "warning: ",
            "postgresql.data_dir: ",
            "/shut/data is not there, and the user ",
            "; as root: install -d -o ",
            "postgresql.pgpass: the user ",
            "log.dir: the user ",
            "; as root: chown ",
        ],
    );
    // Where everything may be done nothing is said.
    write(&home, "data", "", QUORUM);
    let said = home.expect(0, "config check own.yml");
    assert_eq!(said.err, "");
}

#[test]
fn parameters_that_postgres_does_not_take_are_warnings_with_the_nearest_name() {
    let home = Home::new();
    let parameters = "  parameters: {max_conections: 100, Work_Mem: 8MB, my.own: 1, jit: maybe}\n";
    let shared = "bootstrap: {dcs: {synchronous_mode: quorum, postgresql: {parameters: {shared_bufers: 1GB}}}}\n";
    write(&home, "data", parameters, shared);
    let said = home.expect(0, "config check own.yml");
    has(
        &said,
        &[
            "postgresql.parameters.max_conections: PostgreSQL ",
            "; did you mean `max_connections`?",
            "postgresql.parameters.jit: ",
            "bootstrap.dcs.postgresql.parameters.shared_bufers: ",
            "; did you mean `shared_buffers`?",
        ],
    );
    assert_eq!(said.err.lines().count(), 3, "{said:?}");
}

#[test]
fn files_of_a_proxy_are_read() {
    let home = Home::new();
    let users = home.path("users.txt");
    let section = format!(
        "proxy: {{listen: '127.0.0.1:{}', users_file: {}}}\n",
        free_port(),
        users.display()
    );
    write(&home, "data", "", &section);
    let said = home.expect(1, "config check own.yml");
    has(&said, &["proxy.users_file: can't read ", "No such file"]);
    std::fs::write(&users, "\"shop\" \"secret\"\nshop secret\n").unwrap();
    let said = home.expect(1, "config check own.yml");
    has(&said, &["proxy.users_file: ", "line 2: is not `"]);
    assert!(!said.err.contains("shop secret"), "{said:?}");
    // A proxy of its own has the cluster's secret as well.
    let text = format!(
        "scope: demo\nstore: {{raft: {{members: {{a: '127.0.0.1:1'}}, secret_file: {}}}}}\n{section}",
        home.path("none").display()
    );
    std::fs::write(home.path("proxy.yml"), text).unwrap();
    let said = home.expect(1, "config check proxy.yml");
    has(&said, &["store.raft.secret_file: ", "proxy.users_file: "]);
}
