//! Settings of a session, and how one set of them becomes another.

use std::collections::BTreeMap;

/// By name in small letters: the SQL that sets it again.
pub(crate) type Settings = BTreeMap<Box<str>, Box<[u8]>>;

/// These change how what follows is read: letters, strings, and names.
const FIRST: [&str; 3] = [
    "client_encoding",
    "standard_conforming_strings",
    "search_path",
];
/// It could strike what follows.
const LAST: &str = "statement_timeout";
const ROLE: &str = "role";

/// Queries that make a session with the settings `from` one with the settings `to`, to be sent in
/// this order; none if they are the same.
pub(crate) fn to_restore(from: &Settings, to: &Settings) -> Vec<Vec<u8>> {
    let mut queries = Vec::new();
    let differs = |name: &str| from.get(name) != to.get(name);
    // Another role might not be allowed to set the rest.
    let role = differs(ROLE) || (from.contains_key(ROLE) && from != to);
    if role && from.contains_key(ROLE) {
        queries.push(b"RESET ROLE".to_vec());
    }
    for name in FIRST {
        if differs(name) {
            queries.push(one(name, to));
        }
    }
    // Some can't be set while another one is, which is to go: those go first.
    let gone = from.keys().filter(|name| !to.contains_key(*name));
    let (last, set): (Vec<_>, Vec<_>) = to.keys().partition(|name| &***name == LAST);
    let mut rest = Vec::new();
    for name in gone.chain(set).chain(last) {
        if differs(name) && &**name != ROLE && !FIRST.contains(&&**name) {
            rest.extend_from_slice(&one(name, to));
            rest.push(b';');
        }
    }
    if !rest.is_empty() {
        queries.push(rest);
    }
    if role {
        queries.extend(to.get(ROLE).map(|sql| sql.to_vec()));
    }
    queries
}

fn one(name: &str, to: &Settings) -> Vec<u8> {
    match to.get(name) {
        Some(sql) => sql.to_vec(),
        None => {
            let quoted: Vec<_> = name
                .split('.')
                .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
                .collect();
            format!("RESET {}", quoted.join(".")).into_bytes()
        }
    }
}

/// Sets it to exactly this value, lists included.
pub(crate) fn set_config_sql(name: &[u8], value: &[u8]) -> Box<[u8]> {
    let mut sql = b"SELECT pg_catalog.set_config(".to_vec();
    literal(&mut sql, name);
    sql.push(b',');
    literal(&mut sql, value);
    sql.extend_from_slice(b",false)");
    sql.into()
}

/// A string that is read the same whatever `standard_conforming_strings` says.
pub(crate) fn literal(out: &mut Vec<u8>, text: &[u8]) {
    let escaped = text.contains(&b'\\');
    if escaped {
        out.extend_from_slice(b" E");
    }
    out.push(b'\'');
    for byte in text {
        if *byte == b'\'' || (escaped && *byte == b'\\') {
            out.push(*byte);
        }
        out.push(*byte);
    }
    out.push(b'\'');
}
