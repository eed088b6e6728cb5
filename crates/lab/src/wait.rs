//! Waiting for conditions. No sleep stands for an event that could be seen.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(25);

/// Asks again until `ask` answers with a value; an error of `ask` is the reason for "not yet" and
/// is told when the deadline passes.
pub async fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut ask: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let begun = Instant::now();
    let mut last = "it was never asked to the end".to_owned();
    loop {
        let left = deadline.saturating_sub(begun.elapsed());
        match tokio::time::timeout(left, ask()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => {}
        }
        if begun.elapsed() >= deadline {
            bail!("not within {deadline:?}: {what}; at the end: {last}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until a plain question is answered with yes.
pub async fn until(what: &str, deadline: Duration, mut ask: impl FnMut() -> bool) -> Result<()> {
    eventually(what, deadline, async || {
        if ask() { Ok(()) } else { bail!("still no") }
    })
    .await
}
