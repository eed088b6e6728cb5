//! A disk that hangs under everything: data, state directory and log.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up fails")]

mod support;

use guard::{Cause, Phase, boottime_ns};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{Bench, MS, ended, holds_until, is_alive, ms_between, note, until};

/// A file system of its own that can be frozen; unmounted when dropped.
struct Disk {
    mount: PathBuf,
    _image_dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let image_dir = tempfile::tempdir().unwrap();
        let (image, mount) = (
            image_dir.path().join("image"),
            image_dir.path().join("mount"),
        );
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(&image)
            .unwrap()
            .set_len(32 << 20)
            .unwrap();
        run("mkfs.ext4", &["-q".as_ref(), &image]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &mount]);
        Self {
            mount,
            _image_dir: image_dir,
        }
    }

    /// Frozen until the value is dropped, which must be before anything else on the disk is.
    fn freeze(&self) -> Frozen<'_> {
        run("fsfreeze", &["--freeze".as_ref(), &self.mount]);
        Frozen(self)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        until("the disk is unmounted", || {
            let umount = Command::new("umount")
                .arg(&self.mount)
                .stderr(Stdio::null())
                .status();
            umount.unwrap().success()
        });
    }
}

struct Frozen<'a>(&'a Disk);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        run("fsfreeze", &["--unfreeze".as_ref(), &self.0.mount]);
    }
}

fn run(program: &str, args: &[&Path]) {
    let status = Command::new(program).args(args).status();
    assert!(status.unwrap().success(), "{program} {args:?}");
}

#[test]
fn what_can_not_be_killed_is_never_called_empty() {
    if !rustix::process::geteuid().is_root() {
        note("a hung disk: not tried, only root can mount and freeze one");
        return;
    }
    let disk = Disk::new();
    // One process that writes for ever, and ones that don't.
    let writer =
        "sleep 1000 & sh -c 'echo $$ > writer; echo > ready; while :; do echo x > x; done' &
        while :; do sleep 1000; done";
    let bench = Bench::script_in(&disk.mount, writer);
    let guard = bench.run();
    let writer = std::fs::read_to_string(bench.data("writer")).unwrap();
    let writer = guard::Pid::from_raw(writer.trim().parse().unwrap()).unwrap();
    let frozen = disk.freeze();
    until("the writer hangs", || {
        let stat = std::fs::read_to_string(format!("/proc/{writer}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().starts_with(" D")
    });
    let deadline = boottime_ns() + 100 * MS;
    guard.arm(1, deadline);
    until("all others are dead", || {
        bench.alive().iter().all(|&pid| pid == writer)
    });
    holds_until(deadline + 400 * MS, || guard.status().phase != Phase::Empty);
    let status = guard.status();
    assert_eq!((status.phase, status.left), (Phase::Killing, 1));
    assert!(is_alive(writer), "the kernel can't kill it");

    drop(frozen);
    let thawed = boottime_ns();
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::Deadline))
    );
    assert!(!is_alive(writer));
    let took = ms_between(thawed, status.empty_ns.unwrap());
    assert!(took < 200.0, "{took} ms after the thaw");
    until("the log says why", || {
        bench.log().contains("the deadline passed")
    });
}

#[test]
fn the_fence_and_the_guards_end_wait_for_no_disk() {
    if !rustix::process::geteuid().is_root() {
        note("a hung disk: not tried, only root can mount and freeze one");
        return;
    }
    let disk = Disk::new();
    let bench = Bench::script_in(&disk.mount, "sleep 1000 & echo > ready; sleep 1000");
    let guard = bench.run();
    let frozen = disk.freeze();
    let deadline = boottime_ns() + 50 * MS;
    guard.arm(1, deadline);
    // Its log can't be written now; the guard ends nevertheless.
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::Deadline))
    );
    assert!(ms_between(deadline, status.empty_ns.unwrap()) < 200.0);
    drop(frozen);
    until("the log says why", || {
        bench.log().contains("the deadline passed")
    });
}
