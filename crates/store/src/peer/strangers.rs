//! Those who have connected and not yet proved who they are.
//!
//! **Invariant:** they are few, and none of them can keep another out for long: who comes when all places are taken
//! gets that of whoever waits longest among those of the most crowded address.

use crate::lock;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use tokio::sync::oneshot;

/// A limited number of places.
#[derive(Debug)]
pub struct Strangers {
    places: usize,
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    next: u64,
    /// In the order in which they came.
    all: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
}

/// One place, for as long as it is kept.
#[derive(Debug)]
pub struct Stranger<'a> {
    strangers: &'a Strangers,
    number: u64,
    displaced: oneshot::Receiver<()>,
}

impl Strangers {
    /// `places` must not be none.
    pub fn new(places: usize) -> Self {
        Self {
            places: places.max(1),
            present: Mutex::default(),
        }
    }

    pub fn enter(&self, from: IpAddr) -> Stranger<'_> {
        let mut present = lock(&self.present);
        if present.all.len() >= self.places
            && let Some(number) = present.longest_of_the_most_crowded()
        {
            // Its receiver sees that the sender is gone.
            present.all.remove(&number);
        }
        let number = present.next;
        present.next += 1;
        let (sender, displaced) = oneshot::channel();
        present.all.insert(number, (from, sender));
        Stranger {
            strangers: self,
            number,
            displaced,
        }
    }
}

impl Present {
    fn longest_of_the_most_crowded(&self) -> Option<u64> {
        let mut crowds: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (number, (from, _)) in &self.all {
            let (count, _) = crowds.entry(*from).or_insert((0, *number));
            *count += 1;
        }
        let most = crowds.values().map(|(count, _)| *count).max()?;
        let crowded = crowds.values().filter(|(count, _)| *count == most);
        crowded.map(|(_, first)| *first).min()
    }
}

impl Stranger<'_> {
    /// Returns when the place was given to somebody else.
    pub async fn displaced(&mut self) {
        let _ = (&mut self.displaced).await;
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        lock(&self.strangers.present).all.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn is_displaced(stranger: &mut Stranger<'_>) -> bool {
        stranger.displaced().now_or_never().is_some()
    }

    #[test]
    fn a_crowd_from_one_address_displaces_only_itself() {
        let strangers = Strangers::new(4);
        let mut member = strangers.enter(address(1));
        let mut crowd: Vec<_> = (0..20).map(|_| strangers.enter(address(2))).collect();
        assert!(!is_displaced(&mut member));
        let left = crowd.iter_mut().filter_map(|one| {
            let left = !is_displaced(one);
            left.then_some(one.number)
        });
        assert_eq!(left.collect::<Vec<_>>(), [18, 19, 20]);
    }

    #[test]
    fn a_place_that_was_left_is_free() {
        let strangers = Strangers::new(2);
        let mut first = strangers.enter(address(1));
        for _ in 0..10 {
            drop(strangers.enter(address(2)));
        }
        assert!(!is_displaced(&mut first));
        assert_eq!(lock(&strangers.present).all.len(), 1);
    }

    #[test]
    fn among_equals_the_longest_waiting_makes_room() {
        let strangers = Strangers::new(3);
        let mut all: Vec<_> = (1..=4).map(|last| strangers.enter(address(last))).collect();
        let displaced: Vec<_> = all.iter_mut().map(is_displaced).collect();
        assert_eq!(displaced, [true, false, false, false]);
    }
}
