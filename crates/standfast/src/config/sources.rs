//! Where a configuration comes from: a file, or the files of a directory in the order of their names, and the
//! environment over them.
//!
//! **Invariant:** every value keeps its place: the lines of one source are counted on from those of the one before, so
//! that a single number names both, and [`Places`] takes it apart again.
//!
//! It does not know what any key means.

use super::problem::{ConfigError, Problem};
use super::section::Findings;
use super::tree::{self, Entry, Node, Tree};
use super::variables::{self, Environment};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Larger files are no configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The whole configuration in one variable; no file is read beside it.
const WHOLE: &str = "PATRONI_CONFIGURATION";

/// All sources, one over the other.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) tree: Tree,
    pub(super) places: Places,
    /// Variables that look like settings and are none.
    pub(super) unknown: Vec<Problem>,
}

impl Layers {
    /// What was read of `file`, with the warnings, or everything that is wrong with it; each with its place.
    pub(super) fn judge<T>(
        self,
        file: &Path,
        read: Option<T>,
        findings: Findings,
    ) -> Result<(T, Vec<Problem>), ConfigError> {
        let mut errors = findings.errors.into_inner();
        let mut warnings = findings.warnings.into_inner();
        for problems in [&mut errors, &mut warnings] {
            problems.sort_by_key(|problem| problem.line);
            for problem in problems {
                self.places.resolve(problem);
            }
        }
        warnings.extend(self.unknown);
        match read {
            Some(read) if errors.is_empty() => Ok((read, warnings)),
            // What counts for nothing may be what is missing elsewhere, misspelt.
            _ => {
                let told = |problem: &Problem| {
                    let same =
                        |error: &Problem| (error.line, &error.key) == (problem.line, &problem.key);
                    errors.iter().any(same)
                };
                let slips = warnings.into_iter().filter(|it| it.inert && !told(it));
                let slips: Vec<Problem> = slips.collect();
                errors.extend(slips);
                Err(ConfigError {
                    file: file.to_owned(),
                    problems: errors,
                })
            }
        }
    }
}

/// Which source a line belongs to.
#[derive(Debug, Default)]
pub(super) struct Places {
    sources: Vec<Source>,
    next: u64,
}

#[derive(Debug)]
struct Source {
    /// Lines of this source are counted from here.
    before: u64,
    /// `None`: the one file, which every message names anyway.
    name: Option<String>,
    /// A variable has no lines.
    has_lines: bool,
}

impl Places {
    fn add(&mut self, name: Option<String>, lines: Option<u64>) -> u64 {
        let before = self.next;
        // YAML that ends too early is wrong on the line after its last.
        self.next += lines.unwrap_or(1) + 1;
        self.sources.push(Source {
            before,
            name,
            has_lines: lines.is_some(),
        });
        before
    }

    /// Puts the source's own name and line in place of the common number.
    pub(super) fn resolve(&self, problem: &mut Problem) {
        let mut latest_first = self.sources.iter().rev();
        let Some(source) = latest_first.find(|it| problem.line > it.before) else {
            return;
        };
        problem.line = match source.has_lines {
            true => problem.line - source.before,
            false => 0,
        };
        problem.place.clone_from(&source.name);
    }
}

/// Reads everything that counts.
pub(super) fn read(file: &Path, environment: &Environment) -> Result<Layers, ConfigError> {
    let mut places = Places::default();
    let mut root = Vec::new();
    for (name, text) in texts(file, environment)? {
        let before = places.add(name.clone(), Some(text.lines().count() as u64));
        let problem = match tree::parse(&text) {
            Ok(mut tree) => {
                tree.shift(before);
                match tree.node {
                    Node::Map(entries) => {
                        tree::merge(&mut root, entries);
                        continue;
                    }
                    Node::Null if name.is_some() => continue,
                    _ => Problem::whole("is not a mapping of keys to values"),
                }
            }
            Err(malformed) => Problem::at(malformed.line, "", malformed.why),
        };
        return Err(ConfigError {
            file: file.to_owned(),
            problems: vec![Problem {
                place: name,
                ..problem
            }],
        });
    }
    let mut unknown = Vec::new();
    for variable in variables::of(environment) {
        match variable.path {
            Some(path) => {
                let line = places.add(Some(variable.name), None) + 1;
                let over = variables::entry(&path, &variable.value, line);
                tree::merge(&mut root, vec![over]);
            }
            None => unknown.push(Problem {
                place: Some(variable.name),
                ..Problem::whole(variable.advice)
            }),
        }
    }
    Ok(Layers {
        tree: Tree {
            line: 1,
            node: Node::Map(root),
        },
        places,
        unknown,
    })
}

/// The texts, the later ones over the earlier ones, each with its name where there are several.
fn texts(
    file: &Path,
    environment: &Environment,
) -> Result<Vec<(Option<String>, String)>, ConfigError> {
    if let Some(text) = environment.get(WHOLE).filter(|text| !text.is_empty()) {
        return Ok(vec![(Some(WHOLE.to_owned()), text.clone())]);
    }
    if !file.is_dir() {
        let text = read_text(file).map_err(|problem| ConfigError {
            file: file.to_owned(),
            problems: vec![problem],
        })?;
        if text.trim().is_empty() {
            return Err(ConfigError::whole(file, "is empty"));
        }
        return Ok(vec![(None, text)]);
    }
    let mut texts = Vec::new();
    for path in files(file)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = read_text(&path).map_err(|problem| ConfigError {
            file: path.clone(),
            problems: vec![problem],
        })?;
        if !text.trim().is_empty() {
            texts.push((Some(name.into_owned()), text));
        }
    }
    if texts.is_empty() {
        let what =
            "is a directory without a configuration: it holds no *.yml or *.yaml with text in it";
        return Err(ConfigError::whole(file, what));
    }
    Ok(texts)
}

/// The files that `file` stands for: itself, or the `*.yml` and `*.yaml` in it, in the order of their names.
pub(crate) fn files(file: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    if !file.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let fail = |error: std::io::Error| ConfigError::whole(file, format!("can't be read: {error}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(file).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let yaml = path
            .extension()
            .is_some_and(|ending| ending == "yml" || ending == "yaml");
        if yaml && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A file as text, or the one sentence why not.
fn read_text(file: &Path) -> Result<String, Problem> {
    let unreadable = |error: std::io::Error| Problem::whole(format!("can't be read: {error}"));
    let metadata = std::fs::metadata(file).map_err(unreadable)?;
    // A pipe would be waited for, until somebody writes to it.
    if !metadata.is_file() {
        return Err(Problem::whole("is not a file"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        let what = format!("has {} bytes, more than any configuration", metadata.len());
        return Err(Problem::whole(what));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|open| open.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Problem::whole("is larger than any configuration"));
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(Problem::whole("is UTF-16, save it as UTF-8"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        Problem::at(line as u64, "", "is not UTF-8 here, save the file as UTF-8")
    })?;
    let without_mark = text.strip_prefix('\u{feff}').map(str::to_owned);
    Ok(without_mark.unwrap_or(text))
}

/// `path`'s last word becomes a key of the innermost of nested mappings.
pub(super) fn nest(path: &[&str], value: Tree) -> Entry {
    let line = value.line;
    let mut words = path.iter().rev();
    let entry = |key: &str, value: Tree| Entry {
        key: key.to_owned(),
        line,
        value,
    };
    let mut nested = entry(words.next().copied().unwrap_or_default(), value);
    for word in words {
        let node = Node::Map(vec![nested]);
        nested = entry(word, Tree { line, node });
    }
    nested
}
