//! The lab's own parts, tried on PostgreSQL servers that no agent looks after. A checker that never
//! finds anything would not be trusted: one story loses rows on purpose.

use anyhow::{Result, ensure};
use lab::{Host, Lab, Ledger, Node, Place, free_ports, run_to_end, until, why_no_namespaces};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// A server of its own, ended with its lab.
struct Server {
    node: Node,
    process: Child,
}

impl Server {
    fn run(node: Node) -> Result<Self> {
        let log = std::fs::File::create(node.log_path())?;
        let process = node
            .host
            .command(node.host.pg_bin().join("postgres"))
            .arg("-D")
            .arg(&node.data_dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { node, process })
    }

    async fn ready(&self) -> Result<()> {
        lab::eventually("the server answers", PATIENCE, async || {
            self.node.ask::<i32>("SELECT 1").await.map(drop)
        })
        .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn primary(host: &Arc<Host>, port: u16) -> Result<Server> {
    let data = host.directory().join("data");
    run_to_end(
        host.command(host.pg_bin().join("initdb"))
            .args(["--no-sync", "-U", "postgres", "--auth=trust", "-D"])
            .arg(&data),
    )?;
    append(
        &data.join("postgresql.conf"),
        &format!(
            "listen_addresses='*'\nport={port}\nunix_socket_directories='{}'\nfsync=off\n",
            host.directory().join("run").display(),
        ),
    )?;
    append(
        &data.join("pg_hba.conf"),
        "host all,replication all 0.0.0.0/0 trust\n",
    )?;
    Server::run(Node::plain(host.name(), Arc::clone(host), port, data))
}

fn standby(host: &Arc<Host>, port: u16, upstream: &Node) -> Result<Server> {
    let data = host.directory().join("data");
    let from = format!(
        "host={} port={} user=postgres",
        upstream.host.address(),
        upstream.pg_port.expect("a port"),
    );
    run_to_end(
        host.command(host.pg_bin().join("pg_basebackup"))
            .args(["-R", "--checkpoint=fast", "--no-sync", "-d", &from, "-D"])
            .arg(&data),
    )?;
    append(
        &data.join("postgresql.auto.conf"),
        &format!(
            "port={port}\nunix_socket_directories='{}'\n",
            host.directory().join("run").display(),
        ),
    )?;
    Server::run(Node::plain(host.name(), Arc::clone(host), port, data))
}

fn append(file: &Path, text: &str) -> Result<()> {
    std::fs::OpenOptions::new()
        .append(true)
        .open(file)?
        .write_all(text.as_bytes())?;
    Ok(())
}

fn play(place: Place, story: impl AsyncFnOnce(&mut Lab) -> Result<()> + Send + 'static) {
    let lab = Lab::new(place, Path::new("/bin/true")).expect("a lab");
    let (lab, outcome) = lab.run(story);
    let (path, hosts) = (lab.path().to_owned(), lab.hosts().to_vec());
    drop(lab);
    for host in &hosts {
        assert_eq!(host.processes(), [], "left behind on {}", host.name());
    }
    drop(hosts);
    outcome.expect("the story ends well");
    assert!(!path.exists(), "{} was left behind", path.display());
}

/// Whether this machine can give hosts of their own; in CI it must.
fn namespaces() -> bool {
    match why_no_namespaces() {
        None => true,
        Some(why) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must have what this test needs: {why}"
            );
            writeln!(std::io::stderr(), "not run: {why}").expect("stderr");
            false
        }
    }
}

#[test]
fn a_ledger_on_one_server_finds_every_row() {
    play(Place::Loopback, async |lab| {
        let host = lab.add_host("a", 11)?;
        let server = primary(&host, free_ports(1)?)?;
        server.ready().await?;
        let mut ledger = Ledger::open(vec![server.node.sql_config()?], 2).await?;
        ledger.add_busy().await?;
        ledger.more(100, PATIENCE).await?;
        let history = ledger.stop().await?;
        let verdict = history
            .audit_nodes(&server.node, std::iter::empty())
            .await?;
        verdict.check()?;
        ensure!(verdict.errors == 0, "{verdict}");
        let writers: BTreeSet<u32> = history.acknowledged().iter().map(|row| row.0).collect();
        ensure!(
            writers.len() == 3,
            "the busy backend was not heard: {writers:?}"
        );
        Ok(())
    });
}

#[test]
fn a_busy_backend_outlives_its_postmaster() {
    play(Place::Loopback, async |lab| {
        let host = lab.add_host("a", 11)?;
        let server = primary(&host, free_ports(1)?)?;
        server.ready().await?;
        let mut ledger = Ledger::open(vec![server.node.sql_config()?], 1).await?;
        ledger.add_busy().await?;
        ledger.more(20, PATIENCE).await?;
        server.node.kill_postmaster()?;
        until("the postmaster is dead", PATIENCE, || {
            server.node.postmaster_pid().is_err()
        })
        .await?;
        // What this proves is why a dead postmaster must not be taken for a dead Postgres.
        ensure!(
            !host.processes().is_empty(),
            "no backend outlived the postmaster"
        );
        host.kill_everything()?;
        ledger.stop().await?;
        Ok(())
    });
}

#[test]
fn rows_that_an_asynchronous_failover_loses_are_found_out() {
    if !namespaces() {
        return;
    }
    play(Place::Namespaces, async |lab| {
        let (a, b) = (lab.add_host("a", 11)?, lab.add_host("b", 12)?);
        let first = primary(&a, 5432)?;
        first.ready().await?;
        let second = standby(&b, 5432, &first.node)?;
        second.ready().await?;
        let targets = vec![first.node.sql_config()?, second.node.sql_config()?];
        let ledger = Ledger::open(targets, 2).await?;
        ledger.more(20, PATIENCE).await?;
        // The standby hears nothing more, the client still does.
        lab.network()?.drop_one_way("a", "b")?;
        ledger.more(20, PATIENCE).await?;
        lab.network()?.set_link("a", false)?;
        second.node.ask::<bool>("SELECT pg_promote()").await?;
        ledger.more(20, PATIENCE).await?;
        let verdict = ledger
            .stop()
            .await?
            .audit_nodes(&second.node, std::iter::empty())
            .await?;
        ensure!(
            !verdict.lost.is_empty(),
            "nothing was found to be lost: {verdict}"
        );
        ensure!(verdict.dual_acks.is_empty(), "{:?}", verdict.dual_acks);
        Ok(())
    });
}

#[test]
fn a_frozen_host_answers_nobody_until_it_thaws() {
    if !namespaces() {
        return;
    }
    play(Place::Namespaces, async |lab| {
        let host = lab.add_host("a", 11)?;
        let server = primary(&host, 5432)?;
        server.ready().await?;
        let ledger = Ledger::open(vec![server.node.sql_config()?], 2).await?;
        ledger.more(20, PATIENCE).await?;
        host.freeze()?;
        ensure!(
            server.node.sql().await.is_err(),
            "a frozen server let us in"
        );
        host.thaw()?;
        ledger.more(20, PATIENCE).await?;
        let verdict = ledger
            .stop()
            .await?
            .audit_nodes(&server.node, std::iter::empty())
            .await?;
        verdict.check()?;
        ensure!(verdict.gap.length > Duration::from_secs(1), "{verdict}");
        Ok(())
    });
}

#[test]
fn disks_fill_up_and_hang() {
    if !namespaces() {
        return;
    }
    play(Place::Namespaces, async |lab| {
        let host = lab.add_host("a", 11)?;
        let (small, hung) = (
            host.directory().join("small"),
            host.directory().join("hung"),
        );
        host.mount(lab::Disk::Tmpfs { megabytes: 4 }, &small)?;
        host.fill_disk(&small)?;
        host.free_disk(&small)?;
        host.mount(lab::Disk::Ext4 { megabytes: 16 }, &hung)?;
        host.hang_disk(&hung)?;
        let mut write = host.command("dd");
        write.args(["if=/dev/zero", "bs=4k", "count=1"]);
        write.arg(format!("of={}", hung.join("file").display()));
        let mut writer = write.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        until("the writer hangs", PATIENCE, || {
            host.processes().iter().any(|process| process.state == 'D')
        })
        .await?;
        host.resume_disk(&hung)?;
        ensure!(writer.wait()?.success());
        Ok(())
    });
}
