//! What `create` refuses before there is a cluster, or with a monitor alone.

use super::desk::Desk;
use anyhow::ensure;
use e2e::in_a_lab;
use lab::{Place, free_ports, take_port};
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn the_monitor_is_not_there() {
    in_a_lab("the_monitor_is_not_there", Place::Loopback, async |lab| {
        let desk = Desk::set_up(lab)?;
        desk.terminal.types(&desk.create_monitor())?;
        let create = desk.create_node("./node");
        let address = format!("127.0.0.1:{}", desk.monitor);
        desk.terminal
            .tries(&create)?
            .refuses(4, &[&address, "hint: "])?;
        ensure!(!desk.path("node").exists(), "something was left behind");
        desk.start_monitor().await?;
        desk.terminal.types(&create).map(drop)
    });
}

#[test]
fn the_data_directory_is_somebody_elses() {
    in_a_lab(
        "the_data_directory_is_somebody_elses",
        Place::Loopback,
        async |lab| {
            let desk = Desk::set_up(lab)?;
            desk.start_monitor().await?;
            let create = desk.create_node("./node");
            desk.leave("node", "thesis.txt", "ten years of work")?;
            desk.terminal
                .tries(&create)?
                .refuses(5, &["desk/node", "not empty"])?;
            desk.is_untouched("node", "thesis.txt", "ten years of work")?;
            fs::remove_dir_all(desk.path("node"))?;
            desk.leave("node", "PG_VERSION", "9.6\n")?;
            desk.terminal
                .tries(&create)?
                .refuses(5, &["desk/node", "9.6"])?;
            desk.is_untouched("node", "PG_VERSION", "9.6\n")?;
            fs::remove_dir_all(desk.path("node"))?;
            desk.terminal.types(&create).map(drop)
        },
    );
}

#[test]
fn a_port_is_in_use() {
    in_a_lab("a_port_is_in_use", Place::Loopback, async |lab| {
        let desk = Desk::set_up(lab)?;
        let taken = take_port(desk.monitor)?;
        let port = desk.monitor.to_string();
        desk.terminal
            .tries(&desk.create_monitor())?
            .refuses(1, &[&port, "taken"])?;
        drop(taken);
        desk.start_monitor().await?;
        let taken = take_port(desk.node)?;
        let (create, port) = (desk.create_node("./node"), desk.node.to_string());
        desk.terminal
            .tries(&create)?
            .refuses(1, &[&port, "taken"])?;
        drop(taken);
        desk.terminal.types(&create).map(drop)
    });
}

#[test]
fn the_secret_differs_or_is_open_to_all() {
    in_a_lab(
        "the_secret_differs_or_is_open_to_all",
        Place::Loopback,
        async |lab| {
            let desk = Desk::set_up(lab)?;
            desk.start_monitor().await?;
            let create = desk.create_node("./node");
            let other = desk.path("other-secret");
            fs::write(&other, "planted-another-cluster-0123456789abcdef")?;
            desk.terminal.host.identity().own(&other)?;
            let with_other = format!("{create} --secret-file {}", other.display());
            fs::set_permissions(&other, fs::Permissions::from_mode(0o644))?;
            desk.terminal
                .tries(&with_other)?
                .refuses(1, &["other-secret", "chmod 600"])?;
            fs::set_permissions(&other, fs::Permissions::from_mode(0o600))?;
            desk.terminal.tries(&with_other)?.refuses(1, &["secret"])?;
            ensure!(!desk.path("node").exists(), "something was left behind");
            desk.terminal.types(&create).map(drop)
        },
    );
}

/// Patroni: Failover | two nodes of one name | the second is refused, also if only upper and lower case differ
#[test]
fn a_node_name_is_taken() {
    in_a_lab("a_node_name_is_taken", Place::Loopback, async |lab| {
        let desk = Desk::set_up(lab)?;
        desk.start_monitor().await?;
        desk.terminal
            .types(&format!("{} --name a", desk.create_node("./one")))?;
        let second = Desk {
            node: free_ports(1)?,
            terminal: desk.terminal.clone(),
            ..desk
        };
        let create = second.create_node("./two");
        second
            .terminal
            .tries(&format!("{create} --name a"))?
            .refuses(5, &["a", "hint: "])?;
        second
            .terminal
            .tries(&format!("{create} --name A"))?
            .refuses(5, &["name A", "like a", "hint: "])?;
        second
            .terminal
            .types(&format!("{create} --name b"))
            .map(drop)
    });
}
