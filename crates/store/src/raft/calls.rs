//! Reads and writes of this process: here if this member leads, else at the leader.
//!
//! **Invariant:** a call ends within its limit. What may have happened is called unknown; what is tried
//! again certainly has not happened, or may happen twice without a difference.

use super::member::{Leader, Member};
use crate::answers::{self, Attempt, may_repeat};
use crate::kv::{Result, Snapshot, StoreError};
use crate::peer::connection::CallError;
use crate::peer::message::{Refusal, Request, Response};
use crate::state::{Answer, Command};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Long enough for a majority to answer; short enough to try elsewhere within a call's limit.
const READ_ATTEMPT: Duration = Duration::from_millis(300);

/// After a failed attempt, unless the leader changes before.
const PAUSE: Duration = Duration::from_millis(20);

impl Member {
    pub(crate) async fn write(&self, command: Command) -> Result<Answer> {
        let deadline = Instant::now() + self.options.timing.request_timeout;
        let mut sent_before = false;
        loop {
            self.failure()?;
            let left = deadline.saturating_duration_since(Instant::now());
            let leader = self.leader();
            let refusal = match self.write_once(&leader, command.clone(), left).await {
                Attempt::Answered(answer) => {
                    return Ok(answers::of_repeated(&command, answer, sent_before));
                }
                Attempt::Refused(refusal) => refusal,
            };
            let unknown = matches!(refusal, Refusal::Unknown(_));
            sent_before |= unknown;
            let final_error = answers::error(refusal);
            let hopeless = !final_error.is_retryable() || (unknown && !may_repeat(&command));
            if hopeless || !self.pause(&leader, deadline).await {
                return Err(answers::after(final_error, sent_before));
            }
        }
    }

    pub(crate) async fn read(&self, prefix: &str) -> Result<Snapshot> {
        let deadline = Instant::now() + self.options.timing.request_timeout;
        loop {
            self.failure()?;
            let left = deadline
                .saturating_duration_since(Instant::now())
                .min(READ_ATTEMPT);
            let leader = self.leader();
            let error = match self.read_once(&leader, prefix, left).await {
                Ok(snapshot) => return Ok(snapshot),
                // A read changes nothing, so its loss leaves nothing unknown.
                Err(Refusal::Unknown(why)) => StoreError::Unreachable(why),
                Err(refusal) => answers::error(refusal),
            };
            if !error.is_retryable() || !self.pause(&leader, deadline).await {
                return Err(error);
            }
        }
    }

    async fn write_once(&self, leader: &Leader, command: Command, left: Duration) -> Attempt {
        let repeatable = may_repeat(&command);
        let attempt = async {
            match leader {
                Leader::Me => self.write_here(command, left).await,
                Leader::Other(id, peer) => {
                    let request = Request::Write(command);
                    let called = self
                        .pool
                        .call_within(left, &peer.address, Some(*id), request)
                        .await;
                    match called.map_err(refusal)? {
                        Response::Answer(answer) => Ok(answer),
                        other => Err(Refusal::Unknown(format!("an odd answer: {other:?}"))),
                    }
                }
                Leader::Nobody => Err(Refusal::NotLeader { leader: None }),
            }
        };
        let result = tokio::select! {
            result = attempt => result,
            () = self.leader_is_not(leader), if repeatable && *leader != Leader::Nobody => {
                Err(Refusal::Unknown("the leader changed during the write".into()))
            }
        };
        match result {
            Ok(answer) => Attempt::Answered(answer),
            Err(refusal) => Attempt::Refused(refusal),
        }
    }

    async fn read_once(
        &self,
        leader: &Leader,
        prefix: &str,
        left: Duration,
    ) -> std::result::Result<Snapshot, Refusal> {
        match leader {
            Leader::Me => self.read_here(prefix, left).await,
            Leader::Other(id, peer) => {
                let request = Request::Read {
                    prefix: prefix.to_owned(),
                };
                let called = self
                    .pool
                    .call_within(left, &peer.address, Some(*id), request)
                    .await;
                match called.map_err(refusal)? {
                    Response::Read(page) => Ok(page.into()),
                    other => Err(Refusal::Unknown(format!("an odd answer: {other:?}"))),
                }
            }
            Leader::Nobody => Err(Refusal::NotLeader { leader: None }),
        }
    }

    /// Waits a little, or for another leader. Says whether there is time for another attempt.
    async fn pause(&self, leader: &Leader, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        // Either way there is something new to try.
        let _ = timeout(left.min(PAUSE), self.leader_is_not(leader)).await;
        Instant::now() < deadline
    }

    async fn leader_is_not(&self, leader: &Leader) {
        let mut changes = self.raft.server_metrics();
        while self.leader() == *leader {
            if changes.changed().await.is_err() {
                // Raft has ended; nothing changes any more.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// What a call without an answer means.
pub(crate) fn refusal(error: CallError) -> Refusal {
    match error {
        CallError::NotSent(why) => Refusal::Unreachable(why),
        CallError::Lost(why) => Refusal::Unknown(why),
        CallError::Denied(why) => Refusal::Denied(why),
        CallError::Refused(refusal) => refusal,
    }
}
