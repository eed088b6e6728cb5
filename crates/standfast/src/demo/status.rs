//! What the cluster looks like while the demo waits for it, and how to go on playing with it.

use super::screen::Screen;
use anyhow::Result;
use lab::{Cluster, Lab, Ledger, Node};
use std::fmt::Write as _;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Waits for `work` with a live line of the cluster's state.
pub(super) async fn live<T>(
    screen: &Screen,
    cluster: &Cluster,
    ledger: Option<&Ledger>,
    work: impl Future<Output = Result<T>>,
) -> Result<()> {
    tokio::pin!(work);
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = beat.tick(), if screen.is_live() => screen.live(&line(cluster, ledger).await),
        }
    };
    done?;
    let last = line(cluster, ledger).await;
    if screen.is_live() {
        screen.live(&last);
    } else {
        screen.say(&last);
    }
    Ok(())
}

async fn line(cluster: &Cluster, ledger: Option<&Ledger>) -> String {
    let mut text = states(cluster)
        .await
        .unwrap_or_else(|| "no answer yet".to_owned());
    if let Some(ledger) = ledger {
        let rows = ledger.tally().acknowledged.load(Ordering::Relaxed);
        let _ = write!(text, " · {rows} rows acknowledged");
    }
    text
}

/// `a primary, b standby`, as whoever answers first says.
async fn states(cluster: &Cluster) -> Option<String> {
    for node in cluster.nodes.iter().rev() {
        let Ok(answer) = node.get("/api/v1/state").await else {
            continue;
        };
        let Ok(state) = serde_json::from_str::<api::v1::State>(&answer.body) else {
            continue;
        };
        let words = state
            .nodes
            .iter()
            .filter(|node| !node.witness)
            .map(|node| format!("{} {}", node.name, node.state))
            .collect::<Vec<_>>();
        return Some(words.join(", "));
    }
    None
}

/// The connection string that a client would use.
pub(super) fn uri(cluster: &Cluster) -> String {
    let hosts = cluster
        .data_nodes()
        .filter_map(|node| Some(format!("{}:{}", node.host.address(), node.pg_port?)))
        .collect::<Vec<_>>()
        .join(",");
    format!("psql 'postgres://{hosts}/postgres?target_session_attrs=read-write'")
}

/// The command that made a node, shortened.
pub(super) fn create_command(lab: &Lab, node: &Node) -> String {
    let pgdata = short(lab, &node.data_dir);
    match node.pg_port {
        None => format!("standfast create monitor --pgdata {pgdata} --hostname 127.0.0.1"),
        Some(port) => format!(
            "standfast create postgres --pgdata {pgdata} --pgport {port} --name {} --monitor …",
            node.name
        ),
    }
}

/// A path of the lab, seen from the lab.
pub(super) fn short(lab: &Lab, path: &Path) -> String {
    path.strip_prefix(lab.path()).map_or_else(
        |_| path.display().to_string(),
        |rest| format!("…/{}", rest.display()),
    )
}

/// What to type when the cluster stays.
pub(super) fn how_to_play(screen: &Screen, lab: &Lab, cluster: &Cluster) {
    let Some(monitor) = cluster.nodes.iter().find(|node| node.pg_port.is_none()) else {
        return;
    };
    let directory = lab.path().display();
    screen.act("The cluster stays; to play with it");
    screen.command(&format!(
        "export HOME={} PATH={directory}:$PATH",
        monitor.host.home().display()
    ));
    let user = lab.identity().name();
    screen.say(&format!("(as {user}, to whom it belongs)"));
    let monitor = monitor.data_dir.display();
    screen.command(&format!("standfast show state --pgdata {monitor}"));
    screen.command(&format!("standfast show events --pgdata {monitor}"));
    screen.command(&format!("standfast perform switchover --pgdata {monitor}"));
    screen.command(&format!("{} -U postgres", uri(cluster)));
    screen.say("and to stop it:");
    for node in &cluster.nodes {
        screen.command(&format!(
            "standfast stop --pgdata {}",
            node.data_dir.display()
        ));
    }
    screen.command(&format!("rm -r {directory}"));
}
