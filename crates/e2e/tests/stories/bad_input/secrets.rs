//! Whether a password or secret is shown anywhere: in a log, on a command line, in a document.

use super::running_cluster::Place;
use anyhow::{Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const PLANTED: &str = "planted-";

/// Looks over the shoulder of every process of a lab, as `ps` would.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    seen: JoinHandle<BTreeSet<String>>,
}

impl Watch {
    pub(super) fn start(lab: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (enough, lab) = (Arc::clone(&stop), lab.to_owned());
        let seen = thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !enough.load(Ordering::Relaxed) {
                seen.extend(command_lines(&lab));
                // A sample, not a wait: `ps` too sees only what is there when it looks.
                thread::sleep(Duration::from_millis(50));
            }
            seen
        });
        Self { stop, seen }
    }

    /// Every command line that was seen.
    pub(super) fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.seen.join().unwrap_or_default()
    }
}

fn command_lines(lab: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let ours = |process: &Path, words: &str| {
        words.contains(&*lab.to_string_lossy())
            || fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(lab))
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let raw = fs::read(entry.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&raw).replace('\0', " ");
            ours(&entry.path(), &words).then_some(words)
        })
        .collect()
}

/// Neither a planted password nor one that was derived from the secret.
pub(super) fn none_is_shown(place: &Place<'_>, command_lines: &BTreeSet<String>) -> Result<()> {
    let files = files_below(&place.lab);
    let mut hidden = derived(&files);
    ensure!(
        !hidden.is_empty(),
        "no file with derived passwords was found: look where they are now"
    );
    hidden.push(PLANTED.to_owned());
    ensure!(
        command_lines.len() > 10,
        "the watch saw next to nothing: {command_lines:?}"
    );
    for line in command_lines {
        ensure!(
            !hidden.iter().any(|secret| line.contains(secret)),
            "ps shows it: {line}"
        );
    }
    let logs: Vec<_> = files.iter().filter(|file| is_log(file)).collect();
    ensure!(logs.len() > 5, "only these logs: {logs:?}");
    for file in logs {
        let text = String::from_utf8_lossy(&fs::read(file)?).into_owned();
        let shown = text
            .lines()
            .find(|line| hidden.iter().any(|secret| line.contains(secret)));
        ensure!(shown.is_none(), "{} shows it: {shown:?}", file.display());
    }
    Ok(())
}

/// Agents' logs, Postgres's logs, journals and event records.
fn is_log(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".log") || name.contains("journal")
}

/// The passwords in the files that `libpq` reads them from.
fn derived(files: &[PathBuf]) -> Vec<String> {
    files
        .iter()
        .filter(|file| file.to_string_lossy().contains("pass"))
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| {
            let passwords = text.lines().filter_map(|line| line.rsplit(':').next());
            let long = passwords.filter(|password| password.len() >= 32);
            long.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut open = vec![directory.to_owned()];
    let mut files = Vec::new();
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            match entry.file_type() {
                // The tables are no logs, and many.
                Ok(kind) if kind.is_dir() && !path.ends_with("base") => open.push(path),
                Ok(kind) if kind.is_file() => files.push(path),
                _ => {}
            }
        }
    }
    files
}
