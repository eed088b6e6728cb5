//! One writer: a numbered row every few milliseconds, on whatever node accepts it.

use super::connect::{Route, Session};
use super::history::{Operation, Outcome};
use super::{Pace, Tally};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;

pub(super) struct Writer {
    pub(super) number: u32,
    pub(super) pace: Pace,
    pub(super) begun: Instant,
    pub(super) route: Arc<Route>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) tally: Arc<Tally>,
}

const INSERT: &str = "INSERT INTO standfast_ledger VALUES ($1, $2, $3, $4)";

impl Writer {
    pub(super) async fn work(self) -> Vec<Operation> {
        let mut done = Vec::new();
        let mut open: Option<(Session, Statement)> = None;
        let mut n = 0;
        let mut beat = tokio::time::interval(self.pace.interval);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.stop.load(Ordering::Relaxed) {
            beat.tick().await;
            let Some((session, insert)) = open.take() else {
                open = self.reconnect(&mut done).await;
                continue;
            };
            let operation = self.insert(&session, &insert, n).await;
            n += 1;
            if operation.outcome == Outcome::Acknowledged {
                open = Some((session, insert));
            }
            self.count(&operation);
            done.push(operation);
        }
        done
    }

    /// A connection that could not be had is an error that the client saw, but no row.
    async fn reconnect(&self, done: &mut Vec<Operation>) -> Option<(Session, Statement)> {
        let invoked = self.begun.elapsed();
        let connecting = async {
            let session = self.route.connect(self.pace.patience).await?;
            let insert = session.client.prepare(INSERT).await?;
            anyhow::Ok((session, insert))
        };
        match tokio::time::timeout(self.pace.patience * 2, connecting).await {
            Ok(Ok(open)) => Some(open),
            Ok(Err(error)) => {
                done.push(self.refused(invoked, format!("{error:#}")));
                None
            }
            Err(_) => {
                done.push(self.refused(invoked, "connecting took too long".to_owned()));
                None
            }
        }
    }

    fn refused(&self, invoked: Duration, error: String) -> Operation {
        Operation {
            writer: self.number,
            n: None,
            invoked,
            answered: self.begun.elapsed(),
            outcome: Outcome::Failed,
            node: String::new(),
            timeline: String::new(),
            error: Some(error),
        }
    }

    async fn insert(&self, session: &Session, insert: &Statement, n: i64) -> Operation {
        let invoked = self.begun.elapsed();
        let doubts = session.doubts.load(Ordering::Relaxed);
        let writer = i32::try_from(self.number).unwrap_or(i32::MAX);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&writer, &n, &session.node, &session.timeline];
        let answer = session.client.execute(insert, &parameters);
        let (outcome, error) = match tokio::time::timeout(self.pace.patience, answer).await {
            Ok(Ok(_)) if session.doubts.load(Ordering::Relaxed) == doubts => {
                (Outcome::Acknowledged, None)
            }
            Ok(Ok(_)) => (
                Outcome::Unknown,
                Some("committed with a warning".to_owned()),
            ),
            Ok(Err(error)) => (outcome_of(&error), Some(error_text(&error))),
            Err(_) => (Outcome::Unknown, Some("no answer".to_owned())),
        };
        Operation {
            writer: self.number,
            n: Some(n),
            invoked,
            answered: self.begun.elapsed(),
            outcome,
            node: session.node.clone(),
            timeline: session.timeline.clone(),
            error,
        }
    }

    fn count(&self, operation: &Operation) {
        let counter = match operation.outcome {
            Outcome::Acknowledged => &self.tally.acknowledged,
            Outcome::Failed => &self.tally.failed,
            Outcome::Unknown => &self.tally.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if operation.outcome == Outcome::Acknowledged {
            let at = u64::try_from(operation.answered.as_millis()).unwrap_or(u64::MAX);
            self.tally
                .last_acknowledged_ms
                .fetch_max(at, Ordering::Relaxed);
        }
    }
}

/// An ERROR ended the statement before its commit; a FATAL or a broken connection may have come
/// after it.
fn outcome_of(error: &tokio_postgres::Error) -> Outcome {
    let Some(db) = error.as_db_error() else {
        return Outcome::Unknown;
    };
    let ended = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::QUERY_CANCELED,
    ];
    if db.severity() == "ERROR" && !ended.contains(db.code()) {
        Outcome::Failed
    } else {
        Outcome::Unknown
    }
}

fn error_text(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || error.to_string(),
        |db| format!("{} {}", db.code().code(), db.message()),
    )
}
