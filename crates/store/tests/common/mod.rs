//! Whole clusters on loopback for the integration tests.

#![allow(dead_code, reason = "every test file uses its own part")]

pub(crate) mod certificates;
pub(crate) mod etcd;
pub(crate) mod log;

use certificates::{Authority, Files};
use ha::NodeName;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use store::{
    MemberInfo, Options, RaftStore, RemoteOptions, RemoteStore, Role, Secret, Start, Tls,
    TlsOptions,
};
use tokio::net::TcpListener;
use tokio::time::Instant;

pub(crate) const CLUSTER: &str = "test";

/// Long enough for a busy machine; a test that works never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn secret() -> Secret {
    Secret::new(b"the secret of the test cluster").expect("long enough")
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a plain name")
}

/// Waits for `condition`, asking every 10 ms.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// With STORE_TEST_LOG set, a failing test can be followed.
fn follow_log() {
    if std::env::var_os("STORE_TEST_LOG").is_some() {
        let max = tracing_subscriber::filter::LevelFilter::DEBUG;
        // The first test of a process has done it for all.
        let _ = tracing_subscriber::fmt()
            .with_max_level(max)
            .with_ansi(false)
            .try_init();
    }
}

/// A place for a member: a directory and an address that stay the same over restarts.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: NodeName,
    pub(crate) directory: PathBuf,
    pub(crate) address: String,
}

/// Members in this process, each on a port of its own.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) home: tempfile::TempDir,
    pub(crate) places: Vec<Place>,
    pub(crate) members: Vec<Option<RaftStore>>,
    pub(crate) tune: fn(&mut Options),
    /// Who signs the members' certificates, where they have some.
    pub(crate) authority: Option<Authority>,
}

/// A port that nobody listens on, below those that outgoing connections take.
fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes run side by side; each begins elsewhere.
    let start = 10_000 + u16::try_from(std::process::id() % 1000).expect("small") * 20;
    for _ in 0..2000 {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed) % 2000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

impl Cluster {
    pub(crate) fn planned(names: &[&str]) -> Self {
        follow_log();
        let home = tempfile::tempdir().expect("a directory");
        let place = |text: &&str| Place {
            name: name(text),
            directory: home.path().join(text),
            address: format!("127.0.0.1:{}", free_port()),
        };
        let places: Vec<_> = names.iter().map(place).collect();
        let members = names.iter().map(|_| None).collect();
        Self {
            home,
            places,
            members,
            tune: |_| {},
            authority: None,
        }
    }

    /// As [`Cluster::of`], with a certificate for each member.
    pub(crate) async fn with_tls(names: &[&str]) -> Self {
        let mut cluster = Self::planned(names);
        cluster.authority = Some(Authority::new());
        cluster.begin().await;
        cluster
    }

    /// All listed members found the cluster together.
    pub(crate) async fn of(names: &[&str]) -> Self {
        Self::tuned(names, |_| {}).await
    }

    pub(crate) async fn tuned(names: &[&str], tune: fn(&mut Options)) -> Self {
        let mut cluster = Self::planned(names);
        cluster.tune = tune;
        cluster.begin().await;
        cluster
    }

    pub(crate) async fn begin(&mut self) {
        for at in 0..self.places.len() {
            self.start(at, self.all()).await;
        }
        for at in 0..self.places.len() {
            self.member(at).ready(PATIENCE).await.expect("founded");
        }
    }

    /// The files of a member or client `name`, which are made when they are first asked for.
    pub(crate) fn files(&self, name: &str) -> Option<Files> {
        let authority = self.authority.as_ref()?;
        let files = Files::at(self.home.path(), name);
        if !files.certificate.exists() {
            let pair = authority.sign(&["127.0.0.1"]);
            files.replace(&pair);
            certificates::replace(&files.authority, &authority.pem);
        }
        Some(files)
    }

    pub(crate) fn tls(&self, name: &str) -> Option<Tls> {
        Some(tls(&self.files(name)?, true))
    }

    pub(crate) fn all(&self) -> Start {
        let list = self
            .places
            .iter()
            .map(|place| (place.name.clone(), place.address.clone()));
        Start::Members(list.collect::<BTreeMap<_, _>>())
    }

    pub(crate) fn options(&self, at: usize, start: Start) -> Options {
        let place = &self.places[at];
        let mut options = Options::new(
            &place.directory,
            CLUSTER,
            place.name.clone(),
            &place.address,
            secret(),
            start,
        );
        options.tls = self.tls(place.name.as_str());
        (self.tune)(&mut options);
        options
    }

    pub(crate) async fn start(&mut self, at: usize, start: Start) {
        self.start_with(at, self.options(at, start)).await;
    }

    pub(crate) async fn start_with(&mut self, at: usize, options: Options) {
        let store = RaftStore::start(options).await.expect("started");
        let listener = TcpListener::bind(&self.places[at].address)
            .await
            .expect("a free port");
        store.serve(listener).expect("listening");
        self.members[at] = Some(store);
    }

    pub(crate) async fn stop(&mut self, at: usize) {
        if let Some(store) = self.members[at].take() {
            store.shutdown().await;
        }
    }

    pub(crate) async fn stop_all(&mut self) {
        for at in 0..self.members.len() {
            self.stop(at).await;
        }
    }

    pub(crate) fn member(&self, at: usize) -> &RaftStore {
        self.members[at].as_ref().expect("running")
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (usize, &RaftStore)> {
        self.members
            .iter()
            .enumerate()
            .filter_map(|(at, store)| Some((at, store.as_ref()?)))
    }

    /// The running member that leads, once all agree.
    pub(crate) async fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut leaders = vec![];
            for (_, store) in self.running() {
                let members = store.members().await.unwrap_or_default();
                leaders.extend(members.into_iter().find(|m| m.leader).map(|m| m.id));
            }
            let count = self.running().count();
            if leaders.len() == count
                && leaders.windows(2).all(|two| two[0] == two[1])
                && let Some((at, _)) = self.running().find(|(_, store)| store.id() == leaders[0])
            {
                return at;
            }
            assert!(Instant::now() < deadline, "no leader");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn until(&self, at: usize, what: &str, holds: impl Fn(&[MemberInfo]) -> bool) {
        eventually(what, || async {
            self.member(at)
                .members()
                .await
                .is_ok_and(|members| holds(&members))
        })
        .await;
    }

    pub(crate) fn remote(&self) -> RemoteStore {
        let mut options = self.remote_options();
        options.tls = self.tls("client");
        RemoteStore::new(options)
    }

    /// A client without certificates.
    pub(crate) fn remote_plain(&self) -> RemoteStore {
        RemoteStore::new(self.remote_options())
    }

    fn remote_options(&self) -> RemoteOptions {
        let addresses = self.places.iter().map(|place| place.address.clone());
        RemoteOptions::new(addresses.collect(), CLUSTER, secret())
    }
}

/// Certificates of somebody whom others dial at 127.0.0.1.
pub(crate) fn tls(files: &Files, required: bool) -> Tls {
    Tls::load(TlsOptions {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        authority: files.authority.clone(),
        host: Some("127.0.0.1".into()),
        required,
    })
    .expect("good certificates")
}

pub(crate) fn voters(members: &[MemberInfo]) -> Vec<String> {
    let voters = members.iter().filter(|member| member.role == Role::Voter);
    voters.map(|member| member.name.clone()).collect()
}
