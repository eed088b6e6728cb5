//! When servers that are only looked at are looked at.
//!
//! A look every second would tell of a failover late, and of what was true before it as it was up
//! to a second earlier. So the first session that loses its server has everybody looked at again:
//! what is seen then, while nobody leads yet, is what a new leader was chosen by.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// From the beginning of one look to that of the next, while nothing happens.
const CALM: Duration = Duration::from_secs(1);
/// The same while there is no primary.
const HASTE: Duration = Duration::from_millis(250);
/// However many are in doubt, nobody is asked more often than this.
const LEAST: Duration = Duration::from_millis(100);

/// Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Doubt(Arc<Notify>);

impl Doubt {
    /// What was seen last may not be true any more.
    pub(crate) fn raise(&self) {
        self.0.notify_one();
    }

    /// Until the next look is due; `last` is when the last one began, and whether it found a primary.
    pub async fn next_look(&self, last: Option<(Instant, bool)>) {
        let Some((begun, found)) = last else { return };
        let doubted = async {
            self.0.notified().await;
            sleep_until(due(begun, found, true)).await;
        };
        tokio::select! {
            () = sleep_until(due(begun, found, false)) => {}
            () = doubted => {}
        }
    }
}

fn due(begun: Instant, found: bool, is_doubted: bool) -> Instant {
    begun
        + match (is_doubted, found) {
            (true, _) => LEAST,
            (false, true) => CALM,
            (false, false) => HASTE,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_brings_the_next_look_forward_but_not_at_will() {
        let begun = Instant::now();
        let after = |found, doubted| (due(begun, found, doubted) - begun).as_millis();
        assert_eq!([after(true, false), after(false, false)], [1000, 250]);
        assert_eq!([after(true, true), after(false, true)], [100, 100]);
    }
}
