//! Names of statements on servers that clients share: what one client does wrong costs no other its own.

use crate::raw::{Heard, Raw, message, query, told};
use crate::server::story;
use anyhow::{Result, ensure};
use proxy::{Limits, PoolMode};

fn one_server() -> Limits {
    Limits {
        pool_size: 1,
        ..Limits::default()
    }
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

fn bind(name: &str) -> Vec<u8> {
    message(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes())
}

fn close(name: &str) -> Vec<u8> {
    message(b'C', format!("S{name}\0").as_bytes())
}

fn describe(name: &str) -> Vec<u8> {
    message(b'D', format!("S{name}\0").as_bytes())
}

fn execute() -> Vec<u8> {
    message(b'E', b"\0\0\0\0\0")
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

fn run(name: &str) -> Vec<u8> {
    [bind(name), execute(), sync()].concat()
}

/// The rows of one column, and the codes of errors.
fn heard(all: &[Heard]) -> String {
    let words = all.iter().filter_map(|one| match one.0 {
        b'D' => Some(String::from_utf8_lossy(&one.1[6..]).into_owned()),
        b'E' => Some(told(std::slice::from_ref(one))),
        _ => None,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What it says up to the next ReadyForQuery.
async fn ask(raw: &mut Raw, messages: &[Vec<u8>]) -> Result<String> {
    raw.send(&messages.concat()).await?;
    Ok(heard(&raw.until(b'Z').await?))
}

#[test]
fn a_statement_that_was_thrown_away_behind_an_error_is_not_taken_for_prepared() {
    story(async |server| {
        let proxy = server.trusting(PoolMode::Transaction, one_server()).await?;
        let mut one = Raw::logged_in(proxy.address).await?;
        let mut other = Raw::logged_in(proxy.address).await?;
        let flush = message(b'H', b"");
        one.send(&[parse("bad", "selec"), flush].concat()).await?;
        ensure!(heard(&one.until(b'E').await?) == "ERROR 42601");
        // The server has said that it failed before this is sent.
        ask(&mut one, &[parse("good", "select 77"), sync()]).await?;
        ensure!(ask(&mut one, &[run("good")]).await? == "ERROR 26000");
        for _ in 0..2 {
            let said = ask(&mut other, &[parse("mine", "select 77"), run("mine")]).await?;
            ensure!(said == "77", "{said}");
            ask(&mut other, &[close("mine"), sync()]).await?;
        }
        Ok(())
    });
}

#[test]
fn a_statement_whose_eviction_was_thrown_away_is_still_known() {
    story(async |server| {
        let limits = Limits {
            prepared_max: 3,
            ..one_server()
        };
        let proxy = server.trusting(PoolMode::Transaction, limits).await?;
        let mut one = Raw::logged_in(proxy.address).await?;
        let mut other = Raw::logged_in(proxy.address).await?;
        for n in 0..3 {
            let text = format!("select {n}");
            ask(&mut one, &[parse(&format!("n{n}"), &text), sync()]).await?;
        }
        let failing = [
            parse("bad", "selec 2"),
            parse("new", "select 5"),
            parse("newer", "select 6"),
            sync(),
        ];
        let said = ask(&mut one, &failing).await?;
        ensure!(said == "ERROR 42601", "{said}");
        for round in 0..2 {
            for n in 0..3 {
                let (name, text) = (format!("m{round}_{n}"), format!("select {n}"));
                let said = ask(&mut other, &[parse(&name, &text), run(&name)]).await?;
                ensure!(said == n.to_string(), "{name}: {said}");
                let said = ask(&mut one, &[run(&format!("n{n}"))]).await?;
                ensure!(said == n.to_string(), "n{n}: {said}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_statement_that_a_function_has_taken_away_is_missed_once() {
    story(async |server| {
        server.sql(
            "app",
            "create function forget() returns void language plpgsql as \
             $$ begin execute 'deallocate all'; end $$",
        )?;
        let proxy = server.trusting(PoolMode::Transaction, one_server()).await?;
        let mut one = Raw::logged_in(proxy.address).await?;
        let mut other = Raw::logged_in(proxy.address).await?;
        ask(&mut one, &[parse("mine", "select 1"), sync()]).await?;
        ask(&mut other, &[query("select forget()")]).await?;
        ask(&mut one, &[run("mine")]).await?;
        let said = ask(&mut one, &[run("mine")]).await?;
        ensure!(said == "1", "{said}");
        Ok(())
    });
}

#[test]
fn a_statement_without_a_name_is_each_clients_own() {
    story(async |server| {
        let proxy = server.trusting(PoolMode::Transaction, one_server()).await?;
        let mut one = Raw::logged_in(proxy.address).await?;
        let mut other = Raw::logged_in(proxy.address).await?;
        let secret = [parse("", "select 'secret'"), sync()];
        ask(&mut one, &secret).await?;
        let said = ask(&mut other, &[run("")]).await?;
        ensure!(said == "ERROR 26000", "bound: {said}");
        other.send(&[describe(""), sync()].concat()).await?;
        let said = told(&other.until(b'Z').await?);
        ensure!(said == "ERROR 26000", "described: {said}");
        // One that was thrown away leaves the one before it, as it does on a server of one's own.
        ask(&mut other, &[parse("", "select 1"), sync()]).await?;
        ask(&mut one, &secret).await?;
        let thrown = [parse("bad", "selec"), parse("", "select 2"), sync()];
        ask(&mut other, &thrown).await?;
        ask(&mut one, &secret).await?;
        let said = ask(&mut other, &[run("")]).await?;
        ensure!(said == "1", "thrown away: {said}");
        // One that fails itself takes the older one with it.
        ask(&mut other, &[parse("", "selec"), sync()]).await?;
        ask(&mut one, &secret).await?;
        let said = ask(&mut other, &[run("")]).await?;
        ensure!(said == "ERROR 26000", "failed: {said}");
        // What is asked before it can be known that it was thrown away does not meet somebody else's.
        other.send(&[thrown.concat(), run("")].concat()).await?;
        let mut all = other.until(b'Z').await?;
        all.extend(other.until(b'Z').await?);
        let said = heard(&all);
        ensure!(said == "ERROR 42601 ERROR 26000", "at once: {said}");
        Ok(())
    });
}

#[test]
fn a_name_of_the_proxys_own_is_nothing_to_a_client() {
    story(async |server| {
        let proxy = server.trusting(PoolMode::Transaction, one_server()).await?;
        let mut one = Raw::logged_in(proxy.address).await?;
        let mut other = Raw::logged_in(proxy.address).await?;
        ask(&mut one, &[parse("mine", "select 'secret'"), sync()]).await?;
        let names = "select name from pg_prepared_statements where name like 'standfast%'";
        let name = ask(&mut other, &[query(names)]).await?;
        let said = ask(&mut other, &[run(&name)]).await?;
        ensure!(said == "ERROR 26000", "bound: {said}");
        let said = ask(&mut other, &[describe(&name), sync()]).await?;
        ensure!(said == "ERROR 26000", "described: {said}");
        for take in [
            [close(&name), sync()].concat(),
            query(&format!("deallocate {name}")),
        ] {
            ask(&mut other, &[take]).await?;
            let said = ask(&mut one, &[run("mine")]).await?;
            ensure!(said == "secret", "{said}");
        }
        // A client may call its own like that.
        let said = ask(&mut other, &[parse(&name, "select 8"), run(&name)]).await?;
        ensure!(said == "8", "{said}");
        Ok(())
    });
}

#[test]
fn a_pipeline_may_be_longer_than_what_is_remembered_of_it() {
    story(async |server| {
        let limits = Limits {
            prepared_max: 50,
            ..one_server()
        };
        let proxy = server.trusting(PoolMode::Transaction, limits).await?;
        for off in 0..3 {
            let mut raw = Raw::logged_in(proxy.address).await?;
            let many = 100;
            let mut all: Vec<u8> = (0..many)
                .flat_map(|n| parse(&format!("m{n}"), &format!("select {n}")))
                .collect();
            all.extend([parse("slow", "select count(*) from pg_sleep(1)"), sync()].concat());
            ask(&mut raw, &[all]).await?;
            // Its answers are waited for until all that follows it is there.
            let mut long = [bind("slow"), execute()].concat();
            (0..off).for_each(|_| long.extend(describe("slow")));
            for n in 0..4_000 {
                long.extend([bind(&format!("m{}", n % many)), execute()].concat());
            }
            long.extend(sync());
            raw.send(&long).await?;
            let all = raw.until(b'Z').await?;
            let rows = all.iter().filter(|(tag, _)| *tag == b'D').count();
            ensure!(rows == 4_001, "{off}: {rows} rows, {}", told(&all));
        }
        Ok(())
    });
}
