//! Users that no file lists: a server is asked for what is known of their password.
//!
//! **Invariant:** the question runs on connections that no client ever has, with nobody's settings:
//! what it finds is not for a client's `search_path` to say.
//!
//! **Invariant:** who is not let in learns nothing of what was found, or why nothing was.

use super::Shared;
use crate::auth::Credential;
use crate::errors;
use crate::options::{AuthQuery, Route};
use crate::pool::{Server, Startup};
use crate::users::Secret;
use std::ffi::CString;
use std::sync::Arc;
use std::time::Duration;
use wire::backend::Report;
use wire::frontend::{Bind, Message, Parse};
use wire::{List, Origin};

/// Between two attempts to reach a primary.
const PAUSE: Duration = Duration::from_millis(50);

impl Shared {
    /// What a server knows of a user. `Err`: there is no server to ask.
    pub(super) async fn look_up(
        &self,
        query: &AuthQuery,
        credential: &Credential,
        user: &str,
        database: &str,
    ) -> Result<Option<Secret>, Report> {
        let limits = self.limits.load();
        // The client must still have the time to hear of it, and to answer.
        let limit = limits.hold_time.min(limits.login_time / 2);
        let database = query.database.as_deref().unwrap_or(database);
        let pool = self.pools.of(&query.user, database, Route::Lookup);
        let startup = Arc::new(Startup::new());
        let asking = async {
            let _permit = pool.permit().await;
            loop {
                let changed = self.changed();
                let Ok(at) = self.place(Route::Lookup) else {
                    changed.await;
                    continue;
                };
                let lies_idle = pool.take(&startup, at.epoch, Some(&at.address));
                let mut server = match lies_idle {
                    Some(server) => server,
                    None => match Box::pin(pool.open(&startup, credential, &at)).await {
                        Ok(server) => server,
                        Err(error) if error.is_retryable() => {
                            tokio::time::sleep(PAUSE).await;
                            continue;
                        }
                        Err(error) => {
                            tracing::warn!(%error, user = query.user, "users can't be asked for");
                            return None;
                        }
                    },
                };
                match ask(&mut server, &query.query, user).await {
                    Ok(secret) => {
                        pool.put(server);
                        return secret;
                    }
                    Err(crate::pool::Refusal::Lost) => {}
                    Err(crate::pool::Refusal::Error(error)) => {
                        tracing::warn!(error, "auth_query failed");
                        return None;
                    }
                }
            }
        };
        let asked = tokio::time::timeout(limit, asking).await;
        asked.map_err(|_| {
            let why = "The proxy can't ask a server who may connect.";
            errors::held_too_long(why).into_fatal()
        })
    }
}

async fn ask(
    server: &mut Server,
    query: &str,
    user: &str,
) -> Result<Option<Secret>, crate::pool::Refusal> {
    let odd = |_| crate::pool::Refusal::Error("a text with a NUL".to_owned());
    let query = CString::new(query).map_err(odd)?;
    let mut room = Vec::new();
    let parameters = List::write([Some(user.as_bytes())], &mut room);
    let messages = [
        Message::Parse(Parse {
            name: c"",
            query: &query,
            types: List::empty(),
        }),
        Message::Bind(Bind {
            portal: c"",
            statement: c"",
            formats: List::empty(),
            parameters,
            result_formats: List::empty(),
        }),
        Message::Execute {
            portal: c"",
            rows_max: 0,
        },
        Message::Sync,
    ];
    let mut bytes = Vec::new();
    for message in messages {
        let encoded = message.encode(&mut bytes);
        encoded.map_err(|error| crate::pool::Refusal::Error(error.to_string()))?;
    }
    server.send_bytes(&bytes, Origin::Proxy)?;
    let rows = server.rows().await?;
    let [row] = rows.as_slice() else {
        return Ok(None);
    };
    let [Some(name), Some(secret)] = row.as_slice() else {
        return Ok(None);
    };
    let secret = String::from_utf8(secret.to_vec()).ok();
    Ok(secret
        .filter(|_| **name == *user.as_bytes())
        .and_then(Secret::of))
}
