//! What psql, pgbench and the programs of replication send and get, through a tee.

use crate::recording::{Found, record};
use crate::server::{PASSWORD, Server};
use anyhow::{Result, ensure};
use std::io::Write as _;
use std::process::Stdio;

/// Runs a program through the tee, and checks all its connections.
fn check(server: &Server, name: &str, words: &[&str], input: &str, works: bool) -> Result<Found> {
    let recordings = record(server, |port| {
        let mut child = server
            .program(name)
            .args(["-h", "127.0.0.1", "-p", &port.to_string()])
            .args(words)
            .env("PGPASSWORD", PASSWORD)
            .env("PGGSSENCMODE", "disable")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() == works, "{name} {words:?}: {said}");
        Ok(())
    })?;
    ensure!(!recordings.is_empty(), "{name} has not connected");
    let mut all = Found::default();
    for recording in &recordings {
        let found = recording.check()?;
        all.asked += found.asked;
        all.said += found.said;
        all.tags.extend(found.tags);
    }
    Ok(all)
}

fn tags(found: &Found, asked: &str, said: &str) -> Result<()> {
    for (client, all) in [(true, asked), (false, said)] {
        for tag in all.bytes() {
            let seen = found.tags.contains(&(client, tag));
            ensure!(seen, "{} was not seen: {found:?}", char::from(tag));
        }
    }
    Ok(())
}

/// Settings, errors, transactions, notices, notifications, long rows, COPY and large objects.
const PSQL: &str = "
set application_name = 'through the tee';
create table t (a int primary key, b text);
insert into t values (1, 'one'), (2, null);
insert into t values (1, 'again');
begin; select * from t; selec; select 1; rollback;
;
do $$ begin raise notice 'to whom it may concern'; end $$;
listen c; notify c, 'payload'; select 1;
select repeat('x', 100000);
\\copy t from stdin
3\tthree
4\tfour
\\.
\\copy t from stdin
x\tno number
\\.
\\copy t to '/dev/null'
copy t to stdout;
select 1 \\; select 2 \\; select 1/0 \\; select 3;
\\lo_import '/etc/passwd'
begin; select 1;
";

#[test]
fn psql_and_pgbench_are_read_in_full() -> Result<()> {
    let server = Server::start()?;
    for user in ["postgres", "scram", "clear"] {
        server.psql("drop table if exists t")?;
        let found = check(&server, "psql", &["-XU", user, "postgres"], PSQL, true)?;
        tags(&found, "QdcFX", "RSKZTDCEINAGHdcV")?;
    }
    let words = ["-U", "postgres", "-i", "-s", "1", "postgres"];
    tags(&check(&server, "pgbench", &words, "", true)?, "Qdc", "GCZ")?;
    for (mode, asked, said) in [
        ("simple", "QX", "TDCZ"),
        ("extended", "PBDESX", "12TDCZ"),
        ("prepared", "PBDESX", "12TDCZ"),
    ] {
        let words = [
            "-U", "postgres", "-n", "-M", mode, "-c", "3", "-t", "40", "postgres",
        ];
        let found = check(&server, "pgbench", &words, "", true)?;
        tags(&found, asked, said)?;
        ensure!(found.asked > 800 && found.said > 1_500, "{mode}: {found:?}");
    }
    Ok(())
}

#[test]
fn pipelines_are_read_in_full() -> Result<()> {
    let server = Server::start()?;
    let script = server.directory().join("pipeline.sql");
    let text = "\\startpipeline\nbegin;\nselect 1;\nselect 2;\ncommit;\nselect 3;\n\\endpipeline\n";
    std::fs::write(&script, text)?;
    let script = script.display().to_string();
    let major: u32 = server.psql("show server_version_num")?.parse::<u32>()? / 10_000;
    if major < 14 {
        return Ok(());
    }
    let words = [
        "-U", "postgres", "-n", "-M", "extended", "-t", "50", "-f", &script, "postgres",
    ];
    tags(
        &check(&server, "pgbench", &words, "", true)?,
        "PBES",
        "12DCZ",
    )
}

#[test]
fn replication_is_read_in_full() -> Result<()> {
    let server = Server::start()?;
    let copy = server.directory().join("copy").display().to_string();
    let words = ["-U", "postgres", "-D", &copy, "-X", "stream", "-c", "fast"];
    let found = check(&server, "pg_basebackup", &words, "", true)?;
    tags(&found, "Qdc", "HWdcTDCZ")
}
