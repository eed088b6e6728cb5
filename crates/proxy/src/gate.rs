//! The epoch gate: what a server says counts only while its leadership is the newest we know of.
//!
//! **Invariant:** when [`Gate::adopt`] has returned, every connection to a server of an older epoch
//! is shut down, and no byte that came through one reaches a client any more: a byte is forwarded
//! only within [`Stamp::while_current`], which the gate cannot change under.
//!
//! It does not know where epochs come from, or what is sent.

use crate::net::Closer;
use ha::Epoch;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// One for a proxy.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Changes while nobody forwards.
    current: RwLock<Epoch>,
    /// The same for whoever only wants to know.
    newest: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    sockets: HashMap<u64, (Epoch, Arc<Closer>)>,
}

/// What a connection to a server carries. It is in the gate's list until this is dropped.
#[derive(Debug)]
pub(crate) struct Stamp {
    gate: Arc<Gate>,
    epoch: Epoch,
    number: u64,
}

/// The connection belongs to an epoch that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epoch {} is over", .0.0)]
pub(crate) struct Over(pub(crate) Epoch);

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            current: RwLock::new(Epoch::NONE),
            newest: AtomicU64::new(Epoch::NONE.0),
            open: Mutex::default(),
        })
    }

    /// Moves on to a newer epoch; gives how many older connections were shut down.
    pub(crate) fn adopt(&self, epoch: Epoch) -> usize {
        {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if epoch <= *current {
                return 0;
            }
            *current = epoch;
            self.newest.store(epoch.0, Ordering::Release);
        }
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let older = open.sockets.values().filter(|(of, _)| *of < epoch);
        older.map(|(_, socket)| socket.shut_down()).count()
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.sockets.len()
    }

    /// Takes a new connection to a server of `epoch` into the list.
    pub(crate) fn stamp(
        self: &Arc<Self>,
        epoch: Epoch,
        socket: Arc<Closer>,
    ) -> Result<Stamp, Over> {
        // Under the lock of the list: an epoch that is adopted meanwhile finds the socket in it.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.current.read().unwrap_or_else(PoisonError::into_inner) != epoch {
            return Err(Over(epoch));
        }
        let number = open.next;
        open.next += 1;
        open.sockets.insert(number, (epoch, socket));
        Ok(Stamp {
            gate: Arc::clone(self),
            epoch,
            number,
        })
    }
}

impl Stamp {
    pub(crate) fn is_current(&self) -> bool {
        self.gate.newest.load(Ordering::Acquire) == self.epoch.0
    }

    /// Does something that must not happen after the epoch. It must not wait.
    pub(crate) fn while_current<T>(&self, work: impl FnOnce() -> T) -> Result<T, Over> {
        let current = self.gate.current.read();
        let current = current.unwrap_or_else(PoisonError::into_inner);
        if *current == self.epoch {
            Ok(work())
        } else {
            Err(Over(self.epoch))
        }
    }
}

impl Drop for Stamp {
    fn drop(&mut self) {
        let mut open = self
            .gate
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        open.sockets.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Stream;
    use std::io::Read;

    fn socket() -> (Arc<Closer>, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = Stream::Unix(tokio::net::UnixStream::from_std(ours).unwrap());
        (Arc::new(ours.closer().unwrap()), theirs)
    }

    #[tokio::test]
    async fn a_new_epoch_shuts_the_older_sockets_down() {
        let gate = Gate::new();
        gate.adopt(Epoch(4));
        let (old, mut peer) = socket();
        let stamp = gate.stamp(Epoch(4), old).unwrap();
        assert_eq!(stamp.while_current(|| 1), Ok(1));
        assert_eq!(gate.adopt(Epoch(5)), 1);
        assert_eq!(stamp.while_current(|| 1), Err(Over(Epoch(4))));
        assert!(!stamp.is_current());
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    }

    #[tokio::test]
    async fn an_epoch_never_goes_back() {
        let gate = Gate::new();
        gate.adopt(Epoch(5));
        let (new, _peer) = socket();
        let stamp = gate.stamp(Epoch(5), new).unwrap();
        assert_eq!(gate.adopt(Epoch(4)), 0);
        assert!(stamp.is_current());
        let (late, _peer) = socket();
        assert_eq!(gate.stamp(Epoch(4), late).err(), Some(Over(Epoch(4))));
    }
}
