//! This node's word to a leader that has lost the store: for a time to live it neither promises nor claims.
//!
//! **Invariant:** the word is on disk before it is given, and binds an agent that restarts for its whole time again.
//! **Invariant:** whoever may have a promise or a claim on its way in an epoch gives no word to that epoch's leader.

use crate::clock::now;
use crate::note::{NoteError, remove, replace};
use api::holding::{Asked, Holding, NotHeld};
use async_trait::async_trait;
use ha::{ClusterView, Epoch, Hold, Instant, Lsn, NodeName};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// What an agent before this one has sent has arrived by then, or never does.
const SETTLES: Duration = Duration::from_secs(5);

/// Asked by the API, told by the loop.
#[derive(Debug)]
pub struct Holds {
    inner: Arc<Mutex<Inner>>,
    path: PathBuf,
}

#[derive(Debug, Default)]
struct Inner {
    known: Known,
    hold: Option<Hold>,
    /// The newest epoch in which a promise or a claim of this node's may be on its way.
    spoken: Option<Epoch>,
    /// Until then that may be so in any epoch.
    unsettled: Option<Instant>,
    kept: Option<Kept>,
    /// The file is being changed.
    writing: bool,
}

/// As it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    epoch: Epoch,
    ttl_ms: u64,
}

/// What the loop knew last.
#[derive(Clone, Debug, Default)]
struct Known {
    on: bool,
    epoch: Epoch,
    leader: Option<NodeName>,
    leads: bool,
    ttl: Duration,
    position: Lsn,
}

impl Holds {
    /// With the word that an agent before this one gave, if it has.
    ///
    /// # Errors
    /// The file is there and can't be read.
    pub fn open(state_dir: &Path) -> Result<Self, NoteError> {
        let path = state_dir.join("holding.json");
        let damaged = |why: String| NoteError::Damaged {
            path: path.clone(),
            why,
        };
        let kept = match std::fs::read(&path) {
            Ok(bytes) => {
                Some(serde_json::from_slice::<Kept>(&bytes).map_err(|it| damaged(it.to_string()))?)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(NoteError::Io { path, source }),
        };
        let at = now();
        let inner = Inner {
            hold: kept.map(|kept| kept.from(at)),
            unsettled: Some(at.plus(SETTLES)),
            kept,
            ..Inner::default()
        };
        Ok(Self {
            inner: Arc::new(Mutex::new(inner)),
            path,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn held(&self) -> Option<Hold> {
        self.lock().hold
    }

    /// What the loop has just found of `me`, which has WAL up to `position`.
    pub(crate) fn told(
        &self,
        view: &ClusterView,
        me: &NodeName,
        leads: bool,
        position: Lsn,
        at: Instant,
    ) {
        let mut inner = self.lock();
        inner.known.leads = leads;
        inner.known.position = position;
        let ClusterView::Known(cluster) = view else {
            return;
        };
        let epoch = cluster.current_epoch();
        inner.known.on = cluster.failsafe.is_some();
        inner.known.epoch = epoch;
        inner.known.leader = match &cluster.epoch {
            Some(leadership) => Some(leadership.leader.clone()),
            None => cluster.leader.clone(),
        };
        inner.known.ttl = cluster.settings.ttl;
        let mine = cluster.promises.get(me);
        if mine.is_some_and(|mine| mine.epoch == epoch) {
            inner.spoken = inner.spoken.max(Some(epoch));
        }
        if inner.hold.is_some_and(|hold| !hold.binds(epoch, at)) && !inner.writing {
            inner.hold = None;
            self.forget(&mut inner);
        }
    }

    /// What is over must not bind an agent that restarts. The loop does not wait for the disk.
    fn forget(&self, inner: &mut Inner) {
        if inner.kept.take().is_none() {
            return;
        }
        inner.writing = true;
        let (inner, path) = (Arc::clone(&self.inner), self.path.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = remove(&path) {
                tracing::debug!(%error, "the file of an old word stays");
            }
            inner.lock().unwrap_or_else(PoisonError::into_inner).writing = false;
        });
    }

    /// Puts it on disk, whoever still waits for that.
    fn keep(&self, wanted: Kept) -> JoinHandle<std::io::Result<()>> {
        let (inner, path) = (Arc::clone(&self.inner), self.path.clone());
        let text = serde_json::to_vec(&wanted).unwrap_or_default();
        tokio::task::spawn_blocking(move || {
            let written = replace(&path, &text);
            let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.writing = false;
            inner.kept = written.is_ok().then_some(wanted);
            written
        })
    }

    /// Whether a promise or a claim may be sent in this epoch; from then on its leader gets no word.
    pub(crate) fn speak(&self, epoch: Epoch) -> bool {
        let mut inner = self.lock();
        if inner.hold.is_some_and(|hold| hold.binds(epoch, now())) {
            return false;
        }
        inner.spoken = inner.spoken.max(Some(epoch));
        true
    }

    /// A stance was taken: whatever was on its way is void.
    pub(crate) fn settled(&self) {
        let mut inner = self.lock();
        inner.spoken = None;
        inner.unsettled = None;
    }
}

impl Kept {
    fn from(self, at: Instant) -> Hold {
        Hold {
            epoch: self.epoch,
            until: at.plus(Duration::from_millis(self.ttl_ms)),
        }
    }
}

impl Inner {
    /// What would be promised by a yes, or why it is no.
    fn may(&self, asked: &Asked) -> Result<Kept, NotHeld> {
        let known = &self.known;
        if known.leads {
            return Err(NotHeld::Leads);
        }
        if !known.on {
            return Err(NotHeld::Off);
        }
        let no = |why: String| Err(NotHeld::No(why));
        let ttl_ms = u64::try_from(known.ttl.as_millis()).unwrap_or(u64::MAX);
        let (epoch, ttl_ms) = match asked.standfast {
            Some(asked) => (asked.epoch, asked.ttl_ms),
            None => (known.epoch, ttl_ms),
        };
        if known.epoch > epoch {
            return no(format!("epoch {} has begun", known.epoch));
        }
        if known.epoch == epoch && known.leader.as_ref() != Some(&asked.name) {
            return no(format!("{} does not lead epoch {epoch}", asked.name));
        }
        if self.spoken.is_some_and(|spoken| spoken >= epoch) {
            return no(format!("this node has promised in epoch {epoch}"));
        }
        if self.unsettled.is_some_and(|until| now() < until) {
            return no("this agent has just started".to_owned());
        }
        Ok(Kept { epoch, ttl_ms })
    }
}

#[async_trait]
impl Holding for Holds {
    async fn hold(&self, asked: &Asked) -> Result<Lsn, NotHeld> {
        let (wanted, writing) = {
            let mut inner = self.lock();
            let wanted = inner.may(asked)?;
            if inner.writing {
                return Err(NotHeld::No("another word is being kept".to_owned()));
            }
            inner.writing = inner.kept != Some(wanted);
            (wanted, inner.writing)
        };
        if writing {
            let written = self.keep(wanted).await;
            let written = written.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
            written.map_err(|error| NotHeld::No(format!("its word can't be kept: {error}")))?;
        }
        let mut inner = self.lock();
        // Much may have happened while it was written.
        if inner.may(asked)? != wanted || inner.kept != Some(wanted) {
            return Err(NotHeld::No("things have just changed".to_owned()));
        }
        let hold = wanted.from(now());
        if inner.hold.is_none_or(|hold| hold.epoch != wanted.epoch) {
            tracing::warn!(
                leader = %asked.name,
                epoch = wanted.epoch.0,
                "the leader has lost the store: holding still for it"
            );
        }
        let until = inner.hold.filter(|old| old.epoch == hold.epoch);
        inner.hold = Some(Hold {
            until: until.map_or(hold.until, |old| old.until.max(hold.until)),
            ..hold
        });
        Ok(inner.known.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::holding::AskedFor;
    use ha::{Cluster, Leadership};

    fn name(text: &str) -> NodeName {
        NodeName::new(text).expect("a plain name")
    }

    fn asked(leader: &str, epoch: u64) -> Asked {
        Asked {
            name: name(leader),
            conn_url: String::new(),
            api_url: String::new(),
            standfast: Some(AskedFor {
                epoch: Epoch(epoch),
                ttl_ms: 60_000,
            }),
        }
    }

    fn told(holds: &Holds, cluster: Cluster) {
        let view = ClusterView::Known(Box::new(cluster));
        holds.told(&view, &name("b"), false, Lsn(7), now());
    }

    fn led_by_a() -> Cluster {
        Cluster {
            epoch: Some(Leadership {
                epoch: Epoch(3),
                leader: name("a"),
                standby: false,
            }),
            failsafe: Some([(name("a"), String::new())].into()),
            ..Cluster::default()
        }
    }

    /// An agent that has followed, so that nothing of its own is on its way.
    fn following(state_dir: &Path) -> Holds {
        let holds = Holds::open(state_dir).expect("open");
        told(&holds, led_by_a());
        holds.settled();
        holds
    }

    #[tokio::test]
    async fn a_word_binds_and_binds_again_after_a_restart() {
        let state = tempfile::tempdir().expect("a directory");
        let holds = following(state.path());
        assert_eq!(holds.hold(&asked("a", 3)).await, Ok(Lsn(7)));
        assert!(!holds.speak(Epoch(3)), "bound");
        assert!(holds.speak(Epoch(4)), "a newer leadership has ended it");
        let again = Holds::open(state.path()).expect("open");
        assert!(!again.speak(Epoch(3)), "bound again");
        told(&again, led_by_a());
        let no = again.hold(&asked("a", 3)).await;
        assert!(
            matches!(no, Err(NotHeld::No(_))),
            "what was sent before may be on its way: {no:?}"
        );
    }

    #[tokio::test]
    async fn who_has_spoken_gives_no_word() {
        let state = tempfile::tempdir().expect("a directory");
        let holds = following(state.path());
        assert!(holds.speak(Epoch(3)));
        let no = holds.hold(&asked("a", 3)).await;
        assert!(matches!(no, Err(NotHeld::No(_))), "{no:?}");
        holds.settled();
        assert!(holds.hold(&asked("a", 3)).await.is_ok());

        let holds = following(state.path());
        let position = ha::Position {
            epoch: Epoch(3),
            timeline: ha::Timeline(1),
            lsn: Lsn(7),
        };
        let promise = ha::Promise {
            epoch: Epoch(3),
            position,
            unfit: None,
            priority: 50,
        };
        let mut cluster = led_by_a();
        cluster.promises.insert(name("b"), promise);
        told(&holds, cluster);
        let no = holds.hold(&asked("a", 3)).await;
        assert!(matches!(no, Err(NotHeld::No(_))), "it stands: {no:?}");
    }

    #[tokio::test]
    async fn only_the_leader_of_the_newest_epoch_gets_it() {
        let state = tempfile::tempdir().expect("a directory");
        let holds = following(state.path());
        for (leader, epoch) in [("c", 3), ("a", 2)] {
            let no = holds.hold(&asked(leader, epoch)).await;
            assert!(
                matches!(no, Err(NotHeld::No(_))),
                "{leader} {epoch}: {no:?}"
            );
        }
        assert!(
            holds.hold(&asked("c", 4)).await.is_ok(),
            "one that is not seen here yet"
        );
        let off = Cluster {
            failsafe: None,
            ..led_by_a()
        };
        told(&holds, off);
        assert_eq!(holds.hold(&asked("a", 3)).await, Err(NotHeld::Off));
    }
}
