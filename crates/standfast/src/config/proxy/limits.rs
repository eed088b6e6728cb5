//! Numbers and words of the section `proxy`.

use crate::config::section::Section;
use proxy::{Keepalive, Limits};
use std::time::Duration;

/// One of a few words; the default where there is none.
pub(super) fn word<T: Copy + Default>(
    section: &Section<'_>,
    key: &'static str,
    words: &[(&str, T)],
) -> Option<T> {
    word_or(section, key, words, T::default())
}

/// The same with another default.
pub(super) fn word_or<T: Copy>(
    section: &Section<'_>,
    key: &'static str,
    words: &[(&str, T)],
    default: T,
) -> Option<T> {
    let Some(text) = section.text(key) else {
        return (!section.is_given(key)).then_some(default);
    };
    let found = words.iter().find(|(word, _)| *word == text.value);
    if found.is_none() {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let what = format!("{:?} is none of {}", text.value, known.join(", "));
        section.error(text.line, key, what);
    }
    found.map(|(_, meant)| *meant)
}

/// A time in whole seconds, an hour at most.
pub(super) fn seconds(
    section: &Section<'_>,
    key: &'static str,
    default: Duration,
) -> Option<Duration> {
    match section.whole(key) {
        None => (!section.is_given(key)).then_some(default),
        Some(at) if at.value <= 3600 => Some(Duration::from_secs(at.value)),
        Some(at) => {
            section.error(at.line, key, "must be at most 3600 seconds");
            None
        }
    }
}

/// A number from 1 on.
pub(super) fn count(
    section: &Section<'_>,
    key: &'static str,
    most: u64,
    default: usize,
) -> Option<usize> {
    match section.whole(key) {
        None => (!section.is_given(key)).then_some(default),
        Some(at) if (1..=most).contains(&at.value) => usize::try_from(at.value).ok(),
        Some(at) => {
            section.error(at.line, key, format!("must be between 1 and {most}"));
            None
        }
    }
}

/// PgBouncer's keys; what is not given is ours, and not the kernel's two hours.
fn keepalive(section: &Section<'_>) -> Option<Keepalive> {
    let plain = Keepalive::default();
    let whole = |duration: Duration| usize::try_from(duration.as_secs()).unwrap_or(usize::MAX);
    let time = |key, default| {
        let seconds = count(section, key, 32_767, whole(default));
        seconds.map(|seconds| Duration::from_secs(seconds as u64))
    };
    let idle = time("tcp_keepidle", plain.idle);
    let interval = time("tcp_keepintvl", plain.interval);
    let number = count(section, "tcp_keepcnt", 127, plain.count as usize);
    let unacknowledged = match section.whole("tcp_user_timeout") {
        None if section.is_given("tcp_user_timeout") => None,
        None => Some(plain.unacknowledged),
        // As PgBouncer says "the kernel's own".
        Some(at) if at.value == 0 => Some(None),
        Some(at) if at.value <= 86_400_000 => Some(Some(Duration::from_millis(at.value))),
        Some(at) => {
            let most = "must be at most 86400000 milliseconds, which is a day";
            section.error(at.line, "tcp_user_timeout", most);
            None
        }
    };
    Some(Keepalive {
        on: section.flag("tcp_keepalive").unwrap_or(plain.on),
        idle: idle?,
        interval: interval?,
        count: u32::try_from(number?).ok()?,
        unacknowledged: unacknowledged?,
    })
}

pub(super) fn limits(section: &Section<'_>) -> Option<Limits> {
    let plain = Limits::default();
    let count = |key, most: u64, default: usize| count(section, key, most, default);
    // PgBouncer's way to say "no limit".
    let or_none = |key, most: u64| match section.whole(key) {
        None => (!section.is_given(key)).then_some(None),
        Some(at) if at.value == 0 => Some(None),
        Some(at) if at.value <= most => Some(usize::try_from(at.value).ok()),
        Some(at) => {
            section.error(at.line, key, format!("must be at most {most}"));
            None
        }
    };
    let user_servers_max = or_none("max_user_connections", 100_000);
    let database_servers_max = or_none("max_db_connections", 100_000);
    let pool_size_min = or_none("min_pool_size", 100_000);
    let reserve_size = or_none("reserve_pool_size", 100_000);
    let reserve_after = seconds(section, "reserve_pool_timeout", plain.reserve_after);
    let read_lag = or_none("read_lag_bytes_max", 1 << 50);
    let hold_time = seconds(section, "hold_time", plain.hold_time);
    let clients_max = count("max_client_conn", 1_000_000, plain.clients_max);
    let clients = clients_max.unwrap_or(plain.clients_max);
    // An application that opens all of its connections at once is no flood.
    let part = |key, of: usize| count(key, 1_000_000, (clients / of).max(100));
    let logins_max = part("max_login_conn", 2);
    let address_logins_max = part("max_login_conn_per_address", 4);
    let pool_size = count("default_pool_size", 100_000, plain.pool_size);
    let hold_clients = count("hold_clients", 1_000_000, plain.hold_clients);
    let hold_bytes = count("hold_bytes", 1 << 40, plain.hold_bytes);
    let prepared_max = count("max_prepared_statements", 100_000, plain.prepared_max);
    let keepalive = keepalive(section);
    // Each was looked at before one that is wrong ends this: the others are no unknown keys.
    Some(Limits {
        clients_max: clients_max?,
        logins_max: logins_max?,
        address_logins_max: address_logins_max?,
        pool_size: pool_size?,
        reserve_size: reserve_size?.unwrap_or(0),
        reserve_after: reserve_after?,
        pool_size_min: pool_size_min?.unwrap_or(0),
        user_servers_max: user_servers_max?,
        database_servers_max: database_servers_max?,
        read_lag_bytes_max: match section.is_given("read_lag_bytes_max") {
            true => read_lag?.map_or(0, |bytes| bytes as u64),
            false => plain.read_lag_bytes_max,
        },
        hold_time: hold_time?,
        hold_clients: hold_clients?,
        hold_bytes: hold_bytes?,
        prepared_max: prepared_max?,
        keepalive: keepalive?,
        ..plain
    })
}
