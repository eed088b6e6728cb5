//! What a session has become behind our back: its server is asked after statements that may have
//! done more than they say.
//!
//! **Invariant:** a session whose server could not be asked counts as one that can't be moved.
//!
//! **Invariant:** in transaction mode nothing that a function has set, custom settings included,
//! is there for the next client.
//!
//! It does not see custom settings that a function makes: no view of PostgreSQL's shows them.

use super::mind::Mind;
use crate::errors;
use crate::journal::{Observed, Settings, set_config_sql};
use crate::pool::{Mirror, Refusal, Server};
use crate::sql::{Pin, Pins};
use std::sync::Arc;
use wire::backend::{Fields, Frame, Message, Tag};

/// Rows of a kind, a name and a value. Names are qualified: the session's `search_path` is its
/// client's.
const QUESTION: &[u8] = b"SELECT 'temporary', '', '' FROM pg_catalog.pg_my_temp_schema() AS own (id) \
    WHERE id <> 0 AND (EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = id) \
    OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = id) \
    OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = id)) \
    UNION ALL SELECT 'listening', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) \
    UNION ALL SELECT 'lock', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_locks \
    WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()) \
    UNION ALL SELECT 'cursor', '', '' WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) \
    UNION ALL SELECT 'prepared', name, statement FROM pg_catalog.pg_prepared_statements WHERE from_sql \
    UNION ALL SELECT 'setting', 'role', pg_catalog.current_setting('role') \
    WHERE pg_catalog.current_setting('role') <> 'none' \
    UNION ALL SELECT 'setting', name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings \
    WHERE source = 'session'";

const TIMEOUT: &str = "statement_timeout";

/// Writes down what was seen between two transactions.
pub(super) fn note(mind: &mut Mind, seen: Option<Observed>, mirror: &Mirror) {
    mind.opaque = false;
    match seen {
        Some(mut observed) => {
            if let Some(loan) = &mirror.loan {
                let reset = mind.mending.may_be_reset();
                let settings = &mut observed.settings;
                settings.retain(|name, sql| loan.is_from_session(name, sql, reset));
            }
            mind.journal.observed(observed);
        }
        None => mind.journal.pin(Pins::default().with(Pin::NotUnderstood)),
    }
}

/// Takes all settings off a server that goes to somebody else, seen ones and others.
pub(super) async fn reset(settings: &Settings, server: &mut Server) -> Result<(), Refusal> {
    server.run(b"RESET ALL").await?;
    // The role is no setting that RESET ALL resets.
    let mut left = settings.clone();
    left.retain(|name, _| &**name == "role");
    server.applied = Arc::new(left);
    Ok(())
}

/// Asks between two transactions. `None`: it said something that was not understood. An error: it is lost.
pub(super) async fn ask(server: &mut Server) -> Result<Option<Observed>, Refusal> {
    let (observed, is_late) = ask_once(server).await?;
    match is_late {
        true => ask_slowly(server).await,
        false => Ok(observed),
    }
}

/// The session's own timeout is shorter than the question takes: it is asked without one.
async fn ask_slowly(server: &mut Server) -> Result<Option<Observed>, Refusal> {
    let Some(timeout) = one_value(server, b"SHOW statement_timeout").await? else {
        return Ok(None);
    };
    match server.run(b"BEGIN; SET LOCAL statement_timeout TO 0").await {
        Ok(()) => {}
        Err(Refusal::Error(_)) => {
            server.run(b"ROLLBACK").await?;
            return Ok(None);
        }
        Err(lost) => return Err(lost),
    }
    let (mut observed, _) = ask_once(server).await?;
    server.run(b"ROLLBACK").await?;
    if let Some(observed) = &mut observed {
        let sql = set_config_sql(TIMEOUT.as_bytes(), &timeout);
        observed.settings.insert(TIMEOUT.into(), sql);
    }
    Ok(observed)
}

/// What a query answers in one row of one column; `None`: it was refused.
async fn one_value(server: &mut Server, sql: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    server.query(sql)?;
    let mut value = None;
    let hear = |_: &mut Mirror, frame: Option<&Frame<'_>>| {
        if let Some(Ok(Message::DataRow(row))) = frame.map(Frame::message) {
            value = row.iter().flatten().next().map(<[u8]>::to_vec);
        }
    };
    server.answers(hear).await?;
    Ok(value)
}

/// Likewise, and whether it was refused for the time it took.
async fn ask_once(server: &mut Server) -> Result<(Option<Observed>, bool), Refusal> {
    server.query(QUESTION)?;
    let mut observed = Some(Observed::default());
    let mut is_late = false;
    let hear = |_: &mut Mirror, frame: Option<&Frame<'_>>| {
        let Some(frame) = frame else { return };
        match frame.tag() {
            Tag::ErrorResponse => {
                observed = None;
                let code = Fields::beginning(frame.body()).sqlstate();
                is_late = code == Some(errors::QUERY_CANCELED);
            }
            // One that is not here as a whole has no row that could be read.
            Tag::DataRow => {
                let noted = match (&mut observed, frame.message()) {
                    (Some(observed), Ok(Message::DataRow(row))) => {
                        let row: Vec<_> = row.iter().flatten().collect();
                        observe(observed, &row).is_some()
                    }
                    _ => false,
                };
                if !noted {
                    observed = None;
                }
            }
            _ => {}
        }
    };
    server.answers(hear).await?;
    Ok((observed, is_late))
}

fn observe(observed: &mut Observed, row: &[&[u8]]) -> Option<()> {
    let [kind, name, value] = row else {
        return None;
    };
    let name = std::str::from_utf8(name).ok()?;
    match *kind {
        b"setting" => {
            let sql = set_config_sql(name.as_bytes(), value);
            let name = name.to_ascii_lowercase();
            observed.settings.insert(name.into(), sql);
        }
        b"prepared" => drop(observed.prepared.insert(name.into(), (*value).into())),
        other => {
            let pin = match other {
                b"temporary" => Pin::Temporary,
                b"listening" => Pin::Listening,
                b"lock" => Pin::AdvisoryLock,
                b"cursor" => Pin::HeldCursor,
                _ => return None,
            };
            observed.pins = observed.pins.with(pin);
        }
    }
    Some(())
}
