//! [`Store`] on etcd.
//!
//! **Invariant:** a renewal that is acknowledged was made by the leader whose clock the lease ends by, or by one before
//! it: the lease does not end before its time to live is over, counted from when the renewal was asked for.
//!
//! etcd renews no lease within a transaction, and it renews without a majority: the leader alone does, from memory.
//! A leader that was deposed and has not noticed (cut off, or stuck in a disk) says yes as well, while its successor
//! counts the lease from when it took office. So a renewal comes first, and then something that needs a majority: the
//! transaction itself, or a read. etcd's header of the renewal names the term before it, the header of what follows the
//! term after it. Had a leader of a higher term been elected before the renewal, no majority would have served what
//! follows in the lower one. Equal terms thus prove the renewal; unequal ones mean that it must be made again.

use super::failure::{Failure, Meaning};
use super::members::{Members, Repeat};
use super::proto::{
    Header, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, RangeResponse, TxnResponse,
};
use super::{EtcdOptions, channel::Method, follow, translate};
use crate::answers::draw_lease;
use crate::kv::{LeaseId, Outcome, Result, Snapshot, Store, StoreError, Txn, View};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

pub(super) const RANGE: Method = Method("/etcdserverpb.KV/Range");
const TXN: Method = Method("/etcdserverpb.KV/Txn");
const GRANT: Method = Method("/etcdserverpb.Lease/LeaseGrant");
const REVOKE: Method = Method("/etcdserverpb.Lease/LeaseRevoke");
const KEEP_ALIVE: Method = Method("/etcdserverpb.Lease/LeaseKeepAlive");

/// The user's own etcd cluster, by its v3 interface. Clones share their connections.
#[derive(Clone, Debug)]
pub struct EtcdStore {
    members: Arc<Members>,
}

impl EtcdStore {
    /// Connects to nobody yet. Must be called in a runtime, where its connections will live.
    pub fn new(options: EtcdOptions) -> Result<Self> {
        if options.members.is_empty() && options.srv.is_none() {
            return Err(StoreError::Denied("no member of etcd is named".into()));
        }
        Ok(Self {
            members: Members::new(options),
        })
    }

    /// Asks for a renewal. Says the term before it.
    async fn keep_alive(&self, lease: LeaseId, until: Instant) -> Result<u64> {
        let question = LeaseKeepAliveRequest { id: lease.0 };
        let (answer, _) = self
            .members
            .ask::<LeaseKeepAliveResponse>(KEEP_ALIVE, &question, Repeat::Harmless, until)
            .await;
        // One that was made and not heard of does no harm: whoever asked counts from an earlier one.
        let answer = answer.map_err(Failure::of_read)?;
        if answer.ttl <= 0 {
            return Err(StoreError::LeaseEnded(lease));
        }
        Ok(term(answer.header.as_ref()))
    }

    /// Renews until it is proven, or it is `until`.
    async fn renew_surely(&self, lease: LeaseId, until: Instant) -> Result<()> {
        let prefix = &self.members.options().prefix;
        loop {
            let before = self.keep_alive(lease, until).await?;
            let mut question = translate::range(prefix);
            question.count_only = true;
            let (answer, _) = self
                .members
                .ask::<RangeResponse>(RANGE, &question, Repeat::Harmless, until)
                .await;
            let answer = answer.map_err(Failure::of_read)?;
            if is_proven(before, answer.header.as_ref()) {
                return Ok(());
            }
            if Instant::now() >= until {
                let why = "etcd changed its leader while the lease was renewed";
                return Err(StoreError::Unreachable(why.into()));
            }
        }
    }

    async fn transact(&self, txn: &Txn, until: Instant) -> Result<(Outcome, Option<Header>)> {
        let question = translate::transaction(txn, &self.members.options().prefix);
        let (answer, _) = self
            .members
            .ask::<TxnResponse>(TXN, &question, Repeat::Never, until)
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) if failure.meaning() == Some(Meaning::LeaseEnded) => {
                return Err(self.which_ended(txn, until).await);
            }
            Err(failure) => return Err(failure.of_write()),
        };
        let revision = answer.header.map_or(0, |header| header.revision);
        let outcome = match answer.succeeded {
            true => Outcome::Committed {
                revision: translate::unsigned(revision),
            },
            false => Outcome::Refused,
        };
        Ok((outcome, answer.header))
    }

    /// etcd does not say which one, and there is one as a rule. Nothing happened.
    async fn which_ended(&self, txn: &Txn, until: Instant) -> StoreError {
        let mut named: Vec<_> = txn.ops.iter().filter_map(leased).collect();
        named.dedup();
        for lease in named.iter().skip(1).rev() {
            if let Err(StoreError::LeaseEnded(ended)) = self.keep_alive(*lease, until).await {
                return StoreError::LeaseEnded(ended);
            }
        }
        match named.first() {
            Some(first) => StoreError::LeaseEnded(*first),
            None => StoreError::Unknown("etcd misses a lease that was not named".into()),
        }
    }
}

fn leased(op: &crate::kv::Op) -> Option<LeaseId> {
    match op {
        crate::kv::Op::Put { lease, .. } => *lease,
        crate::kv::Op::Delete { .. } => None,
    }
}

/// 0: the member has applied nothing since it was started, and does not know.
fn term(header: Option<&Header>) -> u64 {
    header.map_or(0, |header| header.raft_term)
}

/// See the module.
fn is_proven(before: u64, after: Option<&Header>) -> bool {
    before != 0 && before == term(after)
}

#[async_trait]
impl Store for EtcdStore {
    async fn read(&self, prefix: &str) -> Result<Snapshot> {
        let until = self.members.deadline();
        let question = translate::range(prefix);
        let (answer, _) = self
            .members
            .ask::<RangeResponse>(RANGE, &question, Repeat::Harmless, until)
            .await;
        answer.map(translate::snapshot).map_err(Failure::of_read)
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        let until = self.members.deadline();
        let before = match txn.renew {
            Some(lease) => Some((lease, self.keep_alive(lease, until).await?)),
            None => None,
        };
        let (outcome, header) = self.transact(&txn, until).await?;
        match before {
            Some((lease, before))
                if outcome.is_committed() && !is_proven(before, header.as_ref()) =>
            {
                // What was written stands; only whether the lease lives is open.
                let proven = self.renew_surely(lease, until).await;
                proven.map(|()| outcome).map_err(|error| {
                    StoreError::Unknown(format!("committed, but the lease is not renewed: {error}"))
                })
            }
            Some(_) | None => Ok(outcome),
        }
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        let until = self.members.deadline();
        // Whole seconds, and no fewer than were asked for. etcd makes it more where its own minimum is more.
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let ttl = i64::try_from(seconds.max(1)).unwrap_or(i64::MAX);
        loop {
            let lease = draw_lease();
            let question = LeaseGrantRequest { ttl, id: lease.0 };
            let (answer, sent_before) = self
                .members
                .ask::<LeaseGrantResponse>(GRANT, &question, Repeat::Harmless, until)
                .await;
            match answer {
                Ok(granted) if granted.ttl < ttl => {
                    let why = format!("etcd granted {} s instead of {ttl} s", granted.ttl);
                    return Err(StoreError::Denied(why));
                }
                Ok(_) => return Ok(lease),
                Err(failure) if failure.meaning() == Some(Meaning::LeaseTaken) => {
                    // Nobody else draws the same number: an attempt before this one did it.
                    if sent_before {
                        return Ok(lease);
                    }
                }
                Err(failure) if sent_before => return Err(unknown(failure)),
                Err(failure) => return Err(failure.of_write()),
            }
        }
    }

    async fn renew(&self, lease: LeaseId) -> Result<()> {
        self.renew_surely(lease, self.members.deadline()).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        let until = self.members.deadline();
        let question = LeaseRevokeRequest { id: lease.0 };
        let (answer, sent_before) = self
            .members
            .ask::<LeaseRevokeResponse>(REVOKE, &question, Repeat::Harmless, until)
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(failure) if failure.meaning() == Some(Meaning::LeaseEnded) => {
                if sent_before {
                    Ok(())
                } else {
                    Err(StoreError::LeaseEnded(lease))
                }
            }
            Err(failure) if sent_before => Err(unknown(failure)),
            Err(failure) => Err(failure.of_write()),
        }
    }

    fn view(&self, prefix: &str) -> View {
        let (sender, view) = watch::channel(Arc::default());
        let following = follow::follow(Arc::clone(&self.members), prefix.to_owned(), sender);
        self.members.runtime().spawn(following);
        view
    }
}

/// The error of the last attempt, when an earlier one may have succeeded.
fn unknown(failure: Failure) -> StoreError {
    match failure.of_write() {
        StoreError::Unreachable(why) => StoreError::Unknown(why),
        error => error,
    }
}
