//! Plays the stories as libtest plays tests: as many at once as there are cores, with what they say shown of those that
//! fail. libtest itself can't: the program is the guard as well, and a story that panics must leave nothing behind.

use crate::{PLAYED, Root};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Child, Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// Plays all, or those whose part of the name is given.
pub(crate) fn play(stories: &[&'static str]) -> ExitCode {
    let part = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    let wanted = |name: &&&str| part.as_ref().is_none_or(|part| name.contains(part));
    let stories: Vec<_> = stories.iter().filter(wanted).collect();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let player = || {
        while let Some(name) = stories.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begun = Instant::now();
            let failure = one(name);
            let word = if failure.is_none() { "ok" } else { "FAILED" };
            println!(
                "test {name} ... {word}, {:.1} s",
                begun.elapsed().as_secs_f64()
            );
            let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.extend(failure.map(|said| (*name, said)));
        }
    };
    let players = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..players {
            scope.spawn(player);
        }
    });
    let failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    for (name, said) in &failures {
        println!("---- {name} stdout ----\n{said}");
    }
    let (failed, all) = (failures.len(), stories.len());
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {word}. {} passed; {failed} failed",
        all - failed
    );
    ExitCode::from(u8::from(failed > 0))
}

/// Plays one to its end, whatever that is: what it said, if it failed.
fn one(name: &str) -> Option<String> {
    // Files, not pipes: those end only when all have let go of them that it has left behind.
    let mut said = [(); 2].map(|()| tempfile::tempfile().expect("a file"));
    let mut child = started(name, &said);
    // One that is killed ends nothing itself.
    let _root = Root::of(child.id());
    let succeeded = child.wait().expect("its end").success();
    let mut all = Vec::new();
    for file in &mut said {
        file.rewind().expect("its beginning");
        file.read_to_end(&mut all).expect("what it said");
    }
    (!succeeded).then(|| String::from_utf8_lossy(&all).into_owned())
}

/// At work, speaking into these files: why it failed into the first, for what follows may be cut.
fn started(name: &str, [errors, rest]: &[File; 2]) -> Child {
    let own = std::env::current_exe().expect("this program");
    // PostgreSQL refuses root.
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(own)
            .current_dir("/tmp")
            .env("HOME", "/tmp");
        command
    } else {
        Command::new(own)
    };
    if std::env::var_os("RUST_LOG").is_none() {
        let into = |file: &File| file.try_clone().expect("the same file");
        command.stderr(into(errors)).stdout(into(rest));
    }
    let started = command.env(PLAYED, name).spawn();
    started.expect("the program runs")
}
