//! An administrator's word that nothing new begins.

use tokio::sync::watch;

/// One for a proxy.
#[derive(Debug)]
pub(crate) struct Pause(watch::Sender<bool>);

impl Default for Pause {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Pause {
    /// Whether it was set or lifted by this call.
    pub(crate) fn set(&self, on: bool) -> bool {
        self.0
            .send_if_modified(|now| std::mem::replace(now, on) != on)
    }

    pub(crate) fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// Until it is lifted.
    pub(crate) fn over(&self) -> impl Future<Output = ()> + use<> {
        let mut on = self.0.subscribe();
        async move {
            // It fails when the proxy ends, and then everything does.
            let _ = on.wait_for(|on| !on).await;
        }
    }
}
