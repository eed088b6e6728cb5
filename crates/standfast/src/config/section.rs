//! Typed reading of a tree: every wrong value becomes a complaint with its line, and reading goes on.
//!
//! **Invariant:** a key that nobody asked for is reported, with the nearest key that somebody did ask for.

use super::cures;
use super::problem::Problem;
use super::tree::{Entry, Node, Tree};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) errors: RefCell<Vec<Problem>>,
    pub(super) warnings: RefCell<Vec<Problem>>,
}

/// One mapping of the file, and which of its keys were asked for.
#[derive(Debug)]
pub(super) struct Section<'t> {
    path: String,
    line: u64,
    entries: &'t [Entry],
    asked: RefCell<BTreeSet<String>>,
    findings: &'t Findings,
}

/// A value with the line it came from.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) line: u64,
    pub(super) value: T,
}

impl<'t> Section<'t> {
    pub(super) fn root(tree: &'t Tree, findings: &'t Findings) -> Self {
        let section = Self {
            path: String::new(),
            line: tree.line,
            entries: &[],
            asked: RefCell::default(),
            findings,
        };
        match &tree.node {
            Node::Map(entries) => Self { entries, ..section },
            _ => section,
        }
    }

    /// The mapping under `key`; an empty one when it is absent.
    pub(super) fn section(&self, key: &str) -> Self {
        let mut section = Self {
            path: self.key_path(key),
            line: self.line,
            entries: &[],
            asked: RefCell::default(),
            findings: self.findings,
        };
        if let Some(entry) = self.entry(key) {
            section.line = entry.line;
            match &entry.value.node {
                Node::Map(entries) => section.entries = entries,
                Node::Null => {}
                _ => self.wrong(key, &entry.value, "a mapping of keys to values"),
            }
        }
        section
    }

    pub(super) fn is_present(&self, key: &'static str) -> bool {
        self.entry(key).is_some()
    }

    /// Whether the key is there with a value.
    pub(super) fn is_given(&self, key: &'static str) -> bool {
        self.given(key).is_some()
    }

    /// Nothing of the whole file was wrong so far.
    pub(super) fn is_sound(&self) -> bool {
        self.findings.errors.borrow().is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A key of this section, as messages name it.
    pub(super) fn path_of(&self, key: &str) -> String {
        self.key_path(key)
    }

    /// The line of the section's own key.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    pub(super) fn entries(&self) -> &'t [Entry] {
        self.entries
    }

    pub(super) fn value(&self, key: &'static str) -> Option<&'t Tree> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(super) fn text(&self, key: &'static str) -> Option<At<String>> {
        let tree = self.given(key)?;
        let value = match &tree.node {
            Node::Text(text) => text.clone(),
            // `scope: 12` and `name: 1` mean texts; a boolean is more likely `no` for Norway.
            Node::Number(number) => number.to_string(),
            Node::Bool(_) => {
                self.wrong(key, tree, "a text; quote it if you mean it as one");
                return None;
            }
            _ => {
                self.wrong(key, tree, "a text");
                return None;
            }
        };
        Some(At {
            line: tree.line,
            value,
        })
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<bool> {
        let tree = self.given(key)?;
        match &tree.node {
            Node::Bool(flag) => return Some(*flag),
            Node::Text(text) => match text.to_ascii_lowercase().as_str() {
                "on" | "yes" | "true" => return Some(true),
                "off" | "no" | "false" => return Some(false),
                _ => {}
            },
            _ => {}
        }
        self.wrong(key, tree, "true or false");
        None
    }

    pub(super) fn whole(&self, key: &'static str) -> Option<At<u64>> {
        let tree = self.given(key)?;
        let value = match &tree.node {
            Node::Number(number) => number.as_u64(),
            Node::Text(text) => text.parse().ok(),
            _ => None,
        };
        if value.is_none() {
            self.wrong(key, tree, "a whole number");
        }
        value.map(|value| At {
            line: tree.line,
            value,
        })
    }

    /// A list of texts; one text alone is a list of one.
    pub(super) fn texts(&self, key: &'static str) -> Vec<At<String>> {
        let Some(tree) = self.given(key) else {
            return Vec::new();
        };
        let one = |item: &Tree| match &item.node {
            Node::Text(text) => Some(At {
                line: item.line,
                value: text.clone(),
            }),
            Node::Number(number) => Some(At {
                line: item.line,
                value: number.to_string(),
            }),
            _ => {
                self.wrong(key, item, "a text");
                None
            }
        };
        match &tree.node {
            Node::List(items) => items.iter().filter_map(one).collect(),
            Node::Text(_) => one(tree).into_iter().collect(),
            _ => {
                self.wrong(key, tree, "a list of texts");
                Vec::new()
            }
        }
    }

    /// Every pair of this mapping as texts, booleans as PostgreSQL writes them.
    pub(super) fn pairs(&self) -> BTreeMap<String, At<String>> {
        let mut pairs = BTreeMap::new();
        for entry in self.entries {
            let value = match &entry.value.node {
                Node::Text(text) => text.clone(),
                Node::Number(number) => number.to_string(),
                Node::Bool(flag) => if *flag { "on" } else { "off" }.to_owned(),
                Node::Null => continue,
                Node::List(_) | Node::Map(_) => {
                    self.wrong(&entry.key, &entry.value, "a single value");
                    continue;
                }
            };
            pairs.insert(
                entry.key.clone(),
                At {
                    line: entry.line,
                    value,
                },
            );
        }
        pairs
    }

    /// Program options as Patroni writes them: `- data-checksums` or `- encoding: UTF8`.
    pub(super) fn options(&self, key: &'static str) -> Vec<String> {
        let Some(tree) = self.given(key) else {
            return Vec::new();
        };
        let mut options = Vec::new();
        let items: Vec<&Tree> = match &tree.node {
            Node::List(items) => items.iter().collect(),
            _ => vec![tree],
        };
        for item in items {
            match &item.node {
                Node::Text(name) => options.push(format!("--{}", name.trim_start_matches('-'))),
                Node::Map(entries) => {
                    for entry in entries {
                        let value = match &entry.value.node {
                            Node::Text(text) => text.clone(),
                            Node::Number(number) => number.to_string(),
                            _ => {
                                self.wrong(key, &entry.value, "a text or a number");
                                continue;
                            }
                        };
                        options.push(format!("--{}={value}", entry.key));
                    }
                }
                _ => self.wrong(
                    key,
                    item,
                    "an option such as `data-checksums` or `encoding: UTF8`",
                ),
            }
        }
        options
    }

    /// Reports every key that nobody asked for. `unused` are keys that are right in a `patroni.yml` and have no
    /// effect here.
    pub(super) fn finish(&self, unused: &[&'static str]) {
        let asked = self.asked.borrow();
        for entry in self.entries {
            let key = entry.key.as_str();
            if asked.contains(key) || self.cure(key, entry) {
                continue;
            }
            let what = if unused.contains(&key) {
                "has no effect in this version".to_owned()
            } else {
                let known = asked
                    .iter()
                    .map(String::as_str)
                    .chain(unused.iter().copied());
                match nearest(key, known) {
                    Some(near) => format!("unknown key, did you mean `{near}`?"),
                    None => "unknown key, it has no effect".to_owned(),
                }
            };
            self.inert(entry.line, key, what);
        }
    }

    /// Whether it is known what was meant; then it is said, of the key and of what stands in it.
    pub(super) fn cure(&self, key: &str, entry: &Entry) -> bool {
        let Some(what) = cures::of(&self.key_path(key)) else {
            return false;
        };
        self.inert(entry.line, key, what);
        if let Node::Map(inner) = &entry.value.node {
            for below in inner {
                let key = format!("{key}.{}", below.key);
                if let Some(what) = cures::of(&self.key_path(&key)) {
                    self.inert(below.line, &key, what);
                }
            }
        }
        true
    }

    pub(super) fn error(&self, line: u64, key: &str, what: impl Into<String>) {
        let problem = Problem::at(line, self.key_path(key), what);
        self.findings.errors.borrow_mut().push(problem);
    }

    /// A complaint about a key that is there.
    pub(super) fn refuse(&self, key: &str, what: impl Into<String>) {
        let line = self
            .entries
            .iter()
            .find(|entry| entry.key == key)
            .map_or(self.line, |entry| entry.line);
        self.error(line, key, what);
    }

    pub(super) fn warning(&self, line: u64, key: &str, what: impl Into<String>) {
        let problem = Problem::at(line, self.key_path(key), what);
        self.findings.warnings.borrow_mut().push(problem);
    }

    /// A warning of a key that counts for nothing.
    pub(super) fn inert(&self, line: u64, key: &str, what: impl Into<String>) {
        let problem = Problem {
            inert: true,
            ..Problem::at(line, self.key_path(key), what)
        };
        self.findings.warnings.borrow_mut().push(problem);
    }

    pub(super) fn missing(&self, key: &str, what: &str) {
        self.error(self.line, key, format!("is missing: {what}"));
    }

    fn wrong(&self, key: &str, found: &Tree, wanted: &str) {
        // A password is never repeated, not even one of the wrong type.
        let what = if key.contains("password") {
            format!("must be {wanted}")
        } else {
            format!("{} is not {wanted}", found.describe())
        };
        self.error(found.line, key, what);
    }

    fn entry(&self, key: &str) -> Option<&'t Entry> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The value, unless it is empty: `key:` with nothing behind it means its default.
    fn given(&self, key: &'static str) -> Option<&'t Tree> {
        self.value(key)
            .filter(|tree| !matches!(tree.node, Node::Null))
    }

    fn key_path(&self, key: &str) -> String {
        match (self.path.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => self.path.clone(),
            (false, false) => format!("{}.{key}", self.path),
        }
    }
}

/// The known key that a mistyped one most likely means.
pub(crate) fn nearest<'k>(typed: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let limit = (typed.chars().count() / 3).clamp(1, 3);
    known
        .map(|key| (distance(typed, key), key))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, key)| key)
}

/// Edits (insert, delete, replace, swap of neighbours) that make one text the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let known = ["synchronous_mode", "listen", "data_dir", "name", "scope"];
        let near = |typed| nearest(typed, known.into_iter());
        assert_eq!(near("synchonous_mode"), Some("synchronous_mode"));
        assert_eq!(near("lisetn"), Some("listen"));
        assert_eq!(near("data-dir"), Some("data_dir"));
        assert_eq!(near("colour"), None);
        assert_eq!(near("x"), None);
    }
}
