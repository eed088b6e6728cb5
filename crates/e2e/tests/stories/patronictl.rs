//! Patroni's own `patronictl` on a cluster of ours whose store is etcd.

use anyhow::{Context, Result, ensure};
use e2e::{Announced, Patronictl, Topology, World, settle_deadline, story};
use lab::{Passwords, eventually};
use serde_json::{Value, json};

/// `list -f json`, by member.
fn members(ctl: &Patronictl) -> Result<Vec<Value>> {
    let text = ctl.types("list -f json")?;
    serde_json::from_str(&text).with_context(|| text)
}

fn config(ctl: &Patronictl) -> Result<String> {
    Ok(ctl.types("show-config")?.trim_end().to_owned())
}

/// Patroni: patronictl | Patroni's own `patronictl`, with etcd: `list`, `topology`, `history`, `show-config`,
///   `edit-config`, `dsn`, `query`, `version` | works
/// Patroni: patronictl | our own `edit-config` | says of what it has stored what has no effect, and why
/// Patroni: patronictl | members' `receive_lsn`, `replay_lsn`, `pause` | work
#[test]
fn both_patronictls_show_and_configure_our_cluster() {
    story(
        "both_patronictls_show_and_configure_our_cluster",
        Topology::ThreeWithEtcd,
        Announced::IN_VAIN,
        async |world| {
            let (theirs, ours) = (Patronictl::theirs(world)?, Patronictl::ours(world)?);
            let leader = world.cluster.primary().await?;
            for ctl in [&theirs, &ours] {
                shows(world, ctl, &leader).await?;
                configures(ctl)?;
                asks_postgres(ctl, &leader)?;
            }
            let in_vain = "-s nonsense=1 -s postgresql.callbacks.on_start=/x";
            let said = ours.tries(&format!("edit-config {in_vain} --force"))?;
            let told = said
                .stderr
                .contains("without effect: nonsense, postgresql.callbacks (");
            ensure!(said.code == Some(0) && told, "{said:?}");
            ours.types("edit-config -s nonsense=null -s postgresql=null --force")?;
            ours.types("pause")?;
            ours.types("switchover --scheduled 2099-01-01T00:00:00+00:00 --force")
                .expect_err("not while the cluster is paused");
            says_the_same(&theirs, &ours).await?;
            ours.types("resume")?;
            removes(world, &ours).await
        },
    );
}

/// To the byte, where what they say stands still.
async fn says_the_same(theirs: &Patronictl, ours: &Patronictl) -> Result<()> {
    for words in [
        "list",
        "list -e",
        "topology",
        "list -f json",
        "list -f yaml",
        "list -f tsv",
        "history",
        "show-config",
        "dsn",
    ] {
        eventually(words, settle_deadline(), async || {
            let (theirs, ours) = (theirs.types(words)?, ours.types(words)?);
            ensure!(theirs == ours, "theirs:\n{theirs}\nours:\n{ours}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn shows(world: &World<'_>, ctl: &Patronictl, leader: &str) -> Result<()> {
    eventually("nobody lags", settle_deadline(), async || {
        for member in members(ctl)? {
            let leads = member["Member"] == leader;
            let rest = ["Receive Lag", "Replay Lag"].map(|key| member[key].clone());
            let wanted = if leads {
                json!(["Leader", "running", 1])
            } else {
                json!(["Quorum Standby", "streaming", 1])
            };
            ensure!(
                json!([member["Role"], member["State"], member["TL"]]) == wanted,
                "{member}"
            );
            ensure!(leads || rest == [json!(0), json!(0)], "{member}");
            ensure!(
                leads
                    || member["Replay LSN"]
                        .as_str()
                        .is_some_and(|lsn| lsn.starts_with("0/")),
                "{member}"
            );
        }
        Ok(())
    })
    .await?;
    ensure!(members(ctl)?.len() == 3);
    let table = ctl.types("list -e")?;
    ensure!(table.starts_with("+ Cluster: lab (7"), "{table}");
    ensure!(
        table.contains("| Pending restart | Pending restart reason | Scheduled restart | Tags |"),
        "{table}"
    );
    let tree = ctl.types("topology")?;
    let rows: Vec<&str> = tree.lines().skip(3).collect();
    ensure!(rows[0].starts_with(&format!("| {leader} ")), "{tree}");
    ensure!(
        rows[1].starts_with("| + n") && rows[2].starts_with("| + n"),
        "{tree}"
    );
    let node = world.cluster.node(leader)?;
    let dsn = format!("host={} port=5432\n", node.host.address());
    ensure!(ctl.types("dsn")? == dsn && ctl.types("dsn -r primary")? == dsn);
    ensure!(ctl.types("dsn -r replica")? != dsn);
    ensure!(ctl.types("history -f json")?.trim() == "[]");
    let version = ctl.types("version lab")?;
    let said = version
        .lines()
        .filter(|line| line.contains(": Patroni ") && line.contains(" PostgreSQL "));
    ensure!(said.count() == 3, "{version}");
    Ok(())
}

fn configures(ctl: &Patronictl) -> Result<()> {
    let same = |wanted: &str| {
        let found = config(ctl)?;
        ensure!(found == wanted, "{found}");
        Ok(())
    };
    same("synchronous_mode: quorum")?;
    let diff = ctl.types("edit-config -s ttl=4 -p work_mem=8MB --force")?;
    ensure!(
        diff.contains("\n+ttl: 4\n") && diff.ends_with("Configuration changed\n"),
        "{diff}"
    );
    same("postgresql:\n  parameters:\n    work_mem: 8MB\nsynchronous_mode: quorum\nttl: 4")?;
    ctl.types("edit-config -s ttl=null -s postgresql=null -q --force")?;
    same("synchronous_mode: quorum")?;
    let unchanged = ctl.types("edit-config -s synchronous_mode=quorum --force")?;
    ensure!(unchanged == "Not changed\n", "{unchanged}");
    ctl.reads("synchronous_node_count: 2", "edit-config --apply - --force")?;
    same("synchronous_mode: quorum\nsynchronous_node_count: 2")?;
    ctl.reads(
        "synchronous_mode: quorum",
        "edit-config --replace - --force",
    )?;
    same("synchronous_mode: quorum")
}

fn asks_postgres(ctl: &Patronictl, leader: &str) -> Result<()> {
    let password = Passwords::default().superuser;
    let ask = |more: &str| {
        let words = format!("query -U postgres -d postgres --password --format json {more}");
        let said = ctl.reads(&password, &words)?;
        let answer = said.lines().find(|line| line.starts_with('['));
        serde_json::from_str::<Value>(answer.with_context(|| said.clone())?).context(said)
    };
    let row = ask("-c 'select pg_is_in_recovery() as standby, 1 as one'")?;
    ensure!(row == json!([{"standby": false, "one": 1}]), "{row}");
    let row = ask(&format!("-m {leader} -c 'select null as nothing'"))?;
    ensure!(row == json!([{"nothing": null}]), "{row}");
    let row = ask("-r replica -c 'select pg_is_in_recovery() as standby'")?;
    ensure!(row == json!([{"standby": true}]), "{row}");
    Ok(())
}

/// Patroni: patronictl | the same: `switchover`, `failover`, scheduled ones, `restart`, `reload`, `reinit`,
///   `pause`, `resume`, `flush`, `remove` | works
/// Patroni: patronictl | `history` | works, to the line
#[test]
fn their_patronictl_runs_our_cluster() {
    story(
        "their_patronictl_runs_our_cluster",
        Topology::ThreeWithEtcd,
        Announced::POWER,
        async |world| {
            let ctl = Patronictl::theirs(world)?;
            let ledger = world.load(2).await?;
            changes_leaders(world, &ctl).await?;
            works_on_members(world, &ctl).await?;
            plans(world, &ctl).await?;
            world.reckon(ledger).await?;
            removes(world, &ctl).await
        },
    );
}

/// Patroni: patronictl | `patronictl` of our own, with either store | the same commands and frames; exit codes say
///   what became of it
#[test]
fn our_patronictl_runs_a_cluster_without_etcd() {
    story(
        "our_patronictl_runs_a_cluster_without_etcd",
        Topology::Three,
        Announced::POWER,
        async |world| {
            let ctl = Patronictl::ours(world)?;
            let leader = world.cluster.primary().await?;
            asks_for_a_password(&ctl)?;
            shows(world, &ctl, &leader).await?;
            configures(&ctl)?;
            let ledger = world.load(2).await?;
            changes_leaders(world, &ctl).await?;
            works_on_members(world, &ctl).await?;
            plans(world, &ctl).await?;
            says_no_with_its_code(&ctl)?;
            world.reckon(ledger).await.map(drop)
        },
    );
}

/// Who gave no password, or a wrong one, is told by what to give it.
fn asks_for_a_password(ctl: &Patronictl) -> Result<()> {
    for (given, hint) in [
        ("", "hint: no password was given: set PGPASSWORD, or "),
        (
            "PGPASSWORD=wrong ",
            "hint: PGPASSWORD or --password, and -U, must be ",
        ),
    ] {
        let said = ctl.tries_with(given, "query -U postgres -d postgres -c 'select 1'")?;
        ensure!(said.code == Some(1), "{said:?}");
        ensure!(said.stderr.contains(hint), "{said:?}");
    }
    Ok(())
}

/// Where the original ends with 0 or 1, ours says what kind of no it is.
fn says_no_with_its_code(ctl: &Patronictl) -> Result<()> {
    for (words, code) in [
        ("list -f nonsense", 2),
        ("query", 2),
        ("list nosuch", 3),
        ("history nosuch", 3),
        ("dsn -m nobody", 3),
        ("failover --candidate nobody --force", 3),
        ("restart lab nobody --force", 3),
        ("-d http://127.0.0.1:1 list", 4),
        ("switchover < /dev/null", 5),
        ("remove lab", 5),
    ] {
        let said = ctl.tries(words)?;
        ensure!(said.code == Some(code), "{said:?}");
        ensure!(!said.stderr.contains("panicked"), "{said:?}");
    }
    Ok(())
}

async fn changes_leaders(world: &World<'_>, ctl: &Patronictl) -> Result<()> {
    let old = world.cluster.primary().await?;
    let new = world.cluster.standbys().await?.remove(0);
    let other = world.cluster.standbys().await?.remove(1);
    let wrong = ctl.tries(&format!("switchover --leader {new} --force"))?;
    ensure!(
        matches!(wrong.code, Some(1 | 5)) && wrong.stderr.contains("is not the leader"),
        "{wrong:?}"
    );
    let said = ctl.types(&format!(
        "switchover --leader {old} --candidate {new} --force"
    ))?;
    ensure!(
        said.contains(&format!("Successfully switched over to \"{new}\"")),
        "{said}"
    );
    ensure!(world.whole().await? == new);
    let history: Value = serde_json::from_str(&ctl.types("history -f json")?)?;
    ensure!(
        history[0]["TL"] == 1 && history[0]["New Leader"] == *new,
        "{history}"
    );
    ensure!(
        history[0]["LSN"].as_u64().is_some_and(|lsn| lsn > 0),
        "{history}"
    );
    ensure!(
        history[0]["Reason"] == "no recovery target specified",
        "{history}"
    );
    let said = ctl.types("switchover --force")?;
    ensure!(said.contains("Successfully switched over to"), "{said}");
    let leader = world.whole().await?;
    ensure!(leader != new);
    let candidate = [&old, &new, &other]
        .into_iter()
        .find(|name| **name != leader);
    let candidate = candidate.context("a standby")?;
    let said = ctl.types(&format!("failover --candidate {candidate} --force"))?;
    ensure!(
        said.contains(&format!("Successfully failed over to \"{candidate}\"")),
        "{said}"
    );
    ensure!(world.whole().await? == *candidate);
    Ok(())
}

async fn works_on_members(world: &World<'_>, ctl: &Patronictl) -> Result<()> {
    let standby = world.cluster.standbys().await?.remove(0);
    let said = ctl.types("pause --wait")?;
    ensure!(
        said.ends_with("Success: cluster management is paused\n"),
        "{said}"
    );
    let table = ctl.types("list")?;
    ensure!(table.ends_with("\n Maintenance mode: on\n"), "{table}");
    let said = ctl.types("resume --wait")?;
    ensure!(
        said.ends_with("Success: cluster management is resumed\n"),
        "{said}"
    );
    let started = "SELECT pg_postmaster_start_time()::text";
    let before: String = world.cluster.node(&standby)?.ask(started).await?;
    let said = ctl.types(&format!("restart lab {standby} --force"))?;
    ensure!(
        said.ends_with(&format!("Success: restart on member {standby}\n")),
        "{said}"
    );
    world.whole().await?;
    let after: String = world.cluster.node(&standby)?.ask(started).await?;
    ensure!(before != after, "{standby} was not restarted");
    let said = ctl.types("reload lab --force")?;
    ensure!(
        said.matches("Reload request received for member n").count() == 3,
        "{said}"
    );
    let said = ctl.types(&format!("reinit lab {standby} --force --wait"))?;
    let done = format!("Reinitialize is completed on: {standby}\n");
    ensure!(said.ends_with(&done), "{said}");
    // The original believes a node that has not begun yet.
    eventually("the copy is new", settle_deadline(), async || {
        let now: String = world.cluster.node(&standby)?.ask(started).await?;
        ensure!(now != after, "{standby} is what it was");
        Ok(())
    })
    .await?;
    world.whole().await.map(drop)
}

/// What is to happen later.
async fn plans(world: &World<'_>, ctl: &Patronictl) -> Result<()> {
    let standby = world.cluster.standbys().await?.remove(0);
    let at = "2099-01-01T00:00:00+00:00";
    let said = ctl.types(&format!("restart lab {standby} --scheduled {at} --force"))?;
    ensure!(
        said.ends_with(&format!("Success: restart scheduled on member {standby}\n")),
        "{said}"
    );
    eventually("the restart is shown", settle_deadline(), async || {
        let found = members(ctl)?
            .into_iter()
            .find(|member| member["Member"] == *standby);
        let found = found.context("the member")?;
        ensure!(found["Scheduled restart"] == at, "{found}");
        Ok(())
    })
    .await?;
    let said = ctl.types(&format!("flush lab {standby} restart --force"))?;
    ensure!(
        said.ends_with(&format!(
            "Success: flush scheduled restart for member {standby}\n"
        )),
        "{said}"
    );
    let said = ctl.types(&format!("switchover --scheduled {at} --force"))?;
    ensure!(said.contains(" Switchover scheduled\n"), "{said}");
    let table = ctl.types("list")?;
    ensure!(
        table.contains(&format!("\n Switchover scheduled at: {at}\n")),
        "{table}"
    );
    let said = ctl.types("flush lab switchover")?;
    ensure!(said == "Success: scheduled switchover deleted\n", "{said}");
    ensure!(!ctl.types("list")?.contains("scheduled"));
    let said = ctl.types("flush lab switchover")?;
    ensure!(said == "No pending scheduled switchover\n", "{said}");
    Ok(())
}

/// Of a cluster whose nodes are gone.
async fn removes(world: &mut World<'_>, ctl: &Patronictl) -> Result<()> {
    world.cluster.cut_power()?;
    eventually("nobody is left", settle_deadline(), async || {
        let left = members(ctl)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .await?;
    let said = ctl.reads("lab\nYes I am aware", "remove lab")?;
    ensure!(said.starts_with("+ Cluster: lab (7"), "{said}");
    // The original ends with 0 here, ours with 3: there is no such cluster.
    let said = ctl.tries("list")?;
    let empty = said.stdout.starts_with("+ Cluster: lab (uninitialized)");
    ensure!(empty && matches!(said.code, Some(0 | 3)), "{said:?}");
    Ok(())
}
