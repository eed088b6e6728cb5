//! What end-to-end tests run that comes from PyPI and npm, as scripts find or fetch it: Patroni's own programs, a
//! Python with drivers, and modules for Node.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Command, Stdio};

/// Has all of it ready. If that fails, the tests that need them say so; only root can run those.
pub(crate) fn have() {
    if !crate::reach::is_root() {
        return;
    }
    for script in ["patroni.sh", "python.sh", "node.sh"] {
        if let Err(error) = fetch(script) {
            crate::tests::say(&format!("{error:#}"));
        }
    }
}

fn fetch(script: &str) -> Result<()> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
    let status = Command::new(scripts.join(script))
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("start scripts/{script}"))?;
    ensure!(
        status.success(),
        "scripts/{script} did not get what it should"
    );
    Ok(())
}
