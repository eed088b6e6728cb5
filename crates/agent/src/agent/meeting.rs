//! The first contact with the store: what it held when this agent began.
//!
//! **Invariant:** nothing is decided on a view that is older than the store's content at the agent's start. A view is empty
//! until its adapter has read it, and what a member of the embedded store kept may be long past; a request of ours may
//! have been answered before that.

use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::{Revision, Snapshot, Store};
use tokio::sync::Notify;

/// Between two attempts to read.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether the view has caught up with the agent's start.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    revision: Arc<OnceLock<Revision>>,
    over: bool,
}

impl Meeting {
    /// Reads once what the view must have reached; ends with that.
    pub(super) fn begin(
        &self,
        store: Arc<dyn Store>,
        prefix: String,
        wake: Arc<Notify>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let revision = Arc::clone(&self.revision);
        async move {
            let read = loop {
                match store.read(&prefix).await {
                    Ok(snapshot) => break snapshot.revision,
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            };
            // Set once, here.
            let _ = revision.set(read);
            wake.notify_one();
        }
    }

    pub(super) fn look(&mut self, view: &Snapshot) {
        let reached = |first: &Revision| view.revision >= *first;
        self.over |= self.revision.get().is_some_and(reached);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{MemoryStore, Op, Txn};

    #[tokio::test]
    async fn a_view_that_is_behind_is_not_known() {
        let store = MemoryStore::new();
        let put = |value: &str| Op::Put {
            key: "service/x/a".to_owned(),
            value: value.to_owned(),
            lease: None,
        };
        let (early, late) = (store.view("service/x/"), store.handle());
        let empty = Arc::clone(&early.borrow());
        for value in ["1", "2"] {
            let txn = Txn {
                ops: vec![put(value)],
                ..Txn::default()
            };
            late.commit(txn).await.unwrap();
        }
        let mut meeting = Meeting::default();
        meeting.look(&store.read("service/x/").await.unwrap());
        assert!(!meeting.is_over(), "nothing has been read yet");
        let wake = Arc::new(Notify::new());
        let store = Arc::new(store);
        meeting
            .begin(
                Arc::clone(&store) as _,
                "service/x/".to_owned(),
                Arc::clone(&wake),
            )
            .await;
        wake.notified().await;
        meeting.look(&empty);
        assert!(!meeting.is_over(), "an empty view is older");
        meeting.look(&early.borrow());
        assert!(meeting.is_over());
        meeting.look(&empty);
        assert!(meeting.is_over(), "for good");
    }
}
