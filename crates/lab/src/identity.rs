//! As whom the processes of a lab run. PostgreSQL refuses root, so root becomes `postgres`.

use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// The user of everything that runs in a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// We are an ordinary user already.
    Oneself { name: String },
    /// We are root and step down.
    SteppedDown { name: String, uid: u32, gid: u32 },
}

impl Identity {
    /// `postgres` when we are root, else ourselves.
    pub fn choose() -> Result<Self> {
        let me = id("-un", None)?;
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Oneself { name: me });
        }
        let user = "postgres";
        let number = |what| -> Result<u32> {
            id(what, Some(user))
                .context("there is no user postgres: run `make setup`")?
                .parse()
                .context("id printed no number")
        };
        Ok(Self::SteppedDown {
            name: user.to_owned(),
            uid: number("-u")?,
            gid: number("-g")?,
        })
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Oneself { name } | Self::SteppedDown { name, .. } => name,
        }
    }

    /// The words to put before a command so that it runs as this user.
    pub(crate) fn prefix(&self) -> Vec<String> {
        match self {
            Self::Oneself { .. } => Vec::new(),
            Self::SteppedDown { uid, gid, .. } => vec![
                "setpriv".to_owned(),
                format!("--reuid={uid}"),
                format!("--regid={gid}"),
                "--init-groups".to_owned(),
                "--".to_owned(),
            ],
        }
    }

    /// Gives a file or directory to this user.
    pub fn own(&self, path: &Path) -> Result<()> {
        match self {
            Self::Oneself { .. } => Ok(()),
            Self::SteppedDown { uid, gid, name } => {
                std::os::unix::fs::chown(path, Some(*uid), Some(*gid))
                    .with_context(|| format!("give {} to {name}", path.display()))
            }
        }
    }
}

fn id(what: &str, user: Option<&str>) -> Result<String> {
    let text = crate::run_to_end(Command::new("id").arg(what).args(user))?;
    Ok(text.trim().to_owned())
}
