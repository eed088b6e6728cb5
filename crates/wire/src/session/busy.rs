//! Why a connection cannot be used for something else just now.

use super::request::{Request, RequestKind};
use super::{Copying, Session};
use crate::backend::TransactionStatus;

/// Why a connection is not idle between two transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    #[error("the server ends the connection")]
    Ended,
    #[error("what the connection is in the middle of cannot be told any more")]
    Lost,
    #[error("the server has not let us in yet")]
    Starting,
    #[error("a COPY is going on")]
    Copying(Copying),
    #[error("{unanswered} requests are not answered, the oldest is {oldest:?}")]
    Unanswered {
        oldest: RequestKind,
        unanswered: usize,
    },
    #[error("after an error the server waits for a Sync")]
    Skipping,
    /// It may have answered something that it is taken to have skipped. The next answer that is
    /// neither an error nor ReadyForQuery ends most such doubts: an empty Query brings one.
    #[error("the server may have an answer left after an error")]
    Doubtful,
    #[error("a batch is open that no Sync has ended")]
    BatchOpen,
    #[error("in a transaction")]
    InTransaction,
    #[error("in a transaction that has failed")]
    InFailedTransaction,
}

impl Session {
    /// Whether the server waits for the next request outside of any transaction.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.status == TransactionStatus::Idle && self.queue.is_empty() && self.idle().is_ok()
    }

    /// Likewise.
    ///
    /// # Errors
    /// The reason why it does not.
    pub fn idle(&self) -> Result<(), Busy> {
        if self.ended {
            return Err(Busy::Ended);
        }
        if self.lost {
            return Err(Busy::Lost);
        }
        if let Some(copying) = self.copying {
            return Err(Busy::Copying(copying));
        }
        if !self.queue.is_empty() {
            return Err(self.owes());
        }
        if self.doubtful > 0 || self.early || self.unsure {
            return Err(Busy::Doubtful);
        }
        if self.skipping {
            return Err(Busy::Skipping);
        }
        if self.batch_open {
            return Err(Busy::BatchOpen);
        }
        match self.status {
            TransactionStatus::Idle => Ok(()),
            TransactionStatus::InTransaction => Err(Busy::InTransaction),
            TransactionStatus::Failed => Err(Busy::InFailedTransaction),
        }
    }

    /// What the requests in the queue say.
    fn owes(&self) -> Busy {
        if matches!(self.queue.front(), Some(head) if matches!(head.request, Request::Start)) {
            return Busy::Starting;
        }
        match self.unanswered().next() {
            Some((oldest, _)) => Busy::Unanswered {
                oldest,
                unanswered: self.unanswered().count(),
            },
            None => Busy::Doubtful,
        }
    }
}
