//! Whether the user who runs a node may do there what it will do: the kernel is asked, nothing is touched.
//!
//! **Invariant:** it is asked with that user's rights, whoever calls.

use crate::config::{
    Config, Problem, ProxyConfig, ProxySection, ProxySource, StoreChoice, source_files,
};
use crate::privileges::Runner;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What is wanted of a path.
enum Wanted {
    /// Files are made in it; it is made itself where it is missing.
    Directory(PathBuf),
    Readable(PathBuf),
}

use Wanted::{Directory, Readable};

/// Warnings, and what is wrong with the data directory.
pub(super) fn of_node(config: &Config, runner: &Runner) -> (Vec<Problem>, Vec<Problem>) {
    let mut wanted = vec![("", Readable(config.file.clone()))];
    wanted.push(("state_dir", Directory(config.state_dir.clone())));
    if let StoreChoice::Raft(raft) = &config.store {
        wanted.push(("store.raft.data_dir", Directory(raft.data_dir.clone())));
    }
    // Root's own is refused anyway, and where etcd is the store there may be none.
    if std::fs::metadata(&config.secret_file).is_ok_and(|it| it.uid() != 0) {
        let file = config.secret_file.clone();
        wanted.push(("store.raft.secret_file", Readable(file)));
    }
    let log = config.log.to.as_ref().map(|to| to.dir.clone());
    wanted.extend(log.map(|dir| ("log.dir", Directory(dir))));
    let mut wrong = Vec::new();
    if let Some(pg) = &config.postgresql {
        let pgpass = pg.pgpass.as_deref().and_then(Path::parent);
        wanted.extend(pgpass.map(|dir| ("postgresql.pgpass", Directory(dir.to_owned()))));
        wrong.extend(owner(&pg.data_dir, runner));
        if wrong.is_empty() {
            let data_dir = Directory(pg.data_dir.clone());
            wrong = look(vec![("postgresql.data_dir", data_dir)], runner);
        }
    }
    wanted.extend(config.proxy.iter().flat_map(of_section));
    (look(wanted, runner), wrong)
}

pub(super) fn of_proxy(file: &Path, config: &ProxyConfig, runner: &Runner) -> Vec<Problem> {
    let mut wanted = vec![("", Readable(file.to_owned()))];
    if let ProxySource::Raft { secret_file, .. } = &config.source {
        wanted.push(("store.raft.secret_file", Readable(secret_file.clone())));
    }
    let log = config.log.to.as_ref().map(|to| to.dir.clone());
    wanted.extend(log.map(|dir| ("log.dir", Directory(dir))));
    wanted.extend(of_section(&config.proxy));
    look(wanted, runner)
}

fn of_section(proxy: &ProxySection) -> Vec<(&'static str, Wanted)> {
    let mut wanted = vec![("proxy.users_file", Readable(proxy.users_file.clone()))];
    let hba = proxy.hba_file.clone();
    wanted.extend(hba.map(|file| ("proxy.auth_hba_file", Readable(file))));
    let socket = proxy.unix_socket.as_ref().and_then(|it| it.path.parent());
    wanted.extend(socket.map(|dir| ("proxy.unix_socket_dir", Directory(dir.to_owned()))));
    let takeover = proxy.takeover.as_deref().and_then(Path::parent);
    wanted.extend(takeover.map(|dir| ("proxy.takeover_socket", Directory(dir.to_owned()))));
    wanted
}

fn look(wanted: Vec<(&'static str, Wanted)>, runner: &Runner) -> Vec<Problem> {
    let looked = runner.look(|| {
        let problem = |(key, wanted)| {
            let what = match wanted {
                Directory(dir) => directory(&dir, &runner.name),
                // Who asks for himself has tried to read it.
                Readable(path) if runner.is_another() => readable(&path, &runner.name),
                Readable(_) => None,
            };
            Some(Problem::at(0, key, what?))
        };
        wanted.into_iter().filter_map(problem).collect()
    });
    looked.unwrap_or_else(|error| vec![Problem::whole(format!("{error:#}"))])
}

/// Others' directories are refused by PostgreSQL itself. Who is no root was told so already.
fn owner(data_dir: &Path, runner: &Runner) -> Option<Problem> {
    if !runner.is_another() {
        return None;
    }
    let owner = std::fs::metadata(data_dir).ok()?.uid();
    let (dir, user) = (data_dir.display(), &runner.name);
    let what = format!(
        "{dir} belongs to user {owner}, not to {user}, who runs it (--user names another); as root: chown -R {user} \
         {dir}"
    );
    (owner != runner.uid()).then(|| Problem::at(0, "postgresql.data_dir", what))
}

fn directory(dir: &Path, user: &str) -> Option<String> {
    let path = dir.display();
    let mut first = None;
    for above in dir.ancestors() {
        if let Err(error) = access(above, Access::EXISTS) {
            first = first.or(Some(error));
            continue;
        }
        let error = access(above, Access::WRITE_OK | Access::EXEC_OK).err()?;
        let here = above.display();
        return Some(match first {
            None => format!(
                "the user {user} may not write to {path} ({error}); as root: chown {user} {path}"
            ),
            Some(Errno::NOENT) => format!(
                "{path} is not there, and the user {user} may not make it in {here} ({error}); as root: install -d -o \
                 {user} -m 0700 {path}"
            ),
            Some(_) => format!(
                "{path} lies in {here}, which is closed to the user {user} ({error}); choose another place"
            ),
        });
    }
    None
}

fn readable(path: &Path, user: &str) -> Option<String> {
    // A directory of files, or one.
    let files = source_files(path).unwrap_or_else(|_| vec![path.to_owned()]);
    let refused = files
        .into_iter()
        .find_map(|file| Some((access(&file, Access::READ_OK).err()?, file)));
    // What is not there is missed by whoever reads it, and nobody's to give away.
    let (error, file) = refused.filter(|(error, _)| *error != Errno::NOENT)?;
    let file = file.display();
    Some(format!(
        "the user {user} can't read {file} ({error}); as root: chown {user} {file}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// As a user who is nobody's friend; who runs the tests is one, or root.
    fn look(dir: &Path) -> Option<String> {
        let runner = Runner::find("postgres").unwrap();
        runner.look(|| directory(dir, "somebody")).unwrap()
    }

    #[test]
    fn a_directory_that_can_not_be_had_is_said_with_its_cure() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, mode| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let (open, shut) = (at("open", 0o777), at("shut", 0o555));
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), all).unwrap();
        assert_eq!(look(&open), None);
        assert_eq!(look(&open.join("a/b")), None);
        let said = look(&shut).unwrap();
        let wanted = format!("may not write to {} (", shut.display());
        assert!(said.contains(&wanted), "{said}");
        let said = look(&shut.join("a/b")).unwrap();
        let wanted = format!("may not make it in {} (", shut.display());
        assert!(said.contains(&wanted), "{said}");
        assert!(
            said.contains("; as root: install -d -o somebody "),
            "{said}"
        );
        let hidden = at("hidden", 0o000);
        let said = look(&hidden.join("a")).unwrap();
        let wanted = format!("lies in {}, which is closed to", hidden.display());
        assert!(said.contains(&wanted), "{said}");
        // What is in the way is a file of root's.
        assert!(look(Path::new("/proc/version/a")).is_some());
    }
}
