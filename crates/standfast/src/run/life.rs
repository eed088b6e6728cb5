//! The node itself.

use crate::config::Config;
use crate::exit::{ExitCode, Failure};
use crate::pidfile::PidFile;

/// Runs the node until it is told to stop. `_pid_file` is held for as long as that.
pub(crate) fn run(config: Config, _pid_file: PidFile) -> anyhow::Result<ExitCode> {
    Err(Failure::error(format!("the agent of {} is not wired up yet", config.name)).into())
}
