//! The local PostgreSQL instance: found, started, watched, followed, promoted, cloned and rewound.
//!
//! Nothing here decides anything or knows of a store: callers say what to do and are told what came of it, with proof
//! where safety rests on it.
//!
//! **Invariant:** only this crate starts a PostgreSQL program; a postmaster only under the guard, and as a standby
//! unless its directory was initialized a moment ago.

mod error;
mod options;
mod secret;

mod instance;

mod binaries;
mod control;
mod datadir;
mod init;
mod restore;
mod scripts;

mod server;

mod autoconf;
mod config;
mod floors;
mod hba;
mod hba_rules;
mod shared;
mod taken;

mod health;
mod hold;
mod identify;
mod knock;
mod probe;
mod standby;
mod sync;

mod clone;
mod compare;
mod copied;
mod discarded;
mod end_on_disk;
mod rewind;

mod logical;
mod slots;

mod timeline;
mod upstream;

mod files;
mod logfile;
mod process;
mod program;
mod quote;
mod scram;
mod socket;
mod sql;
mod tls;

pub use binaries::Binaries;
pub use clone::CloneProgress;
pub use compare::Compared;
pub use config::NEVER_THE_USERS;
pub use control::{Control, ControlState};
pub use datadir::{DataDir, Work};
pub use discarded::Discarded;
pub use error::PostgresError;
pub use hba_rules::{not_a_rule, not_maps, not_rules};
pub use health::DiskSpace;
pub use identify::Identity;
pub use instance::Instance;
pub use logfile::{StreamFailure, StreamTrouble};
pub use logical::{LogicalChanges, LogicalSlot};
pub use options::{
    Access, CopyMethod, Copying, Libpq, Options, Recovery, Replace, Restore, Shared, SyncNames,
    Upstream,
};
pub use probe::{PendingRestart, Probe, Receiver, Walsender};
pub use rewind::{RewindReport, Rewound};
pub use scripts::{end_noted_program, run_users_program};
pub use secret::{Login, Secret};
pub use server::{Liveness, Started, Stop};
pub use shared::not_the_users;
pub use slots::SlotChanges;
pub use standby::{Detached, EndOfWal};
pub use sync::AppliedSync;
pub use timeline::{History, Switch};
pub use tls::{BadSslMode, Connector, Tls};
pub use upstream::UpstreamInfo;
