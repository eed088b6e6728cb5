//! What can go wrong between an agent and its guard.

use rustix::io::Errno;
use std::io;
use std::path::PathBuf;

/// Why a guard could not be started, reached or trusted.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("data directory {path:?} can't be resolved")]
    DataDir { path: PathBuf, source: io::Error },
    #[error("{processes} processes of an instance in {data_dir:?} are alive already")]
    InstanceAlive { data_dir: PathBuf, processes: usize },
    #[error("a guard for {state_dir:?} runs already")]
    AlreadyGuarded { state_dir: PathBuf },
    #[error("log file {path:?} can't be opened")]
    LogFile { path: PathBuf, source: io::Error },
    #[error("shared mapping can't be made")]
    Mapping(#[source] io::Error),
    #[error("guard {exe:?} can't be started")]
    Exec { exe: PathBuf, source: io::Error },
    #[error("guard gave up: {0}")]
    Refused(String),
    #[error("guard said nothing in {0:?} and was killed")]
    Silent(std::time::Duration),
    #[error("state file {path:?} can't be read")]
    StateFile { path: PathBuf, source: io::Error },
    #[error("running guard {pid} can't be reached")]
    Unreachable { pid: i32, source: io::Error },
    #[error(
        "running guard {pid} speaks version {found} of the mapping, this program speaks {ours}"
    )]
    Version { pid: i32, found: u32, ours: u32 },
    #[error("processes can't be listed")]
    Proc(#[source] io::Error),
    #[error("{left} processes of the instance are still alive after {waited:?}")]
    StillAlive {
        left: usize,
        waited: std::time::Duration,
    },
}

impl GuardError {
    pub(crate) fn mapping(errno: Errno) -> Self {
        Self::Mapping(errno.into())
    }
}
