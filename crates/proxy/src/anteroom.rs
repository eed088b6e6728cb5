//! Connections that have not said yet who they are.
//!
//! **Invariant:** of one address, and in all, there are never more of them than the limits say, so that who never logs
//! in keeps a part of the places at most, and for no longer than a login may take. Who is let in does not count.
//!
//! It does not know who they are, nor what becomes of them.

use crate::options::Limits;
use crate::seldom::Seldom;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One for a proxy.
#[derive(Debug, Default)]
pub(crate) struct Anteroom {
    counts: Arc<Mutex<Counts>>,
    told: Seldom,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// A connection's place in it.
#[derive(Debug)]
pub(crate) struct Seat {
    counts: Arc<Mutex<Counts>>,
    address: Option<IpAddr>,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("{0} connections are logging in already")]
    All(usize),
    #[error("{0} connections of this address are logging in already")]
    Address(usize),
}

impl Anteroom {
    /// `address`: whose it is; `None` for this machine's own, by a Unix socket.
    pub(crate) fn enter(&self, address: Option<IpAddr>, limits: &Limits) -> Result<Seat, Full> {
        let address = address.map(network);
        let mut counts = lock(&self.counts);
        let of_address = address.map_or(0, |address| counts.of.get(&address).copied().unwrap_or(0));
        let full = if counts.all >= limits.logins_max {
            Some(Full::All(counts.all))
        } else if of_address >= limits.address_logins_max {
            Some(Full::Address(of_address))
        } else {
            None
        };
        if let Some(full) = full {
            drop(counts);
            if self.told.is_due() {
                tracing::warn!(?address, reason = %full, "a connection is turned away");
            }
            return Err(full);
        }
        counts.all += 1;
        if let Some(address) = address {
            *counts.of.entry(address).or_default() += 1;
        }
        drop(counts);
        Ok(Seat {
            counts: Arc::clone(&self.counts),
            address,
        })
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.counts).all
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.all -= 1;
        let Some(address) = self.address else { return };
        match counts.of.get_mut(&address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.of.remove(&address)),
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who has one address of version 6 has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_all_of_them_have_so_many_seats_and_get_them_back() {
        let limits = Limits {
            logins_max: 4,
            address_logins_max: 2,
            ..Limits::default()
        };
        let room = Anteroom::default();
        let enter = |address: &str| room.enter(Some(address.parse().unwrap()), &limits);
        let (a, b) = (enter("10.0.0.1").unwrap(), enter("10.0.0.1").unwrap());
        assert_eq!(enter("10.0.0.1").err(), Some(Full::Address(2)));
        // Of version 6 a network counts, not each of its addresses.
        let _c = (enter("fd00::1").unwrap(), enter("fd00::2").unwrap());
        assert_eq!(enter("fd01::1").err(), Some(Full::All(4)));
        assert_eq!(room.enter(None, &limits).err(), Some(Full::All(4)));
        drop(a);
        assert_eq!(enter("fd00::3").err(), Some(Full::Address(2)));
        let _own = room.enter(None, &limits).unwrap();
        assert_eq!(room.count(), 4);
        drop(b);
        assert_eq!(lock(&room.counts).of.len(), 1);
    }
}
