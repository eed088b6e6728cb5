//! The first node of a cluster: it founds, and brings a data directory.
//!
//! **Invariant:** the cluster counts as initialized only when its first lineage is in the store.

use super::{Basis, QUICK, Shell, ShellError};
use ha::{Epoch, Lineage};
use postgres::{DataDir, Stop};
use std::sync::Arc;
use store::layout::ConfigRecord;

impl Shell {
    pub(super) async fn found(&self, basis: &Basis) -> Result<(), ShellError> {
        let session = self.session()?;
        let epoch = basis.cluster.current_epoch().next();
        let txn = self.steps(basis).found(epoch, session.lease);
        self.take_office(epoch, false, txn, session).await
    }

    pub(super) async fn bootstrap(&self, basis: &Basis) -> Result<(), ShellError> {
        let epoch = self.epoch_in_office()?;
        let settings = self.bootstrap.settings();
        let settings =
            settings.map_err(|bad| ShellError::NotNow(format!("bootstrap.dcs: {bad}")))?;
        if let Some(remote) = &settings.remote {
            return self.found_standby(epoch, remote, basis).await;
        }
        if self.instance.restores() {
            return self.restore(epoch, basis).await;
        }
        self.instance.init().await?;
        let DataDir::Ready(control) = self.data_dir().await? else {
            return Err(ShellError::NotNow(
                "initdb left no usable data directory".to_owned(),
            ));
        };
        let lineage = Lineage::founded(control.timeline, epoch);
        self.note.write(&lineage)?;
        self.instance.start_primary(QUICK * 6).await?;
        self.arm_in_office();
        self.instance.serve_streams(true).await?;
        self.instance.ensure_roles(QUICK).await?;
        self.run_post_bootstrap().await;
        self.inaugurate(control.system_id, epoch, &lineage, basis, &self.bootstrap)
            .await
    }

    /// The cluster is whole without it; to throw it away for a program that failed would help nobody.
    async fn run_post_bootstrap(&self) {
        if let Err(error) = self.instance.after_init(&self.post_bootstrap).await {
            tracing::error!(
                error = crate::agent::chain(&error),
                hint = "mend it, and run it by hand on the primary",
                "bootstrap.post_bootstrap failed; the cluster goes on without it"
            );
        }
    }

    /// What a program brings becomes the cluster's first directory: recovered, stopped in order, and adopted.
    async fn restore(&self, epoch: Epoch, basis: &Basis) -> Result<(), ShellError> {
        self.note.forget()?;
        let restored = self.instance.restore(|| self.arm_in_office()).await;
        let restored = match restored {
            Ok(()) => self.instance.ensure_roles(QUICK).await,
            Err(error) => Err(error),
        };
        if let Err(error) = restored {
            tracing::error!(
                error = crate::agent::chain(&error),
                hint = "mend what bootstrap.method names; it is tried again, with an empty directory, or stop this node \
                        and let another found the cluster",
                "the first data directory could not be restored: no cluster is founded"
            );
            self.instance.stop(Stop::Immediate, QUICK).await?;
            return Err(error.into());
        }
        self.run_post_bootstrap().await;
        self.instance.keep_restored(self.stops_within()).await?;
        self.adopt(basis, &self.bootstrap).await?;
        tracing::info!(epoch = epoch.0, "the cluster begins with what was restored");
        Ok(())
    }

    /// The directory that is there becomes the cluster's first. A server that runs on it is stopped cleanly; it comes
    /// back by the same way as after any restart: parked, claimed, promoted.
    pub(super) async fn adopt(
        &self,
        basis: &Basis,
        config: &ConfigRecord,
    ) -> Result<(), ShellError> {
        let epoch = self.epoch_in_office()?;
        self.instance.stop(Stop::Fast, self.stops_within()).await?;
        let DataDir::Ready(control) = self.data_dir().await? else {
            return Err(ShellError::NotNow(
                "the data directory is not usable".to_owned(),
            ));
        };
        let lineage = Lineage::founded(control.end().0, epoch);
        // That Patroni has started it last voids the notes from before this one.
        self.instance.taken_over()?;
        self.note.write(&lineage)?;
        self.roles_missing.set()?;
        self.inaugurate(control.system_id, epoch, &lineage, basis, config)
            .await
    }

    /// What was in force in the directory that is there, or else what the node's file says of a new cluster.
    pub(super) async fn taken_over_config(&self) -> ConfigRecord {
        let Ok(DataDir::Ready(control)) = self.data_dir().await else {
            return self.bootstrap.clone();
        };
        let (known, instance) = (Arc::clone(&self.known), self.instance.clone());
        let look = move || known.of_data(control.system_id, instance.was_patronis());
        let known = tokio::task::spawn_blocking(look).await;
        let Some(config) = known.ok().flatten() else {
            return self.bootstrap.clone();
        };
        tracing::info!("the cluster keeps the configuration that its data directory last had");
        config
    }

    pub(super) async fn inaugurate(
        &self,
        system: ha::SystemId,
        epoch: Epoch,
        lineage: &Lineage,
        basis: &Basis,
        config: &ConfigRecord,
    ) -> Result<(), ShellError> {
        let settings = config
            .settings()
            .map_err(|bad| ShellError::NotNow(format!("bootstrap.dcs: {bad}")))?;
        let steps = self.steps(basis);
        let txn = steps.inaugurate(system, epoch, lineage, config, &settings);
        self.commit(txn).await.map(drop)
    }

    pub(super) async fn data_dir(&self) -> Result<DataDir, ShellError> {
        let instance = self.instance.clone();
        let read = tokio::task::spawn_blocking(move || instance.data_dir()).await;
        match read {
            Ok(found) => Ok(found?),
            Err(_) => Err(ShellError::NotNow(
                "the data directory was not read".to_owned(),
            )),
        }
    }
}
