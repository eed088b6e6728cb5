//! A place of its own for each test: directories, free ports, and the program run in it.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use tempfile::TempDir;

pub(crate) struct Home {
    dir: TempDir,
}

/// A test that fails leaves nothing running.
impl Drop for Home {
    fn drop(&mut self) {
        let left = lab::Selection::Directory(self.dir.path().to_owned());
        let ended = left.kill_all(std::time::Duration::from_secs(20));
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// What a command said, and its exit code.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Run by root, the program goes on as another user, who needs room here too.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn secret(&self) -> Vec<u8> {
        std::fs::read(self.path("config/standfast/secret"))
            .unwrap()
            .trim_ascii()
            .to_vec()
    }

    /// The configuration that `create` wrote for a directory of this home.
    pub(crate) fn config_file(&self, pgdata: &str) -> PathBuf {
        let real = self.dir.path().canonicalize().unwrap().join(pgdata);
        let relative = real.strip_prefix("/").unwrap().to_owned();
        self.path("config/standfast")
            .join(relative)
            .join("standfast.yml")
    }

    /// To the user that root becomes in tests, as in life.
    pub(crate) fn give_away(&self, file: &Path) {
        if rustix::process::geteuid().is_root() {
            let given = Command::new("chown").arg("postgres").arg(file).status();
            assert!(given.unwrap().success());
        }
    }

    pub(crate) fn run(&self, line: &str) -> Said {
        self.run_from(self.dir.path(), line)
    }

    pub(crate) fn run_from(&self, dir: &Path, line: &str) -> Said {
        Said::of(&self.command(dir, line).output().unwrap())
    }

    /// Runs it by its other name.
    pub(crate) fn patronictl(&self, line: &str) -> Said {
        let mut command = self.command(self.dir.path(), line);
        Said::of(&command.arg0("patronictl").output().unwrap())
    }

    /// Runs it in the background; what it says on standard error goes to the file `log`.
    pub(crate) fn start(&self, line: &str) -> Child {
        self.start_with_log(line, "log")
    }

    pub(crate) fn start_with_log(&self, line: &str, log: &str) -> Child {
        let log = std::fs::File::create(self.path(log)).unwrap();
        let mut command = self.command(self.dir.path(), line);
        command.stdout(Stdio::null()).stderr(log);
        command.spawn().unwrap()
    }

    fn command(&self, dir: &Path, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_standfast"));
        command
            .args(line.split_whitespace())
            .current_dir(dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // Root that becomes another user forgets what lies below root's own home.
            .env("HOME", self.path("home"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_DATA_HOME", self.path("data"))
            .stdin(Stdio::null());
        command
    }

    /// Runs it and insists on the exit code.
    pub(crate) fn expect(&self, code: i32, line: &str) -> Said {
        let said = self.run(line);
        assert_eq!(said.code, code, "{line}\n{}{}", said.out, said.err);
        said
    }
}

/// A port below those that the system hands out, free a moment ago, and 1000 above it too.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + u16::try_from(std::process::id() % 5_000).unwrap();
    loop {
        let port = start + NEXT.fetch_add(7, Ordering::Relaxed) % 6_000;
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 1000) {
            return port;
        }
    }
}
