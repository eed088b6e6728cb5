//! Statements and portals, message by message: what a client hears of them through the proxy is what PostgreSQL itself says.
//!
//! Each script is played on a connection to the server, too, and all that is heard must be the same.

use crate::pipelines::nobody_is_left;
use crate::raw::{Heard, Raw, message, query, startup, told};
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
            let sql = sql.replace("{long}", &"x".repeat(300_000));
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

async fn logged_in(address: SocketAddr, name: &str) -> Result<Raw> {
    let mut raw = Raw::connect(address).await?;
    let all = [
        ("user", "app"),
        ("database", "app"),
        ("application_name", name),
    ];
    raw.send(&startup(&all)).await?;
    raw.until(b'Z').await?;
    Ok(raw)
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
    let own = (Ipv4Addr::LOCALHOST, server.port()).into();
    let mut alone = logged_in(own, "mine").await?;
    let mut client = logged_in(proxy.address, "mine").await?;
    // The one server that there may be is started for this one.
    let mut other = logged_in(proxy.address, "other").await?;
    take(&mut other, &(1, "Q set app.who = 'other'")).await?;
    take(&mut other, &(1, "P n=select 'NEW' | S")).await?;
    let mut ties = false;
    for step in script {
        let (own, through) = (
            take(&mut alone, step).await?,
            take(&mut client, step).await?,
        );
        ensure!(own == through, "{}: {through}, not {own}", step.1);
        ties |= step.1.contains("declare");
        if own.ends_with('I') && (!ties || mode == PoolMode::Session) {
            let look = "P =select current_setting('app.who') || current_setting('role') | B | E | \
                B n | E | S";
            let found = take(&mut other, &(1, look)).await?;
            let is_alone = found.contains("[othernone]") && found.contains("[NEW]");
            ensure!(is_alone, "{}: another finds {found}", step.1);
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
        // What it has asked of a server that goes may have been done.
        nobody_is_left(server).await?;
        let found = take(&mut client, &WHO).await?;
        ensure!(found == "T [alice] SELECT 1 I", "{found}");
        Ok(())
    });
}

const K: &str = "create table k (n int); grant all on k to app; \
    create function f() returns int language plpgsql as $$ begin return 7; end $$";

/// What stands for a name when the server comes to it is what runs.
#[test]
fn a_name_that_sql_takes_away_stands_for_the_next_statement() {
    const OLD: Step = (1, "P s1=insert into k values (1) returning 'OLD' | S");
    const AGAIN: Step = (1, "B s1 | E | S");
    all_alike(
        K,
        &[
            &[
                OLD,
                (2, "Q discard all | P s1=select 'NEW' | B s1 | E | S"),
                AGAIN,
            ],
            &[
                OLD,
                (2, "Q deallocate all | P s1=select 'NEW' | B s1 | E | S"),
                AGAIN,
            ],
            &[
                OLD,
                (2, "Q deallocate s1 | P s1=select 'NEW' | B s1 | E | S"),
                AGAIN,
            ],
            &[OLD, (2, "Q deallocate s1 | D s1 | B s1 | E | S"), AGAIN],
            &[OLD, (2, "Q deallocate s1 | C s1 | S"), AGAIN],
            &[OLD, (2, "Q deallocate s1 | Q deallocate s1"), AGAIN],
            &[
                OLD,
                (
                    1,
                    "P =deallocate s1 | B | E | P s1=select 'NEW' | B s1 | E | S",
                ),
                AGAIN,
            ],
            &[
                OLD,
                (
                    1,
                    "P =deallocate all | B | E | P s1=select 'NEW' | D s1 | B s1 | E | S",
                ),
                AGAIN,
            ],
            &[
                OLD,
                (1, "P =deallocate s1 | B | E | P =deallocate s1 | B | E | S"),
                AGAIN,
            ],
            // Among others.
            &[OLD, (1, "Q deallocate s1; select 2"), AGAIN],
            &[OLD, (1, "Q select 1; deallocate s1; select 1/0"), AGAIN],
            &[OLD, (1, "Q select 1/0; deallocate s1"), AGAIN],
            &[OLD, (1, "P =deallocate s1; select 2 | B | E | S"), AGAIN],
            // A text that is too long to be read.
            &[
                OLD,
                (1, "P s1=select length('{long}') | B s1 | E | S"),
                AGAIN,
            ],
            // It fails.
            &[
                OLD,
                (1, "Q begin"),
                (1, "Q select 1/0"),
                (2, "Q deallocate s1 | P s1=select 'NEW' | B s1 | E | S"),
                (1, "Q rollback"),
                AGAIN,
            ],
            &[
                OLD,
                (1, "Q begin"),
                (1, "P =discard all | B | E | P s1=select 'NEW' | S"),
                (1, "Q rollback"),
                AGAIN,
            ],
            &[
                OLD,
                (2, "Q deallocate s2 | P s1=select 'NEW' | B s1 | E | S"),
                AGAIN,
            ],
            // It is thrown away behind an error.
            &[
                OLD,
                (1, "B nosuch | Q deallocate s1 | P s1=select 'NEW' | S"),
                AGAIN,
            ],
            &[
                OLD,
                (
                    1,
                    "B nosuch | Q select 1 | Q discard all | P s1=select 'NEW' | B s1 | E | S",
                ),
                AGAIN,
            ],
            &[
                OLD,
                (
                    2,
                    "B nosuch | Q deallocate s1 | S | P s1=select 'NEW' | B s1 | E | S",
                ),
                AGAIN,
            ],
            &[
                OLD,
                (
                    2,
                    "B nosuch | P =deallocate all | B | E | S | P s1=select 'NEW' | B s1 | E | S",
                ),
                AGAIN,
            ],
        ],
    );
}

#[test]
fn what_has_no_name_outlives_what_the_proxy_asks() {
    all_alike(
        K,
        &[
            &[
                (1, "P =select f() | S"),
                (1, "B | E | S"),
                (1, "D | S"),
                (1, "B | E | S"),
            ],
            &[
                (1, "Q begin"),
                (1, "P =reset application_name | B | E | S"),
                (1, "B | E | S"),
                (1, "Q show application_name"),
                (1, "Q rollback"),
            ],
            &[
                (1, "Q begin"),
                (1, "P r=reset application_name | S"),
                (
                    1,
                    "P =select generate_series(1, 4) | B | E 1 | Br r | Er | S",
                ),
                (1, "E 2 | S"),
                (1, "B | E 1 | S"),
                (1, "E | S"),
                (1, "Q commit"),
            ],
            // Behind a savepoint that has failed.
            &[
                (1, "Q begin; savepoint a"),
                (1, "Q reset application_name; select 1/0"),
                (1, "Q rollback to a"),
                (1, "P =reset application_name | B | E | S"),
                (1, "B | E | S"),
                (1, "Q commit"),
                (1, "Q show application_name"),
            ],
        ],
    );
}

#[test]
fn a_statement_without_a_name_that_was_thrown_away_does_not_run() {
    const NEW: &str = "B nosuch | P =insert into k values (1) returning 'NEW' | S | B | E | S";
    all_alike(
        K,
        &[
            &[(2, NEW), (1, "B | E | S")],
            &[(1, "P =select 'OLD' | S"), (2, NEW), (1, "B | E | S")],
            &[
                (
                    2,
                    "P =select 1/0 | B | E | P =insert into k values (1) returning 'NEW' | S | D | B | E | S",
                ),
                (1, "B | E | S"),
            ],
            &[
                (1, "P =select 'OLD' | S"),
                (2, "P =selec | S | B | E | S"),
                (1, "B | E | S"),
            ],
            // A Query takes it away, unless it is thrown away itself.
            &[
                (1, "P =select 'OLD' | S"),
                (2, "B nosuch | Q select 1 | S | B | E | S"),
                (1, "B | E | S"),
            ],
            &[
                (1, "P =select 'OLD' | S"),
                (1, "B nosuch | Q select 1 | Q select 2 | B | E | S"),
                (1, "D | B | E | S"),
            ],
            &[
                (1, "P =select 'OLD' | S"),
                (3, "B nosuch | Q select 1 | S | Q select 2 | B | E | S"),
                (1, "B | E | S"),
            ],
            &[
                (1, "P =select 'OLD' | S"),
                (2, "P x=select 1 | Q select 1/0 | B | E | S"),
                (1, "B | E | S"),
            ],
            &[
                (1, "P =select 'OLD' | S"),
                (2, "P x=select 1 | Q select 1 | D | S"),
                (1, "B | E | S"),
            ],
            &[
                (
                    3,
                    "P =select 'a' | B | E | S | P =select 'b' | B | E | S | B | E | S",
                ),
                (3, "B | E | S | B | E | S | B | E | S"),
            ],
        ],
    );
}
