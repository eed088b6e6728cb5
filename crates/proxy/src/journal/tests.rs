use super::*;
use crate::sql::Reading;

/// Statements that all succeed, one request each; `!` before one that fails. The status after each
/// is what PostgreSQL would say.
fn after(script: &[&str]) -> Vec<String> {
    let journal = journal_after(script);
    let sql = journal.settings().values();
    sql.map(|sql| String::from_utf8_lossy(sql).into_owned())
        .collect()
}

fn journal_after(script: &[&str]) -> Journal {
    let mut journal = Journal::default();
    let mut status = TransactionStatus::Idle;
    for line in script {
        let (text, failed) = match line.strip_prefix('!') {
            Some(text) => (text, true),
            None => (*line, false),
        };
        let reading = Reading::of(text.as_bytes(), true);
        if !failed {
            for (_, deed) in &reading.deeds {
                journal.done(deed, &[]);
            }
            let ended = status == TransactionStatus::Failed;
            match text {
                "begin" => status = TransactionStatus::InTransaction,
                "commit" => {
                    journal.tag(if ended { b"ROLLBACK" } else { b"COMMIT" });
                    status = TransactionStatus::Idle;
                }
                "rollback" => {
                    journal.tag(b"ROLLBACK");
                    status = TransactionStatus::Idle;
                }
                "discard all" => journal.tag(b"DISCARD ALL"),
                _ if text.starts_with("rollback to") => status = TransactionStatus::InTransaction,
                _ => {}
            }
        } else if status == TransactionStatus::InTransaction {
            status = TransactionStatus::Failed;
        }
        journal.ready(status, failed);
    }
    journal
}

/// The string would end before it did, and what is behind it would be run.
#[test]
fn a_text_is_not_said_again_where_it_would_be_read_otherwise() {
    const OFF: &str = "set standard_conforming_strings = off";
    const ON: &str = "set standard_conforming_strings to on";
    const EVIL: &str = r"set app.y = 'q\'; create table hacked(); --'";
    let stays = |script: &[&str]| journal_after(script).pins() != Pins::default();
    let path = r"set app.path = 'C:\data'";
    assert!(!stays(&[path, "set app.x = 'plain'"]));
    assert!(!stays(&[
        ON,
        "set app.x = 'plain'",
        "prepare p as select 1"
    ]));
    assert!(stays(&[OFF, path, ON]) && stays(&[path, OFF]) && stays(&[OFF, EVIL]));
    assert!(stays(&[path, "reset standard_conforming_strings"]));
    let config = "select set_config('standard_conforming_strings', 'off', false)";
    assert!(stays(&[r"prepare p as select '\d+'", config]));
    // The second byte of a letter in SJIS, here behind one that is none in ASCII either.
    assert!(stays(&["set app.x = 'é\\'"]));
    let mut journal = journal_after(&[path]);
    journal.reported("standard_conforming_strings", b"off", false);
    assert!(
        journal.pins() != Pins::default(),
        "a function has changed it"
    );
}

#[test]
fn letters_are_said_again_only_in_their_own_encoding() {
    const WHO: &str = "set app.who = 'Müller'";
    const LATIN: &str = "set client_encoding = 'latin1'";
    // Behind each line the server reports what stands behind the arrow.
    let stays = |script: &[&str]| {
        let mut journal = Journal::default();
        let mut status = TransactionStatus::Idle;
        for line in script {
            let (text, reported) = line.split_once(" -> ").unwrap_or((line, ""));
            for (_, deed) in &Reading::of(text.as_bytes(), true).deeds {
                journal.done(deed, &[]);
            }
            status = match text {
                "begin" => TransactionStatus::InTransaction,
                "commit" | "rollback" => TransactionStatus::Idle,
                _ => status,
            };
            journal.tag(text.to_ascii_uppercase().as_bytes());
            journal.ready(status, false);
            if !reported.is_empty() {
                journal.reported("client_encoding", reported.as_bytes(), reported == "UTF8");
            }
        }
        journal.pins() != Pins::default()
    };
    let latin = &*format!("{LATIN} -> LATIN1");
    assert!(!stays(&[WHO, WHO]) && !stays(&[latin, WHO, WHO]));
    assert!(stays(&[WHO, latin]) && stays(&[latin, WHO, "set names 'utf8' -> UTF8"]));
    assert!(stays(&[latin, WHO, "reset client_encoding -> UTF8"]));
    assert!(stays(&["prepare p as select 'ü'", latin]));
    // What is said anew and stays the same is not reported.
    assert!(!stays(&[WHO, "set client_encoding = 'utf8'", WHO]));
    assert!(stays(&[WHO, "select 1 -> LATIN1"]), "a function did it");
    let within = |lines: &[&str], end| stays(&[&["begin"], lines, &[end]].concat());
    assert!(!within(&[LATIN, WHO], "commit -> LATIN1"));
    assert!(within(&[WHO, LATIN], "commit -> LATIN1"));
    assert!(within(&[LATIN, WHO, "set names 'utf8'"], "commit"));
    assert!(within(
        &[LATIN, "prepare p as select 'ü'"],
        "rollback -> UTF8"
    ));
    assert!(!within(&[WHO, LATIN], "rollback -> UTF8"));
    assert!(stays(&[
        "begin",
        LATIN,
        WHO,
        "commit -> LATIN1",
        "select 1 -> UTF8"
    ]));
}

#[test]
fn a_name_is_looked_up_again_only_where_it_was() {
    const PATH: &str = "set search_path = s1";
    const CONFIG: &str = "set default_text_search_config = 'mine'";
    let stays = |script: &[&str]| journal_after(script).pins() != Pins::default();
    assert!(!stays(&[PATH, CONFIG, CONFIG]));
    assert!(stays(&[PATH, CONFIG, PATH]) && stays(&[PATH, CONFIG, "reset search_path"]));
    assert!(!stays(&[PATH, CONFIG, "reset all", PATH]));
}

#[test]
fn settings_go_with_the_transaction_that_made_them() {
    assert_eq!(
        after(&["set a = 1", "set b = 2"]),
        ["set a = 1", "set b = 2"]
    );
    assert_eq!(after(&["begin", "set a = 1", "commit"]), ["set a = 1"]);
    assert_eq!(
        after(&["set a = 1", "begin", "set a = 2", "rollback"]),
        ["set a = 1"]
    );
    assert_eq!(after(&["begin", "set a = 2", "!boom", "commit"]), [""; 0]);
    assert_eq!(after(&["!set a = 2"]), [""; 0]);
    assert_eq!(after(&["set a = 1", "set b = 2", "reset a"]), ["set b = 2"]);
    assert_eq!(
        after(&["set a = 1", "set role r", "reset all"]),
        ["set role r"]
    );
    assert_eq!(after(&["set a = 1", "discard all"]), [""; 0]);
}

#[test]
fn settings_go_with_the_savepoint_that_they_were_made_behind() {
    let kept = after(&[
        "begin",
        "set a = 1",
        "savepoint s",
        "set a = 2",
        "set b = 2",
        "rollback to s",
        "commit",
    ]);
    assert_eq!(kept, ["set a = 1"]);
    let released = after(&["begin", "savepoint s", "set a = 2", "release s", "commit"]);
    assert_eq!(released, ["set a = 2"]);
    let outer = after(&[
        "begin",
        "savepoint s",
        "set a = 1",
        "savepoint t",
        "set a = 2",
        "rollback to s",
        "set b = 1",
        "commit",
    ]);
    assert_eq!(outer, ["set b = 1"]);
    let failed = after(&[
        "begin",
        "savepoint s",
        "set a = 1",
        "!boom",
        "rollback to s",
        "set b = 1",
        "commit",
    ]);
    assert_eq!(failed, ["set b = 1"]);
}

#[test]
fn parameters_of_set_config_are_followed() {
    let reading = Reading::of(b"select set_config('app.u', $2, $1)", true);
    let (_, deed) = &reading.deeds[0];
    let bound = |local: &[u8], value: &[u8]| [Some(local.into()), Some(value.into())];
    for (local, found) in [
        (&b"f"[..], true),
        (b"t", false),
        (&[0], true),
        (&[1], false),
    ] {
        let mut journal = Journal::default();
        journal.done(deed, &bound(local, b"it's"));
        journal.ready(TransactionStatus::Idle, false);
        let sql = journal.settings().get("app.u").map(|sql| sql.to_vec());
        let wanted = b"SELECT pg_catalog.set_config('app.u','it''s',false)".to_vec();
        assert_eq!(sql, found.then_some(wanted), "{local:?}");
        assert!(journal.pins().is_empty());
    }
    let mut journal = Journal::default();
    journal.done(deed, &[Some(b"f"[..].into()), None]);
    assert!(!journal.pins().is_empty());
}

#[test]
fn one_sessions_settings_become_anothers() {
    let settings = |pairs: &[(&str, &str)]| -> Settings {
        let pair = |(name, sql): &(&str, &str)| ((*name).into(), sql.as_bytes().into());
        pairs.iter().map(pair).collect()
    };
    let show = |from: &Settings, to: &Settings| -> Vec<String> {
        let queries = to_restore(from, to).into_iter();
        queries.map(|sql| String::from_utf8(sql).unwrap()).collect()
    };
    let none = settings(&[]);
    let one = settings(&[("a.b", "SET a.b = 1"), ("role", "SET ROLE x")]);
    let other = settings(&[
        ("a.b", "SET a.b = 2"),
        ("client_encoding", "SET NAMES 'latin1'"),
        ("role", "SET ROLE x"),
    ]);
    let path = settings(&[
        ("default_text_search_config", "SET a"),
        ("search_path", "SET b"),
        ("statement_timeout", "SET c"),
        ("timezone", "SET d"),
    ]);
    assert_eq!(
        show(&settings(&[("zz", "SET zz")]), &path),
        ["SET b", "RESET \"zz\";SET a;SET d;SET c;"]
    );
    assert_eq!(show(&one, &one), [""; 0]);
    assert_eq!(show(&none, &one), ["SET a.b = 1;", "SET ROLE x"]);
    assert_eq!(show(&one, &none), ["RESET ROLE", "RESET \"a\".\"b\";"]);
    assert_eq!(
        show(&one, &other),
        [
            "RESET ROLE",
            "SET NAMES 'latin1'",
            "SET a.b = 2;",
            "SET ROLE x"
        ]
    );
    assert_eq!(
        show(
            &settings(&[("role", "SET ROLE x")]),
            &settings(&[("role", "SET ROLE y")])
        ),
        ["RESET ROLE", "SET ROLE y"]
    );
}

#[test]
fn what_the_server_reports_is_believed() {
    let mut journal = Journal::default();
    journal.reported("DateStyle", b"ISO, DMY", false);
    assert!(journal.settings().contains_key("datestyle"));
    journal.reported("DateStyle", b"ISO, MDY", true);
    assert!(journal.settings().is_empty());
}

#[test]
fn what_was_set_or_reset_last_counts_before_its_transaction_has_ended() {
    let has = |script: &[&str]| journal_after(script).has_set("a");
    assert!(has(&["set a = 1"]) && has(&["begin", "set a = 1"]));
    assert!(has(&[
        "reset a",
        "begin",
        "set a = 1",
        "savepoint s",
        "reset b"
    ]));
    assert!(!has(&[]) && !has(&["set a = 1", "begin", "reset a"]));
    assert!(!has(&["set a = 1", "begin", "reset all", "set b = 1"]));
    assert!(has(&["set a = 1", "begin", "reset all", "rollback"]));
}

/// What a session has set without an end is not remembered without one.
#[test]
fn a_session_with_too_many_settings_stays_with_its_server() {
    let set = |name: String, bytes: usize| Deed::Set {
        sql: format!("set {name} = '{}'", "x".repeat(bytes))
            .into_bytes()
            .into(),
        name: name.into(),
    };
    // One that is set again and again is one.
    let mut journal = Journal::default();
    for _ in 0..1_000 {
        journal.done(&set("app.a".to_owned(), 100_000), &[]);
        journal.ready(TransactionStatus::Idle, false);
    }
    assert!(journal.pins().is_empty());
    // Many are too many, each by itself or within a transaction.
    for status in [TransactionStatus::Idle, TransactionStatus::InTransaction] {
        let mut journal = Journal::default();
        for n in 0..100_000 {
            journal.done(&set(format!("app.a{n}"), 100), &[]);
            journal.ready(status, false);
        }
        assert!(!journal.pins().is_empty());
        assert!(journal.bytes <= 2 * BYTES_MAX, "{}", journal.bytes);
        journal.tag(b"DISCARD ALL");
        assert!(journal.pins().is_empty());
    }
    let mut journal = Journal::default();
    for n in 0..100_000 {
        journal.done(&Deed::Savepoint(format!("s{n}").into()), &[]);
    }
    assert!(!journal.pins().is_empty() && journal.frames.len() < 50_000);
}
