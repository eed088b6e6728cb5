//! Statements and portals, message by message: what a client hears of them through the proxy is what PostgreSQL itself says.
//!
//! Each script is played on a connection to the server, too, and all that is heard must be the same.

use crate::raw::{Heard, Raw, message, query, told};
use crate::server::{Server, story};
use anyhow::{Context as _, Result, ensure};
use proxy::{Limits, PoolMode};
use std::net::{Ipv4Addr, SocketAddr};

/// Messages that are sent at once, and how many times the server is ready behind them.
type Step = (usize, &'static str);

/// `P name=sql`, `B name value…`, `E limit`, `D name`, `C name`, `Q sql`; `S` is Sync. Portals have no name, but where
/// the letter is followed by one: `Bp name`, `Ep limit`.
fn bytes(step: &str) -> Vec<u8> {
    step.split(" | ").flat_map(one_message).collect()
}

fn one_message(text: &str) -> Vec<u8> {
    let (head, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (letter, portal) = head.split_at(1);
    match letter {
        "Q" => query(rest),
        "P" => {
            let (name, sql) = rest.split_once('=').unwrap_or(("", rest));
            message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
        }
        "B" => {
            let mut words = rest.split(' ');
            let name = words.next().unwrap_or_default();
            let values: Vec<_> = words.collect();
            let mut body = format!("{portal}\0{name}\0\0\0").into_bytes();
            body.extend(u16::try_from(values.len()).unwrap_or(0).to_be_bytes());
            for value in values {
                body.extend(u32::try_from(value.len()).unwrap_or(0).to_be_bytes());
                body.extend(value.as_bytes());
            }
            body.extend([0, 0]);
            message(b'B', &body)
        }
        "E" => {
            let limit: u32 = rest.parse().unwrap_or(0);
            let body = [portal.as_bytes(), &[0], &limit.to_be_bytes()].concat();
            message(b'E', &body)
        }
        "D" | "C" => message(letter.as_bytes()[0], format!("S{rest}\0").as_bytes()),
        _ => message(letter.as_bytes()[0], b""),
    }
}

/// All but what comes when it will: the letters of messages, with rows, tags and the codes of errors.
fn heard(all: &[Heard]) -> String {
    let words = all.iter().filter_map(|one| {
        let text = |from: usize| String::from_utf8_lossy(one.1.get(from..).unwrap_or_default());
        match one.0 {
            b'S' | b'N' => None,
            b'D' => Some(format!("[{}]", text(6))),
            b'C' | b'Z' => Some(text(0).trim_end_matches('\0').to_owned()),
            b'E' => Some(told(std::slice::from_ref(one))),
            tag => Some(char::from(tag).to_string()),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

async fn take(raw: &mut Raw, (ends, step): &Step) -> Result<String> {
    raw.send(&bytes(step)).await?;
    let mut all = Vec::new();
    for _ in 0..*ends {
        all.extend(raw.until(b'Z').await?);
    }
    Ok(heard(&all))
}

/// The server lets everybody in, as the proxy does.
fn open(server: &Server) -> Result<SocketAddr> {
    let rules = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
    std::fs::write(server.directory().join("data/pg_hba.conf"), rules)?;
    server.psql("select pg_reload_conf()")?;
    Ok((Ipv4Addr::LOCALHOST, server.port()).into())
}

/// Between the steps of one client another one uses the server that they share.
async fn play(server: &Server, mode: PoolMode, script: &[Step]) -> Result<()> {
    let limits = Limits {
        pool_size: match mode {
            PoolMode::Session => 2,
            PoolMode::Transaction => 1,
        },
        ..Limits::default()
    };
    let proxy = server.trusting(mode, limits).await?;
    let mut other = Raw::logged_in(proxy.address).await?;
    take(&mut other, &(1, "Q set app.who = 'other'")).await?;
    let mut alone = Raw::logged_in((Ipv4Addr::LOCALHOST, server.port()).into()).await?;
    let mut client = Raw::logged_in(proxy.address).await?;
    let mut ties = false;
    for step in script {
        let (own, through) = (
            take(&mut alone, step).await?,
            take(&mut client, step).await?,
        );
        ensure!(own == through, "{}: {through}, not {own}", step.1);
        ties |= step.1.contains("declare");
        if own.ends_with('I') && (!ties || mode == PoolMode::Session) {
            let look =
                "P =select current_setting('app.who') || current_setting('role') | B | E | S";
            let found = take(&mut other, &(1, look)).await?;
            ensure!(
                found.contains("[othernone]"),
                "{}: another finds {found}",
                step.1
            );
        }
    }
    Ok(())
}

fn all_alike(set_up: &'static str, scripts: &'static [&'static [Step]]) {
    story(async |server| {
        open(server)?;
        server.sql("app", set_up)?;
        for script in scripts {
            for mode in [PoolMode::Session, PoolMode::Transaction] {
                let played = play(server, mode, script).await;
                played.with_context(|| format!("{mode:?}: {script:?}"))?;
            }
        }
        Ok(())
    });
}

const WHO: Step = (1, "Q select current_setting('app.who', true)");

#[test]
fn what_a_portal_sets_before_its_limit_is_set() {
    const ALICE: &str = "B st alice | E 1 | S";
    const PARSE: Step = (1, "P st=select set_config('app.who', $1, false) | D st | S");
    all_alike(
        "create role reader; grant reader to app",
        &[
            &[PARSE, (1, ALICE), WHO, (1, "B st bob | E 5 | S"), WHO],
            &[PARSE, (1, "Q begin"), (1, ALICE), (1, "Q rollback"), WHO],
            &[PARSE, (1, "Q begin"), (1, ALICE), (1, "Q commit"), WHO],
            // What comes behind it in its transaction takes it back.
            &[PARSE, (1, "B st alice | E 1 | B nosuch | S"), WHO],
            &[
                PARSE,
                (1, "Q begin; savepoint a"),
                (1, ALICE),
                (1, "Q rollback to a; commit"),
                WHO,
            ],
            // One that goes on does not set it again.
            &[
                PARSE,
                (1, "Q begin"),
                (1, "Bp st alice | Ep 1 | S"),
                (1, "Q set app.who = 'bob'"),
                (1, "Ep 1 | S"),
                (1, "Q commit"),
                WHO,
            ],
            &[
                PARSE,
                (
                    1,
                    "Bp st alice | Ep | P =set app.who = 'bob' | B | E | Ep | S",
                ),
                WHO,
            ],
            // Several, by names that are known to the server and others.
            &[
                (
                    1,
                    "P =select set_config('app.who', 'alice', false), set_config('role', 'reader', false), \
                     set_config('app.more', 'more', true) | B | E 1 | S",
                ),
                WHO,
                (
                    1,
                    "Q select current_user, current_setting('app.more', true)",
                ),
            ],
            // By a cursor of SQL's.
            &[
                (
                    1,
                    "Q begin; declare c cursor for select set_config('app.whose', 'alice', false)",
                ),
                (1, "P =fetch 1 from c | B | E 1 | S"),
                (1, "Q rollback"),
                WHO,
            ],
        ],
    );
}

#[test]
fn what_a_portal_has_set_before_its_limit_outlives_the_server() {
    story(async |server| {
        open(server)?;
        let proxy = server
            .trusting(PoolMode::Session, Limits::default())
            .await?;
        let mut client = Raw::logged_in(proxy.address).await?;
        let set = "P =select set_config('app.who', $1, false) | B  alice | E 1 | S";
        take(&mut client, &(1, set)).await?;
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'";
        tokio::task::block_in_place(|| server.psql(end))?;
        let found = take(&mut client, &WHO).await?;
        ensure!(found == "T [alice] SELECT 1 I", "{found}");
        Ok(())
    });
}
