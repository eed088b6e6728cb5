//! What a client is told in a server's stead, in PostgreSQL's words where it has some.
//!
//! **Invariant:** `40001` is said only of what is certainly not committed, and leaves the session
//! open; what may be committed is `08007`, and ends it.

use wire::backend::{Report, SqlState};

pub(crate) const LOST_TRANSACTION: SqlState = SqlState(*b"40001");
pub(crate) const IN_FAILED_TRANSACTION: SqlState = SqlState(*b"25P02");
pub(crate) const UNKNOWN_OUTCOME: SqlState = SqlState(*b"08007");
pub(crate) const ADMIN_SHUTDOWN: SqlState = SqlState(*b"57P01");
pub(crate) const CRASH_SHUTDOWN: SqlState = SqlState(*b"57P02");
pub(crate) const CANNOT_CONNECT_NOW: SqlState = SqlState(*b"57P03");
pub(crate) const QUERY_CANCELED: SqlState = SqlState(*b"57014");
pub(crate) const DUPLICATE_STATEMENT: SqlState = SqlState(*b"42P05");
pub(crate) const NO_SUCH_STATEMENT: SqlState = SqlState(*b"26000");
pub(crate) const PROTOCOL_VIOLATION: SqlState = SqlState(*b"08P01");
pub(crate) const TOO_MANY_CONNECTIONS: SqlState = SqlState(*b"53300");
pub(crate) const LIMIT_EXCEEDED: SqlState = SqlState(*b"53400");
pub(crate) const INVALID_PASSWORD: SqlState = SqlState(*b"28P01");
pub(crate) const INVALID_AUTHORIZATION: SqlState = SqlState(*b"28000");
pub(crate) const UNSUPPORTED: SqlState = SqlState(*b"0A000");

/// A transaction went with its server. It is not committed, and the session goes on.
pub(crate) fn lost_transaction() -> Report {
    Report::error(
        LOST_TRANSACTION,
        "could not continue the transaction: its server was lost",
    )
    .detail("Nothing of the transaction is committed.")
    .hint("The transaction might succeed if retried.")
}

/// The same for a request of its own that has certainly done nothing.
pub(crate) fn lost_request() -> Report {
    Report::error(
        LOST_TRANSACTION,
        "could not finish the request: its server was lost",
    )
    .detail("The request has changed nothing.")
    .hint("It might succeed if retried.")
}

/// What a transaction that has failed answers to everything but its end.
pub(crate) fn in_failed_transaction() -> Report {
    Report::error(
        IN_FAILED_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

/// The server went while it may have been committing.
pub(crate) fn unknown_outcome() -> Report {
    Report::fatal(
        UNKNOWN_OUTCOME,
        "the outcome of the last transaction is not known: its server was lost",
    )
    .detail("It may be committed or not; find out before it is tried again.")
}

/// The session holds what no other server can be given.
pub(crate) fn unmovable(reasons: &str) -> Report {
    Report::fatal(
        ADMIN_SHUTDOWN,
        "terminating connection: the session cannot be moved to another server",
    )
    .detail(&format!("It holds {reasons}."))
}

/// The failover may have taken commits that this session knows of.
pub(crate) fn lossy() -> Report {
    Report::fatal(
        ADMIN_SHUTDOWN,
        "terminating connection: a failover may have lost committed transactions",
    )
    .detail("The cluster commits without waiting for standbys, or somebody has accepted the loss.")
}

/// The wait for a server has come to an end; `why` says what it was for.
pub(crate) fn held_too_long(why: &str) -> Report {
    Report::error(CANNOT_CONNECT_NOW, "no server took the request in time").detail(why)
}

/// A session holds more than one may.
pub(crate) fn too_much_prepared(why: &str) -> Report {
    Report::fatal(LIMIT_EXCEEDED, "too many prepared statements")
        .detail(&format!("Counted by the proxy, {why}."))
        .hint("Close statements that are not needed any more.")
}

/// There are as many as there may be.
pub(crate) fn too_many_clients() -> Report {
    Report::fatal(TOO_MANY_CONNECTIONS, "sorry, too many clients already")
}

/// The same where it is the proxy that has them.
pub(crate) fn full(most: usize) -> Report {
    let detail = format!("The proxy has {most} clients.");
    let hint =
        "max_client_conn says how many it may have, and its file descriptors say how many it can.";
    too_many_clients().detail(&detail).hint(hint)
}

/// Who it is was not clear in time.
pub(crate) fn late() -> Report {
    Report::fatal(QUERY_CANCELED, "canceling authentication due to timeout")
}

pub(crate) fn canceled() -> Report {
    Report::error(QUERY_CANCELED, "canceling statement due to user request")
}

pub(crate) fn protocol(what: &str) -> Report {
    Report::fatal(PROTOCOL_VIOLATION, what)
}

pub(crate) fn closing() -> Report {
    Report::fatal(
        ADMIN_SHUTDOWN,
        "terminating connection due to administrator command",
    )
    .detail("The proxy is shutting down.")
}
