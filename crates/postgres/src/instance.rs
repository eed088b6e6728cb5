//! The instance: what all its parts share.
//!
//! **Invariant:** one `Instance` a data directory; its settings on disk are those in memory.

use crate::autoconf;
use crate::binaries::Binaries;
use crate::config::{self, Paths, Settings};
use crate::control::Control;
use crate::datadir::{self, DataDir};
use crate::error::PostgresError;
use crate::files;
use crate::hba;
use crate::health::WriteProbe;
use crate::hold::Hold;
use crate::identify::Identifier;
use crate::options::{Access, Options, Shared, SyncNames, Upstream};
use crate::probe::Slow;
use crate::process;
use crate::shared::Own;
use crate::socket;
use crate::sql::{Address, Host, Kept, Link};
use crate::standby::START_ANEW;
use guard::Guard;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// The local PostgreSQL instance. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Instance {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    /// With the cluster's part of the configuration in them.
    options: RwLock<Arc<Options>>,
    /// What the node's own file says of what the cluster may say as well.
    pub(crate) own: RwLock<Own>,
    /// The cluster's part that was asked for last, and taken.
    pub(crate) asked: tokio::sync::Mutex<Option<Shared>>,
    pub(crate) paths: Paths,
    pub(crate) binaries: Binaries,
    os_user: String,
    /// Held while configuration is written, so that two changes never mix.
    pub(crate) settings: tokio::sync::Mutex<Settings>,
    pub(crate) guard: Mutex<Option<Arc<Guard>>>,
    /// For `probe` alone: nothing else may make it wait.
    pub(crate) probe_link: Kept,
    pub(crate) act_link: Kept,
    pub(crate) identifier: tokio::sync::Mutex<Option<Identifier>>,
    pub(crate) hold: Hold,
    pub(crate) write_probe: WriteProbe,
    pub(crate) slow: tokio::sync::Mutex<Option<Slow>>,
    /// Proven: commits wait for standbys, whichever. Changing the names then need not ask the checkpointer.
    pub(crate) sync_defined: AtomicBool,
    /// A promotion with less than the last primary had was begun and has not been seen to succeed.
    pub(crate) lowering_failed: AtomicBool,
    /// Whether somebody has looked what Postgres thinks of `pg_hba.conf`.
    pub(crate) hba_seen: AtomicBool,
    /// What was found of `pg_hba.conf` when it was looked at last.
    pub(crate) hba_refused: Mutex<Option<(String, String)>>,
    /// Where in our log the lines of the last start begin.
    pub(crate) log_begins: AtomicU64,
    /// And those since it was last told whom to follow.
    pub(crate) followed_at: AtomicU64,
    /// Held while slots are made or taken away.
    pub(crate) streams: tokio::sync::Mutex<()>,
    /// How often `end_streams` was called.
    pub(crate) streams_ended: AtomicU64,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = self.options();
        f.debug_struct("Instance")
            .field("node", &options.node)
            .field("data_dir", &options.data_dir)
            .finish_non_exhaustive()
    }
}

impl Instance {
    /// Finds the programs, makes our own directory, and takes up what an agent before us left: settings on disk and a
    /// guard that runs. Starts nothing, writes nothing into the data directory.
    pub fn open(options: Options) -> Result<Self, PostgresError> {
        options.check()?;
        if rustix::process::geteuid().is_root() {
            let what = "the user root";
            return Err(PostgresError::Option {
                what,
                why: "can't run PostgreSQL",
            });
        }
        let found = datadir::major(&options.data_dir);
        let binaries = Binaries::find(options.bin_dir.as_deref(), found)?;
        if let Some(major) = found.filter(|major| *major != binaries.major) {
            return Err(PostgresError::WrongMajor {
                data_dir: options.data_dir,
                data_major: major,
                bin_dir: binaries.dir,
                program_major: binaries.major,
            });
        }
        let paths = Paths::new(&options.state_dir);
        for dir in [&paths.state_dir, &paths.guard] {
            files::private_dir(dir)?;
        }
        socket::make_dir(&paths.socket_dir)?;
        let ignored = config::ignored(&options);
        if !ignored.is_empty() {
            tracing::warn!(parameters = ?ignored, "parameters that are ours to set are ignored");
        }
        let settings = Settings::load(&paths.settings)?;
        let guard = Guard::attach(&paths.guard)?.map(Arc::new);
        let own = Own::of(&options);
        let options = own.over(&settings.shared, &settings.refused, &options);
        let inner = Inner {
            os_user: os_user()?,
            options: RwLock::new(Arc::new(options)),
            own: RwLock::new(own),
            asked: tokio::sync::Mutex::new(None),
            paths,
            binaries,
            settings: tokio::sync::Mutex::new(settings),
            guard: Mutex::new(guard),
            probe_link: Kept::new(),
            act_link: Kept::new(),
            identifier: tokio::sync::Mutex::new(None),
            hold: Hold::default(),
            write_probe: WriteProbe::new(),
            slow: tokio::sync::Mutex::new(None),
            sync_defined: AtomicBool::new(false),
            lowering_failed: AtomicBool::new(false),
            hba_seen: AtomicBool::new(false),
            hba_refused: Mutex::default(),
            log_begins: AtomicU64::new(0),
            followed_at: AtomicU64::new(0),
            streams: tokio::sync::Mutex::new(()),
            streams_ended: AtomicU64::new(0),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Makes the data directory this process's alone, now or as soon as there is one. Who only looks need not.
    ///
    /// # Errors
    /// Another process has it.
    pub fn hold(&self) -> Result<(), PostgresError> {
        self.inner.hold.take(&self.options().data_dir)
    }

    pub fn options(&self) -> Arc<Options> {
        self.inner
            .options
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn binaries(&self) -> &Binaries {
        &self.inner.binaries
    }

    /// The guard that holds the instance: for `arm`, `disarm`, `fence` and `status`. After the end of an instance it
    /// is kept, for what it says of that end, until the next start.
    pub fn guard(&self) -> Option<Arc<Guard>> {
        self.inner
            .guard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What is in the data directory. Runs pg_controldata: some milliseconds.
    pub fn data_dir(&self) -> Result<DataDir, PostgresError> {
        let options = self.options();
        datadir::inspect(
            &options.data_dir,
            &self.inner.paths.unfinished,
            &self.inner.binaries,
        )
    }

    /// Why no new cluster may be made of the directory, unless a person says so: it is, or was, part of another one.
    pub fn may_found(&self, control: &Control) -> Result<(), String> {
        datadir::may_found(&self.options().data_dir, control)
    }

    /// Takes new parameters and lines of `pg_hba` and `pg_ident` from the node's own file, and reloads where the
    /// instance runs. Those that need a restart show in `Probe::pending_restart`. Parameters that PostgreSQL does not
    /// take are left out, with a warning.
    pub async fn configure(
        &self,
        parameters: BTreeMap<String, String>,
        pg_hba: Vec<String>,
        pg_ident: Vec<String>,
    ) -> Result<(), PostgresError> {
        let changed = Options {
            parameters,
            pg_hba,
            pg_ident,
            ..(*self.options()).clone()
        };
        changed.check()?;
        let own = Own::of(&changed);
        *self
            .inner
            .own
            .write()
            .unwrap_or_else(PoisonError::into_inner) = own;
        let shared = self.inner.asked.lock().await.take();
        // What failed with another configuration may work with this one.
        self.inner.lowering_failed.store(false, Ordering::SeqCst);
        let (kept, refused) = {
            let settings = self.inner.settings.lock().await;
            (settings.shared.clone(), settings.refused.clone())
        };
        self.set_options(&kept, &refused);
        self.share(&shared.unwrap_or(kept)).await?;
        self.change(|_| {}).await
    }

    pub(crate) fn replace_options(&self, options: Options) {
        *self
            .inner
            .options
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }

    /// Lets clients in, or nobody but ourselves. Sessions that are open stay open.
    pub async fn access(&self, access: Access) -> Result<(), PostgresError> {
        if access == Access::Open && self.is_secluded().await {
            return self.appear(None, access, START_ANEW).await;
        }
        self.change(|settings| settings.access = access).await
    }

    /// Ends every session but our own.
    pub async fn disconnect_clients(&self, limit: Duration) -> Result<(), PostgresError> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() \
             AND NOT (application_name = 'standfast' AND client_addr IS NULL)";
        self.act("end the clients' sessions", sql, &[], limit)
            .await
            .map(drop)
    }

    /// Whether others may stream from this instance. New connections only; those that are open stay open.
    ///
    /// A standby's WAL receiver comes back by itself, a tenth of a second after its upstream was restarted. Unless it
    /// is refused it takes WAL that its agent has not noted yet.
    pub async fn serve_streams(&self, serve: bool) -> Result<(), PostgresError> {
        if self.inner.settings.lock().await.streams_to_nobody != serve {
            return Ok(());
        }
        self.change(|settings| settings.streams_to_nobody = !serve)
            .await
    }

    /// What is configured now (which is not yet what every process of Postgres has read).
    pub async fn settings(&self) -> (Option<Upstream>, SyncNames, Access) {
        let settings = self.inner.settings.lock().await.clone();
        (settings.upstream, settings.sync, settings.access)
    }

    /// Changes the settings, writes every file that follows from them, and has a running instance read them.
    pub(crate) async fn change(
        &self,
        change: impl FnOnce(&mut Settings),
    ) -> Result<(), PostgresError> {
        let mut settings = self.inner.settings.lock().await;
        let mut changed = settings.clone();
        change(&mut changed);
        let new_rules = self.write_config(&changed)?;
        *settings = changed;
        if self.postmaster().is_some() {
            self.reset_overrides().await?;
            // Always: an agent before us may have written the files and not lived to say so.
            self.signal_reload()?;
            if new_rules {
                self.look_at_hba();
            }
        }
        Ok(())
    }

    /// Writes our files. Returns whether who may connect has changed.
    pub(crate) fn write_config(&self, settings: &Settings) -> Result<bool, PostgresError> {
        let options = self.options();
        let paths = &self.inner.paths;
        settings.save(&paths.settings)?;
        match &settings.upstream {
            Some(upstream) if !settings.sealed => {
                let text = config::passfile_text(upstream, &options.replication);
                files::write_if_changed(&paths.stream_passfile, text.as_bytes())?;
            }
            Some(_) | None => files::remove_durably(&paths.stream_passfile)?,
        }
        let hba = hba::hba_text(
            &options,
            settings.access,
            settings.streams_to_nobody,
            settings.failover_slots,
        )?;
        let ident = hba::ident_text(&options, &self.inner.os_user)?;
        let fixed = config::fixed_parameters(&options, &self.sockets(), settings);
        let config = config::config_text(&options, settings, &fixed, self.inner.binaries.major);
        let new_rules = files::write_if_changed(&paths.hba, hba.as_bytes())?;
        files::write_if_changed(&paths.ident, ident.as_bytes())?;
        files::write_if_changed(&paths.config, config.as_bytes())?;
        if let Some(path) = &options.pgpass
            && let Err(error) =
                files::write_if_changed(path, config::users_passfile(&options).as_bytes())
        {
            tracing::warn!(path = %path.display(), %error, "the pass file for programs was not written");
        }
        Ok(new_rules)
    }

    /// Takes back what somebody set of ours by ALTER SYSTEM, on a running instance.
    async fn reset_overrides(&self) -> Result<(), PostgresError> {
        let found = autoconf::overrides(&self.options().data_dir)?;
        for name in &found {
            tracing::warn!(
                parameter = name,
                "ALTER SYSTEM had set a parameter that is ours; taken back"
            );
            let sql = format!("ALTER SYSTEM RESET {name}");
            self.act("reset a parameter", &sql, &[], Duration::from_secs(2))
                .await?;
        }
        Ok(())
    }

    /// Puts our settings back in force where ALTER SYSTEM has overridden them (see `Probe::overridden`).
    pub async fn repair_overrides(&self) -> Result<(), PostgresError> {
        self.change(|_| {}).await
    }

    /// Runs a statement on the kept connection for actions.
    pub(crate) async fn act(
        &self,
        doing: &'static str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        limit: Duration,
    ) -> Result<Vec<Row>, PostgresError> {
        self.inner
            .act_link
            .rows(|| self.address(), doing, sql, params, limit)
            .await
    }

    /// A new connection.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<Link, PostgresError> {
        Link::open(&self.address()?, limit).await
    }

    /// Whether the server that runs has our configuration: its private socket is ours and really its own.
    pub(crate) fn is_started_by_us(&self) -> bool {
        let options = self.options();
        let mut lock = self
            .inner
            .paths
            .private_socket(options.port)
            .into_os_string();
        lock.push(".lock");
        let holder = std::fs::read_to_string(PathBuf::from(lock)).unwrap_or_default();
        let holder = holder
            .lines()
            .next()
            .and_then(|pid| pid.trim().parse::<i32>().ok());
        holder.is_some() && holder == process::PidFile::read(&options.data_dir).map(|file| file.pid)
    }

    /// Our private socket; for an instance that somebody else started, the socket that it says it has.
    pub(crate) fn address(&self) -> Result<Address, PostgresError> {
        let options = self.options();
        let (host, port) = if self.is_started_by_us() {
            (
                Host::Socket(self.inner.paths.socket_dir.clone()),
                options.port,
            )
        } else {
            let file = process::PidFile::read(&options.data_dir)
                .filter(process::PidFile::has_sockets)
                .ok_or(PostgresError::NotRunning)?;
            // There, peer authentication lets in none but the superuser's namesake.
            let by_password = self.inner.os_user != options.superuser.user
                && !options.superuser.password.expose().is_empty();
            if file.socket_dir.is_empty() || by_password {
                (Host::Tcp(file.local_host().to_owned()), file.port)
            } else {
                (Host::Socket(PathBuf::from(file.socket_dir)), file.port)
            }
        };
        Ok(Address {
            host,
            port,
            login: options.superuser.clone(),
            database: options.database.clone(),
            quiet: true,
            tls: None,
        })
    }
}

/// The name that peer authentication will see.
fn os_user() -> Result<String, PostgresError> {
    let output = std::process::Command::new("id")
        .arg("-un")
        .output()
        .map_err(|source| PostgresError::Spawn {
            program: PathBuf::from("id"),
            source,
        })?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !name.is_empty() && !name.contains(['"', '\n']) {
        return Ok(name);
    }
    Err(PostgresError::Answer {
        doing: "find out the name of our user",
        answer: name,
    })
}
