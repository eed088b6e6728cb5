//! A standby cluster: two nodes that follow a primary somewhere else, through switchovers, the death of the one that
//! follows, a failover over there, the cluster's own promotion, and back.

use anyhow::{Context, Result, ensure};
use e2e::{Patronictl, in_a_lab, say, settle_deadline};
use lab::{
    Brought, Cluster, Disk, Etcd, Host, Lab, Node, Passwords, Place, eventually, run_to_end,
};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

const PORT: u16 = 7001;

/// A primary, as somebody else runs it.
const FIRST: &str = r#"
set -e
bin=$1 dir=$2
$bin/initdb -D $dir/data -U postgres --auth=trust --no-sync > /dev/null
cat > $dir/data/pg_hba.conf <<EOF
local all all trust
host replication all all scram-sha-256
host all rewind all scram-sha-256
host all all all trust
EOF
cat >> $dir/data/postgresql.conf <<EOF
port = 7001
listen_addresses = '*'
unix_socket_directories = '$dir'
password_encryption = 'scram-sha-256'
wal_keep_size = 128MB
wal_log_hints = on
hot_standby = on
max_wal_senders = 16
max_replication_slots = 16
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
EOF
$bin/pg_ctl -D $dir/data -w -l $dir/log start > /dev/null
$bin/psql -X -q -v ON_ERROR_STOP=1 -h $dir -p 7001 -U postgres > /dev/null <<EOF
ALTER ROLE postgres PASSWORD 'SUPERUSER';
CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'REPLICATION';
CREATE ROLE rewind LOGIN PASSWORD 'REWIND';
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean),
  pg_read_binary_file(text), pg_read_binary_file(text, bigint, bigint, boolean) TO rewind;
CREATE TABLE t (n int PRIMARY KEY);
INSERT INTO t SELECT generate_series(1, 100);
SELECT pg_create_physical_replication_slot('lab');
EOF
"#;

/// Its standby, which is promoted later.
const SECOND: &str = r#"
set -e
bin=$1 dir=$2
export PGPASSWORD=REPLICATION
$bin/pg_basebackup -D $dir/data -d "host=$3 port=7001 user=replicator" -R --checkpoint=fast --no-sync 2> /dev/null
sed -i "s|^unix_socket_directories.*|unix_socket_directories = '$dir'|" $dir/data/postgresql.conf
$bin/pg_ctl -D $dir/data -w -l $dir/log start > /dev/null
$bin/psql -X -q -h $dir -p 7001 -U postgres -c "SELECT pg_create_physical_replication_slot('lab')" > /dev/null
"#;

fn with_passwords(script: &str) -> String {
    let passwords = Passwords::default();
    script
        .replace("SUPERUSER", &passwords.superuser)
        .replace("REPLICATION PASSWORD", "\0")
        .replace("REPLICATION", &passwords.replication)
        .replace('\0', "REPLICATION PASSWORD")
        .replace("REWIND", &passwords.rewind)
}

/// A server of somebody else's.
struct Far {
    host: Arc<Host>,
    node: Node,
    dir: PathBuf,
}

impl Far {
    fn start(lab: &mut Lab, name: &str, number: u8, script: &str, of: &str) -> Result<Self> {
        let host = lab.add_host(name, number)?;
        let dir = host.directory().to_owned();
        let script = with_passwords(script);
        let mut command = host.command("/bin/sh");
        command.args(["-c", &script, name]).arg(host.pg_bin());
        command.arg(&dir).arg(of);
        run_to_end(&mut command)?;
        let node = Node::plain(name, Arc::clone(&host), PORT, dir.join("data"));
        Ok(Self { host, node, dir })
    }

    fn ctl(&self, words: &[&str]) -> Result<()> {
        let mut command = self.host.command(self.host.pg_bin().join("pg_ctl"));
        command.arg("-D").arg(self.dir.join("data")).args(words);
        run_to_end(&mut command).map(drop)
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        format!("== {}\n{log}", self.node.name)
    }

    async fn write(&self, from: i32, to: i32) -> Result<()> {
        let sql = self.node.sql().await?;
        let insert = format!("INSERT INTO t SELECT generate_series({from}, {to})");
        sql.batch_execute(&insert).await?;
        Ok(())
    }
}

fn bring(host: &Host, etcd: &str, remote: &str) -> Brought {
    let (address, base) = (host.address(), host.directory().display());
    let passwords = Passwords::default();
    let text = format!(
        "scope: lab
name: {name}
etcd3: {{hosts: \"{etcd}\"}}
restapi: {{listen: \"{address}:8008\", connect_address: \"{address}:8008\", authentication: {{username: admin, password: {rest}}}}}
state_dir: {base}/state
bootstrap:
  dcs:
    synchronous_mode: quorum
    standby_cluster: {remote}
postgresql:
  listen: \"{address}:5432\"
  connect_address: \"{address}:5432\"
  data_dir: {base}/data
  bin_dir: {bin}
  pg_hba: [\"host all all 0.0.0.0/0 scram-sha-256\"]
  authentication: {{superuser: {{username: postgres, password: {superuser}}}, replication: {{username: replicator, password: {replication}}}, rewind: {{username: rewind, password: {rewind}}}}}
  parameters: {{unix_socket_directories: {base}/run}}
",
        name = host.name(),
        rest = passwords.rest,
        bin = host.pg_bin().display(),
        superuser = passwords.superuser,
        replication = passwords.replication,
        rewind = passwords.rewind,
    );
    Brought {
        files: vec![("node.yml".to_owned(), text)],
        environment: Vec::new(),
    }
}

/// One standby leader, of whom all live members but it stream; nobody is a primary; every live node has so many rows.
async fn follows(cluster: &Cluster, alive: usize, rows: i64) -> Result<String> {
    let what = format!("{alive} nodes follow the remote and have {rows} rows");
    eventually(&what, settle_deadline() * 2, async || {
        let mut leaders = Vec::new();
        let mut reached = 0;
        for node in cluster.data_nodes() {
            let Ok(answer) = node.get("/standby-leader").await else {
                continue;
            };
            reached += 1;
            let leads = answer.status == 200;
            for (path, expected) in [
                ("/primary", false),
                ("/leader", leads),
                ("/replica", !leads),
                ("/read-only", true),
            ] {
                let status = node.get(path).await?.status;
                ensure!((status == 200) == expected, "{}{path}: {status}", node.name);
            }
            if leads {
                leaders.push(node.name.clone());
            }
            let found: i64 = node.ask("SELECT count(*) FROM t").await?;
            ensure!(found == rows, "{} has {found} rows", node.name);
            let stands_by: bool = node.ask("SELECT pg_is_in_recovery()").await?;
            ensure!(stands_by, "{} is a primary", node.name);
        }
        let [leader] = leaders.as_slice() else {
            anyhow::bail!("standby leaders: {leaders:?}");
        };
        ensure!(reached == alive, "{reached} nodes answer");
        let members = cluster.members_seen_by(cluster.node(leader)?).await?;
        let streaming = members.iter().filter(|member| member.state == "streaming");
        let roles: Vec<&str> = members.iter().map(|member| member.role.as_str()).collect();
        ensure!(streaming.count() == alive, "{members:?}");
        ensure!(roles.contains(&"standby_leader"), "{members:?}");
        Ok(leader.clone())
    })
    .await
}

async fn epoch(cluster: &Cluster, node: &str) -> Result<u64> {
    let document = cluster.node(node)?.get("/patroni").await?.json()?;
    document["standfast"]["epoch"].as_u64().context("an epoch")
}

/// The story's parts that stay.
struct Scene {
    first: Far,
    second: Far,
    hosts: String,
    theirs: Patronictl,
    ours: Patronictl,
}

/// Patroni: Configuration | `standby_cluster` with `host` (several too), `port`, `primary_slot_name`, in `bootstrap.dcs`
///   and by PATCH | works; the standby leader follows only once its WAL was compared with the remote's, and each timeline
///   of the remote's begins an epoch
/// Patroni: patronictl | `demote-cluster`, `promote-cluster`, and `switchover`, `failover` inside a standby cluster | work,
///   Patroni's own and ours
#[test]
fn a_standby_cluster_follows_is_promoted_and_follows_again() {
    let name = "a_standby_cluster_follows_is_promoted_and_follows_again";
    in_a_lab(name, Place::Namespaces, async |lab| {
        let store = Etcd::three(lab, Disk::Shared).await?;
        let etcd = store.addresses();
        let first = Far::start(lab, "far1", 50, FIRST, "")?;
        let second = Far::start(lab, "far2", 51, SECOND, first.host.address())?;
        let hosts = format!("{},{}", first.host.address(), second.host.address());
        let text = format!("{{host: \"{hosts}\", port: {PORT}, primary_slot_name: lab}}");
        let nodes = ["n1", "n2"];
        let mut cluster =
            Cluster::brought_for(&nodes, lab, |host| bring(host, &etcd.join(","), &text))?;
        let far = Arc::clone(&second.host);
        let scene = Scene {
            theirs: Patronictl::theirs_on(lab, Arc::clone(&far), &etcd)?,
            ours: Patronictl::ours_on(lab, far, &etcd)?,
            first,
            second,
            hosts,
        };
        cluster.start_all()?;
        let told = tell(&mut cluster, &scene).await;
        drop(store);
        told.with_context(|| {
            let logs = cluster.logs().into_iter();
            let logs = logs.map(|(node, log)| format!("== {node}\n{log}"));
            let far = [&scene.first, &scene.second].map(Far::log);
            logs.chain(far).collect::<Vec<_>>().join("\n")
        })
    });
}

async fn tell(cluster: &mut Cluster, scene: &Scene) -> Result<()> {
    let old = follows(cluster, 2, 100).await?;
    say(&format!("{old} leads the standby cluster"));
    for list in [&scene.theirs, &scene.ours] {
        let list = list.types("list lab")?;
        ensure!(list.contains("Standby Leader | streaming"), "{list}");
    }
    let old = changes_hands(cluster, scene, old)
        .await
        .context("switchovers")?;
    loses(cluster, scene, &old).await.context("its loss")?;
    remote_fails_over(cluster, scene)
        .await
        .context("the remote's failover")?;
    is_promoted_and_demoted(cluster, scene)
        .await
        .context("promote-cluster and demote-cluster")?;
    for (node, log) in cluster.logs() {
        // A beat that is on its way when an epoch begins is refused.
        let lost = log.matches("the store no longer has this node as leader");
        let times = lost.count();
        ensure!(times < 10, "{node} has lost its office {times} times");
    }
    Ok(())
}

/// By POST of both kinds of `patronictl`: with a candidate, by failover, and to whoever can. Rows are on their way.
async fn changes_hands(cluster: &Cluster, scene: &Scene, old: String) -> Result<String> {
    let other = |old: &str| if old == "n1" { "n2" } else { "n1" };
    let new = other(&old);
    scene.first.write(101, 150).await?;
    let words = format!("switchover lab --leader {old} --candidate {new} --force");
    let said = scene.theirs.types(&words)?;
    ensure!(
        said.contains(&format!("Successfully switched over to \"{new}\"")),
        "{said}"
    );
    ensure!(follows(cluster, 2, 150).await? == new, "{new} leads");

    scene.first.write(151, 200).await?;
    let words = format!("failover lab --candidate {old} --force");
    let said = scene.ours.types(&words)?;
    ensure!(
        said.contains(&format!("Successfully failed over to \"{old}\"")),
        "{said}"
    );
    ensure!(follows(cluster, 2, 200).await? == old, "{old} leads again");

    let said = scene.ours.reads("\n\n\ny", "switchover lab")?;
    ensure!(
        said.contains("Standby Leader") && said.contains("Successfully switched over"),
        "{said}"
    );
    let leader = follows(cluster, 2, 200).await?;
    ensure!(leader == new, "{leader} leads");
    say("it has changed hands three times by order");
    Ok(leader)
}

async fn loses(cluster: &mut Cluster, scene: &Scene, old: &str) -> Result<()> {
    cluster.node_mut(old)?.kill_everything()?;
    scene.first.write(201, 300).await?;
    let new = follows(cluster, 1, 300).await?;
    ensure!(new != old, "{old} was killed");
    cluster.node_mut(old)?.start()?;
    let leader = follows(cluster, 2, 300).await?;
    say(&format!("{leader} leads after {old}"));
    Ok(())
}

async fn remote_fails_over(cluster: &Cluster, scene: &Scene) -> Result<()> {
    let (first, second) = (&scene.first, &scene.second);
    let leader = follows(cluster, 2, 300).await?;
    let before = epoch(cluster, &leader).await?;
    first.ctl(&["-m", "immediate", "stop"])?;
    second.ctl(&["-w", "promote"])?;
    second.write(301, 400).await?;
    let leader = follows(cluster, 2, 400).await?;
    let after = epoch(cluster, &leader).await?;
    ensure!(
        after > before,
        "epoch {before} went on for another timeline"
    );
    say(&format!(
        "{leader} follows the remote's new timeline in epoch {after}"
    ));
    Ok(())
}

/// A cluster of its own by Patroni's command, and back by ours: what was written meanwhile is not the remote's. Then the
/// other way round.
async fn is_promoted_and_demoted(cluster: &Cluster, scene: &Scene) -> Result<()> {
    let place = format!("--host {} --port {PORT}", scene.hosts);
    let mut rows = 400;
    for (promotes, demotes) in [(&scene.theirs, &scene.ours), (&scene.ours, &scene.theirs)] {
        let said = promotes.types("promote-cluster lab --force")?;
        ensure!(said.contains("successfully promoted"), "{said}");
        let primary = cluster.healthy(settle_deadline() * 2).await?;
        let node = cluster.node(&primary)?;
        let sql = node.sql().await?;
        sql.batch_execute("INSERT INTO t SELECT generate_series(1001, 1100)")
            .await?;
        let found: i64 = node.ask("SELECT count(*) FROM t").await?;
        ensure!(
            found == i64::from(rows) + 100,
            "{found} rows after the promotion"
        );
        say(&format!("{primary} is primary"));

        scene.second.write(rows + 1, rows + 50).await?;
        rows += 50;
        let words = format!("demote-cluster lab --force {place} --primary-slot-name lab");
        let said = demotes.types(&words)?;
        ensure!(said.contains("successfully demoted"), "{said}");
        let leader = follows(cluster, 2, i64::from(rows)).await?;
        say(&format!("{leader} leads the standby cluster again"));
        let sync = cluster.node(&leader)?.get("/cluster").await?.body;
        ensure!(!sync.contains("quorum_standby"), "{sync}");
    }
    Ok(())
}
