//! Three nodes whose store members speak TLS.

use anyhow::{Context, Result, ensure};
use e2e::{Announced, Patronictl, Said, Terminal, Topology, World, settle_deadline, story};
use lab::{Fault, Node, Passwords, eventually, request};
use rustix::process::Signal;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the store of `node` says to somebody who begins without TLS.
async fn plain_talk(node: &Node) -> Result<String> {
    let talk = async {
        let mut stream = TcpStream::connect((node.host.address(), 8009)).await?;
        let nonce = vec!["0"; 32].join(",");
        let hello = format!(r#"{{"cluster":"lab","nonce":[{nonce}]}}"#);
        stream.write_all(b"SFS1").await?;
        stream.write_u32(u32::try_from(hello.len())?).await?;
        stream.write_all(hello.as_bytes()).await?;
        let mut answer = vec![0; stream.read_u32().await? as usize];
        stream.read_exact(&mut answer).await?;
        Ok(String::from_utf8(answer)?)
    };
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, talk)
        .await
        .context("an answer")?
}

/// Connections that say nothing, or begin TLS and do not go on.
async fn dawdle(node: &Node) -> Result<Vec<TcpStream>> {
    let mut crowd = Vec::new();
    for _ in 0..300 {
        crowd.push(TcpStream::connect(&node.api).await?);
        if crowd.len() % 2 == 0 {
            let mut stream = TcpStream::connect((node.host.address(), 8009)).await?;
            stream.write_all(b"SFS1\x16\x03\x01\x02").await?;
            crowd.push(stream);
        }
    }
    Ok(crowd)
}

async fn kill_the_postmaster(world: &mut World<'_>) -> Result<()> {
    let ledger = world.load(4).await?;
    world
        .break_and_heal(Fault::Postmaster, &ledger, Duration::ZERO)
        .await?;
    world.reckon(ledger).await.map(drop)
}

const ANNOUNCED: Announced = Announced(&[
    "the store no longer has this node as leader",
    "WAL that the cluster does not have was discarded",
    // The one who begins without TLS.
    "a peer was denied",
]);

#[test]
fn the_postmaster_is_killed_over_tls() {
    let name = "the_postmaster_is_killed_over_tls";
    story(name, Topology::ThreeWithTls, ANNOUNCED, async |world| {
        for node in &world.cluster.nodes {
            let said = plain_talk(node).await?;
            ensure!(said.contains("OnlyTls"), "{} says {said}", node.name);
        }
        let primary = world.cluster.primary().await?;
        let node = world.cluster.node(&primary)?;
        let _crowd = dawdle(node).await?;
        ensure!(node.get("/liveness").await?.status == 200, "it is drowned");
        kill_the_postmaster(world).await
    });
}

#[test]
fn certificates_are_renewed_under_way() {
    let name = "certificates_are_renewed_under_way";
    story(
        name,
        Topology::ThreeWithTls,
        Announced::FAILOVER,
        async |world| {
            let primary = world.cluster.primary().await?;
            world.renew_certificates()?;
            for node in &world.cluster.nodes {
                node.signal_agent(Signal::HUP)?;
                let what = format!("{} has read its certificates again", node.name);
                eventually(&what, settle_deadline(), async || {
                    let told = node.log().contains("reloaded: the certificates");
                    told.then_some(()).context("not yet")
                })
                .await?;
            }
            let still = world.whole().await?;
            ensure!(still == primary, "{primary} was replaced by {still}");
            // One that begins with the new certificates meets those that began with the old ones.
            let standby = world.cluster.standbys().await?.remove(0);
            let node = world.cluster.node_mut(&standby)?;
            node.stop(settle_deadline()).await?;
            node.start()?;
            world.whole().await?;
            kill_the_postmaster(world).await
        },
    );
}

/// What a person types on the first host, with everything that stands in the story's directory.
fn typed(world: &World<'_>, line: &str) -> Result<Said> {
    let host = world.cluster.nodes[0].host.clone();
    let directory = world.authority();
    let directory = directory.parent().context("a directory")?;
    let line = line
        .replace("TLS", &directory.display().to_string())
        .replace("LAB", &world.lab.path().display().to_string())
        .replace("N1", &world.cluster.nodes[0].api)
        .replace("N2", &world.cluster.nodes[1].api);
    Terminal { host }.tries(&line)
}

fn says(said: &Said, code: i32, words: &[&str]) -> Result<()> {
    let all = format!("{}{}", said.stdout, said.stderr);
    ensure!(said.code == Some(code), "{said:?}");
    let missing = words.iter().find(|word| !all.contains(**word));
    ensure!(missing.is_none(), "no {missing:?} in {said:?}");
    Ok(())
}

/// Patroni: REST | `ctl.cacert`, `certfile`, `keyfile`, `insecure`, `authentication` | work, for `patronictl` and
///   for our own commands
/// Patroni: patronictl | `query` by TLS: `PGSSLMODE` and the like, `sslmode` of the superuser in the file | works, without
///   channel binding
#[test]
fn commands_speak_https() {
    let name = "commands_speak_https";
    story(
        name,
        Topology::ThreeWithTls,
        Announced::POWER,
        async |world| {
            // Makes the link that ours is called by.
            let _ = Patronictl::ours(world)?;
            let plain = request(
                "GET",
                &world.cluster.nodes[0].api,
                "/primary",
                None,
                None,
                settle_deadline(),
            );
            let plain = plain.await?;
            ensure!(
                plain.status == 400 && plain.body.contains("HTTPS only"),
                "{plain:?}"
            );
            let types = |line: &str, code: i32, words: &[&str]| {
                says(
                    &typed(world, &format!("unset PGDATA; {line}"))?,
                    code,
                    words,
                )
            };
            let (show, ca) = ("standfast show state --monitor", "--ca-file TLS/ca.crt");
            types(&format!("{show} https://N1 {ca}"), 0, &["n1", "n2", "n3"])?;
            types(&format!("{show} N2,N1 {ca}"), 0, &["n1", "n2", "n3"])?;
            types(&format!("{show} https://N1 -k"), 0, &["n1", "n2", "n3"])?;
            types(
                &format!("{show} https://N1"),
                4,
                &["no authority that is believed", "--ca-file"],
            )?;
            types(&format!("{show} N1"), 4, &["HTTPS only"])?;
            // A certificate that is for another node.
            types(
                &format!("{show} https://N1 --ca-file TLS/n2.crt"),
                4,
                &["no authority that is believed"],
            )?;
            let primary = world.cluster.primary().await?;
            types(
                &format!(
                    "standfast perform switchover --monitor https://N1 {ca} --secret-file LAB/secret"
                ),
                0,
                &[],
            )?;
            let next = world.whole().await?;
            ensure!(next != primary, "{primary} leads as before");

            // patronictl by its own file, with a certificate to show and without one.
            let rest = Passwords::default().rest;
            let login = format!("authentication: {{username: admin, password: {rest}}}");
            for (file, more) in [
                (
                    "both",
                    "cacert: TLS/ca.crt, certfile: TLS/n1.crt, keyfile: TLS/n1.key, ",
                ),
                ("ca", "cacert: TLS/ca.crt, "),
                ("none", ""),
            ] {
                let line = format!("printf '%s\n' 'ctl: {{{more}{login}}}' > LAB/{file}.yml");
                says(&typed(world, &line)?, 0, &[])?;
            }
            let ctl = |file: &str, words: &str, code: i32, said: &[&str]| {
                let line = format!("patronictl -c LAB/{file}.yml -d https://N2 {words}");
                types(&line, code, said)
            };
            ctl("both", "list", 0, &["n1", "n2", "n3", "Leader"])?;
            ctl("ca", "list", 0, &["n1", "n2", "n3", "Leader"])?;
            ctl("none", "list", 4, &["no authority that is believed"])?;
            ctl("none", "-k list", 0, &["n1", "n2", "n3", "Leader"])?;
            ctl("ca", "pause", 1, &["client certificate required"])?;
            ctl("both", "pause --wait", 0, &["Success"])?;
            ctl("both", "resume --wait", 0, &["Success"])?;
            ctl(
                "both",
                "reload lab --force",
                0,
                &["Reload request received"],
            )?;
            // SQL by TLS, as libpq's modes have it.
            let password = Passwords::default().superuser;
            let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            for (mode, authority, code, word) in [
                ("prefer", "", 0, "True"),
                ("disable", "", 0, "False"),
                ("verify-full", "TLS/ca.crt", 0, "True"),
                ("verify-ca", "TLS/n2.crt", 1, "UnknownIssuer"),
            ] {
                let line = format!(
                    "PGPASSWORD={password} PGSSLMODE={mode} PGSSLROOTCERT={authority} patronictl -c LAB/both.yml \
                     -d https://N2 query -m n1 -U postgres -d postgres -c '{sql}'"
                );
                says(&typed(world, &line)?, code, &[word])?;
            }
            Ok(())
        },
    );
}
