//! Patroni's own programs, which end-to-end tests run beside ours, as `scripts/patroni.sh` finds or fetches them.

use anyhow::{Context, Result, ensure};
use std::process::{Command, Stdio};

/// Has them ready. If that fails, the tests that need them say so; only root can run those.
pub(crate) fn have() {
    if !crate::reach::is_root() {
        return;
    }
    if let Err(error) = fetch() {
        crate::tests::say(&format!("{error:#}"));
    }
}

fn fetch() -> Result<()> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/patroni.sh");
    let status = Command::new(script)
        .stdout(Stdio::null())
        .status()
        .context("start scripts/patroni.sh")?;
    ensure!(status.success(), "there is no Patroni");
    Ok(())
}
