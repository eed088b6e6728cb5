//! `standfast proxy`: turns a proxy's file into a running proxy.

mod descriptors;
mod life;
mod lookout;
mod options;
mod patroni;

pub(crate) use descriptors::Own;
pub(crate) use life::{has_moved, metrics, serve};
pub(crate) use options::{client_tls, hba, options, server_tls, source, users};

use crate::config::{LogLevel, ProxyConfig};
use crate::exit::ExitCode;
use crate::paths::Homes;
use crate::{cli::meant, logging};
use anyhow::{Context as _, Result};
use std::path::Path;
use tokio::runtime::Builder;

pub(crate) fn run(file: &Path, level: Option<LogLevel>, homes: &Homes) -> Result<ExitCode> {
    let (config, warnings) = ProxyConfig::load(file, homes)?;
    let _ending = logging::start(&meant::log(config.log.clone(), level));
    for warning in warnings {
        tracing::warn!("{}: {warning}", file.display());
    }
    let runtime = match config.proxy.threads {
        1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build(),
    };
    let runtime = runtime.context("can't start the runtime")?;
    let served = runtime.block_on(async {
        let source = source(config.source)?;
        let again = || {
            let (config, warnings) = ProxyConfig::load(file, homes)?;
            for warning in warnings {
                tracing::warn!("{}: {warning}", file.display());
            }
            Ok(config.proxy)
        };
        serve(&config.proxy, source, again).await
    });
    // Whoever is still served is cut off: the process ends.
    runtime.shutdown_background();
    served.map(|()| ExitCode::Ok)
}
