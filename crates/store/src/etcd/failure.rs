//! What a failed call to etcd means: what is known of its effect, and whether to ask again.
//!
//! **Invariant:** a failure counts as "nothing happened" only where etcd refuses before it proposes anything, or where
//! the call never left this process. Whatever is not known to be harmless is taken for an unknown outcome.

use crate::kv::StoreError;

/// How a call failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// It never left this process.
    NotSent(String),
    /// It left; no answer came.
    NoAnswer(String),
    /// etcd answered with an error.
    Status(Status),
}

/// An error as gRPC carries it.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) code: u32,
    pub(super) message: String,
    /// Who said so.
    pub(super) member: String,
}

/// What an error of etcd says of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// No such lease; nothing happened.
    LeaseEnded,
    /// The lease's number is in use; nothing happened.
    LeaseTaken,
    /// Our token is none (any more); nothing happened.
    LogIn,
    /// etcd does not ask who we are; nothing happened.
    NoAuth,
    /// It will be refused again; nothing happened.
    Denied,
    /// Not here, or not now; nothing happened.
    NotNow,
    Unknown,
}

/// gRPC's numbers, as far as they tell something.
mod code {
    pub(super) const INVALID_ARGUMENT: u32 = 3;
    pub(super) const NOT_FOUND: u32 = 5;
    pub(super) const PERMISSION_DENIED: u32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: u32 = 8;
    pub(super) const FAILED_PRECONDITION: u32 = 9;
    pub(super) const UNIMPLEMENTED: u32 = 12;
    pub(super) const UNAVAILABLE: u32 = 14;
    pub(super) const UNAUTHENTICATED: u32 = 16;
}

impl Status {
    /// gRPC's codes alone are too coarse; etcd's own clients tell its errors apart by these sentences as well.
    pub(super) fn meaning(&self) -> Meaning {
        let text = self.message.strip_prefix("etcdserver: ");
        let text = text.unwrap_or(&self.message);
        match (self.code, text) {
            (code::NOT_FOUND, "requested lease not found") => Meaning::LeaseEnded,
            (code::FAILED_PRECONDITION, "lease already exists") => Meaning::LeaseTaken,
            (code::FAILED_PRECONDITION, "authentication is not enabled") => Meaning::NoAuth,
            (code::UNAUTHENTICATED, _)
            | (
                code::INVALID_ARGUMENT,
                "user name is empty" | "revision of auth store is old",
            ) => Meaning::LogIn,
            // Also a wrong password, a request that is too large, and a server that speaks something else.
            (code::PERMISSION_DENIED | code::INVALID_ARGUMENT | code::UNIMPLEMENTED, _) => {
                Meaning::Denied
            }
            // Too many requests, or its quota of disk space is used up: refused before it is proposed, or, on every
            // member alike, when it is applied.
            (code::RESOURCE_EXHAUSTED, _)
            // Said before anything is proposed, because every call of ours says that it needs a leader.
            | (code::UNAVAILABLE, "no leader" | "rpc not supported for learner") => Meaning::NotNow,
            _ => Meaning::Unknown,
        }
    }
}

impl Failure {
    /// Whether it is certain that the call had no effect.
    pub(super) fn had_no_effect(&self) -> bool {
        match self {
            Self::NotSent(_) => true,
            Self::NoAnswer(_) => false,
            Self::Status(status) => status.meaning() != Meaning::Unknown,
        }
    }

    /// Whether another member, or the same one later, may answer otherwise.
    pub(super) fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::NoAnswer(_) => true,
            Self::Status(status) => matches!(status.meaning(), Meaning::NotNow | Meaning::Unknown),
        }
    }

    pub(super) fn meaning(&self) -> Option<Meaning> {
        match self {
            Self::Status(status) => Some(status.meaning()),
            Self::NotSent(_) | Self::NoAnswer(_) => None,
        }
    }

    /// For a call that may have had an effect.
    pub(super) fn of_write(self) -> StoreError {
        let certain = self.had_no_effect();
        match self.into_error() {
            StoreError::Unreachable(why) if !certain => StoreError::Unknown(why),
            error => error,
        }
    }

    /// For a call that has none.
    pub(super) fn of_read(self) -> StoreError {
        self.into_error()
    }

    fn into_error(self) -> StoreError {
        match self {
            Self::NotSent(why) | Self::NoAnswer(why) => StoreError::Unreachable(why),
            Self::Status(status) => {
                let said = format!("etcd at {} says: {}", status.member, status.message);
                match status.meaning() {
                    Meaning::Denied | Meaning::LogIn | Meaning::NoAuth => StoreError::Denied(said),
                    Meaning::LeaseEnded
                    | Meaning::LeaseTaken
                    | Meaning::NotNow
                    | Meaning::Unknown => StoreError::Unreachable(said),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u32, message: &str) -> Failure {
        Failure::Status(Status {
            code,
            message: message.into(),
            member: "m:2379".into(),
        })
    }

    #[test]
    fn what_may_have_happened_is_never_called_harmless() {
        for (code, message) in [
            (14, "etcdserver: request timed out"),
            (
                14,
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            (
                14,
                "etcdserver: request timed out, possibly due to connection lost",
            ),
            (14, "etcdserver: server stopped"),
            (14, "etcdserver: leader changed"),
            (14, "error reading from server: EOF"),
            (4, "context deadline exceeded"),
            (1, "context canceled"),
            (2, "raft proposal dropped"),
            (13, "panic"),
            (15, "etcdserver: corrupt cluster"),
            (99, ""),
        ] {
            let failure = status(code, message);
            assert!(!failure.had_no_effect(), "{message}");
            assert!(failure.is_worth_a_retry(), "{message}");
            assert!(
                matches!(failure.of_write(), StoreError::Unknown(_)),
                "{message}"
            );
        }
        let lost = Failure::NoAnswer("cut".into());
        assert!(matches!(lost.of_write(), StoreError::Unknown(_)));
    }

    #[test]
    fn what_was_refused_before_it_began_did_not_happen() {
        for (code, message) in [
            (14, "etcdserver: no leader"),
            (8, "etcdserver: too many requests"),
            (8, "etcdserver: mvcc: database space exceeded"),
        ] {
            let failure = status(code, message);
            assert!(failure.is_worth_a_retry(), "{message}");
            assert!(
                matches!(failure.of_write(), StoreError::Unreachable(_)),
                "{message}"
            );
        }
        for (code, message) in [
            (7, "etcdserver: permission denied"),
            (
                3,
                "etcdserver: authentication failed, invalid user ID or password",
            ),
            (3, "etcdserver: request is too large"),
            (12, "unknown service etcdserverpb.KV"),
        ] {
            let failure = status(code, message);
            assert!(!failure.is_worth_a_retry(), "{message}");
            assert!(
                matches!(failure.of_write(), StoreError::Denied(_)),
                "{message}"
            );
        }
        let unsent = Failure::NotSent("refused".into());
        assert!(matches!(unsent.of_write(), StoreError::Unreachable(_)));
    }
}
