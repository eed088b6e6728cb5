//! Store actions as transactions, each guarded by the very snapshot that was decided on.
//!
//! **Invariant:** what begins a leadership renews the lease that it hangs on: the holder counts from when it was sent.
//! **Invariant:** no step weakens durability or changes leadership without a guard on leader and epoch.

use ha::quorum::{Setting, SyncRecord};
use ha::{Claim, Epoch, Lineage, Lsn, NodeName, Promise, Settings, SyncMode, SystemId};
use serde::Serialize;
use store::layout::{
    ConfigRecord, EndedTimeline, EpochRecord, FailoverRecord, Keys, LineageRecord, PromiseRecord,
    StatusRecord, SyncValue, guests, with_history,
};
use store::{Guard, LeaseId, Snapshot, Txn};

/// What every step needs: the keys, who we are, and the snapshot that was decided on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steps<'a> {
    pub(crate) keys: &'a Keys,
    pub(crate) me: &'a NodeName,
    pub(crate) seen: &'a Snapshot,
}

impl Steps<'_> {
    /// The leader key is mine and the epoch is what was seen.
    fn in_office(&self) -> Txn {
        Txn::new()
            .when(Guard::Equals {
                key: self.keys.leader(),
                value: self.me.to_string(),
            })
            .when(self.seen.unchanged(&self.keys.epoch()))
    }

    pub(crate) fn found(&self, epoch: Epoch, session: LeaseId) -> Txn {
        Txn::new()
            .when(self.seen.unchanged(&self.keys.initialize()))
            .when(Guard::Absent {
                key: self.keys.leader(),
            })
            .when(self.seen.unchanged(&self.keys.epoch()))
            .renew(session)
            .put(self.keys.initialize(), "")
            .put_leased(self.keys.leader(), self.me.as_str(), session)
            .put(
                self.keys.epoch(),
                json(&EpochRecord::new(epoch, self.me.clone())),
            )
    }

    /// The cluster exists from here on.
    pub(crate) fn inaugurate(
        &self,
        system: SystemId,
        epoch: Epoch,
        lineage: &Lineage,
        config: &ConfigRecord,
        settings: &Settings,
    ) -> Txn {
        let mut txn = self
            .in_office()
            .when(Guard::Equals {
                key: self.keys.initialize(),
                value: String::new(),
            })
            .put(self.keys.initialize(), system.to_string())
            .put(
                self.keys.lineage(),
                json(&LineageRecord::new(epoch, self.me.clone(), lineage)),
            );
        if self.seen.value(&self.keys.config()).is_none() {
            txn = txn.put(self.keys.config(), json(config));
        }
        // A standby cluster acknowledges nothing.
        if settings.sync_mode != SyncMode::Off && settings.remote.is_none() {
            let record = SyncRecord::of(Setting::alone(self.me.clone()));
            txn = txn.put(self.keys.sync(), json(&SyncValue::from(&record)));
        }
        txn
    }

    pub(crate) fn reattach(&self, session: LeaseId) -> Txn {
        self.in_office()
            .when(self.seen.unchanged(&self.keys.leader()))
            .renew(session)
            .put_leased(self.keys.leader(), self.me.as_str(), session)
    }

    pub(crate) fn promise(&self, promise: &Promise) -> Txn {
        Txn::new()
            .when(self.seen.unchanged(&self.keys.epoch()))
            .when(self.seen.unchanged(&self.keys.stance(self.me)))
            .put(
                self.keys.promise(self.me),
                json(&PromiseRecord::from(promise)),
            )
    }

    /// Before anything is taken from `leader`: it still leads this epoch, no promise of mine stands in it, and none
    /// that is still on its way can come to stand, because each is guarded by the stance that it saw.
    pub(crate) fn follow(&self, leader: &NodeName, epoch: Epoch) -> Txn {
        Txn::new()
            .when(Guard::Equals {
                key: self.keys.leader(),
                value: leader.to_string(),
            })
            .when(self.seen.unchanged(&self.keys.leader()))
            .when(self.seen.unchanged(&self.keys.epoch()))
            .when(Guard::Absent {
                key: self.keys.promise(self.me),
            })
            .put(
                self.keys.stance(self.me),
                json(&EpochRecord::new(epoch, leader.clone())),
            )
    }

    /// Guarded by the epoch: a promise of this epoch may be taken back only while nobody has claimed on it.
    pub(crate) fn withdraw(&self) -> Txn {
        Txn::new()
            .when(self.seen.unchanged(&self.keys.epoch()))
            .delete(self.keys.promise(self.me))
    }

    pub(crate) fn claim(&self, claim: &Claim, session: LeaseId) -> Txn {
        let mut txn = Txn::new()
            .when(self.seen.unchanged(&self.keys.leader()))
            .when(self.seen.unchanged(&self.keys.epoch()))
            .when(self.seen.unchanged(&self.keys.sync()))
            // Whether a primary or a standby leader is to come of it.
            .when(self.seen.unchanged(&self.keys.config()));
        txn = txn.renew(session);
        for name in &claim.counted {
            txn = txn.when(self.seen.unchanged(&self.keys.promise(name)));
        }
        txn = txn
            .put_leased(self.keys.leader(), self.me.as_str(), session)
            .put(
                self.keys.epoch(),
                json(&EpochRecord {
                    standby: claim.standby,
                    ..EpochRecord::new(claim.epoch, self.me.clone())
                }),
            );
        if let Some(record) = &claim.record {
            txn = txn.put(self.keys.sync(), self.sync_value(record));
        }
        txn
    }

    /// The next epoch of a standby leader: another timeline of the remote's has begun.
    pub(crate) fn lead_on(&self, epoch: Epoch, lineage: &Lineage, session: LeaseId) -> Txn {
        let record = EpochRecord {
            standby: true,
            ..EpochRecord::new(epoch, self.me.clone())
        };
        self.in_office()
            .when(self.seen.unchanged(&self.keys.config()))
            .renew(session)
            .put_leased(self.keys.leader(), self.me.as_str(), session)
            .put(self.keys.epoch(), json(&record))
            .put(
                self.keys.lineage(),
                json(&LineageRecord::new(epoch, self.me.clone(), lineage)),
            )
    }

    fn sync_value(&self, record: &SyncRecord) -> String {
        json(&SyncValue::beside(record, &guests(self.keys, self.seen)))
    }

    /// On behalf of a leader of Patroni's. What its configuration leaves unsaid means what it means to Patroni.
    pub(crate) fn recognize(&self, leader: &NodeName, epoch: Epoch, lineage: &Lineage) -> Txn {
        let record = EpochRecord {
            patroni: true,
            ..EpochRecord::new(epoch, leader.clone())
        };
        let txn = Txn::new()
            .when(self.seen.unchanged(&self.keys.leader()))
            .when(self.seen.unchanged(&self.keys.epoch()))
            .when(self.seen.unchanged(&self.keys.lineage()))
            .put(self.keys.epoch(), json(&record))
            .put(
                self.keys.lineage(),
                json(&LineageRecord::new(epoch, leader.clone(), lineage)),
            );
        let key = self.keys.config();
        match self.config() {
            Some(mut config) if !config.0.contains_key("synchronous_mode") => {
                config.0.insert("synchronous_mode".to_owned(), false.into());
                txn.when(self.seen.unchanged(&key)).put(key, json(&config))
            }
            Some(_) | None => txn,
        }
    }

    /// What the cluster's configuration was, now that it is not there.
    pub(crate) fn put_back(&self, config: &str) -> Txn {
        let key = self.keys.config();
        self.in_office()
            .when(Guard::Absent { key: key.clone() })
            .put(key, config)
    }

    /// `None`: it is not there, or can't be read, which is said elsewhere.
    fn config(&self) -> Option<ConfigRecord> {
        let text = self.seen.value(&self.keys.config())?;
        serde_json::from_str(text).ok()
    }

    /// With the timelines that ended, for the tools of people. From here on a node is measured by this leader's WAL: the
    /// one before may have had more, of which a person has accepted the loss.
    pub(crate) fn publish(
        &self,
        epoch: Epoch,
        lineage: &Lineage,
        ended: &[EndedTimeline],
        at: &str,
    ) -> Txn {
        let txn = self
            .in_office()
            .put(
                self.keys.lineage(),
                json(&LineageRecord::new(epoch, self.me.clone(), lineage)),
            )
            .put(self.keys.status(), self.status_at(lineage.newest().begins));
        if ended.is_empty() {
            return txn;
        }
        let key = self.keys.history();
        let most = self.config().unwrap_or_default().timelines_max();
        let history = with_history(self.seen.value(&key), ended, self.me, at, most);
        txn.put(key, history)
    }

    /// The slots stay where they were: a beat says more soon.
    fn status_at(&self, optime: Lsn) -> String {
        let status = self.seen.value(&self.keys.status());
        let status = status.and_then(|text| serde_json::from_str::<StatusRecord>(text).ok());
        json(&StatusRecord {
            optime,
            ..status.unwrap_or_default()
        })
    }

    pub(crate) fn record(&self, record: Option<&SyncRecord>) -> Txn {
        let txn = self
            .in_office()
            .when(self.seen.unchanged(&self.keys.sync()));
        match record {
            Some(record) => txn.put(self.keys.sync(), self.sync_value(record)),
            None => txn.delete(self.keys.sync()),
        }
    }

    pub(crate) fn release(&self) -> Txn {
        self.in_office().delete(self.keys.leader())
    }

    pub(crate) fn clear_switchover(&self) -> Txn {
        Txn::new()
            .when(self.seen.unchanged(&self.keys.failover()))
            .put(self.keys.failover(), json(&FailoverRecord::default()))
    }

    pub(crate) fn leave(&self) -> Txn {
        Txn::new()
            .when(self.seen.unchanged(&self.keys.node(self.me)))
            .delete(self.keys.member(self.me))
            .delete(self.keys.promise(self.me))
            .delete(self.keys.stance(self.me))
            .delete(self.keys.node(self.me))
    }
}

/// Records are plain data: their serialization can't fail.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
