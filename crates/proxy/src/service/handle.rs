//! What a proxy is told while it runs: new options, and its end.

use super::Ending;
use crate::auth::Rules;
use crate::options::Options;
use crate::session::Shared;
use crate::topology::Seen;
use std::sync::Arc;
use tokio::sync::watch;

/// Clones are the same.
#[derive(Debug, Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    told: watch::Sender<Ending>,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>, told: watch::Sender<Ending>) -> Self {
        Self { shared, told }
    }

    /// Goes on with other options. Where it listens and from where it knows the cluster stay as they
    /// are. Who is connected stays; users, rules, certificates and the pool mode count for
    /// those who come, limits for everybody.
    pub fn reload(&self, options: &Options) {
        let shared = &self.shared;
        shared.gatekeeper.reload(rules(options));
        shared.client_tls.store(options.client_tls.clone());
        shared.mode.store(options.pool_mode);
        shared.on_lossy_failover.store(options.on_lossy_failover);
        shared.limits.store(options.limits);
        shared.admins.store(options.admins.clone());
        shared.pools.reload(options.server_tls.clone());
        self.has_reloaded(None);
    }

    /// The files can't be taken, and everything stays as it was: who asked for it is told why.
    pub fn refuse_reload(&self, why: &str) {
        self.has_reloaded(Some(why.to_owned()));
    }

    fn has_reloaded(&self, refused: Option<String>) {
        self.shared.wishes.reloads.send_modify(|last| {
            last.count += 1;
            last.refused = refused;
        });
    }

    /// Lets nobody in any more, ends every session as soon as it is between two transactions, and
    /// then lets [`super::Proxy::run`] end.
    pub fn drain(&self) {
        self.told.send_if_modified(|ending| {
            let first = *ending == Ending::No;
            if first {
                *ending = Ending::Soon;
            }
            first
        });
        self.shared.closing.begin();
        self.shared.cancels.wake_everybody();
    }

    /// Until it has been told to stop, or another proxy has taken over.
    pub async fn ending(&self) {
        let mut told = self.told.subscribe();
        // It can't fail: we could tell it ourselves.
        let _ = told.wait_for(|ending| *ending != Ending::No).await;
    }

    /// Ends everything at once.
    pub fn stop(&self) {
        self.told.send_replace(Ending::Now);
    }

    /// Until an administrator asks at the console for the files to be read again. It is answered by [`Self::reload`] or
    /// [`Self::refuse_reload`].
    pub async fn reload_wanted(&self) {
        self.shared.wishes.reload.notified().await;
    }

    /// Until an administrator asks at the console for the end.
    pub async fn stop_wanted(&self) {
        self.shared.wishes.stop.notified().await;
    }

    /// What the proxy counts, in Prometheus' text format.
    pub fn metrics(&self) -> String {
        crate::stats::text(&self.shared)
    }

    /// The names of the cluster's proxies, this one among them.
    pub fn peers(&self) -> Vec<String> {
        let known = self.shared.peers.known();
        let mut names: Vec<_> = known.values().map(|one| one.name.clone()).collect();
        names.sort();
        names
    }

    /// Until no primary is known, and why.
    pub async fn primary_is_missing(&self) -> String {
        let mut seen = self.shared.seen.clone();
        loop {
            if let Err(why) = &seen.borrow_and_update().primary {
                return why.clone();
            }
            changed(&mut seen).await;
        }
    }

    /// Until a primary is known.
    pub async fn primary_is_known(&self) {
        let mut seen = self.shared.seen.clone();
        while seen.borrow_and_update().primary.is_err() {
            changed(&mut seen).await;
        }
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        self.shared.closing.clients()
    }
}

/// Who tells nothing any more changes nothing.
async fn changed(seen: &mut Seen) {
    if seen.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

pub(super) fn rules(options: &Options) -> Rules {
    Rules {
        users: options.users.clone(),
        method: options.auth,
        hba: options.hba.clone(),
        auth_query: options.auth_query.clone(),
    }
}
