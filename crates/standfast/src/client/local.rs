//! What concerns this machine only: the agent of a node is told to stop or to read its configuration again.

use crate::config::Config;
use crate::exit::{ExitCode, Failure};
use crate::output::note;
use crate::paths::Homes;
use crate::pidfile::{self, Agent};
use rustix::process::Signal;
use std::time::Duration;

/// How long a stop is waited for: Postgres writes a checkpoint first.
const STOP_LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn stop(config: &Config, signal: Signal) -> anyhow::Result<ExitCode> {
    let agent = running(config)?;
    stop_agent(config, &agent, signal)?;
    note(&format!("stopped {}", config.name));
    let postgres = config.postgresql.as_ref();
    if postgres.is_some_and(|it| !guard::leftovers(&it.data_dir).is_empty()) {
        note("its Postgres runs on for the next agent: the cluster is paused");
    }
    Ok(ExitCode::Ok)
}

pub(super) fn stop_agent(config: &Config, agent: &Agent, signal: Signal) -> anyhow::Result<()> {
    agent.signal(signal)?;
    if !agent.wait_gone(STOP_LIMIT)? {
        let what = format!(
            "the agent of {}, pid {}, has not stopped within {} s",
            config.name,
            agent.pid,
            STOP_LIMIT.as_secs()
        );
        let failure = Failure::new(ExitCode::TimedOut, what);
        return Err(failure
            .hint("its log tells what it waits for; standfast stop --fast")
            .into());
    }
    Ok(())
}

/// A broken file is refused here, before the agent is told: it would keep the old one and say so in its log only.
pub(crate) fn reload(config: &Config, homes: &Homes) -> anyhow::Result<ExitCode> {
    let (read, warnings) = Config::load(&config.file, homes)?;
    for warning in &warnings {
        note(&format!("warning: {}: {warning}", read.file.display()));
    }
    let agent = running(config)?;
    agent.signal(Signal::HUP)?;
    note(&format!(
        "told {} to read {} again",
        config.name,
        config.file.display()
    ));
    Ok(ExitCode::Ok)
}

fn running(config: &Config) -> anyhow::Result<Agent> {
    pidfile::agent(&config.state_dir)?
        .ok_or_else(|| Failure::error(format!("the agent of {} does not run", config.name)).into())
}
