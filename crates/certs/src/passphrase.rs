//! A private key behind a passphrase, opened by the program `openssl`.
//!
//! OpenSSL knows every form that such keys were ever written in; to read them here would take twenty crates of ciphers.
//!
//! **Invariant:** the passphrase goes through a pipe, and the opened key comes through one: neither is an argument, in
//! an environment or in a file.

use crate::TlsError;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any derivation of a key from a passphrase takes.
const LIMIT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// What opens a private key. Has no printable form.
#[derive(Clone, PartialEq, Eq)]
pub struct Passphrase(String);

impl Passphrase {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// Whether a text in PEM holds a key behind a passphrase.
pub(super) fn is_locked(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// The key in PEM. Blocks.
pub(super) fn open(path: &Path, passphrase: &Passphrase) -> Result<Vec<u8>, TlsError> {
    let failed = |why: String| TlsError::Locked {
        path: path.to_owned(),
        why,
    };
    let mut child = Command::new("openssl")
        .args(["pkey", "-passin", "stdin", "-in"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(format!("the program openssl can't be run: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended reads no more, and its status says why.
        let _ended = stdin.write_all(format!("{}\n", passphrase.0).as_bytes());
    }
    let began = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() < LIMIT => std::thread::sleep(LOOK),
            Ok(None) => {
                let _ended = child.kill();
                let _ended = child.wait();
                return Err(failed("openssl takes too long".to_owned()));
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    };
    if !status.success() {
        return Err(failed("the passphrase is not its own".to_owned()));
    }
    // A key is smaller than a pipe's buffer: it has been written as a whole.
    let mut opened = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        let read = stdout.read_to_end(&mut opened);
        read.map_err(|error| failed(error.to_string()))?;
    }
    Ok(opened)
}
