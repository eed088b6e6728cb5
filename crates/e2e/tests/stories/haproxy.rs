//! HAProxy in front of a cluster, with the configurations that people have: its routes follow a failover.

use anyhow::{Context, Result, ensure};
use e2e::{Announced, Topology, World, settle_deadline, story};
use lab::{Host, Service, eventually, file_of, run_to_end};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, Config, NoTls};

/// Ports of the primary's listeners; each one's standbys are on the next port.
const SHOWN: u16 = 5000;
const HTTP: u16 = 5100;
const TCP: u16 = 5200;

/// How guides for Patroni configure it: the status alone, and a whole request in a TCP check.
fn usual(world: &World<'_>) -> Result<String> {
    let mut text = String::new();
    for (port, name, path) in [
        (HTTP, "http_primary", "/primary"),
        (HTTP + 1, "http_replicas", "/replica"),
        (TCP, "tcp_primary", "/primary"),
        (TCP + 1, "tcp_replicas", "/replica"),
    ] {
        let check = if name.starts_with("http") {
            format!("option httpchk OPTIONS {path}\n    http-check expect status 200")
        } else {
            format!(
                "option tcp-check\n    tcp-check connect\n    tcp-check send GET\\ {path}\\ HTTP/1.0\\r\\n\\r\\n\n    \
                 tcp-check expect string HTTP/1.0\\ 200\\ OK"
            )
        };
        let _ = write!(
            text,
            "\nlisten {name}\n    bind *:{port}\n    {check}\n    \
             default-server inter 2s fall 3 rise 2 on-marked-down shutdown-sessions\n"
        );
        for node in world.cluster.data_nodes() {
            let (api, pg) = (node.api.rsplit_once(':').context("a port")?.1, node.pg_port);
            let (address, pg) = (node.host.address(), pg.context("a port")?);
            let _ = writeln!(
                text,
                "    server {} {address}:{pg} check port {api}",
                node.name
            );
        }
    }
    Ok(text)
}

/// What `standfast show haproxy` prints on a node.
fn shown(world: &World<'_>, more: &[&str]) -> Result<String> {
    let node = &world.cluster.nodes[0];
    let words = [&["show", "haproxy", "--monitor", &node.api], more].concat();
    run_to_end(&mut node.standfast(&words))
}

/// Nothing is wrong with it, and not one warning either.
fn loads(balancer: &Host, file: &str) -> Result<()> {
    let checked = balancer
        .command("haproxy")
        .args(["-c", "-f", file])
        .output()?;
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    ensure!(
        checked.status.success() && !said.contains("WARNING"),
        "{said}"
    );
    Ok(())
}

/// HAProxy with this configuration, which loads, once it has asked every server. Until then it takes all of them for fit,
/// leads clients to any, and shuts down their sessions when it finds out.
async fn started(balancer: &Arc<Host>, text: &str) -> Result<Service> {
    let file = file_of(balancer, "haproxy.cfg", "")?;
    let socket = file.with_extension("sock");
    let text = format!("{text}\nglobal\n    stats socket {}\n", socket.display());
    let file = file_of(balancer, "haproxy.cfg", &text)?;
    let file = file.to_str().context("a plain path")?;
    loads(balancer, file)?;
    let haproxy = Service::start(balancer, "haproxy", &["-db", "-f", file])?;
    let socket = balancer.outside(&socket);
    eventually("every server is asked", settle_deadline(), async || {
        let mut stats = UnixStream::connect(&socket)?;
        stats.write_all(b"show stat\n")?;
        let mut table = String::new();
        stats.read_to_string(&mut table)?;
        let mut lines = table.lines();
        let head: Vec<&str> = lines.next().context("a head")?.split(',').collect();
        let column = |name: &str| head.iter().position(|it| *it == name);
        let column = column("check_status").context("check_status")?;
        let checks: Vec<&str> = lines
            .filter_map(|line| line.split(',').nth(column))
            .collect();
        let asked = checks.iter().filter(|it| it.contains('L')).count();
        ensure!(asked > 0 && !checks.contains(&"INI"), "{checks:?}");
        Ok(())
    })
    .await?;
    Ok(haproxy)
}

/// A session through a port of the balancer, and whose it is.
async fn through(world: &World<'_>, balancer: &Host, port: u16) -> Result<(Client, String, bool)> {
    let known = world.cluster.nodes[0].sql_config()?;
    let mut config = Config::new();
    config
        .host(balancer.address())
        .port(port)
        .dbname("postgres");
    config.user(known.get_user().unwrap_or_default());
    config.password(known.get_password().unwrap_or_default());
    let connecting = tokio::time::timeout(Duration::from_secs(3), config.connect(NoTls));
    let (client, connection) = connecting.await??;
    tokio::spawn(connection);
    let question = "SELECT host(inet_server_addr()), pg_is_in_recovery()";
    let row = client.query_one(question, &[]).await?;
    let (address, standby): (String, bool) = (row.get(0), row.get(1));
    let node = world
        .cluster
        .data_nodes()
        .find(|it| it.host.address() == address);
    let name = node
        .with_context(|| format!("no node at {address}"))?
        .name
        .clone();
    Ok((client, name, standby))
}

/// Every listener leads to the primary or to a standby, as it should.
async fn routes_are_right(
    world: &World<'_>,
    balancer: &Host,
    primary: &str,
    ports: &[u16],
) -> Result<()> {
    for &port in ports {
        let begun = Instant::now();
        let what = format!("port {port} leads to {primary}, and the next to standbys");
        eventually(&what, settle_deadline(), async || {
            let (client, name, _) = through(world, balancer, port).await?;
            ensure!(name == primary, "it leads to {name}");
            client.simple_query("CREATE TEMP TABLE t ()").await?;
            let (_, name, standby) = through(world, balancer, port + 1).await?;
            ensure!(standby && name != primary, "the replicas' leads to {name}");
            Ok(())
        })
        .await?;
        world.say(&format!(
            "port {port} is right after {} ms more",
            begun.elapsed().as_millis()
        ));
    }
    Ok(())
}

/// Patroni: REST | HAProxy with `httpchk` or `tcp-check` | works
#[test]
fn routes_follow_a_failover() {
    let name = "routes_follow_a_failover";
    story(name, Topology::Three, Announced::FAILOVER, async |world| {
        let balancer: Arc<Host> = world.lab.add_host("lb", 41)?;
        let text = format!("{}{}", shown(world, &[])?, usual(world)?);
        let mut haproxy = started(&balancer, &text).await?;

        let old = world.cluster.primary().await?;
        routes_are_right(world, &balancer, &old, &[SHOWN, HTTP, TCP]).await?;
        haproxy.check()?;
        let (session, ..) = through(world, &balancer, SHOWN).await?;
        let begun = Instant::now();
        world.cluster.node(&old)?.kill_postmaster()?;
        let new = world
            .cluster
            .another_primary(&old, settle_deadline())
            .await?;
        world.say(&format!(
            "{new} leads after {} ms",
            begun.elapsed().as_millis()
        ));
        routes_are_right(world, &balancer, &new, &[SHOWN, HTTP, TCP]).await?;
        ensure!(
            session.simple_query("SELECT 1").await.is_err(),
            "a session with the old primary went on"
        );
        world.whole().await?;
        routes_are_right(world, &balancer, &new, &[SHOWN, HTTP, TCP]).await?;
        haproxy.check()
    });
}

/// Checks by HTTPS, of certificates that one authority has signed.
/// Patroni: REST | HAProxy with `check-ssl` | works
#[test]
fn routes_follow_a_failover_by_https() {
    let name = "routes_follow_a_failover_by_https";
    let announced = Announced::FAILOVER;
    story(name, Topology::ThreeWithTls, announced, async |world| {
        let balancer: Arc<Host> = world.lab.add_host("lb", 41)?;
        let authority = world.authority();
        let authority = authority.to_str().context("a plain path")?;
        let text = shown(world, &["--ca-file", authority])?;
        ensure!(
            text.contains(&format!("check-ssl verify required ca-file {authority}")),
            "{text}"
        );
        let mut haproxy = started(&balancer, &text).await?;
        let old = world.cluster.primary().await?;
        routes_are_right(world, &balancer, &old, &[SHOWN]).await?;
        world.cluster.node(&old)?.kill_postmaster()?;
        let new = world
            .cluster
            .another_primary(&old, settle_deadline())
            .await?;
        routes_are_right(world, &balancer, &new, &[SHOWN]).await?;
        world.whole().await?;
        haproxy.check()
    });
}
