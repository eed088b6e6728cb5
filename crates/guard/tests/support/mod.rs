//! Instances under a guard, as the tests need them: a script that plays the postmaster, or PostgreSQL.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that can't be set up fails")]

pub mod postgres;

use guard::{Guard, Launch, Pid, Status, boottime_ns};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub const MS: u64 = 1_000_000;
pub const LIMIT: Duration = Duration::from_secs(10);
const MARK: &str = "STANDFAST_GUARD_TEST";

/// Directories and a launch for one instance. All of its processes carry a mark in their environment.
pub struct Bench {
    dir: tempfile::TempDir,
    pub launch: Launch,
    mark: String,
}

/// A postmaster with children, a detached daemon and a grandchild, deaf to polite signals.
const DEAF: &str = "
trap '' TERM INT HUP
sleep 1000 &
sh -c 'trap \"\" TERM; sleep 1000 & sleep 1000' &
(setsid sh -c 'sleep 1000 & sleep 1000' &)
echo > ready
while :; do sleep 1000; done
";

impl Bench {
    /// The postmaster is `script`, run by sh in the data directory; it says `echo > ready` when it is.
    pub fn script(script: &str) -> Self {
        Self::script_in(&std::env::temp_dir(), script)
    }

    /// The same, with everything (data, state, log) in a new directory of `place`.
    pub fn script_in(place: &Path, script: &str) -> Self {
        let dir = tempfile::tempdir_in(place).unwrap();
        let mark = format!("{}={}", MARK, dir.path().display());
        let (state_dir, data_dir) = (dir.path().join("state"), dir.path().join("data"));
        fs::create_dir(&state_dir).unwrap();
        fs::create_dir(&data_dir).unwrap();
        let launch = Launch {
            guard_exe: env!("CARGO_BIN_EXE_guard-test").into(),
            guard_args: vec!["guard".into()],
            state_dir,
            data_dir,
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![
                ("PATH".into(), std::env::var_os("PATH").unwrap()),
                (MARK.into(), dir.path().into()),
                ("NOTIFY_SOCKET".into(), "/nowhere".into()),
            ],
            log_file: dir.path().join("log"),
            cgroup: None,
            watchdog: None,
        };
        Self { dir, launch, mark }
    }

    pub fn deaf() -> Self {
        Self::script(DEAF)
    }

    /// Spawns, and waits until the script says that it is ready.
    pub fn run(&self) -> Guard {
        let guard = self.launch.spawn().unwrap();
        self.wait_ready();
        guard
    }

    pub fn wait_ready(&self) {
        until("the script is ready", || self.data("ready").exists());
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn data(&self, name: &str) -> PathBuf {
        self.launch.data_dir.join(name)
    }

    pub fn state_dir(&self) -> &Path {
        &self.launch.state_dir
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.launch.log_file).unwrap_or_default()
    }

    /// A second process that is the agent: it launches the same instance, keeps the deadline 300 ms ahead
    /// and can be killed or stopped.
    pub fn agent(&self) -> Agent {
        let launch = &self.launch;
        let child = Command::new(&launch.guard_exe)
            .arg("agent")
            .args([&launch.state_dir, &launch.data_dir, &launch.log_file])
            .arg(&launch.args[1])
            .env(MARK, self.dir.path())
            .spawn()
            .unwrap();
        Agent(child)
    }

    /// Every living process of the instance, the guard apart.
    pub fn alive(&self) -> Vec<Pid> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            let marked = environ
                .split(|&byte| byte == 0)
                .any(|v| v == self.mark.as_bytes());
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if marked && !comm.starts_with("standfast-guard") && !comm.starts_with("guard-test") {
                found.extend(Pid::from_raw(pid));
            }
        }
        found
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _shown = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("log of the instance:\n{}\n", self.log()).as_bytes(),
            );
        }
        if let Ok(Some(guard)) = Guard::attach(self.state_dir()) {
            guard.fence();
            ended(&guard);
        }
        for pid in self.alive() {
            let _gone = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// An agent process; killed when dropped.
pub struct Agent(std::process::Child);

impl Agent {
    pub fn signal(&self, signal: Signal) {
        send(Pid::from_child(&self.0), signal);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

pub fn send(pid: Pid, signal: Signal) {
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits for a condition, at most ten seconds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Holds a condition while the clock runs up to `end_ns`.
pub fn holds_until(end_ns: u64, mut condition: impl FnMut() -> bool) {
    while boottime_ns() < end_ns {
        assert!(condition());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The last status of a guard, once it has ended.
pub fn ended(guard: &Guard) -> Status {
    let limit = Timespec::try_from(LIMIT).unwrap();
    let mut fds = [PollFd::new(guard.pidfd(), PollFlags::IN)];
    let polled = poll(&mut fds, Some(&limit));
    let status = guard.status();
    if polled != Ok(1) {
        let pids = [Some(status.guard), status.postmaster];
        let seen: Vec<String> = pids.into_iter().flatten().map(seen_in_proc).collect();
        panic!("the guard lives on: {status:?}\n{}", seen.join("\n"));
    }
    status
}

/// What the kernel says of a process that does not do as it should.
fn seen_in_proc(pid: Pid) -> String {
    let read = |file: &str| {
        let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
        let text = fs::read(&path).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\0', " ")
    };
    let status = read("status");
    let wanted = [
        "State", "PPid", "SigQ", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt",
    ];
    let telling = status
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    let telling: Vec<&str> = telling.collect();
    let (words, wchan) = (read("cmdline"), read("wchan"));
    format!("{pid:?} {words} in {wchan}: {}", telling.join(", "))
}

/// Whether a process exists and is no zombie.
pub fn is_alive(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .trim_start()
            .starts_with('Z')
    })
}

/// Milliseconds from the first to the second time.
pub fn ms_between(from_ns: u64, to_ns: u64) -> f64 {
    (to_ns as f64 - from_ns as f64) / 1e6
}

pub fn os(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// Says something in the output of a test.
pub fn note(words: &str) {
    let _shown = std::io::Write::write_all(&mut std::io::stderr(), format!("{words}\n").as_bytes());
}
