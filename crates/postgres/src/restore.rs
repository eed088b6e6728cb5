//! A new cluster from what a program of the user's brings: a restored backup, recovered to its end or to a point.
//!
//! The program runs first. What it has brought is then recovered by a server that answers nobody before it is a
//! primary, and is stopped in order. What is left is a directory like any other that a cluster is founded on.
//!
//! **Invariant:** the marker of unfinished work stays until the recovered server was stopped in order: whatever fails
//! or is cut off founds nothing, and is begun anew with an empty directory.

use crate::config::Settings;
use crate::datadir::{self, DataDir, Marker, Work};
use crate::error::PostgresError;
use crate::files;
use crate::instance::Instance;
use crate::options::{Access, Recovery, SyncNames};
use crate::program::Program;
use crate::server::{Answers, Launched, Stop};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ASK: Duration = Duration::from_millis(500);
/// A recovery may take hours; nothing waits for the very moment of its end.
const LOOK: Duration = Duration::from_millis(50);

impl Instance {
    /// Whether a new cluster begins with a directory that a program brings.
    pub fn restores(&self) -> bool {
        self.options().restore.is_some()
    }

    /// Runs the program, and recovers what it has brought until it is a primary that lets nobody in. `started` is
    /// called when the server was started. The directory counts as unfinished until `keep_restored`.
    pub async fn restore(&self, started: impl FnOnce()) -> Result<(), PostgresError> {
        let options = self.options();
        let Some(restore) = &options.restore else {
            return Err(PostgresError::Refused("nothing is to be restored".into()));
        };
        self.make_room_for_new()?;
        tracing::info!(method = restore.name, "restoring the first data directory");
        self.run_method("bootstrap.method", &restore.command, &[])
            .await?;
        let data_dir = &options.data_dir;
        let mode = std::fs::Permissions::from_mode(0o700);
        // What is not there is said below.
        let _ = std::fs::set_permissions(data_dir, mode);
        let found = datadir::look(data_dir, &self.inner.binaries)?;
        let DataDir::Ready(_) = found else {
            let why = match found {
                DataDir::Unusable { why } => why,
                _ => "it is empty".to_owned(),
            };
            let data_dir = data_dir.clone();
            let why = format!("bootstrap.method has brought nothing to start with: {why}");
            return Err(PostgresError::Unusable { data_dir, why });
        };
        self.recover(&restore.recovery, started).await
    }

    /// Runs a program of the user's that writes into the data directory, under the marker that stands already.
    pub(crate) async fn run_method(
        &self,
        name: &'static str,
        command: &[String],
        more: &[String],
    ) -> Result<(), PostgresError> {
        let [path, arguments @ ..] = command else {
            return Err(PostgresError::Refused(format!("{name} names no program")));
        };
        let paths = &self.inner.paths;
        let mut marker = Marker::read(&paths.unfinished, &self.options().data_dir)?;
        let program = Program::new(name, PathBuf::from(path))
            .args(arguments)
            .args(more)
            .env("PGPASSFILE", &paths.tool_passfile);
        let mut noted = Ok(());
        let ended = program
            .run(
                |running| {
                    if let Some(marker) = &mut marker {
                        marker.program = Some(running);
                        noted = marker.write(&paths.unfinished);
                    }
                },
                |line| tracing::debug!(name, line, "said"),
            )
            .await?;
        noted?;
        match ended.status.success() {
            true => Ok(()),
            false => Err(program.failed(&ended)),
        }
    }

    async fn recover(
        &self,
        recovery: &Recovery,
        started: impl FnOnce(),
    ) -> Result<(), PostgresError> {
        let data_dir = self.options().data_dir.clone();
        self.nothing_runs()?;
        // A copy of a server that ran has its process number in it.
        files::remove_durably(&data_dir.join("postmaster.pid"))?;
        let signals = ["standby.signal", "recovery.signal"].map(|name| data_dir.join(name));
        let had = signals.iter().any(|signal| signal.exists());
        for signal in &signals {
            files::remove_durably(signal)?;
        }
        let asked = match recovery {
            Recovery::Given(asked) => Some(asked.clone()),
            Recovery::Kept => had.then(BTreeMap::new),
            Recovery::None => None,
        };
        if asked.is_some() {
            // Never as a standby: that would wait for more at the end.
            files::write_if_changed(&signals[1], b"")?;
        }
        {
            let mut settings = self.inner.settings.lock().await;
            *settings = Settings {
                access: Access::Closed,
                sync: SyncNames::none(),
                shared: settings.shared.clone(),
                refused: settings.refused.clone(),
                ..Settings::default()
            };
        }
        let guard = self
            .launch(Launched {
                answers: Answers::Nobody,
                recovery: Some(asked.unwrap_or_default()),
                ..Launched::default()
            })
            .await?;
        started();
        loop {
            if crate::server::has_ended(&guard) {
                self.wait_until_empty(Duration::from_secs(10)).await?;
                return Err(self.last_words());
            }
            let doing = "look whether it has recovered";
            let rows = self.act(doing, "SELECT pg_is_in_recovery()", &[], ASK);
            let recovered = rows.await.ok().and_then(|rows| {
                let row = rows.into_iter().next()?;
                row.try_get::<_, bool>(0)
                    .ok()
                    .map(|in_recovery| !in_recovery)
            });
            if recovered == Some(true) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops what was restored, in order. From here on the directory is a whole one that has no cluster yet.
    pub async fn keep_restored(&self, limit: Duration) -> Result<(), PostgresError> {
        self.stop(Stop::Fast, limit).await?;
        let data_dir = self.options().data_dir.clone();
        // Its origin may have been a cluster of ours; it begins a new one.
        datadir::unmark(&data_dir)?;
        self.mark_as_standby()?;
        files::remove_durably(&self.inner.paths.fresh)?;
        files::remove_durably(&self.inner.paths.unfinished).map(drop)
    }

    /// Empties the directory where that may be done, and sets the marker.
    pub(crate) fn make_room_for_new(&self) -> Result<(), PostgresError> {
        let data_dir = self.options().data_dir.clone();
        let unusable = |why: &str| PostgresError::Unusable {
            data_dir: data_dir.clone(),
            why: why.to_owned(),
        };
        match self.data_dir()? {
            DataDir::Absent | DataDir::Empty => {}
            DataDir::Unfinished(Work::Init | Work::Clone) => {
                self.end_earlier_work()?;
                datadir::clear(&data_dir, self.inner.binaries.major)?;
            }
            DataDir::Unfinished(Work::Rewind) => {
                return Err(unusable(
                    "a rewind was cut off: clone it again, it may hold data",
                ));
            }
            DataDir::Ready(_) => return Err(unusable("there is a cluster already")),
            DataDir::Unusable { why } => return Err(unusable(&why)),
        }
        self.nothing_runs()?;
        self.begin(Work::Init)
    }
}

/// The lines for a server that recovers what was restored.
pub(crate) fn recovery_lines(asked: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let mut lines: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in asked {
        lines.insert(name, value);
    }
    // Anything else would end it, or wait for a person, at the point that was asked for.
    lines.insert("recovery_target_action", "promote");
    lines
}

impl Program {
    /// One more variable of the environment.
    fn env(mut self, name: &'static str, value: &Path) -> Self {
        self.env.push((name, value.into()));
        self
    }
}
