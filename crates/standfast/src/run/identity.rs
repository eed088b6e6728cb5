//! Tells two installations with one name apart: a random text, made once.

use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The identity in the state directory, made at the first start.
pub(crate) fn load_or_make(state_dir: &Path) -> Result<String> {
    let path = state_dir.join("identity");
    if let Ok(text) = fs::read_to_string(&path)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    fs::create_dir_all(state_dir).with_context(|| format!("can't make {}", state_dir.display()))?;
    let mut text = String::new();
    for byte in rand::random::<[u8; 16]>() {
        let _ = write!(text, "{byte:02x}");
    }
    crate::config::write_private(&path, text.as_bytes())
        .with_context(|| format!("can't write {}", path.display()))?;
    Ok(text)
}
