//! Running `cargo test` and adding up what it says, while its lines pass through unchanged.
//!
//! **Invariant:** a test binary that ends badly without saying how many tests failed counts as one
//! failed test; silence is never success.

use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

/// Words for cargo.
pub(crate) type Words = Vec<String>;

/// Every test, as one command: it builds everything once, and plays one program of tests after the other.
pub(crate) static ALL: std::sync::LazyLock<Words> =
    std::sync::LazyLock::new(|| words(&["test", "--locked", "--no-fail-fast", "--workspace"]));

/// Every test but the end-to-end ones, which take the longest.
pub(crate) static UNIT: std::sync::LazyLock<Words> = std::sync::LazyLock::new(|| {
    words(&[
        "test",
        "--locked",
        "--no-fail-fast",
        "--workspace",
        "--exclude",
        "e2e",
    ])
});

/// The end-to-end tests whose names contain one of `names`, or all.
pub(crate) fn end_to_end(names: &[&str]) -> Words {
    // The whole workspace, of which only one package has them: with the features that `ALL` has, nothing is built anew.
    let stories = words(&["--test", "stories", "--"]);
    [&ALL, &stories, &words(names)].map(Vec::as_slice).concat()
}

/// The stories of what befalls three nodes, whose names begin with one of `names`, or all.
pub(crate) fn three_nodes(names: &[&str]) -> Words {
    let names = if names.is_empty() { &[""] } else { names };
    let names: Vec<_> = names
        .iter()
        .map(|it| format!("three_nodes::{it}"))
        .collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    end_to_end(&names)
}

/// The stories of the proxy whose names begin with one of `names`, with what they say.
pub(crate) fn proxy(names: &[&str]) -> Words {
    let names: Vec<_> = names.iter().map(|it| format!("proxy::{it}")).collect();
    let names = names.iter().map(String::as_str);
    end_to_end(&names.chain(["--nocapture"]).collect::<Vec<_>>())
}

fn words(words: &[&str]) -> Words {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What the test runners said, added up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count {
    passed: u64,
    failed: u64,
    why: Failures,
}

impl Count {
    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.why.0.extend_from_slice(&other.why.0);
    }

    /// A lint counts like a test that failed.
    pub(crate) fn fail_a_check(&mut self) {
        self.failed += 1;
    }

    /// The last lines of a run: why it failed, since a log that is cut keeps its end, and how it went.
    pub(crate) fn finish(self) -> Result<()> {
        for line in &self.why.0 {
            say(line);
        }
        say(&format!("{} passed, {} failed", self.passed, self.failed));
        ensure!(
            self.failed == 0 && self.passed > 0,
            "not everything is well"
        );
        Ok(())
    }
}

/// Runs the tests and counts.
pub(crate) fn run(arguments: &Words) -> Result<Count> {
    run_with(arguments, &[])
}

/// The same with more in the environment.
pub(crate) fn run_with(arguments: &Words, environment: &[(&str, &OsStr)]) -> Result<Count> {
    say(&format!("cargo {}", arguments.join(" ")));
    let target_dir = crate::reach::target_dir()?;
    if let Some(directory) = &target_dir {
        let directory = directory.display();
        say(&format!(
            "built in {directory}, which the user postgres can reach"
        ));
    }
    let mut child = crate::fresh_cargo()
        .args(arguments)
        .envs(target_dir.map(|directory| ("CARGO_TARGET_DIR", directory)))
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .spawn()
        .context("start cargo test")?;
    let mut count = Count::default();
    let mut why = Listener::default();
    let stdout = child.stdout.take().context("cargo's stdout")?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        say(&line);
        why.hear(&line);
        if let Some(said) = summary(&line) {
            count.add(&said);
        }
    }
    count.why = why.failures;
    if !child.wait()?.success() && count.failed == 0 {
        count.failed = 1;
    }
    Ok(count)
}

/// Reads `test result: FAILED. 3 passed; 1 failed; 0 ignored; …`.
fn summary(line: &str) -> Option<Count> {
    let rest = line.trim().strip_prefix("test result: ")?;
    let number = |what: &str| {
        let before = rest.split(what).next()?;
        before.split_whitespace().last()?.parse().ok()
    };
    Some(Count {
        passed: number(" passed")?,
        failed: number(" failed")?,
        why: Failures::default(),
    })
}

/// How each test that failed begins to say why.
#[derive(Clone, Debug, Default)]
struct Failures(Vec<String>);

/// Finds them in what a test binary prints.
#[derive(Debug, Default)]
struct Listener {
    failures: Failures,
    /// Lines that are still of use to the last failure.
    more: usize,
}

impl Listener {
    /// Of a failure: its name, where it panicked, and why.
    const LINES: usize = 8;

    fn hear(&mut self, line: &str) {
        if line.starts_with("---- ") && line.ends_with(" stdout ----") {
            self.more = Self::LINES;
        } else if line == "failures:" {
            self.more = 0;
        }
        if self.more > 0 && !line.is_empty() {
            self.more -= 1;
            self.failures.0.push(line.chars().take(400).collect());
        }
    }
}

/// A line on stdout; a reader that has gone is no reason to stop testing.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

#[cfg(test)]
mod checks {
    use super::{Listener, summary};

    #[test]
    fn the_summary_of_a_test_binary_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        let count = summary(line).expect("a summary");
        assert_eq!((count.passed, count.failed), (12, 3));
        assert!(summary("test a::b ... ok").is_none());
    }

    #[test]
    fn the_beginning_of_every_failure_is_kept() {
        let printed = "test a ... FAILED\n\nfailures:\n\n---- a stdout ----\nit panicked\n\n---- b stdout ----\n\
                       1\n2\n3\n4\n5\n6\n7\n8\n\nfailures:\n    a\n    b\n";
        let mut listener = Listener::default();
        for line in printed.split('\n') {
            listener.hear(line);
        }
        let kept = listener.failures.0.join("\n");
        assert_eq!(
            kept,
            "---- a stdout ----\nit panicked\n---- b stdout ----\n1\n2\n3\n4\n5\n6\n7"
        );
    }
}
