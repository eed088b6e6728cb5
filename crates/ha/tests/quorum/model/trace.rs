//! A way through the world in sentences.

use super::search::Loss;
use super::settings::{name, names};
use super::state::{SettingId, State};
use super::world::World;
use std::fmt::Write;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Start,
    Commit { epoch: u8 },
    Flush { node: usize },
    Read { epoch: u8, node: usize },
    File { epoch: u8 },
    Store,
    AllHaveRead,
    Applied,
    BarrierPassed,
    Abandon,
    Forget,
    Want,
    Claim { claimant: usize, promised: u8 },
    Follow { node: usize },
}

/// A line an event, and what is wrong in the end.
pub(super) fn describe(world: &World, path: &[(Action, State)], loss: &Loss) -> String {
    let mut text = String::new();
    let mut before = None;
    for (action, state) in path {
        let line = sentence(world, *action, state);
        let acked = |state: &State, epoch: u8| state.reign(epoch).acked;
        let news = (1..=state.epoch).filter(|epoch| {
            before.is_some_and(|old: State| acked(state, *epoch) > acked(&old, *epoch))
        });
        let news: String = news
            .map(|epoch| {
                let reign = state.reign(epoch);
                format!(
                    "; {} acknowledges up to {}",
                    name(reign.leader.into()),
                    reign.acked
                )
            })
            .collect();
        writeln!(text, "{line}{news}").expect("a string takes everything");
        before = Some(*state);
    }
    if let Some((_, state)) = path.last() {
        writeln!(text, "=> {}", verdict(state, loss)).expect("a string takes everything");
    }
    text
}

fn sentence(world: &World, action: Action, state: &State) -> String {
    let setting = |id: SettingId| world.records.setting(id).to_string();
    let leader = |epoch: u8| name(state.reign(epoch).leader.into());
    match action {
        Action::Start => format!(
            "{}; wanted: {}",
            record(world, state),
            setting(state.wanted)
        ),
        Action::Commit { epoch } => {
            let lsn = state.wal[usize::from(state.reign(epoch).leader)].lsn;
            format!("{} writes {lsn}", leader(epoch))
        }
        Action::Flush { node } => format!("{} flushes {}", name(node), state.wal[node].lsn),
        Action::Read { epoch, node } => {
            let reign = state.reign(epoch);
            let who = if node == usize::from(reign.leader) {
                format!("the checkpointer of {}", name(node))
            } else {
                format!("{}'s walsender of {}", leader(epoch), name(node))
            };
            format!("{who} reads: {}", setting(reign.reads[node]))
        }
        Action::File { epoch } => {
            format!(
                "{}'s file says: {}",
                leader(epoch),
                setting(state.reign(epoch).file)
            )
        }
        Action::Store => record(world, state),
        Action::AllHaveRead => "every process has read it".to_owned(),
        Action::Applied => {
            let barrier = state.applied.map_or(0, |(_, barrier)| barrier);
            format!("the barrier is {barrier}")
        }
        Action::BarrierPassed => "enough standbys have flushed the barrier".to_owned(),
        Action::Abandon => "applying is given up".to_owned(),
        Action::Forget => "the agent restarts".to_owned(),
        Action::Want => format!("wanted: {}", setting(state.wanted)),
        Action::Claim { claimant, promised } => {
            format!(
                "{} claims with {}; {}",
                name(claimant),
                list(promised),
                record(world, state)
            )
        }
        Action::Follow { node } => {
            format!(
                "{} follows {} from {}",
                name(node),
                leader(state.epoch),
                state.wal[node].lsn
            )
        }
    }
}

fn record(world: &World, state: &State) -> String {
    let settings = world.records.record(state.record).settings();
    let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
    format!("record: {}", settings.join(" + "))
}

fn verdict(state: &State, loss: &Loss) -> String {
    match loss {
        Loss::Commit {
            promised,
            claimant,
            epoch,
        } => format!(
            "the promises of {} are accepted; {} may claim with {} and lose {} of epoch {epoch}",
            list(*promised),
            name(*claimant),
            state.wal[*claimant].lsn,
            state.reign(*epoch).acked,
        ),
        Loss::Unrecorded { node } => {
            format!("what was read for {} is not in the record", name(*node))
        }
    }
}

fn list(mask: u8) -> String {
    names(mask)
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
