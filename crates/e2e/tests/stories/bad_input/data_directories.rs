//! Data directories and programs that a third node can't use, tried on a running cluster.

use super::desk::refused;
use super::running_cluster::Place;
use anyhow::{Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// What stands in a directory: names, modes and contents.
pub(super) fn picture(directory: &Path) -> Result<String> {
    let script = "find . -printf '%p %m %U %y %l\\n' | sort; find . -type f -print0 | sort -z | xargs -0 md5sum";
    lab::run_to_end(
        Command::new("sh")
            .args(["-c", script])
            .current_dir(directory),
    )
}

impl Place<'_> {
    /// `create postgres` in `directory` ends with `code`, and the directory stays as it is.
    fn create_refuses(&self, directory: &str, more: &str, code: i32, words: &[&str]) -> Result<()> {
        let path = self.path(directory);
        let before = path.is_dir().then(|| picture(&path)).transpose()?;
        refused(&self.terminal, &self.create(directory, more), code, words)?;
        let after = path.is_dir().then(|| picture(&path)).transpose()?;
        ensure!(
            before == after,
            "{directory} was touched:\n{before:?}\n{after:?}"
        );
        ensure!(
            !self.configuration(directory).exists(),
            "{directory}: a configuration was left behind"
        );
        Ok(())
    }
}

/// Directories that must be refused as they are, and left as they are.
pub(super) fn directories(place: &Place<'_>) -> Result<()> {
    place.types("initdb --no-sync -A trust -U postgres -D foreign")?;
    place.create_refuses(
        "foreign",
        "",
        5,
        &["foreign", "system identifier", "hint: "],
    )?;
    place.types("cp -a foreign fourteen && echo 14 > fourteen/PG_VERSION")?;
    place.create_refuses("fourteen", "", 5, &["fourteen", "PostgreSQL 14"])?;
    place.types("cp -a foreign garbage && echo xyzzy > garbage/PG_VERSION")?;
    place.create_refuses("garbage", "", 5, &["garbage", "xyzzy"])?;
    place.types("cp -a foreign torn && truncate -s 100 torn/global/pg_control")?;
    place.create_refuses("torn", "", 5, &["torn"])?;
    place.types("cp -a foreign open && chmod 777 open")?;
    place.create_refuses("open", "", 5, &["open", "0777"])?;
    place.types("ln -s foreign link")?;
    place.create_refuses("link", "", 5, &["foreign", "system identifier"])?;
    place.types("touch file")?;
    place.create_refuses("file", "", 5, &["file", "not a directory"])?;
    place.create_refuses("file/below", "", 5, &["file/below"])?;
    place.types("mkdir closed && chmod 500 closed")?;
    place.create_refuses("closed/below", "", 1, &["closed", "Permission denied"])?;
    let root = place.create("/", "");
    refused(&place.terminal, &root, 5, &["root directory", "hint: "])?;
    place.create_refuses("/proc/node", "", 1, &["/proc"])?;
    // Of a node that is there already.
    let a = place.cluster.node("a")?.data_dir.display().to_string();
    let line = place.create(&a, "--name other");
    refused(&place.terminal, &line, 5, &["belongs to a"])?;
    if rustix::process::geteuid().is_root() {
        let strangers = place.path("strangers");
        fs::create_dir(&strangers)?;
        fs::set_permissions(&strangers, fs::Permissions::from_mode(0o755))?;
        place.create_refuses("strangers", "", 5, &["strangers", "belongs to user 0"])?;
    }
    Ok(())
}

/// Flags that can't work: each says which, and what would.
pub(super) fn flags(place: &Place<'_>) -> Result<()> {
    let long = format!("--name {}", "x".repeat(300));
    let monitor = place.cluster.node("monitor")?.api.clone();
    let postgres = place.cluster.node("a")?.pg_port.unwrap_or_default();
    for (more, code, words) in [
        ("--name a", 5, ["name a", "hint: "]),
        ("--name 'q\"t'", 2, ["--name", "a-z"]),
        ("--name '*'", 2, ["--name", "a-z"]),
        ("--name __placeholder", 2, ["--name", "a-z"]),
        (&*long, 2, ["--name", "48"]),
        ("--secret-file ./absent", 1, ["absent", "hint: "]),
        ("--formation other", 3, ["formation", "other"]),
        ("--listen 'a b'", 2, ["--listen", "a b"]),
    ] {
        place.create_refuses("new", more, code, &words)?;
    }
    for (from, to, code, words) in [
        (
            "--pgctl $(which pg_ctl)",
            "--pgctl /nope/pg_ctl",
            2,
            ["/nope/pg_ctl", "No such file"],
        ),
        (
            "--pgctl $(which pg_ctl)",
            "--pgctl /usr/bin/env",
            1,
            ["/usr/bin", "hint: "],
        ),
        (
            "--hostname 127.0.0.1",
            "--hostname \"host=x options='-c a'\"",
            2,
            ["--hostname", "host=x"],
        ),
        ("--pgport ", "--pgport 99999 #", 2, ["99999", "65535"]),
        (
            &*format!("--monitor {monitor}"),
            "--monitor 127.0.0.1:1",
            4,
            ["127.0.0.1:1", "hint: "],
        ),
        (
            &*format!("--monitor {monitor}"),
            &*format!(
                "--monitor postgres://autoctl_node:typed-pw@127.0.0.1:{postgres}/pg_auto_failover"
            ),
            4,
            [&*postgres.to_string(), "hint: "],
        ),
    ] {
        let line = place.create("new", "");
        ensure!(line.contains(from), "{from} is not in {line}");
        let said = refused(&place.terminal, &line.replace(from, to), code, &words)?;
        ensure!(!said.stderr.contains("typed-pw"), "{said:?}");
        ensure!(
            !place.configuration("new").exists(),
            "{to}: something was left behind"
        );
    }
    Ok(())
}
