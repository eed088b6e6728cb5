//! pg_auto_failover's walkthrough with `standfast` in `pg_autoctl`'s place, word for word: node A
//! on a disk of 400 MB that is filled up, and freed again. Everything is typed into a shell, as an
//! unprivileged user, and read from what is printed.

use anyhow::{Result, bail, ensure};
use e2e::{Terminal, in_a_lab, settle_deadline};
use lab::{Disk, Host, Place, eventually};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The person at the terminal.
struct Person {
    terminal: Terminal,
}

/// A row of `show state`.
#[derive(Debug, PartialEq)]
struct Row {
    name: String,
    address: String,
    reported: String,
    assigned: String,
}

impl Person {
    fn types(&self, line: &str) -> Result<String> {
        self.terminal.types(line)
    }

    fn leaves_running(&self, line: &str, log: &str) -> Result<()> {
        self.terminal.leaves_running(line, log).map(drop)
    }

    fn state(&self) -> Result<Vec<Row>> {
        let table = self.types("standfast show state --pgdata ./monitor")?;
        let mut lines = table.lines();
        let head = lines.next().unwrap_or_default();
        let columns: Vec<_> = head.split('|').map(str::trim).collect();
        ensure!(
            columns
                == [
                    "Name",
                    "Node",
                    "Host:Port",
                    "TLI: LSN",
                    "Connection",
                    "Reported State",
                    "Assigned State"
                ],
            "not pg_autoctl's columns: {head:?}"
        );
        let rule = lines.next().unwrap_or_default();
        ensure!(
            rule.chars().all(|c| matches!(c, '-' | '+')),
            "not pg_autoctl's rule: {rule:?}"
        );
        Ok(lines.filter_map(row).collect())
    }

    /// Looks at the state until it is `expected`: name, reported state, assigned state.
    async fn sees(&self, expected: &[(&str, &str, &str)]) -> Result<()> {
        let what = format!("show state prints {expected:?}");
        eventually(&what, settle_deadline(), async || {
            let rows = self.state()?;
            let seen: Vec<_> = rows
                .iter()
                .map(|row| {
                    (
                        row.name.as_str(),
                        row.reported.as_str(),
                        row.assigned.as_str(),
                    )
                })
                .collect();
            ensure!(seen == expected, "it prints {seen:?}");
            Ok(())
        })
        .await
    }
}

fn row(line: &str) -> Option<Row> {
    let cells: Vec<_> = line.split('|').map(str::trim).collect();
    let [name, _, address, _, _, reported, assigned] = cells.as_slice() else {
        return None;
    };
    Some(Row {
        name: (*name).to_owned(),
        address: (*address).to_owned(),
        reported: (*reported).to_owned(),
        assigned: (*assigned).to_owned(),
    })
}

/// `sudo mount …` of the walkthrough, inside the lab's own namespace.
fn small_disk(host: &Host) -> Result<()> {
    host.mount(Disk::Tmpfs { megabytes: 1 }, Path::new("/mnt"))?;
    let node_a = Path::new("/mnt/node_a");
    host.mount(Disk::Tmpfs { megabytes: 400 }, node_a)?;
    let data = host.outside(&node_a.join("data"));
    fs::create_dir(&data)?;
    host.identity().own(&data)
}

async fn create_the_cluster(person: &Person) -> Result<()> {
    person
        .types("standfast create monitor --pgdata ./monitor --pgport 6000 --nodename localhost")?;
    person.leaves_running("standfast run --pgdata ./monitor", "monitor.log")?;
    eventually("the monitor answers", settle_deadline(), async || {
        person.state().map(drop)
    })
    .await?;
    person.types(
        "standfast create postgres --pgdata /mnt/node_a/data --pgport 6010 --nodename 127.0.0.1 \
         --pgctl $(which pg_ctl) \
         --monitor postgres://autoctl_node@127.0.0.1:6000/pg_auto_failover",
    )?;
    person.leaves_running("standfast run --pgdata /mnt/node_a/data", "node_a.log")?;
    person.sees(&[("node_1", "single", "single")]).await?;
    person.types(
        "standfast create postgres --pgdata ./node_b --pgport 6011 --nodename 127.0.0.1 \
         --pgctl $(which pg_ctl) \
         --monitor postgres://autoctl_node@127.0.0.1:6000/pg_auto_failover",
    )?;
    person.leaves_running("standfast run --pgdata ./node_b", "node_b.log")?;
    let whole = [
        ("node_1", "primary", "primary"),
        ("node_2", "secondary", "secondary"),
    ];
    person.sees(&whole).await?;
    let addresses: Vec<_> = person.state()?.into_iter().map(|row| row.address).collect();
    ensure!(
        addresses == ["127.0.0.1:6010", "127.0.0.1:6011"],
        "{addresses:?}"
    );
    Ok(())
}

async fn watch_the_replication(person: &Person) -> Result<()> {
    person.types("psql -p 6010 -c 'create table foo as select generate_series(1,1000000) bar;'")?;
    eventually(
        "the secondary has the rows",
        settle_deadline(),
        async || {
            let count = person.types("psql -p 6011 -Atc 'select count(*) from foo;'")?;
            ensure!(count.trim() == "1000000", "{count}");
            Ok(())
        },
    )
    .await?;
    let events = person.types("standfast show events --pgdata ./monitor")?;
    ensure!(
        events.contains("Event Time") && events.contains("wait_primary"),
        "{events}"
    );
    Ok(())
}

async fn cause_a_failover(person: &Person) -> Result<()> {
    let uri = person.types("standfast show uri --formation default --pgdata ./monitor")?;
    let uri = uri.trim();
    ensure!(
        uri.starts_with("postgres://127.0.0.1:6010,127.0.0.1:6011/")
            && uri.contains("target_session_attrs=read-write"),
        "{uri}"
    );
    person.types("pg_ctl -D /mnt/node_a/data stop")?;
    // It ends with "No space left on device" where there are no 300 MB any more: that is meant.
    let _ = person.types("dd if=/dev/zero of=/mnt/node_a/bigfile bs=300MB count=2");
    let port = format!("psql '{uri}' -Atc 'select inet_server_port()'");
    eventually("the URI connects to B", settle_deadline(), async || {
        let port = person.types(&port)?;
        ensure!(port.trim() == "6011", "it connects to {port}");
        Ok(())
    })
    .await?;
    // What is written now finds no room on A, if A had come back before the disk was full.
    person.types(&format!(
        "psql '{uri}' -c 'create table bar as select * from foo;'"
    ))?;
    let rows = eventually("A is demoted, B alone", settle_deadline(), async || {
        let rows = person.state()?;
        let [a, b] = rows.as_slice() else {
            bail!("{rows:?}")
        };
        ensure!(a.reported == "demoted", "{rows:?}");
        ensure!(
            b.reported == "wait_primary" && b.assigned == "wait_primary",
            "{rows:?}"
        );
        Ok(rows)
    });
    rows.await.map(drop)
}

#[test]
fn the_walkthrough_works_word_for_word() {
    in_a_lab(
        "the_walkthrough_works_word_for_word",
        Place::Namespaces,
        async |lab| {
            let host = lab.add_host("terminal", 11)?;
            let terminal = Terminal {
                host: Arc::clone(&host),
            };
            let person = Person { terminal };
            small_disk(&host)?;
            let story = async {
                create_the_cluster(&person).await?;
                watch_the_replication(&person).await?;
                cause_a_failover(&person).await?;
                person.types("rm /mnt/node_a/bigfile")?;
                let back = [
                    ("node_1", "secondary", "secondary"),
                    ("node_2", "primary", "primary"),
                ];
                person.sees(&back).await?;
                eventually(
                    "A has replayed what it missed",
                    settle_deadline(),
                    async || {
                        let count =
                            person.types("psql -p 6010 -Atc 'select count(*) from bar;'")?;
                        ensure!(count.trim() == "1000000", "{count}");
                        Ok(())
                    },
                )
                .await?;
                anyhow::Ok(())
            };
            let told = story.await;
            if told.is_err() {
                let kept =
                    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/e2e/walkthrough");
                fs::create_dir_all(&kept)?;
                for log in ["monitor.log", "node_a.log", "node_b.log"] {
                    let _ = fs::copy(host.directory().join(log), kept.join(log));
                }
            }
            told
        },
    );
}
