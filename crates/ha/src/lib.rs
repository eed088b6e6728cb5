//! What a node should do: views, quorum rules, decisions. Pure.
//!
//! **Invariant:** nothing in this crate reads a clock, a file, a socket or a random number.
//! It is told the time and what the world said, and answers with what to do and why.

mod decide;
mod decision;
mod failsafe;
mod lineage;
pub mod quorum;
mod settings;
mod state;
mod types;
mod view;

pub use decide::{
    Unfit, Verdict, decide, gives_way, handover_candidate, others_can_lead, verdict, wanted_setting,
};
pub use decision::{Action, Claim, Decision};
pub use failsafe::{Hold, Holders, holders};
pub use lineage::{Branch, Lineage, Position, Relation};
pub use settings::{Remote, Settings, SyncMode};
pub use state::NodeState;
pub use types::{BadLsn, BadNodeName, Epoch, Instant, Lsn, NodeName, SystemId, Timeline};
pub use view::{
    Cluster, ClusterView, Contact, DataDir, Errand, Foreign, Initialize, Job, Leadership, Lease,
    Member, NodeRecord, NodeView, Postgres, Primary, Promise, Published, Standby, Storage,
    StreamBroken, Switchover, Ties, Walsender,
};
