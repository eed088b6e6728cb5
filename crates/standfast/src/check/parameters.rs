//! What the PostgreSQL of this machine thinks of the parameters that it is to get: it says so itself.
//!
//! Without one, and of a version that is not the data directory's, nothing is said.

use crate::config::{Asked, Problem, nearest};
use postgres::Binaries;

pub(super) fn check(asked: &Asked) -> Vec<Problem> {
    let Some(binaries) = programs(asked) else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    for (section, parameters) in [
        ("postgresql.parameters", &asked.own),
        ("bootstrap.dcs.postgresql.parameters", &asked.shared),
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
fn programs(asked: &Asked) -> Option<Binaries> {
    let version = asked.data_dir.as_ref().map(|dir| dir.join("PG_VERSION"));
    let version = version.and_then(|file| std::fs::read_to_string(file).ok());
    let major = version.and_then(|text| text.trim().parse().ok());
    let found = Binaries::find(asked.bin_dir.as_deref(), major).ok()?;
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
