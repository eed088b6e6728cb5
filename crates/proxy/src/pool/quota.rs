//! How many connections to servers there are, in all and for each user and database.
//!
//! **Invariant:** a connection counts from before it is opened until it is closed, and never are
//! there more than the limits say.

use crate::options::Limits;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// One for a proxy.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    counts: Mutex<Counts>,
    /// A connection was closed.
    pub(super) freed: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    users: HashMap<Box<str>, usize>,
    databases: HashMap<Box<str>, usize>,
}

/// A connection's place.
#[derive(Debug)]
pub(crate) struct Counted {
    quota: Arc<Quota>,
    user: Box<str>,
    database: Box<str>,
}

/// Why there may be no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("there are {0} connections to servers, and no more may be")]
    All(usize),
    #[error("the user has {0} connections to servers, and may have no more")]
    User(usize),
    #[error("there are {0} connections to the database, and no more may be")]
    Database(usize),
}

impl Quota {
    pub(super) fn take(
        self: &Arc<Self>,
        user: &str,
        database: &str,
        limits: &Limits,
    ) -> Result<Counted, Full> {
        let mut counts = self.counts();
        let of = |counts: &HashMap<Box<str>, usize>, name| counts.get(name).copied().unwrap_or(0);
        if counts.all >= limits.servers_max {
            return Err(Full::All(counts.all));
        }
        match of(&counts.users, user) {
            full if limits.user_servers_max.is_some_and(|most| full >= most) => {
                return Err(Full::User(full));
            }
            _ => {}
        }
        match of(&counts.databases, database) {
            full if limits.database_servers_max.is_some_and(|most| full >= most) => {
                return Err(Full::Database(full));
            }
            _ => {}
        }
        counts.all += 1;
        *counts.users.entry(user.into()).or_default() += 1;
        *counts.databases.entry(database.into()).or_default() += 1;
        Ok(Counted {
            quota: Arc::clone(self),
            user: user.into(),
            database: database.into(),
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.quota.counts();
        counts.all -= 1;
        less(&mut counts.users, &self.user);
        less(&mut counts.databases, &self.database);
        drop(counts);
        self.quota.freed.notify_waiters();
    }
}

fn less(counts: &mut HashMap<Box<str>, usize>, name: &str) {
    match counts.get_mut(name) {
        Some(count) if *count > 1 => *count -= 1,
        _ => {
            counts.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_three_ways_and_given_back() {
        let quota = Arc::new(Quota::default());
        let limits = Limits {
            servers_max: 3,
            user_servers_max: Some(2),
            database_servers_max: Some(2),
            ..Limits::default()
        };
        let take = |user, database| quota.take(user, database, &limits);
        let (a, _b) = (take("u", "d").unwrap(), take("u", "e").unwrap());
        assert_eq!(take("u", "f").err(), Some(Full::User(2)));
        let c = take("v", "d").unwrap();
        assert_eq!(take("w", "f").err(), Some(Full::All(3)));
        drop(c);
        let c = take("v", "e").unwrap();
        drop(a);
        assert_eq!(take("w", "e").err(), Some(Full::Database(2)));
        drop(c);
        assert!(take("w", "e").is_ok());
        assert_eq!(quota.counts().users.len(), 1);
    }
}
