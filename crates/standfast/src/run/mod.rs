//! The node itself.

use crate::config::Config;
use crate::exit::{ExitCode, Failure};

/// Runs the node until it is told to stop.
pub(crate) fn run(config: Config) -> anyhow::Result<ExitCode> {
    Err(Failure::error(format!("the agent of {} is not wired up yet", config.name)).into())
}
