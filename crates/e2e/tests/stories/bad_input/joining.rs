//! A node that can't reach its cluster at `run`: the monitor is gone, or the secret is another's.

use super::desk::{Desk, refused, write_private};
use anyhow::ensure;
use e2e::{Terminal, in_a_lab};
use lab::Place;
use std::fs;
use std::sync::Arc;

/// Two terminals, one directory: the second agent must not start.
#[test]
fn a_second_agent_on_one_directory() {
    in_a_lab(
        "a_second_agent_on_one_directory",
        Place::Loopback,
        async |lab| {
            let desk = Desk::set_up(lab)?;
            desk.start_monitor().await?;
            let said = desk.terminal.tries("standfast run --pgdata ./monitor")?;
            said.refuses(1, &["runs"])?;
            let again = Arc::clone(&desk.terminal.host);
            let state =
                Terminal { host: again }.types("standfast show state --pgdata ./monitor")?;
            ensure!(state.contains("Assigned State"), "{state}");
            Ok(())
        },
    );
}

/// Said once for each peer, not at every try.
const SAID_AT_MOST: usize = 4;

#[test]
fn the_monitor_is_gone_at_run_or_has_another_secret() {
    in_a_lab(
        "the_monitor_is_gone_at_run_or_has_another_secret",
        Place::Loopback,
        async |lab| {
            let desk = Desk::set_up(lab)?;
            desk.terminal.types(&desk.create_monitor())?;
            let monitor = desk.runs("./monitor")?;
            monitor.says(&["registered"]).await?;
            desk.terminal.types(&desk.create_node("./node"))?;

            let file = desk.configuration("./node");
            let right = fs::read_to_string(&file)?;
            let secret = desk.path("other-secret");
            let host = &desk.terminal.host;
            write_private(host, &secret, "planted-another-cluster-0123456789abcdef")?;
            let from = right
                .lines()
                .find(|line| line.contains("secret_file:"))
                .unwrap_or_default();
            let to = format!("    secret_file: {}", secret.display());
            write_private(host, &file, &right.replace(from, &to))?;
            let stranger = desk.runs("./node")?;
            stranger
                .says(&["another cluster secret", "waiting for the store"])
                .await?;
            let said = stranger.log().matches("another cluster secret").count();
            ensure!(said <= SAID_AT_MOST, "a storm: {}", stranger.log());
            let heard = monitor.log().matches("another cluster secret").count();
            ensure!((1..=SAID_AT_MOST).contains(&heard), "{}", monitor.log());
            ensure!(!stranger.log().contains("planted-"), "{}", stranger.log());
            ensure!(
                stranger.interrupt().await? == Some(0),
                "it did not stop in order"
            );
            ensure!(!desk.path("node").exists(), "a data directory was made");
            write_private(host, &file, &right)?;

            ensure!(
                monitor.interrupt().await? == Some(0),
                "the monitor did not stop in order"
            );
            let lonely = desk.runs("./node")?;
            lonely.says(&["waiting for the store"]).await?;
            ensure!(
                lonely.log().matches("waiting for the store").count() == 1,
                "{}",
                lonely.log()
            );
            let line = "standfast show state --pgdata ./node";
            refused(&desk.terminal, line, 4, &["127.0.0.1", "hint: "])?;
            ensure!(!desk.path("node").exists(), "a data directory was made");
            let _monitor = desk.runs("./monitor")?;
            desk.sees(&["single"]).await
        },
    );
}
