//! Starting and stopping, always through the guard.
//!
//! **Invariant:** what is started has `standby.signal` in its directory, except for a directory that initdb has just
//! made here or `bootstrap.method` has just brought; and it is stopped only when no process of it is left.

use crate::autoconf;
use crate::config;
use crate::datadir::{self, DataDir};
use crate::error::PostgresError;
use crate::files;
use crate::floors;
use crate::instance::Instance;
use crate::logfile;
use crate::options::{Access, Upstream};
use crate::process::{self, PidFile};
use crate::program;
use guard::{Guard, Launch, Phase};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Postgres gives no event for most of what we wait for here.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Whether the instance lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// The postmaster lives. Without a guard, somebody else has started it.
    Up { postmaster: i32, guarded: bool },
    /// The guard is killing it, or the postmaster is gone and others of its processes are not.
    Ending { left: usize },
    /// No process of it is left.
    Down,
}

/// How far a start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It takes connections.
    Accepting,
    /// The time was up and it is still replaying; nothing is wrong.
    Recovering,
}

/// Whom a server that recovers answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answers {
    #[default]
    /// Ourselves, and whom `access` lets in.
    Standby,
    /// Nobody before it is promoted.
    Nobody,
}

/// How a server is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Launched {
    pub(crate) upstream: Option<Upstream>,
    /// From the first moment on.
    pub(crate) access: Access,
    /// Of what a standby must have how much.
    pub(crate) floors: BTreeMap<String, u64>,
    pub(crate) answers: Answers,
    pub(crate) secluded: bool,
    /// It recovers what was restored, by these parameters.
    pub(crate) recovery: Option<BTreeMap<String, String>>,
    /// Whatever any file says, no WAL comes from an archive.
    pub(crate) without_archive: bool,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, a checkpoint is written, standbys get everything.
    Fast,
    /// Every process is killed; the next start recovers.
    Immediate,
}

impl Instance {
    /// Whether a postmaster runs, and whether anything of an earlier one is left.
    pub fn liveness(&self) -> Liveness {
        let data_dir = &self.options().data_dir;
        if let Some(guard) = self.guard() {
            let status = guard.status();
            match (status.phase, status.postmaster) {
                (Phase::Starting | Phase::Running | Phase::Stopping, Some(postmaster))
                    if !has_exited(guard.postmaster_pidfd()) =>
                {
                    let postmaster = postmaster.as_raw_nonzero().get();
                    return Liveness::Up {
                        postmaster,
                        guarded: true,
                    };
                }
                (Phase::Starting | Phase::Running | Phase::Stopping | Phase::Killing, _) => {
                    let left = guard::leftovers(data_dir).len().max(1);
                    return Liveness::Ending { left };
                }
                (Phase::Empty | Phase::Lost, _) => {}
            }
        }
        if let Some(file) = process::living_postmaster(data_dir) {
            return Liveness::Up {
                postmaster: file.pid,
                guarded: false,
            };
        }
        match guard::leftovers(data_dir).len() {
            0 => Liveness::Down,
            left => Liveness::Ending { left },
        }
    }

    /// The postmaster's process.
    pub(crate) fn postmaster(&self) -> Option<i32> {
        match self.liveness() {
            Liveness::Up { postmaster, .. } => Some(postmaster),
            Liveness::Ending { .. } | Liveness::Down => None,
        }
    }

    /// A handle of the postmaster that becomes readable when it dies; `None` when there is none.
    pub fn postmaster_pidfd(&self) -> Option<OwnedFd> {
        let guard = self.guard();
        let guarded = guard.as_ref().and_then(|guard| guard.postmaster_pidfd());
        if let Some(fd) = guarded.filter(|fd| !has_exited(Some(*fd))) {
            return fd.try_clone().ok();
        }
        let file = process::living_postmaster(&self.options().data_dir)?;
        let fd = pidfd_open(Pid::from_raw(file.pid)?, PidfdFlags::NONBLOCK).ok()?;
        // The number could have changed hands before it was opened.
        (process::living_postmaster(&self.options().data_dir)?.pid == file.pid).then_some(fd)
    }

    /// Returns when the postmaster is dead; at once when there is none. Other processes may still live.
    pub async fn postmaster_died(&self) {
        let Some(fd) = self.postmaster_pidfd() else {
            return;
        };
        #[allow(
            deprecated,
            reason = "an OwnedFd keeps its descriptor; the newer one is unsafe to call"
        )]
        let registered = AsyncFd::with_interest(fd, Interest::READABLE);
        match registered {
            Ok(fd) => drop(fd.readable().await),
            // Too many files: look instead of being told.
            Err(_) => {
                while self.postmaster_pidfd().is_some() {
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }

    fn signal_postmaster(&self, signal: Signal) -> Result<(), PostgresError> {
        let fd = self.postmaster_pidfd().ok_or(PostgresError::NotRunning)?;
        pidfd_send_signal(fd, signal).map_err(|_| PostgresError::NotRunning)
    }

    pub(crate) fn signal_reload(&self) -> Result<(), PostgresError> {
        self.signal_postmaster(Signal::HUP)
    }

    /// To make the postmaster look at its signal files.
    pub(crate) fn signal_look(&self) -> Result<(), PostgresError> {
        self.signal_postmaster(Signal::USR1)
    }

    /// Starts as a standby of `upstream`, open to clients, or parked: it streams from nobody, and nobody is let in until
    /// `follow` or `access(Open)`.
    ///
    /// Returns when it takes connections, or with [`Started::Recovering`] after `limit`; an error means that it has
    /// ended, with what it said.
    pub async fn start_standby(
        &self,
        upstream: Option<Upstream>,
        limit: Duration,
    ) -> Result<Started, PostgresError> {
        let access = match upstream {
            Some(_) => Access::Open,
            None => Access::Closed,
        };
        let launched = Launched {
            upstream,
            access,
            ..Launched::default()
        };
        Box::pin(self.start_recovering(launched, limit)).await
    }

    /// Starts parked, and without a TCP port: who comes finds nobody there, and asks another host, where a server that
    /// lets nobody in would be taken for an answer. For a directory that will most likely be stopped again to be rewound.
    /// `follow` and `access(Open)` start it anew with its port; before a promotion [`Instance::be_reachable`] does.
    pub async fn start_secluded(&self, limit: Duration) -> Result<Started, PostgresError> {
        let launched = Launched {
            secluded: true,
            ..Launched::default()
        };
        Box::pin(self.start_recovering(launched, limit)).await
    }

    /// A standby that was started secluded is started anew with its port, parked as it is. Any other is left alone.
    pub async fn be_reachable(&self, limit: Duration) -> Result<(), PostgresError> {
        match self.is_secluded().await {
            true => self.appear(None, Access::Closed, limit).await,
            false => Ok(()),
        }
    }

    /// Starts a secluded standby anew: with its port, and letting in from the first moment on whom it shall.
    pub(crate) async fn appear(
        &self,
        upstream: Option<Upstream>,
        access: Access,
        limit: Duration,
    ) -> Result<(), PostgresError> {
        let end = Instant::now() + limit;
        self.stop(Stop::Fast, limit).await?;
        let launched = Launched {
            upstream,
            access,
            ..Launched::default()
        };
        let left = end.saturating_duration_since(Instant::now());
        let started = Box::pin(self.start_recovering(launched, left)).await;
        started.map(drop)
    }

    /// Whether clients find somebody here who lets nobody in.
    pub async fn turns_clients_away(&self) -> bool {
        let settings = self.inner.settings.lock().await;
        settings.access == Access::Closed && !settings.secluded
    }

    pub(crate) async fn is_secluded(&self) -> bool {
        self.inner.settings.lock().await.secluded
    }

    async fn start_recovering(
        &self,
        launched: Launched,
        limit: Duration,
    ) -> Result<Started, PostgresError> {
        let data_dir = self.options().data_dir.clone();
        let DataDir::Ready(control) = self.data_dir()? else {
            return Err(self.not_startable()?);
        };
        self.nothing_runs()?;
        files::remove_durably(&self.inner.paths.fresh)?;
        files::write_if_changed(&data_dir.join("standby.signal"), b"")?;
        let end = Instant::now() + limit;
        let mut floors = floors::named(control.floors);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let launched = Launched {
                floors: floors.clone(),
                ..launched.clone()
            };
            let started = self.start(launched, left).await;
            let Err(PostgresError::Ended { log }) = started else {
                return started;
            };
            // It may have replayed that its primary was given more, which it has written down before it gave up.
            let now = self.floors_now().await.unwrap_or_default();
            let risen = floors::exceeded(&now, |name| floors.get(name).copied());
            let Some(why) = risen.filter(|_| Instant::now() < end) else {
                return Err(PostgresError::Ended { log });
            };
            tracing::info!(why, "the standby has too little, starting it again");
            floors = now;
        }
    }

    /// Starts a directory as a standby that answers nobody until it is promoted; returns when it recovers.
    pub(crate) async fn start_closed(&self, limit: Duration) -> Result<(), PostgresError> {
        let end = Instant::now() + limit;
        self.nothing_runs()?;
        let data_dir = self.options().data_dir.clone();
        files::write_if_changed(&data_dir.join("standby.signal"), b"")?;
        let launched = Launched {
            answers: Answers::Nobody,
            ..Launched::default()
        };
        let guard = self.launch(launched).await?;
        loop {
            let status = guard.status();
            if has_ended(&guard) {
                self.wait_until_empty(Duration::from_secs(10)).await?;
                return Err(self.last_words());
            }
            let pid = status.postmaster.map(|pid| pid.as_raw_nonzero().get());
            let recovers = PidFile::read(&data_dir)
                .is_some_and(|file| file.is_recovering() && Some(file.pid) == pid);
            if recovers {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(PostgresError::Timeout {
                    doing: "starting for the promotion",
                    after: limit,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts the directory that `init` has just made as a primary. Any other is refused: it must be started as a
    /// standby and be promoted under a lease.
    pub async fn start_primary(&self, limit: Duration) -> Result<Started, PostgresError> {
        let DataDir::Ready(control) = self.data_dir()? else {
            return Err(self.not_startable()?);
        };
        let note = files::read_text(&self.inner.paths.fresh)?.unwrap_or_default();
        if note.trim() != control.system_id.to_string() || !control.state.is_clean() {
            let why = "only a directory that was just initialized may start as a primary";
            return Err(PostgresError::Refused(why.to_owned()));
        }
        self.nothing_runs()?;
        // Gone before it starts: a second start finds no note.
        files::remove_durably(&self.inner.paths.fresh)?;
        let data_dir = self.options().data_dir.clone();
        files::remove_durably(&data_dir.join("standby.signal"))?;
        let started = self.start(Launched::default(), limit).await?;
        self.mark_as_standby()?;
        Ok(started)
    }

    /// Whoever starts this directory next without us, by pg_ctl or at boot, gets a standby. Postgres looks at the
    /// file only when it starts.
    pub(crate) fn mark_as_standby(&self) -> Result<(), PostgresError> {
        files::write_if_changed(&self.options().data_dir.join("standby.signal"), b"").map(drop)
    }

    fn not_startable(&self) -> Result<PostgresError, PostgresError> {
        let why = match self.data_dir()? {
            DataDir::Absent => "it does not exist".to_owned(),
            DataDir::Empty => "it is empty".to_owned(),
            DataDir::Unfinished(work) => format!("its {work:?} was cut off").to_lowercase(),
            DataDir::Unusable { why } => why,
            DataDir::Ready(_) => "it has changed while it was looked at".to_owned(),
        };
        Ok(PostgresError::Unusable {
            data_dir: self.options().data_dir.clone(),
            why,
        })
    }

    /// Nor may another agent look after the directory.
    pub(crate) fn nothing_runs(&self) -> Result<(), PostgresError> {
        self.inner.hold.check(&self.options().data_dir)?;
        match self.liveness() {
            Liveness::Up { postmaster, .. } => Err(PostgresError::Running { pid: postmaster }),
            Liveness::Ending { left } => Err(PostgresError::Leftovers { left }),
            Liveness::Down => Ok(()),
        }
    }

    async fn start(&self, launched: Launched, limit: Duration) -> Result<Started, PostgresError> {
        let end = Instant::now() + limit;
        let guard = self.launch(launched).await?;
        let left = end.saturating_duration_since(Instant::now());
        self.wait_until_accepting(&guard, left).await
    }

    pub(crate) async fn launch(&self, launched: Launched) -> Result<Arc<Guard>, PostgresError> {
        let options = self.options();
        let paths = &self.inner.paths;
        let kept = launched.recovery.is_some();
        let stripped = match kept {
            true => Vec::new(),
            false => autoconf::strip(&options.data_dir)?,
        };
        for name in stripped {
            tracing::warn!(
                parameter = name,
                "ALTER SYSTEM had set a parameter that is ours; removed"
            );
        }
        datadir::mark(&options.data_dir)?;
        remove_strangers_pid_file(&options.data_dir)?;
        remove_our_socket_locks(&options.data_dir, options.port, &self.sockets())?;
        let fixed = {
            let mut settings = self.inner.settings.lock().await;
            let mut changed = settings.clone();
            changed.upstream = launched.upstream;
            changed.sealed = false;
            changed.access = launched.access;
            changed.floors = launched.floors;
            changed.recovers_alone = launched.answers == Answers::Nobody;
            changed.secluded = launched.secluded;
            changed.recovery = launched.recovery;
            // They are those of a leadership, which ends with every start.
            changed.standby_slots.clear();
            self.write_config(&changed)?;
            *settings = changed;
            config::fixed_parameters(&options, &self.sockets(), &settings)
        };
        self.forget_connections().await;
        self.inner.sync_defined.store(false, Ordering::SeqCst);
        files::remove(&paths.private_socket(options.port))?;
        let log_begins = logfile::rotate(&paths.log);
        self.inner.log_begins.store(log_begins, Ordering::SeqCst);
        self.inner.followed_at.store(log_begins, Ordering::SeqCst);
        let mut args: Vec<OsString> = vec!["-D".into(), options.data_dir.clone().into()];
        for (name, value) in fixed {
            args.extend(["-c".into(), format!("{name}={value}").into()]);
        }
        if launched.without_archive {
            args.extend(["-c".into(), "restore_command=".into()]);
        }
        let launch = Launch {
            guard_exe: options.guard_exe.clone(),
            guard_args: options.guard_args.clone(),
            state_dir: paths.guard.clone(),
            program: self.inner.binaries.program("postgres"),
            args,
            env: program::environment(),
            data_dir: options.data_dir.clone(),
            log_file: paths.log.clone(),
            cgroup: options.cgroup.clone(),
            watchdog: options.watchdog.clone(),
        };
        let spawned = tokio::task::spawn_blocking(move || launch.spawn()).await;
        let guard = match spawned {
            Ok(guard) => Arc::new(guard?),
            Err(e) => return Err(PostgresError::Refused(format!("start was cut off: {e}"))),
        };
        *self
            .inner
            .guard
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(guard.clone());
        Ok(guard)
    }

    async fn wait_until_accepting(
        &self,
        guard: &Guard,
        limit: Duration,
    ) -> Result<Started, PostgresError> {
        let end = Instant::now() + limit;
        let options = self.options();
        loop {
            let status = guard.status();
            if has_ended(guard) {
                self.wait_until_empty(Duration::from_secs(10)).await?;
                return Err(self.last_words());
            }
            let pid = status.postmaster.map(|pid| pid.as_raw_nonzero().get());
            let ready = PidFile::read(&options.data_dir)
                .is_some_and(|file| file.is_ready() && Some(file.pid) == pid);
            if ready && self.accepts(Duration::from_millis(500)).await {
                return Ok(Started::Accepting);
            }
            if Instant::now() >= end {
                return Ok(Started::Recovering);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether a query is answered.
    async fn accepts(&self, limit: Duration) -> bool {
        self.act(
            "look whether it accepts connections",
            "SELECT 1",
            &[],
            limit,
        )
        .await
        .is_ok()
    }

    /// Why an instance that we started has ended by itself, as its log and the storage tell it: the storage's fault,
    /// or `Ended` with the last lines. Writes to the disk: may take as long as that does.
    pub fn last_words(&self) -> PostgresError {
        let options = self.options();
        let log_begins = self.inner.log_begins.load(Ordering::SeqCst);
        let log = logfile::since(&self.inner.paths.log, log_begins, &options.data_dir);
        if let Some(error) = logfile::storage_error(&log) {
            return error;
        }
        if logfile::port_is_taken(&log) {
            return PostgresError::PortTaken { port: options.port };
        }
        // The log may be in any language, and a full disk may have swallowed it.
        match crate::health::write_once(&options.data_dir) {
            Err(error) if error.is_storage() => error,
            _ => PostgresError::Ended {
                log: logfile::last_lines(&log),
            },
        }
    }

    /// Stops the instance. Done when no process of it is left; nothing to do is no error.
    pub async fn stop(&self, how: Stop, limit: Duration) -> Result<(), PostgresError> {
        let options = self.options();
        if self.liveness() == Liveness::Down {
            return Ok(());
        }
        // Ours under its guard is ended without a look at a disk that may hang.
        if !self.is_guarded() {
            self.inner.hold.check(&options.data_dir)?;
        }
        match (how, self.guard()) {
            (Stop::Fast, _) => match self.signal_postmaster(Signal::INT) {
                Ok(()) | Err(PostgresError::NotRunning) => {}
                Err(e) => return Err(e),
            },
            (Stop::Immediate, Some(guard)) if self.is_guarded() => guard.fence(),
            (Stop::Immediate, _) => {
                let data_dir = options.data_dir.clone();
                let killed =
                    tokio::task::spawn_blocking(move || guard::kill_leftovers(&data_dir, limit));
                killed
                    .await
                    .map_err(|e| PostgresError::Refused(format!("stop was cut off: {e}")))??;
            }
        }
        self.wait_until_empty(limit).await?;
        self.forget_connections().await;
        Ok(())
    }

    fn is_guarded(&self) -> bool {
        self.guard()
            .is_some_and(|guard| !matches!(guard.status().phase, Phase::Empty | Phase::Lost))
    }

    /// Returns when no process of the instance is left.
    pub async fn wait_until_empty(&self, limit: Duration) -> Result<(), PostgresError> {
        process::poll(POLL, limit, || async {
            (self.liveness() == Liveness::Down).then_some(())
        })
        .await
        .ok_or(PostgresError::Timeout {
            doing: "stopping",
            after: limit,
        })
    }

    /// Connections to a postmaster that is gone are only in the way of the next.
    pub(crate) async fn forget_connections(&self) {
        self.inner.probe_link.close().await;
        self.inner.act_link.close().await;
        *self.inner.identifier.lock().await = None;
    }

    /// The directories for sockets: the user's, where we may write, and our private one.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let options = self.options();
        let ours = self.inner.paths.socket_dir.clone();
        let mut dirs: Vec<PathBuf> = match options.parameters.get("unix_socket_directories") {
            Some(wanted) => {
                let wanted = wanted
                    .split(',')
                    .map(str::trim)
                    .filter(|dir| !dir.is_empty());
                wanted.map(PathBuf::from).collect()
            }
            None => ["/var/run/postgresql", "/tmp"]
                .into_iter()
                .map(PathBuf::from)
                .find(|dir| is_writable(dir))
                .into_iter()
                .collect(),
        };
        dirs.retain(|dir| *dir != ours);
        dirs.push(ours);
        dirs
    }
}

/// A postmaster.pid whose number now belongs to something that is not Postgres would keep a server from starting.
fn remove_strangers_pid_file(data_dir: &Path) -> Result<(), PostgresError> {
    let Some(file) = PidFile::read(data_dir) else {
        return Ok(());
    };
    let alive = process::start_time(file.pid).is_some();
    if alive && process::living_postmaster(data_dir).is_none() {
        tracing::warn!(
            pid = file.pid,
            "postmaster.pid names a process that is not its; removed"
        );
        files::remove_durably(&data_dir.join("postmaster.pid"))?;
    }
    Ok(())
}

/// A socket's lock file that an earlier postmaster of this very directory left behind: nothing of it runs any more, but
/// its number may be a zombie's by now, or somebody else's, and PostgreSQL would refuse to start.
fn remove_our_socket_locks(
    data_dir: &Path,
    port: u16,
    dirs: &[PathBuf],
) -> Result<(), PostgresError> {
    for dir in dirs {
        let lock = dir.join(format!(".s.PGSQL.{port}.lock"));
        let text = files::read_text(&lock).ok().flatten().unwrap_or_default();
        if text.lines().nth(1).map(Path::new) == Some(data_dir) {
            tracing::debug!(lock = %lock.display(), "removed the lock of an earlier postmaster");
            files::remove(&lock)?;
        }
    }
    Ok(())
}

fn is_writable(dir: &Path) -> bool {
    rustix::fs::access(
        dir,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    )
    .is_ok()
}

pub(crate) fn has_ended(guard: &Guard) -> bool {
    !matches!(guard.status().phase, Phase::Starting | Phase::Running)
        || has_exited(guard.postmaster_pidfd())
}

/// A pidfd is readable once its process has ended.
fn has_exited(pidfd: Option<&OwnedFd>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let Some(fd) = pidfd else { return false };
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
    poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    )
    .is_ok_and(|ready| ready > 0)
}
