//! `standfast config check`: what is wrong with a file, and what of this machine is in the way.
//!
//! **Invariant:** nothing is touched. Errors are what would keep it from starting; what another user, another day or a
//! command of root's may change is a warning, but for the data directory: without one there is no node.

mod parameters;
mod rights;

use crate::config::{Asked, Config, ConfigError, Problem, ProxyConfig, ProxySection, ProxySource};
use crate::exit::ExitCode;
use crate::output;
use crate::paths::Homes;
use crate::privileges::Runner;
use crate::proxy;
use crate::secret::{how_to_have, is_absent};
use std::os::unix::fs::MetadataExt as _;
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
    let file = file.display();
    output::line(&match warnings.len() {
        0 => format!("{file}: ok"),
        1 => format!("{file}: ok, with a warning"),
        count => format!("{file}: ok, with {count} warnings"),
    });
    Ok(ExitCode::Ok)
}

/// Warnings and errors.
type Found = (Vec<Problem>, Vec<Problem>);

fn of_node(file: &Path, homes: &Homes, runner: Option<&Runner>) -> Result<Found, ConfigError> {
    let (config, mut warnings) = match Config::load(file, homes) {
        Ok(loaded) => loaded,
        // What PostgreSQL thinks of the parameters need not wait for the rest to be mended.
        Err(error) => {
            let asked = Asked::of_refused(file);
            let warnings = asked.as_ref().map(parameters::check).unwrap_or_default();
            return Ok((warnings, error.problems));
        }
    };
    let mut errors = config.check_machine();
    warnings.extend(Asked::of(&config).iter().flat_map(parameters::check));
    if let Some(runner) = runner {
        let (odd, wrong) = rights::of_node(&config, runner);
        warnings.extend(odd);
        // What was said of it already is the reason.
        let is_known = |key: &str| errors.iter().any(|error| error.key == key);
        let news: Vec<_> = wrong.into_iter().filter(|it| !is_known(&it.key)).collect();
        errors.extend(news);
    }
    errors.extend(config.proxy.iter().flat_map(files));
    warnings.extend(config.proxy.iter().filter_map(open_to_all));
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
    warnings.extend(open_to_all(&config.proxy));
    let mut errors = files(&config.proxy);
    if let ProxySource::Raft { secret_file, .. } = &config.source
        && let Err(error) = store::Secret::read(secret_file)
    {
        let what = match is_absent(&error) {
            true => how_to_have(secret_file),
            false => format!("{:#}", anyhow::Error::new(error)),
        };
        errors.push(Problem::at(0, "store.raft.secret_file", what));
    }
    Ok((warnings, errors))
}

/// Passwords in clear are nobody's but who runs the proxy.
fn open_to_all(section: &ProxySection) -> Option<Problem> {
    let file = &section.users_file;
    let mode = std::fs::metadata(file).ok()?.mode();
    let clear = proxy::users(section).ok()?.has_passwords();
    let what = format!(
        "{} holds passwords in clear, and everybody on this machine may read it (mode {:04o}): chmod 600 it; or write SCRAM \
         verifiers, as in pg_authid.rolpassword",
        file.display(),
        mode & 0o777
    );
    (clear && mode & 0o004 != 0).then(|| Problem::at(0, "proxy.users_file", what))
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
