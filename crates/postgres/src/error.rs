//! What can go wrong with the instance, named for what failed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error("{what} {why}")]
    Option {
        what: &'static str,
        why: &'static str,
    },
    #[error("no PostgreSQL programs (postgres, pg_controldata, initdb) in {looked_in}")]
    NoPrograms { looked_in: String },
    #[error("PostgreSQL {found} in {} is not supported: 13 to 18 are", bin_dir.display())]
    UnsupportedVersion { found: String, bin_dir: PathBuf },
    #[error(
        "{} was made by PostgreSQL {data_major}, the programs in {} are of PostgreSQL {program_major}",
        data_dir.display(), bin_dir.display()
    )]
    WrongMajor {
        data_dir: PathBuf,
        data_major: u32,
        bin_dir: PathBuf,
        program_major: u32,
    },
    #[error("data directory {} can't be used: {why}", data_dir.display())]
    Unusable { data_dir: PathBuf, why: String },
    #[error("another agent looks after the data directory {}{by}, with another state directory", data_dir.display())]
    Held { data_dir: PathBuf, by: String },
    #[error("the instance runs already (postmaster {pid})")]
    Running { pid: i32 },
    /// It leads, and is being started: what is wanted of it is asked for again.
    #[error("the source of a rewind must be a primary, and is in recovery")]
    SourceInRecovery,
    #[error("the instance doesn't run")]
    NotRunning,
    #[error("{left} processes of an earlier postmaster are still alive")]
    Leftovers { left: usize },
    #[error("disk full: {detail}")]
    DiskFull { detail: String },
    #[error("storage can't be written to: {detail}")]
    ReadOnly { detail: String },
    #[error("storage did not answer within {after:?}: {detail}")]
    Hung { detail: String, after: Duration },
    #[error("postgres is starting or stopping and takes no connections")]
    NotAccepting,
    #[error("no connection slot is free")]
    TooManyConnections,
    #[error("port {port} is taken by another program")]
    PortTaken { port: u16 },
    #[error("postgres has ended by itself: {log}")]
    Ended { log: String },
    #[error("{doing} not done within {after:?}")]
    Timeout {
        doing: &'static str,
        after: Duration,
    },
    #[error("{program} failed ({status}): {output}")]
    Program {
        program: &'static str,
        status: String,
        output: String,
    },
    #[error("can't run {}", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("can't {doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("can't connect to {to}")]
    Connect {
        to: String,
        source: tokio_postgres::Error,
    },
    #[error("no TLS to {to}")]
    Tls {
        to: String,
        source: certs::TrustError,
    },
    #[error("{doing}")]
    Sql {
        doing: &'static str,
        source: tokio_postgres::Error,
    },
    #[error("{doing}: unexpected answer {answer:?}")]
    Answer { doing: &'static str, answer: String },
    #[error("{what} belongs to system {found}, not to {expected}")]
    WrongSystem {
        what: String,
        found: u64,
        expected: u64,
    },
    #[error("refused: {0}")]
    Refused(String),
    #[error("guard")]
    Guard(#[from] guard::GuardError),
}

impl PostgresError {
    /// Whether the same call may succeed later without anything being done about it.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Timeout { .. }
                | Self::Connect { .. }
                | Self::NotAccepting
                | Self::TooManyConnections
                | Self::Leftovers { .. }
        )
    }

    /// Whether it is in PostgreSQL's own words, or ours; a user's program may have printed anything.
    pub fn is_of_postgres(&self) -> bool {
        const PROGRAMS: [&str; 6] = [
            "initdb",
            "pg_basebackup",
            "pg_controldata",
            "pg_rewind",
            "pg_waldump",
            "postgres",
        ];
        !matches!(self, Self::Program { program, .. } if !PROGRAMS.contains(program))
    }

    /// Whether the storage is at fault: another start would end the same way.
    pub fn is_storage(&self) -> bool {
        matches!(
            self,
            Self::DiskFull { .. } | Self::ReadOnly { .. } | Self::Hung { .. }
        )
    }

    /// An error of the file system, with full and read-only disks told apart from the rest.
    pub(crate) fn file(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let detail = || format!("can't {doing} {}: {source}", path.display());
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { detail: detail() }
            }
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { detail: detail() },
            // EIO has no kind of its own.
            _ if source.raw_os_error() == Some(5) => Self::ReadOnly { detail: detail() },
            _ => Self::File {
                doing,
                path: path.to_owned(),
                source,
            },
        }
    }

    /// An error of a query, with what a health check must tell apart recognised by SQLSTATE.
    pub(crate) fn sql(doing: &'static str, source: tokio_postgres::Error) -> Self {
        use tokio_postgres::error::SqlState;
        match source.code() {
            Some(&SqlState::DISK_FULL) => Self::DiskFull {
                detail: source.as_db_error().map_or_else(String::new, text),
            },
            Some(&SqlState::IO_ERROR) => Self::ReadOnly {
                detail: source.as_db_error().map_or_else(String::new, text),
            },
            Some(&SqlState::TOO_MANY_CONNECTIONS) => Self::TooManyConnections,
            _ => Self::Sql { doing, source },
        }
    }
}

fn text(error: &tokio_postgres::error::DbError) -> String {
    error.message().to_owned()
}
