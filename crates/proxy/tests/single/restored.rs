//! What a session has set is on its next server as it was said, whatever one setting has to do with another.

use crate::raw::{Heard, Raw, query, told};
use crate::server::{Running, Server, story};
use anyhow::{Result, ensure};
use proxy::{Limits, PoolMode};

/// With one server for everybody.
async fn narrow(server: &Server) -> Result<Running> {
    let limits = Limits {
        pool_size: 1,
        hold_time: std::time::Duration::from_secs(2),
        ..Limits::default()
    };
    server.trusting(PoolMode::Transaction, limits).await
}

async fn ask(raw: &mut Raw, sql: &[u8]) -> Result<Vec<Heard>> {
    let text = [sql, b"\0"].concat();
    raw.send(&crate::raw::message(b'Q', &text)).await?;
    raw.until(b'Z').await
}

/// The first value of the last row, and what went wrong.
fn value(heard: &[Heard]) -> String {
    let row = heard.iter().rfind(|(tag, _)| *tag == b'D');
    let text = row.map_or("", |(_, body)| {
        std::str::from_utf8(body.get(6..).unwrap_or_default()).unwrap_or("no UTF-8")
    });
    match told(heard).as_str() {
        "nothing" => text.to_owned(),
        error => error.to_owned(),
    }
}

#[test]
fn settings_that_need_each_other_are_set_in_their_order() {
    story(async |server| {
        server.sql(
            "app",
            "create schema s1; grant usage on schema s1 to app; \
             create text search configuration s1.mine (copy = pg_catalog.simple)",
        )?;
        let proxy = narrow(server).await?;
        let mut a = Raw::logged_in(proxy.address).await?;
        let mut b = Raw::logged_in(proxy.address).await?;
        for said in [
            "set search_path = s1",
            "set default_text_search_config = 'mine'",
        ] {
            let told = value(&ask(&mut a, said.as_bytes()).await?);
            ensure!(told.is_empty(), "{said}: {told}");
        }
        for _ in 0..2 {
            ensure!(value(&ask(&mut b, b"show search_path").await?) == "\"$user\", public");
            let config = value(&ask(&mut a, b"show default_text_search_config").await?);
            ensure!(config == "s1.mine", "{config}");
        }
        Ok(())
    });
}

/// They are read by the encoding of the client, which may change.
#[test]
fn letters_beyond_ascii_stay_what_they_were() {
    const WHO: &[u8] = b"select encode(convert_to(current_setting('app.who'), 'UTF8'), 'hex')";
    const HEX: &str = "4dc3bc6c6c6572";
    let utf8 = "set app.who = 'Müller'".as_bytes();
    let latin1 = b"set app.who = 'M\xfcller'";
    let scripts: [(&[&[u8]], bool); 5] = [
        (&[utf8], true),
        (&[b"set client_encoding = 'latin1'", latin1], true),
        (&[utf8, b"set client_encoding = 'utf8'"], true),
        (&[utf8, b"set client_encoding = 'latin1'"], false),
        (
            &[
                b"set client_encoding = 'latin1'",
                latin1,
                b"set client_encoding = 'utf8'",
            ],
            false,
        ),
    ];
    story(async |server| {
        let proxy = narrow(server).await?;
        for (script, moves) in scripts {
            let mut a = Raw::logged_in(proxy.address).await?;
            for said in script {
                let heard = ask(&mut a, said).await?;
                ensure!(told(&heard) == "nothing", "{}", told(&heard));
            }
            // Whoever can't say it again stays.
            let mut b = Raw::logged_in(proxy.address).await?;
            let said = value(&ask(&mut b, b"select 'there'").await?);
            ensure!((said == "there") == moves, "{script:?}: {said}");
            let who = value(&ask(&mut a, WHO).await?);
            ensure!(who == HEX, "{script:?}: {who}");
        }
        Ok(())
    });
}

/// What a session sets for itself does not keep the proxy from asking what a function has done.
#[test]
fn a_short_timeout_ties_nobody_to_his_server() {
    story(async |server| {
        server.sql(
            "app",
            "create function f() returns int language plpgsql as 'begin perform 1; return 7; end'",
        )?;
        let proxy = narrow(server).await?;
        let mut a = Raw::logged_in(proxy.address).await?;
        let mut b = Raw::logged_in(proxy.address).await?;
        ask(&mut a, b"select f()").await?;
        ask(&mut a, b"set statement_timeout = '1ms'").await?;
        for _ in 0..5 {
            // The statement itself may be too slow for it.
            ask(&mut a, b"select f()").await?;
            let there = value(&ask(&mut b, b"show statement_timeout").await?);
            ensure!(there == "0", "{there}");
        }
        let mut timeout = value(&ask(&mut a, b"show statement_timeout").await?);
        if timeout == "ERROR 57014" {
            timeout = value(&ask(&mut a, b"show statement_timeout").await?);
        }
        ensure!(timeout == "1ms", "{timeout}");
        Ok(())
    });
}

/// Only a backend's own last word is one.
#[test]
fn a_warning_of_a_functions_own_ends_nothing() {
    story(async |server| {
        server.sql(
            "app",
            "create function w(text) returns int language plpgsql as \
             $$ begin raise warning 'x' using errcode = $1; return 7; end $$",
        )?;
        let proxy = narrow(server).await?;
        let mut a = Raw::logged_in(proxy.address).await?;
        for code in ["57P01", "57P02", "57P03"] {
            let sql = format!("select w('{code}')");
            a.send(&query(&sql)).await?;
            let heard = a.until(b'Z').await?;
            ensure!(value(&heard) == "7", "{code}: {}", value(&heard));
        }
        Ok(())
    });
}
