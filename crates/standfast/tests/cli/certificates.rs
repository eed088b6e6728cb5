//! `create` and `config check` with certificates for the store's members.

#[allow(dead_code, reason = "the store's own tests use the rest")]
#[path = "../../../store/tests/common/certificates.rs"]
mod made;

use crate::home::{Home, free_port};
use made::{Authority, Files, Pair, replace};
use std::time::{Duration, Instant};

/// Files that the program may read, whoever it runs as.
fn files(home: &Home, pair: &Pair, authority: &Authority) -> Files {
    let directory = home.path("tls");
    std::fs::create_dir_all(&directory).unwrap();
    let files = Files::write(&directory, "node", pair, &authority.pem);
    own(&files);
    files
}

fn own(files: &Files) {
    let identity = lab::Identity::choose().unwrap();
    for file in [&files.certificate, &files.key, &files.authority] {
        identity.own(file).unwrap();
    }
}

fn create(port: u16, files: &Files) -> String {
    format!(
        "create monitor --pgdata monitor --pgport {port} --hostname 127.0.0.1 \
         --store-cert-file {} --store-key-file {} --store-ca-file {}",
        files.certificate.display(),
        files.key.display(),
        files.authority.display()
    )
}

#[test]
fn create_takes_certificates_and_keeps_them() {
    let (home, port, authority) = (Home::new(), free_port(), Authority::new());
    let files = files(&home, &authority.sign(&["127.0.0.1"]), &authority);
    home.expect(0, &create(port, &files));
    let written = || std::fs::read_to_string(home.config_file("monitor")).unwrap();
    let before = written();
    for file in [&files.certificate, &files.key, &files.authority] {
        assert!(before.contains(&file.display().to_string()), "{before}");
    }
    home.expect(0, "config check --pgdata monitor");
    // Another port, and no word of certificates.
    let other = free_port();
    home.expect(
        0,
        &format!("create monitor --pgdata monitor --pgport {other} --hostname 127.0.0.1"),
    );
    assert!(written().contains("cert_file"), "{}", written());
}

#[test]
fn certificates_are_given_to_a_node_that_was_created_without() {
    let (home, port, authority) = (Home::new(), free_port(), Authority::new());
    let files = files(&home, &authority.sign(&["127.0.0.1"]), &authority);
    home.expect(
        0,
        &format!("create monitor --pgdata monitor --pgport {port} --hostname 127.0.0.1"),
    );
    home.expect(0, &create(port, &files));
    let written = std::fs::read_to_string(home.config_file("monitor")).unwrap();
    assert!(written.contains("cert_file"), "{written}");
    let again = home.expect(0, &create(port, &files));
    assert!(again.err.contains("is created already"), "{again:?}");
}

#[test]
fn what_the_others_would_refuse_is_said_before_anything_is_written() {
    let (home, port, authority) = (Home::new(), free_port(), Authority::new());
    let files = files(&home, &authority.sign(&["10.0.0.9"]), &authority);
    let said = home.expect(1, &create(port, &files));
    assert!(said.err.contains("does not name 127.0.0.1"), "{said:?}");
    assert!(!home.config_file("monitor").exists());
    files.replace(&authority.sign_expired(&["127.0.0.1"]));
    own(&files);
    let said = home.expect(1, &create(port, &files));
    assert!(said.err.contains("expired at 2001-02-03"), "{said:?}");
    assert!(!home.config_file("monitor").exists());
}

#[test]
fn a_check_of_the_configuration_and_a_start_say_what_is_wrong_with_certificates() {
    let (home, port, authority) = (Home::new(), free_port(), Authority::new());
    let files = files(&home, &authority.sign(&["127.0.0.1"]), &authority);
    home.expect(0, &create(port, &files));
    replace(&files.key, &authority.sign(&[]).key);
    own(&files);
    for command in ["config check --pgdata monitor", "run --pgdata monitor"] {
        let said = home.expect(1, command);
        assert!(said.err.contains("store.raft.tls"), "{said:?}");
        assert!(
            said.err.contains("does not belong to the certificate"),
            "{said:?}"
        );
    }
}

#[test]
fn a_monitor_and_a_node_are_created_with_https() {
    let (home, port, authority) = (Home::new(), free_port(), Authority::new());
    let files = files(&home, &authority.sign(&["127.0.0.1"]), &authority);
    let bare = format!("create monitor --pgdata monitor --pgport {port} --hostname 127.0.0.1");
    let said = home.expect(2, &format!("{bare} --rest-tls"));
    assert!(said.err.contains("--store-cert-file"), "{said:?}");
    assert!(!home.config_file("monitor").exists());
    let whole = format!("{} --rest-tls", create(port, &files));
    let said = home.expect(0, &whole);
    let url = format!("https://127.0.0.1:{port}");
    assert!(said.err.contains(&format!("--monitor {url} ")), "{said:?}");
    let said = home.expect(0, &whole);
    assert!(said.err.contains("is created already"), "{said:?}");

    let mut agent = home.start("run --pgdata monitor");
    let deadline = Instant::now() + Duration::from_secs(60);
    // By its own file, and by its address.
    while home.run("show state --pgdata monitor").code != 0 {
        assert!(Instant::now() < deadline, "the monitor does not answer");
        assert_eq!(agent.try_wait().unwrap(), None, "the monitor has ended");
    }
    let authority = files.authority.display();
    let show = format!("show state --monitor {url}");
    home.expect(0, &format!("{show} --ca-file {authority}"));
    home.expect(4, &show);
    let bare = format!(
        "create postgres --pgdata node --pgport {} --hostname 127.0.0.1 --monitor 127.0.0.1:{port}",
        free_port(),
    );
    let node = format!(
        "{bare} --username postgres --store-cert-file {} --store-key-file {} --store-ca-file {authority}",
        files.certificate.display(),
        files.key.display(),
    );
    // Plain HTTP is not answered.
    let said = home.run(&node);
    assert!(said.err.contains("HTTPS only"), "{said:?}");
    home.expect(0, &format!("{node} --rest-tls"));
    let shown = home.expect(
        0,
        &format!("status --monitor {url} --ca-file {authority} --json"),
    );
    let published = shown
        .out
        .matches("\"api_url\": \"https://127.0.0.1:")
        .count();
    assert_eq!(published, 2, "{shown:?}");
    home.expect(0, "config check --pgdata node");
    // Another role, and no word of certificates: it has them.
    home.expect(0, &format!("{bare} --username boss"));
    let written = std::fs::read_to_string(home.config_file("node")).unwrap();
    assert!(
        written.contains("boss") && written.contains("certfile") && written.contains("cafile"),
        "{written}"
    );
    // It comes to the store, and is asked, by what it was given.
    let mut member = home.start("run --pgdata node");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !home
        .run("show state --pgdata node")
        .out
        .contains("read-write")
    {
        let log = || std::fs::read_to_string(home.path("log")).unwrap();
        assert!(
            Instant::now() < deadline,
            "the node does not lead\n{}",
            log()
        );
        assert_eq!(
            member.try_wait().unwrap(),
            None,
            "the node has ended\n{}",
            log()
        );
    }
    home.expect(0, "stop --pgdata node");
    assert!(member.wait().unwrap().success());
    home.expect(0, "stop --pgdata monitor");
    assert!(agent.wait().unwrap().success());
}
