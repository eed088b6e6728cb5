//! The programs that Postgres waits for, `pre_promote` and `before_stop`, which note that they ran.

use anyhow::{Result, bail};
use lab::Lab;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One program for both, on every node. It lies in the lab's directory with what it wrote.
#[derive(Debug)]
pub struct Hooks {
    directory: PathBuf,
    /// How many runs were told of.
    told: AtomicUsize,
}

impl Hooks {
    pub fn of(lab: &Lab) -> Self {
        Self {
            directory: lab.path().join("hooks"),
            told: AtomicUsize::new(0),
        }
    }

    pub(crate) fn configuration(&self) -> String {
        let program = self.directory.join("program");
        ["pre_promote", "before_stop"]
            .map(|hook| format!("  {hook}: {} {hook} NAME\n", program.display()))
            .concat()
    }

    /// It does what `<hook>-<node>` says, if there is such a file.
    pub(crate) fn place(&self, lab: &Lab) -> Result<()> {
        fs::create_dir(&self.directory)?;
        lab.identity().own(&self.directory)?;
        let program = self.directory.join("program");
        let directory = self.directory.display();
        let text = format!(
            "#!/bin/sh\necho \"$1 $2\" >> {directory}/ran\n\
             if [ -e {directory}/$1-$2 ]; then . {directory}/$1-$2; fi\n"
        );
        fs::write(&program, text)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// From now on `hook` of `node` runs these lines of a shell; none: it succeeds.
    pub fn shall(&self, hook: &str, node: &str, lines: &str) -> Result<()> {
        Ok(fs::write(
            self.directory.join(format!("{hook}-{node}")),
            lines,
        )?)
    }

    /// Which hooks ran where since this was asked last.
    pub fn ran(&self) -> Result<Vec<String>> {
        let file = self.directory.join("ran");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => bail!("{}: {error}", file.display()),
        };
        let whole = text.split_inclusive('\n').filter(|it| it.ends_with('\n'));
        let ran: Vec<_> = whole.map(|it| it.trim_end().to_owned()).collect();
        let told = self.told.swap(ran.len(), Ordering::Relaxed);
        Ok(ran.get(told..).unwrap_or_default().to_vec())
    }
}
