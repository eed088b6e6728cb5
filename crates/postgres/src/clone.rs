//! A base backup of another server into our data directory.
//!
//! **Invariant:** until the last byte is synced the marker says that the directory is not whole; a clone that is cut
//! off at any point, with the agent or without it, leaves no program running and nothing that would be started.

use crate::autoconf;
use crate::config;
use crate::datadir::{self, DataDir, Marker, Work};
use crate::error::PostgresError;
use crate::files;
use crate::instance::Instance;
use crate::options::{Replace, Upstream};
use crate::program::Program;
use crate::secret::Login;
use ha::SystemId;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

const ASK: Duration = Duration::from_secs(5);

/// What our tools call themselves. It is no node name, so that a base backup's WAL stream is never a synchronous
/// standby: with a slot it reports what it flushed, of a copy that may never be finished.
const TOOL: &str = "standfast tool";

/// What our tools' service is called.
const SERVICE: &str = "standfast";

/// How far a clone is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneProgress {
    pub done_bytes: u64,
    /// 0 until the upstream has told it.
    pub total_bytes: u64,
}

impl Instance {
    /// Clones `upstream`. What is in the directory is removed only if `replace` names it, or if an earlier clone or
    /// rewind of ours left it unfinished. Dropping the future ends the programs and leaves the directory `Unfinished`.
    pub async fn clone_from(
        &self,
        upstream: &Upstream,
        replace: Replace,
        progress: watch::Sender<CloneProgress>,
    ) -> Result<SystemId, PostgresError> {
        self.nothing_runs()?;
        let options = self.options();
        let paths = &self.inner.paths;
        let source = self.upstream_info(upstream, ASK).await?;
        self.same_major(upstream, source.version)?;
        let wal_dir = self.make_room(replace)?;
        self.write_tool_passfile(upstream, &options.replication)?;
        let program = self.basebackup(upstream, wal_dir);
        let marker = |program| Marker {
            work: Work::Clone,
            data_dir: options.data_dir.clone(),
            program: Some(program),
        };
        let mut noted = Ok(());
        let ended = program
            .run(
                |running| noted = marker(running).write(&paths.unfinished),
                |line| {
                    if let Some(seen) = parse_progress(line) {
                        progress.send_replace(seen);
                    }
                },
            )
            .await?;
        noted?;
        files::remove(&paths.tool_passfile)?;
        if !ended.status.success() {
            return Err(program.failed(&ended));
        }
        self.finish_foreign_data().await?;
        files::sync_parent(&options.data_dir)?;
        files::remove_durably(&paths.unfinished)?;
        match self.data_dir()? {
            DataDir::Ready(control) if control.system_id == source.system_id => {
                Ok(control.system_id)
            }
            DataDir::Ready(control) => Err(PostgresError::WrongSystem {
                what: "the clone".to_owned(),
                found: control.system_id.0,
                expected: source.system_id.0,
            }),
            other => {
                let answer = format!("{other:?}");
                Err(PostgresError::Answer {
                    doing: "look at the clone",
                    answer,
                })
            }
        }
    }

    pub(crate) fn same_major(
        &self,
        upstream: &Upstream,
        version: u32,
    ) -> Result<(), PostgresError> {
        let ours = self.inner.binaries.major;
        if version / 10_000 == ours {
            return Ok(());
        }
        let theirs = version / 10_000;
        let name = &upstream.name;
        Err(PostgresError::Refused(format!(
            "{name} runs PostgreSQL {theirs}, we have {ours}"
        )))
    }

    /// Sets the marker and empties the directory, if that may be. Returns where the WAL was, if it was elsewhere.
    pub(crate) fn make_room(&self, replace: Replace) -> Result<Option<PathBuf>, PostgresError> {
        let options = self.options();
        if matches!(self.data_dir()?, DataDir::Absent | DataDir::Empty) {
            self.begin(Work::Clone)?;
            return Ok(None);
        }
        self.may_replace(replace)?;
        self.begin(Work::Clone)?;
        let major = datadir::major(&options.data_dir).unwrap_or(self.inner.binaries.major);
        datadir::clear(&options.data_dir, major)
    }

    /// Whether what is in the directory may be replaced. A program of an earlier agent's that is still at it is ended.
    pub(crate) fn may_replace(&self, replace: Replace) -> Result<(), PostgresError> {
        let data_dir = self.options().data_dir.clone();
        match self.data_dir()? {
            DataDir::Absent | DataDir::Empty => Ok(()),
            DataDir::Unfinished(_) => self.end_earlier_work(),
            DataDir::Ready(control) => match replace {
                Replace::Cluster(named) if named == control.system_id => Ok(()),
                Replace::Cluster(named) => Err(PostgresError::WrongSystem {
                    what: data_dir.display().to_string(),
                    found: control.system_id.0,
                    expected: named.0,
                }),
                Replace::Refuse => {
                    let why = "there is a cluster in it and nobody said to replace it".to_owned();
                    Err(PostgresError::Unusable { data_dir, why })
                }
            },
            DataDir::Unusable { why } => Err(PostgresError::Unusable { data_dir, why }),
        }
    }

    fn basebackup(&self, upstream: &Upstream, wal_dir: Option<PathBuf>) -> Program {
        let options = self.options();
        let user = &options.replication.user;
        let mut program = Program::new(
            "pg_basebackup",
            self.inner.binaries.program("pg_basebackup"),
        )
        .arg("-D")
        .arg(&options.data_dir)
        .arg("-d")
        .arg(self.tool_conninfo(upstream, user, None))
        .args([
            "--no-password",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--progress",
        ])
        .args(&options.basebackup_args);
        if let Some(file) = self.tool_service(user) {
            program.env.push(("PGSERVICEFILE", file.into()));
        }
        if let Some(slot) = &upstream.slot {
            program = program.arg(format!("--slot={slot}"));
        }
        if let Some(dir) = wal_dir {
            program = program.arg("--waldir").arg(dir);
        }
        program
    }

    /// How a program of ours connects to an upstream.
    pub(crate) fn tool_conninfo(
        &self,
        upstream: &Upstream,
        user: &str,
        database: Option<&str>,
    ) -> String {
        let options = self.options();
        let passfile = self.inner.paths.tool_passfile.display().to_string();
        let mut text = config::upstream_conninfo(
            &options,
            upstream,
            user,
            &passfile,
            TOOL,
            self.tool_service(user).map(|_| SERVICE),
        );
        if let Some(database) = database {
            text.push(' ');
            text.push_str(&crate::quote::conninfo_pair("dbname", database));
        }
        text
    }

    /// The file by which a program of ours is told the passphrase of its key, if it has one: what stands in an argument
    /// everybody can read.
    pub(crate) fn tool_service(&self, user: &str) -> Option<PathBuf> {
        let options = self.options();
        config::told(&options, user)
            .contains_key(config::KEY_PASSPHRASE)
            .then(|| self.inner.paths.tool_service.clone())
    }

    pub(crate) fn write_tool_passfile(
        &self,
        upstream: &Upstream,
        login: &Login,
    ) -> Result<(), PostgresError> {
        let text = config::passfile_text(upstream, login);
        if let Some(path) = self.tool_service(&login.user) {
            let options = self.options();
            let told = config::told(&options, &login.user);
            let secret = told
                .get(config::KEY_PASSPHRASE)
                .cloned()
                .unwrap_or_default();
            let text = format!("[{SERVICE}]\n{}={secret}\n", config::KEY_PASSPHRASE);
            files::write_if_changed(&path, text.as_bytes())?;
        }
        files::write_if_changed(&self.inner.paths.tool_passfile, text.as_bytes()).map(drop)
    }

    /// After files of another server have come in: they are a standby's, and nothing of that server's settings that
    /// are ours is left in them.
    pub(crate) async fn finish_foreign_data(&self) -> Result<(), PostgresError> {
        let data_dir = self.options().data_dir.clone();
        files::write_if_changed(&data_dir.join("standby.signal"), b"")?;
        files::remove_durably(&data_dir.join("recovery.signal"))?;
        autoconf::strip(&data_dir)?;
        files::remove_durably(&self.inner.paths.fresh)?;
        let settings = self.inner.settings.lock().await;
        self.write_config(&settings).map(drop)
    }
}

/// `  24573/98304 kB (25%), 0/1 tablespace`
fn parse_progress(line: &str) -> Option<CloneProgress> {
    let (numbers, _) = line.split_once(" kB")?;
    let (done, total) = numbers.trim().split_once('/')?;
    let kib = |text: &str| {
        text.trim()
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(1024))
    };
    Some(CloneProgress {
        done_bytes: kib(done)?,
        total_bytes: kib(total)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read() {
        let seen = parse_progress("  24573/98304 kB (25%), 0/1 tablespace (…/base/1/2)").unwrap();
        assert_eq!(
            (seen.done_bytes, seen.total_bytes),
            (24_573 * 1024, 98_304 * 1024)
        );
        assert_eq!(parse_progress("waiting for checkpoint"), None);
    }
}
