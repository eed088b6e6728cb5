//! Stories: commands, and the decisions that they led to. One file a story in `scenarios/`.
//!
//! A block is commands, a line `----`, and what happened, up to an empty line.
//! `UPDATE_EXPECT=1 cargo test -p ha --test scenarios` writes what happened; commit only what you understand.

#[path = "scenarios/world.rs"]
mod world;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use world::World;

/// Patroni: Failover | pause | works; a leader that is lost stays lost until it is over, except by order. An agent that is
///   stopped leaves its Postgres running. Differently: one that has died is started again, one whose lease ends is killed
/// Patroni: Failover | `maximum_lag_on_failover` | works, in asynchronous mode; with synchronous commits the proof
///   decides, and nothing acknowledged is lost
/// Patroni: Failover | `primary_start_timeout` | works where nobody can take over, 60 s if not set; who can takes over
///   at once
/// Patroni: Failover | `synchronous_mode_strict` | works
#[test]
fn every_story_is_told_as_it_happens() {
    let mut stories: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder of stories")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    stories.sort();
    assert!(stories.len() >= 10, "stories are missing");
    let wrong: Vec<String> = stories
        .iter()
        .filter_map(|path| check(path).err())
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn check(path: &Path) -> Result<(), String> {
    let written = std::fs::read_to_string(path).expect("a readable story");
    let happened = tell(&written);
    if happened == written {
        return Ok(());
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, happened).expect("a writable story");
        return Ok(());
    }
    let first = written
        .lines()
        .zip(happened.lines())
        .find(|(old, new)| old != new);
    Err(format!(
        "{}: first difference {first:#?}\n{happened}",
        path.display()
    ))
}

/// The story with what happens written in.
fn tell(story: &str) -> String {
    let mut world = World::default();
    let mut told = String::new();
    let mut skipping = false;
    for line in story.lines() {
        if skipping && !line.is_empty() {
            continue;
        }
        skipping = false;
        let _ = writeln!(told, "{line}");
        if line == "----" {
            told.push_str(&world.take_log());
            skipping = true;
        } else if !line.is_empty() && !line.starts_with('#') {
            world.command(line);
        }
    }
    told
}
