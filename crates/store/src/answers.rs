//! What a member's answers and refusals mean to a caller of [`crate::Store`].

use crate::kv::{LeaseId, Outcome, Result, StoreError};
use crate::peer::message::Refusal;
use crate::state::{Answer, Command};

/// How one try of a write ended.
#[derive(Debug)]
pub(crate) enum Attempt {
    Answered(Answer),
    Refused(Refusal),
}

/// Whether doing it twice is the same as doing it once.
pub(crate) fn may_repeat(command: &Command) -> bool {
    match command {
        Command::Commit(_) => false,
        Command::Grant { .. } | Command::Renew(_) | Command::Revoke(_) | Command::Expire { .. } => {
            true
        }
    }
}

/// Reads an answer to a command that an earlier attempt may have carried out already.
pub(crate) fn of_repeated(command: &Command, answer: Answer, sent_before: bool) -> Answer {
    match (command, answer) {
        // Nobody else draws the same number.
        (Command::Grant { .. }, Answer::LeaseTaken) if sent_before => Answer::Done,
        (Command::Revoke(_), Answer::LeaseEnded(_)) if sent_before => Answer::Done,
        (_, answer) => answer,
    }
}

pub(crate) fn error(refusal: Refusal) -> StoreError {
    match refusal {
        Refusal::WrongMember { .. } => {
            StoreError::Unreachable("another member answers at the leader's address".into())
        }
        Refusal::NotLeader { .. } => StoreError::Unreachable("no leader is known".into()),
        Refusal::Unreachable(why) => StoreError::Unreachable(why),
        Refusal::Unknown(why) => StoreError::Unknown(why),
        Refusal::Denied(why) => StoreError::Denied(why),
        Refusal::LeaseEnded(lease) => StoreError::LeaseEnded(lease),
        // It is that member that failed, not this one.
        Refusal::Failed(why) => StoreError::Unreachable(why),
    }
}

/// The error of the last attempt, given that an earlier one may have succeeded.
pub(crate) fn after(error: StoreError, sent_before: bool) -> StoreError {
    match error {
        StoreError::Unreachable(why) if sent_before => StoreError::Unknown(why),
        error => error,
    }
}

pub(crate) fn outcome(answer: Answer) -> Result<Outcome> {
    match answer {
        Answer::Outcome(outcome) => Ok(outcome),
        Answer::LeaseEnded(lease) => Err(StoreError::LeaseEnded(lease)),
        other => Err(odd(other)),
    }
}

pub(crate) fn done(answer: Answer) -> Result<()> {
    match answer {
        Answer::Done => Ok(()),
        Answer::LeaseEnded(lease) => Err(StoreError::LeaseEnded(lease)),
        other => Err(odd(other)),
    }
}

/// A number for a new lease. Random, so that a lease of a former cluster is not taken for one of this.
pub(crate) fn draw_lease() -> LeaseId {
    LeaseId(rand::random_range(1..=i64::MAX))
}

fn odd(answer: Answer) -> StoreError {
    StoreError::Unknown(format!("an odd answer: {answer:?}"))
}
