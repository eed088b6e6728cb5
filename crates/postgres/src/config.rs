//! The configuration that we generate.
//!
//! The user's files are never edited. Postgres is started with `config_file` pointing at a file of ours that includes
//! the user's first, and what must not be overridden by anybody is on the command line, which beats every file.
//! Only `synchronous_standby_names` and what a standby is told of its upstream must change by a reload; these stand in
//! the file, and `postgresql.auto.conf` (ALTER SYSTEM), which is read after it, is kept clear of them (`autoconf`).
//!
//! **Invariant:** the files on disk follow from `Options` and `Settings` alone.

use crate::error::PostgresError;
use crate::files;
use crate::floors;
use crate::options::{Access, Options, Shared, SyncNames, Upstream};
use crate::quote::{conf_value, conninfo, passfile_field};
use crate::restore::recovery_lines;
use crate::shared::not_the_users;
use crate::socket;
use ha::{Epoch, NodeName, Remote};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What changes while the instance runs. Kept on disk, so that an agent restart does not change it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// `None`: parked or detached.
    pub(crate) upstream: Option<Upstream>,
    pub(crate) sync: SyncNames,
    pub(crate) access: Access,
    /// Nobody may stream from this instance: it is no primary in office.
    #[serde(default)]
    pub(crate) streams_to_nobody: bool,
    /// The stream that there is goes on, and no new one can begin.
    #[serde(default)]
    pub(crate) sealed: bool,
    /// What a standby must not go below, as its control file had it at the last start.
    #[serde(default)]
    pub(crate) floors: BTreeMap<String, u64>,
    /// It was started to answer nobody before its promotion.
    #[serde(default)]
    pub(crate) recovers_alone: bool,
    /// It was started without a port of its own: see [`crate::Instance::start_secluded`].
    #[serde(default)]
    pub(crate) secluded: bool,
    /// It recovers what was restored, by these parameters; no target is set aside then.
    #[serde(default)]
    pub(crate) recovery: Option<BTreeMap<String, String>>,
    /// The cluster's part of the configuration, as far as it can be taken.
    #[serde(default)]
    pub(crate) shared: Shared,
    /// Parameters of the user's own that PostgreSQL does not take, with the value that it refused.
    #[serde(default)]
    pub(crate) refused: BTreeMap<String, String>,
    /// Standbys copy the failover slots of their primary.
    #[serde(default)]
    pub(crate) failover_slots: bool,
    /// The standbys' slots that hold back the readers of failover slots.
    #[serde(default)]
    pub(crate) standby_slots: BTreeSet<String>,
}

/// Where our files are.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) state_dir: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) hba: PathBuf,
    pub(crate) ident: PathBuf,
    pub(crate) settings: PathBuf,
    /// Read by the WAL receiver: without it no new one can authenticate.
    pub(crate) stream_passfile: PathBuf,
    /// Read by pg_basebackup, pg_rewind and nothing else.
    pub(crate) tool_passfile: PathBuf,
    /// The passphrase of a key, which must not be an argument.
    pub(crate) tool_service: PathBuf,
    pub(crate) socket_dir: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) unfinished: PathBuf,
    pub(crate) fresh: PathBuf,
    pub(crate) slots: PathBuf,
    pub(crate) logical: PathBuf,
    pub(crate) discarded: PathBuf,
    pub(crate) guard: PathBuf,
}

impl Paths {
    pub(crate) fn new(state_dir: &Path) -> Self {
        let at = |name: &str| state_dir.join(name);
        Self {
            config: at("postgresql.conf"),
            hba: at("pg_hba.conf"),
            ident: at("pg_ident.conf"),
            settings: at("settings.json"),
            stream_passfile: at("stream.passfile"),
            tool_passfile: at("tool.passfile"),
            tool_service: at("tool.service"),
            socket_dir: socket::dir(state_dir),
            log: at("postgres.log"),
            unfinished: at("unfinished.json"),
            fresh: at("fresh"),
            slots: at("slots.json"),
            logical: at("logical-slots.json"),
            discarded: at("discarded"),
            guard: at("guard"),
            state_dir: state_dir.to_owned(),
        }
    }

    /// The socket that our own connections use.
    pub(crate) fn private_socket(&self, port: u16) -> PathBuf {
        socket::path(&self.socket_dir, port)
    }
}

/// Ours alone: what the user says about them is ignored.
pub const NEVER_THE_USERS: &[&str] = &[
    "cluster_name",
    "config_file",
    "data_directory",
    "hba_file",
    "hot_standby",
    "ident_file",
    "listen_addresses",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restart_after_crash",
    "synchronous_standby_names",
    "wal_log_hints",
    "wal_retrieve_retry_interval",
];

/// Those of ours that stand in a file and so could be beaten by ALTER SYSTEM.
pub(crate) const RELOADED: &[&str] = &[
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "synchronous_standby_names",
    "wal_retrieve_retry_interval",
];

/// Sensible values that the user's file or parameters may replace.
const DEFAULTS: &[(&str, &str)] = &[
    ("hot_standby_feedback", "on"),
    ("max_slot_wal_keep_size", "4GB"),
    ("password_encryption", "scram-sha-256"),
    ("wal_keep_size", "128MB"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_receiver_timeout", "5s"),
    ("wal_sender_timeout", "5s"),
];

/// The parameters on the command line, which no file and no ALTER SYSTEM can override.
pub(crate) fn fixed_parameters(
    options: &Options,
    sockets: &[PathBuf],
    settings: &Settings,
) -> Vec<(String, String)> {
    let paths = Paths::new(&options.state_dir);
    let floors = &settings.floors;
    let hot_standby = if settings.recovers_alone { "off" } else { "on" };
    let listen = match settings.secluded {
        true => String::new(),
        false => options.listen.clone(),
    };
    let own = |name: &str| options.parameters.get(name).map(|value| value.trim());
    let at_least = |name: &str, least: u64| {
        let user = own(name)
            .and_then(|value| value.parse().ok())
            .unwrap_or(0_u64);
        let floor = floors.get(name).copied().unwrap_or(0);
        user.max(least).max(floor).to_string()
    };
    let text = |path: &Path| path.display().to_string();
    let wal_level = if own("wal_level") == Some("logical") {
        "logical"
    } else {
        "replica"
    };
    let sockets: Vec<String> = sockets.iter().map(|path| text(path)).collect();
    let mut fixed = vec![
        ("config_file", text(&paths.config)),
        ("hba_file", text(&paths.hba)),
        ("ident_file", text(&paths.ident)),
        ("data_directory", text(&options.data_dir)),
        ("listen_addresses", listen),
        ("port", options.port.to_string()),
        ("unix_socket_directories", sockets.join(",")),
        ("cluster_name", options.node.to_string()),
        ("wal_level", wal_level.to_owned()),
        ("hot_standby", hot_standby.to_owned()),
        ("wal_log_hints", "on".to_owned()),
        ("restart_after_crash", "off".to_owned()),
        (
            "max_wal_senders",
            at_least("max_wal_senders", floors::WAL_SENDERS_MIN),
        ),
        (
            "max_replication_slots",
            at_least("max_replication_slots", 16),
        ),
    ];
    // What the user wants more of stays in the file.
    for (name, floor) in floors::raised(options, floors) {
        if name != "max_wal_senders" {
            fixed.push((name, floor.to_string()));
        }
    }
    fixed
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

pub(crate) fn base_config(options: &Options) -> PathBuf {
    options
        .base_config
        .clone()
        .unwrap_or_else(|| options.data_dir.join("postgresql.conf"))
}

/// The user's parameters that are ignored because they are ours.
pub(crate) fn ignored(options: &Options) -> Vec<&str> {
    let ignored = options
        .parameters
        .iter()
        .filter(|(name, value)| not_the_users(name, value).is_some());
    ignored.map(|(name, _)| name.as_str()).collect()
}

/// The text of our `postgresql.conf`. `fixed` is what the server has on its command line.
pub(crate) fn config_text(
    options: &Options,
    settings: &Settings,
    fixed: &[(String, String)],
    major: u32,
) -> String {
    let mut text = String::from(
        "# Written by Standfast at every change; edits are lost.\n\
         # The later line wins: our defaults, the user's file, the cluster's parameters, what is ours alone.\n",
    );
    for (name, value) in DEFAULTS {
        set(&mut text, name, value);
    }
    let base = base_config(options);
    line(
        &mut text,
        "include_if_exists",
        &base.display().to_string(),
        " ",
    );
    let ignored = ignored(options);
    for (name, value) in &options.parameters {
        let plain = name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
        if plain && !ignored.contains(&name.as_str()) {
            set(&mut text, name, value);
        }
    }
    // The command line wins anyway; said here too, Postgres has no difference to complain of at each reload, such as
    // from the pg_hba.conf that a file of Patroni's making names. Only this file can't name itself.
    for (name, value) in fixed.iter().filter(|(name, _)| name != "config_file") {
        set(&mut text, name, value);
    }
    set(
        &mut text,
        "synchronous_standby_names",
        &settings.sync.setting(),
    );
    let mut upstream = primary_conninfo(options, settings.upstream.as_ref());
    if settings.failover_slots && !upstream.is_empty() {
        // Whoever copies the slots asks by SQL.
        upstream.push(' ');
        upstream.push_str(&crate::quote::conninfo_pair("dbname", &options.database));
    }
    set(&mut text, "primary_conninfo", &upstream);
    if major >= crate::logical::FAILOVER_SLOTS {
        let on = if settings.failover_slots { "on" } else { "off" };
        set(&mut text, "sync_replication_slots", on);
        let slots: Vec<&str> = settings.standby_slots.iter().map(String::as_str).collect();
        set(&mut text, "synchronized_standby_slots", &slots.join(","));
    }
    let slot = settings
        .upstream
        .as_ref()
        .and_then(|upstream| upstream.slot.as_deref());
    set(&mut text, "primary_slot_name", slot.unwrap_or_default());
    set(&mut text, "wal_retrieve_retry_interval", "100ms");
    let remote = settings.upstream.as_ref().and_then(|it| it.remote.as_ref());
    for (name, value) in remote.into_iter().flat_map(|it| remote_lines(it, major)) {
        set(&mut text, name, value);
    }
    if let Some(asked) = &settings.recovery {
        for (name, value) in recovery_lines(asked) {
            set(&mut text, name, value);
        }
        return text;
    }
    set(&mut text, "recovery_target_timeline", "latest");
    for none in ["", "_name", "_time", "_xid", "_lsn"] {
        set(&mut text, &format!("recovery_target{none}"), "");
    }
    if major < 16 {
        set(&mut text, "promote_trigger_file", "");
    }
    text
}

/// What is said of a remote beside its place. Before 14 a `restore_command` would outlive its being taken back.
fn remote_lines(remote: &Remote, major: u32) -> impl Iterator<Item = (&'static str, &str)> {
    let restore = remote.restore_command.as_deref();
    let lines = [
        ("restore_command", restore.filter(|_| major >= 14)),
        (
            "archive_cleanup_command",
            remote.archive_cleanup_command.as_deref(),
        ),
        ("recovery_min_apply_delay", remote.apply_delay.as_deref()),
    ];
    lines
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
}

fn set(text: &mut String, name: &str, value: &str) {
    line(text, name, value, " = ");
}

fn line(text: &mut String, name: &str, value: &str, between: &str) {
    let _ = writeln!(text, "{name}{between}{}", conf_value(value));
}

/// Empty when there is no upstream. The password is in the pass file, never here.
pub(crate) fn primary_conninfo(options: &Options, upstream: Option<&Upstream>) -> String {
    // From an archive alone nothing streams.
    let Some(upstream) = upstream.filter(|upstream| !upstream.host.is_empty()) else {
        return String::new();
    };
    let passfile = Paths::new(&options.state_dir)
        .stream_passfile
        .display()
        .to_string();
    upstream_conninfo(
        options,
        upstream,
        &options.replication.user,
        &passfile,
        &stream_name(&options.node, upstream.slot.as_deref()),
        None,
    )
}

/// By a slot of an epoch a node streams under the name of that epoch.
fn stream_name(node: &NodeName, slot: Option<&str>) -> String {
    let epoch = slot.and_then(|slot| slot.strip_prefix(&node.slot())?.strip_prefix("_e"));
    match epoch.and_then(|epoch| epoch.parse().ok()) {
        Some(epoch) => node.stream_of_epoch(Epoch(epoch)),
        None => node.to_string(),
    }
}

/// What opens a client's key.
pub(crate) const KEY_PASSPHRASE: &str = "sslpassword";

/// The user's libpq parameters for a login.
pub(crate) fn told<'a>(options: &'a Options, user: &str) -> &'a BTreeMap<String, String> {
    match user == options.rewind.user && user != options.replication.user {
        true => &options.rewind_conninfo.0,
        false => &options.conninfo.0,
    }
}

/// A connection string to an upstream for a login whose password is in `passfile`.
pub(crate) fn upstream_conninfo(
    options: &Options,
    upstream: &Upstream,
    user: &str,
    passfile: &str,
    application_name: &str,
    service: Option<&str>,
) -> String {
    let port = upstream.port.to_string();
    let mut pairs: BTreeMap<&str, &str> = BTreeMap::from([
        ("connect_timeout", "2"),
        ("keepalives_idle", "2"),
        ("keepalives_interval", "1"),
        ("keepalives_count", "3"),
    ]);
    let never = [
        "password", "passfile", "service", "host", "hostaddr", "port", "user", "dbname", "options",
    ];
    for (key, value) in told(options, user) {
        if key == KEY_PASSPHRASE && service.is_some() {
            continue;
        }
        if !never.contains(&key.as_str()) {
            pairs.insert(key, value);
        }
    }
    if let Some(service) = service {
        pairs.insert("service", service);
    }
    for (key, value) in [
        ("host", upstream.host.as_str()),
        ("port", port.as_str()),
        ("user", user),
        ("passfile", passfile),
        ("application_name", application_name),
    ] {
        pairs.insert(key, value);
    }
    conninfo(pairs)
}

/// The pass file for a login towards an upstream. `*` as database: `replication` and named ones alike.
pub(crate) fn passfile_text(upstream: &Upstream, login: &crate::secret::Login) -> String {
    format!(
        "{}:{}:*:{}:{}\n",
        passfile_field(&upstream.host),
        upstream.port,
        passfile_field(&login.user),
        passfile_field(login.password.expose()),
    )
}

/// All our logins, wherever to.
pub(crate) fn users_passfile(options: &Options) -> String {
    let logins = [&options.superuser, &options.replication, &options.rewind];
    let mut text = String::new();
    for login in logins {
        let password = login.password.expose();
        if !password.is_empty() {
            let (user, password) = (passfile_field(&login.user), passfile_field(password));
            let _ = writeln!(text, "*:*:*:{user}:{password}");
        }
    }
    text
}

impl Settings {
    pub(crate) fn load(path: &Path) -> Result<Self, PostgresError> {
        let Some(text) = files::read_text(path)? else {
            return Ok(Self::default());
        };
        serde_json::from_str(&text)
            .map_err(|e| PostgresError::file("parse", path, std::io::Error::other(e)))
    }

    pub(crate) fn save(&self, path: &Path) -> Result<(), PostgresError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| PostgresError::file("write", path, std::io::Error::other(e)))?;
        files::write_if_changed(path, &text).map(drop)
    }
}
