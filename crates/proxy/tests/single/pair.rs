//! A primary, its synchronous standby, and the store of a cluster that says which of them leads.
//! Nobody looks after them: a story does by hand what agents would do, and what they would prevent.

use crate::server::{Running, Server};
use anyhow::{Result, ensure};
use proxy::{Limits, PoolMode, Source};
use std::sync::Arc;
use store::layout::Keys;
use store::{MemoryStore, Store as _, Txn};

pub(crate) struct Pair {
    pub(crate) a: Server,
    pub(crate) b: Server,
    store: MemoryStore,
    keys: Keys,
}

impl Pair {
    /// `a` leads the first epoch.
    pub(crate) async fn start() -> Result<Self> {
        let a = Server::start()?;
        let b = Server::copy_of(&a)?;
        a.psql("alter system set synchronous_standby_names = 'copy'")?;
        a.psql("select pg_reload_conf()")?;
        let pair = Self {
            a,
            b,
            store: MemoryStore::new(),
            keys: Keys::new("service", "pair"),
        };
        pair.tell("a", 1, "primary").await?;
        Ok(pair)
    }

    /// What the store says from now on.
    pub(crate) async fn tell(&self, leader: &str, epoch: u64, state: &str) -> Result<()> {
        let port = match leader {
            "a" => self.a.port(),
            _ => self.b.port(),
        };
        let member = format!(
            r#"{{"conn_url":"postgres://127.0.0.1:{port}/postgres","api_url":"http://127.0.0.1:1/",
                "state":"running","role":"primary","version":"4.1.5","standfast":{{"host":
                "127.0.0.1","port":{port},"state":"{state}","assigned":"primary","reason":"a test",
                "rule":"test","identity":"{leader}"}}}}"#
        );
        let prefix = self.keys.members();
        let record = format!(r#"{{"epoch":{epoch},"leader":"{leader}"}}"#);
        let sync = format!(r#"{{"leader":"{leader}","quorum":0,"sync_standby":"b"}}"#);
        let told = Txn::new()
            .put(self.keys.leader(), leader)
            .put(self.keys.epoch(), record)
            .put(self.keys.sync(), sync)
            .put(format!("{prefix}{leader}"), member);
        ensure!(self.store.commit(told).await?.is_committed());
        Ok(())
    }

    /// What the store says of `b` while `a` leads: what it is, and how many bytes it lacks.
    pub(crate) async fn tell_of_standby(&self, state: &str, lag_bytes: u64) -> Result<()> {
        self.tell_of_tagged_standby(state, lag_bytes, "{}").await
    }

    pub(crate) async fn tell_of_tagged_standby(
        &self,
        state: &str,
        lag_bytes: u64,
        tags: &str,
    ) -> Result<()> {
        let port = self.b.port();
        let end = 0x1000_0000;
        let position = end - lag_bytes;
        let member = format!(
            r#"{{"conn_url":"postgres://127.0.0.1:{port}/postgres","api_url":"http://127.0.0.1:1/",
                "state":"running","role":"replica","version":"4.1.5","xlog_location":{position},"tags":{tags},
                "standfast":{{"host":"127.0.0.1","port":{port},"state":"{state}",
                "assigned":"standby","reason":"a test","rule":"test","identity":"b"}}}}"#
        );
        let status = format!(r#"{{"optime":{end}}}"#);
        let told = Txn::new()
            .put(self.keys.status(), status)
            .put(format!("{}b", self.keys.members()), member);
        ensure!(self.store.commit(told).await?.is_committed());
        Ok(())
    }

    /// The postmaster of `a` dies, and `b` leads the second epoch.
    pub(crate) async fn fail_over(&self) -> Result<()> {
        tokio::task::block_in_place(|| self.a.kill_postmaster())?;
        self.tell("b", 2, "promoting").await?;
        tokio::task::block_in_place(|| {
            self.b.sql(
                "postgres",
                "alter system set synchronous_standby_names = ''",
            )?;
            self.b.promote()
        })?;
        self.tell("b", 2, "primary").await
    }

    pub(crate) async fn proxy(&self, mode: PoolMode, limits: Limits) -> Result<Running> {
        Running::start(self.source(), mode, limits).await
    }

    /// What proxies have written down of themselves.
    pub(crate) async fn proxies(&self) -> Result<Vec<String>> {
        let found = self.store.read(&self.keys.proxies()).await?;
        let values = found.entries.values();
        Ok(values.map(|entry| entry.value.clone()).collect())
    }

    /// Another way to its store, with faults of its own.
    pub(crate) fn handle(&self) -> MemoryStore {
        self.store.handle()
    }

    pub(crate) fn source(&self) -> Source {
        Source::Store {
            store: Arc::new(self.store.handle()),
            keys: self.keys.clone(),
        }
    }
}

/// Runs a story in a runtime of its own.
pub(crate) fn story(plot: impl AsyncFnOnce(&Pair) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async { plot(&Pair::start().await?).await })
}
