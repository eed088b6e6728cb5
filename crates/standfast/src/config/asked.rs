//! What PostgreSQL itself can be asked of a file, also of one that is wrong elsewhere.

use super::Config;
use super::read::absolute_path;
use super::section::{Findings, Section};
use super::{sources, variables};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The parameters that a node's Postgres is to get, and where its programs are.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) bin_dir: Option<PathBuf>,
    pub(crate) data_dir: Option<PathBuf>,
    /// The node's own.
    pub(crate) own: BTreeMap<String, String>,
    /// The cluster's first.
    pub(crate) shared: BTreeMap<String, String>,
}

impl Asked {
    /// `None`: it has no Postgres.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let pg = config.postgresql.as_ref()?;
        let shared = config.bootstrap.dcs.postgres();
        Some(Self {
            bin_dir: pg.bin_dir.clone(),
            data_dir: Some(pg.data_dir.clone()),
            own: pg.parameters.clone(),
            shared: shared.map_or_else(|_| BTreeMap::new(), |said| said.parameters),
        })
    }

    /// Of a file that is refused: as far as it can be read. What is wrong with it is said by who refuses it.
    pub(crate) fn of_refused(file: &Path) -> Option<Self> {
        let layers = sources::read(file, &variables::own()).ok()?;
        let findings = Findings::default();
        let root = Section::root(&layers.tree, &findings);
        let pg = root.section("postgresql");
        let parameters = |section: &Section<'_>| {
            let pairs = section.section("parameters").pairs();
            pairs.into_iter().map(|(key, at)| (key, at.value)).collect()
        };
        let dcs = root.section("bootstrap").section("dcs");
        Some(Self {
            bin_dir: absolute_path(&pg, "bin_dir"),
            data_dir: absolute_path(&pg, "data_dir"),
            own: parameters(&pg),
            shared: parameters(&dcs.section("postgresql")),
        })
    }
}
