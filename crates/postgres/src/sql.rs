//! Our own SQL connections.
//!
//! **Invariant:** every wait on the server has a limit; a connection on which something took too long is thrown away,
//! never used again.

use crate::error::PostgresError;
use crate::tls::Tls;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};

/// Every session of ours: nothing that we do waits for standbys, is cut short by the user's time limits, or fills
/// his log.
const SESSION: &str = "SET synchronous_commit = local; SET statement_timeout = 0; SET lock_timeout = 0; \
     SET idle_in_transaction_session_timeout = 0; SET default_transaction_read_only = off; \
     SET search_path = pg_catalog; SET client_min_messages = error; SET datestyle = iso; \
     SET standard_conforming_strings = on; SET bytea_output = hex; SET jit = off";

/// Only a superuser may set these.
const QUIET: &str = "SET log_statement = none; SET log_min_duration_statement = -1; \
     SET log_duration = off; SET log_min_error_statement = panic";

/// Where and as whom to connect.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) login: crate::secret::Login,
    pub(crate) database: String,
    /// The session is the superuser's: it may keep our statements out of the log.
    pub(crate) quiet: bool,
    /// Of a way that leaves this machine.
    pub(crate) tls: Option<Tls>,
}

#[derive(Clone, Debug)]
pub(crate) enum Host {
    Socket(PathBuf),
    Tcp(String),
}

impl Address {
    fn config(&self, limit: Duration) -> Config {
        let mut config = Config::new();
        match &self.host {
            Host::Socket(dir) => config.host_path(dir),
            Host::Tcp(host) => config.host(host),
        };
        config
            .port(self.port)
            .user(&self.login.user)
            .dbname(&self.database)
            .application_name("standfast")
            .connect_timeout(limit);
        if !self.login.password.expose().is_empty() {
            config.password(self.login.password.expose());
        }
        config
    }

    fn text(&self) -> String {
        match &self.host {
            Host::Socket(dir) => format!("{} port {}", dir.display(), self.port),
            Host::Tcp(host) => format!("{host}:{}", self.port),
        }
    }
}

/// A connection and the task that drives it; dropped, both are gone at once.
pub(crate) struct Link {
    pub(crate) client: Client,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    pub(crate) async fn open(address: &Address, limit: Duration) -> Result<Self, PostgresError> {
        let opened = tokio::time::timeout(limit, Self::open_unlimited(address, limit)).await;
        opened.unwrap_or(Err(PostgresError::Timeout {
            doing: "connect",
            after: limit,
        }))
    }

    async fn open_unlimited(address: &Address, limit: Duration) -> Result<Self, PostgresError> {
        use tokio_postgres::error::SqlState;
        let failed = |source: tokio_postgres::Error| match source.code() {
            Some(&SqlState::TOO_MANY_CONNECTIONS) => PostgresError::TooManyConnections,
            Some(&SqlState::CANNOT_CONNECT_NOW) => PostgresError::NotAccepting,
            _ => PostgresError::Connect {
                to: address.text(),
                source,
            },
        };
        let config = address.config(limit);
        let tls = address.tls.as_ref().filter(|tls| !tls.is_disabled());
        let connector = match tls {
            None => None,
            Some(tls) => match tls.connector().await {
                Ok(connector) => Some(connector),
                // As libpq does: what is only preferred is done without.
                Err(error) if !tls.is_required() => {
                    tracing::debug!(%error, "without TLS");
                    None
                }
                Err(source) => {
                    let to = address.text();
                    return Err(PostgresError::Tls { to, source });
                }
            },
        };
        let (client, task) = match connector {
            None => {
                let connecting = Box::pin(config.connect(NoTls));
                let (client, connection) = connecting.await.map_err(failed)?;
                (client, tokio::spawn(ended(connection)))
            }
            Some(connector) => {
                let connecting = Box::pin(connector.connect(&config));
                let (client, connection) = connecting.await.map_err(failed)?;
                (client, tokio::spawn(ended(connection)))
            }
        };
        let link = Self { client, task };
        link.client.batch_execute(SESSION).await.map_err(failed)?;
        if address.quiet {
            link.client.batch_execute(QUIET).await.map_err(failed)?;
        }
        Ok(link)
    }

    pub(crate) async fn rows(
        &self,
        doing: &'static str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        limit: Duration,
    ) -> Result<Vec<Row>, PostgresError> {
        let query = self.client.query(sql, params);
        let rows = tokio::time::timeout(limit, query).await;
        rows.map_err(|_| PostgresError::Timeout {
            doing,
            after: limit,
        })?
        .map_err(|e| PostgresError::sql(doing, e))
    }

    pub(crate) async fn batch(
        &self,
        doing: &'static str,
        sql: &str,
        limit: Duration,
    ) -> Result<(), PostgresError> {
        let done = tokio::time::timeout(limit, self.client.batch_execute(sql)).await;
        done.map_err(|_| PostgresError::Timeout {
            doing,
            after: limit,
        })?
        .map_err(|e| PostgresError::sql(doing, e))
    }
}

/// How a connection ended is told to whoever waits for an answer.
async fn ended<E>(connection: impl Future<Output = Result<(), E>>) {
    let _ = connection.await;
}

/// A connection that is kept open, opened again when it broke.
pub(crate) struct Kept {
    slot: Mutex<Option<Opened>>,
}

struct Opened {
    link: Link,
    prepared: Option<Statement>,
}

impl Kept {
    pub(crate) fn new() -> Self {
        Self {
            slot: Mutex::new(None),
        }
    }

    /// Forgets the connection, for instance because the server is gone.
    pub(crate) async fn close(&self) {
        *self.slot.lock().await = None;
    }

    async fn opened(
        &self,
        address: impl FnOnce() -> Result<Address, PostgresError>,
        limit: Duration,
    ) -> Result<MutexGuard<'_, Option<Opened>>, PostgresError> {
        let waited = tokio::time::timeout(limit, self.slot.lock()).await;
        let mut slot = waited.map_err(|_| PostgresError::Timeout {
            doing: "wait for the connection",
            after: limit,
        })?;
        if slot
            .as_ref()
            .is_none_or(|opened| opened.link.client.is_closed())
        {
            *slot = None;
            let link = Link::open(&address()?, limit).await?;
            *slot = Some(Opened {
                link,
                prepared: None,
            });
        }
        Ok(slot)
    }

    /// Runs a query. After an error the connection is dropped unless the server itself answered with the error.
    pub(crate) async fn rows(
        &self,
        address: impl FnOnce() -> Result<Address, PostgresError>,
        doing: &'static str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
        limit: Duration,
    ) -> Result<Vec<Row>, PostgresError> {
        let mut slot = self.opened(address, limit).await?;
        // Taken out while in use: a caller that gives up leaves no half-read connection behind.
        let Some(opened) = slot.take() else {
            return Err(PostgresError::NotRunning);
        };
        let result = opened.link.rows(doing, sql, params, limit).await;
        if keeps(&result) {
            *slot = Some(opened);
        }
        result
    }

    /// Runs the one statement that this connection has prepared, preparing it first where needed.
    pub(crate) async fn prepared(
        &self,
        address: impl FnOnce() -> Result<Address, PostgresError>,
        doing: &'static str,
        sql: &str,
        limit: Duration,
    ) -> Result<Vec<Row>, PostgresError> {
        let mut slot = self.opened(address, limit).await?;
        let Some(mut opened) = slot.take() else {
            return Err(PostgresError::NotRunning);
        };
        let run = async {
            let statement = match opened.prepared.take() {
                Some(statement) => statement,
                None => opened.link.client.prepare(sql).await?,
            };
            let rows = opened.link.client.query(&statement, &[]).await?;
            opened.prepared = Some(statement);
            Ok::<_, tokio_postgres::Error>(rows)
        };
        let result = tokio::time::timeout(limit, run)
            .await
            .map_err(|_| PostgresError::Timeout {
                doing,
                after: limit,
            })
            .and_then(|rows| rows.map_err(|e| PostgresError::sql(doing, e)));
        if keeps(&result) {
            *slot = Some(opened);
        }
        result
    }
}

fn keeps<T>(result: &Result<T, PostgresError>) -> bool {
    match result {
        Ok(_) => true,
        Err(PostgresError::Sql { source, .. }) => source.as_db_error().is_some(),
        Err(_) => false,
    }
}
