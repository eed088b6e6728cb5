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
fn directories_that_the_user_may_not_write_to_are_named_with_the_cure() {
    let home = Home::new();
    let shut = home.path("shut");
    std::fs::create_dir(&shut).unwrap();
    std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(0o555)).unwrap();
    let rest = format!(
        "  pgpass: {0}/pgpass\nlog: {{dir: {0}}}\n{QUORUM}",
        shut.display()
    );
    write(&home, "data", &rest, "");
    let said = home.expect(0, "config check own.yml");
    has(
        &said,
        &[
            "warning: ",
            "postgresql.pgpass: the user ",
            "log.dir: the user ",
            "; as root: chown ",
        ],
    );
    assert!(
        said.out.ends_with("own.yml: ok, with 2 warnings\n"),
        "{said:?}"
    );
    // Without its data there is no node.
    write(&home, "shut/data", &rest, "");
    let said = home.expect(1, "config check own.yml");
    has(
        &said,
        &[
            "error: ",
            "postgresql.data_dir: ",
            "/shut/data is not there, and the user ",
            "; as root: install -d -o ",
        ],
    );
    assert_eq!(said.out, "");
    // What was PostgreSQL's never, and whose.
    let full = home.path("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("letter.txt"), "dear").unwrap();
    home.give_away(&full);
    write(&home, "full", "", QUORUM);
    let said = home.expect(1, "config check own.yml");
    has(&said, &["postgresql.data_dir: is not empty and holds no "]);
    assert_eq!(
        said.err.matches("postgresql.data_dir").count(),
        1,
        "{said:?}"
    );
    // Where everything may be done nothing is said.
    write(&home, "data", "", QUORUM);
    let said = home.expect(0, "config check own.yml");
    assert_eq!(said.err, "");
    assert!(said.out.ends_with("own.yml: ok\n"), "{said:?}");
}

#[test]
fn a_secret_that_is_not_there_is_to_be_made_and_not_given_away() {
    let home = Home::new();
    write(&home, "data", "", QUORUM);
    let secret = home.path("secret");
    std::fs::remove_file(&secret).unwrap();
    let cure = format!("`openssl rand -hex 32 > {}", secret.display());
    let own = "store.raft.secret_file: ";
    let said = home.expect(1, "config check own.yml");
    has(&said, &[own, "is not there", &cure]);
    assert!(!said.err.contains("chown"), "{said:?}");
    let text = format!(
        "scope: demo\nstore: {{raft: {{members: {{a: '127.0.0.1:1'}}, secret_file: {}}}}}\nproxy: {{listen: \
         '127.0.0.1:{}', users_file: {}}}\n",
        secret.display(),
        free_port(),
        home.path("none").display()
    );
    std::fs::write(home.path("proxy.yml"), text).unwrap();
    let said = home.expect(1, "config check proxy.yml");
    has(&said, &[own, &cure, "proxy.users_file: can't read "]);
    assert!(!said.err.contains("chown"), "{said:?}");
    let said = home.expect(1, "run own.yml");
    has(&said, &[&cure]);
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
    // It need not wait for what else is wrong.
    let text = std::fs::read_to_string(home.path("own.yml")).unwrap();
    std::fs::write(home.path("own.yml"), format!("{text}tags: 7\n")).unwrap();
    let said = home.expect(1, "config check own.yml");
    has(
        &said,
        &[
            "error: ",
            "postgresql.parameters.max_conections: PostgreSQL ",
            "bootstrap.dcs.postgresql.parameters.shared_bufers: ",
        ],
    );
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
    // Who may read it all knows all passwords, if these are in clear.
    let clear = "proxy.users_file: ";
    std::fs::write(&users, "\"shop\" \"secret\"\n").unwrap();
    home.give_away(&users);
    let mode = |mode| std::fs::set_permissions(&users, std::fs::Permissions::from_mode(mode));
    for (bits, is_said) in [(0o644, true), (0o640, false), (0o600, false)] {
        mode(bits).unwrap();
        let said = home.expect(0, "config check own.yml");
        assert_eq!(
            said.err.contains("holds passwords in clear"),
            is_said,
            "{said:?}"
        );
        assert_eq!(said.err.contains(clear), is_said, "{said:?}");
    }
    mode(0o644).unwrap();
    std::fs::write(&users, "\"shop\" \"md5d41d8cd98f00b204e9800998ecf8427e\"\n").unwrap();
    let said = home.expect(0, "config check own.yml");
    assert!(!said.err.contains(clear), "{said:?}");
    std::fs::write(&users, "nonsense").unwrap();
    // A proxy of its own has the cluster's secret as well.
    let text = format!(
        "scope: demo\nstore: {{raft: {{members: {{a: '127.0.0.1:1'}}, secret_file: {}}}}}\n{section}",
        home.path("none").display()
    );
    std::fs::write(home.path("proxy.yml"), text).unwrap();
    let said = home.expect(1, "config check proxy.yml");
    has(&said, &["store.raft.secret_file: ", "proxy.users_file: "]);
}
