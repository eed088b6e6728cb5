//! A proxy's own file: the cluster's store, as a node's file names it, or servers, and the section
//! `proxy`; and that section in a node's file.

mod limits;
mod section;
mod source;

pub(crate) use section::{ProxySection, proxy_section};
pub(crate) use source::ProxySource;

use super::Endpoint;
use super::problem::{ConfigError, Problem};
use super::read::log;
use super::section::{Findings, Section};
use super::values::is_loopback;
use super::{Log, sources};
use crate::paths::Homes;
use std::path::Path;

/// A file of a proxy, complete.
#[derive(Clone, Debug)]
pub(crate) struct ProxyConfig {
    pub(crate) log: Log,
    pub(crate) source: ProxySource,
    pub(crate) proxy: ProxySection,
}

impl ProxyConfig {
    /// Whether a file is a proxy's own and no node's.
    pub(crate) fn is_meant(file: &Path) -> Result<bool, ConfigError> {
        let layers = sources::read(file, &std::collections::BTreeMap::new())?;
        let findings = Findings::default();
        let root = Section::root(&layers.tree, &findings);
        let of_nodes = ["name", "postgresql", "restapi", "witness"];
        Ok(root.is_present("proxy") && !of_nodes.iter().any(|key| root.is_present(key)))
    }

    /// Reads and checks a file. What is odd and harmless comes back beside it.
    pub(crate) fn load(file: &Path, homes: &Homes) -> Result<(Self, Vec<Problem>), ConfigError> {
        let layers = sources::read(file, &std::collections::BTreeMap::new())?;
        let findings = Findings::default();
        let config = read(file, &Section::root(&layers.tree, &findings), homes);
        layers.judge(file, config, findings)
    }
}

/// `None` only after an error was noted.
fn read(file: &Path, root: &Section<'_>, homes: &Homes) -> Option<ProxyConfig> {
    let log = log(root, file);
    let section = root.section("proxy");
    let source = source::source(root, &section, homes);
    let proxy = proxy_section(&section);
    if let Some(proxy) = &proxy {
        // Every address of this machine is not every machine's.
        let ours = |server: &Endpoint| !proxy.listen.is_any() || is_loopback(&server.host);
        let servers = source.iter().flat_map(ProxySource::servers);
        let taken = servers.filter(|(_, server)| ours(server));
        proxy.check_ports(&section, taken.collect());
    }
    root.finish(&[
        "name",
        "restapi",
        "postgresql",
        "bootstrap",
        "state_dir",
        "tags",
        "guard",
        "watchdog",
    ]);
    Some(ProxyConfig {
        log,
        source: source?,
        proxy: proxy?,
    })
}
