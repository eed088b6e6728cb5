//! Ends leases whose time is over. Only the Raft leader does, and only by a command in the log.

use super::member::Member;
use crate::clock;
use crate::state::Command;
use ha::Instant;
use openraft::ServerState;
use std::sync::Arc;
use std::time::Duration;

/// Without any lease, and after a failed proposal.
const PAUSE_MAX: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(200);

/// A leadership of this member: which, and since when it knows.
type Leadership = (super::types::Vote, Instant);

pub(crate) async fn run(member: Arc<Member>) {
    let mut changes = member.raft.server_metrics();
    let mut leadership: Option<Leadership> = None;
    loop {
        leadership = observe(&member, leadership);
        let Some((_, since)) = leadership else {
            if changes.changed().await.is_err() {
                return;
            }
            continue;
        };
        let pause = end_leases(&member, since).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = member.machine.leases_changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Notices a new leadership, also one that began right after another ended.
fn observe(member: &Member, known: Option<Leadership>) -> Option<Leadership> {
    let changes = member.raft.server_metrics();
    let now = changes.borrow();
    if now.state != ServerState::Leader {
        return None;
    }
    match known {
        Some((vote, since)) if vote == now.vote => Some((vote, since)),
        _ => Some((now.vote, clock::now())),
    }
}

/// Proposes the end of every lease that is over; says when to look again.
async fn end_leases(member: &Member, since: Instant) -> Duration {
    let now = clock::now();
    let (over, next) = member.machine.look(|state, times| {
        let (over, alive): (Vec<_>, Vec<_>) = times
            .ends(state, since)
            .partition(|(_, _, end)| *end <= now);
        (over, alive.iter().map(|(_, _, end)| *end).min())
    });
    for (lease, renewals, _) in over {
        let limit = member.options.timing.request_timeout;
        let command = Command::Expire { lease, renewals };
        match member.write_here(command, limit).await {
            Ok(answer) => tracing::info!(lease = lease.0, ?answer, "a lease's time is over"),
            Err(refusal) => {
                tracing::debug!(
                    lease = lease.0,
                    ?refusal,
                    "the end of a lease is not committed"
                );
                return RETRY;
            }
        }
    }
    // Never in a tight loop: timers may fire a moment early.
    let next = next.map_or(PAUSE_MAX, |end| end.since(clock::now()));
    next.clamp(Duration::from_millis(1), PAUSE_MAX)
}
