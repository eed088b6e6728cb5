//! The events: a ring in the store, numbered by a counter.
//!
//! **Invariant:** an event's number is used once: counter and event are written in one transaction that is guarded by
//! the counter.

use crate::clock;
use crate::error::Refusal;
use ha::{Decision, Epoch, NodeName, NodeState};
use store::layout::{EventRecord, Keys};
use store::{Outcome, Snapshot, Store, StoreError, Txn};

/// How often a refused event is tried again: each refusal means that another one was written meanwhile.
const TRIES: u32 = 10;

/// Something that happened, before it has a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub node: NodeName,
    pub epoch: Epoch,
    pub state: NodeState,
    pub assigned: NodeState,
    pub rule: String,
    pub reason: String,
}

impl Event {
    /// What a decision has to say.
    pub fn of(node: &NodeName, epoch: Epoch, decision: &Decision) -> Self {
        Self {
            node: node.clone(),
            epoch,
            state: decision.state,
            assigned: decision.assigned,
            rule: decision.rule.to_owned(),
            reason: decision.reason.clone(),
        }
    }

    /// `txn` with this event in it. It is then refused also when another event was written since `snapshot`: read
    /// again and repeat, or use [`record_event`] after a transaction that must not wait for others' events.
    #[must_use]
    pub fn within(&self, txn: Txn, keys: &Keys, snapshot: &Snapshot) -> Txn {
        self.numbered(txn, keys, snapshot, clock::timestamp()).0
    }

    fn numbered(
        &self,
        txn: Txn,
        keys: &Keys,
        snapshot: &Snapshot,
        time: String,
    ) -> (Txn, EventRecord) {
        let n = last_number(keys, snapshot) + 1;
        let record = EventRecord {
            n,
            time,
            node: self.node.clone(),
            epoch: self.epoch,
            state: self.state,
            assigned: self.assigned,
            rule: self.rule.clone(),
            reason: self.reason.clone(),
        };
        let counter = keys.event_counter();
        let txn = txn
            .when(snapshot.unchanged(&counter))
            .put(counter, n.to_string())
            .put(keys.event(n), to_text(&record));
        (txn, record)
    }
}

/// Appends an event to the ring, whatever others append at the same time. `snapshot` is a hint: an old one costs a read.
/// Returns its number.
pub async fn record_event(
    store: &dyn Store,
    keys: &Keys,
    snapshot: &Snapshot,
    event: &Event,
) -> Result<u64, Refusal> {
    let time = clock::timestamp();
    let mut newer: Option<Snapshot> = None;
    let mut unknown: Option<EventRecord> = None;
    for _ in 0..TRIES {
        let current = newer.as_ref().unwrap_or(snapshot);
        // After an answer that was lost: is it there already?
        if let Some(record) = &unknown
            && current.value(&keys.event(record.n)) == Some(to_text(record).as_str())
        {
            return Ok(record.n);
        }
        let (txn, record) = event.numbered(Txn::new(), keys, current, time.clone());
        match store.commit(txn).await {
            Ok(Outcome::Committed { .. }) => return Ok(record.n),
            Ok(Outcome::Refused) => {}
            Err(StoreError::Unknown(why)) => {
                tracing::debug!(%why, "whether an event was written is unknown");
                unknown = Some(record);
            }
            Err(error) => return Err(error.into()),
        }
        newer = Some(read_ring(store, keys, unknown.as_ref()).await?);
    }
    Err(Refusal::conflict(format!(
        "an event was refused {TRIES} times: others write too many"
    )))
}

/// The counter, and the place of an event in doubt.
async fn read_ring(
    store: &dyn Store,
    keys: &Keys,
    doubted: Option<&EventRecord>,
) -> Result<Snapshot, StoreError> {
    let mut found = store.read(&keys.event_counter()).await?;
    if let Some(record) = doubted {
        let place = store.read(&keys.event(record.n)).await?;
        found.entries.extend(place.entries);
    }
    Ok(found)
}

/// The number of the last event; 0 before the first.
pub fn last_number(keys: &Keys, snapshot: &Snapshot) -> u64 {
    let text = snapshot.value(&keys.event_counter());
    text.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The events after number `after`, oldest first. One that can't be read is left out: it hinders nobody.
pub fn events_after(keys: &Keys, snapshot: &Snapshot, after: u64) -> Vec<EventRecord> {
    let last = last_number(keys, snapshot);
    if last <= after {
        return Vec::new();
    }
    let oldest = last.saturating_sub(store::layout::EVENTS_KEPT) + 1;
    (oldest.max(after + 1)..=last)
        .filter_map(|n| {
            let record: EventRecord = serde_json::from_str(snapshot.value(&keys.event(n))?).ok()?;
            (record.n == n).then_some(record)
        })
        .collect()
}

/// The last `count` events, oldest first.
pub fn last_events(keys: &Keys, snapshot: &Snapshot, count: u64) -> Vec<EventRecord> {
    events_after(
        keys,
        snapshot,
        last_number(keys, snapshot).saturating_sub(count),
    )
}

pub(crate) fn to_text<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_string(value) {
        Ok(text) => text,
        Err(_) => unreachable!("the store's records have text keys and plain values"),
    }
}
