//! Data that programs of the user's bring: a cluster that begins with a backup, standbys that begin with copies.

use anyhow::{Context, Result, ensure};
use e2e::{in_a_lab, say, settle_deadline};
use lab::{Brought, Cluster, Host, Lab, Passwords, Place, eventually, run_to_end};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A server with an archive: a backup, a hundred rows, a named point, and then somebody's mistake.
const ORIGIN: &str = r#"
set -e
bin=$1 dir=$2
mkdir -p $dir/archive
$bin/initdb -D $dir/origin -U postgres --auth=trust --no-sync > /dev/null
start="-k $dir -p 7001 -c listen_addresses= -c archive_mode=on"
$bin/pg_ctl -D $dir/origin -w -l $dir/origin.log -o "$start -c archive_command='cp %p $dir/archive/%f'" start > /dev/null
sql() { $bin/psql -X -q -v ON_ERROR_STOP=1 -h $dir -p 7001 -U postgres -c "$1" > /dev/null; }
sql "CREATE TABLE t (n int)"
$bin/pg_basebackup -D $dir/backup -h $dir -p 7001 -U postgres --wal-method=none --checkpoint=fast --no-sync 2> /dev/null
sql "INSERT INTO t SELECT generate_series(1, 100)"
sql "SELECT pg_create_restore_point('before_the_mistake')"
sql "DELETE FROM t"
sql "SELECT pg_switch_wal()"
$bin/pg_ctl -D $dir/origin -w -m fast stop > /dev/null
"#;

/// What `bootstrap.method` names. It fails until somebody has mended it.
const RESTORE: &str = r#"#!/bin/sh
set -e
echo "$@" >> /DIR/called
test -f /DIR/mended || { echo "the backup can't be read" >&2; exit 3; }
for word; do case $word in --datadir=*) data=${word#--datadir=};; --label=*) test "$word" = "--label=nightly one";; esac; done
cp -a /DIR/backup/. $data/
"#;

const ARCHIVE: &str = "  method: archive
  archive:
    command: /DIR/program.sh --from 'the archive'
    label: nightly one
    recovery_conf:
      restore_command: cp /DIR/archive/%f %p
      recovery_target_name: before_the_mistake
      recovery_target_action: pause
";

/// A directory for all nodes, with a program in it.
fn prepare(lab: &mut Lab, program: &str) -> Result<PathBuf> {
    let dir = lab.path().join("shared");
    fs::create_dir(&dir)?;
    let (script, secret) = (dir.join("program.sh"), dir.join("secret"));
    fs::write(&script, program.replace("/DIR", &dir.display().to_string()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    fs::write(&secret, "planted-0123456789abcdef0123456789abcdef\n")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    for path in [&dir, &secret] {
        lab.identity().own(path)?;
    }
    Ok(dir)
}

/// Runs a script on a host of its own.
fn play(lab: &mut Lab, shared: &Path, script: &str) -> Result<()> {
    let host = lab.add_host("origin", 20)?;
    let words = ["-c", script, "origin"];
    let mut command = host.command("/bin/sh");
    command.args(words).arg(host.pg_bin()).arg(shared);
    run_to_end(&mut command).map(drop)
}

/// A node, with more for `bootstrap` and `postgresql`.
fn bring(host: &Host, shared: &Path, bootstrap: &str, postgresql: &str) -> Brought {
    let (address, base) = (host.address(), host.directory().display());
    let (bin, shared) = (host.pg_bin().display(), shared.display());
    let members = ["n1", "n2", "n3"]
        .iter()
        .zip(11..)
        .map(|(name, number)| {
            let network = address.rsplit_once('.').map_or("", |(network, _)| network);
            format!("{name}: \"{network}.{number}:8009\"")
        })
        .collect::<Vec<_>>()
        .join(", ");
    let Passwords {
        superuser,
        replication,
        ..
    } = Passwords::default();
    let text = format!(
        "scope: shop
name: {name}
store:
  raft: {{listen: \"{address}:8009\", data_dir: {base}/store, members: {{{members}}}, secret_file: {shared}/secret}}
restapi: {{listen: \"{address}:8008\", connect_address: \"{address}:8008\"}}
state_dir: {base}/state
bootstrap:
  dcs: {{synchronous_mode: quorum}}
{bootstrap}postgresql:
  listen: \"{address}:5432\"
  connect_address: \"{address}:5432\"
  data_dir: {base}/data
  bin_dir: {bin}
  pg_hba: [\"host all all 0.0.0.0/0 scram-sha-256\"]
  authentication: {{superuser: {{username: postgres, password: {superuser}}}, replication: {{username: replicator, password: {replication}}}}}
  parameters: {{unix_socket_directories: {base}/run}}
{postgresql}",
        name = host.name(),
    );
    Brought {
        files: vec![("node.yml".to_owned(), text)],
        environment: Vec::new(),
    }
}

/// Patroni: Configuration | `bootstrap.method` other than `initdb`: clone, point-in-time recovery, `recovery_conf`,
///   `keep_existing_recovery_conf`, `no_params` | works; one that fails founds nothing, says what to do and is tried
///   again; `recovery_target_action` is always `promote`
#[test]
fn a_cluster_begins_with_a_backup_at_a_point_in_time() {
    let name = "a_cluster_begins_with_a_backup_at_a_point_in_time";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let shared = prepare(lab, RESTORE)?;
        play(lab, &shared, ORIGIN)?;
        let more = ARCHIVE.replace("/DIR", &shared.display().to_string());
        let mut cluster = Cluster::brought(lab, |host| bring(host, &shared, &more, ""))?;
        cluster.start_all()?;
        let result = tell(&cluster, &shared).await;
        let logs = cluster.logs();
        result.with_context(|| format!("{logs:#?}"))
    });
}

async fn tell(cluster: &Cluster, shared: &Path) -> Result<()> {
    // One that fails founds nothing, and says what to do.
    let said = "the first data directory could not be restored: no cluster is founded";
    eventually("it has failed", settle_deadline(), async || {
        let logs = cluster.logs();
        let told = |text: &str| logs.iter().any(|(_, line)| line.contains(text));
        ensure!(told(said) && told("the backup can't be read"), "{logs:?}");
        ensure!(told("mend what bootstrap.method names"), "no hint");
        Ok(())
    })
    .await?;
    for node in cluster.data_nodes() {
        ensure!(!node.is_primary().await, "{} is a primary", node.name);
        ensure!(
            !node.data_dir.join("global").exists(),
            "data in {}",
            node.name
        );
    }
    fs::write(shared.join("mended"), "")?;
    let primary = cluster.healthy(settle_deadline()).await?;
    say(&format!("{primary} has founded the cluster"));
    let called = fs::read_to_string(shared.join("called"))?;
    let data = cluster.node(&primary)?.data_dir.display().to_string();
    let expected = format!("--from the archive --scope=shop --datadir={data} --label=nightly one");
    ensure!(called.lines().last() == Some(expected.as_str()), "{called}");

    let count = "SELECT count(*)::text FROM t";
    eventually("all have the rows", settle_deadline(), async || {
        for node in cluster.data_nodes() {
            let rows: String = node.ask(count).await?;
            ensure!(rows == "100", "{rows} rows on {}", node.name);
        }
        Ok(())
    })
    .await?;
    let settings: String = cluster
        .node(&primary)?
        .ask("SELECT current_setting('recovery_target_name') || current_setting('restore_command')")
        .await?;
    ensure!(settings.is_empty(), "left over: {settings}");

    // It is a cluster like any other.
    let ledger = cluster.ledger(2).await?;
    ledger.more(50, settle_deadline()).await?;
    cluster.node(&primary)?.kill_postmaster()?;
    cluster.another_primary(&primary, settle_deadline()).await?;
    ledger.more(50, settle_deadline()).await?;
    cluster.healthy(settle_deadline()).await?;
    ledger.stop().await?.audit(cluster).await?.check()
}

/// A cluster that is another one.
const FOREIGN: &str = "$1/initdb -D $2/foreign -U postgres --auth=trust --no-sync > /dev/null";

/// What `create_replica_methods` names: ways that bring nothing of use, and one that keeps what it has copied once.
const COPY: &str = r#"#!/bin/sh
set -e
echo "$@" >> /DIR/called
for word; do case $word in
  --datadir=*) data=${word#--datadir=};;
  --connstring=*) leader=${word#--connstring=};;
  --bin=*) bin=${word#--bin=};;
esac; done
mkdir -p $data
begins() { sed -n 's/.*(file \(.*\)).*/\1/p' $1/backup_label; }
case $1 in
  broken) echo "no such backup" >&2; exit 1;;
  foreign) cp -a /DIR/foreign/. $data/;;
  running) number=${leader##*@}; number=${number%%:*}; number=${number##*.}
    cp -a /DIR/../n$((number - 10))/data/. $data/ || true;;
  nightly) if [ -d /DIR/nightly ]; then cp -a /DIR/nightly/. $data/; echo kept >> /DIR/used; else
    $bin/pg_basebackup -D $data -d "$leader" -X stream --checkpoint=fast --no-password --no-sync
    cp -a $data /DIR/new.$$
    # Two nodes may copy at once: the one that began later is kept, for either has all WAL since then.
    if [ ! -d /DIR/nightly ] || [ "$(begins $data)" \> "$(begins /DIR/nightly)" ]; then
      rm -rf /DIR/nightly; mv -T /DIR/new.$$ /DIR/nightly || true; fi; fi;;
esac
"#;

const METHODS: &str = "  create_replica_methods: [broken, foreign, running, nightly, basebackup]
  broken: {command: /DIR/program.sh broken}
  foreign: {command: /DIR/program.sh foreign}
  running: {command: /DIR/program.sh running}
  nightly: {command: /DIR/program.sh nightly, bin: BIN, keep_data: false}
";

/// Patroni: Configuration | `create_replica_methods` with programs: `command`, `keep_data`, `no_params` | differently:
///   their data is taken, their WAL is not: all of it is streamed from the leader; a copy that can't be proven to be the
///   leader's is thrown away, and pg_basebackup is always the last way; `no_leader` has no effect
#[test]
fn a_copy_that_a_program_brings_is_proven_before_it_is_used() {
    let name = "a_copy_that_a_program_brings_is_proven_before_it_is_used";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let shared = prepare(lab, COPY)?;
        play(lab, &shared, FOREIGN)?;
        let bin = lab.pg_bin().display().to_string();
        let more = METHODS
            .replace("/DIR", &shared.display().to_string())
            .replace("BIN", &bin);
        let mut cluster = Cluster::brought(lab, |host| bring(host, &shared, "", &more))?;
        cluster.start_all()?;
        let result = copies(&mut cluster, &shared).await;
        let logs = cluster.logs();
        result.with_context(|| format!("{logs:#?}"))
    });
}

const THROWN_AWAY: [&str; 3] = [
    "no such backup",
    "the copy belongs to system",
    "a server ran in it while it was copied, and it is no backup",
];
const PROVEN: &str = "the copy is proven to be the leader's";

async fn copies(cluster: &mut Cluster, shared: &Path) -> Result<()> {
    let primary = cluster.healthy(settle_deadline()).await?;
    for node in cluster.data_nodes().filter(|node| node.name != primary) {
        let log = node.log();
        for said in THROWN_AWAY.into_iter().chain([PROVEN]) {
            ensure!(log.contains(said), "{}: not said: {said}", node.name);
        }
        ensure!(log.matches(PROVEN).count() == 1);
    }
    let called = fs::read_to_string(shared.join("called"))?;
    let connects = format!("--connstring=postgres://replicator@{}:5432/postgres", {
        cluster.node(&primary)?.host.address()
    });
    ensure!(
        called.contains("nightly --scope=shop --role=replica --datadir="),
        "{called}"
    );
    ensure!(called.contains(&connects), "{called}");

    // A copy from before a failover is part of the new leader's history, as its note says.
    let ledger = cluster.ledger(2).await?;
    ledger.more(50, settle_deadline()).await?;
    cluster.node(&primary)?.kill_postmaster()?;
    let next = cluster.another_primary(&primary, settle_deadline()).await?;
    ledger.more(50, settle_deadline()).await?;
    cluster.healthy(settle_deadline()).await?;
    let lost = cluster
        .data_nodes()
        .map(|node| node.name.clone())
        .find(|name| *name != primary && *name != next)
        .context("three nodes")?;
    let node = cluster.node_mut(&lost)?;
    node.stop(settle_deadline()).await?;
    fs::remove_dir_all(&node.data_dir)?;
    node.start()?;
    eventually("the kept copy is used", settle_deadline(), async || {
        let node = cluster.node(&lost)?;
        ensure!(node.log().matches(PROVEN).count() == 2, "not proven");
        Ok(())
    })
    .await?;
    let used = fs::read_to_string(shared.join("used"))?;
    ensure!(used.contains("kept"), "{used}");
    cluster.healthy(settle_deadline()).await?;
    ledger.stop().await?.audit(cluster).await?.check()
}
