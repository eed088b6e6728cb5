//! A real etcd cluster on loopback, whose members can be killed, frozen and started again.

use super::certificates::{Authority, Files, replace};
use super::{PATIENCE, eventually, follow_log, free_port};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use store::{EtcdOptions, EtcdStore, EtcdTls, Store};

#[derive(Debug)]
pub(crate) struct Etcd {
    home: tempfile::TempDir,
    members: Vec<Member>,
    /// How many it was founded by.
    founders: usize,
    authority: Option<Authority>,
}

#[derive(Debug)]
struct Member {
    name: String,
    client: u16,
    peer: u16,
    process: Mutex<Option<Child>>,
}

impl Member {
    fn new(number: usize) -> Self {
        Self {
            name: format!("m{number}"),
            client: free_port(),
            peer: free_port(),
            process: Mutex::new(None),
        }
    }

    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer)
    }
}

impl Etcd {
    pub(crate) async fn of(count: usize) -> Self {
        Self::start(count, None).await
    }

    /// Clients must show a certificate.
    pub(crate) async fn with_tls(count: usize) -> Self {
        Self::start(count, Some(Authority::new())).await
    }

    async fn start(count: usize, authority: Option<Authority>) -> Self {
        follow_log();
        let member = Member::new;
        let etcd = Self {
            home: tempfile::tempdir().expect("a directory"),
            members: (0..count).map(member).collect(),
            founders: count,
            authority,
        };
        etcd.write_certificates();
        (0..count).for_each(|at| etcd.run(at));
        let store = etcd.store();
        eventually("etcd answers", async || store.read("/").await.is_ok()).await;
        etcd
    }

    fn scheme(&self) -> &'static str {
        self.authority.as_ref().map_or("http", |_| "https")
    }

    fn files(&self, name: &str) -> Files {
        Files::at(self.home.path(), name)
    }

    fn write_certificates(&self) {
        let Some(authority) = &self.authority else {
            return;
        };
        for name in ["server", "client"] {
            let files = self.files(name);
            files.replace(&authority.sign(&["127.0.0.1"]));
            replace(&files.authority, &authority.pem);
        }
    }

    /// Starts a member, for the first time or again.
    pub(crate) fn run(&self, at: usize) {
        let member = &self.members[at];
        let scheme = self.scheme();
        let client = format!("{scheme}://127.0.0.1:{}", member.client);
        let (all, state) = match at < self.founders {
            true => (&self.members[..self.founders], "new"),
            // Those that have left are not among them; a member that is there already needs no list.
            false => (&self.members[at - self.founders + 1..=at], "existing"),
        };
        let all: Vec<_> = all
            .iter()
            .map(|it| format!("{}={}", it.name, it.peer_url()))
            .collect();
        let log = self.home.path().join(format!("{}.log", member.name));
        let log = File::options().create(true).append(true).open(log);
        let log = log.expect("a log");
        let (own, all) = (member.peer_url(), all.join(","));
        // It must not outlive the test, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "etcd", "--logger", "zap"]);
        command.args(["--name", &member.name]).arg("--data-dir");
        command.arg(self.home.path().join(&member.name));
        command.args(["--listen-client-urls", &client]);
        command.args(["--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &own]);
        command.args(["--initial-advertise-peer-urls", &own]);
        command.args(["--initial-cluster", &all]);
        command.args(["--initial-cluster-state", state]);
        // Members come and go within seconds here.
        command.arg("--strict-reconfig-check=false");
        if self.authority.is_some() {
            let files = self.files("server");
            command.arg("--cert-file").arg(files.certificate);
            command.arg("--key-file").arg(files.key);
            command.arg("--trusted-ca-file").arg(files.authority);
            command.arg("--client-cert-auth");
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().expect("setpriv");
        *member.process.lock().expect("not poisoned") = Some(child);
    }

    /// A new member takes the place of the oldest, which is removed and killed.
    pub(crate) async fn replace_oldest(&mut self) {
        let oldest = self.members.len() - self.founders;
        let asked = oldest + 1;
        let listed = self.ctl(asked, &["member", "list"]);
        let name = format!(" {},", self.members[oldest].name);
        let line = listed.lines().find(|line| line.contains(&name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {listed}"));
        let id = line.split(',').next().expect("an id").to_owned();
        eventually("a member is removed", async || {
            self.try_ctl(asked, &["member", "remove", &id]).is_ok()
        })
        .await;
        self.kill(oldest);
        let new = Member::new(self.members.len());
        let peer = format!("--peer-urls={}", new.peer_url());
        eventually("a member is added", async || {
            self.try_ctl(asked, &["member", "add", &new.name, &peer])
                .is_ok()
        })
        .await;
        self.members.push(new);
        let at = self.members.len() - 1;
        self.run(at);
        let own = self.store_of(at);
        eventually("the new member answers", async || {
            own.read("/").await.is_ok()
        })
        .await;
    }

    pub(crate) fn kill(&self, at: usize) {
        let process = self.members[at]
            .process
            .lock()
            .expect("not poisoned")
            .take();
        let mut process = process.expect("running");
        process.kill().expect("killed");
        process.wait().expect("ended");
    }

    /// SIGSTOP and SIGCONT.
    pub(crate) fn freeze(&self, at: usize) {
        self.signal(at, rustix::process::Signal::STOP);
    }

    pub(crate) fn thaw(&self, at: usize) {
        self.signal(at, rustix::process::Signal::CONT);
    }

    fn signal(&self, at: usize, signal: rustix::process::Signal) {
        let process = self.members[at].process.lock().expect("not poisoned");
        let pid = rustix::process::Pid::from_child(process.as_ref().expect("running"));
        rustix::process::kill_process(pid, signal).expect("signalled");
    }

    pub(crate) fn address(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.members[at].client)
    }

    /// With certificates, if the cluster has them.
    pub(crate) fn options(&self) -> EtcdOptions {
        self.options_from(0)
    }

    /// The same, asking the member `first` first.
    pub(crate) fn options_from(&self, first: usize) -> EtcdOptions {
        let count = self.members.len();
        let all = (0..count).map(|at| self.address((first + at) % count));
        let mut options = EtcdOptions::new(all.collect(), "/");
        options.tls = self.tls("client");
        options
    }

    pub(crate) fn tls(&self, name: &str) -> Option<EtcdTls> {
        let files = self.files(name);
        self.authority.as_ref().map(|_| EtcdTls {
            authority: files.authority,
            client: Some((files.certificate, files.key)),
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn store(&self) -> EtcdStore {
        EtcdStore::new(self.options()).expect("members")
    }

    pub(crate) fn store_from(&self, first: usize) -> EtcdStore {
        EtcdStore::new(self.options_from(first)).expect("members")
    }

    /// Knows of the member `at` alone.
    pub(crate) fn store_of(&self, at: usize) -> EtcdStore {
        let mut options = self.options_from(at);
        options.members.truncate(1);
        EtcdStore::new(options).expect("a member")
    }

    fn client_arguments(&self) -> Vec<String> {
        if self.authority.is_none() {
            return Vec::new();
        }
        let files = self.files("client");
        let flag = |name: &str, path: &std::path::Path| format!("--{name}={}", path.display());
        vec![
            flag("cacert", &files.authority),
            flag("cert", &files.certificate),
            flag("key", &files.key),
        ]
    }

    /// etcd's own command line, on the member `at`.
    pub(crate) fn ctl(&self, at: usize, arguments: &[&str]) -> String {
        self.try_ctl(at, arguments)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    fn try_ctl(&self, at: usize, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args([
                "--endpoints",
                &format!("{}://{}", self.scheme(), self.address(at)),
            ])
            .args(self.client_arguments())
            .args(arguments)
            .output()
            .expect("etcdctl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(text),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// The member that leads.
    pub(crate) async fn leader(&self) -> usize {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            for at in 0..self.members.len() {
                if self.members[at]
                    .process
                    .lock()
                    .expect("not poisoned")
                    .is_none()
                {
                    continue;
                }
                let status = self.ctl(at, &["endpoint", "status", "--write-out", "fields"]);
                let field = |name: &str| {
                    let line = status.lines().find(|line| line.starts_with(name));
                    line.and_then(|line| line.rsplit(' ').next())
                        .map(str::to_owned)
                };
                let leader = field("\"Leader\"");
                if leader.is_some() && leader == field("\"MemberID\"") {
                    return at;
                }
            }
            assert!(tokio::time::Instant::now() < deadline, "no leader");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &self.members {
            if let Ok(mut process) = member.process.lock()
                && let Some(mut process) = process.take()
            {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if std::thread::panicking() && std::env::var_os("STORE_TEST_LOG").is_some() {
            for member in &self.members {
                let log = self.path(&format!("{}.log", member.name));
                let text = std::fs::read_to_string(log).unwrap_or_default();
                let _ = writeln!(std::io::stderr(), "{}:\n{text}", member.name);
            }
        }
    }
}
