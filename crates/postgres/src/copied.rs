//! A copy that a program of the user's makes, `create_replica_methods`, taken only as far as it can be vouched for.
//!
//! Its data files must be a backup's, or of a server that was stopped in order; whose they are the caller compares by
//! the lineage that lies among them. Its WAL is nobody's word: it is thrown away, and all of it streamed from the
//! leader again, under a name that no commit waits for, until PostgreSQL finds the copy consistent.
//!
//! **Invariant:** the marker of unfinished work stays until then: a copy that is cut off, or never becomes consistent,
//! is no standby.

use crate::control::Control;
use crate::datadir::{self, DataDir, Work};
use crate::error::PostgresError;
use crate::files;
use crate::floors;
use crate::instance::Instance;
use crate::options::{CopyMethod, Replace, Upstream};
use crate::server::{Launched, Stop};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

const ASK: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);
/// Replaying what a backup lacks may take long; one that was made of another history never ends.
const CONSISTENT_WITHIN: Duration = Duration::from_secs(3600);
/// So long it may be unable to stream.
const STREAMS_WITHIN: Duration = Duration::from_secs(20);

impl Instance {
    /// Runs the program. What it has brought stays unfinished until `prove_copy`.
    pub async fn copy_by(
        &self,
        method: &CopyMethod,
        upstream: &Upstream,
        replace: Replace,
    ) -> Result<Control, PostgresError> {
        self.nothing_runs()?;
        let options = self.options();
        let source = self.upstream_info(upstream, ASK).await?;
        self.same_major(upstream, source.version)?;
        match method.keep_data {
            true => self.may_replace(replace)?,
            false => drop(self.make_room(replace)?),
        }
        self.begin(Work::Clone)?;
        self.write_tool_passfile(upstream, &options.replication)?;
        let more = match method.no_params {
            true => Vec::new(),
            false => {
                let (user, host, port) = (&options.replication.user, &upstream.host, upstream.port);
                let uri = format!("postgres://{}@{host}:{port}/postgres", quoted(user));
                vec![format!("--connstring={uri}")]
            }
        };
        let name = "create_replica_methods";
        let ran = self.run_method(name, &method.command, &more).await;
        files::remove(&self.inner.paths.tool_passfile)?;
        ran?;
        let data_dir = &options.data_dir;
        // What is not there is said below.
        let _ = std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700));
        let refused = |why: String| PostgresError::Unusable {
            data_dir: data_dir.clone(),
            why: format!("{} has brought no copy: {why}", method.name),
        };
        let control = match datadir::look(data_dir, &self.inner.binaries)? {
            DataDir::Ready(control) => control,
            DataDir::Unusable { why } => return Err(refused(why)),
            _ => return Err(refused("there is nothing".to_owned())),
        };
        if control.system_id != source.system_id {
            return Err(PostgresError::WrongSystem {
                what: "the copy".to_owned(),
                found: control.system_id.0,
                expected: source.system_id.0,
            });
        }
        if !control.state.is_clean() && !data_dir.join("backup_label").is_file() {
            let why = "a server ran in it while it was copied, and it is no backup";
            return Err(refused(why.to_owned()));
        }
        Ok(control)
    }

    /// Streams what the copy lacks from `upstream` until it is consistent, and stops it. From here on it is a standby's
    /// directory like any other.
    pub async fn prove_copy(
        &self,
        control: &Control,
        upstream: &Upstream,
    ) -> Result<(), PostgresError> {
        let data_dir = self.options().data_dir.clone();
        files::remove_durably(&data_dir.join("postmaster.pid"))?;
        self.finish_foreign_data().await?;
        forget_wal(&data_dir)?;
        let unnamed = Upstream {
            slot: None,
            ..upstream.clone()
        };
        let launched = Launched {
            upstream: Some(unnamed),
            floors: floors::named(control.floors.clone()),
            without_archive: true,
            ..Launched::default()
        };
        let guard = self.launch(launched).await?;
        let proven = self.becomes_consistent(&guard).await;
        match proven {
            Ok(()) => self.stop(Stop::Fast, CONSISTENT_WITHIN).await?,
            Err(error) => {
                self.stop(Stop::Immediate, ASK * 2).await?;
                return Err(error);
            }
        }
        files::sync_parent(&data_dir)?;
        files::remove_durably(&self.inner.paths.unfinished).map(drop)
    }

    async fn becomes_consistent(&self, guard: &guard::Guard) -> Result<(), PostgresError> {
        let began = Instant::now();
        let mut stuck: Option<Instant> = None;
        loop {
            if crate::server::has_ended(guard) {
                self.wait_until_empty(ASK * 2).await?;
                return Err(self.last_words());
            }
            let look = self.act("look at the copy", "SELECT 1", &[], ASK).await;
            if self.is_ready() && look.is_ok() {
                return Ok(());
            }
            let failure = self.stream_failure().filter(|it| it.trouble.is_some());
            stuck = failure
                .as_ref()
                .and_then(|_| stuck.or_else(|| Some(Instant::now())));
            let hopeless = stuck.is_some_and(|since| since.elapsed() > STREAMS_WITHIN);
            if let (true, Some(failure)) = (hopeless, failure) {
                let why = format!("the copy can't be completed: {}", failure.says);
                return Err(PostgresError::Refused(why));
            }
            if began.elapsed() > CONSISTENT_WITHIN {
                return Err(PostgresError::Timeout {
                    doing: "waiting for the copy to be consistent",
                    after: CONSISTENT_WITHIN,
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Everything in `pg_wal` but directories: whoever wrote it, the leader has what is needed of it.
fn forget_wal(data_dir: &Path) -> Result<(), PostgresError> {
    let wal = data_dir.join("pg_wal");
    let entries = std::fs::read_dir(&wal).map_err(|e| PostgresError::file("read", &wal, e))?;
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            files::remove(&entry.path())?;
        }
    }
    files::sync_dir(&wal)
}

/// As it stands in a URI.
fn quoted(name: &str) -> String {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b'~');
    name.bytes()
        .map(|c| match plain(c) {
            true => char::from(c).to_string(),
            false => format!("%{c:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_quoted_for_a_uri() {
        assert_eq!(quoted("rep user@1"), "rep%20user%401");
    }
}
