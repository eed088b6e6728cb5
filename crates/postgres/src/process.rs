//! What the kernel says of Postgres' processes.
//!
//! **Invariant:** a pid counts as ours only after its start time or its working directory has been compared.

use std::path::Path;
use std::time::{Duration, Instant};

/// What `postmaster.pid` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PidFile {
    pub(crate) pid: i32,
    pub(crate) port: u16,
    pub(crate) socket_dir: String,
    pub(crate) listen: String,
    pub(crate) status: String,
}

impl PidFile {
    pub(crate) fn read(data_dir: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?)
    }

    /// The first line is the pid; the rest is filled in while the server starts.
    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = |n: usize| lines.get(n).copied().unwrap_or_default();
        Some(Self {
            // Negative for a single-user backend.
            pid: line(0).parse().ok().filter(|pid| *pid > 0)?,
            port: line(3).parse().unwrap_or(0),
            socket_dir: line(4).to_owned(),
            listen: line(5).to_owned(),
            status: line(7).to_owned(),
        })
    }

    /// Its sockets are its own: it says what it does once it has them. Until then another server may be found there.
    pub(crate) fn has_sockets(&self) -> bool {
        !self.status.is_empty()
    }

    /// Where on this machine it takes TCP connections.
    pub(crate) fn local_host(&self) -> &str {
        match self.listen.as_str() {
            "" | "*" | "0.0.0.0" | "localhost" => "127.0.0.1",
            "::" => "::1",
            address => address,
        }
    }

    /// The server takes connections (hot standby or primary).
    pub(crate) fn is_ready(&self) -> bool {
        self.status == "ready"
    }

    /// The server recovers and takes no connections before it is promoted.
    pub(crate) fn is_recovering(&self) -> bool {
        self.status == "standby"
    }
}

/// The postmaster of this data directory that `postmaster.pid` names, if it lives and is really that.
pub(crate) fn living_postmaster(data_dir: &Path) -> Option<PidFile> {
    let file = PidFile::read(data_dir)?;
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", file.pid)).ok()?;
    let data_dir = std::fs::canonicalize(data_dir).ok()?;
    (cwd == data_dir && is_postgres(file.pid)).then_some(file)
}

fn is_postgres(pid: i32) -> bool {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    matches!(comm.trim(), "postgres" | "postmaster")
}

/// The start time of a process in clock ticks since boot; with the pid it names one process for ever.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold anything, so fields are counted after its closing parenthesis.
    let fields = stat.rsplit_once(')')?.1;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// The children of a process.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|child| parent(*child) == Some(pid))
        .collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// The title that Postgres gave a process, `postgres: a: walreceiver streaming 0/3000060`.
pub(crate) fn title(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .replace('\0', " ")
        .trim()
        .to_owned()
}

/// The WAL receivers below a postmaster.
///
/// A receiver sets its title before it connects, so one that could have read a pass file is seen here as long as it
/// lives.
pub(crate) fn walreceivers(postmaster: i32) -> Vec<i32> {
    let is_receiver = |pid: &i32| {
        let title = title(*pid);
        title.starts_with("postgres:") && title.contains("walreceiver")
    };
    children(postmaster)
        .into_iter()
        .filter(is_receiver)
        .collect()
}

/// Proof that a process sleeps: equal before and after means that it did not run in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asleep {
    switches: u64,
}

/// `None` when the process is not in an interruptible sleep: it runs, is stopped, hangs in the disk or is gone.
pub(crate) fn asleep(pid: i32) -> Option<Asleep> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_start_matches(':').trim().to_owned())
    };
    if !field("State")?.starts_with('S') {
        return None;
    }
    let switches = field("voluntary_ctxt_switches")?.parse::<u64>().ok()?
        + field("nonvoluntary_ctxt_switches")?.parse::<u64>().ok()?;
    Some(Asleep { switches })
}

/// Calls `done` every `every` until it answers or `limit` has passed.
///
/// Not an `AsyncFnMut`: what that returns can't be shown to be `Send`, and callers are spawned.
pub(crate) async fn poll<T, F: Future<Output = Option<T>>>(
    every: Duration,
    limit: Duration,
    mut done: impl FnMut() -> F,
) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = done().await {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        tokio::time::sleep(every).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postmaster_pid_is_read_as_far_as_it_is_written() {
        let full = "17\n/data\n1700000000\n5432\n/run/pg\n127.0.0.1\n  5 6\nready   \n";
        let file = PidFile::parse(full).unwrap();
        assert!(file.is_ready() && file.pid == 17 && file.port == 5432);
        assert_eq!(file.socket_dir, "/run/pg");
        assert_eq!((file.has_sockets(), file.local_host()), (true, "127.0.0.1"));
        assert!(!PidFile::parse("17\n").unwrap().is_ready());
        let begun = PidFile::parse("17\n/data\n1700000000\n5432\n\n").unwrap();
        assert!(!begun.has_sockets(), "its port may be another server's");
        assert_eq!(PidFile::parse("-17\n"), None);
        assert_eq!(PidFile::parse(""), None);
    }

    #[test]
    fn a_sleeping_child_is_told_from_a_stopped_one() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let until = |wanted: bool| {
            let end = Instant::now() + Duration::from_secs(5);
            while asleep(pid).is_some() != wanted {
                assert!(Instant::now() < end, "never seen: asleep == {wanted}");
                std::thread::yield_now();
            }
        };
        until(true);
        assert!(start_time(pid).is_some());
        assert!(children(i32::try_from(std::process::id()).unwrap()).contains(&pid));
        let handle = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(handle, rustix::process::Signal::STOP).unwrap();
        until(false);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
