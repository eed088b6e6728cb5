//! Nodes from a configuration file: what is wrong with it, and with the machine it is for.

use super::desk::{Desk, Running, refused, write_private};
use anyhow::{Result, ensure};
use e2e::{Terminal, in_a_lab, settle_deadline};
use lab::{Lab, Place, eventually, free_ports, request, take_port};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[test]
fn a_configuration_file_is_wrong() {
    in_a_lab(
        "a_configuration_file_is_wrong",
        Place::Loopback,
        async |lab| {
            let desk = Desk::set_up(lab)?;
            desk.terminal.types(&desk.create_monitor())?;
            let found = desk
                .terminal
                .types("find home ../home -name standfast.yml 2>/dev/null; true")?;
            let file = desk.path(found.lines().next().unwrap_or_default());
            let good = fs::read_to_string(&file)?;
            let with = |text: &str| -> Result<e2e::Said> {
                let bad = desk.path("bad.yml");
                fs::write(&bad, text)?;
                desk.terminal.host.identity().own(&bad)?;
                desk.terminal
                    .tries(&format!("standfast config check {}", bad.display()))
            };
            let said = with(&good.replace("witness:", "witnes:"))?;
            ensure!(
                said.stderr.contains("witnes") && said.stderr.contains("witness"),
                "{said:?}"
            );
            with(&good.replace(
                "synchronous_mode: quorum",
                "synchronous_mode: quorum\n    ttl: 0",
            ))?
            .refuses(1, &["bad.yml", "ttl"])?;
            with(&good.replace("name: monitor", "name: \"a,b\""))?
                .refuses(1, &["bad.yml", "name"])?;
            with("\t- [unclosed")?.refuses(1, &["bad.yml"])?;
            with("")?.refuses(1, &["bad.yml"])?;
            let missing = "standfast run ./nowhere.yml";
            desk.terminal.tries(missing)?.refuses(1, &["nowhere.yml"])?;
            desk.terminal
                .tries("standfast run .")?
                .refuses(1, &["desk"])?;
            Ok(())
        },
    );
}

/// A node of its own, described by one file.
struct Node {
    terminal: Terminal,
    base: PathBuf,
    sound: String,
    postgres: u16,
    rest: u16,
    store: u16,
}

impl Node {
    fn describe(lab: &mut Lab) -> Result<Self> {
        let host = lab.add_host("machine", 11)?;
        let base = host.directory().to_owned();
        let postgres = free_ports(5)?;
        let (rest, store) = (postgres + 1, postgres + 2);
        let secret = base.join("secret");
        write_private(
            &host,
            &secret,
            "planted-cluster-0123456789abcdef0123456789abcdef",
        )?;
        let text = format!(
            "scope: lab
name: n1
state_dir: {base}/state
store:
  raft:
    listen: 127.0.0.1:{store}
    data_dir: {base}/store
    members: {{n1: \"127.0.0.1:{store}\"}}
    secret_file: {secret}
restapi:
  listen: 127.0.0.1:{rest}
bootstrap:
  dcs:
    synchronous_mode: quorum
postgresql:
  listen: 127.0.0.1:{postgres}
  data_dir: {base}/data
  bin_dir: {bin}
  pg_hba: [local all all trust, host all all 127.0.0.1/32 scram-sha-256]
  authentication:
    superuser: {{username: postgres, password: planted-superuser}}
    replication: {{username: replicator, password: planted-replication}}
  parameters:
    unix_socket_directories: {base}/run
",
            base = base.display(),
            secret = secret.display(),
            bin = host.pg_bin().display(),
        );
        Ok(Self {
            terminal: Terminal { host },
            base,
            sound: text,
            postgres,
            rest,
            store,
        })
    }

    fn file(&self, text: &str) -> Result<String> {
        let file = self.base.join("node.yml");
        write_private(&self.terminal.host, &file, text)?;
        Ok(format!("standfast run {}", file.display()))
    }

    /// `run` with `from` turned into `to` ends with code 1 and these words.
    fn refuses(&self, from: &str, to: &str, words: &[&str]) -> Result<()> {
        ensure!(self.sound.contains(from), "{from:?} is not in the file");
        let line = self.file(&self.sound.replacen(from, to, 1))?;
        refused(&self.terminal, &line, 1, words)?;
        ensure!(!self.base.join("data").exists(), "{to}: data were made");
        Ok(())
    }

    fn runs(&self) -> Result<Running> {
        Running::start(&self.terminal, &self.file(&self.sound)?)
    }

    async fn leads(&self) -> Result<()> {
        let api = format!("127.0.0.1:{}", self.rest);
        eventually("the node leads", settle_deadline(), async || {
            let limit = Duration::from_secs(1);
            let answer = request("GET", &api, "/primary", None, None, limit).await?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })
        .await
    }
}

#[test]
fn every_mistake_in_a_file_is_named_and_the_mended_file_works() {
    in_a_lab(
        "every_mistake_in_a_file_is_named_and_the_mended_file_works",
        Place::Loopback,
        async |lab| {
            let node = Node::describe(lab)?;
            what_is_written_wrong(&node)?;
            what_is_not_on_the_machine(&node)?;
            root_without_its_user(lab, &node)?;
            ports_in_use(&node)?;
            ensure!(!node.base.join("data").exists(), "data were made");
            what_works_nevertheless(&node).await
        },
    );
}

fn what_is_written_wrong(node: &Node) -> Result<()> {
    for (from, to, words) in [
        (
            "synchronous_mode: quorum",
            "synchronous_mode: quorrum",
            ["synchronous_mode", "quorrum"],
        ),
        ("scope: lab", "scope: [1]", ["line 1: ", "scope"]),
        ("name: n1", "name: 'a\"b'", ["line 2: ", "name"]),
        ("name: n1", "name: 'a,*'", ["line 2: ", "name"]),
        ("name: n1", "name: n1\nname: n2", ["line 3: ", "duplicate"]),
        ("name: n1", "\tname: n1", ["line ", "tab"]),
        (
            "scope: lab",
            "scope: lab\nbootstrap: {dcs: {ttl: 0}}",
            ["line ", "bootstrap"],
        ),
        (
            "    synchronous_mode: quorum",
            "    ttl: 2\n    beat: 1",
            ["beat", "third"],
        ),
        (
            "    synchronous_mode: quorum",
            "    ttl: 30s",
            ["ttl", "30s"],
        ),
    ] {
        node.refuses(from, to, &words)?;
    }
    let base = node.base.display();
    let data = format!("data_dir: {base}/data");
    for bad in ["data", "/", "../data"] {
        node.refuses(&data, &format!("data_dir: {bad}"), &["postgresql.data_dir"])?;
    }
    let listen = format!("listen: 127.0.0.1:{}", node.postgres);
    node.refuses(
        &listen,
        "listen: 127.0.0.1:70000",
        &["postgresql.listen", "70000"],
    )?;
    // Each line says the one before ten times over.
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let again = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{again}]\n"));
    }
    node.refuses("scope: lab", &format!("{bomb}scope: lab"), &["node.yml"])
}

fn what_is_not_on_the_machine(node: &Node) -> Result<()> {
    let host = &node.terminal.host;
    let base = node.base.display();
    let secret = format!("secret_file: {base}/secret");
    node.refuses(
        &secret,
        &format!("secret_file: {base}/absent"),
        &["secret", "absent"],
    )?;
    let open = node.base.join("open");
    write_private(host, &open, "planted-open-0123456789abcdef0123456789")?;
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644))?;
    node.refuses(
        &secret,
        &format!("secret_file: {base}/open"),
        &["open", "chmod 600"],
    )?;
    write_private(host, &open, "short")?;
    node.refuses(
        &secret,
        &format!("secret_file: {base}/open"),
        &["open", "5 bytes"],
    )?;

    let bin = format!("bin_dir: {}", host.pg_bin().display());
    node.refuses(
        &bin,
        &format!("bin_dir: {base}/run"),
        &["no PostgreSQL programs", "/run"],
    )?;
    let old = old_postgres(node)?;
    node.refuses(&bin, &format!("bin_dir: {}", old.display()), &["9.6.24"])?;
    let rest = format!("listen: 127.0.0.1:{}", node.rest);
    let foreign = format!("listen: 192.0.2.1:{}", node.rest);
    node.refuses(&rest, &foreign, &["can't listen on 192.0.2.1"])
}

/// Programs that say of themselves that they are of PostgreSQL 9.6.
fn old_postgres(node: &Node) -> Result<PathBuf> {
    let bin = node.base.join("old-bin");
    fs::create_dir(&bin)?;
    for program in ["postgres", "pg_controldata", "initdb", "pg_ctl"] {
        let file = bin.join(program);
        fs::write(
            &file,
            format!("#!/bin/sh\necho \"{program} (PostgreSQL) 9.6.24\"\n"),
        )?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    Ok(bin)
}

/// PostgreSQL refuses root, so root must name somebody who is there.
fn root_without_its_user(lab: &Lab, node: &Node) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let line = node.file(&node.sound)?;
    let file = Path::new(line.trim_start_matches("standfast run "));
    for (user, code) in [("no-such-user", 1), ("root", 2), ("-x", 2)] {
        let output = Command::new(lab.binary())
            .arg(format!("--user={user}"))
            .arg("run")
            .arg(file)
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code), "{user}: {output:?}");
        ensure!(
            stderr.starts_with("error: ") && stderr.contains(user),
            "{stderr}"
        );
    }
    Ok(())
}

fn ports_in_use(node: &Node) -> Result<()> {
    for port in [node.rest, node.store] {
        let taken = take_port(port)?;
        let line = node.file(&node.sound)?;
        let words = [&*port.to_string(), "Address already in use"];
        refused(&node.terminal, &line, 1, &words)?;
        drop(taken);
    }
    Ok(())
}

/// An unknown key is a warning, and Postgres's port may become free later.
async fn what_works_nevertheless(node: &Node) -> Result<()> {
    let taken = take_port(node.postgres)?;
    let odd = node.sound.replace("pg_hba:", "pg-hba: []\n  pg_hba:");
    let running = Running::start(&node.terminal, &node.file(&odd)?)?;
    let taken_port = format!("port {} is taken by another program", node.postgres);
    running
        .says(&[
            "postgresql.pg-hba: unknown key, did you mean `pg_hba`?",
            &taken_port,
        ])
        .await?;
    let log = running.log();
    ensure!(!log.contains("could not bind"), "too much is said: {log}");
    drop(taken);
    node.leads().await?;
    // A second agent of the same state directory.
    let second = refused(&node.terminal, &node.file(&odd)?, 1, &["runs already"])?;
    ensure!(second.stderr.contains("pid "), "{second:?}");
    // And one with a state directory and ports of its own, on the same data.
    let other = node.base.join("other.yml");
    let ports = [node.rest, node.store].map(|port| format!(":{port}"));
    let text = odd
        .replace("/state", "/other-state")
        .replace("/store", "/other-store")
        .replace(&ports[0], &format!(":{}", node.postgres + 3))
        .replace(&ports[1], &format!(":{}", node.postgres + 4));
    write_private(&node.terminal.host, &other, &text)?;
    let line = format!("standfast run {}", other.display());
    refused(
        &node.terminal,
        &line,
        1,
        &["another agent", "pid ", "hint: "],
    )?;
    node.leads().await?;
    let log = running.log();
    ensure!(!log.contains("planted-"), "{log}");
    ensure!(
        running.interrupt().await? == Some(0),
        "it did not stop in order"
    );
    let again = node.runs()?;
    node.leads().await?;
    again.interrupt().await.map(drop)
}
