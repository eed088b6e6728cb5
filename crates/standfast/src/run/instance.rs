//! The local instance, from the configuration.

use crate::config::{Config, Login, Postgresql};
use crate::exit::Failure;
use crate::secret::ClusterSecret;
use anyhow::{Context as _, Result};
use postgres::Instance;

pub(crate) fn open(
    config: &Config,
    postgresql: &Postgresql,
    secret: &ClusterSecret,
) -> Result<Instance> {
    let guard_exe = std::env::current_exe().context("can't find my own program file")?;
    let login = |login: &Login| {
        postgres::Login::new(login.username.clone(), login.password(secret).expose())
    };
    let mut options = postgres::Options::new(
        config.name.clone(),
        postgresql.data_dir.clone(),
        config.state_dir.join("postgres"),
        guard_exe,
    );
    options.guard_args = vec!["guard".into()];
    options.bin_dir.clone_from(&postgresql.bin_dir);
    options.listen.clone_from(&postgresql.listen);
    options.port = postgresql.port;
    options.superuser = login(&postgresql.superuser);
    options.replication = login(&postgresql.replication);
    options.rewind = login(&postgresql.rewind);
    options.conninfo.clone_from(&postgresql.replication.libpq);
    options.rewind_conninfo.clone_from(&postgresql.rewind.libpq);
    options.pgpass.clone_from(&postgresql.pgpass);
    options.stops_within = postgresql.stops_within;
    options.parameters.clone_from(&postgresql.parameters);
    options.pg_hba.clone_from(&postgresql.pg_hba);
    options.pg_ident.clone_from(&postgresql.pg_ident);
    if let Some(dir) = &postgresql.config_dir {
        // Without it Postgres would run with settings and rules of access that nobody meant.
        std::fs::read_dir(dir)
            .with_context(|| format!("postgresql.config_dir: {} can't be read", dir.display()))?;
        // What is not there is where it is without the key.
        let there = |name: &str| Some(dir.join(name)).filter(|path| path.is_file());
        options.base_config = there("postgresql.conf");
        options.base_hba = there("pg_hba.conf");
        options.base_ident = there("pg_ident.conf");
    }
    if postgresql.custom_conf.is_some() {
        options.base_config.clone_from(&postgresql.custom_conf);
    }
    options.cgroup.clone_from(&config.guard.cgroup);
    options.watchdog = config.watchdog.as_ref().map(|it| guard::Watchdog {
        device: it.device.clone(),
        plain: it.is_pipe,
    });
    options.initdb_args.clone_from(&config.bootstrap.initdb);
    options.restore.clone_from(&config.bootstrap.restore);
    options.copies.clone_from(&postgresql.copies);
    options.basebackup_args.clone_from(&postgresql.basebackup);
    let instance = Instance::open(options).context("the local PostgreSQL instance")?;
    instance.hold().map_err(|held| {
        let failure = Failure::error(held.to_string());
        failure.hint("stop that one first, or name another postgresql.data_dir")
    })?;
    Ok(instance)
}
