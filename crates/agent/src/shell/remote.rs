//! The standby leader's way to the remote: compared first, then followed, rewound to, or copied.
//!
//! **Invariant:** no WAL of the remote is taken before the end of what is here was found to be the remote's, byte by byte,
//! and the note names the remote's timeline; a timeline that the note does not name begins a new epoch of this leader.
//! It does not know why the remote is followed, nor what the members do.

use super::slots::{Giving, permanent, slots};
use super::{Basis, QUICK, Report, Shell, ShellError};
use ha::{Epoch, Lineage, Lsn, NodeName, Remote, Timeline};
use postgres::{Compared, Copying, DataDir, PostgresError, Replace, Stop, Upstream, UpstreamInfo};
use std::collections::BTreeSet;
use std::time::Duration;
use store::layout::ConfigRecord;

/// A host of several that does not answer costs this much.
const ASK: Duration = Duration::from_secs(2);

/// PostgreSQL's own.
const PORT: u16 = 5432;

impl Shell {
    pub(super) async fn follow_remote(
        &self,
        epoch: Epoch,
        remote: &Remote,
        basis: &Basis,
    ) -> Result<Report, ShellError> {
        self.end_ordered_promotion().await?;
        if self.epoch_in_office()? != epoch || basis.cluster.current_epoch() != epoch {
            return Err(ShellError::Refused);
        }
        let Some((upstream, info)) = self.remote(remote).await? else {
            return self.follow_archive(epoch, remote, basis).await;
        };
        if basis.cluster.initialize != ha::Initialize::Done(info.system_id) {
            return Err(PostgresError::Refused(format!(
                "{} is of another cluster, its system identifier is {}",
                remote.place(),
                info.system_id
            ))
            .into());
        }
        let usable = matches!(self.data_dir().await?, DataDir::Ready(_)) && !self.rewound.is_set();
        if !usable {
            return self.copy_remote(epoch, remote, upstream, basis).await;
        }
        let probe = self.instance.probe(QUICK).await?;
        let end = probe.replayed.unwrap_or_default();
        if info.in_recovery && info.timeline == probe.timeline && info.position < end {
            let why = format!(
                "{} is a standby, and has less WAL than this node",
                remote.place()
            );
            return Err(PostgresError::Refused(why).into());
        }
        let compared = self.instance.compare_wal(&upstream, QUICK).await?;
        tracing::info!(remote = remote.place(), "{compared}");
        let same = match &compared {
            Compared::Same { end } => *end,
            Compared::Parted { .. } => {
                return self.rewind_remote(epoch, remote, upstream, basis).await;
            }
            Compared::Unknown { .. } => {
                self.copy_remote(epoch, remote, upstream, basis).await?;
                let detail = Some(compared.to_string());
                return Ok(Report {
                    detail,
                    ..Report::default()
                });
            }
        };
        let lineage = traced(self.note.read().as_ref(), same, &info, epoch.next());
        let epoch = self.lead_on(epoch, &lineage, basis).await?;
        self.note.write(&lineage)?;
        self.streams.may_come();
        self.instance.follow(upstream).await?;
        // The archive fills what the stream lacks: it may come and go.
        if remote.restore_command.is_none() && !self.instance.seal_stream(QUICK).await? {
            tracing::debug!("the remote's stream has not come about yet");
        }
        self.serve_members(epoch, basis).await?;
        Ok(Report::default())
    }

    /// Nothing can be asked: what the archive brings is taken for one history, and read from the files that came of it.
    async fn follow_archive(
        &self,
        epoch: Epoch,
        remote: &Remote,
        basis: &Basis,
    ) -> Result<Report, ShellError> {
        let probe = self.instance.probe(QUICK).await?;
        let history = self.instance.timeline_history(probe.timeline)?;
        let switches = history.map(|history| history.switches).unwrap_or_default();
        let ended: Vec<(Timeline, Lsn)> = switches.iter().map(|it| (it.timeline, it.end)).collect();
        let end = probe.replayed.unwrap_or_default();
        let note = self.note.read();
        let lineage = Lineage::traced(note.as_ref(), end, probe.timeline, &ended, epoch.next());
        let epoch = self.lead_on(epoch, &lineage, basis).await?;
        self.note.write(&lineage)?;
        self.streams.may_come();
        self.instance
            .follow(upstream(remote, String::new(), PORT)?)
            .await?;
        self.serve_members(epoch, basis).await?;
        Ok(Report::default())
    }

    async fn rewind_remote(
        &self,
        epoch: Epoch,
        remote: &Remote,
        upstream: Upstream,
        basis: &Basis,
    ) -> Result<Report, ShellError> {
        self.instance.stop(Stop::Fast, self.stops_within()).await?;
        let old = self.note.forget()?;
        self.rewound.begin()?;
        let report = match self.instance.rewind_from(&upstream).await {
            Ok(postgres::Rewound::Done(report)) => report,
            Ok(postgres::Rewound::NotNeeded) => {
                return self.copy_remote(epoch, remote, upstream, basis).await;
            }
            Ok(postgres::Rewound::NeedsClone { why }) => {
                tracing::info!(why, "a rewind is not possible");
                return self.copy_remote(epoch, remote, upstream, basis).await;
            }
            Err(error) => {
                // Not touched yet: what it was is still what it is.
                if let (Some(old), Ok(DataDir::Ready(_))) = (old, self.data_dir().await) {
                    self.rewound.end()?;
                    self.note.write(&old)?;
                }
                return Err(error.into());
            }
        };
        let detail = super::copying::summary(&report);
        tracing::warn!(detail, "WAL that the remote does not have was discarded");
        let info = self.instance.upstream_info(&upstream, QUICK).await?;
        let lineage = traced(old.as_ref(), report.fork, &info, epoch.next());
        self.set_out(epoch, &lineage, upstream, basis).await?;
        Ok(Report {
            detail: Some(detail),
            ..Report::default()
        })
    }

    async fn copy_remote(
        &self,
        epoch: Epoch,
        remote: &Remote,
        upstream: Upstream,
        basis: &Basis,
    ) -> Result<Report, ShellError> {
        let ha::Initialize::Done(system) = basis.cluster.initialize else {
            return Err(ShellError::NotNow(
                "the cluster is not initialized".to_owned(),
            ));
        };
        self.instance.stop(Stop::Fast, self.stops_within()).await?;
        self.note.forget()?;
        let timeline = self
            .copy(remote, &upstream, Replace::Cluster(system))
            .await?;
        self.rewound.end()?;
        let lineage = Lineage::founded(timeline, epoch.next());
        self.set_out(epoch, &lineage, upstream, basis).await?;
        Ok(Report::default())
    }

    /// The first directory of a standby cluster.
    pub(super) async fn found_standby(
        &self,
        epoch: Epoch,
        remote: &Remote,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        self.note.forget()?;
        let Some((upstream, info)) = self.remote(remote).await? else {
            let why = "standby_cluster names no host to copy from: name one, or put a copy into the data directory";
            return Err(PostgresError::Refused(why.to_owned()).into());
        };
        let timeline = self.copy(remote, &upstream, Replace::Refuse).await?;
        let lineage = Lineage::founded(timeline, epoch);
        self.note.write(&lineage)?;
        tracing::info!(
            remote = remote.place(),
            "a standby cluster begins with a copy of the remote"
        );
        self.inaugurate(info.system_id, epoch, &lineage, basis, &self.bootstrap)
            .await
    }

    /// Copies the remote by the first way that works; returns the timeline of the copy.
    async fn copy(
        &self,
        remote: &Remote,
        upstream: &Upstream,
        replace: Replace,
    ) -> Result<Timeline, ShellError> {
        // A slot is for the stream; it may not be there yet.
        let source = Upstream {
            slot: None,
            ..upstream.clone()
        };
        let copies = &self.instance.options().copies;
        for name in remote.copies.iter().filter(|name| *name != "basebackup") {
            let program = copies.iter().find_map(|way| match way {
                Copying::Program(method) if method.name == *name => Some(method),
                Copying::Program(_) | Copying::Basebackup => None,
            });
            let Some(method) = program else {
                tracing::warn!(
                    method = name,
                    "standby_cluster.create_replica_methods names what postgresql.create_replica_methods does not"
                );
                continue;
            };
            let copied = match self.instance.copy_by(method, &source, replace).await {
                Ok(control) => self.instance.prove_copy(&control, &source).await,
                Err(error) => Err(error),
            };
            match copied {
                Ok(()) => return self.copied_timeline().await,
                Err(error) => tracing::warn!(
                    method = name,
                    error = crate::agent::chain(&error),
                    "a copy of the remote is thrown away; the next way to make one is tried"
                ),
            }
        }
        let (progress, _) = tokio::sync::watch::channel(postgres::CloneProgress::default());
        self.instance.clone_from(&source, replace, progress).await?;
        self.copied_timeline().await
    }

    async fn copied_timeline(&self) -> Result<Timeline, ShellError> {
        match self.data_dir().await? {
            DataDir::Ready(control) => Ok(control.end().0),
            _ => Err(ShellError::NotNow(
                "the copy left no usable data directory".to_owned(),
            )),
        }
    }

    /// Where the remote's primary is, of all its places; a standby where there is no primary. None: it has no place.
    async fn remote(
        &self,
        remote: &Remote,
    ) -> Result<Option<(Upstream, UpstreamInfo)>, ShellError> {
        let mut standby = None;
        let mut failed = None;
        for (host, port) in places(remote) {
            let upstream = upstream(remote, host, port)?;
            match self.instance.upstream_info(&upstream, ASK).await {
                Ok(info) if !info.in_recovery => return Ok(Some((upstream, info))),
                Ok(info) => drop(standby.get_or_insert((upstream, info))),
                Err(error) => failed = Some(error),
            }
        }
        match (standby, failed) {
            (None, Some(error)) => Err(error.into()),
            (found, _) => Ok(found),
        }
    }

    /// Goes on in this epoch if it has published this lineage, else in the next, which is this leader's as well.
    ///
    /// **Invariant:** whoever reads of the new epoch reads of its lineage.
    async fn lead_on(
        &self,
        epoch: Epoch,
        lineage: &Lineage,
        basis: &Basis,
    ) -> Result<Epoch, ShellError> {
        let cluster = &basis.cluster;
        if cluster.led_by_standby() && cluster.published_lineage() == Some(lineage) {
            return Ok(epoch);
        }
        let session = self.session()?;
        let txn = self
            .steps(basis)
            .lead_on(epoch.next(), lineage, session.lease);
        self.take_office(epoch.next(), true, txn, session).await?;
        // The members note the new timeline before its first byte reaches them.
        self.instance.end_streams(QUICK).await?;
        Ok(epoch.next())
    }

    /// Whose WAL a directory holds that was made anew is told before anything of it is followed or handed on.
    async fn set_out(
        &self,
        epoch: Epoch,
        lineage: &Lineage,
        upstream: Upstream,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        let epoch = self.lead_on(epoch, lineage, basis).await?;
        self.note.write(lineage)?;
        self.start_following(upstream).await?;
        self.serve_members(epoch, basis).await
    }

    /// Lets the members stream, by the slots of this epoch.
    pub(super) async fn serve_members(
        &self,
        epoch: Epoch,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        let term = self.instance.streams_term();
        let permanent = permanent(&self.keys, &basis.snapshot, true);
        let slots = slots(
            &self.me,
            &basis.cluster,
            Giving::Office(epoch),
            &BTreeSet::new(),
            permanent,
        );
        self.instance.hold_slots(term, &slots, true, QUICK).await?;
        Ok(())
    }

    /// Whether the configuration of this moment says that nobody is to be promoted. What can't be read says so.
    pub(super) fn is_standby_cluster(&self) -> bool {
        let snapshot = self.known.over(&self.keys, &self.view.borrow());
        let Some(text) = snapshot.value(&self.keys.config()) else {
            return false;
        };
        // Another setting that can't be read must not keep a cluster from a primary.
        let record = serde_json::from_str::<ConfigRecord>(text).ok();
        record.is_none_or(
            |record| matches!(record.0.get("standby_cluster"), Some(it) if !it.is_null()),
        )
    }
}

/// The lineage of a node whose WAL was found to be the remote's up to `same`.
fn traced(note: Option<&Lineage>, same: Lsn, info: &UpstreamInfo, next: Epoch) -> Lineage {
    let switches = info.history.switches.iter();
    let ended: Vec<(Timeline, Lsn)> = switches.map(|it| (it.timeline, it.end)).collect();
    Lineage::traced(note, same, info.timeline, &ended, next)
}

/// Each host with its port: its own, the one for all, or PostgreSQL's.
fn places(remote: &Remote) -> Vec<(String, u16)> {
    let parts = |text: &Option<String>| -> Vec<String> {
        let text = text.as_deref().unwrap_or_default();
        let parts = text.split(',').map(|it| it.trim().to_owned());
        parts.filter(|it| !it.is_empty()).collect()
    };
    let ports = parts(&remote.port);
    let port = |n: usize| {
        let own = ports.get(n).or_else(|| ports.last());
        own.and_then(|port| port.parse().ok()).unwrap_or(PORT)
    };
    let hosts = parts(&remote.host).into_iter().enumerate();
    hosts.map(|(n, host)| (host, port(n))).collect()
}

fn upstream(remote: &Remote, host: String, port: u16) -> Result<Upstream, ShellError> {
    let name = NodeName::new("remote").map_err(|bad| ShellError::NotNow(bad.to_string()))?;
    Ok(Upstream {
        name,
        host,
        port,
        slot: remote.slot.clone(),
        remote: Some(remote.clone()),
        timeline: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_own_port_or_the_one_for_all() {
        let said = |host: &str, port: Option<&str>| {
            let remote = Remote {
                host: Some(host.to_owned()),
                port: port.map(str::to_owned),
                ..Remote::default()
            };
            let places = places(&remote).into_iter();
            let places: Vec<_> = places
                .map(|(host, port)| format!("{host}:{port}"))
                .collect();
            places.join(" ")
        };
        assert_eq!(said("a", None), "a:5432");
        assert_eq!(said("a, b", Some("6000")), "a:6000 b:6000");
        assert_eq!(said("a,b", Some("6000,6001")), "a:6000 b:6001");
    }
}
