//! What the code under test logs.

use super::eventually;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// What this thread logs from now on.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Everything runs on the test's own thread, so that nobody else's lines are in it.
    pub(crate) fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        let bytes = self.0.lock().expect("whole").clone();
        String::from_utf8(bytes).expect("text")
    }

    pub(crate) async fn says(&self, level: &str, what: &str) {
        eventually(&format!("{level} {what}: {}", self.text()), || async {
            let text = self.text();
            text.lines()
                .any(|line| line.contains(level) && line.contains(what))
        })
        .await;
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
