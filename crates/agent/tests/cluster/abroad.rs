//! A standby cluster whose remote has an archive: the first copy by a program, WAL that is applied later, and WAL that the
//! remote has removed.

use crate::node::{Node, Wishes, free_ports, until, wishing};
use postgres::{CopyMethod, Copying, Instance};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use store::layout::Keys;
use store::{MemoryStore, Txn};

/// A primary that somebody else runs.
struct Far {
    bin: PathBuf,
    dir: PathBuf,
    port: u16,
}

impl Far {
    fn start(root: &Path, archive: &Path, port: u16) -> Self {
        let dir = root.join("far");
        let name = ha::NodeName::new("far").expect("a plain name");
        let exe = std::env::current_exe().expect("this program");
        let options = postgres::Options::new(name, dir.join("data"), dir.join("state"), exe);
        let instance = Instance::open(options).expect("an instance");
        let bin = instance.binaries().dir.clone();
        let far = Self { bin, dir, port };
        let data = far.dir.join("data").display().to_string();
        far.run("initdb", &["-D", &data, "-U", "postgres", "--no-sync"]);
        let conf = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nwal_log_hints = on\n\
             archive_mode = on\narchive_command = 'cp %p {}/%f'\nwal_keep_size = 0\nmin_wal_size = 32MB\n",
            archive.display()
        );
        let file = far.dir.join("data/postgresql.conf");
        let own = fs::read_to_string(&file).expect("the configuration");
        fs::write(&file, own + &conf).expect("written");
        let hba = "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n";
        fs::write(far.dir.join("data/pg_hba.conf"), hba).expect("written");
        let log = far.dir.join("log").display().to_string();
        far.run("pg_ctl", &["-D", &data, "-w", "-l", &log, "start"]);
        far.sql("CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'rep'");
        far.sql("CREATE ROLE rewind LOGIN SUPERUSER PASSWORD 'rew'");
        far.sql("ALTER ROLE postgres PASSWORD 'super'");
        far
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(self.bin.join(program))
            .args(arguments)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        assert!(output.expect("it runs").success(), "{program}");
    }

    fn sql(&self, sql: &str) -> String {
        let output = Command::new(self.bin.join("psql"))
            .args(["-X", "-At", "-h", "127.0.0.1", "-U", "postgres", "-p"])
            .arg(self.port.to_string())
            .args(["-c", sql, "postgres"])
            .output()
            .expect("psql");
        assert!(output.status.success(), "{sql}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let data = self.dir.join("data").display().to_string();
        let _ = Command::new(self.bin.join("pg_ctl"))
            .args(["-D", &data, "-m", "immediate", "stop"])
            .output();
    }
}

/// Patroni: Configuration | `standby_cluster` with `restore_command`, `archive_cleanup_command`,
///   `recovery_min_apply_delay`, `create_replica_methods` | work; WAL that the remote has removed is compared with the
///   archive's
pub(crate) async fn a_standby_cluster_with_an_archive(root: &Path, limit: Duration) {
    let archive = root.join("archive");
    fs::create_dir_all(&archive).expect("a directory");
    let [port_far, port_a, port_b] = free_ports();
    let far = Far::start(root, &archive, port_far);
    far.sql("CREATE TABLE t (n int); INSERT INTO t VALUES (1)");
    let store = MemoryStore::new();
    let keys = Keys::new("service", "abroad");
    let (copied, cleaned) = (root.join("copied"), root.join("cleaned"));
    let remote = json!({
        "host": "127.0.0.1", "port": port_far,
        "restore_command": format!("cp {}/%f %p", archive.display()),
        "archive_cleanup_command": format!("echo %r >> {}", cleaned.display()),
        "create_replica_methods": ["unknown", "ours", "basebackup"],
    });
    let mut late = remote.clone();
    late["recovery_min_apply_delay"] = json!("1h");
    let start = async |name: &str, port: u16| {
        let copies = match name {
            "a" => vec![Copying::Program(program(root, &copied))],
            _ => Vec::new(),
        };
        let wishes = Wishes {
            bootstrap: json!({"standby_cluster": late}),
            copies,
            ..Wishes::default()
        };
        wishing(root, &store, &keys, name, port, wishes).await
    };
    let a = start("a", port_a).await;
    until("a leads the standby cluster", limit, || leads(&a)).await;
    assert!(copied.exists(), "the first copy is made by the program");
    let b = start("b", port_b).await;
    until("b streams", limit, || {
        b.state() == Some(ha::NodeState::Standby) && rows(&b) == 1
    })
    .await;

    far.sql("INSERT INTO t VALUES (2)");
    until("b applies at once", limit, || rows(&b) == 2).await;
    assert_eq!(rows(&a), 1, "a applies later");
    configure(&store, &keys, &remote).await;
    until("a applies at once as well", limit, || rows(&a) == 2).await;
    until("a follows on", limit, || leads(&a)).await;
    until("the archive is cleaned", limit, || {
        far.sql("CHECKPOINT");
        a.psql("CHECKPOINT");
        fs::read_to_string(&cleaned).is_ok_and(|text| text.contains("00000001"))
    })
    .await;

    // What a has last is removed by the remote before a comes back.
    end(b, limit).await;
    fs::remove_file(&copied).expect("removed");
    end(a, limit).await;
    let last = far.sql("SELECT pg_walfile_name(pg_current_wal_lsn())");
    let there = format!("SELECT count(*) FROM pg_ls_waldir() WHERE name = '{last}'");
    until("the remote has removed it", limit, || {
        far.sql("INSERT INTO t VALUES (3)");
        far.sql("SELECT pg_switch_wal()");
        far.sql("CHECKPOINT");
        far.sql(&there) == "0"
    })
    .await;
    let a = start("a", port_a).await;
    until("a has all of it", limit, || leads(&a) && rows(&a) == 3).await;
    assert!(!copied.exists(), "nothing was copied anew");

    let mut alone = remote.clone();
    alone["host"] = Value::Null;
    alone["port"] = Value::Null;
    configure(&store, &keys, &alone).await;
    until("a takes WAL from the archive alone", limit, || {
        leads(&a) && a.psql("SHOW primary_conninfo").as_deref() == Some("")
    })
    .await;
    far.sql("INSERT INTO t VALUES (4)");
    far.sql("SELECT pg_switch_wal()");
    until("a has what was archived", limit, || rows(&a) == 4).await;

    configure(&store, &keys, &Value::Null).await;
    until("a is a primary", limit, || a.is_open_primary()).await;
    assert_eq!(rows(&a), 4);
    for setting in ["restore_command", "archive_cleanup_command"] {
        assert_eq!(a.psql(&format!("SHOW {setting}")).as_deref(), Some(""));
    }
    end(a, limit).await;
}

/// A program that copies, and leaves a sign of it.
fn program(root: &Path, copied: &Path) -> CopyMethod {
    let file = root.join("copy.sh");
    let text = "#!/bin/sh\nset -e\npg_basebackup -D \"$1\" -d \"${3#--connstring=}\" --checkpoint=fast --no-sync\ntouch \"$2\"\n";
    if !file.exists() {
        fs::write(&file, text).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("executable");
    }
    let path = |path: &Path| path.display().to_string();
    CopyMethod {
        name: "ours".to_owned(),
        command: vec![path(&file), path(&root.join("a/data")), path(copied)],
        keep_data: false,
        no_params: false,
    }
}

async fn configure(store: &MemoryStore, keys: &Keys, remote: &Value) {
    let config = json!({"standby_cluster": remote}).to_string();
    crate::write(store, Txn::new().put(keys.config(), config)).await;
}

async fn end(node: Node, limit: Duration) {
    node.handle.stop(agent::StopOrder::AtOnce);
    let ended = tokio::time::timeout(limit, node.task).await;
    assert!(ended.is_ok(), "{} has not stopped", node.name);
}

fn leads(node: &Node) -> bool {
    let served = node.shown.borrow();
    let decision = served.decision.as_ref();
    decision.is_some_and(|it| it.rule == "standby leader")
}

fn rows(node: &Node) -> usize {
    let count = node.psql("SELECT count(DISTINCT n) FROM t");
    count.and_then(|text| text.parse().ok()).unwrap_or(0)
}
