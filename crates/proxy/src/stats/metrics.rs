//! The same for Prometheus.

use super::State;
use crate::session::Shared;
use crate::topology::Contact;
use std::fmt::{self, Write};

/// All metrics, in Prometheus' text format.
pub(crate) fn text(shared: &Shared) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(shared, &mut out);
    out
}

fn write(shared: &Shared, out: &mut String) -> fmt::Result {
    let stats = &shared.stats;
    let topology = shared.seen.borrow().clone();
    head(out, "primary", "gauge", "Whether a primary is known.")?;
    let is_there = u8::from(topology.primary.is_ok());
    writeln!(out, "standfast_proxy_primary {is_there}")?;
    head(
        out,
        "epoch",
        "gauge",
        "The newest leadership that is known.",
    )?;
    writeln!(out, "standfast_proxy_epoch {}", topology.epoch.0)?;
    of_store(shared, out)?;
    head(
        out,
        "paused",
        "gauge",
        "Whether an administrator has paused it.",
    )?;
    writeln!(
        out,
        "standfast_proxy_paused {}",
        u8::from(shared.pause.is_on())
    )?;
    head(out, "clients", "gauge", "Sessions, by what they are at.")?;
    for (state, name) in [
        (State::Idle, "idle"),
        (State::Waiting, "waiting"),
        (State::Active, "active"),
        (State::Kept, "kept"),
    ] {
        let count = shared.roster.count(state);
        writeln!(out, "standfast_proxy_clients{{state=\"{name}\"}} {count}")?;
    }
    let counters: [(&str, &str, &super::Counter); 5] = [
        ("failovers", "Changes of the primary.", &stats.failovers),
        (
            "sessions_moved",
            "Sessions that went on with another primary.",
            &stats.moved,
        ),
        (
            "requests_held",
            "Requests that waited for a primary.",
            &stats.held,
        ),
        (
            "requests_refused",
            "Requests answered with 57P03.",
            &stats.refused,
        ),
        (
            "requests_lost",
            "Requests and transactions answered with 40001.",
            &stats.lost,
        ),
    ];
    for (name, help, counter) in counters {
        head(out, &format!("{name}_total"), "counter", help)?;
        writeln!(out, "standfast_proxy_{name}_total {}", counter.get())?;
    }
    head(
        out,
        "sessions_closed_total",
        "counter",
        "Sessions that the proxy has ended.",
    )?;
    for (reason, count) in stats.closed() {
        writeln!(
            out,
            "standfast_proxy_sessions_closed_total{{reason=\"{reason}\"}} {count}"
        )?;
    }
    of_pools(shared, out)
}

/// Nothing where there is none, or nothing is known of it yet.
fn of_store(shared: &Shared, out: &mut String) -> fmt::Result {
    let contact = shared.ear.contact();
    let silent = match &contact {
        Contact::Unknown => return Ok(()),
        Contact::Answers => Some(0),
        Contact::Silent { since, .. } => Some(since.elapsed().unwrap_or_default().as_secs()),
        // Since ever.
        Contact::Mute { .. } | Contact::Refuses { .. } => None,
    };
    head(out, "store", "gauge", "Whether the store answers.")?;
    let answers = u8::from(contact == Contact::Answers);
    writeln!(out, "standfast_proxy_store {answers}")?;
    if let Some(silent) = silent {
        let help = "For how long the store has not answered.";
        head(out, "store_silent_seconds", "gauge", help)?;
        writeln!(out, "standfast_proxy_store_silent_seconds {silent}")?;
    }
    Ok(())
}

fn of_pools(shared: &Shared, out: &mut String) -> fmt::Result {
    let pools = shared.pools.all();
    let labels = |pool: &crate::pool::Pool| {
        let (user, database) = (escaped(&pool.user), escaped(&pool.database));
        let route = pool.route_name();
        format!("user=\"{user}\",database=\"{database}\",route=\"{route}\"")
    };
    head(out, "servers", "gauge", "Connections to servers.")?;
    for pool in &pools {
        let (labels, idle) = (labels(pool), pool.idle_servers());
        let busy = pool.connections().saturating_sub(idle);
        writeln!(
            out,
            "standfast_proxy_servers{{{labels},state=\"idle\"}} {idle}"
        )?;
        writeln!(
            out,
            "standfast_proxy_servers{{{labels},state=\"active\"}} {busy}"
        )?;
    }
    type Figure = fn(&super::Work) -> u64;
    let figures: [(&str, &str, Figure); 4] = [
        ("transactions", "Transactions.", |work| {
            work.transactions.get()
        }),
        ("queries", "Queries, and batches up to a Sync.", |work| {
            work.queries.get()
        }),
        ("received_bytes", "Bytes from clients.", |work| {
            work.received.get()
        }),
        ("sent_bytes", "Bytes to clients.", |work| work.sent.get()),
    ];
    for (name, help, figure) in figures {
        head(out, &format!("{name}_total"), "counter", help)?;
        for pool in &pools {
            let (labels, value) = (labels(pool), figure(&pool.work));
            writeln!(out, "standfast_proxy_{name}_total{{{labels}}} {value}")?;
        }
    }
    head(
        out,
        "wait_seconds_total",
        "counter",
        "Time that requests have waited for a server.",
    )?;
    for pool in &pools {
        #[expect(clippy::cast_precision_loss, reason = "2^53 µs are 285 years")]
        let seconds = pool.work.waited.get() as f64 / 1e6;
        writeln!(
            out,
            "standfast_proxy_wait_seconds_total{{{}}} {seconds}",
            labels(pool)
        )?;
    }
    Ok(())
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP standfast_proxy_{name} {help}")?;
    writeln!(out, "# TYPE standfast_proxy_{name} {kind}")
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
