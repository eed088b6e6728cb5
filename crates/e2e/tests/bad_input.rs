//! What people get wrong: each a clear error that says what, where and what to do, with the right
//! exit code; nothing is destroyed, and the same command works once the cause is gone.

use anyhow::{Result, ensure};
use e2e::{Terminal, in_a_lab, settle_deadline};
use lab::{Disk, Lab, Place, eventually, free_ports};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// One machine with everything on it, and the ports of its nodes.
struct Desk {
    terminal: Terminal,
    monitor: u16,
    node: u16,
}

impl Desk {
    fn set_up(lab: &mut Lab) -> Result<Self> {
        let host = lab.add_host("desk", 11)?;
        let (monitor, node) = match lab.place() {
            Place::Loopback => (free_ports(1)?, free_ports(1)?),
            Place::Namespaces => (6000, 6010),
        };
        Ok(Self {
            terminal: Terminal { host },
            monitor,
            node,
        })
    }

    fn create_monitor(&self) -> String {
        format!(
            "standfast create monitor --pgdata ./monitor --pgport {} --hostname 127.0.0.1",
            self.monitor
        )
    }

    fn create_node(&self, directory: &str) -> String {
        format!(
            "standfast create postgres --pgdata {directory} --pgport {} --hostname 127.0.0.1 \
             --pgctl $(which pg_ctl) --monitor 127.0.0.1:{}",
            self.node, self.monitor
        )
    }

    async fn start_monitor(&self) -> Result<()> {
        self.terminal.types(&self.create_monitor())?;
        self.terminal
            .leaves_running("standfast run --pgdata ./monitor", "monitor.log")?;
        eventually("the monitor answers", settle_deadline(), async || {
            self.terminal
                .types("standfast show state --pgdata ./monitor")
                .map(drop)
        })
        .await
    }

    /// A path of the desk.
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.terminal.host.directory().join(name)
    }

    fn is_untouched(&self, directory: &str, file: &str, text: &str) -> Result<()> {
        let directory = self.path(directory);
        let names: Vec<_> = fs::read_dir(&directory)?
            .flatten()
            .map(|it| it.file_name())
            .collect();
        ensure!(
            names == [file],
            "{} was touched: {names:?}",
            directory.display()
        );
        ensure!(
            fs::read_to_string(directory.join(file))? == text,
            "{file} was changed"
        );
        Ok(())
    }

    /// A directory of the user's with one file in it.
    fn leave(&self, directory: &str, file: &str, text: &str) -> Result<()> {
        let path = self.path(directory);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        fs::write(path.join(file), text)?;
        self.terminal.host.identity().own(&path.join(file))?;
        self.terminal.host.identity().own(&path)
    }
}

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
        let taken = TcpListener::bind(("127.0.0.1", desk.monitor))?;
        let port = desk.monitor.to_string();
        desk.terminal
            .tries(&desk.create_monitor())?
            .refuses(1, &[&port, "taken"])?;
        drop(taken);
        desk.start_monitor().await?;
        let taken = TcpListener::bind(("127.0.0.1", desk.node))?;
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
            .types(&format!("{create} --name b"))
            .map(drop)
    });
}

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

#[test]
fn a_configuration_file_is_wrong() {
    in_a_lab(
        "a_configuration_file_is_wrong",
        Place::Loopback,
        async |lab| {
            let desk = Desk::set_up(lab)?;
            desk.terminal.types(&desk.create_monitor())?;
            let found = desk
                .terminal
                .types("find home ../home -name standfast.yml 2>/dev/null; true")?;
            let file = desk.path(found.lines().next().unwrap_or_default());
            let good = fs::read_to_string(&file)?;
            let with = |text: &str| -> Result<e2e::Said> {
                let bad = desk.path("bad.yml");
                fs::write(&bad, text)?;
                desk.terminal.host.identity().own(&bad)?;
                desk.terminal
                    .tries(&format!("standfast config check {}", bad.display()))
            };
            let said = with(&good.replace("witness:", "witnes:"))?;
            ensure!(
                said.stderr.contains("witnes") && said.stderr.contains("witness"),
                "{said:?}"
            );
            with(&good.replace(
                "synchronous_mode: quorum",
                "synchronous_mode: quorum\n    ttl: 0",
            ))?
            .refuses(1, &["bad.yml", "ttl"])?;
            with(&good.replace("name: monitor", "name: \"a,b\""))?
                .refuses(1, &["bad.yml", "name"])?;
            with("\t- [unclosed")?.refuses(1, &["bad.yml"])?;
            with("")?.refuses(1, &["bad.yml"])?;
            let missing = "standfast run ./nowhere.yml";
            desk.terminal.tries(missing)?.refuses(1, &["nowhere.yml"])?;
            desk.terminal
                .tries("standfast run .")?
                .refuses(1, &["desk"])?;
            Ok(())
        },
    );
}

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

#[test]
fn ctrl_c_in_the_middle_of_a_base_backup() {
    in_a_lab(
        "ctrl_c_in_the_middle_of_a_base_backup",
        Place::Namespaces,
        async |lab| {
            let mut cluster = lab::Cluster::pair(lab).await?;
            cluster.node_mut("a")?.start()?;
            cluster.primary().await?;
            cluster
                .node("a")?
                .sql()
                .await?
                .batch_execute(
                    "CREATE TABLE bulk AS SELECT repeat('x', 1000) FROM generate_series(1, 200000)",
                )
                .await?;
            for _ in 0..3 {
                let node = cluster.node_mut("b")?;
                let begun = node.log().matches("making a base backup").count();
                node.start()?;
                lab::until("the base backup has begun", settle_deadline(), || {
                    node.log().matches("making a base backup").count() > begun
                })
                .await?;
                node.signal_agent(rustix::process::Signal::INT)?;
                lab::until("the agent has ended", settle_deadline(), || {
                    !node.is_running()
                })
                .await?;
            }
            cluster.node_mut("b")?.start()?;
            cluster.healthy(settle_deadline()).await.map(drop)
        },
    );
}

#[test]
fn data_of_another_cluster_is_refused() {
    in_a_lab(
        "data_of_another_cluster_is_refused",
        Place::Namespaces,
        async |lab| {
            let mut cluster = lab::Cluster::pair(lab).await?;
            let node = cluster.node("b")?;
            let data = node.data_dir.clone();
            let initdb = node.host.pg_bin().join("initdb");
            lab::run_to_end(
                node.host
                    .command(initdb)
                    .args(["--no-sync", "-U", "postgres", "-D"])
                    .arg(&data),
            )?;
            let before = control_file(&data)?;
            cluster.node_mut("a")?.start()?;
            cluster.primary().await?;
            cluster.node_mut("b")?.start()?;
            let node = cluster.node("b")?;
            lab::until("the node says why", settle_deadline(), || {
                node.log().to_lowercase().contains("system identifier")
            })
            .await?;
            ensure!(
                control_file(&data)? == before,
                "the foreign data directory was touched"
            );
            cluster.node_mut("b")?.kill_everything()?;
            fs::remove_dir_all(&data)?;
            cluster.node_mut("b")?.start()?;
            cluster.healthy(settle_deadline()).await.map(drop)
        },
    );
}

fn control_file(data: &Path) -> Result<Vec<u8>> {
    Ok(fs::read(data.join("global/pg_control"))?)
}

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
