//! Ctrl-C at many moments: of `create`, and of the first `run` while initdb works.

use super::desk::Desk;
use anyhow::{Result, ensure};
use e2e::{in_a_lab, settle_deadline};
use lab::{Place, eventually};
use std::time::Duration;

/// Starts `line`, interrupts it after `after`, and waits for its end.
fn interrupted(desk: &Desk, line: &str, after: Duration) -> Result<()> {
    let mut child = desk.terminal.leaves_running(line, "interrupted.log")?;
    let pid = i32::try_from(child.id())?;
    // The moment of the interruption is what is tried, not a wait for something.
    std::thread::sleep(after);
    desk.terminal
        .host
        .signal(pid, rustix::process::Signal::INT)?;
    child.wait()?;
    Ok(())
}

#[test]
fn ctrl_c_at_any_moment_of_create() {
    in_a_lab(
        "ctrl_c_at_any_moment_of_create",
        Place::Loopback,
        async |lab| {
            let desk = Desk::set_up(lab)?;
            for milliseconds in (0..60).step_by(4) {
                interrupted(
                    &desk,
                    &desk.create_monitor(),
                    Duration::from_millis(milliseconds),
                )?;
            }
            desk.start_monitor().await?;
            let create = desk.create_node("./node");
            for milliseconds in (0..120).step_by(8) {
                interrupted(&desk, &create, Duration::from_millis(milliseconds))?;
            }
            desk.terminal.types(&create)?;
            desk.terminal
                .leaves_running("standfast run --pgdata ./node", "node.log")?;
            eventually("the node leads", settle_deadline(), async || {
                let state = desk
                    .terminal
                    .types("standfast show state --pgdata ./monitor")?;
                ensure!(state.contains("single"), "{state}");
                // Nodes that were registered and given up again would be rows of their own.
                ensure!(state.trim().lines().count() == 3, "{state}");
                Ok(())
            })
            .await
        },
    );
}

/// `run` is interrupted while initdb works, then at later and later moments of the starts that
/// find what the ones before have left; the last `run` must lead, on a cluster that is sound.
#[test]
fn ctrl_c_in_the_middle_of_the_first_start() {
    in_a_lab(
        "ctrl_c_in_the_middle_of_the_first_start",
        Place::Loopback,
        async |lab| {
            let desk = Desk::set_up(lab)?;
            desk.start_monitor().await?;
            desk.terminal.types(&desk.create_node("./node"))?;
            let first = desk.runs("./node")?;
            first.says(&["rule=\"bootstrap\""]).await?;
            let code = first.interrupt().await?;
            ensure!(code == Some(0), "in initdb: code {code:?}");
            for milliseconds in [0, 100, 300, 700] {
                let next = desk.runs("./node")?;
                next.says(&["started, meeting"]).await?;
                // The moment of the interruption is what is tried, not a wait for something.
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                let code = next.interrupt().await?;
                ensure!(code == Some(0), "after {milliseconds} ms: code {code:?}");
            }
            let last = desk.runs("./node")?;
            desk.sees(&["single"]).await?;
            let port = desk.node;
            let psql = format!("psql -h 127.0.0.1 -p {port} -d postgres -Atc");
            desk.terminal
                .types(&format!("{psql} 'create table t as select 1'"))?;
            let code = last.interrupt().await?;
            ensure!(code == Some(0), "at the end: code {code:?}");
            Ok(())
        },
    );
}
