//! A standby: started, cut off from its leader, streaming from one by a reload.
//!
//! **Invariant:** the note is written before the first byte of a new branch can arrive.

use super::{Basis, QUICK, Report, START, Shell, ShellError};
use crate::clock::now;
use ha::{Cluster, Epoch, Lineage, NodeName};
use postgres::{ControlState, DataDir, Started, Stop, Upstream};
use std::time::Duration;

/// Past it a start finds the end of the WAL faster than a look does.
const READ_WAL: Duration = Duration::from_secs(1);
/// Several of the looks of pg_ctl.
const PG_CTL_LOOKS: Duration = Duration::from_millis(500);

impl Shell {
    /// A person's `pg_ctl stop` looks ten times a second whether the server has gone. One that is started again at once
    /// has never gone for it, and it waits in vain.
    pub(super) async fn let_pg_ctl_see(&self) {
        let Some(status) = self.instance.guard().map(|guard| guard.status()) else {
            return;
        };
        let clean = matches!(status.exit, Some(guard::Exit::Code(0)));
        let Some(ended) = status.ended_ns.filter(|_| clean) else {
            return;
        };
        let gone = now().since(ha::Instant(ended));
        tokio::time::sleep(PG_CTL_LOOKS.saturating_sub(gone)).await;
    }

    pub(super) async fn park(&self, basis: &Basis) -> Result<(), ShellError> {
        self.let_pg_ctl_see().await;
        self.streams.may_come();
        if self.instance.was_patronis() && self.note.forget()?.is_some() {
            tracing::info!(
                "Patroni has run this Postgres since: the note of whose WAL it holds is void"
            );
        }
        self.instance.serve_streams(false).await?;
        self.promotion_ordered.clear()?;
        let started = match self.is_of_use_soon(&basis.cluster).await? {
            true => self.instance.start_standby(None, START).await?,
            false => self.instance.start_secluded(START).await?,
        };
        self.started(started);
        Ok(())
    }

    /// Whether this node may be the next to lead. Where another leads it lets nobody in before it follows; and a primary
    /// that has crashed while others can lead on has WAL that is likely not theirs, and is rewound first.
    async fn is_of_use_soon(&self, cluster: &Cluster) -> Result<bool, ShellError> {
        if let Some(leader) = &cluster.leader {
            return Ok(*leader == self.me);
        }
        let DataDir::Ready(control) = self.data_dir().await? else {
            return Ok(true);
        };
        let crashed = control.state == ControlState::InProduction;
        Ok(!crashed || ha::others_can_lead(cluster, &self.me).is_err())
    }

    /// **Invariant:** nothing is streamed into a directory that may hold what is not the leader's.
    pub(super) async fn rejoin(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        lineage: &Lineage,
        via: Option<&NodeName>,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        if !self.is_part_of(lineage).await {
            return self.park(basis).await;
        }
        self.let_pg_ctl_see().await;
        let upstream = self.turn_to(leader, epoch, lineage, via, basis).await?;
        self.start_following(upstream).await
    }

    /// Whether all WAL on disk is proven to be part of `lineage`.
    async fn is_part_of(&self, lineage: &Lineage) -> bool {
        let note = self.note.read();
        let Some(note) = note.filter(|_| !self.instance.was_patronis()) else {
            return false;
        };
        let end = self.instance.end_on_disk(READ_WAL).await;
        end.is_some_and(|end| lineage.has_all_of(&note, end.timeline, end.lsn))
    }

    pub(super) async fn start_following(&self, upstream: Upstream) -> Result<(), ShellError> {
        self.streams.may_come();
        self.promotion_ordered.clear()?;
        self.started(self.instance.start_standby(Some(upstream), START).await?);
        Ok(())
    }

    pub(super) fn started(&self, started: Started) {
        if started == Started::Recovering {
            tracing::info!("postgres is still replaying its WAL");
        }
        self.arm_in_office();
    }

    /// A standby cannot join the leader that there is. One that lets nobody in keeps its clients from the other hosts that
    /// they know, as they take its refusal for an answer: it is stopped, and starts when it can join, or without a port.
    pub(super) async fn leave_clients_to_others(&self) {
        if !self.instance.turns_clients_away().await {
            return;
        }
        if let Err(error) = self.instance.stop(Stop::Immediate, QUICK).await {
            let error = crate::agent::chain(&error);
            tracing::warn!(error, "a standby that lets nobody in was not stopped");
        }
    }

    pub(super) async fn detach(&self) -> Result<Report, ShellError> {
        let (upstream, _, _) = self.instance.settings().await;
        let remote = upstream.and_then(|upstream| upstream.remote);
        let from_archive = remote.is_some_and(|remote| remote.restore_command.is_some());
        let detached = self.instance.detach(QUICK).await?;
        // An archive has no connection that could be seen to end: that replay waits for more is the sign.
        if !from_archive {
            self.streams.gone();
        }
        let detail = Some(format!(
            "received {}, replayed {}",
            detached.received, detached.replayed
        ));
        Ok(Report {
            detail,
            ..Report::default()
        })
    }

    /// **Invariant:** a promise that stands, or is still on its way, is never broken by following.
    /// **Invariant:** nobody else's lineage is noted beside a promotion that may still be under way: it would give its
    /// timeline's number a second history.
    pub(super) async fn take_stance(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        if basis.cluster.current_epoch() != epoch {
            return Err(ShellError::Refused);
        }
        self.end_ordered_promotion().await?;
        self.step(basis, |steps| steps.follow(leader, epoch))
            .await?;
        self.holds.settled();
        self.instance.end_streams(QUICK).await?;
        Ok(())
    }

    pub(super) fn upstream(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        basis: &Basis,
    ) -> Result<Upstream, ShellError> {
        let cluster = &basis.cluster;
        let member = cluster.members.get(leader);
        let member =
            member.ok_or_else(|| ShellError::NotNow(format!("{leader} has no member key")))?;
        Ok(Upstream {
            name: leader.clone(),
            host: member.host.clone(),
            port: member.port,
            slot: self.slot(epoch, cluster, basis),
            remote: None,
            timeline: cluster
                .published_lineage()
                .filter(|_| cluster.led_by_standby())
                .map(|lineage| lineage.newest().timeline),
        })
    }

    /// A leader of Patroni's makes slots by plain names, and counts its standbys by them; if it makes any.
    fn slot(&self, epoch: Epoch, cluster: &Cluster, basis: &Basis) -> Option<String> {
        if !cluster.foreign.leads {
            return Some(self.me.slot_of_epoch(epoch));
        }
        let config = basis.snapshot.value(&self.keys.config());
        let config = config.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        let uses = config.and_then(|config| config.pointer("/postgresql/use_slots")?.as_bool());
        uses.unwrap_or(true).then(|| self.me.slot())
    }

    /// From here on the archive may bring WAL of any history.
    pub(super) async fn feed(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        self.take_stance(leader, epoch, basis).await?;
        self.disarm();
        self.note.forget()?;
        Ok(())
    }

    /// The stance is taken and the lineage noted: from here on WAL may come.
    async fn turn_to(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        lineage: &Lineage,
        via: Option<&NodeName>,
        basis: &Basis,
    ) -> Result<Upstream, ShellError> {
        self.take_stance(leader, epoch, basis).await?;
        let upstream = self.upstream(via.unwrap_or(leader), epoch, basis)?;
        self.note.write(lineage)?;
        self.disarm();
        Ok(upstream)
    }

    pub(super) async fn follow(
        &self,
        leader: &NodeName,
        epoch: Epoch,
        lineage: &Lineage,
        via: Option<&NodeName>,
        basis: &Basis,
    ) -> Result<(), ShellError> {
        let upstream = self.turn_to(leader, epoch, lineage, via, basis).await?;
        self.streams.may_come();
        self.instance.follow(upstream).await?;
        Ok(())
    }
}
