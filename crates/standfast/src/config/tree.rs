//! YAML as a tree whose every value knows its line, so that a complaint can name it.
//!
//! **Invariant:** whatever the bytes are, reading them ends soon and in bounded memory: the file's size, its nesting
//! and what aliases may unfold to are limited.
//!
//! It does not know what any key means.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;
use std::fmt;

/// A value and the line that it stands on.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) line: u64,
    pub(super) node: Node,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: u64,
    pub(super) value: Tree,
}

/// Why a text is no YAML; `line` is 0 when it has none.
#[derive(Clone, Debug)]
pub(super) struct Malformed {
    pub(super) line: u64,
    pub(super) why: String,
}

/// Reads a document as Patroni's users write it: YAML 1.1's booleans and octal numbers.
pub(super) fn parse(text: &str) -> Result<Tree, Malformed> {
    let mut options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        strict_booleans: false,
        with_snippet: false,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
    };
    if let Some(budget) = options.budget.as_mut() {
        budget.max_events = 50_000;
        budget.max_nodes = 20_000;
        budget.max_depth = 32;
        budget.max_aliases = 100;
        budget.max_documents = 1;
    }
    options.alias_limits.max_total_replayed_events = 20_000;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| Malformed {
        line: error.location().map_or(0, |location| location.line()),
        why: without_place(&error.to_string()),
    })
}

/// The library appends the place to its sentences; ours stands in front.
fn without_place(message: &str) -> String {
    let first = message.lines().next().unwrap_or(message);
    let limits = [
        ("Documents", "holds more than one document"),
        ("Depth", "is nested deeper than any configuration"),
        ("", "is larger than any configuration"),
    ];
    if let Some((_, breached)) = first.split_once("budget breached: ") {
        let meant = limits.iter().find(|(limit, _)| breached.starts_with(limit));
        return meant.map_or(breached, |(_, words)| words).to_owned();
    }
    // Nor is advice to the program's author of use to the user.
    let cut = [" at line ", ", set "]
        .iter()
        .filter_map(|mark| first.find(mark))
        .min();
    let cut = cut.unwrap_or(first.len());
    let sentence = first[..cut]
        .strip_prefix("error: ")
        .unwrap_or(&first[..cut]);
    sentence.trim_end_matches([':', '.', ' ']).to_owned()
}

/// Puts `over` on top of `base`: mappings grow together, everything else is replaced, and nothing behind a key takes
/// away what was there.
pub(super) fn merge(base: &mut Vec<Entry>, over: Vec<Entry>) {
    for entry in over {
        let Some(at) = base.iter().position(|it| it.key == entry.key) else {
            base.push(entry);
            continue;
        };
        match (&mut base[at].value.node, entry.value.node) {
            (_, Node::Null) => drop(base.remove(at)),
            (Node::Map(below), Node::Map(above)) => merge(below, above),
            (_, node) => {
                let line = entry.value.line;
                base[at].line = entry.line;
                base[at].value = Tree { line, node };
            }
        }
    }
}

impl Tree {
    /// Counts every line `by` lines on.
    pub(super) fn shift(&mut self, by: u64) {
        self.line += by;
        match &mut self.node {
            Node::List(items) => items.iter_mut().for_each(|item| item.shift(by)),
            Node::Map(entries) => {
                for entry in entries {
                    entry.line += by;
                    entry.value.shift(by);
                }
            }
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) => {}
        }
    }

    /// What it is, in words for a complaint. Long texts are cut; they might be anything.
    pub(super) fn describe(&self) -> String {
        match &self.node {
            Node::Null => "nothing".to_owned(),
            Node::Bool(flag) => flag.to_string(),
            Node::Number(number) => number.to_string(),
            Node::Text(text) if text.chars().count() > 40 => {
                format!("{:?}…", text.chars().take(40).collect::<String>())
            }
            Node::Text(text) => format!("{text:?}"),
            Node::List(_) => "a list".to_owned(),
            Node::Map(_) => "a mapping".to_owned(),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match &self.node {
            Node::Null => Value::Null,
            Node::Bool(flag) => Value::Bool(*flag),
            Node::Number(number) => Value::Number(number.clone()),
            Node::Text(text) => Value::String(text.clone()),
            Node::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Node::Map(entries) => {
                let pairs = entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.to_json()));
                Value::Object(pairs.collect::<Map<_, _>>())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Node>::deserialize(deserializer)?;
        Ok(Self {
            line: spanned.referenced.line(),
            node: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shape)
    }
}

struct Shape;

impl<'de> Visitor<'de> for Shape {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        // Infinity and NaN have no JSON form; as a text they are refused where a number is wanted.
        Ok(Number::from_f64(number).map_or_else(|| Node::Text(number.to_string()), Node::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Node, E> {
        Ok(Node::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = pairs.next_key::<Spanned<String>>()? {
            let value = pairs.next_value()?;
            entries.push(Entry {
                line: key.referenced.line(),
                key: key.value,
                value,
            });
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        parse(text).unwrap().to_json()
    }

    #[test]
    fn values_have_the_types_of_yaml_1_1() {
        let text = "a: yes\nb: off\nc: 0600\nd: 1.5\ne: '30'\nf:\ng: 30s\nh: [1, two]\n";
        let expected = serde_json::json!({
            "a": true, "b": false, "c": 384, "d": 1.5, "e": "30", "f": null, "g": "30s",
            "h": [1, "two"],
        });
        assert_eq!(json(text), expected);
    }

    #[test]
    fn every_value_knows_its_line() {
        let tree = parse("a: 1\nb:\n  c:\n    - x\n    - y\n").unwrap();
        let Node::Map(top) = &tree.node else {
            panic!("{tree:?}")
        };
        assert_eq!((top[0].line, top[1].line), (1, 2));
        let Node::Map(inner) = &top[1].value.node else {
            panic!("{tree:?}")
        };
        let Node::List(list) = &inner[0].value.node else {
            panic!("{tree:?}")
        };
        assert_eq!((inner[0].line, list[1].line), (3, 5));
    }

    #[test]
    fn bad_yaml_is_named_by_its_line() {
        for (text, line) in [
            ("a: 1\nb: [\n", 3),
            ("a: 1\na: 2\n", 2),
            ("a: 1\n\tb: 2\n", 2),
        ] {
            let malformed = parse(text).unwrap_err();
            assert!(
                malformed.line.abs_diff(line) <= 1,
                "{text:?}: {malformed:?}"
            );
            assert!(!malformed.why.contains("line"), "{malformed:?}");
        }
    }

    #[test]
    fn a_billion_laughs_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..10 {
            let alias = format!("*a{}", n - 1);
            text += &format!("a{n}: &a{n} [{}]\n", vec![alias; 9].join(", "));
        }
        parse(&text).unwrap_err();
        parse(&"[".repeat(100_000)).unwrap_err();
    }
}
