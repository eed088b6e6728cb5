//! Who may connect: `pg_hba.conf` and `pg_ident.conf`, generated.
//!
//! First match wins, so our block stands on top and the user's lines follow.
//! Replication over TCP always needs a password by SCRAM, whatever the user's lines say: detaching a standby relies on
//! it. The superuser comes in by peer authentication over a local socket, so that neither a lost password nor a
//! password rotation locks us out and `sudo -u postgres psql` works as everywhere.
//!
//! **Invariant:** closed, nobody but our own logins gets in.

use crate::error::PostgresError;
use crate::files;
use crate::options::{Access, Options};
use crate::quote::hba;
use std::fmt::Write as _;

/// The name of our map in `pg_ident.conf`.
const MAP: &str = "standfast";

/// The text of our `pg_hba.conf`.
pub(crate) fn hba_text(
    options: &Options,
    access: Access,
    streams_to_nobody: bool,
    copies_slots: bool,
) -> Result<String, PostgresError> {
    let superuser = hba(&options.superuser.user);
    let replication = hba(&options.replication.user);
    let rewind = hba(&options.rewind.user);
    let database = hba(&options.database);
    let mut text = String::from("# Written by Standfast at every change; edits are lost.\n");
    let mut add = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    add(format!("local all {superuser} peer map={MAP}"));
    add(format!("local replication {superuser} peer map={MAP}"));
    add(format!("local replication {replication} scram-sha-256"));
    let how = if streams_to_nobody {
        "reject"
    } else {
        "scram-sha-256"
    };
    add(format!("host replication {replication} all {how}"));
    if copies_slots {
        add(format!("host {database} {replication} all {how}"));
    }
    add(format!("local {database} {rewind} scram-sha-256"));
    add(format!("host {database} {rewind} all scram-sha-256"));
    match access {
        Access::Closed => {
            add("# Closed: only the logins above.".to_owned());
            add("local all all reject".to_owned());
            add("host all all all reject".to_owned());
            add("local replication all reject".to_owned());
            add("host replication all all reject".to_owned());
        }
        Access::Open => {
            add("# Open: the user's own lines.".to_owned());
            for line in user_lines(options)? {
                add(line);
            }
        }
    }
    Ok(text)
}

fn user_lines(options: &Options) -> Result<Vec<String>, PostgresError> {
    if !options.pg_hba.is_empty() {
        return Ok(options.pg_hba.clone());
    }
    let path = options
        .base_hba
        .clone()
        .unwrap_or_else(|| options.data_dir.join("pg_hba.conf"));
    let text = files::read_text(&path)?.unwrap_or_default();
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// The text of our `pg_ident.conf`: our operating-system user, and the superuser's namesake, are the superuser.
pub(crate) fn ident_text(options: &Options, os_user: &str) -> Result<String, PostgresError> {
    let superuser = &options.superuser.user;
    let mut text = String::from("# Written by Standfast at every change; edits are lost.\n");
    for name in [os_user, superuser.as_str()] {
        let _ = writeln!(text, "{MAP} \"{name}\" \"{superuser}\"");
        if os_user == superuser {
            break;
        }
    }
    let base = options.base_ident.clone();
    let base = base.unwrap_or_else(|| options.data_dir.join("pg_ident.conf"));
    let users_own = match options.pg_ident.is_empty() {
        true => files::read_text(&base)?.unwrap_or_default(),
        false => options.pg_ident.join("\n"),
    };
    for line in users_own.lines().map(str::trim) {
        let ours = line.split_whitespace().next() == Some(MAP);
        if !line.is_empty() && !line.starts_with('#') && !ours {
            let _ = writeln!(text, "{line}");
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use ha::NodeName;

    fn options() -> Options {
        let node = NodeName::new("a").unwrap();
        Options {
            pg_hba: vec!["host all all 10.0.0.0/8 scram-sha-256".to_owned()],
            ..Options::new(
                node,
                "/nowhere/data".into(),
                "/nowhere/state".into(),
                "/bin/true".into(),
            )
        }
    }

    #[test]
    fn closed_rejects_all_but_ours() {
        expect![[r#"
            # Written by Standfast at every change; edits are lost.
            local all "postgres" peer map=standfast
            local replication "postgres" peer map=standfast
            local replication "replicator" scram-sha-256
            host replication "replicator" all scram-sha-256
            local "postgres" "rewind" scram-sha-256
            host "postgres" "rewind" all scram-sha-256
            # Closed: only the logins above.
            local all all reject
            host all all all reject
            local replication all reject
            host replication all all reject
        "#]]
        .assert_eq(&hba_text(&options(), Access::Closed, false, false).unwrap());
    }

    #[test]
    fn open_keeps_the_users_lines_below_ours() {
        let text = hba_text(&options(), Access::Open, false, false).unwrap();
        assert!(
            text.ends_with("host all all 10.0.0.0/8 scram-sha-256\n"),
            "{text}"
        );
        assert!(!text.contains("reject"), "{text}");
    }

    #[test]
    fn the_map_names_both_users_once() {
        let both = ident_text(&options(), "me").unwrap();
        assert!(
            both.contains("standfast \"me\" \"postgres\"\nstandfast \"postgres\" \"postgres\"\n")
        );
        let one = ident_text(&options(), "postgres").unwrap();
        assert_eq!(one.matches("\"postgres\" \"postgres\"").count(), 1);
    }
}
