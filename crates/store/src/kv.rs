//! The trait and its values.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Counts committed transactions. Rises for ever; etcd's `mod_revision` and `create_revision`.
pub type Revision = u64;

/// A lease's number. 0 is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub i64);

/// A key with its value at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub value: String,
    pub created: Revision,
    pub modified: Revision,
    /// The lease that removes this key when it ends.
    pub lease: Option<LeaseId>,
}

/// Of an entry that no store holds (any more).
const REMEMBERED: Revision = 0;

impl Entry {
    /// The store does not hold it: it is what was known last.
    pub fn is_remembered(&self) -> bool {
        self.modified == REMEMBERED
    }
}

/// All keys under a prefix at one revision. Cheap to clone: values are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub revision: Revision,
    pub entries: BTreeMap<String, Arc<Entry>>,
}

impl Snapshot {
    pub fn value(&self, key: &str) -> Option<&str> {
        self.entries.get(key).map(|entry| entry.value.as_str())
    }

    /// The same, with what is remembered of a key that is not there.
    #[must_use]
    pub fn remembering(&self, key: String, value: String) -> Self {
        let mut entries = self.entries.clone();
        let entry = Entry {
            value,
            created: REMEMBERED,
            modified: REMEMBERED,
            lease: None,
        };
        entries.entry(key).or_insert_with(|| Arc::new(entry));
        Self {
            revision: self.revision,
            entries,
        }
    }

    /// The guard that holds as long as `key` is what this snapshot says it is, absent included.
    pub fn unchanged(&self, key: &str) -> Guard {
        match self.entries.get(key).filter(|entry| !entry.is_remembered()) {
            Some(entry) => Guard::Unchanged {
                key: key.to_owned(),
                modified: entry.modified,
            },
            None => Guard::Absent {
                key: key.to_owned(),
            },
        }
    }
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    Absent { key: String },
    Present { key: String },
    Unchanged { key: String, modified: Revision },
    Equals { key: String, value: String },
}

/// An effect of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    Put {
        key: String,
        value: String,
        lease: Option<LeaseId>,
    },
    Delete {
        key: String,
    },
}

/// All guards hold: all ops happen, at one revision. One fails: nothing happens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    pub guards: Vec<Guard>,
    pub ops: Vec<Op>,
    /// Renew this lease to its full time to live as well, if the guards hold. Where they don't, it may be renewed all the
    /// same: etcd renews in a step of its own.
    pub renew: Option<LeaseId>,
}

impl Txn {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn when(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.ops.push(Op::Put {
            key: key.into(),
            value: value.into(),
            lease: None,
        });
        self
    }

    #[must_use]
    pub fn put_leased(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
        lease: LeaseId,
    ) -> Self {
        self.ops.push(Op::Put {
            key: key.into(),
            value: value.into(),
            lease: Some(lease),
        });
        self
    }

    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.ops.push(Op::Delete { key: key.into() });
        self
    }

    #[must_use]
    pub fn renew(mut self, lease: LeaseId) -> Self {
        self.renew = Some(lease);
        self
    }
}

/// What became of a transaction that the store answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Committed {
        revision: Revision,
    },
    /// A guard did not hold; nothing happened.
    Refused,
}

impl Outcome {
    pub fn is_committed(self) -> bool {
        matches!(self, Self::Committed { .. })
    }
}

/// Why the store gave no answer. After [`StoreError::Unknown`] a transaction may have happened or not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing happened: no majority, no leader, nobody reached.
    #[error("store not reachable: {0}")]
    Unreachable(String),
    /// Sent, but no answer: it may have happened.
    #[error("store did not answer in time, outcome unknown: {0}")]
    Unknown(String),
    #[error("lease {} has ended", .0.0)]
    LeaseEnded(LeaseId),
    /// This member may not go on (its disk failed, its identity was removed): the process must stop.
    #[error("store member failed: {0}")]
    Fatal(String),
    #[error("refused: {0}")]
    Denied(String),
}

impl StoreError {
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Unknown(_))
    }
}

pub type Result<T> = std::result::Result<T, StoreError>;

/// The latest known state under a prefix, pushed. It may lag behind the store: decisions made on it are
/// guarded by transactions. Never goes back in revision.
pub type View = watch::Receiver<Arc<Snapshot>>;

/// A linearizable key-value store with leases. Every call ends within the adapter's request timeout.
#[async_trait]
pub trait Store: std::fmt::Debug + Send + Sync + 'static {
    /// All keys under `prefix`, linearizable.
    async fn read(&self, prefix: &str) -> Result<Snapshot>;

    async fn commit(&self, txn: Txn) -> Result<Outcome>;

    /// A new lease that ends `ttl` after its last renewal (measured by the store, never shorter).
    async fn grant(&self, ttl: Duration) -> Result<LeaseId>;

    async fn renew(&self, lease: LeaseId) -> Result<()>;

    /// Ends the lease now; its keys are gone.
    async fn revoke(&self, lease: LeaseId) -> Result<()>;

    /// Follows a prefix. The first value is there at once (it may be empty until the first contact).
    fn view(&self, prefix: &str) -> View;
}
