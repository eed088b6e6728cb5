//! Nodes from configuration files that somebody brings along.

use super::Cluster;
use super::layout::write_private;
use crate::{Host, Lab, Node, Passwords};
use anyhow::{Context, Result};
use std::fs;

/// What a node is configured with.
#[derive(Clone, Debug, Default)]
pub struct Brought {
    /// Names and texts; several make a directory of them.
    pub files: Vec<(String, String)>,
    pub environment: Vec<(String, String)>,
}

impl Cluster {
    /// Nodes n1, n2, n3, on ports 5432 and 8008. Nothing is started yet.
    ///
    /// # Errors
    /// When files can't be written.
    pub fn brought(lab: &mut Lab, bring: impl Fn(&Host) -> Brought) -> Result<Self> {
        Self::brought_for(&["n1", "n2", "n3"], lab, bring)
    }

    /// The same with nodes of these names.
    pub fn brought_for(
        names: &[&str],
        lab: &mut Lab,
        bring: impl Fn(&Host) -> Brought,
    ) -> Result<Self> {
        let mut nodes = Vec::new();
        for (name, number) in names.iter().copied().zip(11..) {
            let host = lab.add_host(name, number)?;
            let brought = bring(&host);
            let dir = host.directory().join("patroni");
            fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
            lab.identity().own(&dir)?;
            for (file, text) in &brought.files {
                write_private(lab, &dir.join(file), text)?;
            }
            let read = match brought.files.as_slice() {
                [(only, _)] => dir.join(only),
                _ => dir,
            };
            nodes.push(Node {
                name: name.to_owned(),
                api: format!("{}:8008", host.address()),
                pg_port: Some(5432),
                data_dir: host.directory().join("data"),
                run: vec!["run".to_owned(), read.display().to_string()],
                environment: brought.environment,
                binary: lab.binary().to_owned(),
                superuser: "postgres".to_owned(),
                password: Some(Passwords::default().superuser),
                agent: None,
                https: None,
                host,
            });
        }
        Ok(Self {
            nodes,
            secret: String::new(),
        })
    }
}
