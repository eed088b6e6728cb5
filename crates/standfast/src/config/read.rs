//! From the tree of a file to a [`Config`]: defaults, and every rule that one value must keep.

use super::problem::{ConfigError, Problem};
use super::section::{At, Findings, Section};
use super::values::{Endpoint, check_host, split_port};
use super::{
    BasicAuth, Bootstrap, Config, Guard, Log, LogFormat, LogLevel, Login, Password, Postgresql,
    Raft, RaftStart, RestApi, Tags,
};
use super::{postgres_rules, tree};
use crate::paths::Homes;
use ha::NodeName;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use store::layout::ConfigRecord;

/// Settings of `bootstrap.dcs` that mean something, here or to Patroni.
const DCS_KEYS: &[&str] = &[
    "ttl",
    "loop_wait",
    "beat",
    "failure_timeout",
    "retry_timeout",
    "maximum_lag_on_failover",
    "maximum_lag_on_syncnode",
    "max_timelines_history",
    "primary_start_timeout",
    "primary_stop_timeout",
    "master_start_timeout",
    "master_stop_timeout",
    "synchronous_mode",
    "synchronous_mode_strict",
    "synchronous_node_count",
    "synchronous_relax_after",
    "election_window",
    "hang_timeout",
    "failsafe_mode",
    "check_timeline",
    "member_slots_ttl",
    "pause",
    "postgresql",
    "standby_cluster",
    "slots",
    "ignore_slots",
];

/// The whole file.
pub(super) fn read(
    file: &Path,
    text: &str,
    homes: &Homes,
) -> Result<(Config, Vec<Problem>), ConfigError> {
    let tree = tree::parse(text).map_err(|malformed| {
        let problem = Problem {
            line: malformed.line,
            key: String::new(),
            what: malformed.why,
        };
        ConfigError {
            file: file.to_owned(),
            problems: vec![problem],
        }
    })?;
    if !matches!(tree.node, tree::Node::Map(_)) {
        return Err(ConfigError::whole(
            file,
            "is not a mapping of keys to values",
        ));
    }
    let findings = Findings::default();
    let config = config(file, &Section::root(&tree, &findings), homes);
    let mut errors = findings.errors.into_inner();
    let mut warnings = findings.warnings.into_inner();
    errors.sort_by_key(|problem| problem.line);
    warnings.sort_by_key(|problem| problem.line);
    match config {
        Some(config) if errors.is_empty() => Ok((config, warnings)),
        _ => Err(ConfigError {
            file: file.to_owned(),
            problems: errors,
        }),
    }
}

/// `None` only after an error was noted.
fn config(file: &Path, root: &Section<'_>, homes: &Homes) -> Option<Config> {
    let scope = root
        .text("scope")
        .and_then(|text| key_part(root, "scope", text));
    if scope.is_none() && !root.is_present("scope") {
        root.missing("scope", "the name of the cluster");
    }
    let namespace = match root.text("namespace") {
        Some(text) => {
            let bare = text.value.trim_matches('/').to_owned();
            key_part(
                root,
                "namespace",
                At {
                    value: bare,
                    ..text
                },
            )
        }
        None => Some("service".to_owned()),
    };
    let name = node_name(root);
    let witness = root.flag("witness").unwrap_or(false);
    let postgresql = postgresql(root, witness);
    let anchor = postgresql
        .as_ref()
        .map_or_else(|| file.to_owned(), |pg| pg.data_dir.clone());
    let state_dir = state_dir(root, &anchor, postgresql.as_ref(), homes);
    let restapi = restapi(root);
    let raft = raft(root, restapi.as_ref(), &state_dir, homes);
    let bootstrap = bootstrap(root);
    let tags = tags(root);
    let log = log(root);
    let guard_section = root.section("guard");
    let guard = Guard {
        cgroup: absolute_path(&guard_section, "cgroup"),
    };
    guard_section.finish(&[]);
    root.finish(&["ctl", "watchdog", "citus", "kubernetes", "proxy"]);
    if witness && postgresql.is_some() {
        root.refuse(
            "witness",
            "a witness has no Postgres: remove the key or the section postgresql",
        );
    }
    for other in ["etcd", "etcd3", "consul", "zookeeper", "exhibitor"] {
        if root.is_present(other) {
            root.refuse(
                other,
                "this store is not supported in this version, use store.raft",
            );
        }
    }
    Some(Config {
        file: file.to_owned(),
        scope: scope?,
        namespace: namespace?,
        name: name?,
        state_dir,
        restapi: restapi?,
        raft: raft?,
        postgresql: if witness { None } else { Some(postgresql?) },
        bootstrap: bootstrap?,
        tags,
        log,
        guard,
    })
}

/// Scope and namespace become parts of keys and of `cluster_name`.
fn key_part(section: &Section<'_>, key: &str, text: At<String>) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !text.value.is_empty() && text.value.len() <= 63 && text.value.chars().all(plain) {
        return Some(text.value);
    }
    section.error(text.line, key, "must be 1 to 63 of `a-z A-Z 0-9 _ . -`");
    None
}

fn node_name(root: &Section<'_>) -> Option<NodeName> {
    let Some(text) = root.text("name") else {
        if root.value("name").is_none() {
            root.missing(
                "name",
                "the name of this node, unlike any other's in the cluster",
            );
        }
        return None;
    };
    match NodeName::new(text.value) {
        Ok(name) => Some(name),
        Err(bad) => {
            root.error(text.line, "name", bad.to_string());
            None
        }
    }
}

fn state_dir(
    root: &Section<'_>,
    anchor: &Path,
    postgresql: Option<&Postgresql>,
    homes: &Homes,
) -> PathBuf {
    let Some(dir) = absolute_path(root, "state_dir") else {
        return homes.state_dir(anchor);
    };
    if postgresql.is_some_and(|pg| dir.starts_with(&pg.data_dir)) {
        let what =
            "must not lie inside postgresql.data_dir: a full data disk would silence the agent";
        root.refuse("state_dir", what);
    }
    dir
}

fn restapi(root: &Section<'_>) -> Option<RestApi> {
    let section = root.section("restapi");
    let listen = endpoint(&section, "listen");
    let connect = endpoint(&section, "connect_address");
    let authentication = {
        let auth = section.section("authentication");
        let username = auth.text("username");
        let password = auth.text("password");
        auth.finish(&[]);
        match (username, password) {
            (Some(username), Some(password)) => Some(BasicAuth {
                username: username.value,
                password: Password::new(password.value),
            }),
            (None, None) => None,
            (Some(_), None) => {
                auth.missing("password", "a user name without one would let nobody in");
                None
            }
            (None, Some(_)) => {
                auth.missing("username", "a password belongs to one");
                None
            }
        }
    };
    section.finish(&[
        "certfile",
        "keyfile",
        "keyfile_password",
        "cafile",
        "ciphers",
        "verify_client",
        "allowlist",
        "allowlist_include_members",
        "http_extra_headers",
        "https_extra_headers",
        "request_queue_size",
        "server_tokens",
    ]);
    let listen = match listen {
        Some(listen) => listen,
        None if section.is_present("listen") => return None,
        None => {
            section.missing(
                "listen",
                "HOST:PORT of the REST API, such as 127.0.0.1:8008",
            );
            return None;
        }
    };
    let connect_address = connected(&section, connect, &listen)?;
    Some(RestApi {
        listen,
        connect_address,
        authentication,
    })
}

/// The address for others: the configured one, or where we listen if that means one place.
fn connected(
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

fn raft(
    root: &Section<'_>,
    restapi: Option<&RestApi>,
    state_dir: &Path,
    homes: &Homes,
) -> Option<Raft> {
    let store = root.section("store");
    let section = store.section("raft");
    let listen = endpoint(&section, "listen");
    let advertise = endpoint(&section, "advertise");
    let data_dir = absolute_path(&section, "data_dir").unwrap_or_else(|| state_dir.join("raft"));
    let secret_file = absolute_path(&section, "secret_file").unwrap_or_else(|| homes.secret_file());
    let members = section.section("members");
    let start = start(&section, &members);
    section.finish(&[]);
    store.finish(&["memory"]);
    let advertise = match (advertise, &listen) {
        (Some(advertise), _) if advertise.is_any() => {
            section.refuse("advertise", "must name one address of this machine");
            return None;
        }
        (Some(advertise), _) => advertise,
        (None, Some(listen)) if listen.is_any() => {
            section.missing(
                "advertise",
                "the address under which the other members reach this one",
            );
            return None;
        }
        (None, Some(listen)) => listen.clone(),
        (None, None) => restapi?.connect_address.clone(),
    };
    Some(Raft {
        listen,
        advertise,
        data_dir,
        start: start?,
        secret_file,
    })
}

fn start(section: &Section<'_>, members: &Section<'_>) -> Option<RaftStart> {
    let mut listed = BTreeMap::new();
    let mut sound = true;
    for (name, address) in members.pairs() {
        match (
            NodeName::new(name.clone()),
            address.value.parse::<Endpoint>(),
        ) {
            (Ok(node), Ok(endpoint)) => {
                listed.insert(node, endpoint);
            }
            (Err(bad), _) => {
                members.error(address.line, &name, bad.to_string());
                sound = false;
            }
            (_, Err(bad)) => {
                members.error(address.line, &name, bad.to_string());
                sound = false;
            }
        }
    }
    let mut join = Vec::new();
    for address in section.texts("join") {
        match address.value.parse() {
            Ok(endpoint) => join.push(endpoint),
            Err(bad) => {
                section.error(address.line, "join", format!("{bad}"));
                sound = false;
            }
        }
    }
    match (listed.is_empty(), join.is_empty()) {
        _ if !sound => None,
        (false, false) => {
            section.error(
                members.line(),
                "members",
                "either a fixed list of members or join, not both",
            );
            None
        }
        (false, true) if listed.len() % 2 == 0 || listed.len() > 5 => {
            let what = format!("{} voters: it must be one, three or five", listed.len());
            section.error(members.line(), "members", what);
            None
        }
        (false, true) => Some(RaftStart::Members(listed)),
        (true, false) => Some(RaftStart::Join(join)),
        (true, true) => Some(RaftStart::Found),
    }
}

fn postgresql(root: &Section<'_>, witness: bool) -> Option<Postgresql> {
    let section = root.section("postgresql");
    if section.is_empty() {
        if !witness {
            root.missing(
                "postgresql",
                "the instance, or `witness: true` for a monitor",
            );
        }
        return None;
    }
    let listen = section
        .text("listen")
        .and_then(|text| pg_listen(&section, &text));
    if listen.is_none() && !section.is_present("listen") {
        section.missing("listen", "HOST:PORT of Postgres, such as 127.0.0.1:5432");
    }
    let connect = endpoint(&section, "connect_address");
    let data_dir = data_dir(&section);
    let authentication = section.section("authentication");
    let superuser = login(&authentication, "superuser", "postgres");
    let replication = login(&authentication, "replication", "replicator");
    let rewind = login(&authentication, "rewind", "rewind");
    authentication.finish(&[]);
    let parameters = {
        let parameters = section.section("parameters");
        let pairs = parameters.pairs();
        postgres_rules::check(&parameters, &pairs);
        pairs.into_iter().map(|(key, at)| (key, at.value)).collect()
    };
    let pg_hba = section
        .texts("pg_hba")
        .into_iter()
        .map(|at| at.value)
        .collect();
    let database = section
        .text("database")
        .map_or_else(|| "postgres".to_owned(), |at| at.value);
    let bin_dir = absolute_path(&section, "bin_dir");
    let custom_conf = absolute_path(&section, "custom_conf");
    let basebackup = section.options("basebackup");
    section.finish(&[
        "config_dir",
        "pgpass",
        "use_slots",
        "use_unix_socket",
        "use_unix_socket_repl",
        "use_pg_rewind",
        "remove_data_directory_on_rewind_failure",
        "remove_data_directory_on_diverged_timelines",
        "callbacks",
        "create_replica_methods",
        "recovery_conf",
        "pg_ident",
        "pg_ctl_timeout",
        "proxy_address",
        "before_stop",
        "pre_promote",
        "bin_name",
    ]);
    let (listen, port) = listen?;
    let first = listen.split(',').next().unwrap_or_default().to_owned();
    let as_endpoint = match first.as_str() {
        "" | "*" => Endpoint::new("0.0.0.0", port),
        host => Endpoint::new(host, port),
    };
    let connect_address = connected(&section, connect, &as_endpoint)?;
    Some(Postgresql {
        listen,
        port,
        connect_address,
        data_dir: data_dir?,
        bin_dir,
        pg_hba,
        parameters,
        superuser: superuser?,
        replication: replication?,
        rewind: rewind?,
        database,
        custom_conf,
        basebackup,
    })
}

/// Patroni's `listen`: `HOSTS:PORT`, the hosts separated by commas.
fn pg_listen(section: &Section<'_>, text: &At<String>) -> Option<(String, u16)> {
    let (hosts, port) = match split_port(&text.value) {
        Ok(split) => split,
        Err(bad) => {
            section.error(text.line, "listen", bad.to_string());
            return None;
        }
    };
    let mut listed = Vec::new();
    for host in hosts.split(',').map(str::trim) {
        match host {
            "" | "*" => listed.push("*".to_owned()),
            host => match check_host(host) {
                Ok(host) => listed.push(host),
                Err(bad) => {
                    section.error(text.line, "listen", bad.to_string());
                    return None;
                }
            },
        }
    }
    Some((listed.join(","), port))
}

fn data_dir(section: &Section<'_>) -> Option<PathBuf> {
    let Some(dir) = absolute_path(section, "data_dir") else {
        if !section.is_present("data_dir") {
            section.missing("data_dir", "the absolute path of the data directory");
        }
        return None;
    };
    if dir.parent().is_none() {
        section.refuse(
            "data_dir",
            "is the root directory, name one of Postgres's own",
        );
        return None;
    }
    Some(dir)
}

fn login(authentication: &Section<'_>, key: &'static str, default: &str) -> Option<Login> {
    let section = authentication.section(key);
    let username = section.text("username");
    let password = section.text("password");
    section.finish(&[
        "sslmode",
        "sslkey",
        "sslcert",
        "sslrootcert",
        "sslpassword",
        "sslcrl",
        "gssencmode",
        "channel_binding",
    ]);
    let name = username.as_ref().map_or(default, |at| at.value.as_str());
    if name.is_empty() || name.len() > 63 || name.contains(['"', '\n', '\r', '\0']) {
        let line = username.as_ref().map_or(0, |at| at.line);
        section.error(
            line,
            "username",
            "must be 1 to 63 characters without quotes or line breaks",
        );
        return None;
    }
    if let Some(password) = password
        .as_ref()
        .filter(|at| at.value.contains(['\n', '\r', '\0']))
    {
        section.error(password.line, "password", "must not hold line breaks");
        return None;
    }
    let password = password.map(|at| Password::new(at.value));
    Some(Login {
        username: name.to_owned(),
        password,
    })
}

fn bootstrap(root: &Section<'_>) -> Option<Bootstrap> {
    let section = root.section("bootstrap");
    let dcs = section.section("dcs");
    let mut record = ConfigRecord::default();
    for entry in dcs.entries() {
        let key = entry.key.as_str();
        if !DCS_KEYS.contains(&key) {
            let what = match super::section::nearest(key, DCS_KEYS.iter().copied()) {
                Some(near) => format!("unknown key, did you mean `{near}`?"),
                None => "unknown key, it has no effect".to_owned(),
            };
            dcs.warning(entry.line, key, what);
        }
        record.0.insert(entry.key.clone(), entry.value.to_json());
    }
    let postgresql = dcs.section("postgresql");
    let parameters = postgresql.section("parameters");
    postgres_rules::check(&parameters, &parameters.pairs());
    if !record.0.contains_key("synchronous_mode") {
        // Patroni's meaning of the absent key; every file that we write names it.
        record.0.insert("synchronous_mode".to_owned(), false.into());
        let what =
            "not set, so commits are asynchronous, as Patroni has it; `quorum` protects them";
        dcs.warning(dcs.line(), "synchronous_mode", what);
    }
    let initdb = section.options("initdb");
    section.finish(&["method", "post_bootstrap", "post_init", "pg_hba", "users"]);
    if let Err(bad) = record.settings() {
        let line = dcs
            .entries()
            .iter()
            .find(|entry| entry.key == bad.key)
            .map_or_else(|| dcs.line(), |entry| entry.line);
        dcs.error(line, &bad.key, bad.why);
        return None;
    }
    Some(Bootstrap {
        dcs: record,
        initdb,
    })
}

fn tags(root: &Section<'_>) -> Tags {
    let section = root.section("tags");
    let nofailover = section.flag("nofailover").unwrap_or(false);
    let failover_priority = section.whole("failover_priority").and_then(|at| {
        let priority = u32::try_from(at.value)
            .ok()
            .filter(|priority| *priority <= 100);
        if priority.is_none() {
            section.error(at.line, "failover_priority", "must be between 0 and 100");
        }
        priority
    });
    let nosync = section.flag("nosync").unwrap_or(false);
    let all = section
        .entries()
        .iter()
        .map(|entry| (entry.key.clone(), entry.value.to_json()));
    Tags {
        nofailover,
        failover_priority,
        nosync,
        all: all.collect(),
    }
}

fn log(root: &Section<'_>) -> Log {
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
            "plain" => Some(LogFormat::Plain),
            "json" => Some(LogFormat::Json),
            other => {
                section.error(
                    text.line,
                    "type",
                    format!("{other:?} is neither plain nor json"),
                );
                None
            }
        });
    section.finish(&[
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
    ]);
    Log {
        level: level.unwrap_or(LogLevel::Info),
        format: format.unwrap_or_default(),
    }
}

fn endpoint(section: &Section<'_>, key: &'static str) -> Option<Endpoint> {
    let text = section.text(key)?;
    match text.value.parse() {
        Ok(endpoint) => Some(endpoint),
        Err(bad) => {
            section.error(text.line, key, format!("{bad}"));
            None
        }
    }
}

fn absolute_path(section: &Section<'_>, key: &'static str) -> Option<PathBuf> {
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
