//! What SHOW shows. Columns are PgBouncer's where it has them, so that what reads them goes on.

use super::table::Table;
use crate::cancel::Target;
use crate::options::{OnLossyFailover, PoolMode};
use crate::pool::Pool;
use crate::session::Shared;
use crate::stats::{self, Card, State};
use crate::topology::Contact;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

const KINDS: [&str; 12] = [
    "CLIENTS",
    "CLUSTER",
    "CONFIG",
    "DATABASES",
    "HELP",
    "LISTS",
    "PEERS",
    "POOLS",
    "SERVERS",
    "SESSIONS",
    "STATS",
    "VERSION",
];

/// `None`: there is nothing of that name.
pub(super) fn table(shared: &Shared, what: &str) -> Option<Table> {
    Some(match what {
        "CLIENTS" => clients(shared),
        "CLUSTER" => cluster(shared),
        "CONFIG" => config(shared),
        "DATABASES" => databases(shared),
        "HELP" => help(),
        "LISTS" => lists(shared),
        "PEERS" => peers(shared),
        "POOLS" => pools(shared),
        "SERVERS" => servers(shared),
        "SESSIONS" => sessions(shared),
        "STATS" => stats(shared),
        "VERSION" => {
            let mut table = Table::new(&["version"]);
            table.row([concat!("Standfast ", env!("CARGO_PKG_VERSION")).to_owned()]);
            table
        }
        _ => return None,
    })
}

/// As one line of help.
pub(super) fn kinds() -> String {
    format!("SHOW {}", KINDS.join("|"))
}

fn help() -> Table {
    let mut table = Table::new(&["command"]);
    for kind in KINDS {
        table.row([format!("SHOW {kind}")]);
    }
    for command in super::ORDERS {
        table.row([command.to_owned()]);
    }
    table
}

fn clients(shared: &Shared) -> Table {
    let mut table = Table::new(&[
        "type",
        "user",
        "database",
        "state",
        "addr",
        "connect_time",
        "ptr",
        "link",
        "tls",
    ]);
    for card in shared.roster.all() {
        table.row([
            "C".to_owned(),
            card.pool.user.to_string(),
            card.pool.database.to_string(),
            state(&card).to_owned(),
            address(&card),
            time(card.since),
            card.number.to_string(),
            card.server().map(|pid| pid.to_string()).unwrap_or_default(),
            if card.is_encrypted { "TLS" } else { "" }.to_owned(),
        ]);
    }
    table
}

fn sessions(shared: &Shared) -> Table {
    let mut table = Table::new(&[
        "ptr", "user", "database", "state", "epoch", "movable", "holds",
    ]);
    for card in shared.roster.all() {
        let pins = card.pins();
        let movable = if pins.is_empty() { "yes" } else { "no" };
        table.row([
            card.number.to_string(),
            card.pool.user.to_string(),
            card.pool.database.to_string(),
            state(&card).to_owned(),
            card.epoch().to_string(),
            movable.to_owned(),
            pins.describe(),
        ]);
    }
    table
}

/// A server's process, and where it is if that is known.
type At<'t> = (u32, Option<&'t Target>);

fn servers(shared: &Shared) -> Table {
    let mut table = Table::new(&[
        "type",
        "user",
        "database",
        "state",
        "addr",
        "port",
        "connect_time",
        "link",
        "remote_pid",
        "epoch",
    ]);
    let mut row = |pool: &Pool, state: &str, (pid, target): At<'_>, link: String, epoch: u64| {
        let (host, port) = target.map_or(("", ""), |target| apart(&target.address));
        table.row([
            "S".to_owned(),
            pool.user.to_string(),
            pool.database.to_string(),
            state.to_owned(),
            host.to_owned(),
            port.to_owned(),
            target.map(|target| time(target.since)).unwrap_or_default(),
            link,
            pid.to_string(),
            epoch.to_string(),
        ]);
    };
    let targets = shared.cancels.targets();
    for card in shared.roster.all() {
        let Some(pid) = card.server() else {
            continue;
        };
        // A session that is about to give it back can't have it cancelled any more.
        let target = targets.get(&pid).map(|target| &**target);
        let link = card.number.to_string();
        row(&card.pool, "active", (pid, target), link, card.epoch());
    }
    for pool in shared.pools.all() {
        for (target, epoch) in pool.idle_list() {
            let at = (target.process_id, Some(&*target));
            row(&pool, "idle", at, String::new(), epoch.0);
        }
    }
    table
}

/// Host and port.
fn apart(address: &str) -> (&str, &str) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

fn pools(shared: &Shared) -> Table {
    let mut table = Table::new(&[
        "database",
        "user",
        "cl_active",
        "cl_waiting",
        "sv_active",
        "sv_idle",
        "maxwait",
        "maxwait_us",
        "pool_mode",
    ]);
    let cards = shared.roster.all();
    let mode = mode(*shared.mode.load());
    for pool in shared.pools.all() {
        let of_pool = |card: &&Arc<Card>| Arc::ptr_eq(&card.pool, &pool);
        let waiting = |card: &&Arc<Card>| card.state() == State::Waiting;
        let waiting = cards.iter().filter(of_pool).filter(waiting).count();
        let all = cards.iter().filter(of_pool).count();
        let waits = cards.iter().filter(of_pool).filter_map(|card| card.waits());
        let longest = waits.max().unwrap_or_default();
        let idle = pool.idle_servers();
        table.row([
            pool.database.to_string(),
            pool.user.to_string(),
            (all - waiting).to_string(),
            waiting.to_string(),
            pool.connections().saturating_sub(idle).to_string(),
            idle.to_string(),
            longest.as_secs().to_string(),
            longest.subsec_micros().to_string(),
            mode.to_owned(),
        ]);
    }
    table
}

fn databases(shared: &Shared) -> Table {
    let mut table = Table::new(&[
        "name",
        "pool_size",
        "min_pool_size",
        "reserve_pool_size",
        "pool_mode",
        "max_connections",
        "current_connections",
        "paused",
    ]);
    let limits = shared.limits.load();
    let mode = mode(*shared.mode.load());
    let mut all: BTreeMap<String, usize> = BTreeMap::new();
    for pool in shared.pools.all() {
        *all.entry(pool.database.to_string()).or_default() += pool.connections();
    }
    let paused = u8::from(shared.pause.is_on()).to_string();
    for (name, connections) in all {
        table.row([
            name,
            limits.pool_size.to_string(),
            limits.pool_size_min.to_string(),
            limits.reserve_size.to_string(),
            mode.to_owned(),
            limits.database_servers_max.unwrap_or(0).to_string(),
            connections.to_string(),
            paused.clone(),
        ]);
    }
    table
}

fn stats(shared: &Shared) -> Table {
    let mut table = Table::new(&[
        "database",
        "total_xact_count",
        "total_query_count",
        "total_received",
        "total_sent",
        "total_wait_time",
        "avg_xact_count",
        "avg_query_count",
        "avg_recv",
        "avg_sent",
        "avg_wait_time",
    ]);
    let now = Instant::now();
    for (name, sums) in stats::sums(&shared.pools) {
        let averages = shared.stats.averages.of(&name, sums, now);
        let numbers = sums.into_iter().chain(averages);
        table.row(std::iter::once(name).chain(numbers.map(|number| number.to_string())));
    }
    table
}

fn lists(shared: &Shared) -> Table {
    let mut table = Table::new(&["list", "items"]);
    let pools = shared.pools.all();
    let idle: usize = pools.iter().map(|pool| pool.idle_servers()).sum();
    let all: usize = pools.iter().map(|pool| pool.connections()).sum();
    for (name, count) in [
        ("pools", pools.len()),
        ("used_clients", shared.roster.all().len()),
        ("login_clients", shared.anteroom.count()),
        ("free_servers", idle),
        ("used_servers", all.saturating_sub(idle)),
    ] {
        table.row([name.to_owned(), count.to_string()]);
    }
    table
}

/// Whether this is one of the proxy's own settings.
pub(super) fn is_own(shared: &Shared, setting: &str) -> bool {
    config(shared).has(setting)
}

fn config(shared: &Shared) -> Table {
    let mut table = Table::new(&["key", "value"]);
    let limits = shared.limits.load();
    let keepalive = limits.keepalive;
    let given_up_after = keepalive
        .unacknowledged
        .map_or(0, |limit| limit.as_millis());
    let on_loss = match *shared.on_lossy_failover.load() {
        OnLossyFailover::Disconnect => "disconnect",
        OnLossyFailover::Continue => "continue",
    };
    for (key, value) in [
        ("pool_mode", mode(*shared.mode.load()).to_owned()),
        ("default_pool_size", limits.pool_size.to_string()),
        ("min_pool_size", limits.pool_size_min.to_string()),
        ("reserve_pool_size", limits.reserve_size.to_string()),
        (
            "reserve_pool_timeout",
            limits.reserve_after.as_secs().to_string(),
        ),
        ("max_client_conn", limits.clients_max.to_string()),
        ("max_login_conn", limits.logins_max.to_string()),
        (
            "max_login_conn_per_address",
            limits.address_logins_max.to_string(),
        ),
        ("max_prepared_statements", limits.prepared_max.to_string()),
        ("hold_time", limits.hold_time.as_secs().to_string()),
        ("hold_clients", limits.hold_clients.to_string()),
        ("hold_bytes", limits.hold_bytes.to_string()),
        ("on_lossy_failover", on_loss.to_owned()),
        ("tcp_keepalive", u8::from(keepalive.on).to_string()),
        ("tcp_keepidle", keepalive.idle.as_secs().to_string()),
        ("tcp_keepintvl", keepalive.interval.as_secs().to_string()),
        ("tcp_keepcnt", keepalive.count.to_string()),
        ("tcp_user_timeout", given_up_after.to_string()),
    ] {
        table.row([key.to_owned(), value]);
    }
    table
}

/// What the proxy knows of the cluster.
fn cluster(shared: &Shared) -> Table {
    let mut table = Table::new(&["key", "value"]);
    let topology = Arc::clone(&shared.seen.borrow());
    let contact = shared.ear.contact();
    let primary = match &topology.primary {
        Ok(primary) if contact.trouble().is_some() => {
            format!("{} at {}, as it was last", primary.name, primary.address)
        }
        Ok(primary) => format!("{} at {}", primary.name, primary.address),
        Err(why) => format!("none: {why}"),
    };
    let store = Some(("store", contact.to_string())).filter(|_| contact != Contact::Unknown);
    for (key, value) in [
        ("primary", primary),
        ("epoch", topology.epoch.0.to_string()),
        ("failovers", shared.stats.failovers.get().to_string()),
        ("sessions_moved", shared.stats.moved.get().to_string()),
        ("requests_held", shared.stats.held.get().to_string()),
        ("requests_refused", shared.stats.refused.get().to_string()),
        ("requests_lost", shared.stats.lost.get().to_string()),
    ]
    .into_iter()
    .chain(store)
    {
        table.row([key.to_owned(), value]);
    }
    for missing in shared.missing {
        table.row(["not promised".to_owned(), (*missing).to_owned()]);
    }
    for (reason, count) in shared.stats.closed() {
        table.row([format!("closed: {reason}"), count.to_string()]);
    }
    table
}

/// The cluster's proxies, this one among them.
fn peers(shared: &Shared) -> Table {
    let mut table = Table::new(&["peer_id", "host", "port", "name", "epoch", "own"]);
    let own = shared.cancels.number();
    for (number, record) in &*shared.peers.known() {
        let (host, port) = apart(record.address.as_deref().unwrap_or_default());
        table.row([
            number.to_string(),
            host.to_owned(),
            port.to_owned(),
            record.name.clone(),
            record.epoch.0.to_string(),
            (if *number == own { "yes" } else { "no" }).to_owned(),
        ]);
    }
    table
}

fn mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
    }
}

fn state(card: &Card) -> &'static str {
    match card.state() {
        State::Idle => "idle",
        State::Waiting => "waiting",
        State::Active | State::Kept => "active",
    }
}

fn address(card: &Card) -> String {
    let unix = || "unix".to_owned();
    card.address
        .map_or_else(unix, |address| address.to_string())
}

/// As PgBouncer writes it, in UTC.
fn time(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
