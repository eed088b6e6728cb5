//! The lab as a whole: its directory, its network and its hosts, and how a piece of code gets to
//! stand inside it.

use crate::program::within_reach;
use crate::shared_copy::SharedCopy;
use crate::{Host, Identity, Network, postgres_bin_dir, sockets};
use anyhow::{Context, Result, anyhow, bail};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// On what the hosts stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Each host in namespaces of its own on a bridge. Needs root.
    Namespaces,
    /// All hosts on 127.0.0.1 with ports of their own.
    Loopback,
}

/// A place to build clusters in. See the crate's invariant.
#[derive(Debug)]
pub struct Lab {
    // In the order in which they must go.
    hosts: Vec<Arc<Host>>,
    network: Option<Network>,
    directory: Option<tempfile::TempDir>,
    path: PathBuf,
    binary: PathBuf,
    #[allow(
        dead_code,
        reason = "the copy goes with the last lab that it is linked to"
    )]
    copy: Arc<SharedCopy>,
    pg_bin: PathBuf,
    identity: Identity,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Why no lab can stand in namespaces here, or nothing.
pub fn why_no_namespaces() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let missing: Vec<_> = ["ip", "nsenter", "unshare", "setpriv"]
        .into_iter()
        .filter(|program| {
            !["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/bin"]
                .iter()
                .any(|directory| Path::new(directory).join(program).exists())
        })
        .collect();
    (!missing.is_empty()).then(|| format!("{} missing: run `make setup`", missing.join(", ")))
}

impl Lab {
    /// An empty lab that will run `binary` (a `standfast`).
    pub fn new(place: Place, binary: &Path) -> Result<Self> {
        Self::within(place, binary, &std::env::temp_dir(), None)
    }

    /// The same, with its directory inside `parent`, and other PostgreSQL programs if wanted.
    pub fn within(
        place: Place,
        binary: &Path,
        parent: &Path,
        pg_bin: Option<PathBuf>,
    ) -> Result<Self> {
        let identity = Identity::choose()?;
        let pg_bin = pg_bin.map_or_else(postgres_bin_dir, Ok)?;
        let directory = tempfile::Builder::new()
            .prefix("standfast-")
            .tempdir_in(parent)
            .with_context(|| format!("create a directory in {}", parent.display()))?;
        let path = directory.path().to_owned();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        identity.own(&path)?;
        let pg_bin = within_reach(pg_bin, &identity, &path)?;
        // A copy, because the user of the lab may not be able to reach our own.
        let own = path.join("standfast");
        let copy = SharedCopy::of(binary, parent)?;
        copy.link(&own)?;
        let network = match place {
            Place::Loopback => None,
            Place::Namespaces => {
                if let Some(why) = why_no_namespaces() {
                    bail!(why);
                }
                Some(Network::build(COUNT.fetch_add(1, Ordering::Relaxed))?)
            }
        };
        Ok(Self {
            hosts: Vec::new(),
            network,
            directory: Some(directory),
            path,
            binary: own,
            copy,
            pg_bin,
            identity,
        })
    }

    pub fn place(&self) -> Place {
        if self.network.is_some() {
            Place::Namespaces
        } else {
            Place::Loopback
        }
    }

    /// The lab's own directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The `standfast` of this lab.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    pub fn pg_bin(&self) -> &Path {
        &self.pg_bin
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    pub fn network(&self) -> Result<&Network> {
        self.network
            .as_ref()
            .context("this lab stands on loopback: it has no cables to pull")
    }

    /// A new host; the number is the last part of its address in namespaces.
    pub fn add_host(&mut self, name: &str, number: u8) -> Result<Arc<Host>> {
        let address = match &mut self.network {
            None => "127.0.0.1".to_owned(),
            Some(network) => {
                let address = format!("10.77.0.{number}");
                network.plug(name, &address)?;
                address
            }
        };
        let host = Arc::new(Host::new(
            name,
            &address,
            self.path.join(name),
            self.identity.clone(),
            self.pg_bin.clone(),
            self.network.as_ref(),
        )?);
        self.hosts.push(Arc::clone(&host));
        Ok(host)
    }

    /// Programs of another PostgreSQL, where the user of the lab can reach them.
    pub fn programs(&self, pg_bin: PathBuf) -> Result<PathBuf> {
        within_reach(pg_bin, &self.identity, &self.path)
    }

    /// Runs `story` at the client's place, on a thread and a runtime of its own.
    /// The lab is given back so that its logs can be read before it goes.
    pub fn run<T: Send + 'static>(
        mut self,
        story: impl AsyncFnOnce(&mut Self) -> Result<T> + Send + 'static,
    ) -> (Self, Result<T>) {
        let thread = std::thread::Builder::new()
            .name("lab".to_owned())
            .spawn(move || {
                let played = catch_unwind(AssertUnwindSafe(|| {
                    self.enter()
                        .and_then(|runtime| runtime.block_on(story(&mut self)))
                }));
                let outcome =
                    played.unwrap_or_else(|panic| Err(anyhow!("panicked: {}", said(&panic))));
                (self, outcome)
            });
        match thread.map(std::thread::JoinHandle::join) {
            Ok(Ok(finished)) => finished,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => panic!("no thread for the lab: {error}"),
        }
    }

    fn enter(&self) -> Result<tokio::runtime::Runtime> {
        if let Some(network) = &self.network {
            network.enter_as_client()?;
        }
        // Writers must not wait for the story, which blocks while it kills and mounts: they run on
        // threads of their own, started from this one and so in its place.
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("build the runtime of the lab")
    }

    /// Leaves directory and processes as they are; the caller takes them over.
    pub fn leave_running(mut self) -> PathBuf {
        for host in self.hosts.drain(..) {
            std::mem::forget(host);
        }
        if let Some(directory) = self.directory.take() {
            let _ = directory.keep();
        }
        self.path.clone()
    }
}

fn said(panic: &Box<dyn std::any::Any + Send>) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "without a word".to_owned())
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in &self.hosts {
            let _ = host.thaw();
            let _ = host.kill_everything();
        }
        if !self.hosts.is_empty() {
            sockets::sweep(&self.path);
        }
    }
}
