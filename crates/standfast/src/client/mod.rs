//! The commands that ask a cluster: which member they ask, what they send, how the answer is shown.
//!
//! **Invariant:** they know the cluster only by its API; any member's will do.

mod api;
mod drop;
mod events;
mod explain;
mod haproxy;
mod local;
mod node;
mod perform;
mod settings;
mod state;
mod status;
mod table;
mod target;
mod uri;
mod watch;

pub(crate) use api::Api;
pub(crate) use local::{reload, stop};
pub(crate) use state::note_silent;
pub(crate) use target::Target;
pub(crate) use target::{Named, load, members_of};

use crate::cli::meant::Ask;
use crate::exit::ExitCode;
use crate::paths::Homes;

/// Does what was asked for.
pub(crate) async fn run(target: &Target, ask: &Ask, homes: &Homes) -> anyhow::Result<ExitCode> {
    match ask {
        Ask::State { json } => state::show(target, *json).await,
        Ask::Events { count, json } => events::show(target, *count, *json).await,
        Ask::Uri { which, json } => uri::show(target, *which, *json).await,
        Ask::Settings { json } => settings::show(target, *json).await,
        Ask::StandbyNames { json } => settings::standby_names(target, *json).await,
        Ask::Haproxy(order) => haproxy::show(target, order).await,
        Ask::Status { json } => status::show(target, *json).await,
        Ask::Explain { json } => explain::show(target, *json).await,
        Ask::Perform(order) => perform::perform(target, order).await,
        Ask::Maintenance(order) => perform::maintenance(target, order).await,
        Ask::GetNode {
            node,
            property,
            json,
        } => node::get(target, node.as_ref(), *property, *json).await,
        Ask::SetNode { node, value, json } => node::set(target, node.as_ref(), *value, *json).await,
        Ask::DropNode(order) => drop::node(target, order, homes).await,
        Ask::DropMonitor(order) => drop::monitor(target, order, homes).await,
        Ask::Watch { count } => watch::watch(target, *count).await,
    }
}
