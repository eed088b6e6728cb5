//! A cluster that begins with a backup: restored by a program, recovered to a point in time from an archive.

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

fn shared(lab: &Lab) -> PathBuf {
    lab.path().join("shared")
}

fn prepare(lab: &mut Lab) -> Result<()> {
    let dir = shared(lab);
    fs::create_dir(&dir)?;
    let restore = dir.join("restore.sh");
    let text = RESTORE.replace("/DIR", &dir.display().to_string());
    fs::write(&restore, text)?;
    fs::set_permissions(&restore, fs::Permissions::from_mode(0o755))?;
    fs::write(
        dir.join("secret"),
        "planted-0123456789abcdef0123456789abcdef\n",
    )?;
    fs::set_permissions(dir.join("secret"), fs::Permissions::from_mode(0o600))?;
    for path in [&dir, &dir.join("secret")] {
        lab.identity().own(path)?;
    }
    let origin = lab.add_host("origin", 20)?;
    let (bin, room) = (origin.pg_bin().to_owned(), dir.display().to_string());
    run_to_end(
        origin
            .command("/bin/sh")
            .args(["-c", ORIGIN, "origin"])
            .arg(bin)
            .arg(room),
    )
    .map(drop)
}

fn bring(host: &Host, shared: &Path) -> Brought {
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
  method: archive
  archive:
    command: {shared}/restore.sh --from 'the archive'
    label: nightly one
    recovery_conf:
      restore_command: cp {shared}/archive/%f %p
      recovery_target_name: before_the_mistake
      recovery_target_action: pause
postgresql:
  listen: \"{address}:5432\"
  connect_address: \"{address}:5432\"
  data_dir: {base}/data
  bin_dir: {bin}
  pg_hba: [\"host all all 0.0.0.0/0 scram-sha-256\"]
  authentication: {{superuser: {{username: postgres, password: {superuser}}}, replication: {{username: replicator, password: {replication}}}}}
  parameters: {{unix_socket_directories: {base}/run}}
",
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
        prepare(lab)?;
        let shared = shared(lab);
        let mut cluster = Cluster::brought(lab, |host| bring(host, &shared))?;
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
