//! What the PostgreSQL of this machine thinks of the parameters that it is to get: it says so itself.
//!
//! Without one, and of a version that is not the data directory's, nothing is said.

use crate::config::{Config, Postgresql, Problem, nearest};
use postgres::Binaries;
use std::collections::BTreeMap;

pub(super) fn check(config: &Config) -> Vec<Problem> {
    let Some(pg) = &config.postgresql else {
        return Vec::new();
    };
    let Some(binaries) = programs(pg) else {
        return Vec::new();
    };
    let shared = config.bootstrap.dcs.postgres();
    let shared = shared.map_or_else(|_| BTreeMap::new(), |said| said.parameters);
    let mut problems = Vec::new();
    for (section, parameters) in [
        ("postgresql.parameters", &pg.parameters),
        ("bootstrap.dcs.postgresql.parameters", &shared),
    ] {
        // Whoever can't be asked is no reason to complain of the file.
        let refused = binaries.not_taken(parameters).unwrap_or_default();
        if refused.is_empty() {
            continue;
        }
        let usual = binaries.usual_parameters().unwrap_or_default();
        for (name, why) in refused {
            let major = binaries.major;
            let mut what = format!("PostgreSQL {major} does not take it, it is left out: {why}");
            if let Some(near) = meant(&name, &usual) {
                what.push_str(&format!("; did you mean `{near}`?"));
            }
            problems.push(Problem::at(0, format!("{section}.{name}"), what));
        }
    }
    problems
}

/// Of the version that the data directory has, if it has one.
fn programs(pg: &Postgresql) -> Option<Binaries> {
    let version = std::fs::read_to_string(pg.data_dir.join("PG_VERSION"));
    let major = version.ok().and_then(|text| text.trim().parse().ok());
    let found = Binaries::find(pg.bin_dir.as_deref(), major).ok()?;
    major
        .is_none_or(|major| major == found.major)
        .then_some(found)
}

fn meant<'k>(name: &str, usual: &'k [String]) -> Option<&'k str> {
    let name = name.to_ascii_lowercase();
    let known = || usual.iter().map(String::as_str);
    match known().any(|usual| usual == name) {
        true => None,
        false => nearest(&name, known()),
    }
}
