//! Exit codes, and what is said where.

use crate::home::{Home, free_port};
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn help_is_data_and_a_bad_command_line_is_not() {
    let home = Home::new();
    let help = home.expect(0, "--help");
    assert!(
        help.out.contains("perform") && help.err.is_empty(),
        "{help:?}"
    );
    for line in [
        "",
        "creat",
        "show",
        "show state --bogus",
        "create monitor --pgport 0 --pgdata m",
    ] {
        let said = home.expect(2, line);
        assert!(
            said.out.is_empty() && !said.err.is_empty(),
            "{line}: {said:?}"
        );
    }
    assert_eq!(
        home.expect(0, "version").out,
        format!("standfast {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn who_types_patronictls_words_is_told_where_they_are() {
    let home = Home::new();
    for word in ["list", "switchover", "pause", "show-config"] {
        let said = home.expect(2, word);
        let hint = format!("hint: `{word}` is a word of patronictl");
        assert!(said.err.contains(&hint), "{said:?}");
    }
    let said = home.expect(2, "creat");
    assert!(!said.err.contains("patronictl"), "{said:?}");
}

#[test]
fn who_names_no_node_is_told_that_a_file_is_wanted() {
    let home = Home::new();
    for command in ["run", "config check", "stop", "reload", "store recover"] {
        let said = home.expect(2, command);
        let wants = format!("error: {command} wants a FILE");
        let example = format!("\nhint: standfast {command} /etc/standfast/n1.yml");
        assert!(said.err.contains(&wants), "{said:?}");
        assert!(said.err.contains(&example), "{said:?}");
    }
}

#[test]
fn a_directory_of_nobody_is_an_unknown_cluster() {
    let home = Home::new();
    for line in [
        "show state --pgdata nowhere",
        "run --pgdata nowhere",
        "stop --pgdata nowhere",
    ] {
        let said = home.expect(3, line);
        assert!(
            said.err.contains("is not a node's or monitor's directory"),
            "{said:?}"
        );
        assert!(said.err.contains("\nhint: "), "{said:?}");
    }
    let said = home.expect(2, "show state");
    assert!(
        said.err.contains("--pgdata") && said.err.contains("--monitor"),
        "{said:?}"
    );
}

#[test]
fn nobody_who_answers_is_another_code() {
    let home = Home::new();
    let port = free_port();
    let said = home.expect(4, &format!("show state --monitor 127.0.0.1:{port}"));
    assert!(
        said.err.contains("Connection refused") && said.out.is_empty(),
        "{said:?}"
    );
    let file = home.path("own.yml");
    let text = format!(
        "scope: demo\nname: a\nrestapi: {{listen: '127.0.0.1:{port}'}}\nstore: {{raft: {{members: {{a: \
         '127.0.0.1:{port}'}}}}}}\npostgresql: {{listen: '127.0.0.1:5432', data_dir: /nowhere/data}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let said = home.expect(4, "show state --config own.yml");
    assert!(said.err.contains(&format!("127.0.0.1:{port}")), "{said:?}");
    let said = home.expect(1, "show state --config absent.yml");
    assert!(said.err.contains("absent.yml"), "{said:?}");
    let said = home.expect(
        1,
        &format!("perform failover --monitor 127.0.0.1:{port} --secret-file absent"),
    );
    assert!(said.err.contains("absent"), "{said:?}");
}

/// Patroni: Configuration | `--validate-config` | `standfast config check`, with the line of each mistake and the
///   cure
#[test]
fn config_check_says_everything_with_lines() {
    let home = Home::new();
    let file = home.path("bad.yml");
    std::fs::write(&file, "scope: demo\nname: a,b\nrestapi: {listen: '127.0.0.1:0'}\npostgresql: {listen: '*:5432', data_dir: data}\n").unwrap();
    let said = home.expect(1, "config check bad.yml");
    assert!(said.out.is_empty());
    for part in [
        "bad.yml: line 2: name: ",
        "bad.yml: line 3: restapi.listen: port \"0\"",
        "bad.yml: line 4: postgresql.data_dir: ",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    let absent = home.expect(1, "config check absent.yml");
    assert!(absent.err.contains("No such file"), "{absent:?}");
}

#[test]
fn a_secret_without_rights_is_said_with_whose_it_must_be() {
    let home = Home::new();
    let (port, secret) = (free_port(), home.path("secret"));
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).unwrap();
    let text = format!(
        "scope: demo\nname: a\nstate_dir: {}\nrestapi: {{listen: '127.0.0.1:{port}'}}\nstore: {{raft: {{members: \
         {{a: '127.0.0.1:{port}'}}, secret_file: {}}}}}\npostgresql: {{listen: '127.0.0.1:{}', data_dir: {}}}\n",
        home.path("state").display(),
        secret.display(),
        port + 1000,
        home.path("data").display(),
    );
    std::fs::write(home.path("own.yml"), text).unwrap();
    let said = home.expect(1, "run own.yml");
    assert!(said.err.contains("secret: Permission denied"), "{said:?}");
    assert!(said.err.contains("\nhint: it must belong to"), "{said:?}");
    // Root reads it all the same, and is told that whoever it becomes will not.
    let said = home.expect(1, "config check own.yml");
    assert!(said.err.contains("store.raft.secret_file: "), "{said:?}");
}

/// Patroni: Configuration | `--generate-config` | differently: `standfast config import` makes a commented file of
///   Patroni's
#[test]
fn a_file_of_patronis_is_imported_and_replaces_nothing() {
    let home = Home::new();
    let text = "scope: shop\nname: a\nrestapi: {listen: '127.0.0.1:8008'}\netcd: {host: 127.0.0.1}\n\
                postgresql: {listen: '127.0.0.1:5432', data_dir: /nowhere/data, use_unix_socket: true, \
                authentication: {superuser: {password: one}, replication: {password: two}}}\n";
    std::fs::write(home.path("patroni.yml"), text).unwrap();
    let shown = home.expect(0, "config import patroni.yml");
    assert!(
        shown.out.contains("\netcd3:\n") && shown.err.is_empty(),
        "{shown:?}"
    );
    assert!(
        shown
            .out
            .contains("# - left out: line 5: postgresql.use_unix_socket: "),
        "{shown:?}"
    );
    let said = home.expect(0, "config import patroni.yml --output new.yml");
    assert!(said.out.is_empty(), "{said:?}");
    let new = home.path("new.yml");
    assert_eq!(std::fs::read_to_string(&new).unwrap(), shown.out);
    assert_eq!(new.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = home.expect(5, "config import patroni.yml --output new.yml");
    assert!(again.err.contains("is there already"), "{again:?}");
    std::fs::write(home.path("bad.yml"), "scope: [\n").unwrap();
    assert!(
        home.expect(1, "config import bad.yml")
            .err
            .contains("bad.yml: line ")
    );
}

#[test]
fn a_monitor_is_created_once_and_dropped_with_consent() {
    let home = Home::new();
    let port = free_port();
    let create = format!(
        "create monitor --pgdata ./monitor --pgport {port} --nodename 127.0.0.1 --auth trust --no-ssl"
    );
    let said = home.expect(0, &create);
    assert!(
        said.out.is_empty() && said.err.contains("standfast run --pgdata"),
        "{said:?}"
    );
    let file = home.config_file("monitor");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let secret = home.path("config/standfast/secret");
    assert_eq!(
        secret.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    let first = home.secret();
    assert_eq!(first.len(), 64);
    let text = String::from_utf8(first.clone()).unwrap();
    assert!(!said.err.contains(&text) && !std::fs::read_to_string(&file).unwrap().contains(&text));

    assert!(home.expect(0, &create).err.contains("created already"));
    assert_eq!(home.secret(), first, "a secret is never replaced");
    let inside = home.path("elsewhere");
    std::fs::create_dir(&inside).unwrap();
    let said = home.run_from(&inside, "config check --pgdata ../monitor");
    assert_eq!(said.code, 0, "{said:?}");

    let asked = home.expect(5, "drop monitor --pgdata monitor");
    assert!(
        asked
            .err
            .contains("repeat it with --yes: standfast drop monitor --pgdata monitor --yes"),
        "{asked:?}"
    );
    assert!(file.exists());
    assert!(
        home.expect(0, "drop monitor --pgdata monitor --dry-run")
            .out
            .starts_with("would remove")
    );
    home.expect(0, "drop monitor --pgdata monitor --yes");
    assert!(!file.exists() && secret.exists());
    home.expect(3, "show state --pgdata monitor");
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let home = Home::new();
    let port = free_port();
    for (dir, file) in [("foreign", "letter.txt"), ("cluster", "PG_VERSION")] {
        std::fs::create_dir(home.path(dir)).unwrap();
        std::fs::set_permissions(home.path(dir), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(home.path(dir).join(file), "15\n").unwrap();
        let said = home.expect(
            5,
            &format!("create monitor --pgdata {dir} --pgport {port} --hostname 127.0.0.1"),
        );
        assert!(
            said.err.contains(dir) && home.path(dir).join(file).exists(),
            "{said:?}"
        );
        assert!(!home.config_file(dir).exists());
    }
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let said = home.expect(
        1,
        &format!("create monitor --pgdata m --pgport {port} --hostname 127.0.0.1"),
    );
    assert!(said.err.contains("is taken by another program"), "{said:?}");
    assert!(!home.config_file("m").exists());
    drop(taken);
}

#[test]
fn a_pipe_is_no_configuration_and_is_not_waited_for() {
    let home = Home::new();
    let pipe = home.path("own.yml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for line in ["config check own.yml", "run own.yml"] {
        let said = home.run(line);
        assert!(said.code != 0, "{line}: {said:?}");
        assert!(said.err.contains("is not a file"), "{line}: {said:?}");
    }
}
