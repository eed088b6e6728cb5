//! Disks of a host that can fill up or hang: a small tmpfs, or ext4 on a loop device.

use crate::processes::Selection;
use crate::{Host, run_to_end};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What a directory of a host stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Whatever the lab's own directory stands on.
    Shared,
    /// Memory, so small that it can be filled.
    Tmpfs { megabytes: u32 },
    /// A file system of its own that can be frozen.
    Ext4 { megabytes: u32 },
}

impl Host {
    /// Mounts a disk of its own at `path` (made if absent), inside the host only.
    pub fn mount(&self, disk: Disk, path: &Path) -> Result<()> {
        fs::create_dir_all(self.outside(path))
            .with_context(|| format!("create {}", path.display()))?;
        match disk {
            Disk::Shared => {}
            Disk::Tmpfs { megabytes } => {
                let size = format!("size={megabytes}m,mode=0755");
                run_to_end(
                    self.as_root("mount")?
                        .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                        .arg(path),
                )?;
            }
            Disk::Ext4 { megabytes } => {
                let image = self.directory().join("disk.img");
                let file = fs::File::create(&image)?;
                file.set_len(u64::from(megabytes) << 20)?;
                run_to_end(
                    Command::new("mkfs.ext4")
                        .args(["-q", "-F", "-m", "0"])
                        .arg(&image),
                )?;
                run_to_end(
                    self.as_root("mount")?
                        .args(["-o", "loop"])
                        .arg(&image)
                        .arg(path),
                )?;
            }
        }
        self.identity().own(&self.outside(path))
    }

    /// Makes every write to the file system at `path` hang.
    pub fn hang_disk(&self, path: &Path) -> Result<()> {
        run_to_end(self.as_root("fsfreeze")?.arg("--freeze").arg(path)).map(drop)
    }

    /// Lets the writes go on.
    pub fn resume_disk(&self, path: &Path) -> Result<()> {
        run_to_end(self.as_root("fsfreeze")?.arg("--unfreeze").arg(path)).map(drop)
    }

    /// Fills the file system at `path` to its last block.
    pub fn fill_disk(&self, path: &Path) -> Result<()> {
        let file = path.join("bigfile");
        let mut dd = self.command("dd");
        dd.arg("if=/dev/zero")
            .arg(format!("of={}", file.display()))
            .arg("bs=1M");
        let output = dd.output().context("start dd")?;
        ensure!(
            !output.status.success(),
            "{} never got full",
            path.display()
        );
        Ok(())
    }

    /// Frees what [`Self::fill_disk`] took.
    pub fn free_disk(&self, path: &Path) -> Result<()> {
        let file = self.outside(&path.join("bigfile"));
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
    }
}

/// A frozen file system would keep its processes alive for ever: nothing can kill them.
pub(crate) fn thaw_whatever_is_frozen(holders: &Selection) {
    for process in holders.processes() {
        thaw_frozen_by(process.pid);
    }
}

/// Thaws the loop mounts that a process sees.
pub(crate) fn thaw_frozen_by(pid: i32) {
    let Ok(mounts) = fs::read_to_string(format!("/proc/{pid}/mounts")) else {
        return;
    };
    let loops = mounts.lines().filter(|line| line.starts_with("/dev/loop"));
    for path in loops.filter_map(|line| line.split(' ').nth(1)) {
        // Not frozen is the usual case, and an error of fsfreeze.
        let _ = Command::new("nsenter")
            .args([
                &format!("--target={pid}"),
                "--mount",
                "fsfreeze",
                "--unfreeze",
                path,
            ])
            .output();
    }
}
