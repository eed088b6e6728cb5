//! A backend that commits in a loop of its own: it needs no client to go on, so it is the one that
//! outlives its postmaster. Each commit that was acknowledged is told by a notice that follows it.

use super::connect::Route;
use super::history::{Operation, Outcome};
use anyhow::Result;
use std::time::{Duration, Instant};
use tokio::task::{AbortHandle, JoinHandle};

/// A running loop.
#[derive(Debug)]
pub struct Busy {
    heard: JoinHandle<Vec<Operation>>,
    hang_up: AbortHandle,
}

impl Busy {
    pub(super) async fn start(route: &Route, number: u32, begun: Instant) -> Result<Self> {
        let mut session = route.connect(Duration::from_secs(2)).await?;
        let (node, timeline) = (session.node.clone(), session.timeline.clone());
        let hang_up = session.hang_up();
        let heard = tokio::spawn(async move {
            let mut operations = Vec::new();
            let mut before = begun.elapsed();
            let mut hear = |text: String| {
                let answered = begun.elapsed();
                let n = text.strip_prefix("committed ").and_then(|n| n.parse().ok());
                operations.extend(n.map(|n| Operation {
                    writer: number,
                    n: Some(n),
                    invoked: before,
                    answered,
                    outcome: Outcome::Acknowledged,
                    node: node.clone(),
                    timeline: timeline.clone(),
                    error: None,
                }));
                before = answered;
            };
            {
                let command = format!("CALL standfast_busy({number})");
                let call = session.client.batch_execute(&command);
                tokio::pin!(call);
                loop {
                    tokio::select! {
                        biased;
                        Some(text) = session.notices.recv() => hear(text),
                        // It ends with its backend, by an error that says nothing new.
                        _ = &mut call => break,
                    }
                }
            }
            while let Ok(text) = session.notices.try_recv() {
                hear(text);
            }
            operations
        });
        Ok(Self { heard, hang_up })
    }

    /// Ends the loop, if its backend has not ended yet, and gives what was acknowledged.
    pub(super) async fn stop(self) -> Vec<Operation> {
        self.hang_up.abort();
        self.heard.await.unwrap_or_default()
    }
}
