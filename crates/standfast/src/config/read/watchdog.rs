//! `watchdog`: the machine's device that resets it.

use crate::config::Watchdog;
use crate::config::section::Section;
use crate::config::tree::Node;
use std::path::PathBuf;
use std::time::Duration;

/// Without the section there is none: the guard ends a Postgres whose agent hangs, and needs no device for that.
pub(super) fn watchdog(root: &Section<'_>) -> Option<Watchdog> {
    if !root.is_present("watchdog") {
        return None;
    }
    let section = root.section("watchdog");
    let device = super::places::absolute_path(&section, "device");
    let margin = margin(&section);
    let is_pipe = section.text("driver").is_some_and(|driver| {
        let known = ["default", "testing"].contains(&driver.value.as_str());
        if !known {
            let what = "is neither default nor testing";
            section.error(driver.line, "driver", what);
        }
        driver.value == "testing"
    });
    let required = match section.value("mode").map(|mode| (mode.line, &mode.node)) {
        None | Some((_, Node::Null)) => Some(false),
        // YAML takes the bare word for a truth value.
        Some((_, Node::Bool(false))) => None,
        Some((_, Node::Text(text))) if text == "off" => None,
        Some((_, Node::Text(text))) if text == "automatic" => Some(false),
        Some((_, Node::Text(text))) if text == "required" => Some(true),
        Some((line, _)) => {
            section.error(line, "mode", "is none of off, automatic, required");
            None
        }
    };
    let _ = section.is_given("mode");
    section.finish(&[]);
    Some(Watchdog {
        device: device.unwrap_or_else(|| PathBuf::from("/dev/watchdog")),
        required: required?,
        margin,
        is_pipe,
    })
}

/// Seconds; -1: half of the lease's time.
fn margin(section: &Section<'_>) -> Option<Duration> {
    let usual = Some(Duration::from_secs(5));
    let Some(given) = section
        .value("safety_margin")
        .filter(|_| section.is_given("safety_margin"))
    else {
        return usual;
    };
    match &given.node {
        Node::Null => usual,
        Node::Number(number) if number.as_i64() == Some(-1) => None,
        Node::Number(number) if number.as_u64().is_some() => {
            number.as_u64().map(Duration::from_secs)
        }
        _ => {
            let what = "is neither a whole number of seconds nor -1, which is half of ttl";
            section.error(given.line, "safety_margin", what);
            usual
        }
    }
}
