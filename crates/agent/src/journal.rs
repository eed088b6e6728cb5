//! What was decided on what, so that a decision can be made again: `standfast debug replay`.
//!
//! One JSON document a line. Only decisions that differ from the one before are kept; two files of bounded size.

use ha::{ClusterView, Decision, Instant, NodeView};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

const BYTES_MAX: u64 = 4 << 20;

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    /// RFC 3339.
    pub time: String,
    pub now: Instant,
    pub view: ClusterView,
    pub me: NodeView,
    /// The decision as it was written then.
    pub decision: serde_json::Value,
}

impl Line {
    /// Decides again; the difference, if there is one.
    pub fn replay(&self) -> Result<Decision, (serde_json::Value, Decision)> {
        let again = ha::decide(&self.view, &self.me, self.now);
        match serde_json::to_value(&again) {
            Ok(value) if value == self.decision => Ok(again),
            Ok(_) | Err(_) => Err((self.decision.clone(), again)),
        }
    }
}

/// Appends to `journal.jsonl`, moving it to `journal.1.jsonl` when it is full.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    last: String,
}

impl Journal {
    pub(crate) fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("journal.jsonl");
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .ok();
        let bytes = file
            .as_ref()
            .and_then(|file| file.metadata().ok())
            .map_or(0, |meta| meta.len());
        Self {
            path,
            file,
            bytes,
            last: String::new(),
        }
    }

    /// Keeps the pair if the decision is new. A full disk must not stop the agent: a line is then lost.
    pub(crate) fn note(
        &mut self,
        now: Instant,
        view: &ClusterView,
        me: &NodeView,
        decision: &Decision,
    ) {
        let head = format!(
            "{}|{:?}|{:?}",
            decision.rule, decision.actions, decision.state
        );
        if head == self.last {
            return;
        }
        self.last = head;
        let line = Line {
            time: jiff::Timestamp::now().to_string(),
            now,
            view: view.clone(),
            me: me.clone(),
            decision: serde_json::to_value(decision).unwrap_or_default(),
        };
        let Ok(mut text) = serde_json::to_vec(&line) else {
            return;
        };
        text.push(b'\n');
        if self.bytes + text.len() as u64 > BYTES_MAX {
            self.rotate();
        }
        if let Some(file) = &mut self.file
            && file.write_all(&text).is_ok()
        {
            self.bytes += text.len() as u64;
        }
    }

    fn rotate(&mut self) {
        let _ = std::fs::rename(&self.path, self.path.with_extension("1.jsonl"));
        self.file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .ok();
        self.bytes = 0;
    }
}
