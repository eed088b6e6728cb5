//! The kill, and what can be said about the time after it.

use super::PATIENCE;
use super::screen::Screen;
use crate::incidents;
use anyhow::Result;
use jiff::Timestamp;
use lab::ledger::{History, Outcome};
use lab::{Cluster, Ledger};
use std::time::Duration;

/// Events later than this belong to another act.
const EVENTS: i64 = 20_000;

/// The moment at which a node was killed.
#[derive(Debug)]
pub(super) struct Fall {
    pub(super) victim: String,
    processes: usize,
    wall: Timestamp,
    /// The same on the ledger's clock.
    ledger: Duration,
    opened: (String, Duration),
}

/// Kills everything of the primary and waits for another one.
pub(super) async fn strike(
    cluster: &mut Cluster,
    ledger: &Ledger,
    screen: &Screen,
) -> Result<Fall> {
    let victim = cluster.primary().await?;
    let node = cluster.node_mut(&victim)?;
    let processes = node.host.processes().len();
    let (wall, moment) = (Timestamp::now(), ledger.elapsed());
    node.kill_everything()?;
    screen.say(&format!("{victim} is gone: {processes} processes killed"));
    let new = cluster.another_primary(&victim, PATIENCE).await?;
    let opened = (new, ledger.elapsed());
    screen.say(&format!("{} is primary", opened.0));
    Ok(Fall {
        victim,
        processes,
        wall,
        ledger: moment,
        opened,
    })
}

/// Prints what the client and the cluster's own events say, in the order of time.
pub(super) async fn timeline(screen: &Screen, fall: &Fall, cluster: &Cluster, history: &History) {
    let mut moments = vec![(
        0,
        format!("{}: {} processes killed", fall.victim, fall.processes),
    )];
    let since = |at: Duration| {
        i128::try_from(at.as_millis()).unwrap_or(i128::MAX)
            - i128::try_from(fall.ledger.as_millis()).unwrap_or_default()
    };
    let gap = history.longest_gap();
    moments.push((
        since(gap.from),
        "the last row that the old primary acknowledged".to_owned(),
    ));
    moments.push((
        since(gap.from + gap.length),
        format!("the first row that {} acknowledged", fall.opened.0),
    ));
    moments.push((
        since(fall.opened.1),
        format!("GET /primary of {} says 200", fall.opened.0),
    ));
    let refused = history.operations().iter().find(|operation| {
        operation.outcome != Outcome::Acknowledged && operation.answered >= fall.ledger
    });
    if let Some(refused) = refused {
        moments.push((
            since(refused.answered),
            "the client sees its first error".to_owned(),
        ));
    }
    let events = incidents::after(cluster, fall.wall, EVENTS).await;
    moments.extend(events.into_iter().map(|(at, what)| (i128::from(at), what)));
    moments.sort();
    for (at, what) in moments {
        screen.moment(at, &what);
    }
}
