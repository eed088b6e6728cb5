//! Addresses and paths, as every section has them.

use crate::config::section::Section;
use crate::config::values::Endpoint;
use std::path::PathBuf;

/// The address for others: the configured one, or where we listen if that means one place.
pub(super) fn connected(
    section: &Section<'_>,
    connect: Option<Endpoint>,
    listen: &Endpoint,
) -> Option<Endpoint> {
    match connect {
        Some(connect) if connect.is_any() => {
            let what = "must name one address of this machine that the others can reach";
            section.refuse("connect_address", what);
            None
        }
        Some(connect) => Some(connect),
        None if section.is_present("connect_address") => None,
        None if listen.is_any() => {
            let what = "the address under which the others reach this node, as HOST:PORT";
            section.missing("connect_address", what);
            None
        }
        None => Some(listen.clone()),
    }
}

pub(in crate::config) fn endpoint(section: &Section<'_>, key: &'static str) -> Option<Endpoint> {
    let text = section.text(key)?;
    match text.value.parse() {
        Ok(endpoint) => Some(endpoint),
        Err(bad) => {
            section.error(text.line, key, format!("{bad}"));
            None
        }
    }
}

pub(in crate::config) fn absolute_path(
    section: &Section<'_>,
    key: &'static str,
) -> Option<PathBuf> {
    let text = section.text(key)?;
    let path = PathBuf::from(&text.value);
    if text.value.contains(['\n', '\r', '\0']) {
        section.error(text.line, key, "must not hold line breaks");
        return None;
    }
    if !path.is_absolute() {
        section.error(
            text.line,
            key,
            format!("{:?} is relative, write an absolute path", text.value),
        );
        return None;
    }
    if path
        .components()
        .any(|part| part == std::path::Component::ParentDir)
    {
        section.error(text.line, key, "holds `..`, write the path that is meant");
        return None;
    }
    Some(path.components().collect())
}
