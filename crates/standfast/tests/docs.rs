//! The documents name only what is there: files, headings, tests and the breaks of the simulation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Files below `dir` that end in `ending`; nothing is looked at that was built.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    open.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn documents() -> Vec<(PathBuf, String)> {
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("UTF-8");
        (path, text)
    };
    files(&root(), ".md").into_iter().map(read).collect()
}

/// The text outside of code blocks.
fn prose(text: &str) -> String {
    let mut inside = false;
    let kept = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !fence && !inside
    });
    kept.collect::<Vec<_>>().join("\n")
}

/// What stands between the parentheses of `[…](…)`.
fn links(text: &str) -> Vec<String> {
    let targets = prose(text);
    let parts = targets.split("](").skip(1);
    parts
        .filter_map(|part| part.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .collect()
}

/// What stands between single backticks.
fn quoted(text: &str) -> Vec<String> {
    let prose = prose(text);
    let lines = prose.lines();
    lines
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// A heading's anchor, as the usual forges make it.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

fn assert_none(missing: &[String]) {
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut missing = Vec::new();
    for (document, text) in documents() {
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().expect("a directory").join(path),
            };
            let heading_there = anchor.is_empty()
                || fs::read_to_string(&target)
                    .is_ok_and(|linked| anchors(&linked).contains(anchor));
            if !target.exists() || !heading_there {
                missing.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert_none(&missing);
}

#[test]
fn every_source_file_that_a_document_names_exists() {
    let mut sources = files(&root().join("crates"), ".rs");
    sources.extend(files(&root().join("xtask"), ".rs"));
    let mut missing = Vec::new();
    for (document, text) in documents() {
        for word in quoted(&text).iter().filter(|word| word.ends_with(".rs")) {
            // `ha/src/quorum.rs`, `decide/lead.rs` or `meant.rs`: the end of a path.
            if !sources.iter().any(|source| source.ends_with(word)) {
                missing.push(format!("{}: {word}", document.display()));
            }
        }
    }
    assert_none(&missing);
}

/// Names that read as sentences are names of tests, or of invariants of the simulation.
#[test]
fn every_test_that_the_architecture_names_exists() {
    let sources = files(&root().join("crates"), ".rs");
    let all: String = sources
        .iter()
        .map(|source| fs::read_to_string(source).expect("UTF-8"))
        .collect();
    let sentence = |word: &&String| {
        word.matches('_').count() >= 3
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let absent = |test: &&&String| {
        let (function, literal) = (format!("fn {test}("), format!("\"{test}\""));
        !all.contains(&function) && !all.contains(&literal)
    };
    for document in [
        "ARCHITECTURE.md",
        "docs/hostile-peers.md",
        "docs/bad-input.md",
    ] {
        let text = fs::read_to_string(root().join(document)).expect("the document");
        let words = quoted(&text);
        let tests: Vec<&String> = words.iter().filter(sentence).collect();
        assert!(!tests.is_empty(), "{document} names no test any more");
        let missing: Vec<String> = tests
            .iter()
            .filter(absent)
            .map(|test| format!("{document}: {test}"))
            .collect();
        assert_none(&missing);
    }
}

#[test]
fn every_break_that_a_document_names_can_be_asked_for() {
    let known = fs::read_to_string(root().join("crates/sim/src/config.rs")).expect("the breaks");
    let mut missing = Vec::new();
    for (document, text) in documents() {
        for word in quoted(&text) {
            let Some((_, name)) = word.split_once("--break ") else {
                continue;
            };
            if name != "NAME" && !known.contains(&format!("\"{name}\"")) {
                missing.push(format!("{}: {word}", document.display()));
            }
        }
    }
    assert_none(&missing);
}
