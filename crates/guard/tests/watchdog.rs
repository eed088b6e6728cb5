//! The watchdog device: when it is opened, fed, let go and left to fire.
#![allow(clippy::unwrap_used, reason = "a test that can't be set up fails")]

mod support;

use guard::{Cause, Guard, Phase, Watchdog, WatchdogState, boottime_ns};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use support::{Bench, MS, ended, holds_until, send, until};

/// A pipe in place of the device, and what came out of it.
struct Pipe {
    reader: OwnedFd,
    heard: Vec<u8>,
}

impl Pipe {
    fn new(bench: &mut Bench) -> Self {
        let path = bench.path().join("watchdog");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let reader = rustix::fs::open(&path, flags, Mode::empty()).unwrap();
        bench.launch.watchdog = Some(Watchdog {
            device: path,
            plain: true,
        });
        Self {
            reader,
            heard: Vec::new(),
        }
    }

    fn heard(&mut self) -> usize {
        let mut buffer = [0; 256];
        while let Ok(length @ 1..) = rustix::io::read(&self.reader, &mut buffer) {
            self.heard.extend_from_slice(&buffer[..length]);
        }
        self.heard.len()
    }

    /// Nobody holds its other end.
    fn is_closed(&mut self) -> bool {
        self.heard();
        rustix::io::read(&self.reader, &mut [0; 1]) == Ok(0)
    }
}

fn seconds(guard: &Guard) -> Option<u32> {
    match guard.status().watchdog {
        WatchdogState::Armed { seconds, .. } => Some(seconds),
        WatchdogState::Resting | WatchdogState::Failed { .. } => None,
    }
}

#[test]
fn it_is_fed_while_the_deadline_lasts_and_told_to_rest_after() {
    let mut bench = Bench::deaf();
    let mut pipe = Pipe::new(&mut bench);
    let guard = bench.run();
    guard.count_to(1);
    assert_eq!(guard.status().watchdog, WatchdogState::Resting);
    assert_eq!(pipe.heard(), 0, "no deadline, nothing to watch");
    guard.arm(1, boottime_ns() + 60_000 * MS);
    until("it is armed", || seconds(&guard) == Some(1));
    until("it is fed several times", || pipe.heard() > 4);
    assert!(pipe.heard.iter().all(|&byte| byte == b'1'));
    guard.disarm();
    until("it rests", || {
        guard.status().watchdog == WatchdogState::Resting && pipe.is_closed()
    });
    assert_eq!(pipe.heard.pop(), Some(b'V'));
    guard.arm(2, boottime_ns() + 400 * MS);
    let status = ended(&guard);
    assert_eq!(status.cause, Some(Cause::Deadline));
    assert!(pipe.is_closed());
    assert_eq!(pipe.heard.last(), Some(&b'V'), "nothing is left to watch");
}

#[test]
fn a_guard_that_does_not_run_feeds_nothing() {
    let mut bench = Bench::deaf();
    let mut pipe = Pipe::new(&mut bench);
    let guard = bench.run();
    guard.count_to(1);
    guard.arm(1, boottime_ns() + 60_000 * MS);
    until("it is fed", || pipe.heard() > 1);
    send(guard.status().guard, Signal::STOP);
    until("it stands", || {
        let fed = pipe.heard();
        holds_until(boottime_ns() + 300 * MS, || true);
        fed == pipe.heard()
    });
    // Killed, it does not say that the end was meant: the device fires.
    send(guard.status().guard, Signal::KILL);
    until("its end is open", || pipe.is_closed());
    assert!(!pipe.heard.contains(&b'V'));
}

/// What a device that counts three seconds or more is fed by are the renewals, and Postgres ends before it fires.
#[test]
fn renewals_that_do_not_come_end_the_instance_before_the_device_fires() {
    let mut bench = Bench::deaf();
    let mut pipe = Pipe::new(&mut bench);
    let guard = bench.run();
    guard.count_to(3);
    let began = boottime_ns();
    guard.arm(1, began + 4_000 * MS);
    until("it is armed", || seconds(&guard) == Some(3));
    let status = ended(&guard);
    assert_eq!(
        (status.phase, status.cause),
        (Phase::Empty, Some(Cause::Deadline))
    );
    pipe.heard();
    assert_eq!(pipe.heard.pop(), Some(b'V'));
    let fed = pipe.heard.len();
    assert!(
        (1..=2).contains(&fed),
        "fed only while a second is spare: {fed}"
    );
    let took = status.empty_ns.unwrap() - began;
    assert!(took < 3_900 * MS, "{took}");
}

#[test]
fn what_is_no_device_can_not_be_armed() {
    let check = |make: &dyn Fn(&Bench) -> PathBuf, expected: rustix::io::Errno| {
        let mut bench = Bench::deaf();
        let device = make(&bench);
        let plain = false;
        bench.launch.watchdog = Some(Watchdog { device, plain });
        let guard = bench.run();
        guard.count_to(1);
        guard.arm(1, boottime_ns() + 60_000 * MS);
        let errno = expected.raw_os_error();
        until("it has failed", || {
            guard.status().watchdog == WatchdogState::Failed { errno }
        });
        assert_eq!(guard.status().phase, Phase::Running);
    };
    let file = |bench: &Bench| {
        let path = bench.path().join("file");
        std::fs::write(&path, "").unwrap();
        path
    };
    check(&file, rustix::io::Errno::NOTTY);
    check(&|_| "/nowhere/watchdog".into(), rustix::io::Errno::NOENT);
}
