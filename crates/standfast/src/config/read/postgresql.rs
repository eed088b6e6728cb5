//! `postgresql`: the instance.

use super::methods::{self, Told};
use super::places::{absolute_path, connected, endpoint};
use crate::config::section::{At, Section};
use crate::config::values::{Endpoint, check_host, split_port};
use crate::config::{Login, Password, Postgresql, postgres_rules, words};
use postgres::Libpq;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub(super) fn postgresql(root: &Section<'_>, witness: bool, scope: &str) -> Option<Postgresql> {
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
    let mut parameters = parameters(&section);
    // Since PostgreSQL 12 these are parameters as well, which a primary has no use for.
    parameters.extend(recovery(&section));
    let pg_hba = lines(&section, "pg_hba");
    let pg_ident = lines(&section, "pg_ident");
    rejoining(&section);
    let callbacks = callbacks(&section);
    let hooks = agent::Hooks {
        pre_promote: command(&section, "pre_promote").unwrap_or_default(),
        before_stop: command(&section, "before_stop").unwrap_or_default(),
    };
    let pgpass = absolute_path(&section, "pgpass");
    let stops_within = section
        .whole("pg_ctl_timeout")
        .map(|at| Duration::from_secs(at.value.max(1)));
    let shown = data_dir.as_ref().map(|dir| dir.display().to_string());
    let told = Told {
        scope,
        data_dir: shown.as_deref().unwrap_or_default(),
    };
    let copies = methods::copies(&section, &told);
    let database = section
        .text("database")
        .map_or_else(|| "postgres".to_owned(), |at| at.value);
    let bin_dir = absolute_path(&section, "bin_dir");
    let custom_conf = absolute_path(&section, "custom_conf");
    let config_dir = absolute_path(&section, "config_dir");
    let basebackup = section.options("basebackup");
    needless(&section);
    let proxy_address = endpoint(&section, "proxy_address");
    section.finish(&[]);
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
        proxy_address,
        data_dir: data_dir?,
        bin_dir,
        pg_hba,
        pg_ident,
        parameters,
        superuser: superuser?,
        replication: replication?,
        rewind: rewind?,
        database,
        custom_conf,
        config_dir,
        basebackup,
        copies,
        callbacks,
        hooks,
        pgpass,
        stops_within: stops_within.unwrap_or(Duration::from_secs(60)),
    })
}

/// Lines of a file of PostgreSQL's. With one that it does not take it takes none of the file, or does not start.
fn lines(section: &Section<'_>, key: &'static str) -> Vec<String> {
    let (lines, refused) = lines_of(section, key);
    for Refused { place, line, why } in refused {
        let what = format!(
            "{line:?} is no line that PostgreSQL takes, and with it none counts, mend or remove it: {why}"
        );
        section.error(place, key, what);
    }
    lines
}

/// A line that PostgreSQL does not take, and where it stands.
pub(super) struct Refused {
    pub(super) place: u64,
    pub(super) line: String,
    pub(super) why: String,
}

pub(super) fn lines_of(section: &Section<'_>, key: &'static str) -> (Vec<String>, Vec<Refused>) {
    let (places, lines): (Vec<u64>, Vec<String>) = section
        .texts(key)
        .into_iter()
        .map(|at| (at.line, at.value))
        .unzip();
    let refused = refused(key, &lines).into_iter().map(|(n, why)| Refused {
        place: places[n],
        line: lines[n].clone(),
        why,
    });
    let refused = refused.collect();
    (lines, refused)
}

/// Which version runs here is not known yet: what any of them takes passes.
fn refused(key: &str, lines: &[String]) -> Vec<(usize, String)> {
    let any = u32::MAX;
    match key {
        "pg_ident" => postgres::not_maps(lines, any),
        _ => postgres::not_rules(lines, any),
    }
}

fn parameters(postgresql: &Section<'_>) -> BTreeMap<String, String> {
    let section = postgresql.section("parameters");
    let pairs = section.pairs();
    postgres_rules::check(&section, &pairs);
    pairs.into_iter().map(|(key, at)| (key, at.value)).collect()
}

/// What PostgreSQL does with an archive. Whom a node follows, and to where, is never said here.
fn recovery(postgresql: &Section<'_>) -> BTreeMap<String, String> {
    let section = postgresql.section("recovery_conf");
    let mut pairs = section.pairs();
    for gone in ["standby_mode", "trigger_file", "promote_trigger_file"] {
        if let Some(at) = pairs.remove(gone) {
            section.inert(
                at.line,
                gone,
                "has no effect: who is a standby is agreed in the store",
            );
        }
    }
    postgres_rules::check(&section, &pairs);
    pairs.into_iter().map(|(key, at)| (key, at.value)).collect()
}

/// What is done one way only.
fn needless(section: &Section<'_>) {
    let socket = "has no effect: the agent always comes by a Unix socket of its own";
    // What is left of a dead server is told from other programs by that name.
    let names = "has no effect: a process is PostgreSQL's only if its program is called postgres; name a bin_dir in \
                 which the programs have their usual names";
    for (key, why) in [
        ("use_unix_socket", socket),
        ("use_unix_socket_repl", socket),
        ("bin_name", names),
    ] {
        if let Some(tree) = section.value(key) {
            section.inert(tree.line, key, why);
        }
    }
}

fn callbacks(postgresql: &Section<'_>) -> agent::Programs {
    let section = postgresql.section("callbacks");
    let mut programs = agent::Programs::new();
    for key in ["on_start", "on_stop", "on_role_change", "on_reload"] {
        if let Some(command) = command(&section, key) {
            programs.insert(key.to_owned(), command);
        }
    }
    if section.is_given("on_restart") {
        let line = section.value("on_restart").map_or(0, |tree| tree.line);
        let what = "has no effect: a restart is told as on_stop and on_start";
        section.inert(line, "on_restart", what);
    }
    section.finish(&[]);
    programs
}

/// A program with its arguments, as a shell would part them.
pub(super) fn command(section: &Section<'_>, key: &'static str) -> Option<Vec<String>> {
    let text = section.text(key)?;
    match words::split(&text.value) {
        Ok(words) if !words.is_empty() => Some(words),
        Ok(_) => {
            section.error(text.line, key, "must name a program");
            None
        }
        Err(why) => {
            section.error(text.line, key, why);
            None
        }
    }
}

/// How a node comes back is not chosen here: what was chosen otherwise is said.
pub(super) fn rejoining(section: &Section<'_>) {
    for (key, ours) in [
        ("use_slots", "standbys always stream by slots"),
        (
            "use_pg_rewind",
            "a diverged node is always rewound first, and cloned where that can't work",
        ),
        (
            "remove_data_directory_on_rewind_failure",
            "a node that can't be rewound is cloned; what only it had is kept aside first",
        ),
        (
            "remove_data_directory_on_diverged_timelines",
            "a diverged node is rewound or cloned; what only it had is kept aside first",
        ),
    ] {
        if section.flag(key) == Some(false) {
            let line = section
                .value(key)
                .map_or_else(|| section.line(), |tree| tree.line);
            section.inert(line, key, format!("has no effect: {ours}"));
        }
    }
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
    let libpq = libpq(&section, key);
    section.finish(&[]);
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
        libpq,
    })
}

fn is_sound(key: &str, value: &str) -> bool {
    key != "sslmode"
        || postgres::Tls::meant(|asked| (asked == key).then(|| value.to_owned())).is_ok()
}

/// How a login connects to another node, in libpq's words.
fn libpq(section: &Section<'_>, login: &str) -> Libpq {
    let of_query = ["sslmode", "sslkey", "sslcert", "sslrootcert", "sslpassword"];
    let keys = [
        "sslmode",
        "sslkey",
        "sslcert",
        "sslrootcert",
        "sslpassword",
        "sslcrl",
        "sslcrldir",
        "sslnegotiation",
        "gssencmode",
        "channel_binding",
    ];
    let mut told = Libpq::default();
    for key in keys {
        let Some(given) = section.text(key) else {
            continue;
        };
        if given.value.contains(['\n', '\r', '\0']) {
            section.error(given.line, key, "must not hold line breaks");
        } else if !is_sound(key, &given.value) {
            let modes = postgres::BadSslMode::MODES;
            section.error(given.line, key, format!("must be {modes}"));
        } else if login == "superuser" && !of_query.contains(&key) {
            let what = "has no effect: the agent comes by a socket of its own";
            section.inert(given.line, key, what);
        } else {
            told.0.insert(key.to_owned(), given.value);
        }
    }
    told
}
