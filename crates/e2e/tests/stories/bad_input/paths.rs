//! Directories named in odd ways: absent, through links, with `..`, too long for a socket; and programs that are not
//! where the file says.

use super::desk::{Desk, refused, write_private};
use anyhow::{Context, Result, ensure};
use e2e::in_a_lab;
use lab::Place;
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;

#[test]
fn a_directory_has_one_path_before_it_exists_and_after() {
    in_a_lab(
        "a_directory_has_one_path_before_it_exists_and_after",
        Place::Loopback,
        async |lab| {
            let desk = Desk::set_up(lab)?;
            desk.start_monitor().await?;
            desk.terminal.types("mkdir real && ln -s real link")?;
            let typed = "link/absent/../new/d";
            desk.terminal.types(&desk.create_node(typed))?;
            let file = desk.configuration("real/new/d");
            ensure!(file.exists(), "{} is not there", file.display());
            desk.runs(typed)?.interrupt().await?;
            let running = desk.runs("real/new/d")?;
            desk.sees(&["single"]).await?;
            for same in [typed, "link/new/d", "real/./new/../new/d"] {
                desk.terminal
                    .types(&format!("standfast show state --pgdata {same}"))?;
            }
            let drop = format!("standfast drop node --pgdata {typed} --destroy --yes");
            desk.terminal.types(&drop).with_context(|| running.log())?;
            ensure!(!file.exists(), "{} was left behind", file.display());
            ensure!(!desk.path("real/new/d").exists(), "the data were left");
            Ok(())
        },
    );
}

#[test]
fn a_long_home_is_no_hindrance() {
    in_a_lab(
        "a_long_home_is_no_hindrance",
        Place::Loopback,
        async |lab| {
            let desk = Desk::set_up(lab)?;
            desk.start_monitor().await?;
            let home = desk.path(&"long".repeat(40));
            let secret = desk.terminal.host.home().join(".config/standfast/secret");
            desk.terminal.types(&format!("mkdir {}", home.display()))?;
            let at_home = |line: &str| format!("env HOME={} {line}", home.display());
            let create = format!(
                "{} --secret-file {}",
                desk.create_node("./node"),
                secret.display()
            );
            desk.terminal.types(&at_home(&create))?;
            let running = super::desk::Running::start(
                &desk.terminal,
                &at_home("standfast run --pgdata ./node"),
            )?;
            desk.sees(&["single"]).await?;
            running.interrupt().await.map(drop)
        },
    );
}

#[test]
fn the_programs_are_not_where_the_file_says() {
    in_a_lab(
        "the_programs_are_not_where_the_file_says",
        Place::Loopback,
        async |lab| {
            let desk = Desk::set_up(lab)?;
            desk.start_monitor().await?;
            desk.terminal.types(&desk.create_node("./node"))?;
            let file = desk.configuration("node");
            let sound = fs::read_to_string(&file)?;
            let host = &desk.terminal.host;
            let bin_dir = format!("bin_dir: {}", host.pg_bin().display());
            ensure!(sound.contains(&bin_dir), "{bin_dir} is not in {sound}");
            write_private(host, &file, &sound.replace(&bin_dir, "bin_dir: /nope/bin"))?;
            refused(
                &desk.terminal,
                "standfast run --pgdata ./node",
                1,
                &["/nope/bin", "no directory"],
            )?;
            ensure!(!desk.path("node").exists(), "data were made");
            let state = state_dir(&sound)?;
            ensure!(!state.join("raft").exists(), "a store was begun");
            write_private(host, &file, &sound)?;
            let running = desk.runs("./node")?;
            desk.sees(&["single"]).await?;
            // A second one is told which, and how to end it.
            let second = "standfast run --pgdata ./node";
            let node = desk.path("node").display().to_string();
            let hint = format!("standfast stop --pgdata {node}");
            refused(&desk.terminal, second, 1, &["runs already", &hint])?;
            // What is odd in a file is said at a reload as at a start.
            write_private(
                host,
                &file,
                &sound.replace("bin_dir:", "bin-dir: /x\n  bin_dir:"),
            )?;
            // A bare SIGHUP, as `systemctl reload` sends it.
            let pid = fs::read_to_string(state.join("standfast.pid"))?;
            host.signal(pid.trim().parse()?, Signal::HUP)?;
            running
                .says(&["postgresql.bin-dir: unknown key", "reloaded: "])
                .await?;
            running.interrupt().await.map(drop)
        },
    );
}

/// The one that `create` wrote into the file.
fn state_dir(file: &str) -> Result<PathBuf> {
    let line = file
        .lines()
        .find_map(|line| line.strip_prefix("state_dir: "));
    line.map(PathBuf::from).context("no state_dir in the file")
}
