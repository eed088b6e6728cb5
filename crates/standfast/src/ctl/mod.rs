//! The command line under the name `patronictl`: Patroni's commands, flags and frames for a cluster of ours.
//!
//! **Invariant:** what is printed is patronictl's; the exit code says what became of it (`docs/guide/exit-codes.md`).

mod act;
mod ask;
mod change;
mod cluster;
mod diff;
mod edit;
mod frame;
mod http;
mod members;
mod query;
mod reach;
mod show;
mod standby;
mod typed;
mod whole;
mod yaml;

use crate::exit::{ExitCode, Failure};
use crate::output;
use crate::paths::Homes;
use clap::{CommandFactory as _, Parser as _};
use reach::Reach;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;
use typed::{Arguments, Group, Verb};

/// The name that the program must be called by.
const NAME: &str = "patronictl";

/// Whether this is how the program was called.
pub(crate) fn is_meant(program: &std::ffi::OsStr) -> bool {
    Path::new(program)
        .file_name()
        .is_some_and(|name| name == NAME)
}

/// Whether this is a word of patronictl's.
pub(crate) fn knows(word: &str) -> bool {
    Arguments::command().find_subcommand(word).is_some()
}

/// Says what went wrong as patronictl does.
pub(crate) fn main() -> ExitCode {
    // clap says itself what is wrong with a command line, and exits with 2.
    let arguments = Arguments::parse();
    match crate::block_on(run(arguments)) {
        Ok(code) => code,
        Err(error) => {
            let failure = error.downcast_ref::<Failure>();
            match failure.filter(|failure| failure.message == "Aborted!") {
                Some(_) => output::note("Aborted!"),
                None => output::note(&format!("Error: {error:#}")),
            }
            if let Some(hint) = failure.and_then(|failure| failure.hint.as_deref()) {
                output::note(&format!("hint: {hint}"));
            }
            failure.map_or(ExitCode::Error, |failure| failure.code)
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let homes = Homes::from_env();
    if let Verb::Version(version) = &arguments.verb
        && version.cluster_name.is_none()
    {
        show::own_version();
        return Ok(ExitCode::Ok);
    }
    let reach = Reach::find(&arguments, &homes)?;
    one_group(&arguments.verb)?;
    let code = match arguments.verb {
        Verb::DemoteCluster(it) => standby::demote(&reach, &it).await?,
        Verb::Dsn(it) => show::dsn(&reach, &it).await?,
        Verb::EditConfig(it) => edit::edit(&reach, &it).await?,
        Verb::Failover(it) => change::failover(&reach, &it).await?,
        Verb::Flush(it) => act::flush(&reach, &it).await?,
        Verb::History(it) => show::history(&reach, &it).await?,
        Verb::List(it) => show::list(&reach, &it).await?,
        Verb::Pause(it) => whole::pause(&reach, &it, true).await?,
        Verb::PromoteCluster(it) => standby::promote(&reach, &it).await?,
        Verb::Query(it) => query::query(&reach, &it).await?,
        Verb::Reinit(it) => act::reinit(&reach, &it).await?,
        Verb::Reload(it) => act::reload(&reach, &it).await?,
        Verb::Remove(it) => whole::remove(&reach, &it).await?,
        Verb::Restart(it) => act::restart(&reach, &it).await?,
        Verb::Resume(it) => whole::pause(&reach, &it, false).await?,
        Verb::ShowConfig(it) => show::config(&reach, &it).await?,
        Verb::Switchover(it) => change::switchover(&reach, &it).await?,
        Verb::Topology(it) => show::topology(&reach, &it).await?,
        Verb::Version(it) => show::version(&reach, &it).await?,
    };
    Ok(code)
}

fn one_group(verb: &Verb) -> Result<(), Failure> {
    let group: &Group = match verb {
        Verb::DemoteCluster(it) => &it.cluster.group,
        Verb::PromoteCluster(it) => &it.cluster.group,
        Verb::Dsn(it) => &it.cluster.group,
        Verb::EditConfig(it) => &it.cluster.group,
        Verb::Failover(it) => &it.cluster.group,
        Verb::Flush(it) => &it.group,
        Verb::History(it) => &it.cluster.group,
        Verb::List(it) => &it.group,
        Verb::Pause(it) | Verb::Resume(it) => &it.cluster.group,
        Verb::Query(it) => &it.cluster.group,
        Verb::Reinit(it) => &it.members.group,
        Verb::Reload(it) => &it.members.group,
        Verb::Remove(it) => &it.group,
        Verb::Restart(it) => &it.members.group,
        Verb::ShowConfig(it) => &it.group,
        Verb::Switchover(it) => &it.cluster.group,
        Verb::Topology(it) => &it.group,
        Verb::Version(it) => &it.group,
    };
    match group.group {
        None | Some(0) => Ok(()),
        Some(group) => Err(Failure::unknown(format!(
            "there is no group {group}, only group 0"
        ))),
    }
}

/// JSON spaced as Patroni's tools space it.
fn json(value: &impl Serialize) -> String {
    api::spaced(value)
}

/// The time of the machine, as patronictl writes it: to the second, or finer.
fn timestamp(fine: bool) -> String {
    let now = jiff::Zoned::now();
    let form = if fine { "%F %T.%6f" } else { "%F %T" };
    let text = now.strftime(form).to_string();
    // Patroni's microseconds lack their last digit.
    if fine {
        text[..text.len() - 1].to_owned()
    } else {
        text
    }
}

/// Again and again if that is wanted; the screen is cleared before each time but the first.
async fn watching<F>(watch: typed::Watch, clear: bool, mut show: F) -> Result<ExitCode, Failure>
where
    F: AsyncFnMut() -> Result<ExitCode, Failure>,
{
    let pause = match (watch.every, watch.often) {
        (Some(seconds), _) if seconds > 0.0 && seconds <= 86_400.0 => {
            Some(Duration::from_secs_f64(seconds))
        }
        (_, true) => Some(Duration::from_secs(2)),
        _ => None,
    };
    loop {
        if clear && pause.is_some() {
            output::print("\x1b[2J\x1b[1;1H");
        }
        let code = show().await?;
        let Some(pause) = pause else { return Ok(code) };
        tokio::time::sleep(pause).await;
    }
}
