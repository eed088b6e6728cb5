//! The data directory as it was last read: when nothing runs in it, again at each look; while something does, it stays
//! what it was.
//!
//! **Invariant:** a disk that hangs does not hang the observer: until it answers, the directory is what it was last.
//! **Invariant:** what was read of a stopped instance is told only as long as nothing was started since.

use crate::observe::Streams;
use ha::{DataDir, Lsn};
use postgres::{Control, ControlState, Instance, Liveness, PostgresError};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// A data directory that is not read after this is on a disk that hangs.
const READ: Duration = Duration::from_secs(1);
/// Of a primary that was stopped in order only the last record is read.
const READ_END: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Directory {
    instance: Instance,
    streams: Arc<Streams>,
    /// Something runs in it since it was read.
    known: Option<DataDir>,
    last: DataDir,
    clean_stop: bool,
    may_not_found: Option<String>,
    on_disk: Option<Stopped>,
    reading: Option<JoinHandle<Result<Read, PostgresError>>>,
}

/// A primary that was stopped in order, and where its WAL ends.
#[derive(Clone, Debug)]
struct Stopped {
    control: Control,
    end: Lsn,
    /// How often something was started here before.
    starts: u64,
}

/// What a look into it found.
#[derive(Debug)]
struct Read {
    found: postgres::DataDir,
    may_not_found: Option<String>,
    on_disk: Option<Stopped>,
}

impl Directory {
    pub(crate) fn new(instance: Instance, streams: Arc<Streams>) -> Self {
        Self {
            instance,
            streams,
            known: None,
            last: DataDir::Empty,
            clean_stop: false,
            may_not_found: None,
            on_disk: None,
            reading: None,
        }
    }

    /// What runs in it has ended.
    pub(crate) fn forget(&mut self) {
        self.known = None;
        self.clean_stop = false;
    }

    /// What the control file said of the last stop.
    pub(crate) fn clean_stop(&self) -> bool {
        self.clean_stop
    }

    /// Where the WAL ends after it.
    pub(crate) fn on_disk(&self) -> Option<Lsn> {
        let starts = self.streams.starts();
        let stopped = self.on_disk.as_ref();
        let stopped = stopped.filter(|it| self.clean_stop && it.starts == starts);
        stopped.map(|it| it.end)
    }

    pub(crate) fn may_not_found(&self) -> Option<String> {
        self.may_not_found.clone()
    }

    pub(crate) async fn look(&mut self) -> DataDir {
        if let Some(data) = &self.known {
            // Begun before something was started.
            self.reading = None;
            return data.clone();
        }
        let (instance, starts) = (self.instance.clone(), self.streams.starts());
        let before = self.on_disk.clone();
        let reading = self
            .reading
            .get_or_insert_with(|| tokio::spawn(read(instance, starts, before)));
        let Ok(read) = tokio::time::timeout(READ, reading).await else {
            return self.last.clone();
        };
        self.reading = None;
        self.clean_stop = false;
        let found = match read {
            Ok(Ok(read)) => {
                self.clean_stop = was_stopped_in_order(&read.found).is_some();
                self.may_not_found = read.may_not_found;
                self.on_disk = read.on_disk;
                typed(read.found)
            }
            Ok(Err(error)) => DataDir::Unusable(error.to_string()),
            Err(_) => DataDir::Unusable("it could not be read".to_owned()),
        };
        if matches!(found, DataDir::Ready(_)) && self.instance.liveness() != Liveness::Down {
            self.known = Some(found.clone());
        }
        self.last = found.clone();
        found
    }
}

fn was_stopped_in_order(found: &postgres::DataDir) -> Option<&Control> {
    match found {
        postgres::DataDir::Ready(control) => {
            Some(control).filter(|it| it.state == ControlState::ShutDown)
        }
        _ => None,
    }
}

async fn read(
    instance: Instance,
    starts: u64,
    before: Option<Stopped>,
) -> Result<Read, PostgresError> {
    let there = instance.clone();
    let read = tokio::task::spawn_blocking(move || {
        let found = there.data_dir()?;
        let may_not_found = match &found {
            postgres::DataDir::Ready(control) => there.may_found(control).err(),
            _ => None,
        };
        Ok::<_, PostgresError>((found, may_not_found, there.was_patronis()))
    });
    let cut_off = |e| PostgresError::Refused(format!("it could not be read: {e}"));
    let (found, may_not_found, was_patronis) = read.await.map_err(cut_off)??;
    let on_disk = match was_stopped_in_order(&found) {
        Some(control) if !was_patronis => {
            let same = before.filter(|it| it.control == *control && it.starts == starts);
            match same {
                Some(same) => Some(same),
                None => instance.end_on_disk(READ_END).await.map(|end| Stopped {
                    control: control.clone(),
                    end: end.lsn,
                    starts,
                }),
            }
        }
        Some(_) | None => None,
    };
    Ok(Read {
        found,
        may_not_found,
        on_disk,
    })
}

fn typed(found: postgres::DataDir) -> DataDir {
    match found {
        postgres::DataDir::Absent | postgres::DataDir::Empty => DataDir::Empty,
        postgres::DataDir::Ready(control) => DataDir::Ready(control.system_id),
        postgres::DataDir::Unfinished(_) => DataDir::Unfinished,
        postgres::DataDir::Unusable { why } => DataDir::Unusable(why),
    }
}
