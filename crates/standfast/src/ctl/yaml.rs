//! Values as YAML for people, as patronictl prints it: keys in order, two spaces, no more quotes than needed.
//!
//! **Invariant:** what is written is read back as the same value.

use serde_json::{Map, Value};
use std::fmt::Write as _;

/// A document in block style, with its line's end.
pub(super) fn block(value: &Value) -> String {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut text = String::new();
            mapping(&mut text, map, 0);
            text
        }
        Value::Array(items) if !items.is_empty() => {
            let mut text = String::new();
            sequence(&mut text, items, 0);
            text
        }
        // A bare scalar ends its document.
        Value::Object(_) | Value::Array(_) => flow(value) + "\n",
        scalar => alone(scalar) + "\n...\n",
    }
}

/// On one line.
pub(super) fn flow(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => string(text, true),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| key.as_str());
            let pairs = pairs
                .iter()
                .map(|(key, value)| format!("{}: {}", string(key, true), flow(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

fn mapping(text: &mut String, map: &Map<String, Value>, depth: usize) {
    let mut pairs: Vec<_> = map.iter().collect();
    pairs.sort_by_key(|(key, _)| key.as_str());
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        // The first key of an item stands behind its dash.
        if index > 0 || !text.ends_with("- ") {
            indent(text, depth);
        }
        text.push_str(&string(key, false));
        text.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                text.push('\n');
                mapping(text, inner, depth + 1);
            }
            Value::Array(items) if !items.is_empty() => {
                text.push('\n');
                sequence(text, items, depth);
            }
            scalar => {
                let _ = writeln!(text, " {}", alone(scalar));
            }
        }
    }
}

fn sequence(text: &mut String, items: &[Value], depth: usize) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 || !text.ends_with("- ") {
            indent(text, depth);
        }
        text.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => mapping(text, inner, depth + 1),
            Value::Array(inner) if !inner.is_empty() => sequence(text, inner, depth + 1),
            scalar => {
                let _ = writeln!(text, "{}", alone(scalar));
            }
        }
    }
}

/// At the end of its line.
fn alone(value: &Value) -> String {
    match value {
        Value::String(text) => string(text, false),
        other => flow(other),
    }
}

fn indent(text: &mut String, depth: usize) {
    text.push_str(&"  ".repeat(depth));
}

/// Plain where it can't be taken for something else, else quoted.
fn string(text: &str, in_flow: bool) -> String {
    if text.chars().any(char::is_control) {
        // JSON's way is YAML's too.
        return Value::from(text).to_string();
    }
    // Inside of a flow these would end the word.
    if is_plain(text) && !(in_flow && text.contains([',', '[', ']', '{', '}'])) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

fn is_plain(text: &str) -> bool {
    let indicator = |c: char| "-?:,[]{}#&*!|>'\"%@`=".contains(c);
    let Some(first) = text.chars().next() else {
        return false;
    };
    let lone = text.chars().nth(1).is_none_or(|c| c == ' ');
    let starts = !indicator(first) || (matches!(first, '-' | '?' | ':') && !lone);
    let reserved = matches!(
        text.to_ascii_lowercase().as_str(),
        "null" | "~" | "true" | "false" | "yes" | "no" | "on" | "off"
    );
    starts
        && !reserved
        && !text.starts_with(' ')
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !looks_like_a_number(text)
}

fn looks_like_a_number(text: &str) -> bool {
    let bare = text.trim_start_matches(['+', '-']);
    let numeral = bare.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    // Times and dates have types of their own in YAML 1.1.
    let other = |c: char| c.is_ascii_digit() || "._:-+xXoObBeETZabcdefABCDEF".contains(c);
    // An address has more dots than any number.
    let address = bare.split('.').count() > 2;
    numeral && !address && bare.chars().all(other) && bare.chars().any(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn a_configuration_reads_as_patronictl_shows_it() {
        let value = json!({
            "ttl": 30, "postgresql": {
                "use_pg_rewind": true,
                "parameters": {"max_connections": 50, "shared_buffers": "32MB", "wal_level": "replica"},
                "pg_hba": ["local all all trust", "host all all 0.0.0.0/0 scram-sha-256"],
                "empty": {}, "none": null,
            },
            "a": "yes", "b": "30", "c": "", "d": "it's: so", "e": [[1, 2], {"x": 1, "y": []}],
        });
        expect![[r#"
            a: 'yes'
            b: '30'
            c: ''
            d: 'it''s: so'
            e:
            - - 1
              - 2
            - x: 1
              y: []
            postgresql:
              empty: {}
              none: null
              parameters:
                max_connections: 50
                shared_buffers: 32MB
                wal_level: replica
              pg_hba:
              - local all all trust
              - host all all 0.0.0.0/0 scram-sha-256
              use_pg_rewind: true
            ttl: 30
        "#]]
        .assert_eq(&block(&value));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "",
            " ",
            "a b",
            "- x",
            "-x",
            "a: b",
            "a:",
            "#x",
            "x #y",
            "0600",
            "1e5",
            "1.5",
            "30s",
            "2026-11-22",
            "12:30:00",
            "null",
            "~",
            "Yes",
            "a,b",
            "[a]",
            "line\nline",
            "\t",
            "it's",
            "ANY 1 (a,b)",
            "10.0.0.1",
            "10.0.0.1:5432",
            "1.",
            "\"q\"",
            "%d",
            "@x",
            "0/3000060",
            "é",
            "--",
            "=",
            "?",
            "*.x",
        ] {
            let value = json!({ "list": [text], "key": text });
            let read = crate::config::yaml_to_json(&block(&value)).expect("YAML");
            assert_eq!(read, value, "{}", block(&value));
        }
    }
}
