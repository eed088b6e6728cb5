//! `log`: what is said, in which form, and where it goes.

use super::places::absolute_path;
use crate::config::section::{At, Section};
use crate::config::tree::Node;
use crate::config::{Form, Log, LogFile, LogFormat, LogLevel};
use std::collections::BTreeMap;
use std::path::Path;

/// Every key, as Patroni names it; a variable for each.
pub(in crate::config) const KEYS: &[&str] = &[
    "type",
    "level",
    "traceback_level",
    "format",
    "dateformat",
    "static_fields",
    "max_queue_size",
    "dir",
    "mode",
    "file_num",
    "file_size",
    "loggers",
    "deduplicate_heartbeat_logs",
];

/// What says something of its own in our log, for `loggers`.
const LOGGERS: &[&str] = &[
    "agent",
    "api",
    "guard",
    "ha",
    "hyper",
    "openraft",
    "postgres",
    "reqwest",
    "standfast",
    "store",
    "tokio_postgres",
];

/// A file that was Patroni's, by its name or its directory's: `/etc/patroni/config.yml`.
fn is_patronis(file: &Path) -> bool {
    // What `create` writes stands below a path that has the data directory's words in it.
    let own = file.file_name().is_some_and(|name| name == "standfast.yml");
    !own && file.to_string_lossy().to_lowercase().contains("patroni")
}

/// Who comes from Patroni finds the log that his programs read; everybody may say which one it is.
pub(in crate::config) fn log(root: &Section<'_>, file: &Path) -> Log {
    let patronis = is_patronis(file);
    let section = root.section("log");
    let level = section.text("level").and_then(|text| {
        text.value
            .parse()
            .map_err(|bad: String| section.error(text.line, "level", bad))
            .ok()
    });
    let format = section
        .text("type")
        .and_then(|text| match text.value.as_str() {
            "plain" => Some(LogFormat::Patroni),
            "standfast" => Some(LogFormat::Own),
            "json" => Some(LogFormat::Json),
            other => {
                section.error(
                    text.line,
                    "type",
                    format!("{other:?} is none of plain, json, standfast"),
                );
                None
            }
        });
    let format = format.unwrap_or(match patronis {
        true => LogFormat::Patroni,
        false => LogFormat::Own,
    });
    let form = form(&section, format);
    let to = to(&section);
    let levels = levels(&section);
    section.finish(KEYS);
    Log {
        level: level.unwrap_or(LogLevel::Info),
        format,
        phrases: format == LogFormat::Patroni || (patronis && format == LogFormat::Json),
        form,
        levels,
        to,
    }
}

/// How a plain line looks.
fn form(section: &Section<'_>, format: LogFormat) -> Form {
    let mut form = Form::default();
    for key in ["format", "dateformat"] {
        if section.is_given(key) && format != LogFormat::Patroni {
            let line = section.value(key).map_or(0, |tree| tree.line);
            section.inert(line, key, "has no effect: it is for `type: plain`");
            return form;
        }
    }
    if let Some(text) = section.text("format") {
        match text.value.parse() {
            Ok(pattern) => form.pattern = Some(pattern),
            Err(why) => section.inert(text.line, "format", format!("is not used: {why}")),
        }
    }
    if let Some(text) = section.text("dateformat") {
        match jiff::fmt::strtime::format(&text.value, &jiff::Zoned::now()) {
            Ok(_) => form.date = Some(text.value),
            Err(why) => section.inert(text.line, "dateformat", format!("is not used: {why}")),
        }
    }
    form
}

/// The file, where there is to be one.
fn to(section: &Section<'_>) -> Option<LogFile> {
    let size = section.whole("file_size");
    let kept = section.whole("file_num");
    let queue = section.whole("max_queue_size");
    let mode = section.value("mode").and_then(|tree| {
        let mode = match &tree.node {
            Node::Null => return None,
            // An octal number, as YAML reads 0644.
            Node::Number(number) => number.as_u64().and_then(|mode| u32::try_from(mode).ok()),
            Node::Text(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
            Node::Bool(_) | Node::List(_) | Node::Map(_) => None,
        };
        let mode = mode.filter(|mode| *mode <= 0o777);
        if mode.is_none() {
            let what = "must be an octal mode such as 0644";
            section.error(tree.line, "mode", what);
        }
        mode
    });
    let Some(dir) = absolute_path(section, "dir") else {
        for key in ["file_size", "file_num", "mode", "max_queue_size"] {
            if section.is_given(key) {
                let line = section.value(key).map_or(0, |tree| tree.line);
                section.inert(line, key, "has no effect without log.dir");
            }
        }
        return None;
    };
    let counted = |at: Option<At<u64>>, usual| at.map_or(usual, |at| at.value);
    let queue = counted(queue, 1000).clamp(1, 100_000);
    Some(LogFile {
        dir,
        size_bytes: counted(size, 25_000_000),
        kept: counted(kept, 4).min(1000),
        mode,
        lines_waiting: usize::try_from(queue).unwrap_or(1000),
    })
}

/// Levels of single parts.
fn levels(section: &Section<'_>) -> BTreeMap<String, LogLevel> {
    let loggers = section.section("loggers");
    let mut levels = BTreeMap::new();
    for (name, at) in loggers.pairs() {
        if !LOGGERS.contains(&name.as_str()) {
            let known = LOGGERS.join(", ");
            let what = format!("has no effect: nothing here is called that; there are {known}");
            loggers.inert(at.line, &name, what);
            continue;
        }
        match at.value.parse() {
            Ok(level) => drop(levels.insert(name, level)),
            Err(bad) => {
                let bad: String = bad;
                loggers.error(at.line, &name, bad);
            }
        }
    }
    levels
}
