//! Whose WAL a node has: which epoch's leader wrote which timeline.
//!
//! A timeline number is not enough. If B is promoted to timeline 2 and dies before anyone has streamed from it, C,
//! promoted next, also calls its timeline 2: two histories, one number, and PostgreSQL and `pg_rewind` take them for
//! one. So each node keeps its lineage as a durable note.
//!
//! **Invariant:** a node's note names every timeline of which it has, or is about to have, a record; it is on disk
//! before the first such record can arrive.

use crate::types::{Epoch, Lsn, Timeline};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A timeline, who wrote it, and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    pub timeline: Timeline,
    pub epoch: Epoch,
    /// The switch point from the branch before; zero for the first.
    pub begins: Lsn,
}

/// The branches from the first timeline to the newest, each beginning where the one before was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    branches: Vec<Branch>,
}

/// The last WAL record that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Of the leader that wrote the record. Compared first.
    pub epoch: Epoch,
    pub timeline: Timeline,
    pub lsn: Lsn,
}

impl Position {
    /// What "more advanced" means: the epoch of the last record first, then its LSN.
    pub fn rank(&self) -> (Epoch, Lsn) {
        (self.epoch, self.lsn)
    }
}

/// How a node's WAL relates to the leader's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// Everything that the node has is in the leader's history: it can be streamed to.
    Ancestor,
    /// The node left the leader's history at `fork`: rewind to it.
    Diverged { fork: Lsn },
    /// The node's timeline carries a number of the leader's history but is another one, or nothing is in common:
    /// only a new base backup helps.
    Foreign,
}

impl Lineage {
    pub fn founded(timeline: Timeline, epoch: Epoch) -> Self {
        Self {
            branches: vec![Branch {
                timeline,
                epoch,
                begins: Lsn::ZERO,
            }],
        }
    }

    /// From stored branches; `None` when there is none or they do not rise.
    pub fn from_branches(branches: Vec<Branch>) -> Option<Self> {
        let rises = |pair: &[Branch]| {
            pair[0].timeline < pair[1].timeline
                && pair[0].epoch < pair[1].epoch
                && pair[0].begins <= pair[1].begins
        };
        (!branches.is_empty() && branches.windows(2).all(rises)).then_some(Self { branches })
    }

    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    pub fn newest(&self) -> &Branch {
        &self.branches[self.branches.len() - 1]
    }

    /// This lineage, left at `begins` for a new timeline of `epoch`. Branches that begin at or after that point hold
    /// no record that the new one has, so they are not part of it.
    #[must_use]
    pub fn promoted(&self, timeline: Timeline, epoch: Epoch, begins: Lsn) -> Self {
        let mut branches: Vec<Branch> = self.branches.clone();
        while branches.len() > 1 && branches.last().is_some_and(|last| last.begins >= begins) {
            branches.pop();
        }
        branches.push(Branch {
            timeline,
            epoch,
            begins,
        });
        Self { branches }
    }

    /// The lineage of a leader that publishes none, recorded as `epoch`: it writes `timeline`, and PostgreSQL's history
    /// says where each earlier one of its timelines `ended`. Of `note`, that of a node whose WAL was found to be the
    /// leader's up to `same`, it keeps the branches of which there is a record before that point; from the end of the
    /// last one on everything is the new epoch's, also timelines in between that nobody of ours saw.
    ///
    /// Numbers alone prove nothing: what is kept was compared. And a promotion takes a number that the promoted server
    /// does not know, so a branch of that number is another one.
    #[must_use]
    pub fn observed(
        note: Option<(&Self, Lsn)>,
        timeline: Timeline,
        ended: &[(Timeline, Lsn)],
        epoch: Epoch,
    ) -> Self {
        let end_of = |branch: &Branch| {
            let line = ended.iter().find(|(number, _)| *number == branch.timeline);
            line.map(|(_, end)| *end)
                .filter(|_| branch.timeline < timeline)
        };
        let mut kept: Vec<Branch> = Vec::new();
        let mut left = Lsn::ZERO;
        let branches = note.iter().flat_map(|(note, same)| {
            // Of its very number: a branch may stand for timelines before it that nobody of ours saw.
            let written =
                |branch: &&Branch| branch.begins.max(number_begins(branch.timeline, ended)) < *same;
            note.branches.iter().filter(written)
        });
        for branch in branches {
            let begins_there = kept.is_empty() || branch.begins == left;
            let Some(end) = end_of(branch).filter(|_| begins_there) else {
                break;
            };
            kept.push(*branch);
            left = end;
        }
        match Self::from_branches(kept) {
            Some(kept) => kept.promoted(timeline, epoch, left),
            None => Self::founded(timeline, epoch),
        }
    }

    /// The lineage of a node that is to follow a remote primary: its WAL was found to be the remote's up to `same`. Its
    /// note, where that names the remote's timeline and there is WAL of it; else one in which the timeline is the new
    /// `epoch`'s, as [`Self::observed`] has it.
    #[must_use]
    pub fn traced(
        note: Option<&Self>,
        same: Lsn,
        timeline: Timeline,
        ended: &[(Timeline, Lsn)],
        epoch: Epoch,
    ) -> Self {
        let begins = number_begins(timeline, ended);
        let known = note.filter(|note| {
            let newest = note.newest();
            newest.timeline == timeline && begins.max(newest.begins) < same
        });
        match known {
            Some(note) => note.clone(),
            None => Self::observed(note.map(|note| (note, same)), timeline, ended, epoch),
        }
    }

    /// Whether a timeline of this number is part of it. Of 0, which is none, nothing is said.
    pub fn names(&self, timeline: Timeline) -> bool {
        timeline == Timeline(0) || self.branches.iter().any(|it| it.timeline == timeline)
    }

    /// The branch that wrote the last record of a node which has all WAL up to `end` (exclusive).
    pub fn at(&self, end: Lsn) -> Position {
        let mut found = self.branches[0];
        for branch in &self.branches[1..] {
            if branch.begins < end {
                found = *branch;
            }
        }
        Position {
            epoch: found.epoch,
            timeline: found.timeline,
            lsn: end,
        }
    }

    /// How a node whose note is `note`, and which has all WAL up to `end`, relates to a leader of this lineage.
    ///
    /// The whole note counts, not only its last record: `pg_rewind` compares every timeline by its number, and would
    /// keep what another leader wrote under a number that this one has used again.
    pub fn relation_of(&self, note: &Self, end: Lsn) -> Relation {
        let taken = |branch: &Branch| {
            self.branches
                .iter()
                .any(|ours| ours.timeline == branch.timeline && ours.epoch != branch.epoch)
        };
        let written = |branch: &&Branch| branch.begins < end || branch.begins == Lsn::ZERO;
        if note.branches.iter().filter(written).any(taken) {
            return Relation::Foreign;
        }
        self.relation(&note.at(end))
    }

    /// Whether a node whose note is `note`, and whose WAL ends at `end` on `timeline`, has nothing but what is part of this
    /// lineage.
    pub fn has_all_of(&self, note: &Self, timeline: Timeline, end: Lsn) -> bool {
        // WAL of an older timeline that goes on where the note has a newer one is nobody's of the note.
        note.at(end).timeline == timeline && self.relation_of(note, end) == Relation::Ancestor
    }

    /// How a node at `position` relates to a leader of this lineage, by its last record alone.
    fn relation(&self, position: &Position) -> Relation {
        let same = |branch: &Branch| branch.epoch == position.epoch;
        let Some(index) = self.branches.iter().position(same) else {
            return self.relation_of_stranger(position);
        };
        if self.branches[index].timeline != position.timeline {
            return Relation::Foreign;
        }
        match self.branches.get(index + 1) {
            Some(next) if next.begins < position.lsn => Relation::Diverged { fork: next.begins },
            _ => Relation::Ancestor,
        }
    }

    /// The node's last record was written by an epoch that the leader's history does not have.
    fn relation_of_stranger(&self, position: &Position) -> Relation {
        let number_taken = self
            .branches
            .iter()
            .any(|branch| branch.timeline == position.timeline);
        if number_taken || position.epoch < self.branches[0].epoch {
            return Relation::Foreign;
        }
        // Its timeline's number is free in the leader's history: `pg_rewind` finds the fork by the history files.
        let fork = self
            .branches
            .iter()
            .find(|branch| branch.epoch > position.epoch)
            .map_or_else(|| self.newest().begins, |branch| branch.begins);
        Relation::Diverged { fork }
    }
}

/// Where a timeline of this number begins in a history: where the one before it ended.
fn number_begins(timeline: Timeline, ended: &[(Timeline, Lsn)]) -> Lsn {
    let before = ended.iter().filter(|(number, _)| *number < timeline);
    before.map(|(_, end)| *end).max().unwrap_or(Lsn::ZERO)
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} on timeline {} of epoch {}",
            self.lsn, self.timeline, self.epoch
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(branches: &[(u32, u64, u64)]) -> Lineage {
        let branch = |&(timeline, epoch, begins): &(u32, u64, u64)| Branch {
            timeline: Timeline(timeline),
            epoch: Epoch(epoch),
            begins: Lsn(begins),
        };
        Lineage::from_branches(branches.iter().map(branch).collect()).expect("rising branches")
    }

    fn at(epoch: u64, timeline: u32, lsn: u64) -> Position {
        Position {
            epoch: Epoch(epoch),
            timeline: Timeline(timeline),
            lsn: Lsn(lsn),
        }
    }

    #[test]
    fn the_last_record_belongs_to_the_branch_that_wrote_it_not_to_the_one_to_come() {
        let told = lineage(&[(1, 1, 0), (2, 5, 100)]);
        assert_eq!(told.at(Lsn(90)), at(1, 1, 90));
        assert_eq!(told.at(Lsn(100)), at(1, 1, 100));
        assert_eq!(told.at(Lsn(101)), at(5, 2, 101));
    }

    #[test]
    fn wal_of_an_old_timeline_beyond_its_end_is_not_taken_for_the_new_ones() {
        let leader = lineage(&[(1, 1, 0), (2, 5, 100)]);
        let has = |timeline, end| leader.has_all_of(&leader, Timeline(timeline), Lsn(end));
        assert!(has(1, 90) && has(1, 100) && has(2, 150));
        assert!(!has(1, 150), "somebody has archived what nobody promised");
    }

    #[test]
    fn a_node_behind_the_fork_is_an_ancestor() {
        let leader = lineage(&[(1, 1, 0), (2, 5, 100)]);
        assert_eq!(leader.relation(&at(1, 1, 100)), Relation::Ancestor);
        assert_eq!(leader.relation(&at(5, 2, 300)), Relation::Ancestor);
    }

    #[test]
    fn a_node_past_the_fork_is_rewound() {
        let leader = lineage(&[(1, 1, 0), (2, 5, 100)]);
        assert_eq!(
            leader.relation(&at(1, 1, 101)),
            Relation::Diverged { fork: Lsn(100) }
        );
    }

    #[test]
    fn the_same_timeline_number_of_another_epoch_is_never_believed() {
        let leader = lineage(&[(1, 1, 0), (2, 5, 100)]);
        assert_eq!(leader.relation(&at(4, 2, 130)), Relation::Foreign);
    }

    #[test]
    fn a_number_used_again_anywhere_in_the_note_is_never_rewound_across() {
        let leader = lineage(&[(1, 1, 0), (2, 6, 100)]);
        let note = lineage(&[(1, 1, 0), (2, 4, 100), (3, 5, 150)]);
        assert_eq!(leader.relation_of(&note, Lsn(180)), Relation::Foreign);
        assert_eq!(leader.relation_of(&note, Lsn(100)), Relation::Ancestor);
    }

    #[test]
    fn a_promotion_that_nobody_followed_is_rewound_when_its_number_is_free() {
        let leader = lineage(&[(1, 1, 0), (3, 5, 100)]);
        assert_eq!(
            leader.relation(&at(4, 2, 130)),
            Relation::Diverged { fork: Lsn(100) }
        );
    }

    #[test]
    fn promotion_drops_branches_of_which_no_record_came_over() {
        let told = lineage(&[(1, 1, 0), (2, 5, 100)]);
        let promoted = told.promoted(Timeline(2), Epoch(6), Lsn(100));
        assert_eq!(promoted, lineage(&[(1, 1, 0), (2, 6, 100)]));
    }

    #[test]
    fn a_leader_that_publishes_nothing_is_read_from_its_history() {
        let known = lineage(&[(1, 1, 0), (2, 4, 100)]);
        let ended = |lines: &[(u32, u64)]| -> Vec<(Timeline, Lsn)> {
            lines.iter().map(|(t, e)| (Timeline(*t), Lsn(*e))).collect()
        };
        let read = |known: Option<&Lineage>, timeline, lines: &[(u32, u64)]| {
            let compared = known.map(|known| (known, Lsn(150)));
            Lineage::observed(compared, Timeline(timeline), &ended(lines), Epoch(5))
        };
        let next = lineage(&[(1, 1, 0), (2, 4, 100), (3, 5, 200)]);
        assert_eq!(read(Some(&known), 3, &[(1, 100), (2, 200)]), next);
        // Timeline 3 came and went unseen: its WAL is nobody else's.
        let unseen = lineage(&[(1, 1, 0), (2, 4, 100), (4, 5, 200)]);
        assert_eq!(
            read(Some(&known), 4, &[(1, 100), (2, 200), (3, 250)]),
            unseen
        );
        // It did not see timeline 2 and calls its own so; or left the first one elsewhere.
        let same_number = lineage(&[(1, 1, 0), (2, 5, 100)]);
        assert_eq!(read(Some(&known), 2, &[(1, 100)]), same_number);
        let elsewhere = lineage(&[(1, 1, 0), (4, 5, 90)]);
        assert_eq!(read(Some(&known), 4, &[(1, 90), (2, 120)]), elsewhere);
        // Up to where timeline 2 begins it was compared; whose that is was not seen.
        let compared = Some((&known, Lsn(100)));
        let lines = ended(&[(1, 100), (2, 200)]);
        let unsure = Lineage::observed(compared, Timeline(3), &lines, Epoch(5));
        assert_eq!(unsure, lineage(&[(1, 1, 0), (3, 5, 100)]));
        // Nothing in common, or nothing known.
        let first = Lineage::founded(Timeline(7), Epoch(5));
        assert_eq!(read(Some(&known), 7, &[(6, 50)]), first);
        assert_eq!(read(None, 7, &[(1, 50)]), first);
    }

    #[test]
    fn a_remotes_timeline_keeps_its_epoch_only_where_there_is_wal_of_it() {
        let note = lineage(&[(1, 1, 0), (2, 4, 100)]);
        let traced = |same, timeline, ended: &[(u32, u64)]| {
            let ended: Vec<_> = ended.iter().map(|(t, e)| (Timeline(*t), Lsn(*e))).collect();
            Lineage::traced(Some(&note), Lsn(same), Timeline(timeline), &ended, Epoch(6))
        };
        assert_eq!(traced(150, 2, &[(1, 100)]), note);
        // The remote's timeline of that number may be another one: nothing of it is here.
        assert_eq!(
            traced(100, 2, &[(1, 100)]),
            lineage(&[(1, 1, 0), (2, 6, 100)])
        );
        // What is called 3 stands for an unseen timeline before it, which the remote has too; the remote's 3 is another.
        let note = lineage(&[(1, 1, 0), (3, 4, 100)]);
        let ended = [(Timeline(1), Lsn(100)), (Timeline(2), Lsn(160))];
        let other = Lineage::traced(Some(&note), Lsn(150), Timeline(3), &ended, Epoch(6));
        assert_eq!(other, lineage(&[(1, 1, 0), (3, 6, 100)]));
        let next = lineage(&[(1, 1, 0), (2, 4, 100), (3, 6, 200)]);
        assert_eq!(traced(200, 3, &[(1, 100), (2, 200)]), next);
    }
}
