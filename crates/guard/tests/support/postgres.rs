//! A real PostgreSQL under a guard, and a backend in it that never looks up.

use super::{Bench, LIMIT, os, until};
use guard::{Guard, Pid};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// PostgreSQL refuses to run as root: then the test runs again as its user, and this says true.
pub fn ran_as_postgres(test: &str) -> bool {
    ran_as_postgres_in(test, None)
}

/// The same, inside a control group.
pub fn ran_as_postgres_in(test: &str, cgroup: Option<&std::path::Path>) -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let join = cgroup.map_or(String::new(), |group| {
        format!("echo $$ > {}/cgroup.procs && ", group.display())
    });
    let again = "exec setpriv --reuid=postgres --regid=postgres --clear-groups \"$@\"";
    let status = Command::new("sh")
        .args(["-c", &format!("{join}{again}"), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .current_dir("/tmp")
        .env("HOME", "/tmp")
        .env("TMPDIR", "/tmp")
        .status()
        .unwrap();
    assert!(status.success(), "{test} as user postgres");
    true
}

/// Where the PostgreSQL is that `STANDFAST_PG_BIN` names, or the newest of this machine.
pub fn bindir() -> PathBuf {
    if let Some(named) = std::env::var_os("STANDFAST_PG_BIN") {
        return PathBuf::from(named);
    }
    let mut found: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed")
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok())
        .collect();
    found.sort_unstable();
    PathBuf::from(format!(
        "/usr/lib/postgresql/{}/bin",
        found.last().expect("a version")
    ))
}

/// A fresh database cluster that listens in its own directory only.
pub fn bench() -> Bench {
    let mut bench = Bench::script("");
    let data_dir = bench.launch.data_dir.clone();
    let initdb = Command::new(bindir().join("initdb"))
        .args(["--no-sync", "--auth=trust", "--username=test", "-D"])
        .arg(&data_dir)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(initdb.success());
    let socket_dir = bench.path().to_str().unwrap().to_owned();
    bench.launch.program = bindir().join("postgres");
    bench.launch.args = os(&["-D", data_dir.to_str().unwrap(), "-k", &socket_dir]);
    for setting in ["listen_addresses=", "fsync=off", "restart_after_crash=off"] {
        bench.launch.args.extend(os(&["-c", setting]));
    }
    bench
}

impl Bench {
    /// Spawns, and waits until queries are answered.
    pub fn run_postgres(&self) -> Guard {
        let guard = self.launch.spawn().unwrap();
        until("PostgreSQL answers", || {
            self.query("SELECT 1").as_deref() == Some("1")
        });
        guard
    }

    pub fn query(&self, sql: &str) -> Option<String> {
        let output = self.psql(sql).stderr(Stdio::null()).output().unwrap();
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A backend that commits in a loop, and so doesn't notice that its postmaster is gone; and its client.
    pub fn busy_backend(&self) -> (Pid, Client) {
        let procedure = "CREATE TABLE IF NOT EXISTS rows (n int);
            CREATE OR REPLACE PROCEDURE busy() LANGUAGE plpgsql AS
            $$BEGIN LOOP INSERT INTO rows VALUES (1); COMMIT; END LOOP; END$$";
        self.query(procedure).expect("a procedure");
        let client = self
            .psql("CALL busy()")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let client = Client(client);
        let asked = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CALL busy%'";
        let mut backend = None;
        until("the loop runs", || {
            backend = self
                .query(asked)
                .and_then(|pid| Pid::from_raw(pid.parse().ok()?));
            backend.is_some()
        });
        (backend.expect("seen just now"), client)
    }

    /// Many clients that insert as fast as they can, all of them connected.
    pub fn busy_clients(&self, clients: u32) -> Client {
        self.query("CREATE TABLE IF NOT EXISTS rows (n int)")
            .expect("a table");
        let script = self.path().join("insert.sql");
        std::fs::write(&script, "INSERT INTO rows VALUES (1);").unwrap();
        let child = Command::new(bindir().join("pgbench"))
            .args([
                "-n",
                "-T",
                "60",
                "-U",
                "test",
                "-c",
                &clients.to_string(),
                "-h",
            ])
            .arg(self.path())
            .arg("-f")
            .arg(&script)
            .arg("postgres")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let client = Client(child);
        let asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT%'";
        until("all clients insert", || {
            self.query(asked) == Some(clients.to_string())
        });
        client
    }

    fn psql(&self, sql: &str) -> Command {
        let mut psql = Command::new(bindir().join("psql"));
        psql.args(["-XAtq", "-U", "test", "-d", "postgres", "-h"])
            .arg(self.path())
            .args(["-c", sql])
            .env("PGCONNECT_TIMEOUT", LIMIT.as_secs().to_string())
            .process_group(0);
        psql
    }
}

/// A client process; killed when dropped.
pub struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}
