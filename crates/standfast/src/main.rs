//! The binary: flags, configuration, logging, and which command does what.
//!
//! **Invariant:** the guard is entered before anything else exists: no thread, no runtime, no open file.

mod bench;
mod check;
mod cli;
mod client;
mod config;
mod confirm;
mod create;
mod ctl;
mod demo;
mod exit;
mod incidents;
mod logging;
mod output;
mod paths;
mod pidfile;
mod privileges;
mod proxy;
mod replay;
mod run;
mod secret;
mod systemd;

use anyhow::Context as _;
use clap::Parser as _;
use cli::meant::{self, Command, Which};
use cli::typed::Arguments;
use config::{Config, Log, LogLevel};
use exit::{ExitCode, Failure};
use paths::Homes;
use pidfile::{PidFile, PidFileError};
use std::future::Future;
use std::path::PathBuf;

/// The hidden subcommand behind which the guard stands.
const GUARD: &str = "guard";

fn main() -> std::process::ExitCode {
    let mut words = std::env::args_os();
    if words.nth(1).is_some_and(|word| word == GUARD) {
        return guard::main(words.collect());
    }
    if std::env::args_os()
        .next()
        .is_some_and(|program| ctl::is_meant(&program))
    {
        return ctl::main().into();
    }
    let code = match standfast() {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    };
    code.into()
}

fn standfast() -> anyhow::Result<ExitCode> {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => not_understood(&error),
    };
    let user = arguments.common.user.clone();
    let level = meant::log_level(&arguments.common);
    let command = meant::mean(arguments)?;
    if command.becomes_another_user() {
        privileges::drop_to(&user)?;
    }
    let homes = Homes::from_env();
    let quiet = Log {
        level: LogLevel::Warn,
        ..Log::default()
    };
    match command {
        Command::Run(which) => run(&file(which, &homes)?, level, &homes),
        Command::Proxy(file) => proxy::run(&file, level, &homes),
        Command::CreateMonitor(request) => {
            let _ending = logging::start(&meant::log(quiet, level));
            let created = create::create_monitor(&request, &homes)?;
            run_if_asked(&created, level, &homes)
        }
        Command::CreatePostgres(request) => {
            let _ending = logging::start(&meant::log(quiet, level));
            let created = block_on(create::create_postgres(&request, &homes))?;
            run_if_asked(&created, level, &homes)
        }
        Command::Ask(named, ask) => {
            let _ending = logging::start(&meant::log(quiet, level));
            let target = client::Target::find(&named, &homes)?;
            block_on(client::run(&target, &ask, &homes))
        }
        Command::Stop { which, signal } => client::stop(&own(which, &homes)?, signal),
        Command::Reload(which) => client::reload(&own(which, &homes)?, &homes),
        Command::Demo(options) => demo::run(options),
        Command::Bench(what) => bench::run(&what),
        Command::CheckConfig(which) => check::check(&file(which, &homes)?, &user),
        Command::ImportConfig { file, output } => import_config(&file, output.as_deref(), &homes),
        Command::Replay(journal) => replay::replay(&journal),
        Command::RecoverStore { which, yes } => {
            let config = own(which, &homes)?;
            let pid_file = PidFile::acquire(&config.state_dir)?;
            block_on(run::recover_store(&config, pid_file, yes))
        }
        Command::Version { json } => version(json),
    }
}

/// clap says itself what is wrong with a command line, and exits with 2, or with 0 where help was asked for.
fn not_understood(error: &clap::Error) -> ! {
    let word = error.get(clap::error::ContextKind::InvalidSubcommand);
    if let Some(clap::error::ContextValue::String(word)) = word
        && ctl::knows(word)
    {
        let _ = error.print();
        output::note(&format!(
            "\nhint: `{word}` is a word of patronictl, which is this program by another name: ln -s standfast patronictl"
        ));
        std::process::exit(error.exit_code());
    }
    error.exit()
}

fn file(which: Which, homes: &Homes) -> anyhow::Result<PathBuf> {
    match which {
        Which::File(file) => Ok(file),
        Which::Pgdata(pgdata) => Ok(client::load(&pgdata, homes)?.file),
    }
}

/// The configuration of a node of this machine.
fn own(which: Which, homes: &Homes) -> anyhow::Result<Config> {
    match which {
        Which::File(file) => Ok(Config::load(&file, homes)?.0),
        Which::Pgdata(pgdata) => client::load(&pgdata, homes),
    }
}

fn run_if_asked(
    created: &create::Created,
    level: Option<LogLevel>,
    homes: &Homes,
) -> anyhow::Result<ExitCode> {
    if created.run {
        run(&created.file, level, homes)
    } else {
        Ok(ExitCode::Ok)
    }
}

fn run(file: &std::path::Path, level: Option<LogLevel>, homes: &Homes) -> anyhow::Result<ExitCode> {
    let (config, warnings) = Config::load(file, homes)?;
    let ending = logging::start(&meant::log(config.log.clone(), level));
    for warning in warnings {
        tracing::warn!("{}: {warning}", file.display());
    }
    let ready = run::Ready::new()?;
    let pid_file =
        PidFile::acquire(&config.state_dir).map_err(|error| with_hint(error, &config, homes))?;
    let backlog = ending.as_ref().map(logging::Ending::backlog);
    ready.run(config, pid_file, backlog)
}

/// How to stop the agent that is in the way.
fn with_hint(error: PidFileError, config: &Config, homes: &Homes) -> anyhow::Error {
    let PidFileError::Taken { pid, .. } = error else {
        return error.into();
    };
    let monitor = config.raft().and_then(|raft| raft.data_dir.parent());
    let pgdata = match &config.postgresql {
        Some(pg) => Some(pg.data_dir.as_path()),
        None => monitor,
    };
    let made_by_create = pgdata.filter(|dir| homes.config_file(dir) == config.file);
    let stop = match made_by_create {
        Some(dir) => format!("standfast stop --pgdata {}", create::quoted(dir)),
        None => format!("standfast stop {}", create::quoted(&config.file)),
    };
    let stop = format!("{stop} (its agent is process {pid})");
    Failure::error(error.to_string())
        .hint(format!("stop it first: {stop}"))
        .into()
}

fn import_config(
    file: &std::path::Path,
    output: Option<&std::path::Path>,
    homes: &Homes,
) -> anyhow::Result<ExitCode> {
    let text = config::import(file, homes)?;
    let Some(output) = output else {
        output::print(&text);
        return Ok(ExitCode::Ok);
    };
    if output.exists() {
        let what = format!("{} is there already", output.display());
        let refused = Failure::refused(what).hint("remove it, or name another --output");
        return Err(refused.into());
    }
    // It may hold passwords.
    config::write_private(&std::path::absolute(output)?, text.as_bytes())
        .with_context(|| format!("can't write {}", output.display()))?;
    output::note(&format!("wrote {}", output.display()));
    Ok(ExitCode::Ok)
}

fn version(json: bool) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        output::json(&serde_json::json!({ "standfast": version, "postgresql": "13 to 18" }))?;
    } else {
        output::line(&format!("standfast {version}"));
    }
    Ok(ExitCode::Ok)
}

/// For commands: one thread is plenty.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    runtime.block_on(work)
}
