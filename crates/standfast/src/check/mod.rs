//! `standfast config check`: what is wrong with a file, and what of this machine is in the way.
//!
//! **Invariant:** nothing is touched. Errors are what would keep it from starting; what another user, another day or a
//! command of root's may change is a warning.

mod parameters;
mod rights;

use crate::config::{Config, ConfigError, Problem, ProxyConfig, ProxySection, ProxySource};
use crate::exit::ExitCode;
use crate::output;
use crate::paths::Homes;
use crate::privileges::Runner;
use crate::proxy;
use std::path::Path;

/// `user` is whom root becomes to run it.
pub(crate) fn check(file: &Path, user: &str) -> anyhow::Result<ExitCode> {
    let (runner, nobody) = match Runner::find(user) {
        Ok(runner) => (Some(runner), None),
        Err(error) => (
            None,
            Some(Problem::whole(format!("{error:#}; --user names another"))),
        ),
    };
    let homes = runner.as_ref().map_or_else(Homes::from_env, Runner::homes);
    let (mut warnings, errors) = match ProxyConfig::is_meant(file)? {
        true => of_proxy(file, &homes, runner.as_ref())?,
        false => of_node(file, &homes, runner.as_ref())?,
    };
    warnings.extend(nobody);
    for warning in &warnings {
        output::note(&format!("warning: {}: {warning}", file.display()));
    }
    if !errors.is_empty() {
        let error = ConfigError {
            file: file.to_owned(),
            problems: errors,
        };
        return Err(error.into());
    }
    output::line(&format!("{}: ok", file.display()));
    Ok(ExitCode::Ok)
}

/// Warnings and errors.
type Found = (Vec<Problem>, Vec<Problem>);

fn of_node(file: &Path, homes: &Homes, runner: Option<&Runner>) -> Result<Found, ConfigError> {
    let (config, mut warnings) = Config::load(file, homes)?;
    let mut errors = config.check_machine();
    warnings.extend(parameters::check(&config));
    warnings.extend(
        runner
            .map(|runner| rights::of_node(&config, runner))
            .into_iter()
            .flatten(),
    );
    errors.extend(config.proxy.iter().flat_map(files));
    Ok((warnings, errors))
}

fn of_proxy(file: &Path, homes: &Homes, runner: Option<&Runner>) -> Result<Found, ConfigError> {
    let (config, mut warnings) = ProxyConfig::load(file, homes)?;
    warnings.extend(
        runner
            .map(|runner| rights::of_proxy(file, &config, runner))
            .into_iter()
            .flatten(),
    );
    let mut errors = files(&config.proxy);
    if let ProxySource::Raft { secret_file, .. } = &config.source
        && let Err(error) = store::Secret::read(secret_file)
    {
        let what = format!("{:#}", anyhow::Error::new(error));
        errors.push(Problem::at(0, "store.raft.secret_file", what));
    }
    Ok((warnings, errors))
}

/// The files that a proxy reads when it starts.
fn files(section: &ProxySection) -> Vec<Problem> {
    let read = [
        ("proxy.users_file", proxy::users(section).err()),
        ("proxy.auth_hba_file", proxy::hba(section).err()),
        (
            "proxy.client_tls_cert_file",
            proxy::client_tls(section).err(),
        ),
        (
            "proxy.server_tls_cert_file",
            proxy::server_tls(section).err(),
        ),
    ];
    let problem = |(key, error): (&str, Option<anyhow::Error>)| {
        Some(Problem::at(0, key, format!("{:#}", error?)))
    };
    read.into_iter().filter_map(problem).collect()
}
