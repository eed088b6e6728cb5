//! Bringing a diverged directory back to another server's history with pg_rewind.
//!
//! **Invariant:** pg_rewind's "no rewind required" is not believed where the histories say otherwise, the marker is
//! there while it writes, and what it discards is copied aside before.

use crate::datadir::{DataDir, Marker, Work};
use crate::discarded::{self, Discarded};
use crate::error::PostgresError;
use crate::files;
use crate::instance::Instance;
use crate::options::Upstream;
use crate::process::poll;
use crate::program::{Ended, Program};
use crate::sql::Link;
use crate::timeline::{History, history_file};
use crate::upstream::{self, UpstreamInfo};
use ha::{Lsn, Timeline};
use std::time::{Duration, Instant};

const ASK: Duration = Duration::from_secs(5);
/// How long the source may take for the checkpoint that makes its new timeline known to pg_rewind.
const CHECKPOINT: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewound {
    /// It is at the source's history again and can stream.
    Done(RewindReport),
    /// Nothing in the directory is behind the point where the histories part.
    NotNeeded,
    /// Only a new clone helps.
    NeedsClone { why: String },
}

/// A rewind that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewindReport {
    /// Where the histories part, and on which timeline.
    pub fork: Lsn,
    pub fork_timeline: Timeline,
    pub discarded: Discarded,
    pub took: Duration,
}

impl Instance {
    /// Rewinds the stopped instance to the history of `upstream`, a primary. It must have been stopped cleanly (start
    /// it parked and stop it, after a crash). Timelines are compared by number: that no number stands for two histories
    /// is the caller's to know.
    pub async fn rewind_from(&self, upstream: &Upstream) -> Result<Rewound, PostgresError> {
        let began = Instant::now();
        self.nothing_runs()?;
        let options = self.options();
        let control = match self.data_dir()? {
            DataDir::Ready(control) => control,
            DataDir::Unfinished(_) => return Ok(needs_clone("work on the directory was cut off")),
            other => {
                return Err(PostgresError::Refused(format!(
                    "nothing to rewind: {other:?}"
                )));
            }
        };
        if !control.state.is_clean() {
            let why = "the instance must be stopped cleanly before a rewind".to_owned();
            return Err(PostgresError::Refused(why));
        }
        let link = self.connect_upstream(upstream, ASK).await?;
        let source = upstream::info(&link, upstream.timeline, ASK).await?;
        let source = checkpointed(&link, upstream, source).await?;
        drop(link);
        self.same_major(upstream, source.version)?;
        if source.system_id != control.system_id {
            return Err(PostgresError::WrongSystem {
                what: upstream.name.to_string(),
                found: source.system_id.0,
                expected: control.system_id.0,
            });
        }
        let (timeline, end) = control.end();
        let Some(local) = self.timeline_history(timeline)? else {
            return Ok(needs_clone("our own timeline history is missing"));
        };
        let (fork_timeline, fork) = match local.fork(&source.history) {
            None => return Ok(needs_clone("the timeline histories have nothing in common")),
            Some((_, None)) => return Ok(Rewound::NotNeeded),
            Some((at, Some(_))) if timeline == at && source.timeline == at => {
                return Ok(Rewound::NotNeeded);
            }
            Some((at, Some(fork))) => (at, fork),
        };
        // The end of recovery is the first byte that is not there; a checkpoint is where its own record begins.
        let behind = if control.min_recovery_end > control.checkpoint {
            end <= fork
        } else {
            end < fork
        };
        if timeline == fork_timeline && behind {
            return Ok(Rewound::NotNeeded);
        }
        if !control.can_rewind() {
            return Ok(needs_clone(
                "the cluster has neither checksums nor wal_log_hints",
            ));
        }
        let waldump = self.inner.binaries.program("pg_waldump");
        let mut discarded =
            discarded::summarize(waldump, &options.data_dir, &local, fork_timeline, fork).await?;
        let keep_in = &self.inner.paths.discarded;
        let size = control.wal_segment_size;
        discarded::save(
            &mut discarded,
            &options.data_dir,
            keep_in,
            fork_timeline,
            size,
        )?;
        if let Some(why) = self.run_pg_rewind(upstream).await? {
            return Ok(Rewound::NeedsClone { why });
        }
        let took = began.elapsed();
        Ok(Rewound::Done(RewindReport {
            fork,
            fork_timeline,
            discarded,
            took,
        }))
    }

    /// Runs pg_rewind under the marker. `Some`: it can't be rewound, and why.
    async fn run_pg_rewind(&self, upstream: &Upstream) -> Result<Option<String>, PostgresError> {
        let options = self.options();
        let paths = &self.inner.paths;
        self.write_tool_passfile(upstream, &options.rewind)?;
        let source = self.tool_conninfo(upstream, &options.rewind.user, Some(&options.database));
        let mut program = Program::new("pg_rewind", self.inner.binaries.program("pg_rewind"))
            .arg("--target-pgdata")
            .arg(&options.data_dir)
            .arg("--source-server")
            .arg(source)
            .arg("--no-ensure-shutdown");
        if let Some(file) = self.tool_service(&options.rewind.user) {
            program.env.push(("PGSERVICEFILE", file.into()));
        }
        let restores = options
            .parameters
            .get("restore_command")
            .is_some_and(|c| !c.is_empty());
        if restores && self.inner.binaries.major >= 15 {
            program = program
                .arg("--restore-target-wal")
                .arg("--config-file")
                .arg(&paths.config);
        }
        self.begin(Work::Rewind)?;
        let data_dir = options.data_dir.clone();
        let mut noted = Ok(());
        let note = |program| Marker {
            work: Work::Rewind,
            data_dir,
            program: Some(program),
        };
        let ended = program
            .run(
                |running| noted = note(running).write(&paths.unfinished),
                |_| {},
            )
            .await?;
        noted?;
        files::remove(&paths.tool_passfile)?;
        let said = format!("{}{}", ended.stdout, ended.stderr);
        // It writes nothing before it has said from where it rewinds.
        let untouched = !said.contains("rewinding from last common checkpoint");
        if !ended.status.success() {
            return self.rewind_failed(&program, &ended, untouched, &said);
        }
        if untouched {
            files::remove_durably(&paths.unfinished)?;
            let why = "pg_rewind sees no divergence where the timeline histories show one";
            return Ok(Some(why.to_owned()));
        }
        self.finish_foreign_data().await?;
        files::remove_durably(&paths.unfinished)?;
        Ok(None)
    }

    fn rewind_failed(
        &self,
        program: &Program,
        ended: &Ended,
        untouched: bool,
        said: &str,
    ) -> Result<Option<String>, PostgresError> {
        let last = said
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default();
        if !untouched {
            // The marker stays: only a clone mends this.
            return Ok(Some(format!("pg_rewind was cut off: {last}")));
        }
        files::remove_durably(&self.inner.paths.unfinished)?;
        if said.contains("connection to server") || said.contains("could not connect") {
            return Err(program.failed(ended));
        }
        Ok(Some(format!("pg_rewind: {last}")))
    }

    /// The history of a timeline as our own directory has it.
    pub fn timeline_history(&self, timeline: Timeline) -> Result<Option<History>, PostgresError> {
        if timeline.0 <= 1 {
            return Ok(Some(History::first()));
        }
        let path = self
            .options()
            .data_dir
            .join("pg_wal")
            .join(history_file(timeline));
        Ok(files::read_text(&path)?.and_then(|text| History::parse(timeline, &text)))
    }
}

fn needs_clone(why: &str) -> Rewound {
    Rewound::NeedsClone {
        why: why.to_owned(),
    }
}

/// Until its first checkpoint after a promotion a source shows pg_rewind its old timeline: have it write one.
async fn checkpointed(
    link: &Link,
    upstream: &Upstream,
    info: UpstreamInfo,
) -> Result<UpstreamInfo, PostgresError> {
    if info.in_recovery {
        // A standby leader stays one. From 14 on pg_rewind takes it for a source, as far as its control file goes.
        return match upstream.timeline {
            Some(_) if info.version >= 140_000 => Ok(info),
            Some(_) | None => Err(PostgresError::SourceInRecovery),
        };
    }
    if info.checkpoint_timeline == info.timeline {
        return Ok(info);
    }
    // Before PostgreSQL 15 the right to it can't be granted: then the source's own agent does it.
    if let Err(error) = link
        .batch("checkpoint the source", "CHECKPOINT", CHECKPOINT)
        .await
    {
        tracing::debug!(error = %error, "waiting for the source's own checkpoint");
    }
    let look = || async {
        let now = upstream::info(link, None, ASK).await.ok()?;
        (now.checkpoint_timeline == now.timeline).then_some(now)
    };
    let doing = "waiting for the source's checkpoint";
    poll(Duration::from_millis(50), CHECKPOINT, look)
        .await
        .ok_or(PostgresError::Timeout {
            doing,
            after: CHECKPOINT,
        })
}
