//! Who votes. Decided here from what the leader observes; carried out elsewhere, one change at a time.
//!
//! **Invariant:** the number of voters is odd, at most [`VOTERS_MAX`].
//! **Invariant:** only a live member that has caught up is made a voter, and no change takes away more
//! votes than a majority can spare.

use super::types::NodeId;
use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) const VOTERS_MAX: usize = 5;

/// A member is live if it was heard of within this.
pub(crate) const LIVE: Duration = Duration::from_secs(2);

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) incarnation: u64,
    pub(crate) voter: bool,
    pub(crate) leader: bool,
    pub(crate) caught_up: bool,
    pub(crate) silent: Duration,
}

/// One change of the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// These vote from now on; who voted before becomes a learner.
    Voters(BTreeSet<NodeId>),
    /// These learners are members no more.
    Forget(BTreeSet<NodeId>),
}

impl Observed {
    fn is_live(&self) -> bool {
        self.leader || self.silent < LIVE
    }

    fn can_vote(&self) -> bool {
        !self.voter && self.caught_up && self.is_live()
    }
}

fn voters(members: &[Observed]) -> BTreeSet<NodeId> {
    members
        .iter()
        .filter(|member| member.voter)
        .map(|member| member.id)
        .collect()
}

/// The member of the same name that came later, if there is one.
fn successor<'a>(members: &'a [Observed], of: &Observed) -> Option<&'a Observed> {
    members
        .iter()
        .filter(|other| other.name == of.name && other.incarnation > of.incarnation)
        .max_by_key(|other| other.incarnation)
}

/// Learners that may vote now, the longest known first.
fn candidates(members: &[Observed]) -> impl Iterator<Item = &Observed> {
    let mut all: Vec<_> = members
        .iter()
        .filter(|member| member.can_vote() && successor(members, member).is_none())
        .collect();
    all.sort_by_key(|member| (member.incarnation, member.name.clone()));
    all.into_iter()
}

fn replaced(members: &[Observed], old: NodeId, new: NodeId) -> Change {
    let mut voters = voters(members);
    voters.remove(&old);
    voters.insert(new);
    Change::Voters(voters)
}

/// The next change that the membership needs, with its reason.
pub(crate) fn plan(members: &[Observed], grace: Duration) -> Option<(Change, &'static str)> {
    let superseded: BTreeSet<NodeId> = members
        .iter()
        .filter(|member| !member.voter && successor(members, member).is_some())
        .map(|member| member.id)
        .collect();
    if !superseded.is_empty() {
        return Some((
            Change::Forget(superseded),
            "a node of the same name took their place",
        ));
    }
    for old in members
        .iter()
        .filter(|member| member.voter && !member.leader)
    {
        if let Some(new) = successor(members, old).filter(|new| new.can_vote()) {
            let reason = "the node came back with an empty directory";
            return Some((replaced(members, old.id, new.id), reason));
        }
    }
    let voters = voters(members);
    if voters.len().is_multiple_of(2) {
        return even_out(members, &voters);
    }
    let dead = members
        .iter()
        .filter(|member| member.voter && !member.leader && member.silent >= grace)
        .max_by_key(|member| member.silent);
    if let Some(dead) = dead
        && let Some(live) = candidates(members).next()
    {
        return Some((
            replaced(members, dead.id, live.id),
            "a voter is silent for too long",
        ));
    }
    let two: Vec<NodeId> = candidates(members)
        .take(2)
        .map(|member| member.id)
        .collect();
    if two.len() == 2 && voters.len() + 2 <= VOTERS_MAX {
        let all = voters.into_iter().chain(two).collect();
        return Some((Change::Voters(all), "two more nodes can vote"));
    }
    None
}

/// Repairs an even number of voters, which only an interrupted change leaves behind.
fn even_out(members: &[Observed], voters: &BTreeSet<NodeId>) -> Option<(Change, &'static str)> {
    let reason = "the number of voters must be odd";
    if let Some(more) = candidates(members)
        .next()
        .filter(|_| voters.len() < VOTERS_MAX)
    {
        let all = voters.iter().copied().chain([more.id]).collect();
        return Some((Change::Voters(all), reason));
    }
    let fewer = demoted(members, voters)?;
    Some((Change::Voters(fewer), reason))
}

/// One voter less: not the leader; rather a silent one.
fn demoted(members: &[Observed], voters: &BTreeSet<NodeId>) -> Option<BTreeSet<NodeId>> {
    let out = members
        .iter()
        .filter(|member| voters.contains(&member.id) && !member.leader)
        .max_by_key(|member| (member.silent.as_secs(), member.id))?;
    let mut fewer = voters.clone();
    fewer.remove(&out.id);
    Some(fewer)
}

/// The next change on the way to a membership without `name`; `None` when it is not there (any more).
pub(crate) fn leaving(members: &[Observed], name: &str) -> Result<Option<Change>, String> {
    let gone: BTreeSet<NodeId> = members
        .iter()
        .filter(|member| member.name == name)
        .map(|member| member.id)
        .collect();
    if gone.is_empty() {
        return Ok(None);
    }
    let voters = voters(members);
    let staying: BTreeSet<NodeId> = voters.difference(&gone).copied().collect();
    if staying.len() == voters.len() {
        return Ok(Some(Change::Forget(gone)));
    }
    let rest: Vec<Observed> = members
        .iter()
        .filter(|member| member.name != name)
        .cloned()
        .collect();
    let replacement = candidates(&rest).next().map(|member| member.id);
    let new = if staying.len() % 2 == 1 {
        Some(staying)
    } else if let Some(replacement) = replacement {
        Some(staying.into_iter().chain([replacement]).collect())
    } else {
        demoted(&rest, &staying)
    };
    match new.filter(|voters| !voters.is_empty()) {
        Some(voters) => Ok(Some(Change::Voters(voters))),
        None => Err(format!(
            "{name} is the only voter, and no learner can take its place"
        )),
    }
}

#[cfg(test)]
mod tests;
