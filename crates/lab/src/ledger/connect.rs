//! Finding the primary the way a libpq client with several hosts and
//! `target_session_attrs=read-write` does, but all hosts at once: a frozen host must not make the
//! client's own patience part of what is measured.

use anyhow::{Context, Result, bail};
use futures_util::future::{poll_fn, select_all};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

/// Where the primary may be.
#[derive(Debug)]
pub(super) struct Route {
    targets: Vec<Config>,
}

/// A connection to a node that accepts writes.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) node: String,
    pub(super) timeline: String,
    /// How many times the server has warned that a commit is not replicated.
    pub(super) doubts: Arc<AtomicU64>,
    /// The texts of all other notices.
    pub(super) notices: mpsc::UnboundedReceiver<String>,
    connection: JoinHandle<()>,
}

impl Session {
    /// What closes the socket, also while the server has an answer outstanding.
    pub(super) fn hang_up(&self) -> AbortHandle {
        self.connection.abort_handle()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Route {
    pub(super) fn new(targets: Vec<Config>) -> Self {
        Self { targets }
    }

    /// The first node that answers as one that accepts writes.
    pub(super) async fn connect(&self, patience: Duration) -> Result<Session> {
        let mut attempts: Vec<_> = self
            .targets
            .iter()
            .map(|target| Box::pin(tokio::time::timeout(patience, attempt(target))))
            .collect();
        let mut reasons = Vec::new();
        while !attempts.is_empty() {
            let (result, _, rest) = select_all(attempts).await;
            attempts = rest;
            match result {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => reasons.push(format!("{error:#}")),
                Err(_) => reasons.push(format!("no answer within {patience:?}")),
            }
        }
        bail!("no host accepts writes: {}", reasons.join("; "))
    }
}

async fn attempt(target: &Config) -> Result<Session> {
    let (client, mut connection) = target.connect(NoTls).await?;
    let doubts = Arc::new(AtomicU64::new(0));
    let (say, notices) = mpsc::unbounded_channel();
    let counted = Arc::clone(&doubts);
    let connection = tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            let AsyncMessage::Notice(notice) = message else {
                continue;
            };
            if notice.severity() == "WARNING" {
                counted.fetch_add(1, Ordering::Relaxed);
            } else {
                // The session may be gone already; then nobody wants to know.
                let _ = say.send(notice.message().to_owned());
            }
        }
    });
    let question = "SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off',
        host(inet_server_addr()) || ':' || inet_server_port(),
        CASE WHEN pg_is_in_recovery() THEN '' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END";
    let row = client
        .query_one(question, &[])
        .await
        .context("ask whether it accepts writes")?;
    let (writable, node): (bool, String) = (row.get(0), row.get(1));
    if !writable {
        bail!("{node} is read-only");
    }
    Ok(Session {
        client,
        node,
        timeline: row.get(2),
        doubts,
        notices,
        connection,
    })
}
