//! The log in a file, `patroni.log` in `log.dir`, which makes room for itself.
//!
//! **Invariant:** who logs never waits for the file: a thread of its own writes it, and lines that it can't keep up
//! with are counted and said.

use crate::config::LogFile;
use api::Backlog;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// As Patroni calls it.
const NAME: &str = "patroni.log";
/// At the end, what still waits may take so long to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// The end; an answer says that everything before it was written.
    End(SyncSender<()>),
}

/// Where lines go in.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    send: SyncSender<Message>,
    /// Not said in the file yet.
    lost: Arc<AtomicU64>,
    backlog: Backlog,
}

/// Dropped, it waits a moment for the lines that are not written yet.
#[derive(Debug)]
pub(crate) struct Ending(Lines);

/// Opens the file and begins to write.
pub(super) fn start(to: &LogFile) -> io::Result<(Lines, Ending)> {
    let book = Book::open(to)?;
    let (send, receive) = sync_channel(to.lines_waiting);
    let lost = Arc::new(AtomicU64::new(0));
    let backlog = Backlog::default();
    let lines = Lines {
        send,
        lost: Arc::clone(&lost),
        backlog: backlog.clone(),
    };
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || book.keep(&receive, &lost, &backlog))?;
    Ok((lines.clone(), Ending(lines)))
}

impl Ending {
    /// What waits in the queue, and what it has lost.
    pub(crate) fn backlog(&self) -> Backlog {
        self.0.backlog.clone()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let (send, receive) = sync_channel(1);
        // A queue that is full is not waited for: its file hangs.
        if self.0.send.try_send(Message::End(send)).is_ok() {
            match receive.recv_timeout(LAST_LINES) {
                Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.backlog.comes();
        match self.send.try_send(Message::Line(line.to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.backlog.goes();
                self.backlog.loses();
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The file, and those that it was before.
struct Book {
    path: PathBuf,
    file: File,
    size: u64,
    to: LogFile,
}

impl Book {
    fn open(to: &LogFile) -> io::Result<Self> {
        fs::create_dir_all(&to.dir)?;
        let path = to.dir.join(NAME);
        let file = open(&path, to.mode)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            size,
            to: to.clone(),
        })
    }

    fn keep(mut self, receive: &Receiver<Message>, lost: &AtomicU64, backlog: &Backlog) {
        while let Ok(message) = receive.recv() {
            match message {
                Message::Line(line) => {
                    let missing = lost.swap(0, Ordering::Relaxed);
                    if missing > 0 {
                        let said = format!("{missing} lines of the log were lost\n");
                        if self.write(said.as_bytes()).is_err() {
                            lost.fetch_add(missing, Ordering::Relaxed);
                        }
                    }
                    backlog.goes();
                    if self.write(&line).is_err() {
                        backlog.loses();
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Message::End(answer) => {
                    // Who asked may have stopped waiting.
                    let _ = answer.send(());
                }
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let more = u64::try_from(line.len()).unwrap_or(u64::MAX);
        let full = self.size.saturating_add(more) > self.to.size_bytes;
        if full && self.size > 0 && self.to.size_bytes > 0 && self.to.kept > 0 {
            self.turn_over()?;
        }
        self.file.write_all(line)?;
        self.size += more;
        Ok(())
    }

    /// `patroni.log` becomes `patroni.log.1`, that one `.2`; the oldest goes.
    fn turn_over(&mut self) -> io::Result<()> {
        let older = |number: u64| self.to.dir.join(format!("{NAME}.{number}"));
        for number in (1..self.to.kept).rev() {
            match fs::rename(older(number), older(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&self.path, older(1))?;
        self.file = open(&self.path, self.to.mode)?;
        self.size = 0;
        Ok(())
    }
}

fn open(path: &Path, mode: Option<u32>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    if let Some(mode) = mode {
        options.mode(mode);
    }
    let file = options.open(path)?;
    if let Some(mode) = mode {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patroni: Configuration | `log`: `dir`, `file_num`, `file_size`, `mode`, `max_queue_size`; `format`,
    ///   `dateformat`; `loggers`
    #[test]
    fn a_file_that_is_full_makes_room_for_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let to = LogFile {
            dir: dir.path().join("log"),
            size_bytes: 20,
            kept: 2,
            mode: Some(0o640),
            lines_waiting: 100,
        };
        let (mut lines, ending) = start(&to).unwrap();
        for n in 0..7 {
            lines
                .write_all(format!("line {n}...\n").as_bytes())
                .unwrap();
        }
        drop(ending);
        let read = |name: &str| fs::read_to_string(to.dir.join(name)).unwrap();
        assert_eq!(read("patroni.log"), "line 6...\n");
        assert_eq!(read("patroni.log.1"), "line 4...\nline 5...\n");
        assert_eq!(read("patroni.log.2"), "line 2...\nline 3...\n");
        assert!(!to.dir.join("patroni.log.3").exists());
        let mode = fs::metadata(to.dir.join("patroni.log")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn who_logs_does_not_wait_and_what_was_lost_is_counted() {
        let (send, receive) = sync_channel(1);
        let mut lines = Lines {
            send,
            lost: Arc::default(),
            backlog: Backlog::default(),
        };
        for _ in 0..4 {
            lines.write_all(b"line\n").unwrap();
        }
        let lost = Arc::clone(&lines.lost);
        assert_eq!(lost.load(Ordering::Relaxed), 3);
        let backlog = lines.backlog.clone();
        assert_eq!((backlog.waiting(), backlog.lost()), (1, 3));
        drop(lines);
        let dir = tempfile::tempdir().unwrap();
        let to = LogFile {
            dir: dir.path().to_owned(),
            size_bytes: 0,
            kept: 4,
            mode: None,
            lines_waiting: 1,
        };
        Book::open(&to).unwrap().keep(&receive, &lost, &backlog);
        let text = fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert_eq!(text, "3 lines of the log were lost\nline\n");
        assert_eq!((backlog.waiting(), backlog.lost()), (0, 3));
    }
}
