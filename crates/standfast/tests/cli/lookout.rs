//! A proxy that finds no primary says so, with what to look at.

use crate::home::{Home, free_port};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn another_clusters_name_or_secret_is_said_with_the_cure() {
    let (home, port) = (Home::new(), free_port());
    home.expect(
        0,
        &format!("create monitor --pgdata monitor --pgport {port} --hostname 127.0.0.1"),
    );
    let mut monitor = home.start("run --pgdata monitor");
    until("the monitor answers", || {
        home.run("show state --pgdata monitor").code == 0
    });
    let users = home.path("users.txt");
    std::fs::write(&users, "\"shop\" \"pencil\"\n").unwrap();
    let own = home.path("config/standfast/secret");
    let foreign = home.path("foreign");
    std::fs::write(&foreign, "ffffffffffffffffffffffffffffffff").unwrap();
    std::fs::set_permissions(&foreign, std::fs::Permissions::from_mode(0o600)).unwrap();
    home.give_away(&foreign);
    for (scope, secret, reason, cure) in [
        (
            "default",
            &own,
            "the cluster has never had a leader",
            "`standfast status` on a node tells more",
        ),
        (
            "another",
            &own,
            "refused: ",
            "scope, namespace, the secret and certificates must be those of the cluster's nodes",
        ),
        (
            "default",
            &foreign,
            "refused: ",
            "scope, namespace, the secret and certificates must be those of the cluster's nodes",
        ),
    ] {
        let text = format!(
            "scope: {scope}\nstore: {{raft: {{members: {{m: '127.0.0.1:{port}'}}, secret_file: {}}}}}\nproxy: \
             {{listen: '127.0.0.1:{}', users_file: {}}}\n",
            secret.display(),
            port + 1000,
            users.display()
        );
        std::fs::write(home.path("proxy.yml"), text).unwrap();
        let mut proxy = home.start_with_log("proxy --config proxy.yml", "proxy.log");
        let line = || {
            let log = std::fs::read_to_string(home.path("proxy.log")).unwrap();
            let mut lines = log.lines();
            let said = lines.find(|line| line.contains("the proxy knows no primary"));
            said.map(str::to_owned)
        };
        until("it says that it knows no primary", || line().is_some());
        let line = line().unwrap();
        for part in [" WARN ", reason, cure] {
            assert!(line.contains(part), "{part}: {line}");
        }
        proxy.kill().unwrap();
        proxy.wait().unwrap();
    }
    home.expect(0, "stop --pgdata monitor");
    assert!(monitor.wait().unwrap().success());
}
