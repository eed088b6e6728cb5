//! A monitor founds one store and no second.

use crate::checks::{QUORUM, write};
use crate::home::{Home, Said, free_port};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

/// How long a monitor may take to answer.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs the monitor until it answers, then stops it.
fn run_once(home: &Home) {
    let mut agent = home.start("run --pgdata monitor");
    let deadline = Instant::now() + LIMIT;
    while home.run("show state --pgdata monitor").code != 0 {
        assert!(Instant::now() < deadline, "the monitor does not answer");
        assert_eq!(agent.try_wait().unwrap(), None, "the monitor has ended");
    }
    home.expect(0, "stop --pgdata monitor");
    assert!(agent.wait().unwrap().success());
}

/// What it says when it does not begin to run.
fn refused(home: &Home) -> String {
    let mut agent = home.start("run --pgdata monitor");
    let deadline = Instant::now() + LIMIT;
    let ended = loop {
        match agent.try_wait().unwrap() {
            Some(ended) => break ended,
            None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            None => {
                home.run("stop --pgdata monitor");
                agent.wait().unwrap();
                panic!("it runs");
            }
        }
    };
    assert_eq!(ended.code(), Some(5));
    std::fs::read_to_string(home.path("log")).unwrap()
}

#[test]
fn a_monitor_without_its_store_founds_no_second_one() {
    let (home, port) = (Home::new(), free_port());
    home.expect(
        0,
        &format!("create monitor --pgdata monitor --pgport {port} --hostname 127.0.0.1"),
    );
    run_once(&home);
    run_once(&home);

    std::fs::rename(home.path("monitor/raft"), home.path("away")).unwrap();
    let said = refused(&home);
    assert!(said.contains("a second cluster"), "{said}");
    assert!(said.contains("store.raft.join"), "{said}");

    // The hint names the file whose removal says that nothing is left of the cluster.
    let note = said.trim_end().rsplit("remove ").next().unwrap();
    std::fs::remove_file(note).unwrap();
    run_once(&home);
}

#[test]
fn a_node_is_stopped_in_order_from_its_first_moment() {
    let (home, port) = (Home::new(), free_port());
    home.expect(
        0,
        &format!("create monitor --pgdata monitor --pgport {port} --hostname 127.0.0.1"),
    );
    for how in ["", " --fast"] {
        for _ in 0..3 {
            let mut agent = home.start("run --pgdata monitor");
            let deadline = Instant::now() + LIMIT;
            loop {
                let said = home.run(&format!("stop --pgdata monitor{how}"));
                if said.code == 0 {
                    break;
                }
                assert!(said.err.contains("does not run"), "{}", said.err);
                assert!(Instant::now() < deadline, "it does not begin to run");
            }
            let ended = agent.wait().unwrap();
            let log = std::fs::read_to_string(home.path("log")).unwrap();
            assert!(ended.success(), "{ended}: {log}");
        }
    }
}

#[test]
fn a_leader_whose_postgres_never_ran_stops_without_a_warning() {
    let home = Home::new();
    let shut = home.path("shut");
    std::fs::create_dir(&shut).unwrap();
    std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(0o555)).unwrap();
    write(&home, "shut/data", "", QUORUM);
    let mut agent = home.start("run own.yml");
    let log = || std::fs::read_to_string(home.path("log")).unwrap();
    let deadline = Instant::now() + LIMIT;
    while !log().contains("the action failed and is decided anew action=\"bootstrap\"") {
        assert!(Instant::now() < deadline, "{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    home.expect(0, "stop own.yml");
    assert!(agent.wait().unwrap().success());
    let end = log();
    let end = end.split_once("stopping Postgres").unwrap().1;
    assert!(!end.contains(" WARN "), "{end}");
}

/// Until a command says so.
fn until(home: &Home, line: &str, is_so: impl Fn(&Said) -> bool) -> Said {
    let deadline = Instant::now() + LIMIT * 3;
    loop {
        let said = home.run(line);
        if is_so(&said) {
            return said;
        }
        assert!(Instant::now() < deadline, "{line}: {said:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_is_wrong_with_a_node_is_told_by_status_until_it_is_mended() {
    let home = Home::new();
    let shut = home.path("shut");
    std::fs::create_dir(&shut).unwrap();
    let mode = |mode| std::fs::set_permissions(&shut, std::fs::Permissions::from_mode(mode));
    mode(0o555).unwrap();
    write(&home, "shut/data", "", QUORUM);
    let mut agent = home.start("run own.yml");
    const STATUS: &str = "status --config own.yml";
    let failed = "Trouble at a: bootstrap has failed and is tried again: ";
    let said = until(&home, STATUS, |said| said.out.contains(failed));
    assert!(said.out.contains("/shut/data"), "{said:?}");
    mode(0o777).unwrap();
    let said = until(&home, STATUS, |said| {
        said.out.contains("Leader:  a, epoch 1") && said.out.contains(" single ")
    });
    assert!(!said.out.contains("Trouble"), "{said:?}");
    // Only PostgreSQL knows the options of its methods.
    let text = std::fs::read_to_string(home.path("own.yml")).unwrap();
    let line = "host all all all md5 no_such=1";
    let lines = format!("  pg_hba: ['{line}']\nbootstrap: ");
    std::fs::write(home.path("own.yml"), text.replace("bootstrap: ", &lines)).unwrap();
    home.expect(0, "reload own.yml");
    let refused = "Trouble at a: Postgres refuses a line of pg_hba.conf";
    let said = until(&home, STATUS, |said| said.out.contains(refused));
    for part in [line, "no_such"] {
        assert!(said.out.contains(part), "{said:?}");
    }
    std::fs::write(home.path("own.yml"), &text).unwrap();
    home.expect(0, "reload own.yml");
    until(&home, STATUS, |said| {
        said.code == 0 && !said.out.contains("Trouble")
    });
    home.expect(0, "stop own.yml");
    assert!(agent.wait().unwrap().success());
}

#[test]
fn a_node_that_waits_for_the_store_names_who_is_missing() {
    let home = Home::new();
    write(&home, "data", "", QUORUM);
    let text = std::fs::read_to_string(home.path("own.yml")).unwrap();
    let (b, c) = (free_port(), free_port());
    let others = format!("members: {{b: '127.0.0.1:{b}', c: '127.0.0.1:{c}', ");
    std::fs::write(home.path("own.yml"), text.replace("members: {", &others)).unwrap();
    let mut agent = home.start("run own.yml");
    let missing = format!("and b (127.0.0.1:{b}), c (127.0.0.1:{c}) do not answer it");
    for command in ["status", "show state"] {
        let line = format!("{command} --config own.yml");
        let said = until(&home, &line, |said| said.err.contains(&missing));
        assert_eq!(said.code, 4, "{said:?}");
    }
    home.expect(0, "stop own.yml");
    assert!(agent.wait().unwrap().success());
}
