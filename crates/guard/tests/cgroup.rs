//! With a control group of its own the instance dies by one write.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up fails")]

mod support;

use guard::{Cause, Phase, boottime_ns};
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use support::postgres::{bench, ran_as_postgres_in};
use support::{Bench, MS, ended, is_alive, ms_between, note, send, until};

/// A group to work in, removed when dropped.
struct Parent(PathBuf);

impl Parent {
    /// As root: a new group below the root of the version 2 hierarchy. There must be one.
    fn new(name: &str) -> Self {
        let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .map(Path::new)
            .into_iter()
            .find(|root| root.join("cgroup.controllers").exists())
            .expect("a version 2 hierarchy is mounted");
        let path = root.join(format!("guard-test-{name}-{}", rustix::process::getpid()));
        fs::create_dir(&path).unwrap();
        assert!(path.join("cgroup.kill").exists(), "Linux 5.14 or later");
        Self(path)
    }

    fn groups(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).unwrap().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        fs::write(self.0.join("cgroup.kill"), "1").unwrap();
        until("the group is gone", || {
            for group in self.groups() {
                let _in_use = fs::remove_dir(group);
            }
            fs::remove_dir(&self.0).is_ok()
        });
    }
}

/// Only root may make groups; everybody else is told so and the test has nothing to say.
fn is_root(what: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        note(&format!(
            "{what}: not tried, an ordinary user has no control group to create in"
        ));
    }
    is_root
}

#[test]
fn a_script_dies_by_its_group() {
    if !is_root("a script in a control group") {
        return;
    }
    let parent = Parent::new("script");
    let mut bench = Bench::deaf();
    bench.launch.cgroup = Some(parent.0.clone());
    let guard = bench.run();
    assert!(guard.status().has_cgroup, "{}", bench.log());
    let inside = fs::read_to_string(parent.groups()[0].join("cgroup.procs")).unwrap();
    assert!(inside.contains(&guard.status().postmaster.unwrap().to_string()));
    assert!(
        !inside.contains(&guard.status().guard.to_string()),
        "the guard stays outside"
    );

    // A stranger that is put into the group counts as part of the instance.
    let mut stranger = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .unwrap();
    fs::write(
        parent.groups()[0].join("cgroup.procs"),
        stranger.id().to_string(),
    )
    .unwrap();
    let deadline = boottime_ns() + 100 * MS;
    guard.arm(1, deadline);
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::Deadline))
    );
    assert_eq!(bench.alive(), []);
    assert!(stranger.try_wait().unwrap().is_some());
    assert!(ms_between(deadline, status.empty_ns.unwrap()) < 200.0);
    assert_eq!(parent.groups(), Vec::<PathBuf>::new(), "removed behind it");
}

#[test]
fn what_a_killed_guard_left_is_swept_away_by_the_next() {
    if !is_root("the sweep") {
        return;
    }
    let parent = Parent::new("sweep");
    let mut bench = Bench::deaf();
    bench.launch.cgroup = Some(parent.0.clone());
    let guard = bench.run();
    send(guard.status().guard, Signal::KILL);
    assert_eq!(ended(&guard).phase, Phase::Lost);
    let stale = parent.groups();
    fs::write(stale[0].join("cgroup.kill"), "1").unwrap();
    until("it is empty", || bench.alive().is_empty());
    fs::remove_file(bench.data("ready")).unwrap();
    let next = bench.run();
    assert!(next.status().has_cgroup);
    assert_eq!(parent.groups().len(), 1);
    assert_ne!(parent.groups(), stale);
}

#[test]
fn without_a_usable_group_descendants_are_walked() {
    let mut bench = Bench::deaf();
    bench.launch.cgroup = Some(bench.path().to_owned());
    let guard = bench.run();
    assert!(!guard.status().has_cgroup);
    assert!(bench.log().contains("no control group"), "{}", bench.log());
    guard.fence();
    assert_eq!(ended(&guard).phase, Phase::Empty);
    assert_eq!(bench.alive(), []);
}

/// As root: makes a group, gives it to the postgres user and runs the test again inside. As that user (or any
/// other whose group is its own): the guard makes its group beside ours.
#[test]
fn postgresql_dies_by_its_group() {
    if rustix::process::geteuid().is_root() {
        let parent = Parent::new("postgres");
        let ours = parent.0.join("agent");
        fs::create_dir(&ours).unwrap();
        for path in [
            parent.0.clone(),
            parent.0.join("cgroup.procs"),
            ours.clone(),
        ] {
            let user = "postgres:postgres";
            let chown = std::process::Command::new("chown")
                .arg(user)
                .arg(path)
                .status();
            assert!(chown.unwrap().success());
        }
        ran_as_postgres_in("postgresql_dies_by_its_group", Some(&ours));
        return;
    }
    let Some(parent) = delegated() else {
        note("PostgreSQL in a control group: not tried, this user's group isn't its own");
        return;
    };
    let mut bench = bench();
    bench.launch.cgroup = Some(parent);
    let mut took = Vec::new();
    for _ in 0..5 {
        let guard = bench.run_postgres();
        assert!(guard.status().has_cgroup, "{}", bench.log());
        let (backend, _client) = bench.busy_backend();
        let deadline = boottime_ns() + 100 * MS;
        guard.arm(1, deadline);
        let status = ended(&guard);
        assert!(!is_alive(backend));
        assert_eq!(
            (status.phase, status.cause),
            (Phase::Empty, Some(Cause::Deadline))
        );
        took.push(ms_between(deadline, status.empty_ns.unwrap()));
    }
    took.sort_by(f64::total_cmp);
    note(&format!(
        "PostgreSQL, by control group: deadline to last process dead {took:.1?} ms"
    ));
    assert!(
        took.iter().all(|took| (0.0..200.0).contains(took)),
        "{took:?}"
    );
}

/// The group above ours, if we may create in it.
fn delegated() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))?
        .to_owned();
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(|root| Path::new(root).join(&own))
        .into_iter()
        .filter_map(|ours| Some(ours.parent()?.to_owned()))
        .find(|parent| {
            let probe = parent.join("guard-test-probe");
            fs::create_dir(&probe)
                .and_then(|()| fs::remove_dir(&probe))
                .is_ok()
        })
}
