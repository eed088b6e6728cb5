//! What a configuration needs of this machine: looked at, never touched.

use super::{Config, Etcd, Problem, Raft, RestApi, StoreChoice, sources};
use crate::secret::{ClusterSecret, how_to_have, is_absent};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Everything that would keep the node from starting here.
pub(super) fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |key: &str, what: Option<String>| {
        problems.extend(what.map(|what| Problem::at(0, key, what)));
    };
    match &config.store {
        StoreChoice::Raft(raft) => {
            add("store.raft.secret_file", secret(config));
            add("store.raft.tls", certificates(raft));
        }
        StoreChoice::Etcd(etcd) => {
            add("store.secret_file", secret(config));
            add("etcd3.cacert", certificates_for_etcd(etcd));
        }
    }
    add("restapi.listen", address(&config.restapi));
    if let Some(pg) = &config.postgresql {
        add("postgresql.listen", one_address(&pg.listen));
        add("postgresql.data_dir", data_dir(&pg.data_dir));
        let programs = postgres_programs(pg.bin_dir.as_deref(), &pg.data_dir);
        add("postgresql.bin_dir", programs);
    }
    problems
}

/// A cluster without any secret makes one, where all nodes find it.
pub(super) fn secret_in_etcd(config: &Config) -> Option<Problem> {
    let what = format!(
        "no passwords for superuser and replication, and no {}: the nodes agree on a secret in etcd, where everybody \
         finds it who may read etcd; write both passwords into every node's file instead",
        config.secret_file.display()
    );
    ClusterSecret::is_to_be_agreed(config)
        .then(|| Problem::at(0, "postgresql.authentication", what))
}

/// A file with passwords is its owner's alone.
pub(super) fn readable_passwords(config: &Config) -> Vec<Problem> {
    let files = match config.holds_passwords() {
        true => sources::files(&config.file).unwrap_or_default(),
        false => Vec::new(),
    };
    let problem = |file: &PathBuf| {
        let mode = std::fs::metadata(file).ok()?.mode();
        let what = format!(
            "holds passwords and others may read it (mode {:04o}), chmod 600 it",
            mode & 0o777
        );
        let name = file.file_name()?.to_string_lossy().into_owned();
        (mode & 0o077 != 0).then(|| Problem {
            place: (*file != config.file).then_some(name),
            ..Problem::whole(what)
        })
    };
    files.iter().filter_map(problem).collect()
}

fn secret(config: &Config) -> Option<String> {
    if ClusterSecret::is_to_be_agreed(config) {
        return None;
    }
    match ClusterSecret::of(config) {
        Err(error) if is_absent(&error) => Some(how_to_have(&config.secret_file)),
        Err(error) => Some(with_cause(&error)),
        Ok(_) => roots_own(&config.secret_file),
    }
}

/// What root alone may read is nothing to the user that `run` becomes.
fn roots_own(file: &Path) -> Option<String> {
    let owner = std::fs::metadata(file).ok()?.uid();
    (owner == 0).then(|| {
        let file = file.display();
        format!("{file} belongs to root, and Standfast never runs as root: chown it to who runs it")
    })
}

fn certificates(raft: &Raft) -> Option<String> {
    let options = raft.tls.as_ref()?;
    Some(with_cause(&store::Tls::load(options.clone()).err()?))
}

fn certificates_for_etcd(etcd: &Etcd) -> Option<String> {
    Some(with_cause(&etcd.tls.as_ref()?.check().err()?))
}

fn with_cause(error: &dyn std::error::Error) -> String {
    let cause = error.source().map_or(String::new(), |it| format!(": {it}"));
    format!("{error}{cause}")
}

/// Whether the address is this machine's. That its port is taken may be our own doing.
fn address(restapi: &RestApi) -> Option<String> {
    match TcpListener::bind((restapi.listen.host.as_str(), 0)) {
        Ok(_) => None,
        Err(error) => Some(format!("can't listen on {}: {error}", restapi.listen.host)),
    }
}

/// Whether one of PostgreSQL's addresses is this machine's, as one is enough for it to start.
fn one_address(listen: &str) -> Option<String> {
    let mut why = None;
    for host in listen.split(',').map(str::trim) {
        let host = if host == "*" { "0.0.0.0" } else { host };
        match TcpListener::bind((host, 0)) {
            Ok(_) => return None,
            Err(error) => why = Some(error),
        }
    }
    why.map(|error| format!("can't listen on {listen}: {error}"))
}

fn data_dir(dir: &Path) -> Option<String> {
    let metadata = match std::fs::symlink_metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(format!("can't be looked at: {error}")),
    };
    if metadata.is_symlink() {
        let real = std::fs::canonicalize(dir).unwrap_or_default();
        return Some(format!(
            "is a symbolic link, name {} instead",
            real.display()
        ));
    }
    if !metadata.is_dir() {
        return Some("is not a directory".to_owned());
    }
    let me = rustix::process::geteuid();
    if !me.is_root() && metadata.uid() != me.as_raw() {
        let (owner, me) = (metadata.uid(), me.as_raw());
        return Some(format!("belongs to user {owner}, not to us, user {me}"));
    }
    let filled = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => return Some(format!("can't be read: {error}")),
    };
    if filled && !dir.join("PG_VERSION").exists() {
        return Some("is not empty and holds no PostgreSQL cluster; name another one".to_owned());
    }
    if filled && metadata.mode() & 0o027 != 0 {
        let mode = metadata.mode() & 0o777;
        return Some(format!(
            "has mode {mode:04o}, PostgreSQL wants 0700 or 0750"
        ));
    }
    None
}

/// Whether there are any, and of the version that the data directory has.
fn postgres_programs(bin_dir: Option<&Path>, data_dir: &Path) -> Option<String> {
    let version = std::fs::read_to_string(data_dir.join("PG_VERSION"));
    let major = version.ok().and_then(|text| text.trim().parse().ok());
    let found = match postgres::Binaries::find(bin_dir, major) {
        Ok(found) => found,
        Err(error) => return Some(error.to_string()),
    };
    let (dir, programs) = (data_dir.display(), found.dir.display());
    let major = major.filter(|major| *major != found.major)?;
    Some(format!(
        "{dir} was made by PostgreSQL {major}, the programs in {programs} are of PostgreSQL {}",
        found.major
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn one_address_of_this_machine_is_enough() {
        for listen in ["*", "127.0.0.1", "198.51.100.1, 127.0.0.1", "localhost"] {
            assert_eq!(one_address(listen), None, "{listen}");
        }
        for listen in ["198.51.100.1", "198.51.100.1,198.51.100.2"] {
            let why = one_address(listen).unwrap();
            assert!(
                why.contains(&format!("can't listen on {listen}: ")),
                "{why}"
            );
        }
    }

    #[test]
    fn programs_of_another_version_than_the_data_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let found = postgres::Binaries::find(None, None).unwrap();
        let check = || postgres_programs(Some(&found.dir), dir.path());
        assert_eq!(check(), None);
        std::fs::write(dir.path().join("PG_VERSION"), "9\n").unwrap();
        let said = check().unwrap();
        assert!(
            said.contains("was made by PostgreSQL 9, the programs in "),
            "{said}"
        );
        let version = format!("{}\n", found.major);
        std::fs::write(dir.path().join("PG_VERSION"), version).unwrap();
        assert_eq!(check(), None);
    }

    #[test]
    fn a_data_directory_that_can_not_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert_eq!(data_dir(&at("absent")), None);
        std::fs::create_dir(at("empty")).unwrap();
        assert_eq!(data_dir(&at("empty")), None);
        std::fs::create_dir(at("foreign")).unwrap();
        std::fs::write(at("foreign/letter.txt"), "dear").unwrap();
        assert!(
            data_dir(&at("foreign"))
                .unwrap()
                .contains("no PostgreSQL cluster")
        );
        std::os::unix::fs::symlink(at("empty"), at("link")).unwrap();
        assert!(data_dir(&at("link")).unwrap().contains("symbolic link"));
        std::fs::write(at("file"), "").unwrap();
        assert!(data_dir(&at("file")).unwrap().contains("not a directory"));
        std::fs::create_dir(at("open")).unwrap();
        std::fs::write(at("open/PG_VERSION"), "15\n").unwrap();
        std::fs::set_permissions(at("open"), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(data_dir(&at("open")).unwrap().contains("0777"));
    }
}
