//! How often the instance is looked at: closely while something changes, seldom while nothing does.
//!
//! **Invariant:** whatever is new is looked at closely from its first moment; what stays as it is costs less and less.

use crate::clock::now;
use ha::{Instant, Leadership, NodeName};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const CLOSELY: Duration = Duration::from_millis(15);
/// A change that has lasted for this long (a clone, a long recovery, a leader that can't be reached) is no news.
const NEWS_LAST: Duration = Duration::from_secs(5);
const PATIENTLY: Duration = Duration::from_millis(100);
const STEADILY: Duration = Duration::from_millis(500);

/// What a change is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scene {
    pub(crate) leader: Option<NodeName>,
    /// The last that was claimed.
    pub(crate) leadership: Option<Leadership>,
    pub(crate) rule: &'static str,
    pub(crate) busy: bool,
    /// Of the leader: members that it does not see streaming yet.
    pub(crate) missing: Vec<NodeName>,
}

/// Set by the loop, asked by the observer.
#[derive(Debug)]
pub(crate) struct Pace {
    /// What is changing, and since when; `None`: nothing is.
    change: Mutex<Option<(Scene, Instant)>>,
}

impl Default for Pace {
    /// Before the first decision all is new.
    fn default() -> Self {
        Self {
            change: Mutex::new(Some((Scene::default(), now()))),
        }
    }
}

impl Pace {
    /// Whether something is changing, and in which scene.
    pub(crate) fn set(&self, changing: bool, scene: Scene) {
        let mut change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        match &*change {
            _ if !changing => *change = None,
            Some((known, _)) if *known == scene => {}
            Some(_) | None => *change = Some((scene, now())),
        }
    }

    /// How long until the next look, if nothing happens.
    pub(crate) fn rest(&self) -> Duration {
        let change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        match &*change {
            Some((_, since)) if now().since(*since) < NEWS_LAST => CLOSELY,
            Some(_) => PATIENTLY,
            None => STEADILY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(rule: &'static str) -> Scene {
        Scene {
            leader: None,
            leadership: None,
            rule,
            busy: false,
            missing: Vec::new(),
        }
    }

    #[test]
    fn what_lasts_is_looked_at_less_and_what_is_new_closely() {
        let pace = Pace::default();
        assert_eq!(pace.rest(), CLOSELY);
        let long_ago = Instant(now().0.saturating_sub(5_000_000_000));
        *pace.change.lock().expect("no panic") = Some((scene("follow"), long_ago));
        pace.set(true, scene("follow"));
        assert_eq!(pace.rest(), PATIENTLY);
        pace.set(true, scene("race"));
        assert_eq!(pace.rest(), CLOSELY);
        pace.set(false, scene("standby"));
        assert_eq!(pace.rest(), STEADILY);
    }
}
