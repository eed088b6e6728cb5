//! What `create` means.

use super::{
    DEFAULT_PORT, made_absolute, monitor_address, node_name, one_group, owned, pgdata, trust,
};
use crate::cli::typed::{self, Auth};
use crate::create::{Access, MonitorRequest, PostgresRequest, StoreFiles};
use crate::exit::Failure;

pub(super) fn monitor(typed: typed::CreateMonitor) -> Result<MonitorRequest, Failure> {
    let member = typed.member;
    let mut without_effect = owned(member.tls.without_effect());
    if let Some(method) = member
        .auth
        .filter(|method| !matches!(method, Auth::Trust | Auth::Skip))
    {
        without_effect.push(format!("--auth {} of a monitor", method.word()));
    }
    Ok(MonitorRequest {
        pgdata: pgdata(&member.local)?,
        port: typed.pgport.unwrap_or(DEFAULT_PORT),
        host: member.hostname,
        name: node_name(typed.name.as_deref().unwrap_or("monitor"))?,
        secret_file: member
            .secret_file
            .map(|file| made_absolute(&file))
            .transpose()?,
        rest_tls: member.store.rest_tls,
        certificates: store_files(member.store)?,
        run: member.run,
        without_effect,
    })
}

/// The parser has seen to it that there are all three or none.
fn store_files(typed: typed::StoreFiles) -> Result<Option<StoreFiles>, Failure> {
    let (Some(certificate), Some(key), Some(authority)) = (
        typed.store_cert_file,
        typed.store_key_file,
        typed.store_ca_file,
    ) else {
        return Ok(None);
    };
    Ok(Some(StoreFiles {
        certificate: made_absolute(&certificate)?,
        key: made_absolute(&key)?,
        authority: made_absolute(&authority)?,
    }))
}

pub(super) fn postgres(typed: typed::CreatePostgres) -> Result<PostgresRequest, Failure> {
    one_group(typed.group)?;
    let member = typed.member;
    let mut without_effect = owned(member.tls.without_effect());
    without_effect.extend(typed.region.map(|_| "--region".to_owned()));
    without_effect.extend(typed.pghost.map(|_| "--pghost".to_owned()));
    let Some(monitor) = typed.monitor else {
        return Err(Failure::usage(
            "--monitor is missing: the address of any member of the cluster",
        )
        .hint("standfast create monitor makes the first one"));
    };
    let monitor = monitor_address(&monitor)?;
    let trust = trust(typed.trust)?;
    let superuser = typed
        .username
        .or_else(user_name)
        .unwrap_or_else(|| "postgres".to_owned());
    if superuser.is_empty() || superuser.len() > 63 || superuser.contains(['"', '\n', '\r', '\0']) {
        return Err(Failure::usage(format!(
            "--username: {superuser:?} is no role's name"
        )));
    }
    let database = typed.dbname.unwrap_or_else(|| "postgres".to_owned());
    if database.is_empty() || database.len() > 63 || database.contains(['\n', '\r', '\0']) {
        return Err(Failure::usage(format!(
            "--dbname: {database:?} is no database's name"
        )));
    }
    if let Some(rate) = &typed.maximum_backup_rate {
        check_rate(rate)?;
    }
    Ok(PostgresRequest {
        pgdata: pgdata(&member.local)?,
        port: typed.pgport.unwrap_or(DEFAULT_PORT),
        host: member.hostname,
        listen: typed.listen,
        name: typed.name.as_deref().map(node_name).transpose()?,
        pgctl: typed.pgctl,
        monitor: monitor.endpoints,
        https: monitor.https,
        trust,
        scope: typed.formation,
        superuser,
        database,
        access: Access {
            method: member
                .auth
                .filter(|auth| *auth != Auth::Skip)
                .map(Auth::word),
            skip: typed.skip_pg_hba || member.auth == Some(Auth::Skip),
            lan: typed.pg_hba_lan,
        },
        priority: typed.candidate_priority,
        quorum: typed.replication_quorum,
        backup_rate: typed.maximum_backup_rate,
        secret_file: member
            .secret_file
            .map(|file| made_absolute(&file))
            .transpose()?,
        rest_tls: member.store.rest_tls,
        certificates: store_files(member.store)?,
        run: member.run,
        without_effect,
    })
}

/// As pg_basebackup takes it: kilobytes a second, or with k or M.
fn check_rate(rate: &str) -> Result<(), Failure> {
    let digits = rate.trim_end_matches(['k', 'M']);
    if !digits.is_empty()
        && rate.len() - digits.len() <= 1
        && digits.bytes().all(|b| b.is_ascii_digit())
    {
        Ok(())
    } else {
        Err(Failure::usage(format!(
            "--maximum-backup-rate: {rate:?} is no rate such as 100M"
        )))
    }
}

impl Auth {
    /// As `pg_hba.conf` says it.
    fn word(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Md5 => "md5",
            Self::Scram => "scram-sha-256",
            Self::Cert => "cert",
            Self::Skip => "skip",
        }
    }
}

/// The superuser of a new instance is named for who creates it, as initdb does.
fn user_name() -> Option<String> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let output = std::process::Command::new("id").arg("-un").output().ok()?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !name.is_empty() && name != uid).then_some(name)
}
