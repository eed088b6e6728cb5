//! The durable note: whose WAL this node has, or is about to have.
//!
//! **Invariant:** once [`Note::write`] has returned, the lineage survives a crash of the machine; it is written before
//! the first byte of a new branch can arrive.

use ha::{Branch, Lineage};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Why the note can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    #[error("durable note {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "lineage note {path} is damaged: {why}; remove it, and this node is compared with its leader anew"
    )]
    Damaged { path: PathBuf, why: String },
}

/// In the data directory.
const COPY: &str = "standfast.lineage";

/// The note, as it is on disk.
#[derive(Debug)]
pub(crate) struct Note {
    path: PathBuf,
    /// The data directory, in which a copy of the note lies: it goes along with every copy of the data.
    data_dir: PathBuf,
    current: Mutex<Option<Lineage>>,
}

impl Note {
    pub(crate) fn open(state_dir: &Path, data_dir: &Path) -> Result<Self, NoteError> {
        let path = state_dir.join("lineage.json");
        let current = match fs::read(&path) {
            Ok(bytes) => Some(Self::parse(&path, &bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(NoteError::Io { path, source }),
        };
        Ok(Self {
            path,
            data_dir: data_dir.to_owned(),
            current: Mutex::new(current),
        })
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Lineage, NoteError> {
        let damaged = |why: String| NoteError::Damaged {
            path: path.to_owned(),
            why,
        };
        let branches: Vec<Branch> =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        Lineage::from_branches(branches).ok_or_else(|| damaged("its branches do not rise".into()))
    }

    pub(crate) fn read(&self) -> Option<Lineage> {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Before data of another history may come in: from here on this node vouches for nothing, until it is told anew.
    pub(crate) fn forget(&self) -> Result<Option<Lineage>, NoteError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match remove(&self.path) {
            Ok(()) => Ok(current.take()),
            Err(source) => Err(NoteError::Io {
                path: self.path.clone(),
                source,
            }),
        }
    }

    pub(crate) fn write(&self, lineage: &Lineage) -> Result<(), NoteError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref() == Some(lineage) {
            return Ok(());
        }
        let text = serde_json::to_vec(lineage.branches()).unwrap_or_default();
        let put =
            |path: PathBuf| replace(&path, &text).map_err(|source| NoteError::Io { path, source });
        put(self.path.clone())?;
        if self.data_dir.join("PG_VERSION").is_file() {
            put(self.data_dir.join(COPY))?;
        }
        *current = Some(lineage.clone());
        Ok(())
    }
}

/// The note that came with the data in this directory: whose WAL its origin had, at least when the copy was begun.
pub(crate) fn copied(data_dir: &Path) -> Result<Option<Lineage>, NoteError> {
    let path = data_dir.join(COPY);
    match fs::read(&path) {
        Ok(bytes) => Note::parse(&path, &bytes).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(NoteError::Io { path, source }),
    }
}

/// A durable yes or no: the file is there or not.
#[derive(Clone, Debug)]
pub(crate) struct Marker {
    path: PathBuf,
}

impl Marker {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.path.exists()
    }

    pub(crate) fn set(&self) -> Result<(), NoteError> {
        replace(&self.path, b"").map_err(|source| self.failed(source))
    }

    pub(crate) fn clear(&self) -> Result<(), NoteError> {
        remove(&self.path).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> NoteError {
        NoteError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// Whether the directory was rewound and has not been seen whole since. On disk, and asked of memory.
#[derive(Clone, Debug)]
pub(crate) struct Rewound {
    marker: Marker,
    set: Arc<AtomicBool>,
    /// How many rewinds have begun; locked while the disk is told.
    begun: Arc<Mutex<u64>>,
}

impl Rewound {
    pub(crate) fn open(state_dir: &Path) -> Self {
        let marker = Marker::new(state_dir.join("rewound"));
        let set = Arc::new(AtomicBool::new(marker.is_set()));
        Self {
            marker,
            set,
            begun: Arc::default(),
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.set.load(Ordering::SeqCst)
    }

    /// Before pg_rewind begins.
    pub(crate) fn begin(&self) -> Result<(), NoteError> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        *begun += 1;
        self.set.store(true, Ordering::SeqCst);
        self.marker.set()
    }

    /// The directory is whole, or another one.
    pub(crate) fn end(&self) -> Result<(), NoteError> {
        let begun = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        self.end_of(begun)
    }

    /// Postgres was seen open. Nobody waits for the disk, and a rewind that begins meanwhile is another one.
    pub(crate) fn seen_whole(&self) {
        let begun = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let rewound = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = rewound.end_of(begun) {
                tracing::debug!(%error, "the marker of a rewind stays");
            }
        });
    }

    fn end_of(&self, rewind: u64) -> Result<(), NoteError> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if *begun == rewind {
            self.marker.clear()?;
            self.set.store(false, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// A file's content, replaced as a whole and durably.
pub(crate) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new();
    let file = file.write(true).create(true).truncate(true).mode(0o600);
    let mut file = file.open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_directory(path)
}

pub(crate) fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    sync_directory(path)
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(directory)?.sync_all()
}
