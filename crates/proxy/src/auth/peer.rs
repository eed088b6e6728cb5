//! Who is at the other end of a connection, as far as the connection itself tells.

use crate::net::Stream;
use crate::tls::common_name;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use tokio::process::Command;

/// What is known before anything is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// `None`: by a Unix socket.
    pub(crate) address: Option<IpAddr>,
    pub(crate) is_encrypted: bool,
    /// Of the certificate that it has shown and that was verified.
    pub(crate) common_name: Option<String>,
    /// The user of the process at the other end of a Unix socket.
    pub(crate) uid: Option<u32>,
}

impl Peer {
    pub(crate) fn of(stream: &Stream) -> Self {
        Self {
            address: stream.peer_address(),
            is_encrypted: stream.is_encrypted(),
            common_name: stream.certificate().and_then(common_name),
            uid: stream.peer_uid(),
        }
    }

    /// As PostgreSQL names it where nobody gets in.
    pub(crate) fn described(&self) -> String {
        let host = self.address.map(|address| address.to_string());
        let how = match self.is_encrypted {
            true => "SSL encryption",
            false => "no encryption",
        };
        let host = host.unwrap_or_else(|| "[local]".to_owned());
        format!("host \"{host}\", {how}")
    }
}

/// The names of this machine's users, as they were when they were first asked for.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    names: Mutex<HashMap<u32, String>>,
}

impl Accounts {
    /// By way of `getent`, which knows also those that no file of the machine lists.
    pub(super) async fn name(&self, uid: u32) -> Option<String> {
        let known = || self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known().get(&uid) {
            return Some(name.clone());
        }
        let mut asked = Command::new("getent");
        asked.arg("passwd").arg(uid.to_string()).kill_on_drop(true);
        let said = asked.output().await.ok()?;
        let line = String::from_utf8(said.stdout).ok()?;
        let name = line.split(':').next()?.to_owned();
        if name.is_empty() {
            return None;
        }
        known().insert(uid, name.clone());
        Some(name)
    }
}
