//! Data goes to standard output, everything else to standard error.
//!
//! A reader that went away (`standfast show events | head`) is no error.

use std::io::Write as _;

/// Data, as is.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

/// Data, with a line's end.
pub(crate) fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// A document, indented for people who look at it.
pub(crate) fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A remark for the person, with a line's end.
pub(crate) fn note(text: &str) {
    let _ = std::io::stderr()
        .lock()
        .write_all(format!("{text}\n").as_bytes());
}
