//! The table of Patroni's features, `docs/guide/patroni-compatibility.md`, is made from the tests that show them.
//!
//! A test says what it shows in its own comment: `/// Patroni: SECTION | FEATURE | what becomes of it here`, where
//! SECTION is the first word of the table's heading; lines that go on are indented. A second test of the same row says
//! `/// Patroni: SECTION | FEATURE`. What is not there, and so has no test, stands in [`NOT_THERE`].
//!
//! **Invariant:** no row is in the table but by a test that carries it, or by that list.
//! `UPDATE_EXPECT=1 cargo test -p standfast --test compatibility` writes the table. Its order is the document's own, with
//! new rows last.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = "docs/guide/patroni-compatibility.md";
const MARK: &str = "/// Patroni: ";

/// Section, feature, and why.
const NOT_THERE: &[(&str, &str, &str)] = &[
    (
        "Configuration",
        "`parameters_primary` and the like",
        "not there: in no release of Patroni either",
    ),
    ("Configuration", "`citus`, `kubernetes`", "not there"),
    (
        "Configuration",
        "`ttl`, `loop_wait`, `retry_timeout`, `check_timeline`",
        "`ttl` may be 1 s, and is 3 s if not set; `loop_wait` is 1 s at most; the others have no effect: without the store a \
         leader stays until its lease ends, and WAL is told apart by more than its timeline's number",
    ),
    (
        "Configuration",
        "`callbacks`, `create_replica_methods`, `recovery_conf` and the like under `postgresql` of `/config`",
        "no effect, and named where they are stored: only `parameters`, `pg_hba` and `pg_ident` are the cluster's, the rest is in \
         each node's file",
    ),
    (
        "Configuration",
        "Consul, ZooKeeper, Exhibitor, Patroni's own Raft",
        "not there: etcd, or the store that comes with Standfast",
    ),
    (
        "Configuration",
        "`patroni_barman`, `patroni_wale_restore`, `patroni_aws`",
        "not there: they are Patroni's programs, and go on as such in `create_replica_methods`, `bootstrap.method` and `callbacks`",
    ),
    (
        "Failover",
        "`primary_stop_timeout`",
        "no effect: a primary that is to hand over is not killed for being slow, for only a clean stop is a handover; \
         one whose lease ends is killed at that moment by its guard, however it hangs",
    ),
    (
        "Failover",
        "member slots and `retain_slots` in the key `status`",
        "not there: a member's slot has the epoch in its name, and each node keeps and moves its own by what streams from \
         it; `slots` has the permanent ones, which standbys of both kinds move by it",
    ),
    (
        "Failover",
        "`primary_race_backoff`",
        "not there: in no release of Patroni either",
    ),
    (
        "REST",
        "`ciphers`, `request_queue_size`, `server_tokens`, `https_extra_headers`",
        "no effect; no `Server` header is sent",
    ),
];

/// A section's first word, and the feature.
type Feature = (String, String);

#[derive(Debug, Default)]
struct Row {
    here: String,
    tests: Vec<String>,
}

type Rows = BTreeMap<Feature, Row>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Adds what the tests of one file carry.
fn carried(text: &str, rows: &mut Rows) {
    let mut said: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(row) = line.strip_prefix(MARK) {
            said.push(row.to_owned());
        } else if let (Some(more), Some(last)) = (line.strip_prefix("///   "), said.last_mut()) {
            last.push(' ');
            last.push_str(more.trim());
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| !line.starts_with("//")) {
            let name = rest.split('(').next().unwrap_or_default();
            for row in said.drain(..) {
                let cells: Vec<&str> = row.split(" | ").map(str::trim).collect();
                let [section, feature, here @ ..] = cells.as_slice() else {
                    panic!("{name} says {row:?}: SECTION | FEATURE | HERE");
                };
                let row = rows
                    .entry(((*section).to_owned(), (*feature).to_owned()))
                    .or_default();
                if let [here] = here {
                    assert!(
                        row.here.is_empty(),
                        "{feature} is said twice, by {name} too"
                    );
                    row.here = (*here).to_owned();
                }
                row.tests.push(name.to_owned());
            }
        } else if !line.starts_with("//") && !line.starts_with("#[") {
            assert!(said.is_empty(), "{said:?} stands above no test");
        }
    }
}

fn rows() -> Rows {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    let own = Path::new(file!()).file_name();
    let mut rows = Rows::new();
    for file in files.iter().filter(|file| file.file_name() != own) {
        carried(&fs::read_to_string(file).expect("UTF-8"), &mut rows);
    }
    for (section, feature, why) in NOT_THERE {
        let row = rows
            .entry(((*section).to_owned(), (*feature).to_owned()))
            .or_default();
        assert!(
            row.tests.is_empty(),
            "{feature} has a test: {:?}",
            row.tests
        );
        row.here = (*why).to_owned();
    }
    for ((_, feature), row) in &mut rows {
        assert!(!row.here.is_empty(), "nothing is said of {feature}");
        row.tests.sort();
    }
    rows
}

fn written(feature: &str, row: &Row) -> String {
    let tests: Vec<String> = row.tests.iter().map(|test| format!("`{test}`")).collect();
    format!("| {feature} | {} | {} |\n", row.here, tests.join(", "))
}

/// The document with the rows that there are: those that it has in its order, new ones behind them.
fn made(document: &str, mut rows: Rows) -> String {
    let mut text = String::new();
    let (mut section, mut table) = (String::new(), false);
    let finish = |section: &str, rows: &mut Rows, text: &mut String| {
        let all: Vec<Feature> = rows
            .keys()
            .filter(|key| key.0 == section)
            .cloned()
            .collect();
        for key in all {
            if let Some(row) = rows.remove(&key) {
                text.push_str(&written(&key.1, &row));
            }
        }
    };
    for line in document.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let word = heading.split([' ', ',']).next();
            section = word.unwrap_or_default().to_owned();
        }
        let cells = line.strip_prefix("| ").map(|rest| rest.split(" | ").next());
        match cells {
            Some(Some(feature)) if table => {
                let key = (section.clone(), feature.to_owned());
                if let Some(row) = rows.remove(&key) {
                    text.push_str(&written(feature, &row));
                }
                continue;
            }
            _ => {}
        }
        if table {
            finish(&section, &mut rows, &mut text);
        }
        table = line.starts_with("|---");
        text.push_str(line);
        text.push('\n');
    }
    if table {
        finish(&section, &mut rows, &mut text);
    }
    assert!(rows.is_empty(), "no such section: {:?}", rows.keys());
    text
}

#[test]
fn the_table_of_patronis_features_is_what_the_tests_show() {
    let path = root().join(DOCUMENT);
    let found = fs::read_to_string(&path).expect("the document");
    let made = made(&found, rows());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, made).expect("written");
        return;
    }
    for (found, made) in found.lines().zip(made.lines()) {
        assert_eq!(
            found,
            made,
            "\n{DOCUMENT} is made from the tests; see the head of {}",
            file!()
        );
    }
    assert_eq!(found.lines().count(), made.lines().count(), "{made}");
}

#[test]
fn rows_are_read_from_comments_of_tests() {
    let mut rows = Rows::new();
    let text = "/// What it plays.\n/// Patroni: REST | `a`, b | works, and\n///   goes on\n#[test]\nfn one() {}\n\
                /// Patroni: REST | `a`, b\n#[test]\nasync fn two() {}\n";
    carried(text, &mut rows);
    let document = "# T\n\n## REST, all\n\n| feature | here | test |\n|---|---|---|\n| gone | works | `x` |\n\nEnd.\n";
    let expected = document.replace(
        "| gone | works | `x` |",
        "| `a`, b | works, and goes on | `one`, `two` |",
    );
    assert_eq!(made(document, rows), expected);
}
