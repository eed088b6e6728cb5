//! One line in the log for each failover: what became of those who were there.

use super::{State, Stats};
use crate::session::Shared;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether those who wait are served.
const LOOK: Duration = Duration::from_millis(20);

/// What happened so long before it was known that the primary is gone belongs to the same failover:
/// sessions lose their server first.
const BEFORE: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

/// Watches the cluster for as long as it is told of.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut seen = shared.seen.clone();
    let mut epoch = seen.borrow_and_update().epoch;
    let mut calm = VecDeque::from([Tally::of(&shared.stats)]);
    let mut second = tokio::time::interval(SECOND);
    loop {
        tokio::select! {
            _ = second.tick() => {
                calm.truncate(BEFORE - 1);
                calm.push_front(Tally::of(&shared.stats));
                shared.stats.forget_longest();
                continue;
            }
            changed = seen.changed() => if changed.is_err() { return },
        }
        let (now, is_there) = {
            let topology = seen.borrow_and_update();
            (topology.epoch, topology.primary.is_ok())
        };
        // The first one is no failover, and neither is one that is told again.
        if epoch == ha::Epoch::NONE || (is_there && now == epoch) {
            epoch = epoch.max(now);
            continue;
        }
        let clients = shared.closing.clients();
        let begun = Instant::now();
        let found = match seen.wait_for(|now| now.primary.is_ok()).await {
            Ok(found) => Arc::clone(&found),
            // Nobody tells any more.
            Err(_) => return,
        };
        let without = begun.elapsed();
        let limit = Instant::now() + shared.limits.load().hold_time;
        while shared.roster.count(State::Waiting) > 0 && Instant::now() < limit {
            tokio::time::sleep(LOOK).await;
        }
        if let Ok(primary) = &found.primary
            && found.epoch != epoch
        {
            shared.stats.failovers.count();
            if let Some(before) = calm.back() {
                before.tell(&shared.stats, clients, without, &primary.name, found.epoch);
            }
            calm.clear();
            calm.push_front(Tally::of(&shared.stats));
        }
        epoch = found.epoch;
    }
}

/// The counters at one moment.
struct Tally {
    moved: u64,
    held: u64,
    refused: u64,
    lost: u64,
    closed: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn of(stats: &Stats) -> Self {
        Self {
            moved: stats.moved.get(),
            held: stats.held.get(),
            refused: stats.refused.get(),
            lost: stats.lost.get(),
            closed: stats.closed(),
        }
    }

    fn tell(
        &self,
        stats: &Stats,
        clients: usize,
        without: Duration,
        primary: &str,
        epoch: ha::Epoch,
    ) {
        let now = Self::of(stats);
        let since = |reason: &&str| self.closed.get(*reason).copied().unwrap_or_default();
        let closed: Vec<_> = now
            .closed
            .iter()
            .map(|(reason, count)| (reason, count - since(reason)))
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        let closed = match closed.is_empty() {
            true => "none".to_owned(),
            false => closed.join(", "),
        };
        let longest = stats.take_longest();
        tracing::info!(
            primary,
            epoch = epoch.0,
            clients,
            held = now.held - self.held,
            moved = now.moved - self.moved,
            lost = now.lost - self.lost,
            refused = now.refused - self.refused,
            closed,
            without_primary_ms = without.as_millis(),
            longest_wait_ms = longest.as_millis(),
            "the primary has changed"
        );
    }
}
