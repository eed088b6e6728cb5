//! Which nodes must acknowledge a commit, which must promise before somebody else may lead, and how the one is
//! changed without ever missing the other.
//!
//! **Invariant:** at every instant, for every commit acknowledged so far, its acknowledging set meets every
//! promise set that the record in the store would accept.
//!
//! A change is joint, as Raft changes its membership: the record holds every setting under which a commit may have
//! been acknowledged and not yet be covered by the newest one, and a claim must satisfy all of them:
//! 1. store: append the new setting to the record;
//! 2. Postgres: `synchronous_standby_names` := new, reloaded, read again by every walsender and by the checkpointer
//!    (as long as it believes that there are no names, no commit waits);
//! 3. barrier: k of the new standbys have flushed what the primary had flushed *after* step 2;
//! 4. store: the record holds the new setting only.
//!
//! Knows nothing of stores, Postgres or time: values in, the next step out.

use crate::types::{Epoch, Lsn, NodeName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Commits of `leader` need `needed` acknowledgements of `standbys`. With none needed the leader acknowledges alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Setting {
    pub leader: NodeName,
    pub standbys: BTreeSet<NodeName>,
    pub needed: usize,
}

impl Setting {
    /// The leader acknowledges alone; nobody but it may claim without data loss.
    pub fn alone(leader: NodeName) -> Self {
        Self {
            leader,
            standbys: BTreeSet::new(),
            needed: 0,
        }
    }

    /// `needed` of `standbys`; more than there are means all of them, and none of them means [`Setting::alone`].
    pub fn quorum(leader: NodeName, standbys: BTreeSet<NodeName>, needed: usize) -> Self {
        let needed = needed.clamp(usize::from(!standbys.is_empty()), standbys.len());
        Self {
            leader,
            standbys,
            needed,
        }
    }

    /// Strict mode with too few live standbys: commits block until `needed` of the named ones are there.
    pub fn is_alone(&self) -> bool {
        self.needed == 0
    }

    /// How many of the standbys must promise so that every set that can have acknowledged is met.
    pub fn promises_needed(&self) -> usize {
        self.standbys.len() + 1 - self.needed
    }

    /// Whether `promised` meets every set that can have acknowledged a commit of this setting.
    pub fn accepts(&self, promised: &BTreeSet<NodeName>) -> Result<(), Missing> {
        if promised.contains(&self.leader) {
            return Ok(());
        }
        if self.is_alone() {
            return Err(Missing::OnlyLeader {
                leader: self.leader.clone(),
            });
        }
        let have = self.standbys.intersection(promised).count();
        let need = self.promises_needed();
        if have >= need {
            return Ok(());
        }
        Err(Missing::Promises {
            leader: self.leader.clone(),
            have,
            need,
            absent: self.standbys.difference(promised).cloned().collect(),
        })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_alone() {
            return write!(f, "{} alone", self.leader);
        }
        write!(
            f,
            "{} with {} of ({})",
            self.leader,
            self.needed,
            join(&self.standbys)
        )
    }
}

/// Why a set of promises does not allow a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Missing {
    /// Commits were acknowledged by this node alone.
    OnlyLeader { leader: NodeName },
    /// Too few of the synchronous standbys have promised.
    Promises {
        leader: NodeName,
        have: usize,
        need: usize,
        absent: Vec<NodeName>,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyLeader { leader } => {
                write!(
                    f,
                    "{leader} acknowledged commits alone, only it may lead without data loss"
                )
            }
            Self::Promises {
                leader,
                have,
                need,
                absent,
            } => write!(
                f,
                "{have} of {need} promises needed of the synchronous standbys of {leader}; \
                 absent: {}, or {leader} itself",
                join(absent)
            ),
        }
    }
}

fn join<'a>(names: impl IntoIterator<Item = &'a NodeName>) -> String {
    names
        .into_iter()
        .map(NodeName::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What the store says about durability: every setting under which a commit may have been acknowledged that the
/// newest (the last) does not cover yet. One setting: nothing is changing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRecord {
    settings: Vec<Setting>,
}

impl SyncRecord {
    pub fn of(setting: Setting) -> Self {
        Self {
            settings: vec![setting],
        }
    }

    /// From stored settings; `None` when there is none, which is no record.
    pub fn from_settings(settings: Vec<Setting>) -> Option<Self> {
        (!settings.is_empty()).then_some(Self { settings })
    }

    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The setting that is in force or being put in force.
    pub fn newest(&self) -> &Setting {
        &self.settings[self.settings.len() - 1]
    }

    pub fn is_settled(&self) -> bool {
        self.settings.len() == 1
    }

    /// The record with `setting` joined to it; unchanged when it is the newest already.
    #[must_use]
    pub fn joined(&self, setting: Setting) -> Self {
        let mut settings = self.settings.clone();
        if self.newest() != &setting {
            settings.retain(|other| other != &setting);
            settings.push(setting);
        }
        Self { settings }
    }

    /// Whether a claim on these promises is safe under every setting that counts.
    pub fn accepts(&self, promised: &BTreeSet<NodeName>) -> Result<(), Missing> {
        self.settings
            .iter()
            .try_for_each(|setting| self.weakest(&setting.leader).accepts(promised))
    }

    /// Which names Patroni's agents may read, and by which quorum, so that they let nobody lead whom this record would
    /// not accept. Whom they read there without a quorum, each of them may lead alone: so only who has every commit
    /// that was acknowledged is named, and of a record that is changing that is who all of its settings cover. With a
    /// quorum in force it is the union, and a quorum that every setting's commits meet.
    pub fn named_to_patroni(&self) -> (BTreeSet<NodeName>, usize) {
        let newest = self.newest();
        if newest.needed >= newest.standbys.len() {
            let covered =
                |name: &&NodeName| self.accepts(&BTreeSet::from([(*name).clone()])).is_ok();
            return (newest.standbys.iter().filter(covered).cloned().collect(), 0);
        }
        if self.settings.iter().any(Setting::is_alone) {
            return (BTreeSet::new(), 0);
        }
        let names = self.settings.iter().flat_map(|it| it.standbys.iter());
        let names: BTreeSet<NodeName> = names.cloned().collect();
        let fewest = self.settings.iter().map(|setting| setting.needed).min();
        let quorum = names.len() - fewest.unwrap_or(0);
        (names, quorum)
    }

    /// What every commit of `leader` needs for sure, whichever of its settings its walsenders have read.
    ///
    /// Not each setting by itself: a walsender that has read the new one waits for *its* number of standbys, but
    /// counts every standby whose own walsender holds it for synchronous, by the old setting or the new
    /// (`SyncRepReleaseWaiters`). So from 2 of (b, c) to 1 of (d), b alone may acknowledge for a moment.
    fn weakest(&self, leader: &NodeName) -> Setting {
        let settings = || {
            self.settings
                .iter()
                .filter(|setting| setting.leader == *leader)
        };
        Setting {
            leader: leader.clone(),
            standbys: settings()
                .flat_map(|setting| setting.standbys.iter().cloned())
                .collect(),
            needed: settings().map(|setting| setting.needed).min().unwrap_or(0),
        }
    }
}

/// Postgres has the newest setting of `record`, every walsender has read it, and `barrier` is the flush position
/// taken after that.
///
/// It names the record that it was done for: when the wanted setting went away and came back, Postgres may have read
/// another one in between, and a barrier from before that proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub epoch: Epoch,
    pub record: SyncRecord,
    pub barrier: Lsn,
}

/// What the leader does next about its setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Write this record, guarded by leader, epoch and the record it was made from.
    Record(SyncRecord),
    /// Put the newest setting of this record into Postgres and take the barrier. What was proven before is void from
    /// the moment this begins, and the caller forgets it: half of the walsenders may have read the new setting, and
    /// a record that goes from A + B to B + A and back can't be told from one that never changed.
    Apply(SyncRecord),
    /// Wait until the standbys have flushed the barrier.
    Await {
        setting: Setting,
        barrier: Lsn,
        have: usize,
    },
    /// The record agrees with Postgres and with what is wanted.
    Settled,
}

/// The next step from what is to what is wanted. Any step may be cut off: it is taken up from the record.
/// `applied` is what Postgres has been proven to use in this epoch; `flushed` the standbys' positions.
pub fn next_step(
    record: &SyncRecord,
    wanted: &Setting,
    applied: Option<&Applied>,
    flushed: &BTreeMap<NodeName, Lsn>,
) -> Step {
    if record.newest() != wanted {
        return Step::Record(record.joined(wanted.clone()));
    }
    let in_force = |applied: &&Applied| {
        applied.record == *record || (record.is_settled() && applied.record.newest() == wanted)
    };
    let Some(applied) = applied.filter(in_force) else {
        return Step::Apply(record.clone());
    };
    if record.is_settled() {
        return Step::Settled;
    }
    let have = flushed_count(wanted, applied.barrier, flushed);
    if have >= wanted.needed {
        return Step::Record(SyncRecord::of(wanted.clone()));
    }
    Step::Await {
        setting: wanted.clone(),
        barrier: applied.barrier,
        have,
    }
}

/// How many of the setting's standbys have flushed `position`.
pub fn flushed_count(setting: &Setting, position: Lsn, flushed: &BTreeMap<NodeName, Lsn>) -> usize {
    let past = |name: &&NodeName| flushed.get(*name).is_some_and(|lsn| *lsn >= position);
    setting.standbys.iter().filter(past).count()
}
