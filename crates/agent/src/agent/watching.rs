//! The machine's watchdog device: how long it counts, and whether a node without it may lead.
//!
//! The guard feeds it (`guard/src/dog.rs`); here it is told for how long, and seen whether it does.
//! It does not know what a decision makes of a node that is not watched.

use crate::clock::now;
use guard::{Status, WatchdogState};
use ha::{Instant, Settings};
use std::path::PathBuf;
use std::time::Duration;

/// A device that could not be armed is tried again after this.
const AGAIN: Duration = Duration::from_secs(60);
/// How often it is looked whether there is one.
const LOOK: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// What the configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    pub device: PathBuf,
    /// Without it the node never leads.
    pub required: bool,
    /// How long before the end of the lease the device fires; none: half of the lease's time.
    pub margin: Option<Duration>,
}

/// The device as it was seen.
#[derive(Debug)]
pub(super) struct Watching {
    wanted: Watchdog,
    failed: Option<(Instant, String)>,
    looked: Option<(Instant, Option<String>)>,
    told: Option<WatchdogState>,
}

impl Watching {
    pub(super) fn new(wanted: Watchdog) -> Self {
        Self {
            wanted,
            failed: None,
            looked: None,
            told: None,
        }
    }

    /// Why this node is not watched and must not lead.
    pub(super) fn unwatched(&mut self, status: Option<&Status>, at: Instant) -> Option<String> {
        self.see(status, at);
        if !self.wanted.required || self.is_armed(status) {
            return None;
        }
        if let Some((since, why)) = &self.failed
            && at.since(*since) < AGAIN
        {
            return Some(why.clone());
        }
        let due = |(looked, _): &(Instant, _)| at.since(*looked) >= LOOK;
        if self.looked.as_ref().is_none_or(due) {
            let device = &self.wanted.device;
            let access = rustix::fs::access(device, rustix::fs::Access::WRITE_OK);
            let why = access.err().map(|errno| {
                let why = std::io::Error::from(errno);
                format!(
                    "watchdog.mode is required, and {} can't be written: {why}",
                    device.display()
                )
            });
            self.looked = Some((at, why));
        }
        self.looked.as_ref().and_then(|(_, why)| why.clone())
    }

    /// Whether it should be armed and could not be, as Patroni shows it; or can't be where it must.
    pub(super) fn has_failed(&self) -> bool {
        let missing = |(_, why): &(Instant, Option<String>)| why.is_some();
        self.failed.is_some() || self.looked.as_ref().is_some_and(missing)
    }

    fn is_armed(&self, status: Option<&Status>) -> bool {
        status.is_some_and(|status| matches!(status.watchdog, WatchdogState::Armed { .. }))
    }

    /// What is news is said once.
    fn see(&mut self, status: Option<&Status>, at: Instant) {
        let state = status.map(|status| status.watchdog);
        let device = self.wanted.device.display();
        match state {
            Some(WatchdogState::Failed { errno }) => {
                let why = std::io::Error::from_raw_os_error(errno);
                if self.told != state {
                    tracing::warn!(%device, error = %why, "the watchdog device can't be armed");
                }
                self.failed = Some((at, format!("the watchdog {device} can't be armed: {why}")));
            }
            Some(WatchdogState::Armed { seconds, can_rest }) => {
                if self.told != state {
                    tracing::info!(%device, seconds, "the watchdog device is armed");
                }
                if self.told != state && !can_rest {
                    tracing::warn!(%device, "the watchdog device can't be told to rest: the machine is reset after a stop");
                }
                self.failed = None;
            }
            Some(WatchdogState::Resting) | None => {}
        }
        self.told = state;
    }

    /// After how many seconds without the guard the machine is reset: before the lease can end elsewhere, and after
    /// more than two beats.
    pub(super) fn seconds(&self, settings: &Settings) -> u32 {
        let ttl = settings.ttl;
        let asked = self
            .wanted
            .margin
            .map_or(ttl / 2, |it| ttl.saturating_sub(it));
        let asked = if asked < SECOND { ttl / 2 } else { asked };
        let lasts = settings
            .deadline(Instant::default())
            .since(Instant::default());
        let most = lasts.saturating_sub(settings.beat * 2);
        u32::try_from(asked.min(most).as_secs())
            .unwrap_or(u32::MAX)
            .max(1)
    }
}

impl super::Agent {
    /// Tells the guard, and hears why this node must not lead.
    pub(super) fn watch(&mut self, settings: Option<&Settings>) -> Option<String> {
        let watching = self.watching.as_mut()?;
        let guard = self.shell.instance.guard();
        if let (Some(guard), Some(settings)) = (&guard, settings) {
            guard.count_to(watching.seconds(settings));
        }
        let status = guard.map(|guard| guard.status());
        watching.unwatched(status.as_ref(), now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watching(margin: Option<u64>, required: bool) -> Watching {
        Watching::new(Watchdog {
            device: "/nowhere/watchdog".into(),
            required,
            margin: margin.map(Duration::from_secs),
        })
    }

    #[test]
    fn the_device_fires_before_the_lease_can_end_elsewhere() {
        let counts = |ttl: u64, margin| {
            let settings = Settings {
                ttl: Duration::from_secs(ttl),
                ..Settings::default()
            };
            watching(margin, false).seconds(&settings)
        };
        assert_eq!(counts(30, Some(5)), 25);
        assert_eq!(counts(30, None), 15);
        assert_eq!(counts(30, Some(0)), 28, "and not before it is fed again");
        assert_eq!(counts(3, Some(5)), 1);
        assert_eq!(counts(1, Some(5)), 1);
    }

    #[test]
    fn only_where_it_is_required_does_its_want_matter() {
        let at = Instant::default();
        assert_eq!(watching(None, false).unwatched(None, at), None);
        let why = watching(None, true).unwatched(None, at);
        assert!(why.is_some_and(|why| why.contains("/nowhere/watchdog can't be written")));
    }
}
