//! An administrator's word that nothing new begins.

use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// One for a proxy.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    is_on: AtomicBool,
    changed: Notify,
}

impl Pause {
    /// Whether it was set or lifted by this call.
    pub(crate) fn set(&self, on: bool) -> bool {
        let was_on = self.is_on.swap(on, Ordering::AcqRel);
        self.changed.notify_waiters();
        was_on != on
    }

    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// Until it is lifted.
    pub(crate) async fn over(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.is_on() {
                return;
            }
            changed.await;
        }
    }
}
