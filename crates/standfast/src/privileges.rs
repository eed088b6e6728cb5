//! Started as root, a node becomes another user before it touches anything.
//!
//! The process replaces itself (exec) rather than going on, so that no open file, no environment variable and no
//! memory of root's stays behind.
//!
//! **Invariant:** nothing that runs Postgres or writes a node's files runs as root.

use crate::exit::Failure;
use crate::paths::Homes;
use anyhow::Context as _;
use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user as the system knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    home: PathBuf,
}

/// Who runs a node here: whoever asks, or whom root becomes.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) name: String,
    /// `None`: it is who asks.
    becomes: Option<User>,
}

impl Runner {
    /// `user` counts for root alone.
    pub(crate) fn find(user: &str) -> anyhow::Result<Self> {
        let me = geteuid();
        if !me.is_root() {
            let name = ask("id", &["-un"]).ok().flatten();
            return Ok(Self {
                name: name.unwrap_or_else(|| me.as_raw().to_string()),
                becomes: None,
            });
        }
        Ok(Self {
            name: user.to_owned(),
            becomes: Some(ordinary(user)?),
        })
    }

    /// Whether it is not who asks.
    pub(crate) fn is_another(&self) -> bool {
        self.becomes.is_some()
    }

    /// Where its files are unless a configuration says so.
    pub(crate) fn homes(&self) -> Homes {
        match &self.becomes {
            None => Homes::from_env(),
            Some(user) => Homes::of(&user.home, |variable| !is_roots(variable)),
        }
    }

    /// The owner that its data directory must have.
    pub(crate) fn uid(&self) -> u32 {
        let own = || geteuid().as_raw();
        self.becomes.as_ref().map_or_else(own, |user| user.uid)
    }

    /// Looks with this user's rights: in a thread that gives up root's, and ends.
    pub(crate) fn look<T: Send>(&self, look: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let Some(user) = &self.becomes else {
            return Ok(look());
        };
        let looked = std::thread::scope(|scope| {
            let thread = scope.spawn(|| become_thread(user).map(|()| look()));
            thread.join()
        });
        match looked {
            Ok(looked) => looked.with_context(|| format!("can't look as the user {}", self.name)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// The kernel counts users by thread; of a process with one thread this is the process.
fn become_thread(user: &User) -> rustix::io::Result<()> {
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_groups(&groups)
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
}

fn ordinary(user: &str) -> anyhow::Result<User> {
    let found = find(user)?;
    if found.uid == 0 {
        let failure = Failure::usage(format!("Postgres does not run as root, and {user} is root"));
        return Err(failure.hint("name an ordinary user with --user").into());
    }
    Ok(found)
}

/// Returns at once unless this is root; otherwise becomes `user`, with the same command line.
pub(crate) fn drop_to(user: &str) -> anyhow::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let found = ordinary(user)?;
    let exe = std::env::current_exe().context("can't find the program's own file")?;
    // Single-threaded still: what is set for the thread is set for the process.
    become_thread(&found).with_context(|| format!("can't become the user {user}"))?;
    let mut command = Command::new(&exe);
    command.args(std::env::args_os().skip(1));
    for variable in [
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_RUNTIME_DIR",
        "XDG_CACHE_HOME",
    ] {
        if is_roots(variable) {
            command.env_remove(variable);
        }
    }
    command
        .env("HOME", &found.home)
        .env("USER", user)
        .env("LOGNAME", user);
    let error = command.exec();
    let failure = Failure::error(format!(
        "the user {user} can't run {}: {error}",
        exe.display()
    ));
    Err(failure
        .hint("put the program where everybody may run it, such as /usr/local/bin")
        .into())
}

/// A directory below root's home is of no use to another user.
fn is_roots(variable: &str) -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let dir = std::env::var_os(variable).map(PathBuf::from);
    match (dir, home) {
        (Some(dir), Some(home)) => home != Path::new("/") && dir.starts_with(home),
        _ => false,
    }
}

/// Asks the name service, so that users of directories (LDAP) are found too.
fn find(user: &str) -> anyhow::Result<User> {
    let missing = || {
        let what =
            format!("started as root, and the user {user} that it should run as does not exist");
        Failure::error(what).hint("create that user, or name another one with --user")
    };
    if user.is_empty() || user.starts_with('-') || user.contains([':', '\n', '\0']) {
        return Err(Failure::usage(format!("{user:?} is not a user name")).into());
    }
    let line = ask("getent", &["passwd", user])?.ok_or_else(missing)?;
    let groups = ask("id", &["-G", user])?.ok_or_else(missing)?;
    parse(&line, &groups).with_context(|| format!("can't read what getent says of the user {user}"))
}

fn ask(program: &str, args: &[&str]) -> anyhow::Result<Option<String>> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("can't run {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok((output.status.success() && !text.is_empty()).then_some(text))
}

fn parse(passwd: &str, groups: &str) -> Option<User> {
    let mut fields = passwd.lines().next()?.split(':').skip(2);
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = PathBuf::from(fields.nth(1)?);
    let groups = groups
        .split_whitespace()
        .filter_map(|gid| gid.parse().ok())
        .collect();
    Some(User {
        uid,
        gid,
        groups,
        home,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_passwd_is_understood() {
        let line = "postgres:x:105:110:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash";
        let user = parse(line, "110 101\n").unwrap();
        let home = PathBuf::from("/var/lib/postgresql");
        assert_eq!(
            user,
            User {
                uid: 105,
                gid: 110,
                groups: vec![110, 101],
                home
            }
        );
        assert_eq!(parse("postgres:x", "1"), None);
    }

    #[test]
    fn a_user_that_is_missing_is_named() {
        let error = find("no-such-user-here").unwrap_err();
        let failure = error.downcast_ref::<Failure>().unwrap();
        assert!(failure.message.contains("no-such-user-here"), "{failure}");
        assert!(failure.hint.as_deref().unwrap().contains("--user"));
        assert!(find("-x").is_err());
    }
}
