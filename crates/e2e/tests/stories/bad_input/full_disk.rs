//! Disks that are full when a node is made.

use super::desk::Desk;
use anyhow::ensure;
use e2e::{in_a_lab, settle_deadline};
use lab::{Disk, Place, eventually};
use std::fs;

#[test]
fn the_disk_is_full_at_create() {
    in_a_lab(
        "the_disk_is_full_at_create",
        Place::Namespaces,
        async |lab| {
            let desk = Desk::set_up(lab)?;
            let small = desk.path("small");
            desk.terminal
                .host
                .mount(Disk::Tmpfs { megabytes: 1 }, &small)?;
            desk.terminal.host.fill_disk(&small)?;
            let create = format!("HOME={} {}", small.display(), desk.create_monitor());
            desk.terminal
                .tries(&create)?
                .refuses(1, &["small/", "No space left on device"])?;
            desk.terminal.host.free_disk(&small)?;
            desk.terminal.types(&create).map(drop)
        },
    );
}

/// `create` needs no room for the data, so it is `run` that finds out, and goes on when there is.
#[test]
fn the_data_disk_is_full_at_the_first_start() {
    in_a_lab(
        "the_data_disk_is_full_at_the_first_start",
        Place::Namespaces,
        async |lab| {
            let desk = Desk::set_up(lab)?;
            desk.start_monitor().await?;
            let small = desk.path("small");
            desk.terminal
                .host
                .mount(Disk::Tmpfs { megabytes: 300 }, &small)?;
            desk.terminal.host.fill_disk(&small)?;
            desk.terminal.types(&desk.create_node("./small/data"))?;
            desk.terminal
                .leaves_running("standfast run --pgdata ./small/data", "node.log")?;
            let log = desk.path("node.log");
            lab::until("the node says why", settle_deadline(), || {
                fs::read_to_string(&log).is_ok_and(|log| log.contains("No space left on device"))
            })
            .await?;
            desk.terminal.host.free_disk(&small)?;
            eventually("the node leads", settle_deadline(), async || {
                let state = desk
                    .terminal
                    .types("standfast show state --pgdata ./monitor")?;
                ensure!(state.contains("single"), "{state}");
                Ok(())
            })
            .await
        },
    );
}
