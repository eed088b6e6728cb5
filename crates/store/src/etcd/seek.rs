//! Looks for etcd's members by DNS, again and again, beside everything else.
//!
//! **Invariant:** nobody waits for DNS who knows a member; what was known stays known while DNS is away.

use super::options::{EtcdSrv, EtcdTls};
use super::srv;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// How often DNS is asked while members answer.
const USUALLY: Duration = Duration::from_secs(30);
/// How often at most, while none does.
const SOON: Duration = Duration::from_secs(1);
/// How long one look may take, all names and attempts together.
const LOOK: Duration = Duration::from_secs(6);

/// What one look has found.
pub(super) type Found = Result<Vec<String>, String>;

#[derive(Debug)]
pub(super) struct Seek {
    srv: EtcdSrv,
    wanted: Notify,
    /// Why the last look found nobody; `None`: it did, or there was none yet.
    trouble: watch::Sender<Option<String>>,
}

impl Seek {
    pub(super) fn new(srv: EtcdSrv) -> Self {
        Self {
            srv,
            wanted: Notify::new(),
            trouble: watch::Sender::new(None),
        }
    }

    /// No member answers: there may be others.
    pub(super) fn soon(&self) {
        self.wanted.notify_one();
    }

    /// What is told of looks that end from now on.
    pub(super) fn news(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Why nobody is known yet.
    pub(super) fn why(&self) -> String {
        let domain = &self.srv.domain;
        let why = self.trouble.borrow().clone();
        why.unwrap_or_else(|| format!("DNS has not answered for {domain} yet"))
    }

    /// Goes on until nobody `learn`s any more.
    pub(super) async fn run(&self, tls: Option<EtcdTls>, mut learn: impl FnMut(&[String]) -> bool) {
        loop {
            let found = timeout(LOOK, look(&self.srv, tls.as_ref())).await;
            let found = found.unwrap_or_else(|_| Err("DNS does not answer in time".to_owned()));
            if !learn(found.as_deref().unwrap_or_default()) {
                return;
            }
            let pause = match found {
                Ok(_) => USUALLY,
                Err(_) => SOON,
            };
            self.tell(found.err());
            tokio::time::sleep(SOON).await;
            // A wish that came while we looked, or slept, counts as well.
            let _ = timeout(pause - SOON, self.wanted.notified()).await;
        }
    }

    fn tell(&self, trouble: Option<String>) {
        let before = self.trouble.send_replace(trouble.clone());
        match (before, trouble) {
            (None, Some(why)) => tracing::warn!(
                domain = self.srv.domain,
                reason = why,
                "etcd's members cannot be found by DNS"
            ),
            (Some(_), None) => {
                tracing::info!(domain = self.srv.domain, "etcd's members are found by DNS");
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

async fn look(srv: &EtcdSrv, tls: Option<&EtcdTls>) -> Found {
    let resolver = tokio::task::spawn_blocking(srv::resolver).await;
    let resolver = resolver.map_err(|error| error.to_string())??;
    srv::look_up(&resolver, srv, tls).await
}
