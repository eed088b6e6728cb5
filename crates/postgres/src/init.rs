//! Making a new cluster, and the roles in it.
//!
//! **Invariant:** no password is in an argument, an environment or a statement.

use crate::datadir::{DataDir, Marker, Work};
use crate::error::PostgresError;
use crate::files;
use crate::instance::Instance;
use crate::program::Program;
use crate::quote::{identifier, literal};
use crate::scram;
use crate::secret::{Login, Secret};
use crate::sql::Link;
use ha::SystemId;
use std::time::Duration;

impl Instance {
    /// Runs initdb. The directory must be absent or empty, or hold what an initdb or clone of ours left behind.
    pub async fn init(&self) -> Result<SystemId, PostgresError> {
        let options = self.options();
        let paths = &self.inner.paths;
        self.make_room_for_new()?;
        let passfile = paths.state_dir.join("init.passfile");
        let password = match options.superuser.password.expose() {
            "" => Secret::new(format!("{:032x}", rand::random::<u128>())),
            given => Secret::new(given),
        };
        files::write_atomic(&passfile, format!("{}\n", password.expose()).as_bytes())?;
        let made = self.initdb(&passfile).await;
        files::remove_durably(&passfile)?;
        made?;
        // The directory's own entry in its parent.
        files::sync_parent(&options.data_dir)?;
        files::remove_durably(&paths.unfinished)?;
        let DataDir::Ready(control) = self.data_dir()? else {
            let answer = "no usable cluster".to_owned();
            return Err(PostgresError::Answer {
                doing: "initdb",
                answer,
            });
        };
        files::write_atomic(&paths.fresh, control.system_id.to_string().as_bytes())?;
        let settings = self.inner.settings.lock().await;
        self.write_config(&settings)?;
        Ok(control.system_id)
    }

    async fn initdb(&self, passfile: &std::path::Path) -> Result<(), PostgresError> {
        let options = self.options();
        let given = |flag: &str| options.initdb_args.iter().any(|arg| arg.starts_with(flag));
        let mut initdb = Program::new("initdb", self.inner.binaries.program("initdb"))
            .arg("-D")
            .arg(&options.data_dir)
            .arg(format!("--username={}", options.superuser.user))
            .arg("--auth-local=peer")
            .arg("--auth-host=scram-sha-256")
            .arg("--pwfile")
            .arg(passfile);
        if !given("--data-checksums") && !given("-k") && !given("--no-data-checksums") {
            initdb = initdb.arg("--data-checksums");
        }
        if !given("--encoding") && !given("-E") {
            initdb = initdb.arg("--encoding=UTF8");
        }
        if !given("--locale") && !given("--no-locale") {
            initdb = initdb.arg(format!("--locale={}", locale()));
        }
        if !given("--lc-messages") {
            // We read the server's log.
            initdb = initdb.arg("--lc-messages=C");
        }
        initdb.args(&options.initdb_args).succeed().await.map(drop)
    }

    /// The marker, before anything is written.
    pub(crate) fn begin(&self, work: Work) -> Result<(), PostgresError> {
        let data_dir = self.options().data_dir.clone();
        Marker {
            work,
            data_dir,
            program: None,
        }
        .write(&self.inner.paths.unfinished)
    }

    /// Ends the program of an agent before us that may still be at it.
    pub(crate) fn end_earlier_work(&self) -> Result<(), PostgresError> {
        let data_dir = self.options().data_dir.clone();
        let marker = Marker::read(&self.inner.paths.unfinished, &data_dir)?;
        if let Some(program) = marker.and_then(|marker| marker.program)
            && program.kill()
        {
            tracing::warn!(
                pid = program.pid,
                "ended what an earlier agent had left running"
            );
        }
        Ok(())
    }

    /// Creates the logins for replication and pg_rewind, or gives them their passwords and rights again. For a primary
    /// that takes writes; does not wait for standbys.
    pub async fn ensure_roles(&self, limit: Duration) -> Result<(), PostgresError> {
        let options = self.options();
        let link = self.connect(limit).await?;
        if !options.superuser.password.expose().is_empty() {
            ensure_login(&link, &options.superuser, "SUPERUSER", limit).await?;
        }
        if options.replication.user != options.superuser.user {
            ensure_login(&link, &options.replication, "REPLICATION", limit).await?;
        }
        if options.rewind.user != options.superuser.user {
            let attributes = if options.rewind.user == options.replication.user {
                "REPLICATION"
            } else {
                ""
            };
            ensure_login(&link, &options.rewind, attributes, limit).await?;
            grant_rewind(
                &link,
                &options.rewind.user,
                self.inner.binaries.major,
                limit,
            )
            .await?;
        }
        Ok(())
    }
}

async fn ensure_login(
    link: &Link,
    login: &Login,
    attributes: &str,
    limit: Duration,
) -> Result<(), PostgresError> {
    let doing = "create a login";
    let sql = "SELECT coalesce(rolpassword, '') FROM pg_authid WHERE rolname = $1";
    let rows = link.rows(doing, sql, &[&login.user], limit).await?;
    let stored: Option<String> = rows
        .first()
        .map(|row| row.try_get(0))
        .transpose()
        .map_err(|e| PostgresError::sql(doing, e))?;
    let role = identifier(&login.user);
    let verb = match &stored {
        Some(stored) if scram::matches(stored, &login.password) => {
            return link
                .batch(
                    doing,
                    &format!("ALTER ROLE {role} LOGIN {attributes}"),
                    limit,
                )
                .await;
        }
        Some(_) => "ALTER",
        None => "CREATE",
    };
    let verifier = literal(&scram::verifier(&login.password)?);
    let sql = format!("{verb} ROLE {role} LOGIN {attributes} PASSWORD {verifier}");
    link.batch(doing, &sql, limit).await
}

/// What pg_rewind reads with, what the upstream's state is asked with, and CHECKPOINT where it can be granted.
async fn grant_rewind(
    link: &Link,
    user: &str,
    major: u32,
    limit: Duration,
) -> Result<(), PostgresError> {
    let role = identifier(user);
    let functions = [
        "pg_ls_dir(text, boolean, boolean)",
        "pg_stat_file(text, boolean)",
        "pg_read_binary_file(text)",
        "pg_read_binary_file(text, bigint, bigint, boolean)",
    ];
    let mut sql = format!(
        "GRANT EXECUTE ON FUNCTION {} TO {role}; GRANT pg_monitor TO {role};",
        functions.join(", ")
    );
    if major >= 15 {
        sql.push_str(&format!("GRANT pg_checkpoint TO {role};"));
    }
    link.batch("grant what pg_rewind needs", &sql, limit).await
}

/// The environment's locale if it is one of UTF-8, else one that is everywhere.
fn locale() -> String {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
        .filter(|value| {
            let value = value.to_ascii_lowercase();
            value.ends_with(".utf-8") || value.ends_with(".utf8")
        })
        .unwrap_or_else(|| "C.UTF-8".to_owned())
}
