//! A monitor: a voter of the store without Postgres. It decides nothing; it shows what the cluster is.

use crate::clock::now;
use ha::NodeName;
use std::sync::Arc;
use std::time::Duration;
use store::layout::{Keys, read_cluster};
use store::{Store, View};
use tokio::sync::watch;

/// What the monitor is made of.
#[derive(Debug)]
pub struct WitnessOptions {
    pub name: NodeName,
    pub keys: Keys,
    pub store: Arc<dyn Store>,
    pub served: watch::Sender<Arc<api::Served>>,
}

/// Publishes the store's content.
#[derive(Debug)]
pub struct Witness {
    options: WitnessOptions,
    view: View,
}

impl Witness {
    pub fn new(options: WitnessOptions) -> Self {
        let view = options.store.view(options.keys.prefix());
        Self { options, view }
    }

    /// Runs until its task is aborted.
    pub async fn run(mut self) {
        let mut heard = now();
        loop {
            // Asks now and then, so that it knows whether it is still part of the majority.
            if now().since(heard) > Duration::from_secs(1)
                && self
                    .options
                    .store
                    .read(&self.options.keys.leader())
                    .await
                    .is_ok()
            {
                heard = now();
            }
            self.publish(heard);
            let _ = tokio::time::timeout(Duration::from_secs(1), self.view.changed()).await;
        }
    }

    fn publish(&mut self, heard: ha::Instant) {
        let snapshot = Arc::clone(&self.view.borrow_and_update());
        let cluster = match read_cluster(&self.options.keys, &snapshot) {
            Ok(cluster) => Some(cluster),
            Err(error) => {
                tracing::error!(%error, "the store's content can't be read");
                None
            }
        };
        let silence = now().since(heard);
        self.options.served.send_modify(|served| {
            let served = Arc::make_mut(served);
            served.witness = true;
            served.cluster = cluster;
            served.snapshot = snapshot;
            served.store_silent_for = (silence > Duration::from_secs(3)).then_some(silence);
            served.loop_at = now();
        });
    }
}
